//! Parts that go up while a program still writes.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::sequences::{Compared, each_agrees_with_a_vector, of_a_new_file};
use super::*;
use crate::error::Error;
use crate::fs::SetAttributes;
use crate::inode::{OwnershipChange, StoredAttributes};
use crate::transfer::tests::fake::{Call, Fault};

pub(super) const MIB: u64 = 1 << 20;

/// Bytes of which no two MiB are alike.
pub(super) fn content(len: u64, seed: u8) -> Vec<u8> {
    let block: Vec<u8> = (0..4093_u32).map(|at| (at ^ (at >> 8)) as u8 ^ seed).collect();
    let mut bytes = Vec::with_capacity(len as usize + block.len());
    while (bytes.len() as u64) < len {
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

pub(super) async fn write(rig: &Rig, fh: Fh, at: u64, bytes: &[u8]) {
    for (step, piece) in bytes.chunks(MIB as usize).enumerate() {
        rig.fs.write(fh, at + step as u64 * MIB, piece).await.expect("a write");
    }
}

/// Waits until something is so; fails when it isn't within ten seconds.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A file of 40 MiB whose parts of 8 MiB are all up, and that is still open.
async fn all_up() -> (Rig, Ino, Fh, Vec<u8>) {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(40 * MIB, 0);
    write(&rig, fh, 0, &bytes).await;
    until("five parts are up", || rig.store.count(Call::Part) == 5).await;
    (rig, ino, fh, bytes)
}

#[tokio::test]
async fn full_parts_go_up_while_the_file_is_written() {
    let (rig, _, fh, bytes) = all_up().await;
    assert_eq!(rig.object("p/f"), None, "it was published before it was closed");
    rig.store.take_calls();
    write(&rig, fh, 40 * MIB, b"end").await;
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.take_calls(), [Call::Part, Call::Complete], "only what is missing goes up at the close");
    assert!(rig.object("p/f") == Some([&bytes[..], b"end"].concat()));
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_small_file_begins_no_upload() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    write(&rig, fh, 0, &content(16 * MIB, 0)).await;
    rig.close(fh).await.expect("a close");
    assert_eq!((rig.store.count(Call::Create), rig.store.count(Call::Put)), (0, 1));
}

#[tokio::test]
async fn a_part_that_is_written_again_goes_up_again() {
    let (rig, _, fh, mut bytes) = all_up().await;
    rig.fs.write(fh, 9 * MIB, b"changed").await.expect("a write");
    bytes[9 * MIB as usize..][..7].copy_from_slice(b"changed");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!((rig.store.count(Call::Part), rig.store.count(Call::Create)), (6, 1));
}

#[tokio::test]
async fn a_part_whose_second_upload_fails_is_not_taken_for_the_first() {
    let (rig, _, fh, mut bytes) = all_up().await;
    let again = content(10 * MIB, 5);
    bytes[..10 * MIB as usize].copy_from_slice(&again);
    rig.store.next(Call::Part, Fault::Fail(Error::Unavailable("test".into())));
    write(&rig, fh, 0, &again).await;
    until("the second upload is tried", || rig.store.count(Call::Part) == 6).await;
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
}

#[tokio::test]
async fn a_file_that_is_cut_after_its_parts_went_up_is_cut_in_s3_too() {
    for size in [0, 3, 20 * MIB, 33 * MIB] {
        let (rig, ino, fh, mut bytes) = all_up().await;
        let change = SetAttributes { size: Some(size), handle: Some(fh), ..SetAttributes::default() };
        rig.fs.setattr(ino, change).await.expect("cut");
        rig.fs.write(fh, 36 * MIB, b"far").await.expect("a write behind the end");
        bytes.truncate(size as usize);
        bytes.resize(36 * MIB as usize, 0);
        bytes.extend_from_slice(b"far");
        rig.close(fh).await.expect("a close");
        assert!(rig.object("p/f") == Some(bytes), "cut at {size}");
        until("no upload is left", || rig.store.open_uploads() == 0).await;
    }
}

#[tokio::test]
async fn a_part_that_fails_because_it_changed_on_its_way_fails_no_close() {
    for cut in [true, false] {
        let rig = Rig::new().await;
        let (ino, fh) = rig.create(Ino::ROOT, "f").await;
        let mut bytes = content(40 * MIB, 0);
        write(&rig, fh, 0, &bytes[..32 * MIB as usize]).await;
        until("four parts are up", || rig.store.count(Call::Part) == 4).await;
        // Read from a file that was cut, or sent with the checksum of other bytes.
        let word = Arc::new(Notify::new());
        rig.store.next(Call::Part, Fault::FailLate(word.clone(), Error::Corrupt("test".into())));
        write(&rig, fh, 32 * MIB, &bytes[32 * MIB as usize..]).await;
        until("the fifth is on its way", || rig.store.count(Call::Part) == 5).await;
        let change = SetAttributes { size: Some(36 * MIB), handle: Some(fh), ..SetAttributes::default() };
        if cut {
            rig.fs.setattr(ino, change).await.expect("cut");
            bytes.truncate(36 * MIB as usize);
        }
        for at in [0, 33 * MIB].into_iter().take(if cut { 1 } else { 2 }) {
            write(&rig, fh, at, b"again").await;
            bytes[at as usize..][..5].copy_from_slice(b"again");
        }
        let fail = async {
            until("the first goes up again, with the commit", || rig.store.count(Call::Part) == 6).await;
            word.notify_one();
        };
        let (closed, ()) = tokio::join!(rig.close(fh), fail);
        closed.expect("a close");
        assert!(rig.object("p/f") == Some(bytes), "cut: {cut}");
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn a_file_that_is_cut_to_a_small_one_goes_up_in_one_request() {
    let (rig, ino, fh, bytes) = all_up().await;
    let change = SetAttributes { size: Some(MIB), handle: Some(fh), ..SetAttributes::default() };
    rig.fs.setattr(ino, change).await.expect("cut");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f").as_deref() == Some(&bytes[..MIB as usize]));
    until("no upload is left", || rig.store.open_uploads() == 0).await;
}

#[tokio::test]
async fn a_file_renamed_while_it_is_written_goes_up_under_its_new_name_alone() {
    let (rig, _, fh, bytes) = all_up().await;
    rig.fs.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", crate::fs::RenameMode::Replace).await.expect("renamed");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/g") == Some(bytes));
    assert_eq!(rig.store.keys(), ["p/g"]);
    until("no upload is left", || rig.store.open_uploads() == 0).await;
}

#[tokio::test]
async fn a_file_unlinked_while_it_is_written_leaves_no_upload() {
    let (rig, _, fh, bytes) = all_up().await;
    rig.fs.unlink(Ino::ROOT, b"f").await.expect("unlinked");
    until("no upload is left", || rig.store.open_uploads() == 0).await;
    write(&rig, fh, 40 * MIB, &content(32 * MIB, 1)).await;
    assert_eq!(&rig.fs.read(fh, 5, 5).await.expect("a read")[..], &bytes[5..10]);
    rig.close(fh).await.expect("a close");
    assert_eq!((rig.store.keys().len(), rig.store.open_uploads()), (0, 0));
}

#[tokio::test]
async fn a_part_that_fails_early_goes_up_at_the_close() {
    let rig = Rig::new().await;
    rig.store.next(Call::Part, Fault::Fail(Error::Unavailable("test".into())));
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(40 * MIB, 0);
    write(&rig, fh, 0, &bytes).await;
    until("parts are tried", || rig.store.count(Call::Part) > 0).await;
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
}

#[tokio::test]
async fn an_upload_that_can_not_begin_early_begins_at_the_close() {
    let rig = Rig::new().await;
    rig.store.next(Call::Create, Fault::Fail(Error::Unavailable("test".into())));
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(40 * MIB, 0);
    write(&rig, fh, 0, &bytes).await;
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
}

#[tokio::test]
async fn a_commit_whose_parts_fail_keeps_the_bytes_and_is_done_again() {
    let (rig, _, fh, mut bytes) = all_up().await;
    write(&rig, fh, 40 * MIB, b"end").await;
    bytes.extend_from_slice(b"end");
    rig.store.next(Call::Part, Fault::Fail(Error::Unavailable("test".into())));
    assert!(rig.fs.flush(fh).await.is_err());
    until("no upload is left", || rig.store.open_uploads() == 0).await;
    rig.close(fh).await.expect("the next one works");
    assert!(rig.object("p/f") == Some(bytes));
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_known_for_our_own() {
    let (rig, _, fh, bytes) = all_up().await;
    rig.store.next(Call::Complete, Fault::DoneBut(Error::UploadGone));
    rig.close(fh).await.expect("it is there");
    assert!(rig.object("p/f") == Some(bytes));
}

#[tokio::test]
async fn attributes_changed_after_the_upload_began_are_stored_too() {
    let (rig, ino, fh, bytes) = all_up().await;
    let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let ownership = OwnershipChange { mode: Some(0o640), mtime: Some(mtime), ..OwnershipChange::default() };
    let change = SetAttributes { ownership, handle: Some(fh), ..SetAttributes::default() };
    rig.fs.setattr(ino, change).await.expect("changed");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    let stored = StoredAttributes::read(&rig.store.attributes("p/f").expect("an object").metadata);
    assert_eq!((stored.mode, stored.mtime), (Some(0o640), Some(mtime)));
    assert_eq!(rig.store.count(Call::Copy), 1);
}

#[tokio::test]
async fn a_time_that_nobody_has_set_is_the_same_here_and_in_s3() {
    let (rig, ino, fh, _) = all_up().await;
    write(&rig, fh, 40 * MIB, b"later").await;
    rig.close(fh).await.expect("a close");
    let stored = StoredAttributes::read(&rig.store.attributes("p/f").expect("an object").metadata);
    assert_eq!(Some(rig.fs.getattr(ino).await.expect("attributes").ownership.mtime), stored.mtime);
    assert_eq!(rig.store.count(Call::Copy), 0, "a copy for a time that nobody has set");
}

#[test]
fn whatever_is_written_in_any_order_is_what_goes_up() {
    each_agrees_with_a_vector(of_a_new_file(), 28, async || {
        let rig = Rig::new().await;
        let (ino, fh) = rig.create(Ino::ROOT, "f").await;
        Compared { rig, ino, fh, model: Vec::new() }
    });
}

#[tokio::test]
async fn the_end_of_a_mount_takes_back_what_went_up_of_an_open_file() {
    let (rig, _, fh, _) = all_up().await;
    let drained = rig.fs.drain(Duration::from_secs(30), crate::fs::Holders::Possible).await;
    assert_eq!((drained.open.len(), rig.store.open_uploads()), (1, 0));
    write(&rig, fh, 40 * MIB, &content(40 * MIB, 1)).await;
    assert_eq!(rig.store.open_uploads(), 0, "an upload was begun after the end");
}
