//! Symbolic links: what they are stored as, what they cost, and what becomes of an inode whose type changes in S3.

use std::time::SystemTime;

use super::*;
use crate::error::Error;
use crate::fs::{RenameMode, SetAttributes};
use crate::inode::{Device, FileType, OwnershipChange};
use crate::store::Attributes;
use crate::transfer::tests::fake::{Call, Fault};

const OWNER: (u32, u32) = (7, 8);

fn basic() -> FsSettings {
    FsSettings { metadata: MetadataMode::Basic, ..settings() }
}

fn typed(permissions: &str) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.metadata.insert("file-permissions".into(), permissions.into());
    attributes
}

/// Another client's symbolic link.
fn set_link(rig: &Rig, key: &str, target: &[u8]) {
    rig.store.set_with(key, target.to_vec().into(), &typed("0120777"), SystemTime::now());
}

async fn file_type(rig: &Rig, name: &str) -> FileType {
    rig.fs.lookup(Ino::ROOT, name.as_bytes()).await.expect("an entry").attr.ownership.file_type
}

/// Names and types as a readdir without attributes tells them.
async fn types(rig: &Rig, dir: Ino) -> Vec<(String, Option<FileType>)> {
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    let (mut types, mut offset) = (Vec::new(), 0);
    loop {
        let entries = rig.fs.readdir(fh, offset, false).await.expect("a readdir");
        let Some(last) = entries.last() else { break };
        offset = last.next;
        types.extend(entries.iter().map(|entry| (entry.name.as_str().to_owned(), entry.file_type)));
    }
    rig.fs.releasedir(fh);
    types.retain(|(name, _)| name != "." && name != "..");
    types
}

#[tokio::test]
async fn a_symlink_is_one_put_of_its_target_and_reading_it_here_is_free() {
    let rig = Rig::new().await;
    rig.names(Ino::ROOT).await;
    rig.store.take_calls();
    let target = b"../no \xff text\n";
    let attr = rig.fs.symlink(Ino::ROOT, b"l", target, OWNER).await.expect("a link").attr;
    assert_eq!(rig.store.take_calls(), [Call::Put]);
    assert_eq!((attr.ownership.file_type, attr.ownership.mode, attr.size), (FileType::Symlink, 0o777, 13));
    assert_eq!(rig.fs.readlink(attr.ino).await.expect("a target"), &target[..]);
    assert_eq!(rig.store.take_calls(), []);
    assert_eq!(rig.object("p/l").as_deref(), Some(&target[..]));
    let stored = rig.store.attributes("p/l").expect("an object").metadata;
    assert_eq!((stored["file-permissions"].as_str(), stored["file-owner"].as_str()), ("0120777", "7"));
    assert!(stored.contains_key("file-mtime"));
}

#[tokio::test]
async fn a_target_is_fetched_once_and_anew_when_another_client_changes_the_link() {
    let rig = Rig::with(no_cache()).await;
    set_link(&rig, "p/l", b"one");
    let entry = rig.fs.lookup(Ino::ROOT, b"l").await.expect("a link");
    rig.store.take_calls();
    for _ in 0..3 {
        assert_eq!(rig.fs.readlink(entry.attr.ino).await.expect("a target"), &b"one"[..]);
    }
    assert_eq!(rig.store.take_calls(), [Call::Get]);
    set_link(&rig, "p/l", b"two");
    let again = rig.fs.lookup(Ino::ROOT, b"l").await.expect("a link");
    assert_eq!(again.attr.ino, entry.attr.ino);
    assert_eq!(rig.fs.readlink(entry.attr.ino).await.expect("a target"), &b"two"[..]);
}

