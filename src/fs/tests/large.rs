//! Files that are larger than the stage: parts that are up leave it before the file is whole.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::sync::Notify;

use super::send_ahead::{MIB, content, until, write};
use super::*;
use crate::error::Error;
use crate::fs::{Allocation, RenameMode, SetAttributes};
use crate::transfer::tests::fake::{Call, Fault};
use crate::types::ByteRange;

const LIMIT: u64 = 24 * MIB;
const PART: u64 = 5 * MIB;
const SIZE: u64 = 64 * MIB;
/// Of a file of that size.
const PARTS: usize = 13;

fn in_parts() -> FsSettings {
    FsSettings { transfer: TransferSettings { part_size: PART, ..TransferSettings::default() }, ..settings() }
}

fn small_stage(settings: FsSettings) -> Rig {
    Rig::within(Some(LIMIT), Arc::new(Fake::new(false)), settings, None)
}

/// A file of which only the end is still in the stage, and that is open.
async fn written(settings: FsSettings) -> (Rig, Ino, Fh, Vec<u8>) {
    let rig = small_stage(settings);
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(SIZE, 0);
    write(&rig, fh, 0, &bytes).await;
    (rig, ino, fh, bytes)
}

fn resized(size: u64, fh: Fh) -> SetAttributes {
    SetAttributes { size: Some(size), handle: Some(fh), ..SetAttributes::default() }
}

impl Rig {
    /// Nothing is left of the file but its object, with each part sent once.
    async fn is_stored_once(&self, bytes: &[u8]) {
        assert!(self.object("p/f").as_deref() == Some(bytes), "another object than was written");
        assert_eq!((self.store.count(Call::Part), self.store.count(Call::Create)), (PARTS, 1));
        assert_eq!(self.store.open_uploads(), 0);
        until("the stage is empty", || self.fs.stage.taken() == 0).await;
    }
}

#[tokio::test]
async fn a_file_larger_than_the_stage_is_stored_and_each_part_goes_up_once() {
    let rig = small_stage(in_parts());
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(SIZE, 0);
    for (step, piece) in bytes.chunks(MIB as usize).enumerate() {
        rig.fs.write(fh, step as u64 * MIB, piece).await.expect("room is made");
        let (taken, written) = (rig.fs.stage.taken(), (step as u64 + 1) * MIB);
        assert!(taken <= LIMIT, "{taken} bytes are in the stage");
        // No more than the next write needs, which is one part.
        assert!(taken >= written.min(LIMIT - PART), "only {taken} of {written} bytes are in the stage");
    }
    assert_eq!(rig.object("p/f"), None, "it was published before it was closed");
    rig.close(fh).await.expect("a close");
    rig.is_stored_once(&bytes).await;
}

#[tokio::test]
async fn what_has_left_the_stage_is_neither_read_nor_changed_and_harms_nothing() {
    let (rig, ino, fh, bytes) = written(in_parts()).await;
    let away = 2 * PART;
    let refused = rig.fs.read(fh, away, 4096).await;
    assert!(matches!(refused, Err(Error::NotReadableYet)), "{refused:?}");
    for at in [away - 100, away + PART - 100] {
        let refused = rig.fs.read(fh, at, 200).await;
        assert!(matches!(refused, Err(Error::NotReadableYet)), "{refused:?}");
        let refused = rig.fs.write(fh, at, &[7; 200]).await;
        assert!(matches!(refused, Err(Error::NotChangeableYet)), "{refused:?}");
    }
    let range = ByteRange::at(away + 5, 5);
    for how in [Allocation::Punch, Allocation::Zero { keep_size: true }, Allocation::Reserve { keep_size: true }] {
        let refused = rig.fs.allocate(fh, range, how).await;
        assert!(matches!(refused, Err(Error::NotChangeableYet)), "{how:?}: {refused:?}");
    }
    let refused = rig.fs.setattr(ino, resized(away + 5, fh)).await;
    assert!(matches!(refused, Err(Error::NotChangeableYet)), "{refused:?}");
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").size, SIZE);
    // The end is here, and so is the beginning as long as other parts can go.
    for at in [0, SIZE - 4096] {
        assert!(rig.fs.read(fh, at, 4096).await.expect("a read") == bytes[at as usize..][..4096]);
    }
    rig.fs.flush(fh).await.expect("a flush");
    for at in [0, away - 100, SIZE - 4096] {
        assert!(rig.fs.read(fh, at, 4096).await.expect("a read") == bytes[at as usize..][..4096]);
    }
    rig.close(fh).await.expect("a close");
    rig.is_stored_once(&bytes).await;
}

