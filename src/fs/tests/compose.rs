//! Files that are composed of ranges of others within S3: what is copied so, what ends it, and what becomes of copies that fail.

use super::send_ahead::{MIB, content, write};
use super::*;
use crate::error::Error;
use crate::fs::{CopyRange, Holders, RenameMode, SetAttributes};
use crate::store::{Attributes, Tags};
use crate::transfer::tests::fake::{Call, Fault};

/// Where the second range begins: at no boundary of anything.
const CUT: u64 = 6 * MIB + 13;
const SIZE: u64 = 12 * MIB + 7;

fn bytes() -> Vec<u8> {
    content(SIZE, 3)
}

/// A source `a` that is open for reading, and a new file `b`.
async fn both(rig: &Rig) -> (Fh, Ino, Fh) {
    let from = source(rig, "a", &bytes()).await;
    let (ino, to) = rig.create(Ino::ROOT, "b").await;
    rig.store.take_calls();
    (from, ino, to)
}

async fn source(rig: &Rig, name: &str, bytes: &[u8]) -> Fh {
    rig.store.set(&format!("p/{name}"), bytes.to_vec());
    let ino = rig.ino(Ino::ROOT, name).await.expect("the source");
    rig.open(ino, READ).await
}

async fn copy(rig: &Rig, (from, from_at): (Fh, u64), (to, to_at): (Fh, u64), len: u64) -> Result<u32> {
    rig.fs.copy_file_range(CopyRange { from: (from, from_at), to: (to, to_at), len }).await
}

/// The first of two ranges of the source.
async fn first(rig: &Rig, from: Fh, to: Fh) {
    assert_eq!(copy(rig, (from, 0), (to, 0), CUT).await.expect("a copy"), CUT as u32);
}

async fn second(rig: &Rig, from: Fh, to: Fh) -> Result<u32> {
    copy(rig, (from, CUT), (to, CUT), 1 << 30).await
}

#[track_caller]
fn left_to_the_caller(answer: Result<u32>) {
    assert!(matches!(answer, Err(Error::CrossDevice)), "{answer:?}");
}

async fn read(rig: &Rig, fh: Fh, at: u64, len: u32) -> Vec<u8> {
    rig.fs.read(fh, at, len).await.expect("a read").to_vec()
}

fn no_byte_went_through(rig: &Rig) {
    let store = &rig.store;
    let moved = (store.count(Call::Part), store.count(Call::Put), store.count(Call::Get));
    assert_eq!(moved, (0, 0, 0), "parts, puts, gets");
}

#[tokio::test]
async fn ranges_one_after_the_other_become_an_object_at_the_close_and_no_byte_is_moved() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    first(&rig, from, to).await;
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, CUT);
    assert_eq!(second(&rig, from, to).await.expect("a copy"), (SIZE - CUT) as u32);
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, SIZE);
    assert_eq!(rig.object("p/b"), None, "half an object can be seen");
    rig.close(to).await.expect("a close");
    no_byte_went_through(&rig);
    let calls = rig.store.take_calls();
    assert_eq!(calls, [Call::Create, Call::PartCopy, Call::Head, Call::PartCopy, Call::Head, Call::Complete]);
    assert!(rig.object("p/b") == Some(bytes()));
    let fh = rig.open(ino, READ).await;
    assert!(read(&rig, fh, CUT - 5, 10).await == bytes()[CUT as usize - 5..][..10]);
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_composed_file_has_its_own_attributes_and_the_tags_and_headers_of_its_source() {
    let rig = Rig::new().await;
    let tags = Tags::Known(vec![("team".into(), "blue".into())]);
    let theirs = Attributes { content_type: Some("text/x-test".into()), tags: tags.clone(), ..Attributes::default() };
    rig.store.set_with("p/a", bytes().into(), &theirs, std::time::SystemTime::now());
    let ino = rig.ino(Ino::ROOT, "a").await.expect("the source");
    let from = rig.open(ino, READ).await;
    let (_, to) = rig.create(Ino::ROOT, "b").await;
    first(&rig, from, to).await;
    second(&rig, from, to).await.expect("a copy");
    rig.close(to).await.expect("a close");
    let stored = rig.store.attributes("p/b").expect("an object");
    assert_eq!((stored.content_type.as_deref(), stored.tags), (Some("text/x-test"), tags));
    assert_eq!(stored.metadata["file-permissions"], "0100640");
}

