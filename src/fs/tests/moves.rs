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

/// Half-way through the move of a directory its objects are at neither place, as far as a name in it goes.
#[tokio::test]
async fn questions_about_what_is_below_a_directory_that_is_being_moved_wait() {
    let rig = Rig::with(no_cache()).await;
    for name in ["a", "b", "sub/c"] {
        rig.store.set(&format!("p/d/{name}"), name);
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let sub = rig.ino(dir, "sub").await.expect("a directory");
    let fs = rig.fs.clone();
    let (rename, word) =
        under_way(
            &rig,
            Call::Delete,
            async move { fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await },
        )
        .await;
    let fs = rig.fs.clone();
    let lookup = tokio::spawn(async move { fs.lookup(dir, b"a").await });
    let fs = rig.fs.clone();
    let getattr = tokio::spawn(async move { fs.getattr(sub).await });
    let fs = rig.fs.clone();
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    let readdir = tokio::spawn(async move { fs.readdir(fh, 0, false).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    word.notify_one();
    rename.await.expect("no panic").expect("a rename");
    lookup.await.expect("no panic").expect("the file is there all the time");
    getattr.await.expect("no panic").expect("so is the directory");
    let entries = readdir.await.expect("no panic").expect("a readdir");
    let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str().to_owned()).collect();
    names.sort();
    assert_eq!(names, [".", "..", "a", "b", "sub"]);
}

#[tokio::test]
async fn a_directory_that_is_moved_while_it_is_listed_shows_each_name_once() {
    let settings = FsSettings { rename_dir_limit: 5000, ..no_cache() };
    let rig = Rig::with(settings).await;
    let expected: Vec<String> = (0..2500).map(|index| format!("{index:04}")).collect();
    for name in &expected {
        rig.store.set(&format!("p/d/{name}"), "x");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let entries = rig.fs.readdir(fh, offset, false).await.expect("a readdir");
        let Some(last) = entries.last() else { break };
        if offset == 0 {
            rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"a", RenameMode::Replace).await.expect("a rename");
        }
        offset = last.next;
        names.extend(entries.iter().map(|entry| entry.name.as_str().to_owned()));
    }
    assert!(names.len() == expected.len() + 2, "{} names", names.len());
    assert_eq!(names.split_off(2), expected);
}

#[tokio::test]
async fn bytes_that_were_stored_leave_the_stage_also_when_the_last_close_meets_a_rename() {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"bytes").await.expect("a write");
    let reader = rig.open(ino, READ).await;
    rig.close(fh).await.expect("a close");
    let inode = rig.fs.table.get_plain(ino).expect("an inode");
    let is_staged = || inode.lock().file().expect("a file").staged().is_some();
    assert!(is_staged());
    let fs = rig.fs.clone();
    let (rename, word) =
        under_way(
            &rig,
            Call::Delete,
            async move { fs.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", RenameMode::Replace).await },
        )
        .await;
    rig.fs.release(reader).await.expect("a release");
    word.notify_one();
    rename.await.expect("no panic").expect("a rename");
    assert!(!is_staged(), "a file that nobody has open takes room in the stage");
    assert_eq!(rig.read(ino).await.expect("a read"), b"bytes");
}

/// The directory is moved with what stands in it, which is not what the draft was based on: its commit must not take that for
/// its own base.
#[tokio::test]
async fn a_draft_below_a_directory_that_is_moved_does_not_replace_what_another_client_stored_before() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/d/f", "base");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let ino = rig.ino(dir, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"ours, longer").await.expect("a write");
    rig.store.set("p/d/f", "theirs");
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    assert!(matches!(rig.close(fh).await, Err(crate::error::Error::Stale)));
    assert_eq!(rig.store.keys(), ["p/e/f"]);
    assert_eq!(rig.object("p/e/f").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn a_file_below_a_directory_that_is_moved_shows_what_another_client_stored_before() {
    let rig = Rig::with(no_cache()).await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    let (_, fh) = rig.create(dir, "f").await;
    rig.fs.write(fh, 0, b"ours, longer").await.expect("a write");
    rig.fs.fsync(fh).await.expect("stored, with a copy here");
    rig.store.set("p/d/f", "theirs");
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    let dir = rig.ino(Ino::ROOT, "e").await.expect("the directory");
    let ino = rig.ino(dir, "f").await.expect("the file");
    assert_eq!(rig.read(ino).await.expect("a read"), b"theirs");
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.object("p/e/f").as_deref(), Some(&b"theirs"[..]));
}
