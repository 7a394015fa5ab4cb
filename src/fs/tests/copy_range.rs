//! Files that are copied whole within S3, what is left to reading and writing, and what becomes of copies that fail.

use std::time::SystemTime;

use super::send_ahead::until;
use super::*;
use crate::error::Error;
use crate::fs::{CopyRange, SetAttributes};
use crate::inode::{FileState, OwnershipChange};
use crate::store::{Attributes, Tags};
use crate::transfer::tests::fake::{Call, Fault};

const BYTES: &[u8] = b"the bytes of the source";

/// A source `a` that is open for reading, and a new file `b`.
async fn both(rig: &Rig) -> (Fh, Ino, Fh) {
    let from = source(rig).await;
    let (ino, to) = rig.create(Ino::ROOT, "b").await;
    rig.store.take_calls();
    (from, ino, to)
}

async fn source(rig: &Rig) -> Fh {
    let ino = rig.put(Ino::ROOT, "a", BYTES).await;
    rig.open(ino, READ).await
}

fn whole(from: Fh, to: Fh) -> CopyRange {
    CopyRange { from: (from, 0), to: (to, 0), len: BYTES.len() as u64 }
}

async fn copy(rig: &Rig, from: Fh, to: Fh) -> Result<u32> {
    rig.fs.copy_file_range(whole(from, to)).await
}

#[track_caller]
fn left_to_the_caller(answer: Result<u32>) {
    assert!(matches!(answer, Err(Error::CrossDevice)), "{answer:?}");
}

/// What the kernel does after EXDEV, and the close.
async fn by_hand(rig: &Rig, from: Fh, to: Fh) -> Result<()> {
    let bytes = rig.fs.read(from, 0, 1 << 20).await?;
    rig.fs.write(to, 0, &bytes).await?;
    rig.close(to).await
}

#[tokio::test]
async fn a_whole_file_is_copied_by_one_request_and_its_close_sends_none() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    assert_eq!(copy(&rig, from, to).await.expect("a copy"), BYTES.len() as u32);
    assert_eq!(rig.object("p/b").as_deref(), Some(BYTES));
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, BYTES.len() as u64);
    rig.close(to).await.expect("a close");
    assert_eq!(rig.store.take_calls(), [Call::Copy]);
    assert_eq!(rig.read(ino).await.expect("a read"), BYTES);
    assert_eq!(rig.names(Ino::ROOT).await, ["a", "b"]);
}

#[tokio::test]
async fn a_target_that_has_tags_keeps_them() {
    let rig = Rig::new().await;
    let from = source(&rig).await;
    let tags = Tags::Known(vec![("team".into(), "blue".into())]);
    let tagged = Attributes { tags: tags.clone(), ..Attributes::default() };
    rig.store.set_with("p/b", "old".into(), &tagged, SystemTime::now());
    let ino = rig.ino(Ino::ROOT, "b").await.expect("a file");
    let to = rig.open(ino, TRUNCATE).await;
    left_to_the_caller(copy(&rig, from, to).await);
    by_hand(&rig, from, to).await.expect("a copy by hand");
    assert_eq!(rig.object("p/b").as_deref(), Some(BYTES));
    assert_eq!(rig.store.attributes("p/b").expect("an object").tags, tags);
}

#[tokio::test]
async fn a_truncating_open_is_copied_into_as_well() {
    let rig = Rig::new().await;
    let from = source(&rig).await;
    let ino = rig.put(Ino::ROOT, "b", b"old and longer than what comes").await;
    let to = rig.open(ino, TRUNCATE).await;
    rig.store.take_calls();
    copy(&rig, from, to).await.expect("a copy");
    rig.close(to).await.expect("a close");
    assert_eq!(rig.store.take_calls(), [Call::Copy]);
    assert_eq!(rig.read(ino).await.expect("a read"), BYTES);
}