#[tokio::test]
async fn a_link_that_was_replaced_unseen_is_looked_up_again() {
    let rig = Rig::new().await;
    set_link(&rig, "p/l", b"one");
    let ino = rig.ino(Ino::ROOT, "l").await.expect("a link");
    set_link(&rig, "p/l", b"two");
    assert!(matches!(rig.fs.readlink(ino).await, Err(Error::Stale)));
    let ino = rig.ino(Ino::ROOT, "l").await.expect("a link");
    assert_eq!(rig.fs.readlink(ino).await.expect("a target"), &b"two"[..]);
}

#[tokio::test]
async fn the_loser_of_a_race_for_a_name_gets_eexist_and_finds_what_is_there() {
    let rig = Rig::new().await;
    rig.names(Ino::ROOT).await;
    set_link(&rig, "p/l", b"theirs");
    assert!(matches!(rig.fs.symlink(Ino::ROOT, b"l", b"ours", OWNER).await, Err(Error::AlreadyExists)));
    let ino = rig.ino(Ino::ROOT, "l").await.expect("their link");
    assert_eq!(rig.fs.readlink(ino).await.expect("a target"), &b"theirs"[..]);
    rig.put(Ino::ROOT, "f", b"x").await;
    assert!(matches!(rig.fs.symlink(Ino::ROOT, b"f", b"ours", OWNER).await, Err(Error::AlreadyExists)));
}

#[tokio::test]
async fn a_put_whose_reply_was_lost_is_ones_own() {
    let rig = Rig::new().await;
    rig.store.next(Call::Put, Fault::DoneBut(Error::PreconditionFailed));
    let ino = rig.fs.symlink(Ino::ROOT, b"l", b"target", OWNER).await.expect("our own link").attr.ino;
    assert_eq!(rig.fs.readlink(ino).await.expect("a target"), &b"target"[..]);
}

#[tokio::test]
async fn targets_that_can_not_be_are_refused_and_cost_nothing() {
    let rig = Rig::new().await;
    assert!(matches!(rig.fs.symlink(Ino::ROOT, b"l", b"", OWNER).await, Err(Error::NotFound)));
    assert!(matches!(rig.fs.symlink(Ino::ROOT, b"l", &[b'x'; 4096], OWNER).await, Err(Error::NameTooLong)));
    let basic = Rig::with(basic()).await;
    assert!(matches!(basic.fs.symlink(Ino::ROOT, b"l", b"x", OWNER).await, Err(Error::Unsupported(_))));
    let read_only = Rig::with(FsSettings { read_only: true, ..settings() }).await;
    assert!(matches!(read_only.fs.symlink(Ino::ROOT, b"l", b"x", OWNER).await, Err(Error::ReadOnly)));
    for rig in [rig, basic, read_only] {
        assert_eq!(rig.store.take_calls(), []);
    }
    let rig = Rig::new().await;
    let ino = rig.fs.symlink(Ino::ROOT, b"l", &[b'x'; 4095], OWNER).await.expect("the longest target").attr.ino;
    assert_eq!(rig.fs.readlink(ino).await.expect("a target").len(), 4095);
}

#[tokio::test]
async fn an_object_that_can_not_be_a_target_is_an_error_and_can_be_removed() {
    let rig = Rig::new().await;
    for (name, body) in [("nul", b"a\0b".to_vec()), ("empty", Vec::new())] {
        set_link(&rig, &format!("p/{name}"), &body);
        let attr = rig.fs.lookup(Ino::ROOT, name.as_bytes()).await.expect("a link").attr;
        assert_eq!((attr.ownership.file_type, attr.size), (FileType::Symlink, body.len() as u64));
        assert!(matches!(rig.fs.readlink(attr.ino).await, Err(Error::Corrupt(_))), "{name}");
        rig.fs.unlink(Ino::ROOT, name.as_bytes()).await.expect("an unlink");
        assert_eq!(rig.object(&format!("p/{name}")), None);
    }
    // Too large to be one.
    set_link(&rig, "p/large", &[b'x'; 4096]);
    assert_eq!(file_type(&rig, "large").await, FileType::Regular);
    let ino = rig.ino(Ino::ROOT, "large").await.expect("a file");
    assert!(matches!(rig.fs.readlink(ino).await, Err(Error::InvalidArgument(_))));
    assert_eq!(rig.read(ino).await.expect("a read"), [b'x'; 4096]);
}

