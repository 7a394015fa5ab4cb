//! A stage that is full: what goes, what is waited for, and who is told.

use std::future::Future;

use futures_util::FutureExt;

use super::send_ahead::{MIB, content, until, write};
use super::*;
use crate::error::Error;
use crate::fs::Allocation;
use crate::inode::FileState;
use crate::stage::StagedFile;
use crate::transfer::tests::fake::{Call, Fault};
use crate::transfer::{Need, Pressed};
use crate::types::{ByteRange, ObjectKey};

const LIMIT: u64 = 10_000;
const SIZE: usize = 8_000;

impl Rig {
    fn limited(settings: FsSettings) -> Rig {
        Rig::within(Some(LIMIT), Arc::new(Fake::new(false)), settings, None)
    }

    async fn write(&self, fh: Fh, byte: u8) -> Result<u32> {
        in_time(self.fs.write(fh, 0, &[byte; SIZE])).await
    }

    async fn read_all(&self, fh: Fh) -> Result<Vec<u8>> {
        self.fs.read(fh, 0, 1 << 20).await.map(|bytes| bytes.to_vec())
    }

    /// The stage gives back the last bytes when the task that stored them has ended.
    async fn empty_stage(&self) {
        in_time(async {
            while self.fs.stage.taken() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

/// Who does not wait for what will not come is done by then.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it waits for nothing")
}

fn is_full<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(matches!(outcome, Err(Error::StageFull)), "{outcome:?}");
}

/// Two files of which the stage holds one: the first is being stored, the second waits to be written.
async fn one_waits(rig: &Rig, fault: Fault) -> (Fh, Fh, tokio::task::JoinHandle<Result<u32>>) {
    let (_, first) = rig.create(Ino::ROOT, "first").await;
    let (_, second) = rig.create(Ino::ROOT, "second").await;
    rig.write(first, 1).await.expect("room");
    rig.store.next(Call::Put, fault);
    let fs = rig.fs.clone();
    tokio::spawn(async move { fs.flush(first).await });
    in_time(async {
        while rig.store.count(Call::Put) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(rig.fs.write_now(second, 0, &[2; SIZE]).is_none(), "a kernel thread is not to wait");
    let fs = rig.fs.clone();
    let writing = tokio::spawn(async move { fs.write(second, 0, &[2; SIZE]).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!writing.is_finished(), "it did not wait");
    assert_eq!(rig.fs.stage.taken(), SIZE as u64);
    (first, second, writing)
}

#[tokio::test]
async fn a_writer_waits_for_the_upload_of_another_file_and_goes_on() {
    let rig = Rig::limited(settings());
    let word = Arc::new(tokio::sync::Notify::new());
    let (first, second, writing) = one_waits(&rig, Fault::Late(word.clone())).await;
    word.notify_one();
    in_time(writing).await.expect("a task").expect("room was made");
    assert_eq!(rig.fs.stage.taken(), SIZE as u64);
    assert_eq!(rig.read_all(first).await.expect("a read"), [1; SIZE]);
    for fh in [first, second] {
        rig.close(fh).await.expect("a close");
    }
    assert_eq!(rig.object("p/first").as_deref(), Some(&[1; SIZE][..]));
    assert_eq!(rig.object("p/second").as_deref(), Some(&[2; SIZE][..]));
    rig.empty_stage().await;
}

#[tokio::test]
async fn a_writer_is_told_when_what_it_waits_for_has_failed() {
    let rig = Rig::limited(settings());
    let word = Arc::new(tokio::sync::Notify::new());
    let fault = Fault::FailLate(word.clone(), Error::Unavailable("test".into()));
    let (first, _, writing) = one_waits(&rig, fault).await;
    word.notify_one();
    is_full(in_time(writing).await.expect("a task"));
    in_time(rig.fs.fsync(first)).await.expect("the bytes are still there");
    assert_eq!(rig.object("p/first").as_deref(), Some(&[1; SIZE][..]));
}

#[tokio::test]
async fn a_writer_waits_for_files_that_were_closed_and_are_not_stored_yet() {
    let rig = Rig::limited(FsSettings { commit: CommitMode::Async, ..settings() });
    for number in 0..20 {
        let (_, fh) = rig.create(Ino::ROOT, &format!("f{number}")).await;
        rig.write(fh, number).await.expect("room is made");
        rig.close(fh).await.expect("a close");
    }
    rig.empty_stage().await;
    for number in 0..20 {
        assert_eq!(rig.object(&format!("p/f{number}")).as_deref(), Some(&[number; SIZE][..]));
    }
}

#[tokio::test]
async fn a_full_stage_with_nothing_under_way_is_told_at_once_and_keeps_what_was_written() {
    let rig = Rig::limited(settings());
    let (_, one) = rig.create(Ino::ROOT, "one").await;
    let (_, other) = rig.create(Ino::ROOT, "other").await;
    rig.write(one, 1).await.expect("room");
    rig.fs.write(other, 0, &[2; 2000]).await.expect("the last room");
    is_full(rig.write(other, 3).await);
    is_full(in_time(rig.fs.write(one, 9000, b"x")).await);
    let range = ByteRange::new(0, 9000);
    for how in [Allocation::Reserve { keep_size: true }, Allocation::Zero { keep_size: false }] {
        is_full(in_time(rig.fs.allocate(one, range, how)).await);
    }
    rig.fs.allocate(one, ByteRange::new(0, 1000), Allocation::Punch).await.expect("a hole needs no room");
    rig.fs.write(other, 2000, &[2; 1000]).await.expect("the room of the hole");
    for fh in [one, other] {
        rig.close(fh).await.expect("what fits is stored");
    }
    assert_eq!(rig.object("p/one"), Some([vec![0; 1000], vec![1; SIZE - 1000]].concat()));
    assert_eq!(rig.object("p/other").as_deref(), Some(&[2; 3000][..]));
    rig.empty_stage().await;
}

#[tokio::test]
async fn what_is_stored_goes_first_and_is_read_from_s3_from_then_on() {
    let rig = Rig::limited(settings());
    let (ino, writer) = rig.create(Ino::ROOT, "stored").await;
    rig.write(writer, 1).await.expect("room");
    rig.fs.flush(writer).await.expect("a flush");
    let reader = rig.open(ino, READ).await;
    assert_eq!((rig.fs.stage.taken(), rig.store.count(Call::Get)), (SIZE as u64, 0), "there is no local copy");
    let (_, other) = rig.create(Ino::ROOT, "other").await;
    rig.write(other, 2).await.expect("room is made");
    assert_eq!(rig.fs.stage.taken(), SIZE as u64);
    for fh in [reader, writer] {
        assert_eq!(rig.read_all(fh).await.expect("a read"), [1; SIZE]);
    }
    assert!(rig.store.count(Call::Get) > 0);
    // It is changed as any file whose bytes are in S3.
    rig.fs.write(writer, 10, b"new").await.expect("room for so little");
    rig.close(other).await.expect("a close");
    rig.close(writer).await.expect("a close");
    let mut wanted = [1; SIZE];
    wanted[10..13].copy_from_slice(b"new");
    assert_eq!(rig.read_all(reader).await.expect("a read"), wanted);
    rig.close(reader).await.expect("a close");
    assert_eq!(rig.object("p/stored").as_deref(), Some(&wanted[..]));
    rig.empty_stage().await;
}

#[tokio::test]
async fn the_local_copy_of_an_archived_object_stays() {
    let rig = Rig::limited(FsSettings { storage_class: Some("GLACIER".into()), ..settings() });
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.write(fh, 1).await.expect("room");
    rig.fs.flush(fh).await.expect("a flush");
    let (_, other) = rig.create(Ino::ROOT, "other").await;
    is_full(rig.write(other, 2).await);
    assert_eq!(rig.fs.stage.taken(), SIZE as u64, "nobody can read it before it is restored");
    rig.fs.write(fh, 0, b"new").await.expect("it can be changed");
    rig.close(fh).await.expect("and stored");
    rig.close(other).await.expect("a close");
    rig.empty_stage().await;
}

#[tokio::test]
async fn what_is_read_of_a_draft_leaves_room_for_who_writes() {
    let rig = Rig::limited(settings());
    let old = vec![7; 6_000];
    rig.store.set("p/f", old.clone());
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"Y").await.expect("a write");
    assert_eq!(rig.read_all(fh).await.expect("a read")[1..], old[1..]);
    let (_, other) = rig.create(Ino::ROOT, "other").await;
    rig.write(other, 2).await.expect("the room that a read can do without");
    for fh in [fh, other] {
        rig.close(fh).await.expect("a close");
    }
    rig.empty_stage().await;
}

#[tokio::test]
async fn the_local_copy_of_a_file_whose_name_is_anothers_stays() {
    let rig = Rig::limited(no_cache());
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.write(fh, 1).await.expect("room");
    rig.fs.flush(fh).await.expect("a flush");
    rig.store.set("p/f", "theirs");
    assert_ne!(rig.ino(Ino::ROOT, "f").await.ok(), Some(ino));
    let (_, other) = rig.create(Ino::ROOT, "other").await;
    is_full(rig.write(other, 2).await);
    assert_eq!(rig.read_all(fh).await.expect("its bytes are nowhere else"), [1; SIZE]);
    rig.close(fh).await.expect("a close");
    rig.write(other, 2).await.expect("room");
    rig.close(other).await.expect("a close");
    rig.empty_stage().await;
}

#[tokio::test]
async fn a_full_stage_fails_no_read_and_no_commit_of_a_changed_file() {
    let rig = Rig::limited(settings());
    let old: Vec<u8> = (0..300_000u32).map(|at| (at / 100) as u8).collect();
    rig.store.set("p/f", old.clone());
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    let mut wanted = old;
    for at in [100_000, 200_000] {
        rig.fs.write(fh, at as u64, b"YYY").await.expect("a write");
        wanted[at..at + 3].copy_from_slice(b"YYY");
    }
    assert!(rig.read_all(fh).await.expect("a read") == wanted);
    let piece = rig.fs.read(fh, 199_999, 5).await.expect("a read");
    assert_eq!(&piece[..], &wanted[199_999..200_004]);
    assert_eq!(rig.fs.read(fh, 299_990, 50).await.expect("a read")[..], wanted[299_990..]);
    assert_eq!(rig.fs.stage.taken(), 6, "a read took room that it can do without");
    rig.close(fh).await.expect("it is stored, with bytes from S3 that had to come");
    assert!(rig.object("p/f") == Some(wanted));
    rig.empty_stage().await;
}

#[tokio::test]
async fn a_wait_for_room_ends_even_if_nothing_else_does() {
    let rig = Rig::limited(settings());
    let _never = rig.fs.stage.under_way();
    let mut patience = rig.fs.patience();
    assert!(rig.fs.make_room(&mut patience, None).now_or_never().is_none());
    patience.until = tokio::time::Instant::now() + Duration::from_millis(10);
    is_full(in_time(rig.fs.make_room(&mut patience, None)).await);
}

#[tokio::test]
async fn a_file_may_be_removed_while_the_stage_is_full() {
    let rig = Rig::limited(settings());
    let (ino, one) = rig.create(Ino::ROOT, "one").await;
    let (_, other) = rig.create(Ino::ROOT, "other").await;
    rig.write(one, 1).await.expect("room");
    is_full(rig.write(other, 2).await);
    rig.fs.unlink(Ino::ROOT, b"one").await.expect("an unlink");
    assert_eq!(rig.read_all(one).await.expect("a read"), [1; SIZE]);
    rig.close(one).await.expect("a close");
    rig.fs.forget(ino, 1);
    rig.write(other, 2).await.expect("its room");
    rig.close(other).await.expect("a close");
    rig.empty_stage().await;
}

#[tokio::test]
async fn bytes_that_may_come_stay_out_of_a_full_stage_and_those_that_must_do_not() {
    let rig = Rig::limited(settings());
    let (version, key) = (rig.store.set("p/f", vec![7; 20_000]), ObjectKey::from_store("p/f"));
    let staged = Arc::new(rig.fs.stage.over(20_000).expect("a file"));
    let bring = |need| rig.fs.transfer.hydrate(&key, &version, &staged, ByteRange::new(0, 20_000), need);
    is_full(in_time(bring(Need::May)).await);
    assert!(rig.fs.stage.taken() <= LIMIT);
    in_time(bring(Need::Must)).await.expect("over the limit");
    assert_eq!(rig.fs.stage.taken(), 20_000);
}

fn in_parts() -> FsSettings {
    FsSettings { transfer: TransferSettings { part_size: 5 * MIB, ..TransferSettings::default() }, ..settings() }
}

#[tokio::test]
async fn what_was_stored_half_way_makes_room_for_what_follows() {
    let rig = Rig::within(Some(24 * MIB), Arc::new(Fake::new(false)), in_parts(), None);
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(38 * MIB, 0);
    write(&rig, fh, 0, &bytes[..20 << 20]).await;
    // As the end of another process does that had the file, too.
    rig.fs.flush(fh).await.expect("a flush");
    in_time(write(&rig, fh, 20 * MIB, &bytes[20 << 20..])).await;
    assert!(rig.fs.stage.taken() <= 24 * MIB);
    let reader = rig.open(ino, READ).await;
    for at in [0, 7 << 20, 15 << 20, 20 << 20] {
        assert!(
            rig.fs.read(reader, at - 10.min(at), 4096).await.expect("a read")
                == bytes[(at - 10.min(at)) as usize..][..4096]
        );
    }
    rig.close(reader).await.expect("a close");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    rig.empty_stage().await;
}

#[tokio::test]
async fn a_read_finds_what_leaves_the_stage_while_it_waits() {
    let rig = Rig::with(in_parts()).await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(40 * MIB, 0);
    write(&rig, fh, 0, &bytes).await;
    rig.fs.flush(fh).await.expect("a flush");
    write(&rig, fh, 40 * MIB, &[7; 4096]).await;
    let staged = draft_of(&rig, ino);
    let reader = rig.open(ino, READ).await;
    let let_go = || staged.let_go_of_unchanged(40 * MIB).expect("it leaves");
    assert_eq!((let_go(), let_go()), (35 * MIB, 0));
    let at = 8 * MIB - 10;
    rig.fs.read(reader, at, 10).await.expect("what is before is brought back");
    let (word, seen) = (Arc::new(tokio::sync::Notify::new()), rig.store.count(Call::Get));
    rig.store.next(Call::Get, Fault::Late(word.clone()));
    let fs = rig.fs.clone();
    let reading = tokio::spawn(async move { fs.read(reader, at, 20).await });
    until("the rest is asked for", || rig.store.count(Call::Get) > seen).await;
    assert_eq!(let_go(), 8 * MIB);
    word.notify_one();
    let read = in_time(reading).await.expect("a task").expect("a read");
    assert!(read == bytes[at as usize..][..20], "{read:?}");
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some([&bytes[..], &[7; 4096]].concat()));
}

fn draft_of(rig: &Rig, ino: Ino) -> Arc<StagedFile> {
    match rig.fs.table.get(ino).expect("an inode").inode().lock().file().expect("a file") {
        FileState::Dirty(draft) => draft.staged.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_writer_for_whom_no_upload_can_be_begun_is_told_at_once_or_waits_between_tries() {
    for error in [Error::AccessDenied("test".into()), Error::Unavailable("test".into())] {
        let rig = Rig::within(Some(24 * MIB), Arc::new(Fake::new(false)), in_parts(), None);
        let (ino, fh) = rig.create(Ino::ROOT, "f").await;
        let (bytes, staged) = (content(25 * MIB, 0), draft_of(&rig, ino));
        (0..2).for_each(|_| rig.store.next(Call::Create, Fault::Fail(error.clone())));
        write(&rig, fh, 0, &bytes[..24 << 20]).await;
        until("it could not be begun", || rig.store.count(Call::Create) == 1).await;
        if error.is_transient() {
            let mut pressed = Pressed::Sending;
            while matches!(pressed, Pressed::Sending) {
                tokio::task::yield_now().await;
                pressed = rig.fs.transfer.press(&staged);
            }
            assert!(matches!(pressed, Pressed::BeginAgain(_)), "a writer would not pause");
            drop(pressed);
            in_time(rig.fs.write(fh, 24 * MIB, &bytes[24 << 20..])).await.expect("it passes");
            assert_eq!(rig.store.count(Call::Create), 3);
            rig.close(fh).await.expect("a close");
            assert!(rig.object("p/f") == Some(bytes));
        } else {
            is_full(in_time(rig.fs.write(fh, 24 * MIB, &bytes[24 << 20..])).await);
            assert_eq!(rig.store.count(Call::Create), 1);
        }
    }
}

#[tokio::test]
async fn what_may_be_nowhere_else_makes_no_room() {
    for failed in [false, true] {
        let class = (!failed).then(|| "GLACIER".to_owned());
        let settings = FsSettings { storage_class: class, ..in_parts() };
        let rig = Rig::within(Some(24 * MIB), Arc::new(Fake::new(false)), settings, None);
        let (ino, fh) = rig.create(Ino::ROOT, "f").await;
        let bytes = content(20 * MIB, 0);
        write(&rig, fh, 0, &bytes).await;
        rig.fs.flush(fh).await.expect("a flush");
        write(&rig, fh, 20 * MIB, &bytes[..4 << 20]).await;
        if failed {
            // Another client's object may be the reason.
            rig.store.set("p/f", "theirs");
            assert!(rig.fs.flush(fh).await.is_err());
        }
        let (_, other) = rig.create(Ino::ROOT, "other").await;
        is_full(in_time(rig.fs.write(other, 0, &[1; 4096])).await);
        let staged = draft_of(&rig, ino);
        assert!(staged.missing(ByteRange::new(0, 24 * MIB)).is_empty(), "failed: {failed}");
    }
}
