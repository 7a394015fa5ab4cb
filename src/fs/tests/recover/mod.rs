//! What a run leaves when it is killed, and what the next one makes of it.
//!
//! Owns the runs that are killed: the next one starts on a copy of what their stage held at that moment. What another writer
//! has to do with it is in `others`, renames of directories are in `renames`, uploads that go on in `uploads`.

mod large;
mod others;
mod renames;
mod uploads;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::send_ahead::{MIB, content, until};
use super::*;
use crate::error::Error;
use crate::fs::recover::AT_ONCE;
use crate::fs::{Holders, Recovery, RenameMode};
use crate::stage::{Leftover, NotedUpload, Record, RecordAttributes, RecordState, remaining};
use crate::store::{Attributes, ObjectStore, PartSource};
use crate::transfer::tests::fake::{Call, Fault};
use crate::types::{Expect, ObjectKey};

fn down() -> Error {
    Error::Unavailable("test".into())
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
    let mode = std::fs::metadata(from).expect("there").permissions();
    std::fs::set_permissions(to, mode).expect("changed");
}

impl Rig {
    /// No retries: what a run could not store is there when it is killed.
    async fn doomed() -> Rig {
        let rig = Rig::new().await;
        rig.fs.stopping.store(true, Ordering::Relaxed);
        rig
    }

    /// The next run, on what the stage held at this moment.
    pub(super) async fn killed(self) -> (Rig, Recovery) {
        let (rig, leftovers) = self.killed_leaving();
        let recovery = rig.fs.take_in_leftovers(leftovers).await;
        (rig, recovery)
    }

    fn killed_leaving(self) -> (Rig, Vec<Leftover>) {
        self.killed_before(settings())
    }

    /// As above; the next run has these settings.
    fn killed_before(self, settings: FsSettings) -> (Rig, Vec<Leftover>) {
        let root = tempfile::tempdir().expect("a folder");
        copy_tree(self._root.path(), root.path());
        let store = self.store.clone();
        drop(self);
        let (stage, leftovers) = Stage::open(root.path(), "test").expect("a stage");
        let runtime = tokio::runtime::Handle::current();
        let fs = Filesystem::new(settings, DirPrefix::normalize("p"), store.clone(), stage, runtime);
        (Rig { fs, store, _root: root }, leftovers)
    }

    /// Recovers, and waits until nothing is under way any more.
    pub(super) async fn recover(&self, recovery: Recovery) {
        self.fs.recover(recovery);
        while !self.is_settled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Dead sessions are let go when all that was taken in is stored or kept.
    fn is_settled(&self) -> bool {
        remaining(self._root.path(), None).expect("looked").iter().all(|source| source.live.len() == 1)
    }

    fn left(&self) -> Vec<Leftover> {
        remaining(self._root.path(), None).expect("looked").into_iter().flat_map(|source| source.leftovers).collect()
    }

    /// Closes a file while S3 fails, so that only the stage has it.
    async fn put_in_vain(&self, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
        let (ino, fh) = self.create(parent, name).await;
        self.fs.write(fh, 0, bytes).await.expect("a write");
        self.close_in_vain(fh).await;
        ino
    }

    async fn close_in_vain(&self, fh: Fh) {
        self.store.next(Call::Put, Fault::Fail(down()));
        self.store.next(Call::Put, Fault::Fail(down()));
        assert!(self.close(fh).await.is_err(), "the close said that it was stored");
    }
}

#[tokio::test]
async fn a_closed_file_is_there_before_the_first_operation_and_stored_by_the_next_run() {
    let rig = Rig::doomed().await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    rig.put_in_vain(dir, "f", b"hello").await;
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (1, 0));
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let ino = rig.ino(dir, "f").await.expect("there from the first operation");
    assert_eq!(rig.read(ino).await.expect("read"), b"hello");
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/d/f").as_deref(), Some(&b"hello"[..]));
    assert_eq!(rig.fs.getattr(ino).await.expect("attributes").ownership.mode & 0o777, 0o640);
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn what_stays_in_the_stage_survives_a_loss_of_power() {
    let rig = Rig::doomed().await;
    let synced = || {
        let files = std::fs::read_dir(rig.fs.stage.dir()).expect("readable").map(|file| file.expect("a file").path());
        let records = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let texts = records.map(|path| String::from_utf8_lossy(&std::fs::read(path).expect("readable")).into_owned());
        texts.filter(|text| text.contains("\"synced\":true")).count()
    };
    rig.put_in_vain(Ino::ROOT, "refused", b"hello").await;
    assert_eq!(synced(), 1, "a failed commit left bytes that are not safe on the disk");
    let (_, fh) = rig.create(Ino::ROOT, "open").await;
    rig.fs.write(fh, 0, b"half").await.expect("a write");
    rig.store.next(Call::Put, Fault::Hang);
    let drained = rig.fs.drain(Duration::from_millis(50), Holders::Possible).await;
    assert_eq!((drained.left.len(), drained.open.len(), synced()), (1, 1, 2));
}

#[tokio::test]
async fn what_was_not_stored_at_the_end_of_a_mount_is_found_by_the_next() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "closed", b"hello").await;
    let (_, fh) = rig.create(Ino::ROOT, "open").await;
    rig.fs.write(fh, 0, b"half").await.expect("a write");
    rig.store.next(Call::Put, Fault::Fail(down()));
    let drained = rig.fs.drain(Duration::from_secs(30), Holders::Possible).await;
    assert_eq!((drained.left.len(), drained.open.len()), (1, 1));
    let Rig { fs, store: _, _root: root } = rig;
    drop(fs);
    let sources = remaining(root.path(), None).expect("looked");
    let mut kept: Vec<_> = sources.iter().flat_map(|source| &source.leftovers).collect();
    kept.sort_by_key(|left| left.size);
    let bytes: Vec<_> = kept.iter().map(|left| std::fs::read(&left.file).expect("readable")).collect();
    assert_eq!(bytes, [&b"half"[..], b"hello"]);
}