#[tokio::test]
async fn what_is_no_link_has_no_target() {
    let rig = Rig::new().await;
    let file = rig.put(Ino::ROOT, "f", b"x").await;
    for ino in [file, Ino::ROOT] {
        assert!(matches!(rig.fs.readlink(ino).await, Err(Error::InvalidArgument(_))));
    }
    let basic = Rig::with(basic()).await;
    set_link(&basic, "p/l", b"target");
    assert_eq!(file_type(&basic, "l").await, FileType::Regular);
    assert_eq!(types(&basic, Ino::ROOT).await, [("l".to_owned(), Some(FileType::Regular))]);
}

#[tokio::test]
async fn a_renamed_or_changed_link_is_still_one() {
    let rig = Rig::new().await;
    let ino = rig.fs.symlink(Ino::ROOT, b"l", b"target", OWNER).await.expect("a link").attr.ino;
    rig.put(Ino::ROOT, "f", b"x").await;
    rig.fs.rename(Ino::ROOT, b"l", Ino::ROOT, b"f", RenameMode::Replace).await.expect("a rename over a file");
    let mtime = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    let change = OwnershipChange { uid: Some(9), mtime, ..Default::default() };
    rig.fs.setattr(ino, SetAttributes { ownership: change, ..Default::default() }).await.expect("lchown and utimens");
    assert_eq!(rig.fs.readlink(ino).await.expect("a target"), &b"target"[..]);

    let other = Rig::over(rig.store.clone(), settings());
    let attr = other.fs.lookup(Ino::ROOT, b"f").await.expect("the link").attr;
    assert_eq!((attr.ownership.file_type, attr.ownership.uid), (FileType::Symlink, 9));
    assert_eq!(Some(attr.ownership.mtime), mtime);
    assert_eq!(other.fs.readlink(attr.ino).await.expect("a target"), &b"target"[..]);
    assert_eq!(rig.store.keys(), ["p/f"]);
}

#[tokio::test]
async fn an_inode_that_the_kernel_knows_never_changes_its_type() {
    let rig = Rig::with(no_cache()).await;
    rig.store.set("p/x", "x");
    let before = rig.fs.lookup(Ino::ROOT, b"x").await.expect("a file").attr;
    set_link(&rig, "p/x", b"target");
    // As the kernel does for stat of an inode that it has.
    assert!(matches!(rig.fs.getattr(before.ino).await, Err(Error::Stale)));
    let after = rig.fs.lookup(Ino::ROOT, b"x").await.expect("a link").attr;
    assert_ne!(after.ino, before.ino);
    assert_eq!(after.ownership.file_type, FileType::Symlink);
    // The same bytes and other metadata.
    rig.store.set_with("p/x", "target".into(), &typed("0100644"), SystemTime::now());
    let again = rig.fs.lookup(Ino::ROOT, b"x").await.expect("a file").attr;
    assert_eq!(again.ownership.file_type, FileType::Regular);
    assert_ne!(again.ino, after.ino);
    assert_eq!(rig.read(again.ino).await.expect("a read"), b"target");
}

#[tokio::test]
async fn a_create_that_meets_a_link_nobody_knew_of_sends_the_kernel_back() {
    let rig = Rig::new().await;
    set_link(&rig, "p/l", b"target");
    let made = rig.fs.create(Ino::ROOT, b"l", CREATION, WRITE).await;
    assert!(matches!(made, Err(Error::Stale)), "{made:?}");
    assert_eq!(rig.object("p/l").as_deref(), Some(&b"target"[..]));
}

