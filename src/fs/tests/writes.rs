//! What is committed when, and what becomes of bytes when a commit fails.

use super::races::under_way;
use super::*;
use crate::error::Error;
use crate::fs::Holders;
use crate::transfer::tests::fake::{Call, Fault};
use crate::types::ByteRange;

fn down() -> Error {
    Error::Unavailable("test".into())
}

#[tokio::test]
async fn a_close_returns_when_the_object_is_there() {
    let rig = Rig::new().await;
    rig.put(Ino::ROOT, "f", b"hello").await;
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_flush_before_the_first_write_does_nothing_and_data_after_a_flush_is_committed_too() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.flush(fh).await.expect("a flush");
    assert_eq!(rig.object("p/f"), None, "an empty file was published by the flush of a dup");
    for (round, text) in [b"a", b"b", b"c"].into_iter().enumerate() {
        rig.fs.write(fh, round as u64, text).await.expect("a write");
        rig.fs.flush(fh).await.expect("a flush");
    }
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"abc"[..]));
    rig.store.take_calls();
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.take_calls(), [], "a close with nothing dirty sent a request");
}

#[tokio::test]
async fn a_file_that_was_never_written_is_made_by_its_last_close_or_by_fsync() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b""[..]));
    let (_, fh) = rig.create(Ino::ROOT, "g").await;
    rig.fs.fsync(fh).await.expect("an fsync");
    assert_eq!(rig.object("p/g").as_deref(), Some(&b""[..]));
}

#[tokio::test]
async fn a_file_made_through_a_reading_handle_is_committed_by_its_last_close() {
    let rig = Rig::new().await;
    let made = rig.fs.create(Ino::ROOT, b"f", CREATION, READ).await.expect("a new file");
    rig.close(made.opened.fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b""[..]));
}

#[tokio::test]
async fn a_flush_between_a_truncating_open_and_its_write_publishes_no_empty_object() {
    let rig = Rig::new().await;
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, TRUNCATE).await;
    rig.fs.flush(fh).await.expect("the flush of a dup");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"old"[..]));
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"new"[..]));
    let fh = rig.open(ino, TRUNCATE).await;
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b""[..]), "a truncation alone was lost");
}

#[tokio::test]
async fn a_change_in_the_middle_keeps_what_is_around_it() {
    let rig = Rig::new().await;
    rig.store.set("p/f", vec![b'x'; 300_000]);
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 100_000, b"YYY").await.expect("a write");
    assert_eq!(&rig.fs.read(fh, 99_999, 5).await.expect("a read")[..], b"xYYYx");
    rig.close(fh).await.expect("a close");
    let mut expected = vec![b'x'; 300_000];
    expected[100_000..100_003].copy_from_slice(b"YYY");
    assert!(rig.object("p/f") == Some(expected));
}

#[tokio::test]
async fn a_truncating_open_replaces_and_downloads_nothing() {
    let rig = Rig::new().await;
    rig.store.set("p/f", vec![b'x'; 300_000]);
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, TRUNCATE).await;
    rig.store.set("p/f", "another writer");
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.close(fh).await.expect("the last writer wins");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"new"[..]));
    assert_eq!(rig.store.count(Call::Get), 0);
}

#[tokio::test]
async fn a_change_of_a_version_that_was_replaced_is_stale_and_its_bytes_stay_readable_here() {
    let rig = Rig::new().await;
    rig.store.set("p/f", "old");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.store.set("p/f", "theirs");
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]), "another writer's object was overwritten");
    assert_eq!(rig.read(ino).await.expect("a read"), b"new");
}

#[tokio::test]
async fn the_loser_of_an_exclusive_create_is_told_and_sees_the_winners_file() {
    let rig = Rig::new().await;
    let made = rig.fs.create(Ino::ROOT, b"lock", CREATION, EXCLUSIVE).await.expect("nobody else yet");
    rig.fs.write(made.opened.fh, 0, b"mine").await.expect("a write");
    rig.store.set("p/lock", "theirs");
    assert!(matches!(rig.close(made.opened.fh).await, Err(Error::AlreadyExists)));
    let ino = rig.ino(Ino::ROOT, "lock").await.expect("the winner's file");
    assert_eq!(rig.read(ino).await.expect("a read"), b"theirs");
}

