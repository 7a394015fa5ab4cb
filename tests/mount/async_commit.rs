//! `commit=async` on real mounts: close waits for the local disk, fsync and the end of the mount for S3.

use std::fs::File;
use std::io::Write;

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, TestServer, assert_same_bytes, eventually, noise};
use crate::promises::errno;

const ASYNC: &[&str] = &["commit=async"];

fn refuse_puts(server: &TestServer) {
    let kind = FaultKind::Answer { status: 403, code: "AccessDenied".into() };
    server.demo().add_fault(Fault::new(kind).on(Operation::PutObject));
}

#[test]
fn close_with_commit_async_waits_for_the_local_disk_and_fsync_for_s3() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount_with(ASYNC);
    refuse_puts(&server);
    std::fs::write(mount.path("closed"), "bytes").expect("the local disk has them");
    assert_eq!(mount.sh("cat closed"), "bytes");
    let mut file = File::create(mount.path("synced")).expect("a new file");
    file.write_all(b"bytes").expect("written");
    assert_eq!(errno(file.sync_all()), Some(libc::EACCES), "S3 does not have them");
    assert!(!server.objects().exists("closed") && !server.objects().exists("synced"));
    server.demo().clear_faults();
    file.sync_all().expect("S3 has them");
    assert_eq!(server.objects().text("synced"), "bytes");
    eventually("what was closed is tried again", || server.objects().exists("closed"));
    assert_eq!(server.objects().text("closed"), "bytes");
}

#[test]
fn the_end_of_a_mount_with_commit_async_stores_what_was_closed_or_says_what_is_left() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount_with(ASYNC);
    for number in 0..100 {
        std::fs::write(mount.path(&format!("f{number}")), number.to_string()).expect("written");
    }
    mount.remount();
    for number in 0..100 {
        assert_eq!(server.objects().text(&format!("f{number}")), number.to_string());
    }
    drop(mount);
    let mut mount = server.mount_with(&["commit=async", "drain_timeout=1"]);
    refuse_puts(&server);
    std::fs::write(mount.path("left"), "bytes").expect("the local disk has them");
    mount.unmount();
    assert!(mount.log().contains("left is not committed"), "nothing is said: {}", mount.log());
    assert!(!server.objects().exists("left"));
    server.demo().clear_faults();
    mount.mount_again();
    eventually("the next mount stores it", || server.objects().exists("left"));
    assert_eq!(mount.sh("cat left"), "bytes");
}

#[test]
fn programs_find_what_they_wrote_with_commit_async() {
    let server = TestServer::start();
    let mut mount = server.mount_with(ASYNC);
    let large = noise(3, 20 << 20);
    std::fs::write(mount.path("large"), &large).expect("written");
    mount.sh(
        "mkdir tree && for i in $(seq 200); do echo $i > tree/$i; done && cp -r tree copy && diff -r tree copy \
         && for i in $(seq 50); do echo line $i >> log; done && [ $(wc -l < log) = 50 ] \
         && for i in $(seq 20); do echo $i > new && mv new current && [ $(cat current) = $i ]; done \
         && rm -r tree && [ ! -e tree ] \
         && git init -q repo && cd repo && git config user.email a@b.c && git config user.name n \
         && seq 1000 > f && git add f && git commit -qm one && seq 2000 > f && git commit -qam two && git fsck --strict",
    );
    mount.remount();
    mount.sh(
        "[ $(ls copy | wc -l) = 200 ] && [ $(cat copy/77) = 77 ] && [ $(wc -l < log) = 50 ] && [ $(cat current) = 20 ] \
         && [ ! -e tree ] && [ ! -e new ] && cd repo && git fsck --strict && [ -z \"$(git status --porcelain)\" ]",
    );
    assert_same_bytes("large", &std::fs::read(mount.path("large")).expect("a read"), &large);
}
