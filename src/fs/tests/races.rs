//! Answers that get lost, come late or meet a change made meanwhile.

use std::sync::Arc;

use tokio::sync::Notify;

use super::*;
use crate::error::Error;
use crate::fs::change::replace_draft;
use crate::fs::{RenameMode, SetAttributes};
use crate::inode::{Draft, FileState, Origin, OwnershipChange};
use crate::store::Attributes;
use crate::transfer::tests::fake::{Call, Fault};

fn lost() -> Error {
    Error::Timeout("test".into())
}

/// An operation whose next `call` was done and waits for its answer.
pub(super) async fn under_way<T: Send + 'static>(
    rig: &Rig,
    call: Call,
    operation: impl Future<Output = T> + Send + 'static,
) -> (tokio::task::JoinHandle<T>, Arc<Notify>) {
    let word = Arc::new(Notify::new());
    let before = rig.store.count(call);
    rig.store.next(call, Fault::Late(word.clone()));
    let task = tokio::spawn(operation);
    let called = async {
        while rig.store.count(call) == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), called).await.expect("the call");
    (task, word)
}

#[tokio::test]
async fn a_rename_whose_delete_was_done_but_not_answered_loses_nothing() {
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "a", b"bytes").await;
    rig.store.next(Call::Delete, Fault::DoneBut(lost()));
    rig.fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::Replace).await.expect("it was done");
    assert_eq!(rig.store.keys(), ["p/b"]);
    assert_eq!(rig.read(ino).await.expect("a read"), b"bytes");

    assert!(rig.ino(Ino::ROOT, "c").await.is_err());
    rig.store.next(Call::Delete, Fault::DoneBut(lost()));
    rig.store.next(Call::Head, Fault::Fail(lost()));
    assert!(rig.fs.rename(Ino::ROOT, b"b", Ino::ROOT, b"c", RenameMode::Replace).await.is_err());
    assert_eq!(rig.store.keys(), ["p/c"], "the only copy left was taken back");
    let found = rig.ino(Ino::ROOT, "c").await.expect("it is there");
    assert_eq!(rig.read(found).await.expect("a read"), b"bytes");
}

/// Else what replaces the file would be refused where another client changed it too.
#[tokio::test]
async fn a_truncating_open_that_meets_a_commit_waits_for_it() {
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "f", b"old").await;
    let fh = rig.open(ino, WRITE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    let inode = rig.fs.table.get_plain(ino).expect("an inode");
    let owned = inode.own().await.expect("the draft");
    assert!(!replace_draft(&inode).expect("a file"), "a draft that is being committed was replaced");
    drop(owned);
    assert!(replace_draft(&inode).expect("a file"));
    assert!(matches!(inode.lock().file(), Ok(FileState::Dirty(Draft { origin: Origin::Replaced(Some(_)), .. }))));
}

#[tokio::test]
async fn an_answer_that_a_commit_has_overtaken_is_not_believed() {
    let rig = Rig::with(no_cache()).await;
    let ino = rig.put(Ino::ROOT, "f", b"one").await;
    let writer = rig.open(ino, WRITE).await;
    let fs = rig.fs.clone();
    let (stat, word) = under_way(&rig, Call::Head, async move { fs.getattr(ino).await }).await;
    rig.fs.write(writer, 3, b" two").await.expect("a write");
    rig.fs.flush(writer).await.expect("a flush");
    word.notify_one();
    assert_eq!(stat.await.expect("a task").expect("attributes").size, 7, "the past was shown");
    assert_eq!(&rig.fs.read(writer, 0, 9).await.expect("one's own bytes")[..], b"one two");
    rig.fs.write(writer, 7, b" three").await.expect("a write");
    rig.close(writer).await.expect("no conflict with oneself");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"one two three"[..]));
}

#[tokio::test]
async fn a_file_made_again_meanwhile_is_not_taken_for_gone() {
    let rig = Rig::with(no_cache()).await;
    let ino = rig.put(Ino::ROOT, "f", b"one").await;
    let writer = rig.open(ino, WRITE).await;
    rig.store.remove("p/f");
    let fs = rig.fs.clone();
    let (stat, word) = under_way(&rig, Call::Head, async move { fs.getattr(ino).await }).await;
    rig.store.set("p/f", "theirs");
    rig.fs.write(writer, 0, b"mine").await.expect("a write");
    word.notify_one();
    assert!(stat.await.expect("a task").is_ok(), "a file being written went away");
    assert!(matches!(rig.close(writer).await, Err(Error::Stale)), "a conflict was called a success");
}

#[tokio::test]
async fn a_directory_that_others_emptied_stays_while_a_file_is_being_written_in_it() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/d/old", "x");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let (_, fh) = rig.create(dir, "new").await;
    rig.fs.write(fh, 0, b"bytes").await.expect("a write");
    rig.store.remove("p/d/old");
    rig.fs.getattr(dir).await.expect("it has a file");
    assert_eq!(rig.ino(Ino::ROOT, "d").await.expect("it has a file"), dir);
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/d/new").as_deref(), Some(&b"bytes"[..]));
}

