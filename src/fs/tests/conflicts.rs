//! Two writers of one file, and what the option `conflict` makes of it.

use std::time::SystemTime;

use tokio::sync::Notify;

use super::send_ahead::until;
use super::*;
use crate::error::Error;
use crate::fs::{RenameMode, SetAttributes};
use crate::inode::OwnershipChange;
use crate::transfer::tests::fake::{Call, Fault};

/// Two mounts of one store, the first of which does this with conflicts.
async fn two(policy: ConflictPolicy) -> (Rig, Rig) {
    let ours = Rig::with(FsSettings { conflict: policy, ..no_cache() }).await;
    let theirs = Rig::over(ours.store.clone(), no_cache());
    (ours, theirs)
}

/// A handle of `ours` that has rewritten `f` while `theirs` stored it too.
async fn both_write(ours: &Rig, theirs: &Rig) -> (Ino, Fh) {
    ours.store.set("p/f", "base");
    let ino = ours.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = ours.open(ino, WRITE).await;
    ours.fs.write(fh, 0, b"ours, longer").await.expect("a write");
    let other = theirs.ino(Ino::ROOT, "f").await.expect("a file");
    let writer = theirs.open(other, WRITE).await;
    theirs.fs.write(writer, 0, b"theirs").await.expect("a write");
    theirs.close(writer).await.expect("the first to close");
    (ino, fh)
}

fn conflict_copy(rig: &Rig) -> String {
    let keys = rig.store.keys();
    let copies: Vec<&String> = keys.iter().filter(|key| key.starts_with("p/f.conflict-here-")).collect();
    assert_eq!(copies.len(), 1, "{keys:?}");
    copies[0].clone()
}

#[tokio::test]
async fn fail_refuses_the_second_writer_and_keeps_its_bytes() {
    let (ours, theirs) = two(ConflictPolicy::Fail).await;
    let (ino, fh) = both_write(&ours, &theirs).await;
    assert!(matches!(ours.close(fh).await, Err(Error::Stale)));
    assert_eq!(ours.store.keys(), ["p/f"]);
    assert_eq!(ours.object("p/f").as_deref(), Some(&b"theirs"[..]));
    assert_eq!(ours.read(ino).await.expect("a read"), b"ours, longer");
}

#[tokio::test]
async fn keep_both_stores_a_copy_and_shows_the_other_version() {
    let (ours, theirs) = two(ConflictPolicy::KeepBoth).await;
    let (ino, fh) = both_write(&ours, &theirs).await;
    ours.fs.fsync(fh).await.expect("both are kept");
    assert_eq!(ours.object("p/f").as_deref(), Some(&b"theirs"[..]));
    let copy = conflict_copy(&ours);
    assert_eq!(ours.object(&copy).as_deref(), Some(&b"ours, longer"[..]));
    let now = ours.ino(Ino::ROOT, "f").await.expect("their file");
    assert_ne!(now, ino, "the kernel would show their bytes to who has ours open");
    assert_eq!(ours.read(now).await.expect("a read"), b"theirs");
    assert_eq!(&ours.fs.read(fh, 0, 99).await.expect("a read")[..], b"ours, longer");
    assert_eq!(ours.names(Ino::ROOT).await, ["f", copy.trim_start_matches("p/")]);
    nothing_changes(&ours, ino, fh).await;
    ours.close(fh).await.expect("nothing is left to commit");
    assert!(matches!(ours.fs.getattr(ino).await, Err(Error::Stale)), "the kernel looks the name up again");
}

/// What was written, cut or given attributes here would go nowhere, since the name is another's.
async fn nothing_changes(rig: &Rig, ino: Ino, fh: Fh) {
    assert!(matches!(rig.fs.write(fh, 0, b"x").await, Err(Error::Stale)), "a write that is lost");
    for handle in [Some(fh), None] {
        let cut = SetAttributes { size: Some(1), handle, ..SetAttributes::default() };
        assert!(matches!(rig.fs.setattr(ino, cut).await, Err(Error::Stale)), "a truncation that is lost");
        let ownership = OwnershipChange { mode: Some(0o600), ..OwnershipChange::default() };
        let mode = SetAttributes { ownership, handle, ..SetAttributes::default() };
        assert!(matches!(rig.fs.setattr(ino, mode).await, Err(Error::Stale)), "a mode that is lost");
    }
    assert!(matches!(rig.fs.open(ino, TRUNCATE).await, Err(Error::Stale)), "an open of what has no name");
}

