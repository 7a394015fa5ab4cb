//! Reading and hydrating.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fake::{Call, Fake, Fault};
use super::{MIB, Rig, content, is_pending, until};
use crate::config::TransferSettings;
use crate::error::Error;
use crate::store::ObjectStore;
use crate::transfer::{Cursor, Need, ObjectReader};
use crate::types::{ByteRange, ETag, ObjectKey, Version};

fn key() -> ObjectKey {
    ObjectKey::from_store("p/file")
}

fn reader_of(rig: &Rig, bytes: &Bytes) -> Arc<ObjectReader> {
    let version = rig.store.set("p/file", bytes.clone());
    rig.transfer.reader(key(), version)
}

async fn read_in_order(reader: &ObjectReader, size: u64, step: u64) -> Bytes {
    let (cursor, mut all) = (Cursor::default(), Vec::new());
    while (all.len() as u64) < size {
        let range = ByteRange::at(all.len() as u64, step);
        all.extend_from_slice(&reader.read(&cursor, range).await.expect("it reads"));
    }
    all.into()
}

#[tokio::test]
async fn a_file_read_in_order_comes_whole_in_few_requests() {
    let (rig, bytes) = (Rig::new(), content(40 * MIB + 77));
    let reader = reader_of(&rig, &bytes);
    assert!(read_in_order(&reader, bytes.len() as u64, 128 << 10).await == bytes);
    let gets = rig.store.gets();
    assert_eq!(gets[0], ByteRange::new(0, MIB));
    assert!(gets.len() <= 20, "{gets:?}");
    assert_eq!(gets.iter().map(ByteRange::len).sum::<u64>(), bytes.len() as u64, "no byte twice: {gets:?}");
}

#[tokio::test]
async fn a_small_file_takes_one_request() {
    let (rig, bytes) = (Rig::new(), content(5000));
    let reader = reader_of(&rig, &bytes);
    assert!(read_in_order(&reader, 5000, 512).await == bytes);
    assert_eq!(rig.store.gets(), [ByteRange::new(0, 5000)]);
}

#[tokio::test]
async fn a_random_reader_fetches_blocks_and_no_more() {
    let (rig, bytes) = (Rig::new(), content(40 * MIB));
    let (reader, cursor) = (reader_of(&rig, &bytes), Cursor::default());
    for at in [30 * MIB + 5, 10 * MIB, 20 * MIB + 999, 5 * MIB] {
        let got = reader.read(&cursor, ByteRange::at(at, 4096)).await.expect("it reads");
        assert!(got == bytes[at as usize..at as usize + 4096]);
    }
    assert_eq!(rig.store.gets().len(), 4);
    assert!(rig.store.gets().iter().all(|get| get.len() == 128 << 10));
}

/// Many open files are never read through the handle that their first bytes came for.
#[tokio::test]
async fn first_bytes_that_nobody_has_asked_for_yet_stay_within_the_memory_limit() {
    let settings = TransferSettings { memory_limit: 4 * MIB, ..TransferSettings::default() };
    let rig = Rig::with(Fake::default(), settings);
    let bytes = content(MIB);
    let mut opened = Vec::new();
    for number in 0..8 {
        let key = ObjectKey::from_store(format!("p/{number}"));
        let reader = rig.transfer.reader(key.clone(), rig.store.set(key.as_str(), bytes.clone()));
        reader.adopt(rig.store.get(&key, None, None).await.expect("it answers"));
        opened.push((reader, Cursor::default()));
    }
    assert!(rig.transfer.shared.budget.available() == 0 && rig.transfer.shared.budget.used() <= 4 * MIB);
    for (reader, cursor) in &opened {
        let got = reader.read(cursor, ByteRange::new(0, 128 << 10)).await.expect("it reads");
        assert!(got == bytes[..128 << 10]);
    }
}

#[tokio::test]
async fn a_file_read_from_its_end_comes_ahead_of_its_reader_and_no_byte_twice() {
    let (rig, bytes) = (Rig::new(), content(40 * MIB));
    let (reader, cursor) = (reader_of(&rig, &bytes), Cursor::default());
    for at in (0..80).rev().map(|index| index * (MIB / 2)) {
        let got = reader.read(&cursor, ByteRange::at(at, MIB / 2)).await.expect("it reads");
        assert!(got == bytes[at as usize..(at + MIB / 2) as usize]);
    }
    let gets = rig.store.gets();
    assert_eq!(gets.iter().map(ByteRange::len).sum::<u64>(), bytes.len() as u64, "{gets:?}");
    assert!(gets.len() <= 80, "{} requests for 80 reads", gets.len());
}

#[tokio::test]
async fn reads_at_equal_distances_find_the_next_ones_on_their_way_and_little_is_fetched_in_vain() {
    let (rig, bytes) = (Rig::new(), content(100 * MIB));
    let (reader, cursor) = (reader_of(&rig, &bytes), Cursor::default());
    for index in 0..40 {
        let at = index * 2 * MIB + 5;
        if index > 4 {
            let begun = || rig.store.gets().iter().any(|get| get.start <= at && at < get.end);
            until("the next read is on its way before it is asked for", begun).await;
        }
        let got = reader.read(&cursor, ByteRange::at(at, 4096)).await.expect("it reads");
        assert!(got == bytes[at as usize..at as usize + 4096]);
    }
    let gets = rig.store.gets();
    assert!(gets.iter().all(|get| get.len() == 128 << 10), "{gets:?}");
    assert!(gets.len() <= 40 + 10, "{} requests", gets.len());
}