#[tokio::test]
async fn a_reader_waits_for_a_rename_between_its_copy_and_its_end() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/f", "bytes");
    rig.store.set("p/d/f", "below");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let below = rig.ino(dir, "f").await.expect("a file");
    for (file, from, bytes) in [(ino, "f", "bytes"), (below, "d", "below")] {
        // For writing only: no bytes come with the open.
        let reader = rig.open(file, OpenIntent { access: Access::Write, ..READ }).await;
        let (fs, to) = (rig.fs.clone(), format!("{from}2"));
        let renaming =
            async move { fs.rename(Ino::ROOT, from.as_bytes(), Ino::ROOT, to.as_bytes(), RenameMode::Replace).await };
        let (rename, word) = under_way(&rig, Call::Delete, renaming).await;
        let fs = rig.fs.clone();
        let read = tokio::spawn(async move { fs.read(reader, 0, 9).await });
        while rig.store.count(Call::Get) == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        word.notify_one();
        rename.await.expect("a task").expect("a rename");
        let read = read.await.expect("a task").expect("a file that is being renamed can be read");
        assert_eq!(&read[..], bytes.as_bytes());
        rig.store.take_calls();
    }
}

#[tokio::test]
async fn an_open_that_meets_an_unlink_waits_for_its_end() {
    let rig = Rig::new().await;
    rig.store.set("p/f", "bytes");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fs = rig.fs.clone();
    let unlinking = async move { fs.unlink(Ino::ROOT, b"f").await };
    let (unlink, word) = under_way(&rig, Call::Delete, unlinking).await;
    let fs = rig.fs.clone();
    let open = tokio::spawn(async move { fs.open(ino, READ).await });
    tokio::task::yield_now().await;
    word.notify_one();
    unlink.await.expect("a task").expect("an unlink");
    assert!(open.await.expect("a task").is_err(), "a file without bytes was opened");
}

#[tokio::test]
async fn an_append_goes_to_the_end_that_another_writer_has_moved() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/log", "one\n");
    let ino = rig.ino(Ino::ROOT, "log").await.expect("a file");
    rig.store.set("p/log", "one\ntwo\n");
    let append = OpenIntent { append: true, ..WRITE };
    let refused = rig.fs.open(ino, append).await;
    assert!(matches!(refused, Err(Error::Stale)), "the kernel would write over what another writer has added");
    assert_eq!(rig.fs.lookup(Ino::ROOT, b"log").await.expect("the kernel's second try").attr.size, 8);
    let fh = rig.open(ino, append).await;
    rig.fs.write(fh, 8, b"three\n").await.expect("a write");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/log").as_deref(), Some(&b"one\ntwo\nthree\n"[..]));
    let made = rig.fs.create(Ino::ROOT, b"log", CREATION, append).await.expect("its answer tells the size");
    assert_eq!(made.entry.attr.size, 14);
}

#[tokio::test]
async fn a_handle_neither_reads_nor_changes_what_another_writer_put_in_the_place_of_its_file() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/f", "ours");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let old = rig.open(ino, WRITE).await;
    rig.store.set("p/f", "theirs");
    rig.fs.getattr(ino).await.expect("attributes");
    assert!(
        matches!(rig.fs.write(old, 0, b"x").await, Err(Error::Stale)),
        "a change of another file than the one opened"
    );
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let new = rig.open(ino, WRITE).await;
    rig.fs.write(new, 0, b"T").await.expect("a write");
    assert!(matches!(rig.fs.read(old, 0, 9).await, Err(Error::Stale)), "two versions were mixed");
    rig.close(new).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"Theirs"[..]));
}

/// A file whose upload was done but not answered.
async fn made_without_an_answer(rig: &Rig, name: &str) -> Fh {
    let (_, fh) = rig.create(Ino::ROOT, name).await;
    rig.fs.write(fh, 0, b"one").await.expect("a write");
    rig.store.next(Call::Put, Fault::DoneBut(lost()));
    assert!(rig.fs.flush(fh).await.is_err());
    fh
}

#[tokio::test]
async fn bytes_written_after_an_upload_without_an_answer_are_no_conflict_with_it() {
    let rig = Rig::new().await;
    let fh = made_without_an_answer(&rig, "f").await;
    rig.fs.write(fh, 3, b" two").await.expect("a write");
    rig.store.next(Call::Put, Fault::Fail(lost()));
    assert!(rig.fs.flush(fh).await.is_err());
    rig.fs.write(fh, 7, b" three").await.expect("a write");
    rig.close(fh).await.expect("what is there is one's own");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"one two three"[..]));

    let fh = made_without_an_answer(&rig, "g").await;
    rig.store.set("p/g", "theirs");
    rig.fs.write(fh, 3, b" two").await.expect("a write");
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    assert_eq!(rig.object("p/g").as_deref(), Some(&b"theirs"[..]), "another writer's object was overwritten");
}