#[tokio::test]
async fn a_file_that_was_open_is_kept_and_not_published() {
    let rig = Rig::doomed().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"half").await.expect("a write");
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (0, 1));
    assert!(recovery.kept()[0].why.contains("still open"), "{:?}", recovery.kept());
    rig.recover(recovery).await;
    assert_eq!((rig.object("p/f"), rig.left().len()), (None, 1));
}

#[tokio::test]
async fn what_was_synced_is_stored_and_what_was_written_after_it_is_kept() {
    let rig = Rig::doomed().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"synced").await.expect("a write");
    rig.fs.fsync(fh).await.expect("an fsync");
    rig.fs.write(fh, 6, b" and more").await.expect("a write");
    let (rig, recovery) = rig.killed().await;
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"synced"[..]));
    assert!(!rig.left()[0].sealed);
}

#[tokio::test]
async fn a_file_written_again_after_its_commit_failed_is_not_published_half_way() {
    let rig = Rig::doomed().await;
    let ino = rig.put_in_vain(Ino::ROOT, "f", b"whole").await;
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"ha").await.expect("a write");
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (0, 1));
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/f"), None);
}

#[tokio::test]
async fn an_upload_that_lost_its_reply_is_known_again() {
    for replaces in [false, true] {
        let rig = Rig::doomed().await;
        let fh = if replaces {
            rig.store.set("p/f", "old");
            let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
            rig.open(ino, WRITE).await
        } else {
            rig.create(Ino::ROOT, "f").await.1
        };
        rig.fs.write(fh, 0, b"hello").await.expect("a write");
        rig.store.next(Call::Put, Fault::DoneBut(down()));
        assert!(rig.fs.flush(fh).await.is_err());
        assert_eq!(rig.object("p/f").as_deref(), Some(&b"hello"[..]));
        let (rig, recovery) = rig.killed().await;
        rig.recover(recovery).await;
        assert!(rig.left().is_empty(), "our own upload was taken for another writer's");
        assert_eq!(rig.object("p/f").as_deref(), Some(&b"hello"[..]));
    }
}

/// A whole file in the stage, with the number as its name and content.
fn leave(rig: &Rig, number: usize) {
    let staged = rig.fs.stage.new_file().expect("a staged file");
    staged.write_at(0, number.to_string().as_bytes()).expect("written");
    let record = Record {
        key: ObjectKey::from_store(format!("p/{number}")),
        base: None,
        expect: Expect::Absent,
        state: RecordState::Sealed,
        size: staged.size(),
        attributes: RecordAttributes::default(),
        upload_id: None,
        upload_mark: None,
        away: Vec::new(),
    };
    staged.record(&record).expect("recorded");
    staged.keep();
}

