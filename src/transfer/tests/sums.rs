//! Larger objects are compared with the store's checksum when all of their bytes have come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::fake::{Call, Fake, Fault};
use super::{MIB, Rig, content, is_pending, until};
use crate::cache::disk::DiskCache;
use crate::config::{CacheSettings, TransferSettings};
use crate::error::{Error, Result};
use crate::store::ObjectStore;
use crate::transfer::{Cursor, ObjectReader};
use crate::types::{ByteRange, ObjectKey, Version};

const STEP: u64 = 128 << 10;

fn key() -> ObjectKey {
    ObjectKey::from_store("p/file")
}

/// What a program has when it reads from the start until the end or an error.
async fn read_on(reader: &ObjectReader) -> (Bytes, Result<()>) {
    let (cursor, mut all) = (Cursor::default(), Vec::new());
    while (all.len() as u64) < reader.version().size {
        match reader.read(&cursor, ByteRange::at(all.len() as u64, STEP)).await {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => return (all.into(), Err(error)),
        }
    }
    (all.into(), Ok(()))
}

#[track_caller]
fn assert_corrupt(outcome: &Result<impl std::fmt::Debug>) {
    assert!(matches!(outcome, Err(Error::Corrupt(_))), "{outcome:?}");
}

#[tokio::test]
async fn an_object_read_from_start_to_end_costs_one_head_at_most() {
    for size in [MIB + 1, 20 * MIB + 77] {
        let (rig, bytes) = (Rig::new(), content(size));
        let version = rig.store.set("p/file", bytes.clone());
        // A body that broke is summed across the break.
        rig.store.next(Call::Get, Fault::Cut(100_000));
        let (read, outcome) = read_on(&rig.transfer.reader(key(), version.clone())).await;
        assert!(read == bytes && outcome.is_ok(), "{outcome:?}");
        assert_eq!(rig.store.count(Call::Head), 1);
        // Its answer is remembered, for the next reader too.
        let (read, outcome) = read_on(&rig.transfer.reader(key(), version)).await;
        assert!(read == bytes && outcome.is_ok(), "{outcome:?}");
        assert_eq!(rig.store.count(Call::Head), 1);
    }
}

#[tokio::test]
async fn of_an_object_that_came_wrong_the_last_byte_is_an_error_and_the_next_reader_has_the_right_ones() {
    // Which of the requests brings the wrong byte: one in the midst, or the last.
    for good in [0, 2] {
        for told in [false, true] {
            let (rig, bytes) = (Rig::new(), content(20 * MIB + 77));
            let version = rig.store.set("p/file", bytes.clone());
            if told {
                rig.transfer.note_head(&key(), &rig.store.head(&key()).await.expect("it answers"));
            }
            rig.store.take_calls();
            let reader = rig.transfer.reader(key(), version.clone());
            (0..good).for_each(|_| rig.store.next(Call::Get, Fault::Late(granted())));
            rig.store.next(Call::Get, Fault::Flip(5000));
            let (read, outcome) = read_on(&reader).await;
            assert_corrupt(&outcome);
            assert!(read.len() < bytes.len());
            // What was given is wrong: more of it would not help.
            assert_corrupt(&reader.read(&Cursor::default(), ByteRange::new(0, 10)).await);
            // Also while somebody holds the first one.
            let next = rig.transfer.reader(key(), version);
            assert!(!Arc::ptr_eq(&reader, &next));
            let (read, outcome) = read_on(&next).await;
            assert!(read == bytes && outcome.is_ok(), "{outcome:?}");
            assert_eq!(rig.store.count(Call::Head), usize::from(!told));
        }
    }
}

#[tokio::test]
async fn a_part_that_failed_in_its_midst_and_came_later_is_summed_as_the_others() {
    for wrong in [false, true] {
        let (rig, bytes) = (Rig::new(), content(8 * MIB));
        let reader = rig.transfer.reader(key(), rig.store.set("p/file", bytes.clone()));
        rig.store.next(Call::Get, if wrong { Fault::Flip(5000) } else { Fault::Late(granted()) });
        rig.store.next(Call::Get, Fault::Cut(100_000));
        let denied = || Fault::Fail(Error::AccessDenied("test".into()));
        (0..20).for_each(|_| rig.store.next(Call::Get, denied()));
        let (cursor, mut at, mut failed) = (Cursor::default(), 0, 0);
        let outcome = loop {
            let read = reader.read(&cursor, ByteRange::at(at, STEP));
            match tokio::time::timeout(Duration::from_secs(10), read).await.expect("it ends") {
                Err(Error::AccessDenied(_)) => failed += 1,
                Err(error) => break Err(error),
                Ok(read) if read.is_empty() => break Ok(()),
                Ok(read) => at += read.len() as u64,
            }
        };
        assert!(failed > 0, "no part failed");
        assert_eq!((outcome.is_err(), at == 8 * MIB), (wrong, !wrong), "{outcome:?}");
        assert_eq!(rig.store.count(Call::Head), 1);
    }
}

