//! Extended attributes: what is asked of S3 for them, what goes along with what, and what a failure leaves.

use std::time::SystemTime;

use bytes::Bytes;

use super::*;
use crate::error::Error;
use crate::inode::Presence;
use crate::store::{Attributes, ObjectStore};
use crate::transfer::tests::fake::{Call, Fault};
use crate::types::ObjectKey;

/// `{"user.a":"b25l"}`: what s3fs writes for `one`.
const ONE: &str = "%7B%22user.a%22%3A%22b25l%22%7D";

async fn set(rig: &Rig, ino: Ino, name: &str, value: &[u8]) -> Result<()> {
    rig.fs.setxattr(ino, name.as_bytes(), value.to_vec(), Presence::Any).await
}

async fn get(rig: &Rig, ino: Ino, name: &str) -> Result<String> {
    rig.fs.getxattr(ino, name.as_bytes()).await.map(|value| String::from_utf8(value).expect("text"))
}

async fn list(rig: &Rig, ino: Ino) -> Vec<String> {
    let list = rig.fs.listxattr(ino).await.expect("a list");
    let list = String::from_utf8(list).expect("text");
    list.split_terminator('\0').map(str::to_owned).collect()
}

fn stored(rig: &Rig, key: &str) -> Option<String> {
    rig.store.attributes(key).expect("an object").metadata.get("xattr").cloned()
}

#[tokio::test]
async fn those_of_a_draft_go_with_its_commit_and_those_of_a_clean_file_cost_one_copy() {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"x").await.expect("a write");
    rig.store.take_calls();
    set(&rig, ino, "user.a", b"one").await.expect("set");
    set(&rig, ino, "user.b", b"two").await.expect("set");
    rig.fs.removexattr(ino, b"user.b").await.expect("removed");
    assert_eq!(
        (get(&rig, ino, "user.a").await.ok().as_deref(), list(&rig, ino).await),
        (Some("one"), vec!["user.a".into()])
    );
    assert_eq!(rig.store.take_calls(), []);
    rig.close(fh).await.expect("a close");
    assert_eq!(rig.store.take_calls(), [Call::Put]);
    assert_eq!(stored(&rig, "p/f").as_deref(), Some(ONE));

    // What changes nothing costs nothing.
    set(&rig, ino, "user.a", b"one").await.expect("the same");
    assert_eq!(rig.store.take_calls(), []);
    set(&rig, ino, "user.a", b"three").await.expect("set");
    assert_eq!(rig.store.take_calls(), [Call::Copy]);
    assert_eq!(get(&rig, ino, "user.a").await.ok().as_deref(), Some("three"));
    rig.fs.removexattr(ino, b"user.a").await.expect("removed");
    assert_eq!(rig.store.take_calls(), [Call::Copy]);
    assert_eq!((stored(&rig, "p/f"), list(&rig, ino).await), (None, vec![]));
    assert_eq!(rig.store.take_calls(), []);
    assert_eq!(rig.read(ino).await.expect("a read"), b"x");
}

#[tokio::test]
async fn a_refused_copy_changes_nothing() {
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "f", b"x").await;
    rig.store.next(Call::Copy, Fault::Fail(Error::AccessDenied("no".into())));
    let refused = set(&rig, ino, "user.a", b"x").await;
    assert!(matches!(refused, Err(Error::AccessDenied(_))), "{refused:?}");
    assert_eq!((list(&rig, ino).await, stored(&rig, "p/f")), (vec![], None));
    set(&rig, ino, "user.a", b"one").await.expect("set");
    assert_eq!(stored(&rig, "p/f").as_deref(), Some(ONE));
}

#[tokio::test]
async fn another_clients_object_is_not_given_attributes_and_shows_its_own() {
    let rig = Rig::with(no_cache()).await;
    let ino = rig.put(Ino::ROOT, "f", b"x").await;
    let mut theirs = Attributes::default();
    theirs.metadata.insert("xattr".into(), ONE.into());
    theirs.metadata.insert("team".into(), "blue".into());
    rig.store.set_with("p/f", Bytes::from_static(b"theirs"), &theirs, SystemTime::now());
    let ino = match rig.ino(Ino::ROOT, "f").await {
        Ok(found) => found,
        Err(_) => ino,
    };
    assert_eq!(list(&rig, ino).await, ["user.a", "user.team"]);
    assert_eq!(get(&rig, ino, "user.team").await.ok().as_deref(), Some("blue"));
}