#[tokio::test]
async fn more_files_than_are_taken_in_at_once_are_stored_too() {
    let rig = Rig::doomed().await;
    let files = 0..AT_ONCE + 3;
    files.clone().for_each(|number| leave(&rig, number));
    let (rig, recovery) = rig.killed().await;
    assert_eq!((recovery.pending(), recovery.kept().len()), (AT_ONCE + 3, 0));
    rig.recover(recovery).await;
    for number in files {
        assert_eq!(rig.object(&format!("p/{number}")), Some(number.to_string().into_bytes()));
    }
    assert!(rig.left().is_empty());
}

/// The last ones are taken in while programs work already, and have perhaps stored something else.
#[tokio::test]
async fn what_was_stored_since_is_not_overwritten_by_a_file_that_is_taken_in_late() {
    let rig = Rig::doomed().await;
    (0..AT_ONCE + 1).for_each(|number| leave(&rig, number));
    let (rig, leftovers) = rig.killed_before(FsSettings { conflict: ConflictPolicy::Overwrite, ..settings() });
    let recovery = rig.fs.take_in_leftovers(leftovers).await;
    (0..AT_ONCE + 1).for_each(|number| _ = rig.store.set(&format!("p/{number}"), "new"));
    rig.recover(recovery).await;
    let kept = (0..AT_ONCE + 1).filter(|number| rig.object(&format!("p/{number}")).as_deref() == Some(b"new"));
    assert_eq!((kept.count(), rig.left().len()), (1, 1));
}

#[tokio::test]
async fn holes_are_filled_from_the_version_that_was_changed() {
    let rig = Rig::doomed().await;
    rig.store.set("p/f", vec![b'x'; 3 << 20]);
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 1 << 20, b"YYY").await.expect("a write");
    (0..40).for_each(|_| rig.store.next(Call::Get, Fault::Fail(Error::AccessDenied("test".into()))));
    rig.close_in_vain(fh).await;
    let (rig, recovery) = rig.killed().await;
    assert_eq!(recovery.pending(), 1);
    rig.store.clear_faults();
    rig.recover(recovery).await;
    let mut wanted = vec![b'x'; 3 << 20];
    wanted[1 << 20..][..3].copy_from_slice(b"YYY");
    assert!(rig.object("p/f") == Some(wanted));
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn a_renamed_draft_is_recovered_under_its_new_name() {
    let rig = Rig::doomed().await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    rig.put_in_vain(dir, "old", b"hello").await;
    rig.fs.rename(dir, b"old", dir, b"new", RenameMode::Replace).await.expect("renamed");
    let (_, open) = rig.create(dir, "open").await;
    rig.fs.write(open, 0, b"half").await.expect("a write");
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("renamed");
    let (rig, recovery) = rig.killed().await;
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/e/new").as_deref(), Some(&b"hello"[..]));
    assert_eq!(rig.store.keys(), ["p/e/", "p/e/new"]);
    let keys: Vec<_> = rig.left().into_iter().map(|left| left.key).collect();
    assert_eq!(keys, [Some(ObjectKey::from_store("p/e/open"))]);
}

#[tokio::test]
async fn a_draft_renamed_with_its_object_is_based_on_the_moved_one() {
    let rig = Rig::doomed().await;
    rig.store.set("p/old", "old");
    let ino = rig.ino(Ino::ROOT, "old").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.close_in_vain(fh).await;
    rig.fs.rename(Ino::ROOT, b"old", Ino::ROOT, b"new", RenameMode::Replace).await.expect("renamed");
    let (rig, recovery) = rig.killed().await;
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/new").as_deref(), Some(&b"new"[..]));
    assert_eq!((rig.store.keys(), rig.left().len()), (vec!["p/new".to_owned()], 0));
}

