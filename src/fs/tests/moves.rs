//! Files that are moved while their commit waits for them, or waits to begin.
//!
//! Owns the races between a rename and the commit of a last close, which the kernel keeps from nobody: release comes after
//! close(2) has returned.

use super::*;
use crate::fs::RenameMode;
use crate::fs::tests::races::under_way;
use crate::transfer::tests::fake::Call;
use crate::types::Name;

/// `rsync` of an empty file: made, closed, renamed over the old one, and only then released. The commit that waited for the
/// rename stored the file under the name that it had lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_for_a_file_that_is_renamed_finds_it_at_its_new_name() {
    let rig = Rig::new().await;
    for round in 0..100 {
        rig.put(Ino::ROOT, "f", b"old").await;
        let (ino, fh) = rig.create(Ino::ROOT, "f.tmp").await;
        // What is replaced is open, and so is read first: the rename takes its time while it has both.
        let there = rig.ino(Ino::ROOT, "f").await.expect("the file");
        let reader = rig.open(there, READ).await;
        let fs = rig.fs.clone();
        let (rename, word) = under_way(&rig, Call::Get, async move {
            fs.rename(Ino::ROOT, b"f.tmp", Ino::ROOT, b"f", RenameMode::Replace).await
        })
        .await;
        let waiting = Arc::new(tokio::sync::Barrier::new(2));
        let (fs, ready) = (rig.fs.clone(), waiting.clone());
        let inode = rig.fs.table.get_plain(ino).expect("an inode");
        let commit = tokio::spawn(async move {
            ready.wait().await;
            let (_passage, _owned) = fs.own_in_place(&inode).await.expect("the file");
            fs.table.place(ino).map(|place| place.name.to_string())
        });
        waiting.wait().await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        word.notify_one();
        assert_eq!(commit.await.expect("no panic").as_deref(), Some("f"), "round {round}");
        rename.await.expect("no panic").expect("a rename");
        rig.fs.release(fh).await.expect("a release");
        assert_eq!(rig.store.keys(), ["p/f"]);
        rig.fs.release(reader).await.expect("a release");
        rig.fs.unlink(Ino::ROOT, b"f").await.expect("an unlink");
    }
}

/// A commit had been let into the old directory; the new one was then moved with the file in it, and its objects were listed
/// before the commit made one more.
#[tokio::test]
async fn who_waits_for_a_file_that_is_moved_waits_for_the_move_of_the_new_directory_too() {
    let rig = Rig::new().await;
    let (old, new) = (rig.mkdir(Ino::ROOT, "old").await, rig.mkdir(Ino::ROOT, "new").await);
    let (ino, fh) = rig.create(old, "f").await;
    let inode = rig.fs.table.get_plain(ino).expect("an inode");
    let owned = inode.own().await.expect("the draft");
    let fs = rig.fs.clone();
    let commit = tokio::spawn(async move {
        let (_passage, _owned) = fs.own_in_place(&inode).await.expect("the file");
        fs.table.path_of(ino)
    });
    tokio::task::yield_now().await;
    rig.fs.table.rename_file(&owned, new, &Name::parse(b"f").expect("a name")).expect("a move");
    // Known, so that the rename lists only what it moves.
    assert!(rig.ino(Ino::ROOT, "newer").await.is_err());
    let fs = rig.fs.clone();
    let (rename, word) = under_way(&rig, Call::List, async move {
        fs.rename(Ino::ROOT, b"new", Ino::ROOT, b"newer", RenameMode::Replace).await
    })
    .await;
    drop(owned);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!commit.is_finished(), "a commit began below a directory that is being moved");
    word.notify_one();
    rename.await.expect("no panic").expect("a rename");
    assert_eq!(commit.await.expect("no panic"), "newer/f");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.keys(), ["p/newer/", "p/newer/f", "p/old/"]);
}