#[tokio::test]
async fn directories_keep_them_in_their_markers() {
    let rig = Rig::new().await;
    let dir = rig.mkdir(Ino::ROOT, "d").await;
    rig.put(dir, "f", b"x").await;
    set(&rig, dir, "user.a", b"one").await.expect("set");
    assert_eq!(stored(&rig, "p/d/").as_deref(), Some(ONE));
    assert_eq!(rig.store.attributes("p/d/").expect("a marker").metadata["file-permissions"], "0040640");
    rig.store.take_calls();
    assert_eq!(
        (get(&rig, dir, "user.a").await.ok().as_deref(), list(&rig, dir).await),
        (Some("one"), vec!["user.a".into()])
    );
    assert_eq!(rig.store.take_calls(), []);
    let again = rig.fs.setxattr(dir, b"user.a", b"x".to_vec(), Presence::Absent).await;
    assert!(matches!(again, Err(Error::AlreadyExists)), "{again:?}");

    // Another mount reads them, also where no marker was before.
    let other = Rig::over(rig.store.clone(), settings());
    let dir = other.ino(Ino::ROOT, "d").await.expect("a directory");
    assert_eq!(get(&other, dir, "user.a").await.ok().as_deref(), Some("one"));
    rig.store.set("p/implicit/f", b"x".as_slice());
    let implicit = other.ino(Ino::ROOT, "implicit").await.expect("a directory");
    assert_eq!(list(&other, implicit).await, Vec::<String>::new());
    set(&other, implicit, "user.a", b"one").await.expect("set");
    assert_eq!(stored(&other, "p/implicit/").as_deref(), Some(ONE));
}

#[tokio::test]
async fn what_comes_while_a_file_goes_up_is_stored_after_it() {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"x").await.expect("a write");
    let (closed, set) = tokio::join!(rig.close(fh), set(&rig, ino, "user.a", b"one"));
    assert!(closed.is_ok() && set.is_ok(), "{closed:?} {set:?}");
    assert_eq!(stored(&rig, "p/f").as_deref(), Some(ONE));
}

#[tokio::test]
async fn those_of_a_renamed_draft_and_of_a_truncated_file_are_kept() {
    let rig = Rig::new().await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    rig.fs.write(fh, 0, b"x").await.expect("a write");
    set(&rig, ino, "user.a", b"one").await.expect("set");
    rig.fs.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", crate::fs::RenameMode::Replace).await.expect("a rename");
    rig.close(fh).await.expect("a close");
    assert_eq!(stored(&rig, "p/g").as_deref(), Some(ONE));
    let fh = rig.open(ino, TRUNCATE).await;
    rig.fs.write(fh, 0, b"new").await.expect("a write");
    rig.close(fh).await.expect("a close");
    assert_eq!(stored(&rig, "p/g").as_deref(), Some(ONE));
}