/// A word that was given already.
fn granted() -> Arc<Notify> {
    let word = Arc::new(Notify::new());
    word.notify_one();
    word
}

#[tokio::test]
async fn the_last_byte_waits_for_those_before_it_and_for_the_answer_and_no_other_byte_does() {
    let (rig, bytes) = (Rig::new(), content(2 * MIB));
    let reader = rig.transfer.reader(key(), rig.store.set("p/file", bytes.clone()));
    let cursor = Cursor::default();
    let (part, head) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    // The second part is late, and so is the answer.
    rig.store.next(Call::Get, Fault::Late(granted()));
    rig.store.next(Call::Get, Fault::Late(part.clone()));
    rig.store.next(Call::Head, Fault::Late(head.clone()));
    let size = bytes.len() as u64;
    for at in (0..MIB).step_by(STEP as usize) {
        reader.read(&cursor, ByteRange::at(at, STEP)).await.expect("it reads");
    }
    let mut last = Box::pin(reader.read(&cursor, ByteRange::new(size - 10, size)));
    assert!(is_pending(&mut last));
    part.notify_one();
    until("the sum is asked for", || rig.store.count(Call::Head) == 1).await;
    let before = reader.read(&cursor, ByteRange::new(size - 20, size - 10)).await.expect("it is not the last");
    assert!(before == bytes[bytes.len() - 20..bytes.len() - 10]);
    assert!(is_pending(&mut last));
    head.notify_one();
    assert!(last.await.expect("all is right") == bytes[bytes.len() - 10..]);
}

#[tokio::test]
async fn what_is_read_in_part_or_not_to_be_compared_costs_nothing() {
    let (rig, bytes) = (Rig::new(), content(20 * MIB));
    let version = rig.store.set("p/file", bytes.clone());
    let (reader, cursor) = (rig.transfer.reader(key(), version), Cursor::default());
    // The end, and then the beginning up to the middle.
    for at in [20 * MIB - 10].into_iter().chain((0..10 * MIB).step_by(STEP as usize)) {
        reader.read(&cursor, ByteRange::at(at, STEP)).await.expect("it reads");
    }
    assert_eq!(rig.store.count(Call::Head), 0);
    let settings = TransferSettings { compare: false, ..TransferSettings::default() };
    let rig = Rig::with(Fake::default(), settings);
    rig.store.next(Call::Get, Fault::Flip(5000));
    let (read, outcome) = read_on(&rig.transfer.reader(key(), rig.store.set("p/file", bytes.clone()))).await;
    assert!(outcome.is_ok() && read.len() == bytes.len() && read != bytes, "{outcome:?}");
    assert_eq!(rig.store.count(Call::Head), 0);
}

