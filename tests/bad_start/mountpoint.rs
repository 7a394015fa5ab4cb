//! The mountpoint will not do: it is missing, in use, or dead.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::support::{Place, is_root, run, skip};

#[test]
fn a_mountpoint_that_is_missing() {
    let place = Place::new();
    std::fs::remove_dir(place.mountpoint()).expect("it is empty");
    run(&mut place.pailfs("s3://bucket")).is(32, &["/mnt does not exist; create the directory first"]);
}

#[test]
fn a_mountpoint_that_is_a_file() {
    let place = Place::new();
    std::fs::remove_dir(place.mountpoint()).expect("it is empty");
    std::fs::write(place.mountpoint(), "").expect("a file");
    run(&mut place.pailfs("s3://bucket")).is(32, &["/mnt is not a directory; name an existing empty directory"]);
}

#[test]
fn a_mountpoint_with_entries() {
    let place = Place::new();
    std::fs::write(place.mountpoint().join("entry"), "").expect("a file");
    run(&mut place.pailfs("s3://bucket")).is(32, &["/mnt is not empty", "-o nonempty"]);
}

/// A mount whose process is gone; unmounted when dropped.
struct DeadMount(PathBuf);

impl DeadMount {
    fn make(path: &Path, kind: &str) -> Self {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("root may open it");
        let text = |bytes: &[u8]| CString::new(bytes).expect("no NUL");
        let (source, kind) = (text(b"s3://bucket/dead"), text(kind.as_bytes()));
        let target = text(path.as_os_str().as_bytes());
        let data = text(format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd()).as_bytes());
        // SAFETY: all strings are terminated and live until the call returns.
        let answer = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
        DeadMount(path.to_owned())
    }

    fn is_dead(&self) -> bool {
        std::fs::metadata(&self.0).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        let path = CString::new(self.0.as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: the path is terminated and lives until the call returns.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    }
}

#[test]
fn a_dead_mount_of_ours_is_cleared_by_root_which_says_so() {
    if !is_root() {
        return skip("only root can make and clear a dead mount");
    }
    let place = Place::new();
    let dead = DeadMount::make(&place.mountpoint(), "fuse.pailfs");
    assert!(dead.is_dead());
    let said =
        run(place.pailfs("s3://bucket").args(["--no-sign-request", "--endpoint-url", "http://s3.pailfs.invalid"]));
    assert_eq!(said.code, Some(32), "{}", said.text);
    said.has(&["a dead mount was cleared away from", "host name"]);
    assert!(!dead.is_dead(), "it is gone");
}

#[test]
fn a_dead_mount_of_another_program_is_left_alone() {
    if !is_root() {
        return skip("only root can make a dead mount");
    }
    let place = Place::new();
    let dead = DeadMount::make(&place.mountpoint(), "fuse.other");
    run(&mut place.pailfs("s3://bucket")).is(32, &["holds a dead mount", "clear it with: umount -l /"]);
    assert!(dead.is_dead(), "it is still there");
}