#[tokio::test]
async fn the_first_part_may_be_written_again_at_the_end() {
    let (rig, _, fh, mut bytes) = written(in_parts()).await;
    rig.fs.write(fh, 3, b"header").await.expect("it is still here");
    bytes[3..9].copy_from_slice(b"header");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!(rig.store.count(Call::Part), PARTS + 1);
}

#[tokio::test]
async fn a_file_that_is_cut_to_nothing_or_behind_a_part_begins_anew_there() {
    for size in [0, 3 * PART] {
        let (rig, ino, fh, mut bytes) = written(in_parts()).await;
        rig.fs.setattr(ino, resized(size, fh)).await.expect("cut");
        let again = content(SIZE - size, 9);
        write(&rig, fh, size, &again).await;
        bytes.truncate(size as usize);
        bytes.extend_from_slice(&again);
        rig.close(fh).await.expect("a close");
        assert!(rig.object("p/f") == Some(bytes), "cut at {size}");
        until("no upload is left", || rig.store.open_uploads() == 0).await;
    }
}

#[tokio::test]
async fn a_sync_in_the_middle_stores_what_is_there_and_more_is_a_change_of_it() {
    let (rig, _, fh, mut bytes) = written(in_parts()).await;
    rig.fs.fsync(fh).await.expect("synced");
    assert!(rig.object("p/f").as_ref() == Some(&bytes));
    rig.store.take_calls();
    let more = content(6 * MIB, 4);
    write(&rig, fh, SIZE, &more).await;
    rig.fs.write(fh, 2 * PART, b"changed").await.expect("it can be changed now");
    bytes.extend_from_slice(&more);
    bytes[2 * PART as usize..][..7].copy_from_slice(b"changed");
    assert!(rig.fs.read(fh, 2 * PART - 50, 100).await.expect("a read") == bytes[2 * PART as usize - 50..][..100]);
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    assert!(rig.store.count(Call::PartCopy) > 0 && rig.store.count(Call::Part) <= 4);
}

#[tokio::test]
async fn a_commit_that_fails_keeps_the_upload_and_the_next_goes_on_with_it() {
    for error in [Error::Unavailable("test".into()), Error::AccessDenied("test".into())] {
        for call in [Call::Complete, Call::Part] {
            let (rig, _, fh, bytes) = written(in_parts()).await;
            until("all full parts are up", || rig.store.count(Call::Part) == PARTS - 1).await;
            rig.store.next(call, Fault::Fail(error.clone()));
            assert!(rig.fs.flush(fh).await.is_err(), "{call:?}");
            let refused = rig.fs.read(fh, 2 * PART, 4096).await;
            assert!(matches!(refused, Err(Error::NotReadableYet)), "{refused:?}");
            assert_eq!(rig.store.open_uploads(), 1, "{call:?}: the upload went");
            rig.close(fh).await.expect("the next one works");
            assert!(rig.object("p/f") == Some(bytes));
            assert_eq!((rig.store.count(Call::Create), rig.store.open_uploads()), (1, 0));
        }
    }
}