#[tokio::test]
async fn where_the_store_tells_no_sum_nothing_is_compared_and_nothing_fails() {
    let bytes = content(4 * MIB);
    for fault in [None, Some(Fault::Fail(Error::AccessDenied("test".into()))), Some(Fault::Hang)] {
        // Without a fault it has none.
        let rig = Rig::with(Fake::new(fault.is_none()), TransferSettings::default());
        let version = rig.store.set("p/file", bytes.clone());
        rig.store.next(Call::Get, Fault::Flip(5000));
        if let Some(fault) = &fault {
            rig.store.next(Call::Head, fault.clone());
        }
        let (read, outcome) = read_on(&rig.transfer.reader(key(), version)).await;
        assert!(outcome.is_ok() && read.len() == bytes.len(), "{fault:?}: {outcome:?}");
        assert_eq!(rig.store.count(Call::Head), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_sum_of_another_version_is_not_compared() {
    let (rig, bytes) = (Rig::new(), content(4 * MIB));
    let (reader, cursor) = (rig.transfer.reader(key(), rig.store.set("p/file", bytes.clone())), Cursor::default());
    let fetched = |rig: &Rig| rig.store.gets().iter().map(ByteRange::len).sum::<u64>();
    let mut at = 0;
    while at < 2 * MIB {
        reader.read(&cursor, ByteRange::at(at, STEP)).await.expect("it reads");
        at += STEP;
    }
    // All is on its way before the object is replaced.
    until("all is asked for", || fetched(&rig) == 4 * MIB).await;
    rig.store.set("p/file", content(4 * MIB - 1));
    while at < 4 * MIB {
        let got = reader.read(&cursor, ByteRange::at(at, STEP)).await.expect("it reads on");
        assert!(got == bytes[at as usize..(at + STEP) as usize]);
        at += STEP;
    }
    assert_eq!(rig.store.count(Call::Head), 1);
}

/// A rig with a cache in a folder of its own.
fn caching() -> (Rig, tempfile::TempDir) {
    let root = tempfile::tempdir().expect("a folder");
    let settings = CacheSettings { dir: root.path().join("cache"), limit: 1 << 30, min_free: 0 };
    let cache = DiskCache::open(settings, "test".to_owned()).expect("a cache");
    (Rig::with_cache(Fake::default(), TransferSettings::default(), Some(cache)), root)
}

async fn is_whole(rig: &Rig, version: &Version) -> bool {
    rig.transfer.kept(Duration::from_secs(10)).await;
    let all = ByteRange::new(0, version.size);
    rig.transfer.reader(key(), version.clone()).is_kept(all).await
}

#[tokio::test]
async fn what_came_wrong_leaves_the_disk_and_is_not_kept_there_again() {
    let (rig, _root) = caching();
    let bytes = content(20 * MIB);
    let version = rig.store.set("p/file", bytes.clone());
    rig.store.next(Call::Get, Fault::Flip(5000));
    let reader = rig.transfer.reader(key(), version.clone());
    assert_corrupt(&read_on(&reader).await.1);
    // Nor by what was still to be written then.
    rig.transfer.kept(Duration::from_secs(10)).await;
    let next = rig.transfer.reader(key(), version.clone());
    for at in (0..20 * MIB).step_by(STEP as usize) {
        assert!(!next.is_kept(ByteRange::at(at, STEP)).await, "something is left at {at}");
    }
    let (read, outcome) = read_on(&next).await;
    assert!(read == bytes && outcome.is_ok(), "{outcome:?}");
    drop((next, reader));
    assert!(is_whole(&rig, &version).await);
    let gets = rig.store.count(Call::Get);
    // All of it comes from the disk: nothing is asked for.
    let (read, outcome) = read_on(&rig.transfer.reader(key(), version)).await;
    assert!(read == bytes && outcome.is_ok(), "{outcome:?}");
    assert_eq!((rig.store.count(Call::Get), rig.store.count(Call::Head)), (gets, 1));
}

#[tokio::test]
async fn wrong_bytes_that_an_earlier_reader_left_on_the_disk_are_found_out_by_who_reads_all() {
    let (rig, _root) = caching();
    let bytes = content(8 * MIB);
    let version = rig.store.set("p/file", bytes.clone());
    rig.store.next(Call::Get, Fault::Flip(5000));
    {
        let (reader, cursor) = (rig.transfer.reader(key(), version.clone()), Cursor::default());
        for at in (0..MIB).step_by(STEP as usize) {
            reader.read(&cursor, ByteRange::at(at, STEP)).await.expect("in part it is not compared");
        }
    }
    rig.transfer.kept(Duration::from_secs(10)).await;
    let begun = rig.transfer.reader(key(), version.clone());
    assert!(begun.is_kept(ByteRange::new(0, STEP)).await);
    assert_corrupt(&read_on(&begun).await.1);
    let (read, outcome) = read_on(&rig.transfer.reader(key(), version)).await;
    assert!(read == bytes && outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn nothing_is_asked_for_when_all_comes_from_the_disk() {
    let (rig, _root) = caching();
    let bytes = content(4 * MIB);
    let version = rig.store.set("p/file", bytes.clone());
    let reader = rig.transfer.reader(key(), version.clone());
    rig.store.next(Call::Head, Fault::Fail(Error::AccessDenied("test".into())));
    assert!(read_on(&reader).await.1.is_ok());
    drop(reader);
    assert!(is_whole(&rig, &version).await);
    // The first answer said nothing: who fetched anything would ask again.
    rig.store.take_calls();
    let (read, outcome) = read_on(&rig.transfer.reader(key(), version)).await;
    assert!(read == bytes && outcome.is_ok(), "{outcome:?}");
    assert_eq!(rig.store.take_calls(), []);
}
