//! Names: lookups and their cost, listings, removal, renames.

use super::races::under_way;
use super::*;
use crate::error::Error;
use crate::fs::RenameMode;
use crate::store::Attributes;
use crate::transfer::tests::fake::{Call, Fault};

#[tokio::test]
async fn a_miss_costs_two_requests_once() {
    let rig = Rig::new().await;
    assert!(matches!(rig.ino(Ino::ROOT, "nothing").await, Err(Error::NotFound)));
    let mut calls = rig.store.take_calls();
    calls.sort_by_key(|call| format!("{call:?}"));
    assert_eq!(calls, [Call::Head, Call::List]);
    assert!(rig.ino(Ino::ROOT, "nothing").await.is_err());
    assert_eq!(rig.store.take_calls(), []);
}

#[tokio::test]
async fn a_directory_wins_over_a_file_of_its_name_and_the_file_is_counted() {
    let rig = Rig::new().await;
    rig.store.set("p/a", "file");
    rig.store.set("p/a/b", "below");
    let entry = rig.fs.lookup(Ino::ROOT, b"a").await.expect("a directory");
    assert_eq!(entry.attr.kind, crate::inode::Kind::Dir);
    assert_eq!(rig.names(Ino::ROOT).await, ["a"]);
    assert!(rig.fs.hidden_keys() > 0);
    assert_eq!(rig.object("p/a").as_deref(), Some(&b"file"[..]));
}

#[tokio::test]
async fn names_that_keys_cannot_have_are_refused() {
    let rig = Rig::new().await;
    assert!(matches!(rig.fs.lookup(Ino::ROOT, b"\xff").await, Err(Error::NotUtf8)));
    let long = "x".repeat(256);
    assert!(matches!(rig.ino(Ino::ROOT, &long).await, Err(Error::NameTooLong)));
    let mut dir = Ino::ROOT;
    for _ in 0..4 {
        dir = rig.mkdir(dir, &"d".repeat(250)).await;
    }
    let made = rig.fs.create(dir, "f".repeat(100).as_bytes(), CREATION, WRITE).await;
    assert!(matches!(made, Err(Error::NameTooLong)));
}

#[tokio::test]
async fn a_listing_shows_what_is_only_here_and_answers_lookups() {
    let rig = Rig::new().await;
    for index in 0..1500 {
        rig.store.set(&format!("p/d/{index:04}"), "x");
    }
    rig.store.set("p/d/sub/x", "x");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let (_, open) = rig.create(dir, "draft").await;
    rig.store.take_calls();
    let names = rig.names(dir).await;
    assert_eq!(names.len(), 1502);
    assert!(names.contains(&"draft".to_owned()) && names.contains(&"sub".to_owned()));
    assert_eq!(rig.store.take_calls(), [Call::List, Call::List]);
    assert!(rig.ino(dir, "missing").await.is_err());
    assert_eq!(rig.store.take_calls(), [], "a fresh listing did not answer for a miss");
    rig.close(open).await.expect("a close");
    assert!(rig.ino(dir, "draft").await.is_ok());
}

#[tokio::test]
async fn a_file_committed_while_its_directory_is_listed_is_shown() {
    let rig = Rig::new().await;
    for index in 0..2500 {
        rig.store.set(&format!("p/d/{index:04}"), "x");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    let mut entries = rig.fs.readdir(fh, 0, false).await.expect("the first names");
    rig.put(dir, "0000-behind the listing", b"x").await;
    let mut shown = false;
    while let Some(last) = entries.last() {
        let next = last.next;
        shown |= entries.iter().any(|entry| entry.name.as_str() == "0000-behind the listing");
        entries = rig.fs.readdir(fh, next, false).await.expect("more names");
    }
    assert!(shown, "a file that was closed before the end of the listing is missing from it");
}

#[tokio::test]
async fn an_unlinked_file_is_readable_to_its_last_close() {
    let rig = Rig::new().await;
    rig.store.set("p/f", "bytes");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, READ).await;
    rig.fs.unlink(Ino::ROOT, b"f").await.expect("an unlink");
    assert_eq!(rig.object("p/f"), None);
    assert!(rig.ino(Ino::ROOT, "f").await.is_err());
    assert_eq!(&rig.fs.read(fh, 0, 9).await.expect("a read")[..], b"bytes");
    rig.fs.release(fh).await.expect("a release");
}