#[tokio::test]
async fn a_file_whose_commit_failed_is_written_on() {
    let (rig, _, fh, mut bytes) = written(in_parts()).await;
    rig.store.next(Call::Complete, Fault::Fail(Error::Unavailable("test".into())));
    assert!(rig.fs.flush(fh).await.is_err());
    let more = content(40 * MIB, 4);
    write(&rig, fh, SIZE, &more).await;
    bytes.extend_from_slice(&more);
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!(rig.store.open_uploads(), 0);
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_known_for_our_own_without_its_bytes() {
    for error in [Error::UploadGone, Error::Unavailable("test".into())] {
        let (rig, _, fh, bytes) = written(in_parts()).await;
        rig.store.next(Call::Complete, Fault::DoneBut(error));
        if rig.fs.flush(fh).await.is_err() {
            rig.fs.flush(fh).await.expect("it is there");
        }
        rig.close(fh).await.expect("a close");
        assert!(rig.object("p/f") == Some(bytes));
    }
}

#[tokio::test]
async fn a_file_whose_completion_got_no_answer_is_stored_before_it_is_written_on() {
    let (rig, _, fh, mut bytes) = written(in_parts()).await;
    rig.store.next(Call::Complete, Fault::DoneBut(Error::Unavailable("test".into())));
    assert!(rig.fs.flush(fh).await.is_err());
    assert!(rig.object("p/f").as_ref() == Some(&bytes), "the store did complete it");
    rig.store.next(Call::Head, Fault::Fail(Error::Unavailable("test".into())));
    assert!(rig.fs.write(fh, SIZE, b"?").await.is_err(), "nobody knows what is there");
    let more = content(MIB, 4);
    write(&rig, fh, SIZE, &more).await;
    bytes.extend_from_slice(&more);
    rig.close(fh).await.expect("what was made is ours, and more is a change of it");
    assert!(rig.object("p/f") == Some(bytes));
    assert!(rig.store.count(Call::PartCopy) > 0 && rig.store.open_uploads() == 0);
}

#[tokio::test]
async fn another_writers_object_is_a_conflict_that_keeps_the_upload_or_is_overwritten() {
    for policy in [ConflictPolicy::Fail, ConflictPolicy::KeepBoth, ConflictPolicy::Overwrite] {
        let (rig, _, fh, bytes) = written(FsSettings { conflict: policy, ..in_parts() }).await;
        rig.store.set("p/f", "theirs");
        let closed = rig.close(fh).await;
        if policy == ConflictPolicy::Overwrite {
            closed.expect("it is overwritten");
            rig.is_stored_once(&bytes).await;
        } else {
            assert!(matches!(closed, Err(Error::Stale)), "{policy:?}: {closed:?}");
            assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
            assert_eq!(rig.store.open_uploads(), 1, "{policy:?}: the upload went");
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_gone_is_told_and_no_zeros_take_its_place() {
    let (rig, _, fh, bytes) = written(in_parts()).await;
    rig.store.forget_uploads();
    for _ in 0..2 {
        let told = rig.fs.flush(fh).await;
        assert!(matches!(told, Err(Error::PartsLost)), "{told:?}");
    }
    let told = rig.fs.read(fh, 2 * PART, 4096).await;
    assert!(matches!(told, Err(Error::PartsLost)), "{told:?}");
    assert!(rig.fs.read(fh, SIZE - 4096, 4096).await.expect("a read") == bytes[SIZE as usize - 4096..]);
    assert_eq!(rig.object("p/f"), None);
}

#[tokio::test]
async fn a_file_that_is_unlinked_leaves_no_upload_and_one_that_can_not_be_is_as_it_was() {
    let rig = small_stage(in_parts());
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, TRUNCATE).await;
    let bytes = content(SIZE, 0);
    write(&rig, fh, 0, &bytes).await;
    rig.store.next(Call::Delete, Fault::Fail(Error::AccessDenied("test".into())));
    assert!(rig.fs.unlink(Ino::ROOT, b"f").await.is_err());
    rig.fs.flush(fh).await.expect("it is whole");
    assert!(rig.object("p/f") == Some(bytes));
    rig.close(fh).await.expect("a close");

    let (rig, _, fh, _) = written(in_parts()).await;
    rig.fs.unlink(Ino::ROOT, b"f").await.expect("unlinked");
    until("no upload is left", || rig.store.open_uploads() == 0).await;
    assert!(rig.fs.read(fh, 2 * PART, 5).await.is_err(), "zeros, perhaps");
    rig.fs.write(fh, SIZE - 5, b"more").await.expect("a write");
    rig.close(fh).await.expect("a close");
    assert!(rig.store.keys().is_empty());
}

#[tokio::test]
async fn a_file_that_has_left_the_stage_is_renamed_only_once_it_is_stored() {
    let rig = small_stage(in_parts());
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    let (_, fh) = rig.create(dir, "f").await;
    let bytes = content(SIZE, 0);
    write(&rig, fh, 0, &bytes).await;
    let refused = rig.fs.rename(dir, b"f", dir, b"g", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::NotMovableYet)), "{refused:?}");
    let refused = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::NotMovableYet)), "{refused:?}");
    rig.close(fh).await.expect("a close");
    rig.fs.rename(dir, b"f", dir, b"g", RenameMode::Replace).await.expect("renamed");
    assert!(rig.object("p/d/g") == Some(bytes));
}