#[tokio::test]
async fn many_readers_of_one_range_share_one_fetch() {
    let (rig, bytes) = (Rig::new(), content(512 << 10));
    let reader = reader_of(&rig, &bytes);
    let cursors: Vec<Cursor> = (0..16).map(|_| Cursor::default()).collect();
    let reads = cursors.iter().map(|cursor| reader.read(cursor, ByteRange::new(0, 512 << 10)));
    for got in futures_util::future::join_all(reads).await {
        assert!(got.expect("it reads") == bytes);
    }
    assert_eq!(rig.store.count(Call::Get), 1);
}

#[tokio::test]
async fn two_handles_get_the_same_reader_and_another_version_its_own() {
    let rig = Rig::new();
    let first = rig.store.set("p/file", content(10));
    let reader = rig.transfer.reader(key(), first.clone());
    assert!(Arc::ptr_eq(&reader, &rig.transfer.reader(key(), first)));
    let second = rig.store.set("p/file", content(11));
    assert!(!Arc::ptr_eq(&reader, &rig.transfer.reader(key(), second)));
}

#[tokio::test]
async fn a_body_that_breaks_stalls_or_ends_early_goes_on_where_it_stopped() {
    for fault in [Fault::Cut(100_000), Fault::Stall(100_000), Fault::End(100_000), Fault::WrongRange] {
        let (rig, bytes) = (Rig::new(), content(MIB));
        let reader = reader_of(&rig, &bytes);
        rig.store.next(Call::Get, fault.clone());
        assert!(read_in_order(&reader, MIB, 128 << 10).await == bytes, "{fault:?}");
        let resumed = if matches!(fault, Fault::WrongRange) { 0 } else { 100_000 };
        assert_eq!(rig.store.gets(), [ByteRange::new(0, MIB), ByteRange::new(resumed, MIB)], "{fault:?}");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up_and_asked_for_anew_by_the_next_read() {
    let (rig, bytes) = (Rig::new(), content(MIB));
    let (reader, cursor) = (reader_of(&rig, &bytes), Cursor::default());
    (0..5).for_each(|_| rig.store.next(Call::Get, Fault::Cut(0)));
    let failed = reader.read(&cursor, ByteRange::new(0, 4096)).await;
    assert!(matches!(failed, Err(Error::Unreachable(_))), "{failed:?}");
    assert_eq!(rig.store.count(Call::Get), 5);
    let got = reader.read(&cursor, ByteRange::new(0, 4096)).await.expect("the fault is over");
    assert!(got == bytes[..4096]);
}

#[tokio::test]
async fn a_version_that_is_gone_is_stale_and_never_a_mix() {
    let rig = Rig::new();
    let (reader, cursor) = (reader_of(&rig, &content(8 * MIB)), Cursor::default());
    reader.read(&cursor, ByteRange::new(0, 4096)).await.expect("it reads");
    rig.store.set("p/file", content(8 * MIB));
    let stale = reader.read(&cursor, ByteRange::at(6 * MIB, 4096)).await;
    assert!(matches!(stale, Err(Error::Stale)), "{stale:?}");
}

#[tokio::test]
async fn a_reader_is_answered_while_the_part_still_comes() {
    let (rig, bytes) = (Rig::new(), content(MIB));
    let (reader, cursor) = (reader_of(&rig, &bytes), Cursor::default());
    // Silence after the first bytes, again and again: only an early answer gets through.
    rig.store.next(Call::Get, Fault::Stall(200_000));
    rig.store.next(Call::Get, Fault::Hang);
    let got = reader.read(&cursor, ByteRange::new(0, 128 << 10)).await.expect("it reads");
    assert!(got == bytes[..128 << 10]);
}

#[tokio::test]
async fn an_adopted_answer_is_the_first_part() {
    let (rig, bytes) = (Rig::new(), content(3 * MIB));
    let reader = reader_of(&rig, &bytes);
    let reply = rig.store.get(&key(), Some(ByteRange::new(0, MIB)), None).await.expect("it answers");
    reader.adopt(reply);
    assert!(read_in_order(&reader, 3 * MIB, 128 << 10).await == bytes);
    assert_eq!(rig.store.gets().iter().map(ByteRange::len).sum::<u64>(), 3 * MIB, "{:?}", rig.store.gets());
}

#[tokio::test]
async fn an_adopted_answer_of_another_version_is_not_used() {
    let (rig, bytes) = (Rig::new(), content(1000));
    let reply = {
        rig.store.set("p/file", content(1000));
        rig.store.get(&key(), None, None).await.expect("it answers")
    };
    let reader = reader_of(&rig, &bytes);
    reader.adopt(reply);
    assert!(read_in_order(&reader, 1000, 1000).await == bytes);
    assert_eq!(rig.store.count(Call::Get), 2);
}

#[tokio::test]
async fn memory_stays_within_the_budget_and_is_given_back() {
    let settings = TransferSettings { memory_limit: 6 * MIB, ..TransferSettings::default() };
    let (rig, bytes) = (Rig::with(Fake::default(), settings), content(40 * MIB));
    let (reader, cursor) = (reader_of(&rig, &bytes), Cursor::default());
    let mut most = 0;
    for at in (0..40 * MIB).step_by(128 << 10) {
        let got = reader.read(&cursor, ByteRange::at(at, 128 << 10)).await.expect("it reads");
        assert!(got == bytes[at as usize..at as usize + (128 << 10)]);
        most = most.max(rig.transfer.budget().used());
    }
    assert!(most <= 7 * MIB, "{most}");
    drop(cursor);
    until("the buffers are given back", || rig.transfer.budget().used() == 0).await;
}

#[tokio::test]
async fn a_reader_that_stands_still_gives_its_memory_to_one_that_moves() {
    let settings = TransferSettings { memory_limit: 12 * MIB, ..TransferSettings::default() };
    let (rig, bytes) = (Rig::with(Fake::default(), settings), content(40 * MIB));
    let (reader, still, moving) = (reader_of(&rig, &bytes), Cursor::default(), Cursor::default());
    for at in (0..8 * MIB).step_by(128 << 10) {
        reader.read(&still, ByteRange::at(at, 128 << 10)).await.expect("it reads");
    }
    assert!(rig.transfer.budget().used() > 4 * MIB);
    // The other end of the file: nothing that it holds is of use there.
    let elsewhere = || reader.read(&moving, ByteRange::at(39 * MIB, 4096));
    let deadline = Instant::now() + Duration::from_secs(10);
    while rig.transfer.budget().used() > MIB {
        assert!(Instant::now() < deadline, "it keeps {}", rig.transfer.budget().used());
        elsewhere().await.expect("it reads");
    }
    let got = reader.read(&still, ByteRange::at(8 * MIB, 4096)).await.expect("it still reads");
    assert!(got == bytes[8 * MIB as usize..][..4096]);
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_cancelled() {
    let rig = Rig::new();
    let reader = reader_of(&rig, &content(MIB));
    rig.store.next(Call::Get, Fault::Hang);
    {
        let cursor = Cursor::default();
        let mut read = Box::pin(reader.read(&cursor, ByteRange::new(0, 4096)));
        assert!(is_pending(&mut read));
    }
    until("the buffers are given back", || rig.transfer.budget().used() == 0).await;
}

#[tokio::test]
async fn hydrating_brings_what_is_missing_and_leaves_what_was_written() {
    let (rig, bytes) = (Rig::new(), content(20 * MIB));
    let version = rig.store.set("p/file", bytes.clone());
    let file = Arc::new(rig.stage.over(20 * MIB).expect("a staged file"));
    file.write_at(9 * MIB, b"new").expect("written");
    rig.store.next(Call::Get, Fault::Cut(70_000));
    let everything = ByteRange::new(0, 20 * MIB);
    rig.transfer.hydrate(&key(), &version, &file, everything, Need::Must).await.expect("it hydrates");
    assert!(file.is_complete());
    let mut expected = bytes.to_vec();
    expected[9 * MIB as usize..][..3].copy_from_slice(b"new");
    assert!(file.read_at(0, 20 * MIB as usize).expect("read") == expected);
    assert_eq!(file.dirty_ranges(), [ByteRange::at(9 * MIB, 3)]);
    let before = rig.store.count(Call::Get);
    rig.transfer.hydrate(&key(), &version, &file, everything, Need::Must).await.expect("nothing to do");
    assert_eq!(rig.store.count(Call::Get), before);
}

#[tokio::test]
async fn hydrating_from_a_version_that_is_gone_is_stale() {
    let rig = Rig::new();
    let gone = Version { etag: ETag::parse("gone"), ..rig.store.set("p/file", content(MIB)) };
    let file = Arc::new(rig.stage.over(MIB).expect("a staged file"));
    let stale = rig.transfer.hydrate(&key(), &gone, &file, ByteRange::new(0, 10), Need::Must).await;
    assert!(matches!(stale, Err(Error::Stale)), "{stale:?}");
    assert!(!file.is_complete());
}

#[tokio::test]
async fn many_who_hydrate_the_same_bytes_fetch_them_once() {
    let rig = Rig::new();
    let version = rig.store.set("p/file", content(8 * MIB));
    let file = Arc::new(rig.stage.over(8 * MIB).expect("a staged file"));
    let key = key();
    let asked = (0..8).map(|i| rig.transfer.hydrate(&key, &version, &file, ByteRange::at(i * 4096, 4096), Need::Must));
    for done in futures_util::future::join_all(asked).await {
        done.expect("it hydrates");
    }
    assert_eq!(rig.store.gets(), [ByteRange::new(0, MIB)]);
}