#[tokio::test]
async fn a_draft_is_unlinked_without_a_request() {
    let rig = Rig::new().await;
    let (_, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"x").await.expect("a write");
    rig.store.take_calls();
    rig.fs.unlink(Ino::ROOT, b"f").await.expect("an unlink");
    rig.close(fh).await.expect("nothing to commit");
    assert_eq!(rig.store.take_calls(), []);
    assert_eq!(rig.store.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn directories_are_markers_stay_when_emptied_and_go_by_rmdir() {
    let rig = Rig::new().await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    assert_eq!(rig.store.keys(), ["p/d/"]);
    assert!(matches!(rig.fs.mkdir(Ino::ROOT, b"d", CREATION).await, Err(Error::AlreadyExists)));
    rig.put(dir, "f", b"x").await;
    assert!(matches!(rig.fs.rmdir(Ino::ROOT, b"d").await, Err(Error::NotEmpty)));
    rig.fs.unlink(dir, b"f").await.expect("an unlink");
    rig.fs.rmdir(Ino::ROOT, b"d").await.expect("an rmdir");
    assert_eq!(rig.store.keys(), Vec::<String>::new());

    rig.store.set("p/implicit/f", "x");
    let dir = rig.ino(Ino::ROOT, "implicit").await.expect("a directory");
    rig.fs.unlink(dir, b"f").await.expect("an unlink");
    assert!(rig.ino(Ino::ROOT, "implicit").await.is_ok(), "a directory emptied here vanished");
    assert_eq!(rig.names(Ino::ROOT).await, ["implicit"]);
    rig.fs.rmdir(Ino::ROOT, b"implicit").await.expect("an rmdir");
    assert!(rig.ino(Ino::ROOT, "implicit").await.is_err());
}

#[tokio::test]
async fn a_mkdir_whose_reply_was_lost_made_the_directory() {
    let rig = Rig::new().await;
    rig.store.next(Call::Put, Fault::DoneBut(Error::PreconditionFailed));
    rig.mkdir(Ino::ROOT, "d").await;
    assert_eq!(rig.store.keys(), ["p/d/"]);
    assert!(rig.ino(Ino::ROOT, "e").await.is_err());
    rig.store.set("p/e/", "");
    assert!(matches!(rig.fs.mkdir(Ino::ROOT, b"e", CREATION).await, Err(Error::AlreadyExists)));
}

#[tokio::test]
async fn a_directory_with_an_uncommitted_file_or_hidden_keys_is_not_empty() {
    let rig = Rig::new().await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    let (_, _open) = rig.create(dir, "draft").await;
    assert!(matches!(rig.fs.rmdir(Ino::ROOT, b"d").await, Err(Error::NotEmpty)));
    rig.store.set("p/odd//x", "kept");
    assert!(matches!(rig.fs.rmdir(Ino::ROOT, b"odd").await, Err(Error::HiddenKeys(_))));
    let moved = rig.fs.rename(Ino::ROOT, b"odd", Ino::ROOT, b"even", RenameMode::Replace).await;
    assert!(matches!(moved, Err(Error::HiddenKeys(_))));
    assert!(rig.object("p/odd//x").is_some());
}

#[tokio::test]
async fn a_committed_file_is_renamed_by_copy_and_delete_and_a_draft_for_nothing() {
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "a", b"bytes").await;
    rig.store.set("p/b", "replaced");
    rig.fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::Replace).await.expect("a rename");
    assert_eq!(rig.store.keys(), ["p/b"]);
    assert_eq!(rig.ino(Ino::ROOT, "b").await.expect("the file"), ino);
    assert_eq!(rig.read(ino).await.expect("a read"), b"bytes");

    let (_, fh) = rig.create(Ino::ROOT, "c").await;
    rig.fs.write(fh, 0, b"draft").await.expect("a write");
    assert!(rig.ino(Ino::ROOT, "d").await.is_err());
    rig.store.take_calls();
    rig.fs.rename(Ino::ROOT, b"c", Ino::ROOT, b"d", RenameMode::NoReplace).await.expect("a rename");
    assert_eq!(rig.store.take_calls(), []);
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.object("p/d").as_deref(), Some(&b"draft"[..]));
    assert_eq!(rig.object("p/c"), None);
}