#[tokio::test]
async fn a_writer_waits_for_a_part_that_is_under_way_and_for_one_that_failed() {
    for failed in [false, true] {
        let rig = small_stage(in_parts());
        let (_, fh) = rig.create(Ino::ROOT, "f").await;
        let (bytes, word) = (content(SIZE, 0), Arc::new(Notify::new()));
        for _ in 0..PARTS {
            let fault = match failed {
                false => Fault::Late(word.clone()),
                true => Fault::FailLate(word.clone(), Error::Unavailable("test".into())),
            };
            rig.store.next(Call::Part, fault);
        }
        write(&rig, fh, 0, &bytes[..LIMIT as usize]).await;
        until("parts are under way", || rig.store.count(Call::Part) == 4).await;
        let (fs, more) = (rig.fs.clone(), bytes[LIMIT as usize..][..MIB as usize].to_vec());
        let writing = tokio::spawn(async move { fs.write(fh, LIMIT, &more).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!writing.is_finished(), "it did not wait");
        rig.store.clear_faults();
        word.notify_waiters();
        writing.await.expect("a task").expect("room was made");
        write(&rig, fh, LIMIT + MIB, &bytes[(LIMIT + MIB) as usize..]).await;
        rig.close(fh).await.expect("a close");
        assert!(rig.object("p/f") == Some(bytes));
    }
}

#[tokio::test]
async fn a_writer_whose_parts_are_refused_is_told_at_once_and_loses_nothing() {
    let rig = small_stage(in_parts());
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(SIZE, 0);
    for _ in 0..40 {
        rig.store.next(Call::Part, Fault::Fail(Error::AccessDenied("test".into())));
    }
    write(&rig, fh, 0, &bytes[..LIMIT as usize]).await;
    let told = rig.fs.write(fh, LIMIT, &bytes[LIMIT as usize..][..MIB as usize]).await;
    assert!(matches!(told, Err(Error::StageFull)), "{told:?}");
    rig.store.clear_faults();
    rig.close(fh).await.expect("what fits is stored");
    assert!(rig.object("p/f").as_deref() == Some(&bytes[..LIMIT as usize]));
}

#[tokio::test]
async fn a_file_that_is_written_here_and_there_does_not_outgrow_the_stage() {
    let rig = small_stage(in_parts());
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let mut model = Vec::new();
    for step in 0..SIZE / MIB {
        // Backwards: no write follows another.
        let at = SIZE - (step + 1) * MIB;
        match rig.fs.write(fh, at, &vec![step as u8; MIB as usize]).await {
            Ok(_) => model.push((at, step as u8)),
            Err(error) => {
                assert!(matches!(error, Error::StageFull), "{error}");
                assert_eq!(step, LIMIT / MIB);
                break;
            }
        }
    }
    rig.close(fh).await.expect("a close");
    let there = rig.object("p/f").expect("an object");
    assert!(model.iter().all(|(at, byte)| there[*at as usize..][..MIB as usize].iter().all(|b| b == byte)));
}

#[tokio::test]
async fn a_hole_before_what_is_written_does_not_go_up_before_the_close() {
    let rig = Rig::with(in_parts()).await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    // The end of a part, behind eleven that nobody has written, and then two parts in order.
    for at in 59..70 {
        rig.fs.write(fh, at * MIB, &vec![at as u8; MIB as usize]).await.expect("a write");
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while rig.store.count(Call::Part) < 2 && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(rig.store.count(Call::Part), 2, "parts that were passed");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.count(Call::Part), 14);
    let object = rig.object("p/f").expect("an object");
    assert!(
        object[..59 << 20].iter().all(|byte| *byte == 0) && object[59 << 20..60 << 20].iter().all(|byte| *byte == 59)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64, u8),
    Write(Index, u64, u8),
    Read(Index),
    Resize(Index),
    Sync,
    FailedSync,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..20 * MIB, any::<u8>()).prop_map(|(len, seed)| Step::Append(len, seed)),
        3 => (any::<Index>(), 1..MIB, any::<u8>()).prop_map(|(at, len, seed)| Step::Write(at, len, seed)),
        4 => any::<Index>().prop_map(Step::Read),
        1 => any::<Index>().prop_map(Step::Resize),
        1 => Just(Step::Sync),
        1 => Just(Step::FailedSync),
    ]
}

