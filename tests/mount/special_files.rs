//! Fifos, sockets and devices: names that the kernel does everything with but keep.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::common::TestServer;

fn root() -> bool {
    // SAFETY: geteuid(2) takes nothing and can't fail.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn special_files_are_empty_objects_with_their_type() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("umask 022; mkfifo -m 640 pipe");
    let mut expected = vec![("pipe", "0010640", None)];
    if root() {
        mount.sh("mknod -m 600 null c 1 3; mknod -m 660 disk b 259 70000");
        expected.extend([("null", "0020600", Some("1:3")), ("disk", "0060660", Some("259:70000"))]);
    }
    for (name, permissions, number) in expected {
        let head = server.objects().head(name).expect("the object");
        assert_eq!(head.size, 0);
        assert_eq!(head.metadata.get("file-permissions").map(String::as_str), Some(permissions), "{name}");
        assert_eq!(head.metadata.get("file-rdev").map(String::as_str), number, "{name}");
    }
    mount.remount();
    assert!(mount.sh("stat -c '%F %a' pipe").contains("fifo 640"));
    if root() {
        let number = |name| std::fs::metadata(mount.path(name)).expect("a device").rdev();
        assert_eq!((number("null"), number("disk")), (libc::makedev(1, 3), libc::makedev(259, 70000)));
        assert_eq!(mount.sh("find . -type b; find . -type c; find . -type p"), "./disk\n./null\n./pipe");
    }
}

#[test]
fn a_fifo_and_a_socket_connect_processes() {
    let server = TestServer::start();
    let mount = server.mount();
    assert_eq!(mount.sh("mkfifo p; (echo through > p) & timeout 60 cat p; wait"), "through");
    // A path of at most 107 bytes, wherever the mount is.
    let dir = std::fs::File::open(mount.path("")).expect("the directory");
    let path = format!("/proc/self/fd/{}/s", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let listener = UnixListener::bind(&path).expect("a socket");
    assert!(std::fs::metadata(mount.path("s")).expect("it").file_type().is_socket());
    let mut caller = UnixStream::connect(&path).expect("a connection");
    caller.write_all(b"x").expect("a write");
    let mut byte = [0];
    listener.accept().expect("an accept").0.read_exact(&mut byte).expect("a read");
    assert_eq!(&byte, b"x");
    let head = server.objects().head("s").expect("the object");
    let permissions = head.metadata.get("file-permissions").cloned().unwrap_or_default();
    assert!(permissions.starts_with("0140"), "{permissions}");
    assert_eq!((head.size, server.objects().head("p").expect("the object").size), (0, 0));
}

#[test]
fn special_files_are_renamed_changed_copied_and_removed() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("mkfifo p; mv p q; chmod 600 q; touch -d @1000000000 q; mkdir s; mv q s; mv s t; cp -a t u
         mkdir v; tar -C t -c . | tar -C v -xp; ! mkfifo t/q 2> /dev/null; ! ln t/q l 2> /dev/null");
    mount.remount();
    for dir in ["t", "u", "v"] {
        assert_eq!(mount.sh(&format!("stat -c '%F %a %Y' {dir}/q")), "fifo 600 1000000000");
    }
    mount.sh("echo file > f; mv f t/q; grep -x file t/q; mkfifo p; mv p t/q; test -p t/q; rm -r t u v; ls");
    assert!(server.objects().list().is_empty());
}

#[test]
fn a_device_can_not_be_opened_unless_the_mount_says_dev() {
    if !root() {
        return;
    }
    let server = TestServer::start();
    // Whoever can write to the bucket can make one.
    server.objects().put_with("null", "", &[("file-permissions", "0020666"), ("file-rdev", "1:3")]);
    let mount = server.mount();
    assert!(mount.sh("test -c null; stat -c '%t:%T' null").contains("1:3"));
    let refused = std::fs::File::open(mount.path("null")).expect_err("nodev").raw_os_error();
    assert_eq!(refused, Some(libc::EACCES));
    let mount = server.mount_with(&["dev"]);
    mount.sh("echo gone > null; test -z \"$(cat null)\"");
    assert_eq!(server.objects().head("null").expect("the object").size, 0);
}