#[tokio::test]
async fn renames_keep_the_storage_class_and_ask_for_nothing_that_is_known() {
    let rig = Rig::new().await;
    let cold = Attributes { storage_class: Some("STANDARD_IA".into()), ..Attributes::default() };
    rig.store.set_with("p/a", "bytes".into(), &cold, std::time::SystemTime::now());
    rig.store.set_with("p/d/x", "bytes".into(), &cold, std::time::SystemTime::now());
    rig.ino(Ino::ROOT, "a").await.expect("a file");
    assert!(rig.ino(Ino::ROOT, "b").await.is_err());
    rig.store.take_calls();
    rig.fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::Replace).await.expect("a rename");
    assert_eq!(rig.store.take_calls(), [Call::Copy, Call::Delete]);
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    for key in ["p/b", "p/e/x"] {
        assert_eq!(rig.store.attributes(key).expect("it is there").storage_class, cold.storage_class, "{key}");
    }
}

#[tokio::test]
async fn a_rename_that_must_not_replace_does_not_even_what_came_meanwhile() {
    let rig = Rig::new().await;
    rig.put(Ino::ROOT, "a", b"bytes").await;
    rig.put(Ino::ROOT, "b", b"there").await;
    let refused = rig.fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::NoReplace).await;
    assert!(matches!(refused, Err(Error::AlreadyExists)));
    assert!(rig.ino(Ino::ROOT, "c").await.is_err());
    rig.store.set("p/c", "came meanwhile");
    let refused = rig.fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"c", RenameMode::NoReplace).await;
    assert!(matches!(refused, Err(Error::AlreadyExists)), "{refused:?}");
    assert_eq!(rig.object("p/c").as_deref(), Some(&b"came meanwhile"[..]));
    assert_eq!(rig.object("p/a").as_deref(), Some(&b"bytes"[..]));
}

