//! Going on with an upload that an earlier run had begun.

use std::sync::Arc;

use super::fake::{Call, Fake, Fault};
use super::{MIB, Rig, content};
use crate::config::TransferSettings;
use crate::error::{Error, Result};
use crate::stage::StagedFile;
use crate::store::{Attributes, ObjectStore, PartSource, UploadBody};
use crate::transfer::Target;
use crate::types::{ByteRange, Expect, ObjectKey, PartNumber, UploadId, Version};

const PART: u64 = 5 * MIB;
/// Seven parts, and some bytes.
const SIZE: u64 = 7 * PART + 100;

fn key() -> ObjectKey {
    ObjectKey::from_store("p/file")
}

fn attributes() -> Attributes {
    Attributes { metadata: [("mtime".to_owned(), "then".to_owned())].into(), ..Attributes::default() }
}

/// A staged file, and an upload that has these parts of it.
struct Left {
    rig: Rig,
    file: Arc<StagedFile>,
    id: UploadId,
}

impl Left {
    async fn with(store: Fake, up: &[u64]) -> Left {
        let settings = TransferSettings { part_size: PART, ..TransferSettings::default() };
        let rig = Rig::with(store, settings);
        let file = Arc::new(rig.stage.new_file().expect("a staged file"));
        file.write_at(0, &content(SIZE)).expect("written");
        let id = rig.store.create_upload(&key(), &attributes(), PartSource::Bodies).await.expect("begun");
        for &index in up {
            let place = ByteRange::at(index * PART, PART).intersect(ByteRange::new(0, SIZE));
            let body = UploadBody::Memory(content(SIZE).slice(place.start as usize..place.end as usize));
            let number = PartNumber::from_index(index).expect("a number");
            rig.store.upload_part(&key(), &id, number, body).await.expect("sent");
        }
        rig.store.take_calls();
        Left { rig, file, id }
    }

    async fn resume(&self) -> Result<usize> {
        let opening = self.rig.transfer.resuming(&self.file).expect("nothing is under way");
        opening.resume(Target { key: key(), attributes: attributes() }, &self.id).await
    }

    async fn upload(&self) -> Result<Version> {
        self.rig.transfer.upload(&key(), &self.file, &attributes(), &Expect::Absent).await
    }

    /// Commits the file, and tells how many parts and uploads that took.
    async fn sent(&self) -> (usize, usize) {
        let version = self.upload().await.expect("it is stored");
        assert_eq!(version.size, SIZE);
        let there = self.rig.store.bytes("p/file").expect("an object");
        assert!(there == self.file.read_at(0, SIZE as usize).expect("read"), "other bytes were stored");
        (self.rig.store.count(Call::Part), self.rig.store.count(Call::Create))
    }
}

#[tokio::test]
async fn parts_that_are_up_are_not_sent_again() {
    for (up, missing) in [(&[0, 1, 3, 4, 6, 7][..], 2), (&[0, 1, 2, 3, 4, 5, 6, 7], 0), (&[7], 7)] {
        let left = Left::with(Fake::default(), up).await;
        assert_eq!(left.resume().await.expect("told"), up.len());
        assert_eq!(left.rig.store.count(Call::ListParts), up.len().div_ceil(3), "every page is asked for");
        assert_eq!(left.sent().await, (missing, 0));
        assert_eq!(left.rig.store.attributes("p/file"), Some(attributes()));
        assert_eq!(left.rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn a_part_of_other_bytes_or_of_another_size_is_sent_again() {
    let left = Left::with(Fake::default(), &[0, 1, 2, 3, 4, 5, 6, 7]).await;
    let all = content(SIZE);
    left.rig.store.spoil_part(1, all.slice(0..PART as usize));
    left.rig.store.spoil_part(3, all.slice(3 * PART as usize..4 * PART as usize - 1));
    left.rig.store.spoil_part(7, all.slice(0..PART as usize));
    assert_eq!(left.resume().await.expect("told"), 6);
    assert_eq!(left.sent().await, (3, 0));
}

#[tokio::test]
async fn a_part_that_is_written_after_the_store_was_asked_is_sent_again() {
    let left = Left::with(Fake::default(), &[0, 1, 2, 3]).await;
    assert_eq!(left.resume().await.expect("told"), 4);
    left.file.write_at(2 * PART + 7, b"changed").expect("written");
    assert_eq!(left.sent().await, (5, 0));
}

#[tokio::test]
async fn nothing_is_taken_over_from_a_store_that_tells_no_sums() {
    let left = Left::with(Fake::without_sums_of_parts(), &[0, 1, 2]).await;
    assert_eq!(left.resume().await.expect("told"), 0);
    assert_eq!(left.sent().await, (8, 1));
}

#[tokio::test]
async fn an_upload_that_is_gone_or_must_not_be_looked_at_is_begun_anew() {
    for error in [Error::UploadGone, Error::AccessDenied("ListParts".into()), Error::Unsupported("ListParts")] {
        let left = Left::with(Fake::default(), &[0, 1, 2, 3]).await;
        left.rig.store.next(Call::ListParts, Fault::Fail(error.clone()));
        assert_eq!(left.resume().await.expect_err("refused").to_string(), error.to_string());
        assert_eq!(left.sent().await, (8, 1));
    }
}

#[tokio::test]
async fn an_upload_that_goes_while_it_is_gone_on_with_is_begun_anew() {
    for (call, error) in [
        (Call::Part, Error::UploadGone),
        (Call::Complete, Error::UploadGone),
        (Call::Complete, Error::Server { status: 400, code: "InvalidPart".into(), message: String::new() }),
        (Call::Complete, Error::Corrupt("BadDigest".into())),
    ] {
        let left = Left::with(Fake::default(), &[0, 1, 2, 3]).await;
        assert_eq!(left.resume().await.expect("told"), 4);
        left.rig.store.next(call, Fault::Fail(error));
        assert_eq!(left.sent().await.1, 1);
        super::until("nothing is left", || left.rig.store.open_uploads() == 0).await;
    }
}

#[tokio::test]
async fn a_file_that_is_called_back_leaves_no_upload() {
    let left = Left::with(Fake::default(), &[0, 1, 2, 3]).await;
    assert_eq!(left.resume().await.expect("told"), 4);
    left.rig.transfer.call_back(&left.file);
    super::until("it is aborted", || left.rig.store.open_uploads() == 0).await;
    assert_eq!(left.sent().await, (8, 1));
}

#[tokio::test]
async fn another_writers_object_is_a_conflict_for_an_upload_that_goes_on_too() {
    let left = Left::with(Fake::default(), &[0, 1, 2, 3]).await;
    assert_eq!(left.resume().await.expect("told"), 4);
    left.rig.store.set("p/file", content(9));
    assert!(matches!(left.upload().await, Err(Error::PreconditionFailed)));
    assert_eq!((left.rig.store.bytes("p/file"), left.rig.store.open_uploads()), (Some(content(9)), 0));
}
