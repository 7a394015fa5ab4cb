//! `commit=async`: what a close still waits for, and what becomes of a file that it did not wait for.

use std::sync::Arc;

use tokio::sync::Notify;

use super::races::under_way;
use super::*;
use crate::error::Error;
use crate::fs::commit::MEANWHILE;
use crate::fs::{Holders, RenameMode, SetAttributes};
use crate::inode::{FileState, OwnershipChange};
use crate::transfer::tests::fake::{Call, Fault};

fn asynchronous() -> FsSettings {
    FsSettings { commit: CommitMode::Async, ..settings() }
}

/// Lets pass what is under way.
async fn stored(rig: &Rig, key: &str, bytes: &[u8]) {
    let there = async {
        while rig.object(key).as_deref() != Some(bytes) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), there).await.unwrap_or_else(|_| panic!("{key} is not stored"));
}

/// A put that is not done before the word is given, and then fails: the next one is done.
fn put_fails_later(rig: &Rig) -> Arc<Notify> {
    let word = Arc::new(Notify::new());
    rig.store.next(Call::Put, Fault::FailLate(word.clone(), Error::Unavailable("test".into())));
    word
}

#[tokio::test]
async fn a_close_returns_before_the_object_is_there_and_fsync_after() {
    let rig = Rig::with(asynchronous()).await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    let word = put_fails_later(&rig);
    rig.fs.write(fh, 0, b"hello").await.expect("a write");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f"), None, "the close waited for S3");
    assert_eq!(rig.read(ino).await.expect("a read"), b"hello");
    word.notify_one();
    stored(&rig, "p/f", b"hello").await;

    let fh = rig.open(ino, TRUNCATE).await;
    rig.fs.write(fh, 0, b"more").await.expect("a write");
    let fs = rig.fs.clone();
    let (syncing, word) = under_way(&rig, Call::Put, async move { fs.fsync(fh).await }).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!syncing.is_finished(), "fsync returned before S3 had answered");
    word.notify_one();
    syncing.await.expect("no panic").expect("an fsync");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"more"[..]));
}

#[tokio::test]
async fn what_a_close_did_not_wait_for_is_stored_after_a_kill() {
    let rig = Rig::with(asynchronous()).await;
    rig.store.set("p/old", vec![b'x'; 100]);
    rig.fs.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
    let _never = [put_fails_later(&rig), put_fails_later(&rig)];
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"hello").await.expect("a write");
    rig.close(fh).await.expect("a close");
    let ino = rig.ino(Ino::ROOT, "old").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 99, b"yz").await.expect("a write");
    rig.close(fh).await.expect("a close");
    // Until both wait for an answer that never comes.
    while rig.store.count(Call::Put) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (next, recovery) = rig.killed().await;
    next.store.clear_faults();
    next.recover(recovery).await;
    assert_eq!(next.object("p/f").as_deref(), Some(&b"hello"[..]));
    let mut changed = vec![b'x'; 99];
    changed.extend(b"yz");
    assert_eq!(next.object("p/old"), Some(changed));
}