#[tokio::test]
async fn anything_but_a_whole_clean_file_into_an_empty_one_is_left_to_the_caller() {
    let rig = Rig::new().await;
    let (from, _, to) = both(&rig).await;
    let asked = whole(from, to);
    let ranges = [
        CopyRange { from: (from, 1), ..asked },
        CopyRange { to: (to, 1), ..asked },
        CopyRange { len: asked.len - 1, ..asked },
        CopyRange { len: 0, ..asked },
        CopyRange { from: (to, 0), to: (to, 0), ..asked },
        CopyRange { to: (from, 0), ..asked },
        CopyRange { from: (Fh::new(999), 0), ..asked },
        CopyRange { to: (Fh::new(999), 0), ..asked },
    ];
    for range in ranges {
        left_to_the_caller(rig.fs.copy_file_range(range).await);
    }
    rig.fs.write(to, 0, b"x").await.expect("a write");
    left_to_the_caller(copy(&rig, from, to).await);
    // Nothing was asked of S3 for any of it.
    assert_eq!(rig.store.take_calls(), []);
}

#[tokio::test]
async fn a_source_that_is_being_written_or_empty_is_left_to_the_caller() {
    let rig = Rig::new().await;
    let (from, _, to) = both(&rig).await;
    let ino = rig.ino(Ino::ROOT, "a").await.expect("the source");
    let writer = rig.open(ino, WRITE).await;
    rig.fs.write(writer, 0, b"THE").await.expect("a write");
    rig.store.take_calls();
    left_to_the_caller(copy(&rig, from, to).await);
    let empty = rig.put(Ino::ROOT, "empty", b"").await;
    let empty = rig.open(empty, READ).await;
    rig.store.take_calls();
    left_to_the_caller(copy(&rig, empty, to).await);
    assert_eq!(rig.store.count(Call::Copy), 0);
}

#[tokio::test]
async fn a_source_that_was_replaced_is_not_copied_and_its_reader_is_told() {
    let rig = Rig::new().await;
    let (from, _, to) = both(&rig).await;
    rig.store.set("p/a", "another's, of other bytes");
    left_to_the_caller(copy(&rig, from, to).await);
    assert!(rig.object("p/b").is_none());
    // What was written here is still here; a mount that knows the source from S3 alone can't read it any more.
    let other = Rig::over(rig.store.clone(), settings());
    let ino = other.ino(Ino::ROOT, "a").await.expect("the source");
    let reader = other.open(ino, READ).await;
    other.store.set("p/a", "and another time");
    let (_, target) = other.create(Ino::ROOT, "c").await;
    let range = CopyRange { len: 1000, ..whole(reader, target) };
    left_to_the_caller(other.fs.copy_file_range(range).await);
    assert!(other.object("p/c").is_none());
}

