//! A run that is killed while it renames a directory, and what the next one makes of it.

use super::*;
use crate::stage::LeftMoves;
use crate::transfer::tests::fake::Fake;

const FILES: usize = 12;

/// `p/d/` with a marker, files, a directory below and an empty one: what is below it, with the bytes.
fn tree(rig: &Rig) -> Vec<(String, Vec<u8>)> {
    let mut tree: Vec<_> = (0..FILES).map(|number| (format!("{number:02}"), format!("bytes {number}"))).collect();
    tree.extend(["", "empty/", "sub/one", "sub/two"].map(|rest| (rest.to_owned(), rest.replace('/', ""))));
    let tree: Vec<_> = tree
        .into_iter()
        .map(|(rest, bytes)| {
            let bytes = if rest.ends_with('/') { Vec::new() } else { bytes.into_bytes() };
            (rest, bytes)
        })
        .collect();
    for (rest, bytes) in &tree {
        rig.store.set(&format!("p/d/{rest}"), bytes.clone());
    }
    tree
}

#[track_caller]
fn assert_moved(rig: &Rig, tree: &[(String, Vec<u8>)], what: &str) {
    let mut keys: Vec<_> = tree.iter().map(|(rest, _)| format!("p/e/{rest}")).collect();
    keys.sort();
    assert_eq!(rig.store.keys(), keys, "{what}");
    for (rest, bytes) in tree {
        assert_eq!(rig.object(&format!("p/e/{rest}")).as_ref(), Some(bytes), "{what}: {rest}");
    }
    assert!(rig.renames_left().is_empty(), "{what}: the record stays");
}

impl Rig {
    fn renames_left(&self) -> Vec<LeftMoves> {
        remaining(self._root.path(), None).expect("looked").into_iter().flat_map(|source| source.renames).collect()
    }

    /// Records of renames in this run's session.
    fn records(&self) -> usize {
        let entries = std::fs::read_dir(self.fs.stage.dir()).expect("readable").flatten();
        entries.filter(|entry| entry.path().to_string_lossy().contains(".moves")).count()
    }

    /// Begins to rename `d` to `e`, lets `hung` such calls hang, and is killed when `objects` are there.
    async fn killed_in_rename(self, call: Call, hung: usize, objects: usize) -> (Rig, Recovery) {
        let (rig, leftovers) = self.killed_in_rename_leaving(call, hung, objects).await;
        let recovery = rig.fs.take_in_leftovers(leftovers).await;
        (rig, recovery)
    }

    async fn killed_in_rename_leaving(self, call: Call, hung: usize, objects: usize) -> (Rig, Vec<Leftover>) {
        self.ino(Ino::ROOT, "d").await.expect("a directory");
        let before = self.store.count(call);
        (0..hung).for_each(|_| self.store.next(call, Fault::Hang));
        let fs = self.fs.clone();
        let rename =
            tokio::spawn(async move { fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await });
        until("some of it is done", || {
            self.store.keys().len() == objects && self.store.count(call) >= before + hung || rename.is_finished()
        })
        .await;
        assert!(!rename.is_finished(), "it was not held up");
        assert_eq!(self.records(), 1);
        rename.abort();
        assert!(rename.await.is_err());
        self.store.clear_faults();
        self.killed_leaving()
    }

    /// The next run is killed where its requests hang.
    async fn killed_again_in(self, leftovers: Vec<Leftover>, call: Call) -> (Rig, Vec<Leftover>) {
        let before = self.store.count(call);
        (0..2).for_each(|_| self.store.next(call, Fault::Hang));
        let fs = self.fs.clone();
        let recovery = tokio::spawn(async move { fs.take_in_leftovers(leftovers).await });
        until("it hangs", || self.store.count(call) >= before + 2 || recovery.is_finished()).await;
        assert!(!recovery.is_finished(), "it was not held up");
        recovery.abort();
        assert!(recovery.await.is_err());
        self.store.clear_faults();
        self.killed_leaving()
    }
}

#[tokio::test]
async fn a_rename_killed_while_it_copies_is_finished_by_the_next_run() {
    for hung in [1, 3] {
        let rig = Rig::new().await;
        let tree = tree(&rig);
        let all = tree.len();
        let (rig, recovery) = rig.killed_in_rename(Call::Copy, hung, 2 * all - hung).await;
        assert_eq!(recovery.unfinished(), Vec::<String>::new());
        assert_moved(&rig, &tree, &format!("{hung} hung"));
        assert!(rig.ino(Ino::ROOT, "d").await.is_err());
        let dir = rig.ino(Ino::ROOT, "e").await.expect("the directory");
        assert_eq!(rig.names(dir).await.len(), FILES + 2);
    }
}

