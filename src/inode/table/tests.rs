//! Numbers, names, places and who is forgotten when.

use std::time::SystemTime;

use futures_util::FutureExt;

use super::*;
use crate::inode::state::{Located, Remains};
use crate::types::{ETag, Version};

fn ownership() -> Ownership {
    let time = SystemTime::UNIX_EPOCH;
    Ownership { file_type: Default::default(), mode: 0o644, uid: 0, gid: 0, mtime: time, atime: time, ctime: time }
}

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).expect("a name")
}

fn version() -> Version {
    Version { etag: ETag::parse("e"), size: 1, modified: SystemTime::UNIX_EPOCH }
}

fn table() -> Arc<InodeTable> {
    InodeTable::new(DirPrefix::normalize("p"), ownership())
}

fn add(table: &Arc<InodeTable>, parent: Ino, text: &str, kind: Kind) -> Pin {
    let body = |kind| match kind {
        Kind::File => Body::File(FileState::clean(version())),
        Kind::Dir => Body::Dir(Box::default()),
    };
    table.attach(parent, &name(text), kind, |ino| Inode::new(ino, kind, ownership(), body(kind))).expect("an inode")
}

#[test]
fn keys_follow_places_through_renames_of_directories() {
    let table = table();
    let dir = add(&table, Ino::ROOT, "d", Kind::Dir);
    let file = add(&table, dir.ino(), "f", Kind::File);
    assert_eq!(table.key_of(file.ino()).expect("a key").as_str(), "p/d/f");
    let closed = table.close_below(dir.ino()).now_or_never().expect("nothing is under way");
    table.rename_dir(&closed, Ino::ROOT, &name("e")).expect("a rename");
    assert_eq!(table.key_of(file.ino()).expect("a key").as_str(), "p/e/f");
    assert_eq!(table.path_of(file.ino()), "e/f");
    assert_eq!(table.prefix_of(dir.ino()).expect("a prefix").as_str(), "p/e/");
}

#[test]
fn numbers_are_the_same_in_another_mount_and_before_a_lookup() {
    let (one, two) = (table(), table());
    let expected = one.number_of(Ino::ROOT, &name("f"));
    assert_eq!(add(&one, Ino::ROOT, "f", Kind::File).ino(), expected);
    assert_eq!(add(&two, Ino::ROOT, "f", Kind::File).ino(), expected);
    assert_eq!(one.number_of(Ino::ROOT, &name("f")), expected);
}

#[test]
fn a_new_file_at_the_name_of_a_renamed_one_gets_another_number() {
    let table = table();
    let old = add(&table, Ino::ROOT, "f", Kind::File);
    let owned = old.inode().try_own().expect("a live file").expect("nobody else");
    table.rename_file(&owned, Ino::ROOT, &name("g")).expect("a rename");
    let new = add(&table, Ino::ROOT, "f", Kind::File);
    assert_ne!(old.ino(), new.ino());
}

#[test]
fn an_inode_goes_when_the_kernel_and_the_last_pin_have_let_go() {
    let table = table();
    let dir = add(&table, Ino::ROOT, "d", Kind::Dir);
    let file = add(&table, dir.ino(), "f", Kind::File);
    table.count_lookup(dir.ino());
    table.count_lookup(file.ino());
    table.forget(file.ino(), 1);
    table.forget(dir.ino(), 1);
    drop(dir);
    assert_eq!(table.len(), 3, "a pinned file or its directory was forgotten");
    drop(file);
    assert_eq!(table.len(), 1, "an unused inode was kept");
}

#[test]
fn an_unlinked_inode_lives_until_its_last_pin() {
    let table = table();
    let file = add(&table, Ino::ROOT, "f", Kind::File);
    let owned = file.inode().try_own().expect("a live file").expect("nobody else");
    let ino = file.ino();
    let located = Located { key: table.key_of(ino).expect("a key"), version: version() };
    owned.unlinked(Remains::Object(located)).expect("an unlink");
    table.detach(ino);
    assert!(table.get(ino).is_ok() && table.child(Ino::ROOT, &name("f")).is_none());
    drop(file);
    assert!(table.get(ino).is_err());
}

#[test]
fn a_name_that_turned_into_a_directory_gets_a_new_inode() {
    let table = table();
    let file = add(&table, Ino::ROOT, "x", Kind::File);
    table.count_lookup(file.ino());
    let dir = add(&table, Ino::ROOT, "x", Kind::Dir);
    assert_ne!(file.ino(), dir.ino());
    assert_eq!(table.child(Ino::ROOT, &name("x")).map(|pin| pin.ino()), Some(dir.ino()));
}