#[tokio::test]
async fn keep_both_after_a_lost_reply_makes_one_copy() {
    let (ours, theirs) = two(ConflictPolicy::KeepBoth).await;
    let (_, fh) = both_write(&ours, &theirs).await;
    ours.store.next(Call::Put, Fault::Fail(Error::PreconditionFailed));
    ours.store.next(Call::Put, Fault::DoneBut(Error::Timeout("test".into())));
    assert!(ours.fs.flush(fh).await.is_err(), "nobody knows yet");
    ours.fs.flush(fh).await.expect("it is there");
    assert_eq!(ours.object(&conflict_copy(&ours)).as_deref(), Some(&b"ours, longer"[..]));
}

/// Regression: nothing was remembered of an upload whose answer was lost when the question for it was refused, and a file that was
/// removed then came back.
#[tokio::test]
async fn a_removed_file_stays_removed_whose_upload_got_no_answer_and_could_not_be_asked_for() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"first").await.expect("a write");
    // The SDK sends it again when it gets no answer, and is told that the name is taken: by its first try.
    rig.store.next(Call::Put, Fault::DoneBut(Error::PreconditionFailed));
    rig.store.next(Call::Head, Fault::Fail(Error::AccessDenied("once".into())));
    let told = rig.fs.flush(fh).await.expect_err("nobody knows");
    assert_eq!(told.errno(), Error::AccessDenied(String::new()).errno(), "{told}");
    rig.fs.write(fh, 5, b" and more").await.expect("a write");
    rig.fs.unlink(Ino::ROOT, b"f").await.expect("it goes");
    assert_eq!(rig.object("p/f"), None, "it is still there");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn keep_both_takes_another_name_when_one_is_taken() {
    let (ours, theirs) = two(ConflictPolicy::KeepBoth).await;
    let (_, fh) = both_write(&ours, &theirs).await;
    ours.store.next(Call::Put, Fault::Fail(Error::PreconditionFailed));
    ours.store.next(Call::Put, Fault::Fail(Error::PreconditionFailed));
    ours.close(fh).await.expect("both are kept");
    assert!(conflict_copy(&ours).ends_with("Z-2"), "{:?}", ours.store.keys());
}

#[tokio::test]
async fn keep_both_replaces_nothing_that_has_the_name_of_the_copy() {
    let (ours, theirs) = two(ConflictPolicy::KeepBoth).await;
    let (ino, fh) = both_write(&ours, &theirs).await;
    // The time of the last write is in the name.
    let written = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    let ownership = OwnershipChange { mtime: written, ..OwnershipChange::default() };
    let change = SetAttributes { ownership, handle: Some(fh), ..SetAttributes::default() };
    ours.fs.setattr(ino, change).await.expect("changed");
    let taken = "p/f.conflict-here-20010909T014640Z";
    ours.store.set(taken, "another's");
    ours.close(fh).await.expect("both are kept");
    assert_eq!(ours.object(taken).as_deref(), Some(&b"another's"[..]));
    assert_eq!(ours.object(&format!("{taken}-2")).as_deref(), Some(&b"ours, longer"[..]));
}

/// Closes a file of `ours`; another writer does `meanwhile` after the conflict was looked at, and before it is put right.
async fn close_while(ours: &Rig, fh: Fh, meanwhile: impl FnOnce()) {
    // The first look is whether it is our own work, the second what stands there.
    let (own, theirs) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    own.notify_one();
    ours.store.next(Call::Head, Fault::Late(own));
    ours.store.next(Call::Head, Fault::Late(theirs.clone()));
    ours.store.take_calls();
    let change = async {
        until("the conflict is looked at", || ours.store.count(Call::Head) == 2).await;
        meanwhile();
        theirs.notify_one();
    };
    let (closed, ()) = tokio::join!(ours.close(fh), change);
    closed.expect("the conflict is put right");
}

#[tokio::test]
async fn who_unlinks_or_moves_a_name_while_it_becomes_anothers_looks_it_up_again() {
    for unlinks in [true, false] {
        let (ours, theirs) = two(ConflictPolicy::KeepBoth).await;
        let (_, fh) = both_write(&ours, &theirs).await;
        let word = Arc::new(Notify::new());
        ours.store.next(Call::Put, Fault::FailLate(word.clone(), Error::PreconditionFailed));
        ours.store.take_calls();
        let change = async {
            until("it is being stored", || ours.store.count(Call::Put) == 1).await;
            let attempt = || async {
                match unlinks {
                    true => ours.fs.unlink(Ino::ROOT, b"f").await,
                    false => ours.fs.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", RenameMode::Replace).await,
                }
            };
            let go_on = async {
                tokio::task::yield_now().await;
                word.notify_one();
            };
            match tokio::join!(attempt(), go_on).0 {
                // As the kernel does.
                Err(Error::Stale) => attempt().await,
                done => done,
            }
        };
        let (closed, changed) = tokio::join!(ours.fs.flush(fh), change);
        closed.expect("both are kept");
        changed.expect("the name is there, and is theirs");
        assert_eq!(ours.object("p/f"), None);
        assert_eq!(ours.object("p/g").is_some(), !unlinks);
        ours.fs.release(fh).await.expect("a release");
    }
}