#[tokio::test]
async fn what_an_upload_without_an_answer_made_goes_with_its_name() {
    let rig = Rig::new().await;
    let fh = made_without_an_answer(&rig, "f").await;
    rig.fs.unlink(Ino::ROOT, b"f").await.expect("an unlink");
    assert_eq!(rig.store.keys(), Vec::<String>::new(), "an unlinked file came back");
    rig.close(fh).await.expect("nothing to commit");

    let fh = made_without_an_answer(&rig, "a").await;
    rig.fs.write(fh, 3, b" two").await.expect("a write");
    rig.fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::Replace).await.expect("a rename");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.keys(), ["p/b"], "a renamed file stayed");
    assert_eq!(rig.object("p/b").as_deref(), Some(&b"one two"[..]));
}

#[tokio::test]
async fn names_that_go_while_a_directory_is_read_do_not_end_it() {
    let rig = Rig::with(no_cache()).await;
    for index in 0..400 {
        rig.store.set(&format!("p/{index:03}"), "x");
    }
    let fh = rig.fs.opendir(Ino::ROOT).expect("an opendir").fh;
    let (mut seen, mut offset) = (0, 0);
    loop {
        let entries = rig.fs.readdir(fh, offset, true).await.expect("a readdir");
        let Some(last) = entries.last() else { break };
        (seen, offset) = (seen + entries.len(), last.next);
        (100..390).for_each(|index| rig.store.remove(&format!("p/{index:03}")));
    }
    // Both dots, and what comes before and after those that went: more than one answer holds.
    assert_eq!((seen, offset), (2 + 100 + 10, 402));
}

#[tokio::test]
async fn an_unlinked_file_that_waits_moves_no_other_name_in_a_listing() {
    let rig = Rig::new().await;
    for index in 1..2500 {
        rig.store.set(&format!("p/{index:04}"), "x");
    }
    rig.store.set("p/0000", vec![b'x'; (64 << 20) + 1]);
    let ino = rig.ino(Ino::ROOT, "0000").await.expect("a file");
    let _open = rig.open(ino, READ).await;
    rig.fs.unlink(Ino::ROOT, b"0000").await.expect("an unlink");
    let expected: Vec<String> = (1..2500).map(|index| format!("{index:04}")).collect();
    assert_eq!(rig.names(Ino::ROOT).await, expected);
}

#[tokio::test]
async fn an_unlinked_file_that_waits_goes_with_its_directory_and_stays_readable() {
    let rig = Rig::with(no_cache()).await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    for (parent, key, name) in [(dir, "p/d/f", "f"), (Ino::ROOT, "p/g", "g")] {
        rig.store.set(key, vec![b'x'; (64 << 20) + 1]);
        let ino = rig.ino(parent, name).await.expect("a file");
        let fh = rig.open(ino, READ).await;
        rig.fs.unlink(parent, name.as_bytes()).await.expect("an unlink");
        assert!(rig.object(key).is_some(), "it does not wait");
        match parent == dir {
            true => rig.fs.rmdir(Ino::ROOT, b"d").await.expect("an rmdir"),
            false => drop(rig.mkdir(Ino::ROOT, "g").await),
        }
        rig.fs.forget(dir, 1);
        assert_eq!(&rig.fs.read(fh, 64 << 20, 9).await.expect("a read")[..], b"x");
        rig.fs.release(fh).await.expect("a release");
    }
    assert_eq!(rig.store.keys(), ["p/g/"], "an unlinked file came back");
}

#[tokio::test]
async fn a_new_file_takes_over_nothing_of_the_object_that_it_replaces() {
    let rig = Rig::new().await;
    let encoded = Attributes { content_encoding: Some("gzip".into()), ..Attributes::default() };
    rig.store.set_with("p/f", "encoded".into(), &encoded, std::time::SystemTime::now());
    let (_, fh) = rig.create(Ino::ROOT, "f.tmp").await;
    rig.fs.write(fh, 0, b"plain").await.expect("a write");
    rig.fs.rename(Ino::ROOT, b"f.tmp", Ino::ROOT, b"f", RenameMode::Replace).await.expect("a rename");
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"plain"[..]));
    assert_eq!(rig.store.attributes("p/f").expect("it is there").content_encoding, None);
}