#[tokio::test]
async fn a_file_that_is_not_sealed_yet_is_not_said_to_be_closed() {
    let rig = Rig::with(asynchronous()).await;
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    // The attributes that go with it must be asked for first.
    rig.fs.table.get(ino).expect("the inode").inode().lock().attributes = None;
    let fh = rig.open(ino, TRUNCATE).await;
    rig.fs.table.get(ino).expect("the inode").inode().lock().attributes = None;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    let fs = rig.fs.clone();
    let (first, word) = under_way(&rig, Call::Head, async move { fs.flush(fh).await }).await;
    let fs = rig.fs.clone();
    let second = tokio::spawn(async move { fs.flush(fh).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished() && !second.is_finished(), "a kill would lose what they were told");
    word.notify_one();
    first.await.expect("no panic").expect("a close");
    second.await.expect("no panic").expect("a close");
    stored(&rig, "p/f", b"new").await;
}

#[tokio::test]
async fn the_loser_of_an_exclusive_create_is_told_all_the_same() {
    let rig = Rig::with(asynchronous()).await;
    let made = rig.fs.create(Ino::ROOT, b"lock", CREATION, EXCLUSIVE).await.expect("nobody else yet");
    rig.fs.write(made.opened.fh, 0, b"mine").await.expect("a write");
    rig.store.set("p/lock", "theirs");
    assert!(matches!(rig.close(made.opened.fh).await, Err(Error::AlreadyExists)));
    let made = rig.fs.create(Ino::ROOT, b"empty", CREATION, EXCLUSIVE).await.expect("nobody else yet");
    rig.store.set("p/empty", "theirs");
    assert!(matches!(rig.fs.fsync(made.opened.fh).await, Err(Error::AlreadyExists)));
}

#[tokio::test]
async fn what_failed_before_is_waited_for_so_that_nobody_is_told_a_success_that_is_none() {
    let rig = Rig::with(asynchronous()).await;
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.store.set("p/f", "theirs");
    rig.fs.flush(fh).await.expect("nothing is known of the other writer yet");
    let known = async {
        while rig.fs.flush(fh).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known).await.expect("the conflict is told");
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn a_rename_and_an_unlink_after_the_close_find_the_file_stored_where_it_belongs() {
    let rig = Rig::with(asynchronous()).await;
    for round in 0..20 {
        let (name, next) = (format!("a{round}"), format!("b{round}"));
        let (_, fh) = rig.create(Ino::ROOT, &name).await;
        rig.fs.write(fh, 0, b"bytes").await.expect("a write");
        rig.close(fh).await.expect("a close");
        rig.fs
            .rename(Ino::ROOT, name.as_bytes(), Ino::ROOT, next.as_bytes(), RenameMode::Replace)
            .await
            .expect("moved");
        if round % 2 == 0 {
            rig.fs.unlink(Ino::ROOT, next.as_bytes()).await.expect("removed");
        }
    }
    rig.fs.drain(Duration::from_secs(10), Holders::Possible).await;
    let left: Vec<_> = (0..20).filter(|round| round % 2 == 1).map(|round| format!("p/b{round}")).collect();
    let mut found = rig.store.keys();
    found.sort_by_key(|key| key[3..].parse::<u32>().ok());
    assert_eq!(found, left);
}

#[tokio::test]
async fn the_end_of_a_mount_waits_for_what_no_close_has_waited_for() {
    let rig = Rig::with(asynchronous()).await;
    for number in 0..50 {
        let (_, fh) = rig.create(Ino::ROOT, &number.to_string()).await;
        rig.fs.write(fh, 0, b"x").await.expect("a write");
        rig.close(fh).await.expect("a close");
    }
    let drained = rig.fs.drain(Duration::from_secs(60), Holders::None).await;
    assert!(drained.left.is_empty() && drained.open.is_empty(), "{drained:?}");
    assert_eq!(rig.store.keys().len(), 50);
}

#[tokio::test]
async fn a_writer_that_is_faster_than_the_store_waits() {
    let rig = Rig::with(asynchronous()).await;
    // What fails is not tried again before the test says so.
    rig.fs.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
    let words: Vec<_> = (0..MEANWHILE).map(|_| put_fails_later(&rig)).collect();
    for number in 0..MEANWHILE {
        let (_, fh) = rig.create(Ino::ROOT, &number.to_string()).await;
        rig.fs.write(fh, 0, b"x").await.expect("a write");
        rig.close(fh).await.expect("a close");
    }
    while rig.store.count(Call::Put) < MEANWHILE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (_, fh) = rig.create(Ino::ROOT, "one more").await;
    rig.fs.write(fh, 0, b"x").await.expect("a write");
    let fs = rig.fs.clone();
    let (closing, word) = under_way(&rig, Call::Put, async move { fs.flush(fh).await }).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished(), "there is no end to what waits");
    word.notify_one();
    closing.await.expect("no panic").expect("a close");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/one more").as_deref(), Some(&b"x"[..]));

    // What has failed is still behind.
    words.iter().for_each(|word| word.notify_one());
    let failed = async {
        while rig.fs.table.all().iter().filter(|inode| inode.lock().commit_failed).count() < MEANWHILE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), failed).await.expect("all have failed");
    assert_eq!(rig.fs.meanwhile.available_permits(), 0);
    rig.fs.drain(Duration::from_secs(60), Holders::None).await;
    assert_eq!(rig.fs.meanwhile.available_permits(), MEANWHILE, "what is stored is behind no more");
}

#[tokio::test]
async fn a_failure_is_told_to_whoever_closes_next_also_after_another_write() {
    let rig = Rig::with(asynchronous()).await;
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.store.set("p/f", "theirs");
    rig.fs.flush(fh).await.expect("nothing is known of the other writer yet");
    while !rig.fs.table.get(ino).expect("the inode").inode().lock().commit_failed {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for round in 0..3 {
        rig.fs.write(fh, round, b"more").await.expect("a write");
        assert!(matches!(rig.fs.flush(fh).await, Err(Error::Stale)), "round {round}: another success that is none");
    }
    let fh2 = rig.open(ino, TRUNCATE).await;
    rig.fs.write(fh2, 0, b"all of it").await.expect("a write");
    rig.close(fh2).await.expect("what replaces it wins");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"all of it"[..]));
    rig.close(fh).await.expect("a close");
}

/// Part of the file went up before they were given: they are stored after the bytes, which the journal does not know of.
#[tokio::test]
async fn attributes_that_came_after_the_first_parts_are_waited_for() {
    let transfer = TransferSettings { part_size: 5 << 20, ..TransferSettings::default() };
    let rig = Rig::with(FsSettings { transfer, ..asynchronous() }).await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    for number in 0..24 {
        rig.fs.write(fh, number << 20, &vec![number as u8; 1 << 20]).await.expect("a write");
    }
    while rig.store.count(Call::Part) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ownership = OwnershipChange { mode: Some(0o600), ..OwnershipChange::default() };
    rig.fs.setattr(ino, SetAttributes { ownership, ..SetAttributes::default() }).await.expect("a chmod");
    let fs = rig.fs.clone();
    let (closing, word) = under_way(&rig, Call::Copy, async move { fs.flush(fh).await }).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished(), "a kill would lose the mode");
    word.notify_one();
    closing.await.expect("no panic").expect("a close");
    rig.close(fh).await.expect("a close");
}

#[test]
fn what_was_closed_stays_when_the_process_ends_without_waiting() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (path, _root) = runtime.block_on(async {
        let rig = Rig::with(asynchronous()).await;
        let _never = put_fails_later(&rig);
        let (ino, fh) = rig.create(Ino::ROOT, "f").await;
        rig.fs.write(fh, 0, b"hello").await.expect("a write");
        rig.close(fh).await.expect("a close");
        let path = match rig.fs.table.get(ino).expect("the inode").inode().lock().file() {
            Ok(FileState::Uploading(draft, _)) => draft.staged.path().to_owned(),
            other => panic!("{other:?}"),
        };
        (path, rig._root)
    });
    // All tasks go, and what they held.
    drop(runtime);
    assert!(path.exists(), "the end of the process took a file that was closed");
}