#[tokio::test]
async fn a_bucket_that_renames_objects_is_asked_to_and_tells_a_name_in_use_from_a_change() {
    let rig = Rig::over(Arc::new(Fake::renaming()), no_cache());
    let ino = rig.put(Ino::ROOT, "a", b"bytes").await;
    rig.fs.rename(Ino::ROOT, b"a", Ino::ROOT, b"b", RenameMode::NoReplace).await.expect("a rename");
    assert_eq!((rig.store.keys(), rig.store.count(Call::Copy)), (vec!["p/b".to_owned()], 0));
    assert_eq!(rig.read(ino).await.expect("a read"), b"bytes");
    let (rename, word) = {
        let fs = rig.fs.clone();
        // The target is looked for, and is not there yet.
        let rename = async move { fs.rename(Ino::ROOT, b"b", Ino::ROOT, b"c", RenameMode::NoReplace).await };
        under_way(&rig, Call::List, rename).await
    };
    rig.store.set("p/c", "theirs");
    word.notify_one();
    let refused = rename.await.expect("a task");
    assert!(matches!(refused, Err(Error::AlreadyExists)), "{refused:?}");
    assert_eq!(rig.object("p/c").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn an_open_file_goes_on_working_when_its_name_is_replaced() {
    let rig = Rig::new().await;
    let old = rig.put(Ino::ROOT, "f", b"old").await;
    let reader = rig.open(old, READ).await;
    rig.put(Ino::ROOT, "f.tmp", b"new").await;
    rig.fs.rename(Ino::ROOT, b"f.tmp", Ino::ROOT, b"f", RenameMode::Replace).await.expect("a save by rename");
    assert_eq!(&rig.fs.read(reader, 0, 9).await.expect("a read")[..], b"old");
    let new = rig.ino(Ino::ROOT, "f").await.expect("the new file");
    assert_eq!(rig.read(new).await.expect("a read"), b"new");
}

#[tokio::test]
async fn a_directory_moves_with_everything_below_open_and_dirty_files_too() {
    let rig = Rig::new().await;
    rig.store.set("p/d/a", "a");
    rig.store.set("p/d/sub/b", "b");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let a = rig.ino(dir, "a").await.expect("a file");
    let writer = rig.open(a, WRITE).await;
    rig.fs.write(writer, 1, b"+").await.expect("a write");
    let (_, draft) = rig.create(dir, "draft").await;
    rig.fs.write(draft, 0, b"draft").await.expect("a write");
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    assert_eq!(rig.store.keys(), ["p/e/a", "p/e/sub/b"]);
    rig.close(writer).await.expect("a close");
    rig.close(draft).await.expect("a close");
    assert_eq!(rig.store.keys(), ["p/e/a", "p/e/draft", "p/e/sub/b"]);
    assert_eq!(rig.object("p/e/a").as_deref(), Some(&b"a+"[..]));
    assert!(rig.ino(Ino::ROOT, "d").await.is_err());
    assert_eq!(rig.names(dir).await, ["a", "draft", "sub"]);
}

#[tokio::test]
async fn a_directory_rename_that_fails_leaves_everything_as_it_was() {
    let rig = Rig::new().await;
    for name in ["a", "b", "c"] {
        rig.store.set(&format!("p/d/{name}"), name);
    }
    rig.store.next(Call::Copy, Fault::Fail(Error::AccessDenied("test".into())));
    let refused = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::AccessDenied(_))), "{refused:?}");
    assert_eq!(rig.store.keys(), ["p/d/a", "p/d/b", "p/d/c"]);
    rig.store.set("p/d/", "");
    rig.mkdir(Ino::ROOT, "empty").await;
    rig.store.next(Call::Copy, Fault::Fail(Error::AccessDenied("test".into())));
    let refused = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"empty", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::AccessDenied(_))), "{refused:?}");
    assert_eq!(rig.store.keys(), ["p/d/", "p/d/a", "p/d/b", "p/d/c", "p/empty/"]);
}

#[tokio::test]
async fn too_many_objects_and_moves_into_oneself_are_refused_before_anything_is_touched() {
    let rig = Rig::new().await;
    for index in 0..101 {
        rig.store.set(&format!("p/d/{index}"), "x");
    }
    let refused = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::CrossDevice)));
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let sub = rig.mkdir(dir, "sub").await;
    let refused = rig.fs.rename(Ino::ROOT, b"d", sub, b"d", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::IntoItself)));
    assert_eq!(rig.store.count(Call::Copy), 0);
}

#[tokio::test]
async fn a_directory_whose_name_is_too_long_for_an_open_file_below_is_not_moved() {
    let rig = Rig::new().await;
    let mut dir = rig.mkdir(Ino::ROOT, "d").await;
    for letter in ["x", "y", "z"] {
        dir = rig.mkdir(dir, &letter.repeat(250)).await;
    }
    let (_, _open) = rig.create(dir, &"f".repeat(100)).await;
    let before = rig.store.keys();
    let refused = rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, &[b'e'; 255], RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::NameTooLong)), "{refused:?}");
    assert_eq!(rig.store.keys(), before);
}