#[tokio::test]
async fn overwrite_looks_again_at_what_was_stored_meanwhile() {
    let (ours, theirs) = two(ConflictPolicy::Overwrite).await;
    let (_, fh) = both_write(&ours, &theirs).await;
    close_while(&ours, fh, || drop(ours.store.set("p/f", "theirs, newer"))).await;
    assert_eq!(ours.store.count(Call::Put), 3, "a version that was never looked at was replaced");
    assert_eq!(ours.object("p/f").as_deref(), Some(&b"ours, longer"[..]));
}

#[tokio::test]
async fn a_name_that_was_free_and_is_taken_again_is_not_replaced() {
    let (ours, theirs) = two(ConflictPolicy::KeepBoth).await;
    let (_, fh) = both_write(&ours, &theirs).await;
    ours.store.remove("p/f");
    close_while(&ours, fh, || drop(ours.store.set("p/f", "theirs, newer"))).await;
    assert_eq!(ours.object("p/f").as_deref(), Some(&b"theirs, newer"[..]));
    assert_eq!(ours.object(&conflict_copy(&ours)).as_deref(), Some(&b"ours, longer"[..]));
}

#[tokio::test]
async fn overwrite_replaces_the_other_version_and_nothing_newer() {
    let (ours, theirs) = two(ConflictPolicy::Overwrite).await;
    let (ino, fh) = both_write(&ours, &theirs).await;
    // Another client is faster once more: what was seen before it is no licence to replace it.
    ours.store.next(Call::Put, Fault::Fail(Error::PreconditionFailed));
    ours.store.next(Call::Put, Fault::Fail(Error::PreconditionFailed));
    ours.close(fh).await.expect("the last writer");
    assert_eq!(ours.store.keys(), ["p/f"]);
    assert_eq!(ours.object("p/f").as_deref(), Some(&b"ours, longer"[..]));
    assert_eq!(ours.read(ino).await.expect("a read"), b"ours, longer");
}

#[tokio::test]
async fn a_file_that_another_writer_removed_is_stored_again() {
    for policy in [ConflictPolicy::KeepBoth, ConflictPolicy::Overwrite] {
        let (ours, theirs) = two(policy).await;
        let (_, fh) = both_write(&ours, &theirs).await;
        ours.store.remove("p/f");
        ours.close(fh).await.expect("the name is free");
        assert_eq!(ours.store.keys(), ["p/f"]);
        assert_eq!(ours.object("p/f").as_deref(), Some(&b"ours, longer"[..]));
    }
}

#[tokio::test]
async fn a_change_of_a_part_can_not_be_stored_once_the_rest_is_gone() {
    for policy in [ConflictPolicy::KeepBoth, ConflictPolicy::Overwrite] {
        let (ours, _) = two(policy).await;
        ours.store.set("p/f", "a longer base");
        let ino = ours.ino(Ino::ROOT, "f").await.expect("a file");
        // Opened for writing only, so that no bytes of the base come with the open.
        let fh = ours.open(ino, OpenIntent { access: Access::Write, ..READ }).await;
        ours.fs.write(fh, 0, b"A").await.expect("a write");
        ours.store.set("p/f", "theirs");
        assert!(matches!(ours.close(fh).await, Err(Error::Stale)), "half a file was made of two versions");
        assert_eq!(ours.store.keys(), ["p/f"]);
        assert_eq!(ours.object("p/f").as_deref(), Some(&b"theirs"[..]));
    }
}

#[tokio::test]
async fn an_exclusive_create_loses_whatever_the_option_says() {
    for policy in [ConflictPolicy::KeepBoth, ConflictPolicy::Overwrite] {
        let (ours, _) = two(policy).await;
        let made = ours.fs.create(Ino::ROOT, b"f", CREATION, EXCLUSIVE).await.expect("a new file");
        ours.fs.write(made.opened.fh, 0, b"ours").await.expect("a write");
        ours.store.set("p/f", "theirs");
        assert!(matches!(ours.close(made.opened.fh).await, Err(Error::AlreadyExists)));
        assert!(!ours.fs.finish_stage().expect("a look at the stage"), "the loser's bytes were thrown away");
        assert_eq!(ours.store.keys(), ["p/f"]);
        assert_eq!(ours.object("p/f").as_deref(), Some(&b"theirs"[..]));
    }
}
