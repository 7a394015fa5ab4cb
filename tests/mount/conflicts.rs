//! Two mounts that change the same file at the same time, with each `conflict` policy.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pailfs::demo::Operation;

use crate::common::{Capability, Mount, TestServer, eventually, undisturbed};
use crate::promises::errno;

/// Rewrites `name` through `ours`, but not before `theirs` has stored it too.
fn both_write(ours: &Mount, theirs: &Mount, name: &str) -> std::io::Result<()> {
    let _undisturbed = undisturbed();
    std::fs::write(ours.path(name), "base")?;
    let late = File::options().read(true).write(true).open(ours.path(name))?;
    late.write_all_at(b"ours, longer", 0)?;
    std::fs::write(theirs.path(name), "theirs")?;
    late.sync_all()
}

/// Names of the conflict copies of this file.
fn copies(server: &TestServer, name: &str) -> Vec<String> {
    let begin = format!("{name}.conflict-");
    server.objects().list().into_iter().filter(|key| key.starts_with(&begin)).collect()
}

#[test]
fn keep_both_stores_a_copy_beside_the_other_version() {
    let server = TestServer::start();
    let (ours, theirs) = (server.mount_with(&["conflict=keep-both"]), server.mount());
    both_write(&ours, &theirs, "f").expect("both versions are kept");
    assert_eq!(server.objects().text("f"), "theirs");
    let copies = copies(&server, "f");
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(server.objects().text(&copies[0]), "ours, longer");
    assert_eq!(std::fs::read_to_string(ours.path(&copies[0])).expect("a file"), "ours, longer");
    eventually("the file shows the other version", || {
        std::fs::read_to_string(ours.path("f")).is_ok_and(|text| text == "theirs")
    });
    assert!(ours.log().contains("both versions are kept"), "{}", ours.log());
}

/// The kernel keeps pages by inode: with one inode it would show the other version's, and what is written would be lost in silence.
#[test]
fn who_has_a_file_open_that_became_another_clients_reads_its_own_bytes_and_writes_no_more() {
    let server = TestServer::start();
    let (ours, theirs) = (server.mount_with(&["conflict=keep-both"]), server.mount());
    let _undisturbed = undisturbed();
    let open = |name: &str| File::options().read(true).write(true).create(true).truncate(false).open(ours.path(name));
    std::fs::write(ours.path("f"), "base").expect("stored");
    let beside = open("f").expect("an open file");
    beside.write_all_at(b"ours, longer", 0).expect("written to the stage");
    std::fs::write(theirs.path("f"), "theirs").expect("stored");
    beside.sync_all().expect("both are kept");
    let loser = File::options().read(true).write(true).create_new(true).open(ours.path("lock")).expect("a new file");
    loser.write_all_at(b"ours, longer", 0).expect("written to the stage");
    server.objects().put("lock", "theirs");
    assert_eq!(errno(loser.sync_all()), Some(libc::EEXIST));
    for (name, file) in [("f", beside), ("lock", loser)] {
        eventually("the name shows the other version", || {
            std::fs::read_to_string(ours.path(name)).is_ok_and(|text| text == "theirs")
        });
        let mut bytes = [0; 32];
        let count = file.read_at(&mut bytes, 0).expect("still readable");
        assert_eq!(bytes[..count], *b"ours, longer", "{name}");
        assert_eq!(
            errno(file.write_all_at(b"more", 0)),
            Some(libc::ESTALE),
            "{name}: a write that no close could store"
        );
        assert_eq!(server.objects().text(name), "theirs");
    }
}

#[test]
fn keep_both_copies_of_long_names_are_cut() {
    let Some(server) = TestServer::with(&[Capability::LongNames]) else { return };
    let (ours, theirs) = (server.mount_with(&["conflict=keep-both"]), server.mount());
    // MinIO keeps an object in a directory of its name, and needs a few bytes more.
    let name = "n".repeat(240);
    both_write(&ours, &theirs, &name).expect("both versions are kept");
    assert_eq!(server.objects().text(&name), "theirs");
    let copy = server.objects().list().into_iter().find(|key| key.contains(".conflict-")).expect("a copy");
    assert_eq!((copy.len(), server.objects().text(&copy)), (255, "ours, longer".to_owned()));
}

#[test]
fn overwrite_replaces_the_other_version() {
    let server = TestServer::start();
    let (ours, theirs) = (server.mount_with(&["conflict=overwrite"]), server.mount());
    both_write(&ours, &theirs, "f").expect("the last writer wins");
    assert_eq!(server.objects().text("f"), "ours, longer");
    assert_eq!(server.objects().list(), ["f"]);
}

#[test]
fn a_store_that_ignores_conditions_is_told_of_at_the_mount() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    server.direct().ignore_conditions();
    let mount = server.mount();
    assert!(mount.log().contains("this store ignores the conditions of writes"), "{}", mount.log());
    assert_eq!(server.objects().list(), Vec::<String>::new(), "what it was tried with");
    let requests = |operation| server.demo().counters().requests(operation);
    assert_eq!((requests(Operation::PutObject), requests(Operation::DeleteObject)), (1, 1));
    drop(mount);
    let reader = server.mount_with(&["ro"]);
    assert!(!reader.log().contains("conditions"), "{}", reader.log());
    assert_eq!(requests(Operation::PutObject), 1, "nothing is written for who can't write");
}

#[test]
fn a_store_that_heeds_conditions_is_tried_without_a_trace() {
    let server = TestServer::start();
    let mount = server.mount();
    assert!(!mount.log().contains("conditions"), "{}", mount.log());
    assert_eq!(server.objects().list(), Vec::<String>::new());
}
