//! Files that are open while another client replaces them.

use super::*;
use crate::error::Error;
use crate::fs::SetAttributes;
use crate::inode::OwnershipChange;

/// Opens as the kernel does, which looks a name up again once when the open says ESTALE.
async fn opened(rig: &Rig, name: &str) -> (Ino, Fh) {
    for _ in 0..2 {
        let ino = rig.ino(Ino::ROOT, name).await.expect("a file");
        match rig.fs.open(ino, READ).await {
            Err(Error::Stale) => {}
            opened => return (ino, opened.expect("an open").fh),
        }
    }
    panic!("ESTALE twice: the kernel gives up then")
}

#[tokio::test]
async fn the_name_gets_another_inode_and_the_old_one_stays_what_it_was() {
    for metadata in [MetadataMode::Posix, MetadataMode::Basic] {
        let rig = Rig::with(FsSettings { metadata, ..no_cache() }).await;
        rig.store.set("p/f", vec![1; 300]);
        let (old_ino, old) = opened(&rig, "f").await;
        rig.store.set("p/f", vec![2; 200]);
        let (ino, new) = opened(&rig, "f").await;
        assert_ne!(ino, old_ino, "the kernel would show the new pages to who has the old file open");
        assert_eq!(rig.fs.read(new, 0, 1000).await.expect("a read")[..], [2; 200]);
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, 200);
        assert_eq!(rig.fs.getattr(old_ino).await.expect("attributes of what is open").size, 300);
        assert!(matches!(rig.fs.read(old, 0, 1000).await, Err(Error::Stale)));
        assert!(matches!(rig.fs.open(old_ino, READ).await, Err(Error::Stale)), "an open of what has no name");
        assert_eq!(rig.ino(Ino::ROOT, "f").await.expect("a file"), ino);
        for fh in [old, new] {
            rig.close(fh).await.expect("a close");
        }
        assert_eq!(rig.names(Ino::ROOT).await, ["f"]);
    }
}

#[tokio::test]
async fn a_listing_shows_the_new_one_while_the_old_one_is_open() {
    let rig = Rig::with(FsSettings { metadata: MetadataMode::Basic, ..no_cache() }).await;
    rig.store.set("p/f", vec![1; 300]);
    let (old_ino, old) = opened(&rig, "f").await;
    rig.store.set("p/f", vec![2; 200]);
    let dir = rig.fs.opendir(Ino::ROOT).expect("an opendir").fh;
    let entries = rig.fs.readdir(dir, 0, true).await.expect("a readdir");
    let shown = entries.iter().find(|entry| entry.name.as_str() == "f").expect("the name");
    let (attr, _) = shown.attr.as_ref().expect("attributes");
    assert_eq!((attr.size, attr.ino != old_ino), (200, true));
    drop(entries);
    rig.fs.releasedir(dir);
    rig.close(old).await.expect("a close");
}

#[tokio::test]
async fn a_writer_of_the_old_one_is_refused_and_changes_nothing() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.store.set("p/f", "theirs");
    opened(&rig, "f").await;
    assert!(matches!(rig.fs.write(fh, 0, b"mine").await, Err(Error::Stale)));
    rig.close(fh).await.expect("nothing was written");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn an_older_answer_takes_no_name_away() {
    let rig = Rig::with(settings()).await;
    let ino = rig.put(Ino::ROOT, "f", b"old").await;
    let asked = std::time::Instant::now();
    let old = crate::types::Version {
        size: 3,
        ..rig
            .fs
            .table
            .get(ino)
            .expect("the inode")
            .inode()
            .lock()
            .file()
            .expect("a file")
            .object()
            .cloned()
            .expect("a version")
    };
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"newer").await.expect("a write");
    rig.fs.flush(fh).await.expect("a flush");
    let pin = rig.fs.table.get(ino).expect("the inode");
    rig.fs.part_from_readers(&pin, (&old, None), asked).expect("it was changed here since");
    assert_eq!(rig.ino(Ino::ROOT, "f").await.expect("a file"), ino);
    rig.close(fh).await.expect("a close");
}

#[tokio::test]
async fn an_inode_without_a_name_is_not_opened_on_what_is_believed_of_it() {
    let rig = Rig::new().await;
    rig.store.set("p/f", "old");
    let (ino, fh) = opened(&rig, "f").await;
    let theirs = crate::types::Version {
        etag: crate::types::ETag::parse("theirs"),
        size: 6,
        modified: std::time::SystemTime::now(),
    };
    let pin = rig.fs.table.get(ino).expect("the inode");
    assert!(rig.fs.part_from_readers(&pin, (&theirs, None), std::time::Instant::now()).is_err());
    assert!(matches!(rig.fs.open(ino, READ).await, Err(Error::Stale)), "its reads would fail");
    rig.close(fh).await.expect("a close");
}

#[tokio::test]
async fn who_came_just_before_the_parting_gets_no_handle_and_changes_nothing() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/f", "old");
    let (ino, fh) = opened(&rig, "f").await;
    // They have asked when the old version was still there.
    let (reader, writer) = (rig.fs.table.get(ino).expect("the inode"), rig.fs.table.get(ino).expect("the inode"));
    rig.store.set("p/f", "theirs");
    opened(&rig, "f").await;
    assert!(matches!(rig.fs.add_file_handle(reader, READ, None).await, Err(Error::Stale)), "its reads would fail");
    assert!(matches!(rig.fs.begin_replace(&writer).await, Err(Error::Stale)), "what it cut would be lost");
    let ownership = OwnershipChange { mode: Some(0o600), ..OwnershipChange::default() };
    let change = SetAttributes { ownership, ..SetAttributes::default() };
    assert!(matches!(rig.fs.setattr(ino, change).await, Err(Error::Stale)), "a mode that no object has");
    assert!(matches!(rig.fs.open(ino, TRUNCATE).await, Err(Error::Stale)));
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn a_file_replaced_while_it_is_open_is_removed_by_the_second_try() {
    let rig = Rig::with(settings()).await;
    rig.store.set("p/f", vec![1; 300]);
    let (_, fh) = opened(&rig, "f").await;
    rig.store.set("p/f", vec![2; 200]);
    if rig.fs.unlink(Ino::ROOT, b"f").await.is_err() {
        rig.fs.unlink(Ino::ROOT, b"f").await.expect("the kernel tries once more");
    }
    assert_eq!(rig.object("p/f"), None);
    rig.close(fh).await.expect("a close");
}