#[tokio::test]
async fn a_rename_killed_while_it_deletes_is_finished_by_the_next_run() {
    for hung in [1, 3] {
        let rig = Rig::new().await;
        let tree = tree(&rig);
        let all = tree.len();
        let (rig, recovery) = rig.killed_in_rename(Call::Delete, hung, all + hung).await;
        assert_eq!(recovery.unfinished(), Vec::<String>::new());
        assert_moved(&rig, &tree, &format!("{hung} hung"));
    }
}

#[tokio::test]
async fn a_run_that_is_killed_in_finishing_a_rename_leaves_it_to_the_next() {
    let rig = Rig::new().await;
    let tree = tree(&rig);
    let all = tree.len();
    let (rig, leftovers) = rig.killed_in_rename_leaving(Call::Copy, 4, 2 * all - 4).await;
    let (rig, leftovers) = rig.killed_again_in(leftovers, Call::Copy).await;
    let (rig, leftovers) = rig.killed_again_in(leftovers, Call::Delete).await;
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    assert_eq!(recovery.unfinished(), Vec::<String>::new());
    assert_moved(&rig, &tree, "the third run");
}

fn four_files(rig: &Rig) {
    for name in ["a", "b", "c", "z"] {
        rig.store.set(&format!("p/d/{name}"), name);
    }
}

/// Killed when all were copied, with a store whose copies do or don't overwrite what is there.
async fn four_files_copied(copies_over: bool) -> (Rig, Vec<Leftover>) {
    let mut store = Fake::new(false);
    store.copies_over = copies_over;
    let rig = Rig::over(Arc::new(store), settings());
    four_files(&rig);
    rig.killed_in_rename_leaving(Call::Copy, 4, 4).await
}

#[tokio::test]
async fn what_another_client_stored_before_the_copies_were_made_is_neither_overwritten_nor_removed() {
    for copies_over in [false, true] {
        let (rig, leftovers) = four_files_copied(copies_over).await;
        rig.store.set("p/e/a", "theirs");
        rig.store.set("p/d/b", "newer");
        rig.store.remove("p/d/c");
        rig.store.set("p/e/other", "theirs");
        let recovery = rig.fs.take_in_leftovers(leftovers).await;
        assert_eq!(recovery.unfinished(), Vec::<String>::new());
        assert_eq!(rig.store.keys(), ["p/d/a", "p/d/b", "p/e/a", "p/e/other", "p/e/z"]);
        let texts = ["p/d/a", "p/d/b", "p/e/a", "p/e/z"].map(|key| rig.object(key).expect("an object"));
        assert_eq!(texts, [&b"a"[..], b"newer", b"theirs", b"z"]);
        assert!(rig.renames_left().is_empty());
    }
}

#[tokio::test]
async fn what_another_client_stored_after_the_copies_were_made_is_neither_overwritten_nor_removed() {
    let rig = Rig::new().await;
    four_files(&rig);
    let (rig, leftovers) = rig.killed_in_rename_leaving(Call::Delete, 4, 8).await;
    rig.store.set("p/e/a", "theirs");
    rig.store.set("p/d/b", "newer");
    // Somebody who saw both directories removed the wrong one.
    rig.store.remove("p/e/c");
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    assert_eq!(recovery.unfinished(), Vec::<String>::new());
    assert_eq!(rig.store.keys(), ["p/d/a", "p/d/b", "p/d/c", "p/e/a", "p/e/b", "p/e/z"]);
    let texts = ["p/d/a", "p/d/b", "p/d/c", "p/e/a"].map(|key| rig.object(key).expect("an object"));
    assert_eq!(texts, [&b"a"[..], b"newer", b"c", b"theirs"]);
    assert!(rig.renames_left().is_empty());
}

