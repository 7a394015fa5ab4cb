//! Uploads that go on where a killed run has stopped.

use super::super::send_ahead::write;
use super::*;
use crate::fs::SetAttributes;
use crate::inode::OwnershipChange;

const SIZE: u64 = 40 * MIB;

fn chmod(mode: u32) -> SetAttributes {
    SetAttributes { ownership: OwnershipChange { mode: Some(mode), ..Default::default() }, ..Default::default() }
}

/// Closes the file, which never comes to an end.
fn close_for_ever(rig: &Rig, fh: Fh, call: Call) -> impl Future<Output = ()> + use<> {
    rig.store.next(call, Fault::Hang);
    let before = rig.store.count(call);
    let (fs, store) = (rig.fs.clone(), rig.store.clone());
    tokio::spawn(async move { fs.flush(fh).await });
    async move { until("the call hangs", || store.count(call) > before).await }
}

/// A run that was killed when a file of five parts was closed and all of them were up.
async fn killed_at_its_end() -> (Rig, Recovery, Vec<u8>) {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(SIZE, 0);
    write(&rig, fh, 0, &bytes).await;
    close_for_ever(&rig, fh, Call::Complete).await;
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), rig.store.open_uploads()), (1, 1));
    rig.store.take_calls();
    (rig, recovery, bytes)
}

impl Rig {
    /// How many uploads, lists of parts and parts there were.
    fn traffic(&self) -> (usize, usize, usize) {
        (self.store.count(Call::Create), self.store.count(Call::ListParts), self.store.count(Call::Part))
    }
}

#[tokio::test]
async fn an_upload_that_a_killed_run_had_begun_goes_on_where_it_stopped() {
    let (rig, recovery, bytes) = killed_at_its_end().await;
    rig.store.spoil_part(3, vec![7; 8 * MIB as usize]);
    rig.recover(recovery).await;
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!(rig.traffic(), (0, 2, 1), "the part of other bytes alone is sent");
    assert_eq!((rig.store.open_uploads(), rig.left().len()), (0, 0));
}

#[tokio::test]
async fn an_upload_whose_parts_are_not_told_is_begun_anew_and_the_old_one_goes() {
    for refusal in [Error::AccessDenied("ListParts".into()), Error::Unsupported("ListParts"), Error::UploadGone] {
        let (rig, recovery, bytes) = killed_at_its_end().await;
        rig.store.next(Call::ListParts, Fault::Fail(refusal));
        rig.recover(recovery).await;
        assert!(rig.object("p/f") == Some(bytes));
        assert_eq!(rig.traffic(), (1, 1, 5));
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_at_first_is_asked_again() {
    let (rig, recovery, bytes) = killed_at_its_end().await;
    rig.store.next(Call::ListParts, Fault::Fail(down()));
    rig.fs.recover(recovery);
    until("it is stored", || rig.object("p/f").is_some()).await;
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!((rig.traffic(), rig.store.open_uploads()), ((0, 3, 0), 0));
}

#[tokio::test]
async fn an_upload_survives_a_second_kill() {
    let (rig, recovery, bytes) = killed_at_its_end().await;
    rig.store.next(Call::Complete, Fault::Hang);
    rig.fs.recover(recovery);
    until("it is being completed", || rig.store.count(Call::Complete) > 0).await;
    let (rig, recovery) = rig.killed().await;
    rig.store.take_calls();
    rig.recover(recovery).await;
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!((rig.traffic(), rig.store.open_uploads()), ((0, 2, 0), 0));
}

#[tokio::test]
async fn what_a_program_changes_before_the_upload_goes_on_is_stored() {
    let (rig, recovery, mut bytes) = killed_at_its_end().await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 9 * MIB, b"changed").await.expect("a write");
    bytes[9 * MIB as usize..][..7].copy_from_slice(b"changed");
    rig.fs.recover(recovery);
    rig.close(fh).await.expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    until("no upload is left", || rig.store.open_uploads() == 0).await;
}

#[tokio::test]
async fn what_a_program_changes_while_the_upload_goes_on_is_stored() {
    let (rig, recovery, mut bytes) = killed_at_its_end().await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let word = std::sync::Arc::new(tokio::sync::Notify::new());
    rig.store.next(Call::ListParts, Fault::Late(word.clone()));
    rig.fs.recover(recovery);
    until("the store is asked", || rig.store.count(Call::ListParts) > 0).await;
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 9 * MIB, b"changed").await.expect("a write");
    bytes[9 * MIB as usize..][..7].copy_from_slice(b"changed");
    rig.fs.setattr(ino, chmod(0o604)).await.expect("changed");
    let fs = rig.fs.clone();
    let closing = tokio::spawn(async move { fs.flush(fh).await });
    word.notify_one();
    closing.await.expect("no panic").expect("a close");
    assert!(rig.object("p/f") == Some(bytes));
    rig.fs.release(fh).await.expect("released");
    let (rig, _) = rig.killed().await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").ownership.mode & 0o777, 0o604);
    until("no upload is left", || rig.store.open_uploads() == 0).await;
}