/// What `cat a b` does, whose second call begins where the first file ends.
#[tokio::test]
async fn files_are_appended_to_each_other() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    let small = source(&rig, "small", b"the end").await;
    rig.store.take_calls();
    assert_eq!(copy(&rig, (from, 0), (to, 0), 1 << 30).await.expect("a copy"), SIZE as u32);
    assert_eq!(copy(&rig, (from, 0), (to, SIZE), 1 << 30).await.expect("a copy"), SIZE as u32);
    assert_eq!(copy(&rig, (small, 0), (to, 2 * SIZE), 1 << 30).await.expect("a copy"), 7);
    // Nothing can follow a part of 7 bytes.
    rig.store.take_calls();
    left_to_the_caller(copy(&rig, (from, 0), (to, 2 * SIZE + 7), 1 << 30).await);
    assert_eq!(rig.store.take_calls(), []);
    rig.close(to).await.expect("a close");
    no_byte_went_through(&rig);
    let all = [bytes(), bytes(), b"the end".to_vec()].concat();
    assert!(rig.object("p/b") == Some(all.clone()));
    let fh = rig.open(ino, READ).await;
    assert!(read(&rig, fh, 2 * SIZE - 3, 100).await == all[2 * SIZE as usize - 3..]);
}

#[tokio::test]
async fn what_s3_does_not_copy_into_a_part_is_left_to_the_caller_before_it_is_asked() {
    let rig = Rig::new().await;
    let (from, _, to) = both(&rig).await;
    let small = source(&rig, "small", &bytes()[..5 << 20]).await;
    rig.store.take_calls();
    // Short, not at the end, of a small object.
    left_to_the_caller(copy(&rig, (from, 0), (to, 0), 5 * MIB - 1).await);
    left_to_the_caller(copy(&rig, (from, SIZE - 5), (to, 0), 1 << 30).await);
    left_to_the_caller(copy(&rig, (from, 0), (to, 1), CUT).await);
    left_to_the_caller(copy(&rig, (small, 1), (to, 0), 1 << 30).await);
    left_to_the_caller(copy(&rig, (from, SIZE), (to, 0), 1 << 30).await);
    assert_eq!(rig.store.take_calls(), []);
    first(&rig, from, to).await;
    rig.store.take_calls();
    left_to_the_caller(copy(&rig, (from, CUT), (to, CUT - 1), 1 << 30).await);
    left_to_the_caller(copy(&rig, (from, CUT), (to, CUT + 1), 1 << 30).await);
    left_to_the_caller(copy(&rig, (from, CUT), (to, CUT), MIB).await);
    left_to_the_caller(copy(&rig, (small, 1), (to, CUT), 1 << 30).await);
    assert_eq!(rig.store.take_calls(), []);
    second(&rig, from, to).await.expect("a copy");
    rig.close(to).await.expect("a close");
    assert!(rig.object("p/b") == Some(bytes()));
}

#[tokio::test]
async fn a_source_that_goes_after_it_was_copied_loses_no_byte() {
    for reads in [false, true] {
        let rig = Rig::new().await;
        let (from, ino, to) = both(&rig).await;
        first(&rig, from, to).await;
        second(&rig, from, to).await.expect("a copy");
        rig.fs.unlink(Ino::ROOT, b"a").await.expect("an unlink");
        if reads {
            assert!(read(&rig, to, CUT - 5, 10).await == bytes()[CUT as usize - 5..][..10]);
        }
        rig.close(to).await.expect("a close");
        assert!(rig.object("p/b") == Some(bytes()));
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, SIZE);
    }
}

#[tokio::test]
async fn a_file_that_is_being_composed_is_read_where_its_bytes_come_from() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    first(&rig, from, to).await;
    second(&rig, from, to).await.expect("a copy");
    for (at, len) in [(0, 100), (CUT - 5, 10), (CUT, 5), (SIZE - 3, 100), (SIZE, 5)] {
        let end = (at + u64::from(len)).min(SIZE);
        assert!(read(&rig, to, at, len).await == bytes()[at as usize..end as usize], "{at}");
    }
    assert_eq!(rig.object("p/b"), None, "it was stored to be read");
    let other = rig.open(ino, READ).await;
    assert!(read(&rig, other, CUT - 1, 2).await == bytes()[CUT as usize - 1..][..2]);
    rig.close(to).await.expect("a close");
    assert!(read(&rig, other, CUT - 1, 2).await == bytes()[CUT as usize - 1..][..2]);
}

