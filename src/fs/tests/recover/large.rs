//! Files that are larger than the stage, in a run that is killed.

use super::super::send_ahead::write;
use super::*;

const PART: u64 = 5 * MIB;
const SIZE: u64 = 64 * MIB;

fn in_parts() -> FsSettings {
    FsSettings { transfer: TransferSettings { part_size: PART, ..TransferSettings::default() }, ..settings() }
}

/// A run that was killed when parts of a file were only in its upload, and it was closed in vain or still open.
async fn killed(closed: bool) -> (Rig, Recovery, Vec<u8>) {
    let rig = Rig::within(Some(24 * MIB), Arc::new(Fake::new(false)), in_parts(), None);
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(SIZE, 0);
    write(&rig, fh, 0, &bytes).await;
    until("all full parts are up", || rig.store.count(Call::Part) == 12).await;
    rig.fs.stopping.store(true, Ordering::Relaxed);
    if closed {
        rig.store.next(Call::Complete, Fault::Fail(down()));
        assert!(rig.fs.flush(fh).await.is_err());
    }
    // What the next run cuts anew has other parts.
    let (rig, leftovers) = rig.killed_before(settings());
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    assert_eq!(rig.store.open_uploads(), 1, "the upload went");
    rig.store.take_calls();
    (rig, recovery, bytes)
}

#[tokio::test]
async fn the_next_run_completes_the_upload_of_a_file_that_was_closed() {
    for refusal in [None, Some(Error::AccessDenied("ListParts".into())), Some(down())] {
        let (rig, recovery, bytes) = killed(true).await;
        assert_eq!((recovery.pending(), recovery.kept().len()), (1, 0));
        let ino = rig.ino(Ino::ROOT, "f").await.expect("there from the first operation");
        let fh = rig.open(ino, READ).await;
        let read = rig.fs.read(fh, 2 * PART, 4096).await;
        assert!(matches!(read, Err(Error::NotReadableYet)), "{read:?}");
        rig.close(fh).await.expect("a close");
        let is_told = refusal.is_none();
        refusal.into_iter().for_each(|error| rig.store.next(Call::ListParts, Fault::Fail(error)));
        rig.fs.recover(recovery);
        until("it is stored", || rig.object("p/f").is_some()).await;
        assert!(rig.object("p/f") == Some(bytes));
        until("nothing is left", || rig.store.open_uploads() == 0 && rig.left().is_empty()).await;
        assert_eq!(rig.store.count(Call::Create), 0);
        assert!(!is_told || rig.store.count(Call::Part) == 0, "what was up was sent again");
    }
}

#[tokio::test]
async fn what_is_stored_under_the_name_meanwhile_stays_and_so_does_the_upload() {
    let (rig, recovery, _) = killed(true).await;
    rig.store.set("p/f", "theirs");
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
    assert_eq!((rig.store.open_uploads(), rig.left().len()), (1, 1));
    assert!(!rig.left()[0].away().is_empty() && rig.left()[0].whole().is_ok());
}

#[tokio::test]
async fn an_upload_that_is_gone_by_then_is_told_and_what_is_left_is_kept() {
    let (rig, recovery, _) = killed(true).await;
    rig.store.forget_uploads();
    rig.fs.recover(recovery);
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    let pin = rig.fs.table.get(ino).expect("there");
    let lost = || pin.inode().lock().file().expect("a file").staged().is_some_and(|staged| staged.has_lost());
    until("it is noted", lost).await;
    let told = rig.fs.fsync(fh).await;
    assert!(matches!(told, Err(Error::PartsLost)), "{told:?}");
    assert_eq!(rig.object("p/f"), None);
    let (rig, leftovers) = rig.killed_before(settings());
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (0, 1));
    assert!(recovery.kept()[0].why.contains("is gone from the bucket"), "{}", recovery.kept()[0].why);
}

#[tokio::test]
async fn a_file_that_was_still_open_is_kept_with_its_upload_and_known_to_have_holes() {
    let (rig, recovery, _) = killed(false).await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (0, 1));
    rig.recover(recovery).await;
    assert_eq!(rig.store.open_uploads(), 1, "the only place of some bytes went");
    drop(rig.fs);
    let left = remaining(rig._root.path(), None).expect("looked").remove(0).leftovers.remove(0);
    let away: u64 = left.away().iter().map(|part| part.range.len()).sum();
    assert!(away >= SIZE - 24 * MIB && away.is_multiple_of(PART), "{away}");
    let read = left.open().expect("opened").read_at(2 * PART, 4096);
    assert!(matches!(read, Err(Error::NotReadableYet)), "{read:?}");
}

#[tokio::test]
async fn the_end_of_a_mount_leaves_the_upload_to_the_next_one_and_does_not_wait_for_it() {
    let rig = Rig::within(Some(24 * MIB), Arc::new(Fake::new(false)), in_parts(), None);
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(SIZE, 0);
    write(&rig, fh, 0, &bytes).await;
    for _ in 0..8 {
        rig.store.next(Call::Complete, Fault::Fail(Error::AccessDenied("test".into())));
    }
    assert!(rig.close(fh).await.is_err());
    let drained = rig.fs.drain(Duration::from_secs(10), Holders::None).await;
    assert_eq!(drained.left.len(), 1);
    rig.store.clear_faults();
    // No time: what is left in the store on purpose is not waited for.
    let gone = tokio::time::timeout(Duration::from_secs(1), rig.fs.transfer.uploads_gone(Duration::from_secs(60)));
    gone.await.expect("an upload that stays was waited for");
    assert_eq!(rig.store.open_uploads(), 1);
    let (rig, leftovers) = rig.killed_before(in_parts());
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    rig.recover(recovery).await;
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!((rig.store.open_uploads(), rig.store.count(Call::Create), rig.left().len()), (0, 1, 0));
}
