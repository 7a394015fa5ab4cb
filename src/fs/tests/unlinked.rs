//! Large files that are removed or replaced while they are open: their objects wait, and make room when their names are used.

use super::*;
use crate::error::Error;
use crate::fs::RenameMode;
use crate::transfer::tests::fake::{Call, Fault};

/// One byte more than is brought to the local disk at once.
const LARGE: usize = (64 << 20) + 1;

fn large() -> Vec<u8> {
    vec![b'x'; LARGE]
}

/// Opens a large file at `path` below the root, of which `parent` is the directory.
async fn opened(rig: &Rig, parent: Ino, path: &str) -> Fh {
    rig.store.set(&format!("p/{path}"), large());
    let name = path.rsplit('/').next().expect("a name");
    let ino = rig.ino(parent, name).await.expect("a file");
    rig.open(ino, READ).await
}

async fn unlinked(rig: &Rig, parent: Ino, path: &str) -> Fh {
    let fh = opened(rig, parent, path).await;
    let name = path.rsplit('/').next().expect("a name");
    rig.fs.unlink(parent, name.as_bytes()).await.expect("an unlink");
    assert!(rig.object(&format!("p/{path}")).is_some(), "the object does not wait: nothing is tested here");
    fh
}

/// The end of a file, which no read-ahead of its beginning has.
async fn end(rig: &Rig, fh: Fh) -> Result<Vec<u8>> {
    rig.fs.read(fh, LARGE as u64 - 2, 9).await.map(|bytes| bytes.to_vec())
}

#[tokio::test]
async fn a_large_unlinked_file_hides_its_object_until_the_last_close() {
    let rig = Rig::with(no_cache()).await;
    let fh = unlinked(&rig, Ino::ROOT, "f").await;
    assert!(rig.ino(Ino::ROOT, "f").await.is_err());
    assert_eq!(rig.names(Ino::ROOT).await, Vec::<String>::new());
    assert_eq!(end(&rig, fh).await.expect("a read"), b"xx");
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.object("p/f"), None, "the object was left behind");
}

/// The store lists the object, it is deleted, and only then the answer comes.
#[tokio::test]
async fn a_listing_that_saw_a_waiting_object_does_not_show_it_after_its_last_close() {
    let rig = Rig::with(no_cache()).await;
    let fh = unlinked(&rig, Ino::ROOT, "f").await;
    let word = Arc::new(tokio::sync::Notify::new());
    let before = rig.store.count(Call::List);
    rig.store.next(Call::List, Fault::Late(word.clone()));
    let fs = rig.fs.clone();
    let dir = fs.opendir(Ino::ROOT).expect("an opendir").fh;
    let listing = tokio::spawn(async move { fs.readdir(dir, 0, false).await });
    while rig.store.count(Call::List) == before {
        tokio::task::yield_now().await;
    }
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.object("p/f"), None);
    word.notify_one();
    let entries = listing.await.expect("no panic").expect("a readdir");
    let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str().to_owned()).collect();
    assert_eq!(names, [".", ".."]);
}

/// The last of a file's handles is counted out, and before that has any consequence the file is opened again and unlinked.
#[tokio::test]
async fn a_late_release_leaves_the_object_of_a_file_that_was_opened_and_unlinked_since() {
    let rig = Rig::with(no_cache()).await;
    let early = opened(&rig, Ino::ROOT, "f").await;
    let handle = rig.fs.file_handle(early).expect("a handle");
    rig.fs.release(early).await.expect("a release");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, READ).await;
    rig.fs.unlink(Ino::ROOT, b"f").await.expect("an unlink");
    rig.fs.finish_unlinked(&handle).await;
    assert_eq!(end(&rig, fh).await.expect("a read"), b"xx");
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.object("p/f"), None);
}

#[tokio::test]
async fn a_name_made_again_leaves_the_old_file_to_who_has_it_open() {
    let rig = Rig::with(no_cache()).await;
    let fh = unlinked(&rig, Ino::ROOT, "f").await;
    rig.put(Ino::ROOT, "f", b"new").await;
    assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx");
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"new"[..]), "the old file's last close took the new one away");
}