#[tokio::test]
async fn the_loser_of_an_exclusive_create_reads_its_own_bytes_and_writes_no_more() {
    let rig = Rig::new().await;
    let made = rig.fs.create(Ino::ROOT, b"lock", CREATION, EXCLUSIVE).await.expect("nobody else yet");
    let (ino, fh) = (made.entry.attr.ino, made.opened.fh);
    rig.fs.write(fh, 0, b"mine").await.expect("a write");
    rig.store.set("p/lock", "theirs");
    assert!(matches!(rig.fs.flush(fh).await, Err(Error::AlreadyExists)));
    let now = rig.ino(Ino::ROOT, "lock").await.expect("the winner's file");
    assert_ne!(now, ino, "the kernel would show the winner's bytes to who has the loser's open");
    assert_eq!(rig.read(now).await.expect("a read"), b"theirs");
    assert_eq!(&rig.fs.read(fh, 0, 9).await.expect("a read")[..], b"mine");
    assert!(
        matches!(rig.fs.write(fh, 0, b"more").await, Err(Error::Stale)),
        "the next close would say that it is stored"
    );
    // The first one may have been another process's, on its way into another program.
    assert!(matches!(rig.fs.fsync(fh).await, Err(Error::AlreadyExists)), "it is stored nowhere");
    assert!(matches!(rig.close(fh).await, Err(Error::AlreadyExists)), "it is stored nowhere");
    assert_eq!(rig.object("p/lock").as_deref(), Some(&b"theirs"[..]));
}

/// Whoever lost was told so: it must not get the lock after all, which nobody would ever take away.
#[tokio::test]
async fn the_loser_of_an_exclusive_create_stays_one_when_the_winner_has_gone() {
    for answer in [Error::NotFound, Error::Timeout("test".into())] {
        let rig = Rig::new().await;
        let made = rig.fs.create(Ino::ROOT, b"lock", CREATION, EXCLUSIVE).await.expect("nobody else yet");
        rig.fs.write(made.opened.fh, 0, b"mine").await.expect("a write");
        rig.store.set("p/lock", "theirs");
        // Whether it is our own, and then whose it is.
        rig.store.next(Call::Head, Fault::Fail(Error::NotFound));
        rig.store.next(Call::Head, Fault::Fail(answer));
        assert!(matches!(rig.fs.flush(made.opened.fh).await, Err(Error::AlreadyExists)));
        rig.store.remove("p/lock");
        assert!(matches!(rig.fs.release(made.opened.fh).await, Err(Error::AlreadyExists)), "it is stored nowhere");
        assert_eq!(rig.store.keys(), Vec::<String>::new(), "a lock that nobody holds");
        assert!(matches!(rig.ino(Ino::ROOT, "lock").await, Err(Error::NotFound)));
    }
}

#[tokio::test]
async fn a_failed_close_says_so_keeps_the_bytes_and_the_next_close_succeeds() {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"hello").await.expect("a write");
    rig.store.next(Call::Put, Fault::Fail(down()));
    assert!(matches!(rig.fs.flush(fh).await, Err(Error::Unavailable(_))));
    assert_eq!(rig.read(ino).await.expect("a read"), b"hello");
    let reader = rig.open(ino, READ).await;
    rig.fs.flush(reader).await.expect("a reader is not told of a writer's failure");
    rig.close(fh).await.expect("the second try");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_file_that_could_not_be_committed_is_tried_again_in_the_background() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"hello").await.expect("a write");
    for _ in 0..2 {
        rig.store.next(Call::Put, Fault::Fail(down()));
    }
    assert!(rig.close(fh).await.is_err());
    let committed = async {
        while rig.object("p/f").is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), committed).await.expect("a retry");
}

#[tokio::test]
async fn a_reply_that_was_lost_is_no_conflict_with_oneself() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"hello").await.expect("a write");
    rig.store.next(Call::Put, Fault::DoneBut(Error::PreconditionFailed));
    rig.close(fh).await.expect("it was our own write");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_reader_follows_a_writer_of_the_same_mount_and_is_stale_after_another() {
    let rig = Rig::with(no_cache()).await;
    let ino = rig.put(Ino::ROOT, "f", b"one").await;
    let reader = rig.open(ino, READ).await;
    let writer = rig.open(ino, WRITE).await;
    rig.fs.write(writer, 0, b"two").await.expect("a write");
    assert_eq!(&rig.fs.read(reader, 0, 9).await.expect("dirty bytes")[..], b"two");
    rig.close(writer).await.expect("a close");
    assert_eq!(&rig.fs.read(reader, 0, 9).await.expect("committed bytes")[..], b"two");
    rig.fs.release(reader).await.expect("a release");

    let reader = rig.open(ino, READ).await;
    rig.store.set("p/f", "another writer's");
    rig.fs.getattr(ino).await.expect("attributes");
    assert!(matches!(rig.fs.read(reader, 0, 9).await, Err(Error::Stale)), "two versions were mixed");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    assert_eq!(rig.read(ino).await.expect("a new open"), b"another writer's");
}

#[tokio::test]
async fn truncate_by_path_is_committed_at_once_and_ftruncate_by_the_close() {
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "f", b"hello").await;
    let shrink = super::super::SetAttributes { size: Some(2), ..Default::default() };
    rig.fs.setattr(ino, shrink).await.expect("a truncate");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"he"[..]));
    let fh = rig.open(ino, WRITE).await;
    let grow = super::super::SetAttributes { size: Some(4), handle: Some(fh), ..Default::default() };
    rig.fs.setattr(ino, grow).await.expect("an ftruncate");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"he"[..]));
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"he\0\0"[..]));
}