/// What is refused changes nothing; all else is as with any file.
async fn one_step(rig: &Rig, (ino, fh): (Ino, Fh), model: &mut Vec<u8>, step: Step) {
    let refused = |error: Error| assert!(matches!(error, Error::StageFull | Error::NotChangeableYet), "{error}");
    let len = model.len() as u64;
    let pieces = match step {
        Step::Append(count, seed) => Some((len, content(count, seed))),
        Step::Write(at, count, seed) => Some((at.index(model.len() + 1) as u64, content(count, seed))),
        _ => None,
    };
    for (number, piece) in pieces.iter().flat_map(|(_, bytes)| bytes.chunks(MIB as usize).enumerate()) {
        let at = pieces.as_ref().map_or(0, |(at, _)| at + number as u64 * MIB) as usize;
        match rig.fs.write(fh, at as u64, piece).await {
            Ok(_) => {
                model.resize(model.len().max(at + piece.len()), 0);
                model[at..at + piece.len()].copy_from_slice(piece);
            }
            Err(error) => return refused(error),
        }
    }
    match step {
        Step::Read(at) => {
            let at = at.index(model.len() + 1);
            match rig.fs.read(fh, at as u64, 300_000).await {
                Ok(there) => assert!(there[..] == model[at..model.len().min(at + 300_000)], "other bytes at {at}"),
                Err(error) => assert!(matches!(error, Error::NotReadableYet), "{error}"),
            }
        }
        Step::Resize(share) => {
            let size = share.index(model.len() + 1);
            match rig.fs.setattr(ino, resized(size as u64, fh)).await {
                Ok(_) => model.resize(size, 0),
                Err(error) => refused(error),
            }
        }
        Step::Sync => {
            rig.fs.fsync(fh).await.expect("stored");
            assert!(rig.object("p/f").as_ref() == Some(model), "another object than was synced");
        }
        Step::FailedSync => {
            rig.store.next(Call::Complete, Fault::Fail(Error::Unavailable("test".into())));
            _ = rig.fs.fsync(fh).await;
            rig.store.clear_faults();
        }
        _ => {}
    }
}

#[test]
fn sequences_of_changes_of_a_file_larger_than_the_stage_agree_with_a_vector() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config { cases: 12, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let done = TestRunner::new_with_rng(config, rng).run(&prop::collection::vec(any_step(), 1..24), |steps| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let rig = small_stage(in_parts());
            let (ino, fh) = rig.create(Ino::ROOT, "f").await;
            let mut model = Vec::new();
            for step in steps {
                one_step(&rig, (ino, fh), &mut model, step).await;
            }
            rig.close(fh).await.expect("a close");
            assert!(rig.object("p/f").unwrap_or_default() == model, "another object than was written");
            until("no upload is left", || rig.store.open_uploads() == 0).await;
        });
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
}