#[tokio::test]
async fn an_unlinked_draft_is_not_found_again() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "gone", b"hello").await;
    rig.put_in_vain(Ino::ROOT, "replaced", b"hello").await;
    let (_, open) = rig.create(Ino::ROOT, "open").await;
    rig.fs.write(open, 0, b"half").await.expect("a write");
    rig.fs.unlink(Ino::ROOT, b"gone").await.expect("unlinked");
    rig.fs.unlink(Ino::ROOT, b"open").await.expect("unlinked");
    rig.put_in_vain(Ino::ROOT, "new", b"new").await;
    rig.fs.rename(Ino::ROOT, b"new", Ino::ROOT, b"replaced", RenameMode::Replace).await.expect("renamed");
    let (rig, recovery) = rig.killed().await;
    rig.recover(recovery).await;
    assert_eq!((rig.store.keys(), rig.left().len()), (vec!["p/replaced".to_owned()], 0));
    assert_eq!(rig.object("p/replaced").as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn a_file_that_can_not_be_stored_yet_is_tried_again() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "f", b"hello").await;
    let (rig, recovery) = rig.killed().await;
    rig.store.next(Call::Put, Fault::Fail(down()));
    rig.recover(recovery).await;
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn what_is_written_here_meanwhile_is_the_programs_own() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "f", b"hello").await;
    let (rig, recovery) = rig.killed().await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 5, b" world").await.expect("a write");
    rig.fs.recover(recovery);
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"hello world"[..]));
}

#[tokio::test]
async fn a_read_only_mount_stores_nothing() {
    let rig = Rig::doomed().await;
    rig.put_in_vain(Ino::ROOT, "f", b"hello").await;
    let (rig, leftovers) = rig.killed_leaving();
    let recovery = Recovery::nothing_of(leftovers);
    assert_eq!((recovery.pending(), recovery.kept().len()), (0, 1));
    rig.recover(recovery).await;
    assert_eq!((rig.object("p/f"), rig.left().len()), (None, 1));
}

#[tokio::test]
async fn an_upload_that_a_killed_run_had_begun_is_aborted() {
    let rig = Rig::doomed().await;
    let closed = rig.put_in_vain(Ino::ROOT, "closed", b"hello").await;
    let (open, fh) = rig.create(Ino::ROOT, "open").await;
    rig.fs.write(fh, 0, b"half").await.expect("a write");
    for (ino, key) in [(closed, "p/closed"), (open, "p/open")] {
        let key = ObjectKey::from_store(key);
        let upload = rig.store.create_upload(&key, &Attributes::default(), PartSource::Bodies).await.expect("begun");
        let inode = rig.fs.table.get_plain(ino).expect("an inode");
        let staged = inode.lock().file().expect("a file").staged().expect("staged").clone();
        staged.note_upload(Some(NotedUpload { id: upload, mark: None })).expect("noted");
    }
    let another = ObjectKey::from_store("p/another");
    rig.store.create_upload(&another, &Attributes::default(), PartSource::Bodies).await.expect("begun");
    let (rig, recovery) = rig.killed().await;
    assert_eq!(rig.store.open_uploads(), 3);
    rig.recover(recovery).await;
    assert_eq!(rig.store.open_uploads(), 1, "another client's upload stays, and ours don't");
    assert_eq!(rig.object("p/closed").as_deref(), Some(&b"hello"[..]));
    assert!(rig.left().iter().all(|left| left.record.as_ref().is_ok_and(|record| record.upload_id.is_none())));
}

/// A second signal ends the wait, and with it everything that holds the file.
#[test]
fn what_is_dirty_outlives_an_end_that_is_cut_short() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let root = runtime.block_on(async {
        let rig = Rig::doomed().await;
        rig.put_in_vain(Ino::ROOT, "f", b"hello").await;
        rig.store.clear_faults();
        rig.store.next(Call::Put, Fault::Hang);
        let before = rig.store.count(Call::Put);
        let fs = rig.fs.clone();
        tokio::spawn(async move { fs.drain(Duration::from_secs(30), Holders::None).await });
        until("it is tried", || rig.store.count(Call::Put) > before).await;
        rig._root
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    let left = remaining(root.path(), None).expect("looked").pop().expect("a source").leftovers;
    assert_eq!(left.len(), 1, "the bytes are gone");
    assert_eq!(left[0].whole().map(|record| record.key.as_str()), Ok("p/f"));
}
