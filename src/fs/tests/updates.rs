//! Changes of large objects: what was not changed is copied within the store.

use tokio::sync::Notify;

use super::races::under_way;
use super::send_ahead::{MIB, content, until, write};
use super::sequences::{Compared, each_agrees_with_a_vector, of_a_large_object};
use super::*;
use crate::error::Error;
use crate::fs::RenameMode;
use crate::transfer::tests::fake::{Call, Fault};

/// A large object, opened for writing.
async fn large() -> (Rig, Ino, Fh, Vec<u8>) {
    let rig = Rig::new().await;
    let bytes = content(60 * MIB, 7);
    rig.store.set("p/f", bytes.clone());
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.store.take_calls();
    (rig, ino, fh, bytes)
}

fn change(bytes: &mut Vec<u8>, at: u64, new: &[u8]) {
    let end = at as usize + new.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at as usize..end].copy_from_slice(new);
}

/// Bytes that came down, beside the first ones that an open for reading and writing brings.
fn fetched(rig: &Rig) -> u64 {
    rig.store.gets().iter().skip(1).map(|range| range.len()).sum()
}

#[tokio::test]
async fn a_change_in_the_middle_of_a_large_object_moves_one_part() {
    let (rig, _, fh, mut bytes) = large().await;
    let new = content(4096, 1);
    write(&rig, fh, 30 * MIB, &new).await;
    change(&mut bytes, 30 * MIB, &new);
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    let store = &rig.store;
    assert_eq!((store.count(Call::Part), store.count(Call::PartCopy), store.count(Call::Put)), (1, 2, 0));
    assert!(fetched(&rig) <= 5 * MIB, "{} bytes came down", fetched(&rig));
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn an_append_to_a_large_object_moves_what_is_appended() {
    let (rig, _, fh, mut bytes) = large().await;
    write(&rig, fh, 60 * MIB, b"appended").await;
    bytes.extend_from_slice(b"appended");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!((rig.store.count(Call::Part), fetched(&rig)), (1, 0));
}

#[tokio::test]
async fn a_file_goes_on_being_read_and_changed_after_a_part_of_it_was_stored() {
    let (rig, _, fh, mut bytes) = large().await;
    for (round, at) in [MIB, 59 * MIB, 33 * MIB + 7, 62 * MIB].into_iter().enumerate() {
        let new = content(3000, round as u8);
        write(&rig, fh, at, &new).await;
        change(&mut bytes, at, &new);
        rig.fs.fsync(fh).await.expect("stored");
        assert!(rig.object("p/f").as_ref() == Some(&bytes), "round {round}");
        let there = rig.fs.read(fh, 20 * MIB - 5, 10).await.expect("a read");
        assert_eq!(&there[..], &bytes[20 * MIB as usize - 5..][..10]);
    }
    rig.close(fh).await.expect("a close");
}

/// What it lacks is fetched for nobody when it is replaced.
#[tokio::test]
async fn an_open_of_a_change_that_is_being_replaced_waits_and_is_tried_again() {
    let (rig, ino, fh, _) = large().await;
    rig.fs.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
    write(&rig, fh, 30 * MIB, b"ours").await;
    (0..2).for_each(|_| rig.store.next(Call::Create, Fault::Fail(Error::Unavailable("test".into()))));
    assert!(rig.close(fh).await.is_err());
    rig.put(Ino::ROOT, "new", b"new").await;
    let fs = rig.fs.clone();
    let rename = async move { fs.rename(Ino::ROOT, b"new", Ino::ROOT, b"f", RenameMode::Replace).await };
    let (rename, word) = under_way(&rig, Call::Delete, rename).await;
    let fs = rig.fs.clone();
    let open = tokio::spawn(async move { fs.open(ino, READ).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    word.notify_one();
    rename.await.expect("a task").expect("a rename");
    let opened = open.await.expect("a task");
    assert!(matches!(opened, Err(Error::Stale)), "{opened:?}");
}

#[tokio::test]
async fn a_change_of_an_object_that_went_meanwhile_is_a_conflict() {
    let (rig, _, fh, _) = large().await;
    write(&rig, fh, 30 * MIB, b"ours").await;
    rig.store.take_calls();
    rig.store.next(Call::Head, Fault::Fail(Error::NotFound));
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    assert!(rig.store.count(Call::PartCopy) > 0, "the copies came before");
}

#[tokio::test]
async fn a_change_over_another_writers_version_is_refused_and_mixes_nothing() {
    let (rig, _, fh, _) = large().await;
    write(&rig, fh, 30 * MIB, b"ours").await;
    let theirs = content(60 * MIB, 9);
    rig.store.set("p/f", theirs.clone());
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    assert!(rig.object("p/f") == Some(theirs));
    until("no upload is left", || rig.store.open_uploads() == 0).await;
}

#[tokio::test]
async fn a_version_that_goes_while_it_is_copied_is_noticed_before_the_end() {
    let (rig, _, fh, _) = large().await;
    write(&rig, fh, 60 * MIB, b"ours").await;
    let word = Arc::new(Notify::new());
    rig.store.next(Call::PartCopy, Fault::Late(word.clone()));
    let theirs = content(60 * MIB, 9);
    let replace = async {
        while rig.store.count(Call::PartCopy) == 0 {
            tokio::task::yield_now().await;
        }
        rig.store.set("p/f", theirs.clone());
        word.notify_one();
    };
    let (closed, ()) = tokio::join!(rig.close(fh), replace);
    assert!(matches!(closed, Err(Error::Stale)), "{closed:?}");
    assert!(rig.object("p/f") == Some(theirs));
    assert_eq!(rig.store.count(Call::Complete), 0, "a mix of two versions was offered to the store");
}

#[tokio::test]
async fn a_lost_reply_to_a_change_of_a_large_object_is_no_conflict() {
    for error in [Error::UploadGone, Error::PreconditionFailed, Error::Unavailable("lost".into())] {
        let (rig, _, fh, mut bytes) = large().await;
        write(&rig, fh, 30 * MIB, b"ours").await;
        change(&mut bytes, 30 * MIB, b"ours");
        rig.store.next(Call::Complete, Fault::DoneBut(error.clone()));
        let flushed = rig.fs.flush(fh).await;
        assert_eq!(flushed.is_err(), error.is_transient(), "{flushed:?}");
        write(&rig, fh, 40 * MIB, b"more").await;
        change(&mut bytes, 40 * MIB, b"more");
        rig.close(fh).await.expect("no conflict");
        assert!(rig.object("p/f") == Some(bytes), "after {error}");
    }
}

#[test]
fn whatever_is_changed_of_a_large_object_is_what_it_holds() {
    each_agrees_with_a_vector(of_a_large_object(), 16, async || {
        let (rig, ino, fh, model) = large().await;
        Compared { rig, ino, fh, model }
    });
}