/// The listing of the new place is old when it comes.
#[tokio::test]
async fn something_that_comes_to_the_new_place_while_the_rename_is_finished_stays() {
    for copies_over in [false, true] {
        let (rig, leftovers) = four_files_copied(copies_over).await;
        let words = [(); 2].map(|()| Arc::new(tokio::sync::Notify::new()));
        words[0].notify_one();
        words.iter().for_each(|word| rig.store.next(Call::List, Fault::Late(word.clone())));
        let lists = rig.store.count(Call::List);
        let recovery = rig.fs.take_in_leftovers(leftovers);
        let meanwhile = async {
            until("it looks at both places", || rig.store.count(Call::List) == lists + 2).await;
            rig.store.set("p/e/a", "theirs");
            words[1].notify_one();
        };
        let (recovery, ()) = tokio::join!(recovery, meanwhile);
        assert_eq!(recovery.unfinished(), Vec::<String>::new());
        assert_eq!(rig.store.keys(), ["p/d/a", "p/e/a", "p/e/b", "p/e/c", "p/e/z"], "{copies_over}");
        assert_eq!(rig.object("p/e/a").as_deref(), Some(&b"theirs"[..]), "{copies_over}");
    }
}

#[tokio::test]
async fn a_listing_that_fails_is_not_taken_for_an_empty_one() {
    let rig = Rig::new().await;
    four_files(&rig);
    let (rig, leftovers) = rig.killed_in_rename_leaving(Call::Delete, 4, 8).await;
    rig.store.next(Call::List, Fault::Fail(down()));
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    assert_eq!((recovery.unfinished().len(), rig.renames_left().len(), rig.store.keys().len()), (1, 1, 8));
}

/// Without checksums, and with ETags that say nothing, a copy looks like anybody's object.
#[tokio::test]
async fn what_can_not_be_told_from_another_clients_object_stays_under_both_names() {
    let rig = Rig::over(Arc::new(Fake::new(true)), settings());
    four_files(&rig);
    let (rig, recovery) = rig.killed_in_rename(Call::Copy, 1, 7).await;
    assert_eq!(recovery.unfinished(), Vec::<String>::new());
    assert_eq!(rig.store.keys().len(), 7);
    assert!(["a", "b", "c", "z"].iter().all(|name| rig.object(&format!("p/e/{name}")).is_some()));
    // When all copies were made, they were noted.
    let rig = Rig::over(Arc::new(Fake::new(true)), settings());
    four_files(&rig);
    let (rig, _) = rig.killed_in_rename(Call::Delete, 3, 7).await;
    assert_eq!(rig.store.keys(), ["p/e/a", "p/e/b", "p/e/c", "p/e/z"]);
}

#[tokio::test]
async fn drafts_below_a_directory_whose_rename_was_killed_are_stored_below_the_new_one() {
    for (call, objects) in [(Call::Copy, 2), (Call::Delete, 4)] {
        let rig = Rig::doomed().await;
        rig.store.set("p/d/changed", "old");
        rig.store.set("p/d/other", "other");
        let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
        let ino = rig.ino(dir, "changed").await.expect("a file");
        let fh = rig.open(ino, WRITE).await;
        rig.fs.write(fh, 0, b"N").await.expect("a write");
        rig.close_in_vain(fh).await;
        rig.put_in_vain(dir, "new", b"hello").await;
        let (_, open) = rig.create(dir, "open").await;
        rig.fs.write(open, 0, b"half").await.expect("a write");
        rig.put_in_vain(Ino::ROOT, "beside", b"beside").await;
        let (rig, recovery) = rig.killed_in_rename(call, 2, objects).await;
        assert_eq!((recovery.pending(), recovery.unfinished().len()), (3, 0), "{call:?}");
        rig.recover(recovery).await;
        assert_eq!(rig.store.keys(), ["p/beside", "p/e/changed", "p/e/new", "p/e/other"], "{call:?}");
        let texts = ["p/e/changed", "p/e/new"].map(|key| rig.object(key).expect("an object"));
        assert_eq!(texts, [&b"Nld"[..], b"hello"], "{call:?}");
        let keys: Vec<_> = rig.left().into_iter().map(|left| left.key).collect();
        assert_eq!(keys, [Some(ObjectKey::from_store("p/e/open"))], "{call:?}");
    }
}

