//! Modes, owners and times in both kinds of `metadata`.

use std::time::SystemTime;

use super::*;
use crate::error::Error;
use crate::fs::SetAttributes;
use crate::inode::OwnershipChange;
use crate::transfer::tests::fake::Call;

fn chmod(mode: u32) -> SetAttributes {
    SetAttributes { ownership: OwnershipChange { mode: Some(mode), ..Default::default() }, ..Default::default() }
}

fn utimens(seconds: u64) -> SetAttributes {
    let time = Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789));
    SetAttributes { ownership: OwnershipChange { mtime: time, ..Default::default() }, ..Default::default() }
}

fn basic(setattr: SetattrPolicy) -> FsSettings {
    FsSettings { metadata: MetadataMode::Basic, setattr, ..settings() }
}

#[tokio::test]
async fn attributes_of_a_draft_travel_with_its_commit() {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"x").await.expect("a write");
    rig.store.take_calls();
    rig.fs.setattr(ino, chmod(0o600)).await.expect("a chmod");
    rig.fs.setattr(ino, utimens(1_000_000_000)).await.expect("a utimens");
    assert_eq!(rig.store.take_calls(), []);
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.take_calls(), [Call::Put]);
    let stored = rig.store.attributes("p/f").expect("an object").metadata;
    assert_eq!(stored["file-permissions"], "0100600");
    assert_eq!(stored["file-owner"], "7");
    assert_eq!(stored["file-group"], "8");
    assert_eq!(stored["file-mtime"], "1000000000123456789ns");
}

#[tokio::test]
async fn attributes_of_a_clean_file_cost_one_copy_and_what_changes_nothing_costs_nothing() {
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "f", b"x").await;
    rig.store.take_calls();
    rig.fs.setattr(ino, chmod(0o640)).await.expect("the same mode");
    assert_eq!(rig.store.take_calls(), []);
    rig.fs.setattr(ino, chmod(0o400)).await.expect("a chmod");
    assert_eq!(rig.store.take_calls(), [Call::Copy]);
    assert_eq!(rig.store.attributes("p/f").expect("an object").metadata["file-permissions"], "0100400");
    assert_eq!(rig.read(ino).await.expect("a read"), b"x");
}

#[tokio::test]
async fn attributes_are_found_again_by_another_mount_and_foreign_metadata_is_kept() {
    let rig = Rig::new().await;
    let mut attributes = crate::store::Attributes::default();
    attributes.metadata.insert("note".into(), "kept".into());
    attributes.content_type = Some("text/x-test".into());
    rig.store.set_with("p/f", "x".into(), &attributes, SystemTime::now());
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    rig.fs.setattr(ino, chmod(0o751)).await.expect("a chmod");
    let fh = rig.open(ino, TRUNCATE).await;
    rig.fs.write(fh, 0, b"rewritten").await.expect("a write");
    rig.close(fh).await.expect("a close");
    let stored = rig.store.attributes("p/f").expect("an object");
    assert_eq!(stored.metadata["note"], "kept");
    assert_eq!(stored.content_type.as_deref(), Some("text/x-test"));

    let other = Rig::over(rig.store.clone(), settings());
    let entry = other.fs.lookup(Ino::ROOT, b"f").await.expect("the file");
    assert_eq!(entry.attr.ownership.mode, 0o751);
    assert_eq!(entry.attr.ownership.mtime, rig.fs.getattr(ino).await.expect("attributes").ownership.mtime);
}

#[tokio::test]
async fn a_directory_keeps_its_attributes_in_its_marker() {
    let rig = Rig::new().await;
    rig.store.set("p/implicit/f", "x");
    let dir = rig.ino(Ino::ROOT, "implicit").await.expect("a directory");
    rig.fs.setattr(dir, chmod(0o700)).await.expect("a chmod");
    let other = Rig::over(rig.store.clone(), settings());
    let entry = other.fs.lookup(Ino::ROOT, b"implicit").await.expect("the directory");
    assert_eq!(entry.attr.ownership.mode, 0o700);
}

#[tokio::test]
async fn basic_refuses_changes_or_ignores_them_and_never_copies() {
    for (policy, accepted) in [(SetattrPolicy::Refuse, false), (SetattrPolicy::Ignore, true)] {
        let rig = Rig::with(basic(policy)).await;
        let ino = rig.put(Ino::ROOT, "f", b"x").await;
        rig.fs.setattr(ino, chmod(0o644)).await.expect("the mode it has");
        let outcome = rig.fs.setattr(ino, chmod(0o600)).await;
        assert_eq!(outcome.is_ok(), accepted, "{outcome:?}");
        assert!(accepted || matches!(outcome, Err(Error::Unsupported(_))));
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").ownership.mode, 0o644);
        assert_eq!(rig.store.count(Call::Copy), 0);
        assert!(rig.store.attributes("p/f").expect("an object").metadata.is_empty());
    }
}

#[tokio::test]
async fn a_read_only_mount_changes_nothing() {
    let rig = Rig::with(FsSettings { read_only: true, ..settings() }).await;
    rig.store.set("p/f", "x");
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    assert!(matches!(rig.fs.open(ino, WRITE).await, Err(Error::ReadOnly)));
    assert!(matches!(rig.fs.unlink(Ino::ROOT, b"f").await, Err(Error::ReadOnly)));
    assert!(matches!(rig.fs.setattr(ino, chmod(0o600)).await, Err(Error::ReadOnly)));
    assert!(matches!(rig.fs.mkdir(Ino::ROOT, b"d", CREATION).await, Err(Error::ReadOnly)));
    assert_eq!(rig.read(ino).await.expect("a read"), b"x");
}