#[tokio::test]
async fn an_upload_of_other_attributes_is_not_gone_on_with() {
    let rig = Rig::doomed().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    let bytes = content(SIZE, 0);
    write(&rig, fh, 0, &bytes).await;
    rig.store.next(Call::Complete, Fault::Fail(down()));
    // Its end fails, too, for as long as this run lasts.
    rig.store.next(Call::Abort, Fault::Fail(down()));
    rig.store.next(Call::Abort, Fault::Hang);
    rig.fs.flush(fh).await.expect_err("it can't be stored");
    rig.fs.setattr(ino, chmod(0o604)).await.expect("changed");
    close_for_ever(&rig, fh, Call::Create).await;
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), rig.store.open_uploads()), (1, 1));
    rig.store.take_calls();
    rig.recover(recovery).await;
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!(rig.store.count(Call::Create), 1);
    let (rig, _) = rig.killed().await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").ownership.mode & 0o777, 0o604);
    until("no upload is left", || rig.store.open_uploads() == 0).await;
}

#[tokio::test]
async fn an_upload_that_another_writer_stands_in_the_way_of_is_aborted() {
    // A new file, and one that replaces whatever there is.
    for replaces in [false, true] {
        let rig = Rig::new().await;
        if replaces {
            rig.store.set("p/f", "old");
            let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
            let fh = rig.open(ino, TRUNCATE).await;
            write(&rig, fh, 0, &content(SIZE, 0)).await;
            close_for_ever(&rig, fh, Call::Complete).await;
        } else {
            let (_, fh) = rig.create(Ino::ROOT, "f").await;
            write(&rig, fh, 0, &content(SIZE, 0)).await;
            close_for_ever(&rig, fh, Call::Complete).await;
        }
        let (rig, recovery) = rig.killed().await;
        rig.store.set_with("p/f", "theirs".into(), &Attributes::default(), SystemTime::now() + Duration::from_secs(9));
        rig.recover(recovery).await;
        assert_eq!(rig.object("p/f").as_deref(), Some(&b"theirs"[..]));
        until("no upload is left", || rig.store.open_uploads() == 0).await;
        let left = rig.left();
        assert!(matches!(&left[..], [left] if left.record.as_ref().is_ok_and(|record| record.upload_id.is_none())));
    }
}

/// Parts that are copied lie elsewhere, and nobody knows their bytes.
#[tokio::test]
async fn an_upload_of_copied_parts_is_begun_anew() {
    let rig = Rig::new().await;
    let mut bytes = content(SIZE, 0);
    rig.store.set("p/f", bytes.clone());
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 9 * MIB, b"changed").await.expect("a write");
    bytes[9 * MIB as usize..][..7].copy_from_slice(b"changed");
    close_for_ever(&rig, fh, Call::Complete).await;
    let (rig, recovery) = rig.killed().await;
    rig.store.take_calls();
    rig.recover(recovery).await;
    assert!(rig.object("p/f") == Some(bytes));
    assert_eq!((rig.traffic().0, rig.traffic().1, rig.store.open_uploads()), (1, 0, 0));
}