/// On a store whose copies look at their target, and on one where they don't, with a file that may be copied in parts.
#[tokio::test]
async fn what_another_client_made_under_the_name_is_never_copied_over() {
    for copies_over in [false, true] {
        let mut store = Fake::new(false);
        store.copies_over = copies_over;
        let rig = Rig::over(Arc::new(store), settings());
        let bytes = vec![7; 6 << 20];
        let ino = rig.put(Ino::ROOT, "a", &bytes).await;
        let from = rig.open(ino, READ).await;
        let made = rig.fs.create(Ino::ROOT, b"b", CREATION, EXCLUSIVE).await.expect("a new file");
        let to = made.opened.fh;
        rig.store.set("p/b", "theirs");
        let range = CopyRange { len: bytes.len() as u64, ..whole(from, to) };
        left_to_the_caller(rig.fs.copy_file_range(range).await);
        assert_eq!(rig.object("p/b").as_deref(), Some(&b"theirs"[..]), "copies over: {copies_over}");
        assert!(matches!(by_hand(&rig, from, to).await, Err(Error::AlreadyExists)));
        assert_eq!(rig.object("p/b").as_deref(), Some(&b"theirs"[..]));
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn a_store_whose_copies_do_not_look_gets_parts_and_small_files_are_left_to_the_caller() {
    let mut store = Fake::new(false);
    store.copies_over = true;
    let rig = Rig::over(Arc::new(store), settings());
    let (from, _, to) = both(&rig).await;
    left_to_the_caller(copy(&rig, from, to).await);
    assert_eq!(rig.store.take_calls(), []);
    let bytes = vec![7; 6 << 20];
    let ino = rig.put(Ino::ROOT, "large", &bytes).await;
    let from = rig.open(ino, READ).await;
    rig.store.take_calls();
    let range = CopyRange { len: u64::from(u32::MAX), ..whole(from, to) };
    assert_eq!(rig.fs.copy_file_range(range).await.expect("a copy"), 6 << 20);
    assert_eq!(rig.store.take_calls(), [Call::Head, Call::Create, Call::PartCopy, Call::Complete]);
    rig.close(to).await.expect("a close");
    assert_eq!(rig.object("p/b").expect("an object"), bytes);
}

#[tokio::test]
async fn a_copy_that_was_refused_leaves_the_draft_to_be_written() {
    for error in [Error::AccessDenied("test".into()), Error::Unsupported("test"), Error::Unavailable("test".into())] {
        let rig = Rig::new().await;
        let (from, ino, to) = both(&rig).await;
        rig.store.next(Call::Copy, Fault::Fail(error));
        left_to_the_caller(copy(&rig, from, to).await);
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, 0);
        by_hand(&rig, from, to).await.expect("the ordinary way");
        assert_eq!(rig.object("p/b").as_deref(), Some(BYTES));
    }
}

#[tokio::test]
async fn a_copy_that_was_made_but_not_answered_is_known_again() {
    for error in [Error::Timeout("test".into()), Error::PreconditionFailed] {
        let rig = Rig::new().await;
        let (from, ino, to) = both(&rig).await;
        rig.store.next(Call::Copy, Fault::DoneBut(error));
        copy(&rig, from, to).await.expect("it is there");
        rig.close(to).await.expect("a close");
        assert_eq!(rig.store.take_calls(), [Call::Copy, Call::Head]);
        assert_eq!(rig.read(ino).await.expect("a read"), BYTES);
    }
}

#[tokio::test]
async fn a_copy_of_which_nothing_is_known_is_no_conflict_for_the_commit() {
    for metadata in [MetadataMode::Posix, MetadataMode::Basic] {
        let rig = Rig::with(FsSettings { metadata, ..settings() }).await;
        let (from, ino, to) = both(&rig).await;
        rig.store.next(Call::Copy, Fault::DoneBut(Error::Timeout("test".into())));
        rig.store.next(Call::Head, Fault::Fail(Error::Unreachable("test".into())));
        left_to_the_caller(copy(&rig, from, to).await);
        rig.store.clear_faults();
        by_hand(&rig, from, to).await.expect("no conflict with oneself");
        assert_eq!(rig.object("p/b").as_deref(), Some(BYTES));
        assert_eq!(rig.read(ino).await.expect("a read"), BYTES);
    }
}

#[tokio::test]
async fn the_copy_has_the_targets_attributes_and_the_sources_headers() {
    let rig = Rig::new().await;
    let mut theirs = Attributes { content_type: Some("text/x-test".into()), ..Attributes::default() };
    theirs.content_encoding = Some("gzip".into());
    theirs.metadata.insert("file-permissions".into(), "0100400".into());
    rig.store.set_with("p/a", BYTES.into(), &theirs, SystemTime::now());
    let source = rig.ino(Ino::ROOT, "a").await.expect("the source");
    let from = rig.open(source, READ).await;
    let (ino, to) = rig.create(Ino::ROOT, "b").await;
    copy(&rig, from, to).await.expect("a copy");
    let stored = rig.store.attributes("p/b").expect("an object");
    assert_eq!(stored.content_type.as_deref(), Some("text/x-test"));
    assert_eq!(stored.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(stored.metadata["file-permissions"], "0100640");
    assert_eq!(stored.metadata["file-owner"], "7");
    let shown = rig.fs.getattr(ino).await.expect("attributes").ownership;
    let other = Rig::over(rig.store.clone(), settings());
    let there = other.fs.lookup(Ino::ROOT, b"b").await.expect("the copy").attr.ownership;
    assert_eq!((there.mode, there.mtime), (shown.mode, shown.mtime));
    // As cp -p does.
    let time = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    let ownership = OwnershipChange { mode: Some(0o600), mtime: time, ..OwnershipChange::default() };
    rig.fs.setattr(ino, SetAttributes { ownership, handle: Some(to), ..SetAttributes::default() }).await.expect("set");
    rig.close(to).await.expect("a close");
    let stored = rig.store.attributes("p/b").expect("an object");
    assert_eq!(stored.metadata["file-permissions"], "0100600");
    assert_eq!(stored.metadata["file-mtime"], "1000000000000000000ns");
    assert_eq!(stored.content_encoding.as_deref(), Some("gzip"));
    assert_eq!(rig.object("p/b").as_deref(), Some(BYTES));
}

#[tokio::test]
async fn a_copy_can_be_written_cut_renamed_and_removed_while_it_is_open() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    copy(&rig, from, to).await.expect("a copy");
    rig.fs.write(to, 0, b"THE").await.expect("a write");
    rig.fs.write(to, BYTES.len() as u64, b", and more").await.expect("a write");
    rig.fs.flush(to).await.expect("a flush");
    assert_eq!(rig.object("p/b").as_deref(), Some(&b"THE bytes of the source, and more"[..]));
    rig.fs.rename(Ino::ROOT, b"b", Ino::ROOT, b"c", crate::fs::RenameMode::Replace).await.expect("a rename");
    rig.fs.setattr(ino, SetAttributes { size: Some(3), handle: Some(to), ..Default::default() }).await.expect("a cut");
    rig.close(to).await.expect("a close");
    assert_eq!(rig.object("p/c").as_deref(), Some(&b"THE"[..]));
    assert_eq!(rig.object("p/a").as_deref(), Some(BYTES), "the source changed");

    let (_, again) = rig.create(Ino::ROOT, "d").await;
    copy(&rig, from, again).await.expect("a copy");
    rig.fs.unlink(Ino::ROOT, b"d").await.expect("an unlink");
    assert_eq!(&rig.fs.read(again, 0, 100).await.expect("a read")[..], BYTES);
    rig.close(again).await.expect("a close");
    assert_eq!(rig.store.keys(), ["p/a", "p/c"]);
}

#[tokio::test]
async fn an_archived_source_and_one_that_may_not_be_read_are_left_to_the_caller() {
    let rig = Rig::new().await;
    let (_, _, to) = both(&rig).await;
    let archived = Attributes { storage_class: Some("GLACIER".into()), ..Attributes::default() };
    rig.store.set_with("p/archived", BYTES.into(), &archived, SystemTime::now());
    let ino = rig.ino(Ino::ROOT, "archived").await.expect("the source");
    // The store of the test lets it be opened.
    let from = rig.open(ino, READ).await;
    left_to_the_caller(copy(&rig, from, to).await);
    let ino = rig.ino(Ino::ROOT, "a").await.expect("the source");
    let from = rig.open(ino, OpenIntent { access: Access::Write, ..READ }).await;
    left_to_the_caller(copy(&rig, from, to).await);
    let from = rig.open(ino, READ).await;
    let reader = rig.fs.create(Ino::ROOT, b"c", CREATION, READ).await.expect("a new file").opened.fh;
    left_to_the_caller(copy(&rig, from, reader).await);
    assert_eq!(rig.store.count(Call::Copy), 0);
}

#[tokio::test]
async fn what_was_written_while_the_copy_waited_is_not_lost() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    let inode = rig.fs.table.get_plain(ino).expect("an inode");
    let ticket = rig.fs.write_ticket(&inode).await.expect("a ticket");
    let fs = rig.fs.clone();
    let copying = tokio::spawn(async move { fs.copy_file_range(whole(from, to)).await });
    until("the copy waits", || matches!(inode.lock().file(), Ok(FileState::Uploading(..)))).await;
    ticket.staged().write_at(0, b"first").expect("a write");
    drop(ticket);
    left_to_the_caller(copying.await.expect("a task"));
    rig.close(to).await.expect("a close");
    assert_eq!(rig.object("p/b").as_deref(), Some(&b"first"[..]));
    assert_eq!(rig.store.count(Call::Copy), 0);
}