#[tokio::test]
async fn the_end_of_a_mount_commits_what_is_closed_and_keeps_what_is_open() {
    let rig = Rig::new().await;
    let (_, failed) = rig.create(Ino::ROOT, "failed").await;
    rig.fs.write(failed, 0, b"hello").await.expect("a write");
    rig.store.next(Call::Put, Fault::Fail(down()));
    rig.store.next(Call::Put, Fault::Fail(down()));
    assert!(rig.close(failed).await.is_err());
    let (_, open) = rig.create(Ino::ROOT, "open").await;
    rig.fs.write(open, 0, b"half").await.expect("a write");
    let drained = rig.fs.drain(Duration::from_secs(30), Holders::Possible).await;
    assert_eq!((drained.committed, drained.left.len()), (1, 0));
    assert_eq!(drained.open, ["open"]);
    assert_eq!(rig.store.keys(), ["p/failed"], "half a file was published");
    assert!(!rig.fs.finish_stage().expect("a look at the stage"), "an open file's bytes were thrown away");
}

#[tokio::test]
async fn what_counts_as_open_is_committed_when_the_mount_is_gone() {
    let rig = Rig::new().await;
    rig.create(Ino::ROOT, "closed without a word").await;
    let drained = rig.fs.drain(Duration::from_secs(30), Holders::None).await;
    assert_eq!((drained.committed, drained.open.len()), (1, 0));
    assert_eq!(rig.store.keys(), ["p/closed without a word"]);
}

#[tokio::test]
async fn fallocate_grows_punches_and_zeroes() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"abcdef").await.expect("a write");
    let allocate = |range, how| rig.fs.allocate(fh, range, how);
    use super::super::Allocation;
    allocate(ByteRange::new(0, 8), Allocation::Reserve { keep_size: false }).await.expect("room");
    allocate(ByteRange::new(1, 2), Allocation::Punch).await.expect("a hole");
    allocate(ByteRange::new(3, 4), Allocation::Zero { keep_size: true }).await.expect("zeros");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"a\0c\0ef\0\0"[..]));
}

#[tokio::test]
async fn only_what_is_not_in_s3_has_a_record_in_the_stage() {
    let rig = Rig::new().await;
    let records = || {
        let files = std::fs::read_dir(rig.fs.stage.dir()).expect("the session's files");
        let names = files.map(|file| file.expect("a file").path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "json")).count()
    };
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    assert_eq!(records(), 1);
    rig.fs.write(fh, 0, b"one").await.expect("a write");
    rig.fs.flush(fh).await.expect("a flush");
    assert_eq!(records(), 0, "a kill would report a file that S3 has");
    rig.fs.write(fh, 0, b"two").await.expect("a write");
    assert_eq!(records(), 1);
    rig.store.next(Call::Put, Fault::Fail(Error::AccessDenied("test".into())));
    rig.fs.flush(fh).await.expect_err("it is refused");
    assert_eq!(records(), 1, "a kill would lose a file that S3 has not");
    rig.close(fh).await.expect("a close");
    assert_eq!((records(), rig.object("p/f").as_deref()), (0, Some(&b"two"[..])));
}

#[tokio::test]
async fn the_end_of_a_mount_tries_again_what_fails_under_its_eyes() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"kept").await.expect("a write");
    let word = Arc::new(tokio::sync::Notify::new());
    rig.store.next(Call::Put, Fault::FailLate(word.clone(), down()));
    let drain = async {
        while rig.store.count(Call::Put) == 0 {
            tokio::task::yield_now().await;
        }
        rig.fs.drain(Duration::from_secs(30), Holders::None).await
    };
    let tell = async {
        while !rig.fs.stopping.load(std::sync::atomic::Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        word.notify_one();
    };
    let (drained, (), closed) = tokio::join!(drain, tell, rig.close(fh));
    assert!(closed.is_err());
    assert_eq!((drained.committed, drained.left.len()), (1, 0));
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"kept"[..]));
}

#[tokio::test]
async fn the_end_of_a_mount_does_not_store_what_is_written_after_the_last_fsync() {
    for _ in 0..20 {
        let rig = Rig::new().await;
        let (_, fh) = rig.create(Ino::ROOT, "f").await;
        rig.fs.write(fh, 0, b"one").await.expect("a write");
        let fs = rig.fs.clone();
        let (fsync, word) = under_way(&rig, Call::Put, async move { fs.fsync(fh).await }).await;
        let fs = rig.fs.clone();
        let write = tokio::spawn(async move { fs.write(fh, 3, b" two").await });
        let fs = rig.fs.clone();
        let drain = tokio::spawn(async move { fs.drain(Duration::from_secs(30), Holders::Possible).await });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        word.notify_one();
        fsync.await.expect("a task").expect("an fsync");
        write.await.expect("a task").expect("a write");
        drain.await.expect("a task");
        assert_eq!(rig.object("p/f").as_deref(), Some(&b"one"[..]), "half a file was stored");
    }
}
