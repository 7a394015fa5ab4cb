//! What another writer has stored meanwhile, or what only looks like another writer's work.

use super::*;

#[tokio::test]
async fn another_writers_object_stands_and_the_file_is_kept() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "f", b"ours").await;
    rig.store.set("p/f", "theirs");
    let (rig, recovery) = rig.killed().await;
    rig.ino(Ino::ROOT, "f").await.expect("ours, until it is known that it can't be stored");
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
    assert_eq!(rig.left().len(), 1);
    let ino = rig.ino(Ino::ROOT, "f").await.expect("theirs");
    assert_eq!(rig.read(ino).await.expect("read"), b"theirs", "the mount shows what S3 has");
}

#[tokio::test]
async fn an_object_that_was_made_before_ours_was_closed_stands_too() {
    let rig = Rig::doomed().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"ours").await.expect("a write");
    rig.store.set("p/f", "theirs");
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    let (rig, recovery) = rig.killed().await;
    rig.recover(recovery).await;
    assert_eq!((rig.object("p/f").as_deref(), rig.left().len()), (Some(&b"theirs"[..]), 1));
}

#[tokio::test]
async fn of_two_files_of_one_name_one_is_stored_and_one_is_kept() {
    let rig = Rig::doomed().await;
    let other = Rig::over(rig.store.clone(), settings());
    other.fs.stopping.store(true, Ordering::Relaxed);
    rig.put_in_vain(Ino::ROOT, "f", b"one").await;
    other.put_in_vain(Ino::ROOT, "f", b"two").await;
    copy_tree(other._root.path(), rig._root.path());
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (1, 1));
    assert!(recovery.kept()[0].why.contains("in use"), "{:?}", recovery.kept());
    rig.recover(recovery).await;
    let kept: Vec<_> = rig.left().iter().map(|left| std::fs::read(&left.file).expect("readable")).collect();
    let mut both = [kept, vec![rig.object("p/f").expect("stored")]].concat();
    both.sort();
    assert_eq!(both, [b"one", b"two"]);
}

#[tokio::test]
async fn a_file_that_a_program_has_opened_for_writing_stays_its_own_in_a_conflict() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "f", b"ours").await;
    rig.store.set("p/f", "theirs");
    let (rig, recovery) = rig.killed().await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    rig.fs.recover(recovery);
    until("the recovery has ended", || tasks() == before).await;
    assert_eq!(&rig.fs.read(fh, 0, 9).await.expect("a read")[..], b"ours");
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn a_reader_of_a_file_that_lost_a_conflict_gets_no_byte_of_the_other_version() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "f", b"ours").await;
    rig.store.set("p/f", "theirs");
    let (rig, recovery) = rig.killed().await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, READ).await;
    assert_eq!(&rig.fs.read(fh, 0, 2).await.expect("a read")[..], b"ou");
    rig.fs.recover(recovery);
    let parted = || rig.fs.table.place(ino).is_none();
    until("it is known that the name is theirs", parted).await;
    assert_eq!(&rig.fs.read(fh, 2, 9).await.expect("a read")[..], b"rs");
    let now = rig.ino(Ino::ROOT, "f").await.expect("a file");
    assert_ne!(now, ino, "the kernel would show their bytes to who has ours open");
    assert_eq!(rig.read(now).await.expect("a read"), b"theirs");
    rig.fs.release(fh).await.expect("a release");
    until("the bytes are let go of", || rig.is_settled()).await;
}

#[tokio::test]
async fn a_leftover_comes_beside_the_inode_that_a_program_has_open() {
    let rig = Rig::doomed().await;
    rig.store.set("p/f", "old bytes");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new bytes").await.expect("a write");
    rig.close_in_vain(fh).await;
    let (rig, leftovers) = rig.killed_leaving();
    // Those beyond the first few hundred are taken in while the mount is in use.
    let old = rig.ino(Ino::ROOT, "f").await.expect("as S3 has it");
    let reader = rig.open(old, READ).await;
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    let new = rig.ino(Ino::ROOT, "f").await.expect("the leftover");
    assert_ne!(new, old, "the kernel would show the leftover's bytes to who has the old ones open");
    assert_eq!(rig.read(new).await.expect("a read"), b"new bytes");
    assert_eq!(rig.fs.getattr(old).await.expect("attributes of what is open").size, 9);
    rig.fs.release(reader).await.expect("a release");
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"new bytes"[..]));
}