#[tokio::test]
async fn a_plain_listing_asks_for_no_metadata_and_tells_only_types_that_are_known() {
    let rig = Rig::new().await;
    rig.store.set("p/d/large", vec![b'x'; 4096]);
    rig.store.set("p/d/small", "small");
    set_link(&rig, "p/d/link", b"target");
    rig.store.set("p/d/sub/f", "x");
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let (_, draft) = rig.create(dir, "draft").await;
    let shown = |types: Vec<(String, Option<FileType>)>| -> Vec<_> {
        ["draft", "large", "link", "small", "sub"]
            .map(|wanted| types.iter().find(|(name, _)| name == wanted).and_then(|known| known.1))
            .into()
    };
    let regular = Some(FileType::Regular);
    rig.store.take_calls();
    assert_eq!(shown(types(&rig, dir).await), [regular, regular, None, None, regular]);
    assert_eq!(rig.store.take_calls(), [Call::List]);
    // Once the kernel knows them, so does the listing.
    for name in ["link", "small"] {
        rig.ino(dir, name).await.expect("an entry");
    }
    let link = Some(FileType::Symlink);
    assert_eq!(shown(types(&rig, dir).await), [regular, regular, link, regular, regular]);
    // Of another client's change nothing is known, once the directory is listed again.
    rig.store.set("p/d/link", "a file now");
    rig.mkdir(dir, "another").await;
    assert_eq!(shown(types(&rig, dir).await), [regular, regular, None, regular, regular]);
    rig.close(draft).await.expect("a close");
}

#[tokio::test]
async fn a_special_file_is_one_empty_object_with_its_type_and_number() {
    let rig = Rig::new().await;
    rig.names(Ino::ROOT).await;
    let device = Device::new(8, 300).expect("numbers that fit");
    let all = [FileType::Fifo, FileType::Socket, FileType::CharDevice(device), FileType::BlockDevice(device)];
    for (name, made) in ["fifo", "socket", "char", "block"].into_iter().zip(all) {
        rig.store.take_calls();
        let attr = rig.fs.mknod(Ino::ROOT, name.as_bytes(), made, CREATION).await.expect("a special file").attr;
        assert_eq!(rig.store.take_calls(), [Call::Put]);
        assert_eq!((attr.ownership.file_type, attr.ownership.mode, attr.size), (made, 0o640, 0));
        let again = rig.fs.mknod(Ino::ROOT, name.as_bytes(), made, CREATION).await;
        assert!(matches!(again, Err(Error::AlreadyExists)), "{again:?}");
        let change = OwnershipChange { mode: Some(0o600), ..Default::default() };
        rig.fs.setattr(attr.ino, SetAttributes { ownership: change, ..Default::default() }).await.expect("a chmod");
        let other = Rig::over(rig.store.clone(), settings());
        let attr = other.fs.lookup(Ino::ROOT, name.as_bytes()).await.expect("it").attr;
        assert_eq!((attr.ownership.file_type, attr.ownership.mode), (made, 0o600));
    }
    assert_eq!(rig.store.attributes("p/char").expect("an object").metadata["file-rdev"], "8:300");
    let basic = Rig::with(basic()).await;
    assert!(matches!(basic.fs.mknod(Ino::ROOT, b"x", FileType::Fifo, CREATION).await, Err(Error::Unsupported(_))));
    let read_only = Rig::with(FsSettings { read_only: true, ..settings() }).await;
    assert!(matches!(read_only.fs.mknod(Ino::ROOT, b"x", FileType::Fifo, CREATION).await, Err(Error::ReadOnly)));
}

#[tokio::test]
async fn an_object_with_bytes_is_no_special_file() {
    let rig = Rig::new().await;
    rig.store.set_with("p/f", "x".into(), &typed("0010644"), SystemTime::now());
    assert_eq!(file_type(&rig, "f").await, FileType::Regular);
    let ino = rig.ino(Ino::ROOT, "f").await.expect("a file");
    assert_eq!(rig.read(ino).await.expect("a read"), b"x");
}
