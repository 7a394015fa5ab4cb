//! `RENAME_NOREPLACE` against other clients, on stores whose CopyObject looks at its target and on those where it does not.

use super::races::under_way;
use super::send_ahead::{MIB, content};
use super::*;
use crate::error::Error;
use crate::fs::RenameMode;
use crate::transfer::tests::fake::Call;

/// A file `a` of this size, closed and stored, and a name `b` that the mount believes to be free for a long time.
async fn rig_with_a_file(copies_over: bool, len: u64) -> Rig {
    let freshness = Freshness { negative: Duration::from_secs(600), ..Freshness::default() };
    let mut store = Fake::new(false);
    store.copies_over = copies_over;
    let rig = Rig::over(Arc::new(store), FsSettings { freshness, ..settings() });
    rig.put(Ino::ROOT, "a", &content(len, 1)).await;
    assert!(rig.ino(Ino::ROOT, "b").await.is_err());
    rig.store.take_calls();
    rig
}

async fn rename(fs: Arc<Filesystem>, mode: RenameMode) -> Result<()> {
    tokio::time::timeout(Duration::from_secs(30), fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", mode))
        .await
        .expect("an end")
}

async fn assert_both_stand(rig: &Rig, refused: Result<()>, len: u64) {
    assert!(matches!(refused, Err(Error::AlreadyExists)), "{len}: {refused:?}");
    assert_eq!(rig.store.keys(), ["p/a", "p/b"]);
    assert_eq!(rig.object("p/b").as_deref(), Some(&b"theirs"[..]), "{len}");
    assert!(rig.object("p/a") == Some(content(len, 1)), "{len}");
    assert_eq!(rig.store.open_uploads(), 0, "{len}: an upload is left");
    let ino = rig.ino(Ino::ROOT, "b").await.expect("it is seen now");
    assert_eq!(rig.read(ino).await.expect("a read"), b"theirs", "{len}");
    let ino = rig.ino(Ino::ROOT, "a").await.expect("it is where it was");
    assert!(rig.read(ino).await.expect("a read")[..] == content(len, 1)[..(len as usize).min(1 << 20)], "{len}");
}

#[tokio::test]
async fn what_another_client_made_since_the_name_was_looked_up_is_not_replaced_on_any_store() {
    for copies_over in [false, true] {
        for len in [0, 9, 5 * MIB, 6 * MIB] {
            let rig = rig_with_a_file(copies_over, len).await;
            rig.store.set("p/b", "theirs");
            let refused = rename(rig.fs.clone(), RenameMode::NoReplace).await;
            assert_both_stand(&rig, refused, len).await;
        }
    }
}

#[tokio::test]
async fn what_another_client_makes_while_the_bytes_are_copied_is_not_replaced() {
    for (len, call) in [(0, Call::Head), (9, Call::Head), (9, Call::PartCopy), (6 * MIB, Call::PartCopy)] {
        let rig = rig_with_a_file(true, len).await;
        let (renaming, word) = under_way(&rig, call, rename(rig.fs.clone(), RenameMode::NoReplace)).await;
        rig.store.set("p/b", "theirs");
        word.notify_one();
        let refused = renaming.await.expect("a task");
        assert_both_stand(&rig, refused, len).await;
    }
}

#[tokio::test]
async fn of_two_clients_that_move_to_one_name_one_is_told_that_it_exists() {
    for len in [0, 9] {
        let rig = rig_with_a_file(true, len).await;
        let other = Rig::over(rig.store.clone(), settings());
        other.put(Ino::ROOT, "c", b"theirs").await;
        let theirs = other.fs.rename(Ino::ROOT, b"c", Ino::ROOT, b"b", RenameMode::NoReplace);
        let (ours, theirs) = tokio::join!(rename(rig.fs.clone(), RenameMode::NoReplace), theirs);
        let (lost, there, keys) = match (ours, theirs) {
            (Ok(()), Err(lost)) => (lost, content(len, 1), ["p/b", "p/c"]),
            (Err(lost), Ok(())) => (lost, b"theirs".to_vec(), ["p/a", "p/b"]),
            both => panic!("not one of them was first: {both:?}"),
        };
        assert!(matches!(lost, Error::AlreadyExists), "{lost:?}");
        assert!(rig.object("p/b") == Some(there), "{len}");
        assert_eq!(rig.store.keys(), keys);
    }
}

/// One that changes the source meanwhile keeps what it wrote, and nothing stands under the new name.
#[tokio::test]
async fn a_source_that_was_replaced_meanwhile_is_not_moved() {
    for len in [0, 9, 6 * MIB] {
        let rig = rig_with_a_file(true, len).await;
        rig.store.set("p/a", "theirs");
        let refused = rename(rig.fs.clone(), RenameMode::NoReplace).await;
        assert!(matches!(refused, Err(Error::Stale)), "{refused:?}");
        assert_eq!((rig.store.keys(), rig.object("p/a")), (vec!["p/a".to_owned()], Some(b"theirs".to_vec())));
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn only_what_must_not_replace_costs_more_and_only_where_copies_look_at_no_target() {
    let by_parts = [Call::Head, Call::Create, Call::PartCopy, Call::Complete, Call::Delete];
    let cases: [(bool, RenameMode, u64, &[Call]); 5] = [
        (false, RenameMode::NoReplace, 9, &[Call::Copy, Call::Delete]),
        (true, RenameMode::Replace, 9, &[Call::Copy, Call::Delete]),
        (true, RenameMode::NoReplace, 9, &by_parts),
        (true, RenameMode::NoReplace, 6 * MIB, &by_parts),
        (true, RenameMode::NoReplace, 0, &[Call::Head, Call::Put, Call::Delete]),
    ];
    for (copies_over, mode, len, calls) in cases {
        let rig = rig_with_a_file(copies_over, len).await;
        rename(rig.fs.clone(), mode).await.expect("a rename");
        assert_eq!(rig.store.take_calls(), calls, "{copies_over} {mode:?} {len}");
        assert!(rig.object("p/b") == Some(content(len, 1)), "{copies_over} {mode:?} {len}");
        assert_eq!(rig.store.keys(), ["p/b"]);
    }
}