#[tokio::test]
async fn a_file_that_is_being_composed_can_be_written_cut_and_copied_to_again() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    first(&rig, from, to).await;
    write(&rig, to, 5, b"written").await;
    let mut wanted = bytes()[..CUT as usize].to_vec();
    wanted[5..12].copy_from_slice(b"written");
    assert!(read(&rig, to, 0, 100).await == wanted[..100]);
    left_to_the_caller(second(&rig, from, to).await);
    rig.fs.fsync(to).await.expect("a sync");
    assert!(rig.object("p/b") == Some(wanted.clone()));
    second(&rig, from, to).await.expect("a copy behind what is stored");
    wanted.extend_from_slice(&bytes()[CUT as usize..]);
    let cut = SetAttributes { size: Some(SIZE - 1), handle: Some(to), ..SetAttributes::default() };
    rig.fs.setattr(ino, cut).await.expect("a cut");
    wanted.truncate(SIZE as usize - 1);
    assert!(read(&rig, to, CUT - 9, 1 << 20).await == wanted[CUT as usize - 9..][..1 << 20]);
    rig.close(to).await.expect("a close");
    assert!(rig.object("p/b") == Some(wanted));
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_truncating_open_of_a_file_that_is_being_composed_leaves_nothing_of_it() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    first(&rig, from, to).await;
    let again = rig.open(ino, TRUNCATE).await;
    write(&rig, again, 0, b"new").await;
    rig.close(again).await.expect("a close");
    rig.close(to).await.expect("a close");
    assert_eq!(rig.object("p/b").as_deref(), Some(&b"new"[..]));
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_file_that_is_being_composed_can_be_renamed_and_removed() {
    let rig = Rig::new().await;
    let (from, _, to) = both(&rig).await;
    first(&rig, from, to).await;
    rig.fs.rename(Ino::ROOT, b"b", Ino::ROOT, b"c", RenameMode::Replace).await.expect("a rename");
    second(&rig, from, to).await.expect("a copy behind what was renamed");
    rig.close(to).await.expect("a close");
    assert!(rig.object("p/c") == Some(bytes()) && rig.object("p/b").is_none());

    let dir = rig.mkdir(Ino::ROOT, "dir").await;
    let (_, to) = rig.create(dir, "d").await;
    first(&rig, from, to).await;
    rig.fs.rename(Ino::ROOT, b"dir", Ino::ROOT, b"moved", RenameMode::Replace).await.expect("a rename");
    second(&rig, from, to).await.expect("a copy behind what was renamed");
    rig.close(to).await.expect("a close");
    assert!(rig.object("p/moved/d") == Some(bytes()));

    let (_, to) = rig.create(Ino::ROOT, "e").await;
    first(&rig, from, to).await;
    rig.fs.unlink(Ino::ROOT, b"e").await.expect("an unlink");
    assert!(read(&rig, to, CUT - 5, 100).await == bytes()[CUT as usize - 5..CUT as usize]);
    left_to_the_caller(second(&rig, from, to).await);
    rig.close(to).await.expect("a close");
    assert_eq!(rig.store.keys(), ["p/a", "p/c", "p/moved/", "p/moved/d"]);
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_range_that_is_refused_leaves_what_was_copied_before_and_the_rest_is_written() {
    let errors = [Error::AccessDenied("test".into()), Error::Unavailable("test".into()), Error::NotFound];
    for error in errors {
        let rig = Rig::new().await;
        let (from, ino, to) = both(&rig).await;
        rig.store.next(Call::PartCopy, Fault::Fail(error.clone()));
        left_to_the_caller(copy(&rig, (from, 0), (to, 0), CUT).await);
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, 0);
        first(&rig, from, to).await;
        rig.store.next(Call::PartCopy, Fault::DoneBut(error.clone()));
        rig.store.next(Call::Head, Fault::Fail(error));
        left_to_the_caller(second(&rig, from, to).await);
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, CUT);
        write(&rig, to, CUT, &bytes()[CUT as usize..]).await;
        rig.close(to).await.expect("a close");
        assert!(rig.object("p/b") == Some(bytes()));
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

/// On a store that looks at the ETag of what a part is copied of, and on one that does not.
#[tokio::test]
async fn a_source_that_is_replaced_between_two_ranges_is_never_mixed() {
    for looks in [true, false] {
        let mut store = Fake::new(false);
        store.copies_any_source = !looks;
        let rig = Rig::over(Arc::new(store), settings());
        let (from, ino, to) = both(&rig).await;
        first(&rig, from, to).await;
        rig.store.set("p/a", vec![1; SIZE as usize]);
        left_to_the_caller(second(&rig, from, to).await);
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, CUT);
        assert!(matches!(rig.fs.read(from, CUT, 10).await, Err(Error::Stale)));
        assert!(read(&rig, to, CUT - 5, 10).await == bytes()[CUT as usize - 5..CUT as usize]);
        rig.close(to).await.expect("a close");
        assert!(rig.object("p/b") == Some(bytes()[..CUT as usize].to_vec()), "looks: {looks}");
    }
}