#[tokio::test]
async fn a_rename_over_a_large_open_file_leaves_it_to_its_reader() {
    let rig = Rig::with(no_cache()).await;
    let fh = opened(&rig, Ino::ROOT, "f").await;
    rig.put(Ino::ROOT, "new", b"new").await;
    rig.fs.rename(Ino::ROOT, b"new", Ino::ROOT, b"f", RenameMode::Replace).await.expect("a rename");
    assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx");
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"new"[..]));
    assert_eq!(rig.store.keys(), ["p/f"]);
}

#[tokio::test]
async fn a_rename_to_a_name_that_waits_finds_it_free() {
    for mode in [RenameMode::NoReplace, RenameMode::Replace] {
        let rig = Rig::with(no_cache()).await;
        let fh = unlinked(&rig, Ino::ROOT, "f").await;
        rig.put(Ino::ROOT, "new", b"new").await;
        rig.fs.rename(Ino::ROOT, b"new", Ino::ROOT, b"f", mode).await.expect("a rename");
        assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx", "{mode:?}");
        rig.fs.release(fh).await.expect("a release");
        assert_eq!(rig.object("p/f").as_deref(), Some(&b"new"[..]), "{mode:?}");
    }
}

#[tokio::test]
async fn a_directory_moved_over_another_leaves_an_unlinked_file_to_its_reader() {
    let rig = Rig::with(no_cache()).await;
    let target = rig.mkdir(Ino::ROOT, "target").await;
    let fh = unlinked(&rig, target, "target/f").await;
    let source = rig.mkdir(Ino::ROOT, "source").await;
    rig.put(source, "f", b"new").await;
    rig.fs.rename(Ino::ROOT, b"source", Ino::ROOT, b"target", RenameMode::Replace).await.expect("a rename");
    assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx");
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.object("p/target/f").as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_directory_moved_to_the_name_of_an_unlinked_file_leaves_no_object_of_that_name() {
    let rig = Rig::with(no_cache()).await;
    let fh = unlinked(&rig, Ino::ROOT, "f").await;
    rig.mkdir(Ino::ROOT, "d").await;
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"f", RenameMode::Replace).await.expect("a rename");
    assert_eq!(rig.store.keys(), ["p/f/"]);
    assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx");
}

#[tokio::test]
async fn a_directory_is_gone_from_its_old_name_though_an_unlinked_file_is_open_in_it() {
    let rig = Rig::with(no_cache()).await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    let fh = unlinked(&rig, dir, "d/f").await;
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    assert_eq!(rig.store.keys(), ["p/e/"]);
    assert!(rig.ino(Ino::ROOT, "d").await.is_err());
    assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx");
    rig.fs.release(fh).await.expect("a release");
    assert_eq!(rig.store.keys(), ["p/e/"]);
}

#[tokio::test]
async fn a_file_made_anew_moves_with_its_directory_while_the_old_one_is_open() {
    let rig = Rig::with(no_cache()).await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    let fh = unlinked(&rig, dir, "d/f").await;
    rig.put(dir, "f", b"new").await;
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    assert_eq!(rig.store.keys(), ["p/e/", "p/e/f"]);
    assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx");
}

#[tokio::test]
async fn a_name_is_not_made_again_while_the_object_under_it_can_not_be_deleted() {
    let rig = Rig::with(no_cache()).await;
    let fh = unlinked(&rig, Ino::ROOT, "f").await;
    rig.store.next(Call::Delete, Fault::Fail(Error::AccessDenied("test".into())));
    assert!(rig.fs.create(Ino::ROOT, b"f", CREATION, WRITE).await.is_err());
    assert_eq!(end(&rig, fh).await.expect("a read of the old file"), b"xx");
    assert!(rig.ino(Ino::ROOT, "f").await.is_ok(), "the object is there, and so is the file");
}