#[tokio::test]
async fn what_s3_says_of_an_object_is_told_and_not_listed() {
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "f", b"x").await;
    let etag = rig.store.head(&ObjectKey::from_store("p/f")).await.expect("an object").version.etag;
    rig.store.take_calls();
    assert_eq!(get(&rig, ino, "user.s3.etag").await.ok().as_deref(), Some(etag.as_str()));
    assert_eq!(get(&rig, ino, "user.s3.state").await.ok().as_deref(), Some("stored"));
    assert_eq!(get(&rig, ino, "user.s3.storage-class").await.ok().as_deref(), Some("STANDARD"));
    for none in ["user.s3.last-error", "user.s3.else", "user.none"] {
        assert!(matches!(get(&rig, ino, none).await, Err(Error::NoAttribute)), "{none}");
    }
    assert_eq!((list(&rig, ino).await, rig.store.take_calls()), (vec![], vec![]));
    let id = get(&rig, ino, "user.s3.version-id").await.expect("an id");
    assert!(id.starts_with("id-"), "{id}");
    assert_eq!(rig.store.take_calls(), [Call::Head]);
    let refused = [set(&rig, ino, "user.s3.etag", b"x").await, rig.fs.removexattr(ino, b"user.s3.else").await];
    assert!(refused.iter().all(|refused| matches!(refused, Err(Error::NotPermitted(_)))), "{refused:?}");

    let (ino, fh) = rig.create(Ino::ROOT, "new").await;
    rig.fs.write(fh, 0, b"x").await.expect("a write");
    assert_eq!(get(&rig, ino, "user.s3.state").await.ok().as_deref(), Some("open"));
    assert!(matches!(get(&rig, ino, "user.s3.etag").await, Err(Error::NoAttribute)));
    rig.store.next(Call::Put, Fault::Fail(Error::AccessDenied("no".into())));
    assert!(rig.fs.flush(fh).await.is_err());
    assert_eq!(get(&rig, ino, "user.s3.state").await.ok().as_deref(), Some("failed"));
    assert_eq!(get(&rig, ino, "user.s3.last-error").await.ok().as_deref(), Some("access denied: no"));
}

#[tokio::test]
async fn basic_keeps_none_and_tells_of_objects() {
    let rig = Rig::with(FsSettings { metadata: MetadataMode::Basic, ..settings() }).await;
    let ino = rig.put(Ino::ROOT, "f", b"x").await;
    rig.store.take_calls();
    let refused = set(&rig, ino, "user.a", b"x").await;
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    assert!(matches!(get(&rig, ino, "user.a").await, Err(Error::NoAttribute)));
    assert_eq!(get(&rig, ino, "user.s3.state").await.ok().as_deref(), Some("stored"));
    assert_eq!((list(&rig, ino).await, rig.store.take_calls()), (vec![], vec![]));
}

#[tokio::test]
async fn a_large_file_that_goes_up_meanwhile_gets_those_that_came_late() {
    let transfer = TransferSettings { part_size: 5 << 20, ..TransferSettings::default() };
    let rig = Rig::with(FsSettings { transfer, ..settings() }).await;
    let (ino, fh) = rig.create(Ino::ROOT, "f").await;
    let block = vec![b'x'; 1 << 20];
    for number in 0..24 {
        rig.fs.write(fh, number << 20, &block).await.expect("a write");
        tokio::task::yield_now().await;
    }
    set(&rig, ino, "user.a", b"one").await.expect("set");
    rig.close(fh).await.expect("a close");
    assert_eq!(stored(&rig, "p/f").as_deref(), Some(ONE));
    assert_eq!(list(&rig, ino).await, ["user.a"]);
}

#[tokio::test]
async fn set_user_id_bits_go_with_writes_and_new_owners_where_the_kernel_leaves_that_to_us() {
    use crate::fs::SetAttributes;
    use crate::inode::OwnershipChange;
    let rig = Rig::new().await;
    let ino = rig.put(Ino::ROOT, "f", b"x").await;
    let change = |mode, uid| SetAttributes {
        ownership: OwnershipChange { mode, uid, ..Default::default() },
        ..Default::default()
    };
    for (takes, mode, after) in [(false, 0o6755, 0o6755), (true, 0o6755, 0o755), (true, 0o2744, 0o2744)] {
        rig.fs.set_takes_set_id(takes);
        rig.fs.setattr(ino, change(Some(mode), None)).await.expect("a chmod");
        let fh = rig.open(ino, WRITE).await;
        rig.fs.write(fh, 0, b"y").await.expect("a write");
        rig.close(fh).await.expect("a close");
        assert_eq!(rig.fs.getattr(ino).await.expect("attributes").ownership.mode, after, "{mode:o} written");
        rig.fs.setattr(ino, change(Some(mode), None)).await.expect("a chmod");
        let uid = rig.fs.getattr(ino).await.expect("attributes").ownership.uid + 1;
        let told = rig.fs.setattr(ino, change(None, Some(uid))).await.expect("a chown");
        assert_eq!((told.ownership.uid, told.ownership.mode), (uid, after), "{mode:o} given away");
    }
}
