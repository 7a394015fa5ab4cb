//! Every call that is refused, with the errno that its caller sees, and that programs which try such calls first
//! still do their work.

use std::ffi::{CString, c_int};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::common::{Mount, TestServer};

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path")
}

/// Errno of a call that failed; `None` if it succeeded.
fn errno(result: c_int) -> Option<i32> {
    if result < 0 { std::io::Error::last_os_error().raw_os_error() } else { None }
}

fn mount_with_a_file() -> (TestServer, Mount) {
    let server = TestServer::start();
    let mount = server.mount();
    std::fs::write(mount.path("f"), "0123456789").expect("a file");
    (server, mount)
}

#[test]
fn hard_links_are_not_supported() {
    let (server, mount) = mount_with_a_file();
    let (file, new) = (text(&mount.path("f")), text(&mount.path("new")));
    // SAFETY: the paths are terminated strings that live through the call.
    assert_eq!(unsafe { errno(libc::link(file.as_ptr(), new.as_ptr())) }, Some(libc::ENOTSUP));
    assert_eq!(server.objects().list(), ["f"]);
}

#[test]
fn special_files_are_not_supported_with_basic_metadata() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metadata=basic"]);
    let new = text(&mount.path("new"));
    // SAFETY: the path is a terminated string that lives through the calls.
    let answers = unsafe {
        [
            ("mkfifo", errno(libc::mkfifo(new.as_ptr(), 0o600))),
            ("mknod of a socket", errno(libc::mknod(new.as_ptr(), libc::S_IFSOCK | 0o600, 0))),
        ]
    };
    for (call, answer) in answers {
        assert_eq!(answer, Some(libc::ENOTSUP), "{call}");
    }
    // SAFETY: as above; makedev takes numbers.
    let device = unsafe { errno(libc::mknod(new.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 3))) };
    assert!(matches!(device, Some(libc::ENOTSUP | libc::EPERM)), "mknod of a device: {device:?}");
    assert!(server.objects().list().is_empty());
}

#[test]
fn mknod_of_a_regular_file_makes_one() {
    let (server, mount) = mount_with_a_file();
    let new = text(&mount.path("new"));
    // SAFETY: the path is a terminated string that lives through the call.
    assert_eq!(unsafe { errno(libc::mknod(new.as_ptr(), libc::S_IFREG | 0o640, 0)) }, None);
    std::fs::write(mount.path("new"), "x").expect("it can be written");
    assert_eq!(server.objects().text("new"), "x");
}

#[test]
fn extended_attributes_are_not_supported() {
    let (_server, mount) = mount_with_a_file();
    let (file, name) = (text(&mount.path("f")), c"user.note");
    let mut room = [0u8; 64];
    // SAFETY: strings and buffers live through the calls, and the lengths are theirs.
    unsafe {
        for round in ["first", "second"] {
            let set = libc::setxattr(file.as_ptr(), name.as_ptr(), c"x".as_ptr().cast(), 1, 0);
            assert_eq!(errno(set), Some(libc::ENOTSUP), "{round} setxattr");
            let get = libc::getxattr(file.as_ptr(), name.as_ptr(), room.as_mut_ptr().cast(), room.len());
            assert_eq!(errno(get as c_int), Some(libc::ENOTSUP), "{round} getxattr");
            let list = libc::listxattr(file.as_ptr(), room.as_mut_ptr().cast(), room.len());
            assert!(matches!(errno(list as c_int), Some(libc::ENOTSUP) | None), "{round} listxattr");
            let remove = libc::removexattr(file.as_ptr(), name.as_ptr());
            assert_eq!(errno(remove), Some(libc::ENOTSUP), "{round} removexattr");
        }
    }
}

#[test]
fn renames_with_exchange_or_whiteout_are_not_supported() {
    let (server, mount) = mount_with_a_file();
    std::fs::write(mount.path("g"), "other").expect("a file");
    for (flag, name) in [(libc::RENAME_EXCHANGE, "EXCHANGE"), (libc::RENAME_WHITEOUT, "WHITEOUT")] {
        let answer = rename(&mount.path("f"), &mount.path("g"), flag);
        assert_eq!(answer, Some(libc::ENOTSUP), "{name}");
    }
    assert_eq!(server.objects().text("f"), "0123456789");
    assert_eq!(server.objects().text("g"), "other");
}

#[test]
fn a_rename_that_must_not_replace_does_not() {
    let (server, mount) = mount_with_a_file();
    std::fs::write(mount.path("g"), "other").expect("a file");
    assert_eq!(rename(&mount.path("f"), &mount.path("g"), libc::RENAME_NOREPLACE), Some(libc::EEXIST));
    assert_eq!(server.objects().text("g"), "other");
    assert_eq!(rename(&mount.path("f"), &mount.path("h"), libc::RENAME_NOREPLACE), None);
    assert_eq!(server.objects().list(), ["g", "h"]);
}

#[test]
fn a_rename_that_must_not_replace_loses_to_a_client_that_makes_the_name_meanwhile() {
    let server = TestServer::start();
    let mount = server.mount_with(&["negative_ttl=600"]);
    for (name, bytes) in [("empty", ""), ("small", "0123456789")] {
        let theirs = format!("{name}.moved");
        std::fs::write(mount.path(name), bytes).expect("a file");
        assert!(!mount.path(&theirs).exists());
        // The mount believes for ten minutes that there is no such name.
        server.objects().put(&theirs, "theirs");
        assert_eq!(rename(&mount.path(name), &mount.path(&theirs), libc::RENAME_NOREPLACE), Some(libc::EEXIST));
        assert_eq!(server.objects().text(&theirs), "theirs");
        assert_eq!(server.objects().text(name), bytes);
        assert_eq!(std::fs::read_to_string(mount.path(&theirs)).expect("a read"), "theirs");
    }
}