/// Its bytes were not brought here, for nobody had it open: the kernel looks the name up again.
#[tokio::test]
async fn an_open_whose_file_is_replaced_while_s3_is_asked_is_tried_again() {
    for wait in [false, true] {
        let rig = Rig::with(no_cache()).await;
        rig.put(Ino::ROOT, "new", b"new").await;
        rig.store.set("p/f", "old");
        let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
        let fs = rig.fs.clone();
        let (open, asked) = under_way(&rig, Call::Get, async move { fs.open(ino, READ).await }).await;
        let fs = rig.fs.clone();
        let rename = async move { fs.rename(Ino::ROOT, b"new", Ino::ROOT, b"f", RenameMode::Replace).await };
        let (rename, moved) = under_way(&rig, Call::Delete, rename).await;
        if wait {
            asked.notify_one();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert!(!open.is_finished(), "a file was opened while its bytes went: {:?}", open.await);
        }
        moved.notify_one();
        rename.await.expect("a task").expect("a rename");
        asked.notify_one();
        let opened = open.await.expect("a task");
        assert!(matches!(opened, Err(Error::Stale)), "{opened:?}");
        let ino = rig.ino(Ino::ROOT, "f").await.expect("the kernel's second try");
        assert_eq!(rig.read(ino).await.expect("a read"), b"new");
    }
}

/// The first open drops the kernel's pages only after its answer: the second may be answered before that.
#[tokio::test]
async fn the_kernel_keeps_no_pages_before_a_read_has_brought_new_ones() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/f", "one");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    rig.read(ino).await.expect("a read");
    let again = rig.fs.open(ino, READ).await.expect("an open");
    assert!(again.keep_cache);
    rig.fs.release(again.fh).await.expect("a release");
    rig.store.set("p/f", "two");
    rig.ino(Ino::ROOT, "f").await.expect("another version");
    let (first, second) =
        (rig.fs.open(ino, READ).await.expect("an open"), rig.fs.open(ino, READ).await.expect("an open"));
    assert!(!first.keep_cache && !second.keep_cache);
    rig.fs.read(second.fh, 0, 9).await.expect("a read");
    assert!(rig.fs.open(ino, READ).await.expect("an open").keep_cache);
}

#[tokio::test]
async fn an_old_answer_does_not_undo_the_mode_of_a_directory() {
    let rig = Rig::with(no_cache()).await;
    let old =
        Attributes { metadata: [("file-permissions".to_owned(), "0755".to_owned())].into(), ..Attributes::default() };
    rig.store.set_with("p/d/", "".into(), &old, std::time::SystemTime::now());
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let fs = rig.fs.clone();
    let (getattr, word) = under_way(&rig, Call::Head, async move { fs.getattr(dir).await }).await;
    let mode = OwnershipChange { mode: Some(0o700), ..OwnershipChange::default() };
    rig.fs.setattr(dir, SetAttributes { ownership: mode, ..SetAttributes::default() }).await.expect("a chmod");
    word.notify_one();
    assert_eq!(getattr.await.expect("a task").expect("a getattr").ownership.mode, 0o700);
}

#[tokio::test]
async fn a_lookup_is_not_asked_again_because_other_names_change_and_finds_nothing_that_went() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/f", "x");
    for (name, goes) in [("other", false), ("f", true)] {
        rig.put(Ino::ROOT, "other", b"x").await;
        let before = rig.store.count(Call::Head);
        let fs = rig.fs.clone();
        let (lookup, word) = under_way(&rig, Call::Head, async move { fs.lookup(Ino::ROOT, b"f").await }).await;
        rig.fs.unlink(Ino::ROOT, name.as_bytes()).await.expect("an unlink");
        let asked = rig.store.count(Call::Head) - before;
        word.notify_one();
        let found = lookup.await.expect("a task");
        assert_eq!(matches!(found, Err(Error::NotFound)), goes, "{found:?}");
        assert_eq!(rig.store.count(Call::Head) - before > asked, goes);
    }
}

/// Else a close would say that all is well before anything is stored.
#[tokio::test]
async fn what_is_written_while_a_truncating_open_cuts_the_file_is_stored_by_the_next_flush() {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"bytes").await.expect("a write");
    let inode = rig.fs.table.get_plain(ino).expect("an inode");
    assert!(replace_draft(&inode).expect("a file"));
    rig.fs.flush(fh).await.expect("a flush");
    assert_eq!(rig.object("p/f").as_deref(), Some(&b"bytes"[..]));
}

/// No open has dropped them, and what is cut off by name leaves those before it.
#[tokio::test]
async fn the_kernel_keeps_no_pages_of_before_when_a_file_is_cut_by_its_name() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/f", "one");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    rig.read(ino).await.expect("a read");
    rig.store.set("p/f", "two");
    rig.fs.setattr(ino, SetAttributes { size: Some(2), ..SetAttributes::default() }).await.expect("a truncate");
    rig.ino(Ino::ROOT, "f").await.expect("its new size");
    assert!(!rig.fs.open(ino, READ).await.expect("an open").keep_cache);
}
