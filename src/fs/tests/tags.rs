//! Tags and encryption of an object, which a file keeps when it is written anew.

use std::time::SystemTime;

use super::send_ahead::{MIB, content, write};
use super::*;
use crate::error::Error;
use crate::fs::{RenameMode, SetAttributes};
use crate::inode::OwnershipChange;
use crate::store::{Attributes, Encryption, Tags};
use crate::transfer::tests::fake::{Call, Fake, Fault};

fn dressed() -> Attributes {
    let encryption = Encryption { algorithm: "aws:kms".into(), key: Some("a key".into()), bucket_key: true };
    let tags = Tags::Known(vec![("team".into(), "blue".into()), ("empty".into(), String::new())]);
    Attributes { encryption: Some(encryption), tags, ..Attributes::default() }
}

async fn rig_with(key: &str, len: u64, attributes: &Attributes) -> Rig {
    let rig = Rig::new().await;
    rig.store.set_with(key, content(len, 3).into(), attributes, SystemTime::now());
    rig
}

fn kept(rig: &Rig, key: &str) -> (Option<Encryption>, Tags) {
    let found = rig.store.attributes(key).expect("an object");
    (found.encryption, found.tags)
}

/// Writes at `at`, closes, and tells how often tags were asked for.
async fn rewrite(rig: &Rig, intent: OpenIntent, at: u64) -> usize {
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, intent).await;
    write(rig, fh, at, b"changed").await;
    rig.store.take_calls();
    rig.close(fh).await.expect("a close");
    rig.store.count(Call::Tags)
}

#[tokio::test]
async fn a_rewrite_keeps_tags_and_encryption_for_one_request_and_costs_none_without_tags() {
    let cases = [
        (9, WRITE, 3, Call::Put),
        (9, WRITE, 9, Call::Put),
        (9, TRUNCATE, 0, Call::Put),
        (60 * MIB, WRITE, 30 * MIB, Call::PartCopy),
    ];
    for (len, intent, at, call) in cases {
        for (attributes, asked) in [(dressed(), 1), (Attributes { tags: Tags::None, ..dressed() }, 0)] {
            let rig = rig_with("p/f", len, &attributes).await;
            assert_eq!(rewrite(&rig, intent, at).await, asked, "{len} {intent:?} {at}");
            assert!(rig.store.count(call) > 0, "{call:?}");
            assert_eq!(kept(&rig, "p/f"), (attributes.encryption, attributes.tags), "{len} {intent:?} {at}");
            // And once more, by the mount that knows them by now.
            assert_eq!(rewrite(&rig, intent, at).await, asked, "{len} {intent:?} {at}");
            assert_eq!(kept(&rig, "p/f").1 == Tags::None, asked == 0);
        }
    }
}

#[tokio::test]
async fn a_chmod_and_renames_keep_tags_and_encryption_and_never_ask_for_tags() {
    let rig = rig_with("p/f", 9, &dressed()).await;
    rig.store.set_with("p/d/x", "bytes".into(), &dressed(), SystemTime::now());
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let ownership = OwnershipChange { mode: Some(0o600), ..OwnershipChange::default() };
    rig.fs.setattr(ino, SetAttributes { ownership, ..SetAttributes::default() }).await.expect("a chmod");
    let dressed = (dressed().encryption, dressed().tags);
    assert_eq!(kept(&rig, "p/f"), dressed);
    rig.fs.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", RenameMode::Replace).await.expect("a rename");
    assert_eq!(kept(&rig, "p/g"), dressed);
    rig.fs.rename(Ino::ROOT, b"d", Ino::ROOT, b"e", RenameMode::Replace).await.expect("a rename");
    assert_eq!(kept(&rig, "p/e/x"), dressed);
    assert_eq!(rig.store.count(Call::Tags), 0);
}

#[tokio::test]
async fn a_rename_that_must_not_replace_keeps_what_the_object_has_also_where_copies_look_at_no_target() {
    let mut attributes = Attributes { content_type: Some("text/x-test".into()), ..dressed() };
    attributes.content_encoding = Some("gzip".into());
    attributes.storage_class = Some("STANDARD_IA".into());
    attributes.metadata.insert("file-permissions".into(), "0100400".into());
    for len in [0, 9, 6 * MIB] {
        for (attributes, asked) in [(attributes.clone(), 1), (Attributes { tags: Tags::None, ..attributes.clone() }, 0)]
        {
            let mut store = Fake::new(false);
            store.copies_over = true;
            let rig = Rig::over(Arc::new(store), settings());
            rig.store.set_with("p/f", content(len, 3).into(), &attributes, SystemTime::now());
            let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
            rig.fs.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", RenameMode::NoReplace).await.expect("a rename");
            assert_eq!(rig.store.attributes("p/g").expect("an object"), attributes, "{len}");
            assert!(rig.object("p/g") == Some(content(len, 3)), "{len}");
            assert_eq!((rig.store.keys(), rig.store.count(Call::Tags)), (vec!["p/g".to_owned()], asked), "{len}");
            let there = rig.fs.getattr(ino).await.expect("attributes");
            assert_eq!((there.size, there.ownership.mode & 0o777), (len, 0o400));
        }
    }
}

#[tokio::test]
async fn tags_that_may_not_be_read_are_lost_rather_than_the_bytes() {
    for error in [Error::AccessDenied("test".into()), Error::Unsupported("GetObjectTagging")] {
        let rig = rig_with("p/f", 9, &dressed()).await;
        rig.store.next(Call::Tags, Fault::Fail(error));
        assert_eq!(rewrite(&rig, WRITE, 9).await, 1);
        assert_eq!(kept(&rig, "p/f"), (dressed().encryption, Tags::None));
        assert!(rig.object("p/f").expect("an object").ends_with(b"changed"));
    }
}

#[tokio::test]
async fn tags_that_can_not_be_read_now_are_waited_for() {
    let rig = rig_with("p/f", 9, &dressed()).await;
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = rig.open(ino, WRITE).await;
    write(&rig, fh, 9, b"changed").await;
    rig.store.next(Call::Tags, Fault::Fail(Error::Unavailable("test".into())));
    assert!(rig.fs.flush(fh).await.is_err());
    assert!(!rig.object("p/f").expect("an object").ends_with(b"changed"));
    rig.close(fh).await.expect("a close");
    assert_eq!(kept(&rig, "p/f"), (dressed().encryption, dressed().tags));
}