#[tokio::test]
async fn a_change_whose_object_was_removed_is_kept_and_the_name_is_gone() {
    let rig = Rig::doomed().await;
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.close_in_vain(fh).await;
    rig.store.remove("p/f");
    let (rig, recovery) = rig.killed().await;
    rig.recover(recovery).await;
    assert_eq!((rig.object("p/f"), rig.left().len()), (None, 1));
    assert!(matches!(rig.ino(Ino::ROOT, "f").await, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_replacement_does_not_replace_what_was_made_after_it() {
    for (newer, wanted) in [(false, "ours"), (true, "theirs")] {
        let rig = Rig::doomed().await;
        rig.store.set("p/f", "old");
        let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
        let fh = rig.open(ino, TRUNCATE).await;
        rig.fs.write(fh, 0, b"ours").await.expect("a write");
        rig.close_in_vain(fh).await;
        if newer {
            rig.store.set("p/f", "theirs");
        }
        let (rig, recovery) = rig.killed().await;
        rig.recover(recovery).await;
        assert_eq!(rig.object("p/f").as_deref(), Some(wanted.as_bytes()));
        assert_eq!(rig.left().len(), usize::from(newer));
    }
}

/// A change in the middle of a large object, of which little else is here, was stored `lost` its answer, or was not.
async fn large_change(lost: bool) -> (Rig, Vec<u8>) {
    let rig = Rig::doomed().await;
    let mut bytes = content(60 * MIB, 7);
    rig.store.set("p/f", bytes.clone());
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 30 * MIB, b"ours").await.expect("a write");
    bytes[30 * MIB as usize..][..4].copy_from_slice(b"ours");
    rig.store.next(Call::Complete, if lost { Fault::DoneBut(down()) } else { Fault::Fail(down()) });
    assert!(rig.fs.flush(fh).await.is_err());
    assert_eq!(rig.object("p/f").as_ref() == Some(&bytes), lost);
    (rig, bytes)
}

#[tokio::test]
async fn a_change_of_a_large_object_that_lost_its_reply_is_known_again() {
    let (rig, bytes) = large_change(true).await;
    let (rig, leftovers) = rig.killed_leaving();
    assert!(!leftovers[0].missing().is_empty(), "all of it was here");
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    rig.recover(recovery).await;
    assert!(rig.left().is_empty(), "our own upload was taken for another writer's");
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_large_object_of_another_writer_is_not_taken_for_our_own_change() {
    for lost in [true, false] {
        let (rig, bytes) = large_change(lost).await;
        let mut theirs = bytes;
        theirs[30 * MIB as usize] = b'O';
        let (rig, leftovers) = rig.killed_leaving();
        // All that can be seen without its bytes is the same.
        let attributes = Attributes::from(&leftovers[0].record.as_ref().expect("a record").attributes);
        rig.store.set_with("p/f", theirs.clone().into(), &attributes, SystemTime::now());
        let recovery = rig.fs.take_in_leftovers(leftovers).await;
        rig.recover(recovery).await;
        assert!(rig.object("p/f") == Some(theirs), "another writer's object was replaced");
        let left = rig.left();
        assert_eq!(left.len(), 1, "our bytes are gone");
        let kept = std::fs::read(&left[0].file).expect("readable");
        assert_eq!(&kept[30 * MIB as usize..][..4], b"ours");
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn the_bytes_of_who_lost_an_exclusive_create_are_kept_and_not_stored() {
    let rig = Rig::doomed().await;
    let made = rig.fs.create(Ino::ROOT, b"lock", CREATION, EXCLUSIVE).await.expect("nobody else yet");
    rig.fs.write(made.opened.fh, 0, b"mine").await.expect("a write");
    rig.store.set("p/lock", "theirs");
    assert!(matches!(rig.close(made.opened.fh).await, Err(Error::AlreadyExists)));
    rig.store.remove("p/lock");
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (0, 1));
    rig.recover(recovery).await;
    assert_eq!(rig.store.keys(), Vec::<String>::new(), "a lock that nobody holds");
    assert_eq!(rig.left().len(), 1);
}