#[tokio::test]
async fn a_directory_replaces_an_empty_one_only() {
    let rig = Rig::new().await;
    let (one, two) = (rig.mkdir(Ino::ROOT, "one").await, rig.mkdir(Ino::ROOT, "two").await);
    rig.put(one, "f", b"x").await;
    rig.put(two, "g", b"y").await;
    let refused = rig.fs.rename(Ino::ROOT, b"one", Ino::ROOT, b"two", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::NotEmpty)));
    rig.fs.unlink(two, b"g").await.expect("an unlink");
    rig.fs.rename(Ino::ROOT, b"one", Ino::ROOT, b"two", RenameMode::Replace).await.expect("a rename");
    assert_eq!(rig.store.keys(), ["p/two/", "p/two/f"]);
    assert_eq!(rig.ino(Ino::ROOT, "two").await.expect("the directory"), one);
}

#[tokio::test]
async fn what_another_client_removes_is_gone_here_and_nothing_outside_the_prefix_is_touched() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("outside", "kept");
    rig.store.set("p2/outside", "kept");
    let ino = rig.put(Ino::ROOT, "f", b"x").await;
    rig.store.remove("p/f");
    assert!(rig.ino(Ino::ROOT, "f").await.is_err());
    assert!(rig.fs.open(ino, READ).await.is_err());
    assert_eq!(rig.names(Ino::ROOT).await, Vec::<String>::new());
    assert_eq!(rig.store.keys(), ["outside", "p2/outside"]);
}

#[tokio::test]
async fn many_new_files_in_a_directory_cost_one_listing_and_a_put_each() {
    let rig = Rig::new().await;
    rig.store.set("p/d/old", "x");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    rig.store.take_calls();
    for number in 0..20 {
        rig.put(dir, &format!("f{number}"), b"new").await;
    }
    let count = |calls: &[Call], call| calls.iter().filter(|made| **made == call).count();
    let calls = rig.store.take_calls();
    assert_eq!([Call::Put, Call::Head, Call::List].map(|call| count(&calls, call)), [20, 2, 3], "{calls:?}");
    // What is there is found all the same, and what another client made after that can't be lost.
    assert!(rig.ino(dir, "old").await.is_ok() && rig.ino(dir, "f19").await.is_ok());
    rig.store.set("p/d/theirs", "theirs");
    let (_, fh) = rig.create(dir, "theirs").await;
    rig.fs.write(fh, 0, b"ours").await.expect("a write");
    assert!(matches!(rig.close(fh).await, Err(Error::Stale)));
    assert_eq!(rig.object("p/d/theirs").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test]
async fn a_directory_too_large_to_list_is_tried_once_and_asked_name_by_name() {
    let rig = Rig::new().await;
    for number in 0..4100 {
        rig.store.set(&format!("p/d/{number}"), "");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    rig.store.take_calls();
    for number in 0..10 {
        assert!(matches!(rig.ino(dir, &format!("no{number}")).await, Err(Error::NotFound)));
    }
    assert_eq!(rig.store.take_calls().len(), 10 * 2 + 4);
    assert!(rig.ino(dir, "4099").await.is_ok());
}

#[tokio::test]
async fn for_names_that_are_there_no_more_than_a_page_is_listed() {
    let rig = Rig::new().await;
    for number in 0..1500 {
        rig.store.set(&format!("p/d/{number}"), "");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    rig.store.take_calls();
    for number in 0..10 {
        assert!(rig.ino(dir, &format!("{number}")).await.is_ok());
    }
    assert_eq!(rig.store.take_calls().len(), 10 * 2 + 1);
}

#[tokio::test]
async fn nothing_is_listed_instead_where_listings_are_not_believed() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/d/old", "x");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    rig.store.take_calls();
    for number in 0..10 {
        assert!(rig.ino(dir, &format!("no{number}")).await.is_err());
    }
    assert_eq!(rig.store.take_calls().len(), 20);
}