#[tokio::test]
async fn a_draft_whose_object_does_not_move_stays_with_it() {
    let rig = Rig::doomed().await;
    rig.store.set("p/d/f", "old");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let ino = rig.ino(dir, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.close_in_vain(fh).await;
    let (rig, leftovers) = rig.killed_in_rename_leaving(Call::Copy, 1, 1).await;
    rig.store.set("p/e/f", "theirs");
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    rig.recover(recovery).await;
    let texts = ["p/d/f", "p/e/f"].map(|key| rig.object(key).expect("an object"));
    assert_eq!(texts, [&b"new"[..], b"theirs"]);
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn a_directory_that_s3_knows_nothing_of_moves_with_the_drafts_in_it() {
    let rig = Rig::doomed().await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    rig.put_in_vain(dir, "f", b"hello").await;
    rig.store.remove("p/d/");
    let (rig, leftovers) = rig.killed_in_rename_leaving(Call::Put, 1, 0).await;
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    rig.recover(recovery).await;
    assert_eq!(rig.store.keys(), ["p/e/", "p/e/f"]);
    assert!(rig.left().is_empty() && rig.renames_left().is_empty());
}

#[tokio::test]
async fn a_rename_that_can_not_be_finished_is_told_and_left_to_the_next_run() {
    let rig = Rig::new().await;
    let tree = tree(&rig);
    let all = tree.len();
    let (rig, leftovers) = rig.killed_in_rename_leaving(Call::Delete, 2, all + 2).await;
    let before = rig.store.keys();
    rig.store.take_calls();
    let recovery = rig.fs.leave_leftovers(leftovers);
    let told = recovery.unfinished();
    assert!(told.len() == 1 && told[0].contains("rename of d to e") && told[0].contains("read-only"), "{told:?}");
    drop(recovery);
    assert_eq!((rig.store.take_calls().len(), rig.renames_left().len()), (0, 1));
    let (rig, leftovers) = rig.killed_leaving();
    (0..all).for_each(|_| rig.store.next(Call::Delete, Fault::Fail(Error::AccessDenied("test".into()))));
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    let told = recovery.unfinished();
    assert!(told.len() == 1 && told[0].contains("access denied"), "{told:?}");
    rig.store.clear_faults();
    assert_eq!((rig.store.keys(), rig.renames_left().len()), (before, 1));
    let (rig, leftovers) = rig.killed_leaving();
    assert_eq!(rig.fs.take_in_leftovers(leftovers).await.unfinished(), Vec::<String>::new());
    assert_moved(&rig, &tree, "the third run");
}

/// Whoever was answered goes on from what is there: a later mount must finish nothing behind his back.
#[tokio::test]
async fn a_rename_that_was_answered_leaves_no_record() {
    let refused = || Fault::Fail(Error::AccessDenied("test".into()));
    for fault in [None, Some(Call::Copy), Some(Call::Delete)] {
        let rig = Rig::new().await;
        tree(&rig);
        rig.ino(Ino::ROOT, "d").await.expect("a directory");
        fault.iter().for_each(|call| rig.store.next(*call, refused()));
        let renamed = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await;
        assert_eq!((renamed.is_ok(), rig.records()), (fault.is_none(), 0), "{fault:?}");
        let before = rig.store.keys();
        let (rig, recovery) = rig.killed().await;
        assert_eq!((rig.store.keys(), recovery.unfinished().len()), (before, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn a_rename_that_the_stage_has_no_room_for_touches_nothing() {
    let rig = Rig::new().await;
    let tree = tree(&rig);
    rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let full = |number: usize| {
        let beside = rig.fs.stage.dir().join(format!("{number}.moves.new"));
        std::os::unix::fs::symlink("/dev/full", beside).expect("a link");
    };
    let before = rig.store.keys();
    (0..9).for_each(full);
    let refused = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::StageFull)), "{refused:?}");
    assert_eq!((rig.store.keys(), rig.store.count(Call::Copy)), (before.clone(), 0));
    // Full only when the copies are made: they are taken back.
    (0..9).for_each(|number| _ = std::fs::remove_file(rig.fs.stage.dir().join(format!("{number}.moves.new"))));
    let word = Arc::new(tokio::sync::Notify::new());
    rig.store.next(Call::Copy, Fault::Late(word.clone()));
    let rename = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace);
    let meanwhile = async {
        until("all are copied", || rig.store.keys().len() == 2 * tree.len()).await;
        (0..9).for_each(full);
        word.notify_one();
    };
    let (refused, ()) = tokio::join!(rename, meanwhile);
    assert!(matches!(refused, Err(Error::StageFull)), "{refused:?}");
    assert_eq!((rig.store.keys(), rig.store.count(Call::Delete)), (before, tree.len()));
    let records = std::fs::read_dir(rig.fs.stage.dir()).expect("readable").flatten();
    assert_eq!(records.filter(|entry| entry.path().extension().is_some_and(|e| e == "moves")).count(), 0);
}