#[tokio::test]
async fn a_completion_that_fails_is_told_and_tried_again() {
    let rig = Rig::new().await;
    let (from, ino, to) = both(&rig).await;
    first(&rig, from, to).await;
    second(&rig, from, to).await.expect("a copy");
    rig.store.next(Call::Complete, Fault::Fail(Error::AccessDenied("test".into())));
    assert!(matches!(rig.fs.flush(to).await, Err(Error::AccessDenied(_))));
    assert!(read(&rig, to, CUT - 5, 10).await == bytes()[CUT as usize - 5..][..10]);
    assert_eq!(rig.object("p/b"), None);
    rig.close(to).await.expect("the second try");
    assert!(rig.object("p/b") == Some(bytes()));
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, SIZE);
    no_byte_went_through_but_reads(&rig);
}

fn no_byte_went_through_but_reads(rig: &Rig) {
    assert_eq!((rig.store.count(Call::Part), rig.store.count(Call::Put)), (0, 0));
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_known_again() {
    for error in [Error::Timeout("test".into()), Error::PreconditionFailed, Error::UploadGone] {
        let rig = Rig::new().await;
        let (from, _, to) = both(&rig).await;
        first(&rig, from, to).await;
        second(&rig, from, to).await.expect("a copy");
        rig.store.next(Call::Complete, Fault::DoneBut(error.clone()));
        let closed = rig.fs.flush(to).await;
        assert_eq!(closed.is_ok(), !error.is_transient(), "{closed:?}");
        rig.close(to).await.expect("the second try");
        assert!(rig.object("p/b") == Some(bytes()));
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

/// Somebody aborts uploads that are old, or AWS wants a new one after a 409.
#[tokio::test]
async fn an_upload_that_is_of_no_more_use_is_begun_anew_with_the_bytes() {
    for error in [Error::UploadGone, Error::ConcurrentWrite] {
        let rig = Rig::new().await;
        let (from, _, to) = both(&rig).await;
        first(&rig, from, to).await;
        second(&rig, from, to).await.expect("a copy");
        rig.store.next(Call::Complete, Fault::Fail(error));
        rig.close(to).await.expect("a close");
        assert!(rig.object("p/b") == Some(bytes()));
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn another_clients_object_is_not_replaced_and_the_bytes_are_kept() {
    for policy in [ConflictPolicy::Fail, ConflictPolicy::KeepBoth] {
        let rig = Rig::with(FsSettings { conflict: policy, ..settings() }).await;
        let (from, _, to) = both(&rig).await;
        first(&rig, from, to).await;
        second(&rig, from, to).await.expect("a copy");
        rig.store.set("p/b", "theirs");
        let closed = rig.fs.flush(to).await;
        assert_eq!(closed.is_ok(), policy == ConflictPolicy::KeepBoth, "{closed:?}");
        assert_eq!(rig.object("p/b").as_deref(), Some(&b"theirs"[..]));
        assert!(read(&rig, to, CUT - 5, 10).await == bytes()[CUT as usize - 5..][..10]);
        if policy == ConflictPolicy::KeepBoth {
            let copies: Vec<_> = rig.store.keys().into_iter().filter(|key| key.contains("conflict")).collect();
            assert!(rig.object(&copies[0]) == Some(bytes()));
        }
    }
}

#[tokio::test]
async fn an_exclusive_create_that_lost_is_told_so_when_it_was_composed() {
    let rig = Rig::new().await;
    let from = source(&rig, "a", &bytes()).await;
    let to = rig.fs.create(Ino::ROOT, b"b", CREATION, EXCLUSIVE).await.expect("a new file").opened.fh;
    first(&rig, from, to).await;
    rig.store.set("p/b", "theirs");
    assert!(matches!(rig.close(to).await, Err(Error::AlreadyExists)));
    assert_eq!(rig.object("p/b").as_deref(), Some(&b"theirs"[..]));
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_close_waits_for_a_composed_file_with_commit_async_as_well() {
    let rig = Rig::with(FsSettings { commit: CommitMode::Async, ..settings() }).await;
    let (from, _, to) = both(&rig).await;
    first(&rig, from, to).await;
    rig.store.next(Call::Complete, Fault::Fail(Error::AccessDenied("test".into())));
    assert!(rig.fs.flush(to).await.is_err(), "the journal can't store it");
    rig.close(to).await.expect("a close");
    assert!(rig.object("p/b") == Some(bytes()[..CUT as usize].to_vec()));
}

#[tokio::test]
async fn the_end_of_a_mount_leaves_no_upload_of_a_file_that_is_still_being_composed() {
    let rig = Rig::new().await;
    let (from, _, to) = both(&rig).await;
    first(&rig, from, to).await;
    let drained = rig.fs.drain(Duration::from_secs(5), Holders::Possible).await;
    assert_eq!(drained.open.len(), 1);
    assert_eq!((rig.store.open_uploads(), rig.object("p/b")), (0, None));
}