fn rename(from: &Path, to: &Path, flags: u32) -> Option<i32> {
    let (from, to) = (text(from), text(to));
    // SAFETY: the paths are terminated strings that live through the call.
    let result =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags as libc::c_uint) };
    errno(result)
}

#[test]
fn files_without_a_name_are_not_supported() {
    let (_server, mount) = mount_with_a_file();
    let dir = text(&mount.path(""));
    // SAFETY: the path is a terminated string that lives through the call.
    let answer = unsafe { errno(libc::open(dir.as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600)) };
    assert_eq!(answer, Some(libc::ENOTSUP));
}

#[test]
fn fallocate_does_what_a_staged_file_can_and_refuses_the_rest() {
    let (server, mount) = mount_with_a_file();
    let file = std::fs::File::options().read(true).write(true).open(mount.path("f")).expect("an open file");
    // SAFETY: the descriptor is open; the rest are numbers.
    let fallocate = |mode, at, len| unsafe { errno(libc::fallocate(file.as_raw_fd(), mode, at, len)) };
    assert_eq!(fallocate(0, 0, 20), None, "growing");
    assert_eq!(file.metadata().map(|m| m.len()).ok(), Some(20));
    assert_eq!(fallocate(libc::FALLOC_FL_KEEP_SIZE, 0, 4096), None, "keeping the size");
    assert_eq!(file.metadata().map(|m| m.len()).ok(), Some(20));
    assert_eq!(fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 2, 3), None, "a hole");
    for (mode, name) in [(libc::FALLOC_FL_COLLAPSE_RANGE, "COLLAPSE"), (libc::FALLOC_FL_INSERT_RANGE, "INSERT")] {
        assert_eq!(fallocate(mode, 0, 4096), Some(libc::ENOTSUP), "{name}");
    }
    drop(file);
    assert_eq!(server.objects().get("f").as_deref(), Some(&b"01\x00\x00\x0056789\0\0\0\0\0\0\0\0\0\0"[..]));
}

#[test]
fn clones_and_flags_are_not_supported() {
    /// `FICLONE` of ioctl_ficlone(2): `_IOW(0x94, 9, int)`.
    const FICLONE: libc::Ioctl = 0x4004_9409;
    /// `FS_IOC_GETFLAGS` of ioctl_iflags(2): `_IOR('f', 1, long)`.
    const GETFLAGS: libc::Ioctl = 0x8008_6601;
    let (_server, mount) = mount_with_a_file();
    let source = std::fs::File::open(mount.path("f")).expect("an open file");
    let target = std::fs::File::create(mount.path("g")).expect("an open file");
    let mut flags: libc::c_long = 0;
    // SAFETY: the descriptors are open, and FS_IOC_GETFLAGS writes one long at most.
    let (clone, get) = unsafe {
        let clone = libc::ioctl(target.as_raw_fd(), FICLONE, source.as_raw_fd());
        (errno(clone), errno(libc::ioctl(source.as_raw_fd(), GETFLAGS, &mut flags)))
    };
    assert!(matches!(clone, Some(libc::ENOTSUP | libc::ENOTTY)), "FICLONE: {clone:?}");
    assert_eq!(get, Some(libc::ENOTTY), "FS_IOC_GETFLAGS");
}

#[test]
fn programs_that_try_refused_calls_first_still_work() {
    let (server, mount) = mount_with_a_file();
    mount.sh("mkdir $LOCAL/d; echo a > $LOCAL/d/a; ln -s a $LOCAL/d/link
         cp -a f copied; cp --preserve=mode,timestamps f kept; cp --reflink=auto f cloned; install -m 600 f installed
         cp -a $LOCAL/d .; grep -x a d/link; tar -C $LOCAL -cf $LOCAL/d.tar d; rm -r d; tar -xf $LOCAL/d.tar; grep -x a d/a
         tar --xattrs --acls -cf again.tar d/a; tar --xattrs --acls -xf again.tar; ls -l f > /dev/null
         ! ln f s 2> $LOCAL/why; grep -i 'not supported' $LOCAL/why");
    for name in ["copied", "kept", "cloned", "installed"] {
        assert_eq!(server.objects().text(name), "0123456789", "{name}");
    }
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let server = TestServer::start();
    server.objects().put("d/f", "x");
    let mount = server.mount_with(&["ro"]);
    let before = server.objects().list();
    for script in [
        "echo y > d/f",
        "echo y > new",
        "rm d/f",
        "mkdir e",
        "rmdir d",
        "mv d/f g",
        "chmod 600 d/f",
        "truncate -s 0 d/f",
        "touch -d @5 d/f",
        "ln -s f d/l",
        "mkfifo d/p",
    ] {
        let finished = mount.shell().attempt(script);
        assert!(
            !finished.status.success() && finished.stderr.contains("Read-only file system"),
            "{script}: {finished:?}"
        );
    }
    assert_eq!(mount.sh("cat d/f"), "x");
    assert_eq!(server.objects().list(), before);
}
