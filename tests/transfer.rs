//! Transfers through the real client against the in-process server, with the faults that a network has.
#![cfg(feature = "demo")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pailfs::config::{ChecksumAlgorithm, TransferSettings};
use pailfs::demo::{Bucket, Fault, FaultKind, Operation, Server, ServerOptions};
use pailfs::error::Error;
use pailfs::stage::{Stage, StagedFile};
use pailfs::store::{AccessKeys, Attributes, Checksums, ObjectStore, StoreOptions, connect};
use pailfs::transfer::{Cursor, Need, Transfer};
use pailfs::types::{ByteRange, Expect, ObjectKey};
use tokio::runtime::Handle;

const MIB: u64 = 1 << 20;

/// A server with a bucket, transfers to it, and a stage.
struct Rig {
    server: Server,
    bucket: Bucket,
    store: Arc<dyn ObjectStore>,
    transfer: Arc<Transfer>,
    stage: Stage,
    _root: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(checksums: Option<Checksums>) -> Self {
        let server = Server::start(ServerOptions::default()).expect("the server starts");
        let bucket = server.bucket("bucket");
        let keys = AccessKeys { access_key: server.access_key().into(), secret_key: server.secret_key().into() };
        let options = StoreOptions {
            bucket: "bucket".into(),
            region: Some(server.region().into()),
            endpoint_url: Some(server.endpoint()),
            keys: Some(keys),
            checksums,
            ..StoreOptions::default()
        };
        let store: Arc<dyn ObjectStore> = Arc::new(connect(&options).await.expect("it connects"));
        let transfer = Transfer::new(store.clone(), TransferSettings::default(), Handle::current());
        let root = tempfile::tempdir().expect("a temporary directory");
        let (stage, _) = Stage::open(&root.path().join("stage"), "test").expect("the stage opens");
        Rig { server, bucket, store, transfer, stage, _root: root }
    }

    async fn read(&self, step: u64) -> Bytes {
        let info = self.store.head(&key()).await.expect("it is there");
        let (size, cursor) = (info.version.size, Cursor::default());
        let reader = self.transfer.reader(key(), info.version);
        let mut all = Vec::new();
        while (all.len() as u64) < size {
            let range = ByteRange::at(all.len() as u64, step);
            all.extend_from_slice(&reader.read(&cursor, range).await.expect("it reads"));
        }
        all.into()
    }

    fn staged(&self, bytes: &Bytes) -> Arc<StagedFile> {
        let file = self.stage.new_file().expect("a staged file");
        file.write_at(0, bytes).expect("written");
        Arc::new(file)
    }
}

fn key() -> ObjectKey {
    ObjectKey::from_store("p/file")
}

/// Bytes of which no two stretches are alike.
fn content(len: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(len as usize + 8);
    for word in 0..len.div_ceil(8) {
        bytes.extend_from_slice(&word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes.into()
}

fn lossy(kind: FaultKind, operation: Operation, probability: f64) -> Fault {
    Fault::new(kind).on(operation).probability(probability)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_up_comes_down_the_same() {
    let rig = Rig::new().await;
    for len in [0, 1, 3 * MIB + 1, 40 * MIB + 5] {
        let bytes = content(len);
        let attributes = Attributes { content_type: Some("text/plain".into()), ..Attributes::default() };
        let made =
            rig.transfer.upload(&key(), &rig.staged(&bytes), &attributes, &Expect::Any).await.expect("it goes up");
        let found = rig.store.head(&key()).await.expect("it is there");
        assert!(made.same_bytes(&found.version), "{made:?} {found:?}");
        assert_eq!(found.attributes.content_type.as_deref(), Some("text/plain"));
        assert!(rig.read(128 << 10).await == bytes, "{len} bytes");
    }
    assert!(rig.bucket.uploads().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_all_the_time_still_carries_the_file() {
    let (rig, bytes) = (Rig::new().await, content(30 * MIB + 3));
    rig.server.add_fault(lossy(FaultKind::CutBody { after: 700_000 }, Operation::GetObject, 0.3));
    rig.server.add_fault(lossy(FaultKind::WrongRange, Operation::GetObject, 0.1));
    rig.server.add_fault(lossy(FaultKind::DropBeforeApply, Operation::UploadPart, 0.3));
    rig.transfer
        .upload(&key(), &rig.staged(&bytes), &Attributes::default(), &Expect::Absent)
        .await
        .expect("it goes up");
    assert!(rig.read(100_000).await == bytes);
    let info = rig.store.head(&key()).await.expect("it is there");
    let file = Arc::new(rig.stage.over(info.version.size).expect("a staged file"));
    let all = ByteRange::new(0, info.version.size);
    rig.transfer.hydrate(&key(), &info.version, &file, all, Need::Must).await.expect("it hydrates");
    assert!(file.is_complete());
    assert!(file.read_at(0, bytes.len()).expect("read") == bytes);
    assert!(rig.server.faults_fired() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_to_the_last_request_of_an_upload_is_no_conflict() {
    let metadata = [("file-mtime".to_owned(), "1700000000000000001ns".to_owned())].into();
    let attributes = Attributes { metadata, ..Attributes::default() };
    let gone = FaultKind::ApplyThenAnswer { status: 404, code: "NoSuchUpload".into() };
    for (len, operation, fault, heads) in [
        (1000, Operation::PutObject, FaultKind::ApplyThenDrop, 1),
        // Completing twice is no error of its own, while the store remembers the first time.
        (20 * MIB, Operation::CompleteMultipartUpload, FaultKind::ApplyThenDrop, 0),
        (20 * MIB, Operation::CompleteMultipartUpload, gone, 1),
    ] {
        let (rig, bytes) = (Rig::new().await, content(len));
        rig.server.add_fault(Fault::new(fault).on(operation).once());
        rig.transfer.upload(&key(), &rig.staged(&bytes), &attributes, &Expect::Absent).await.expect("it is our own");
        assert_eq!(rig.server.faults_fired(), 1);
        assert!(rig.bucket.get("p/file").expect("it is there").body == bytes);
        assert!(rig.bucket.uploads().is_empty());
        let requests = |operation| rig.server.counters().requests(operation);
        let looks = (requests(Operation::HeadObject), requests(Operation::GetObject));
        assert_eq!(looks, (heads, 0), "the checksum is enough to know it again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_reply_was_lost_is_known_again_whatever_sums_go_with_it() {
    let metadata = [("file-mtime".to_owned(), "1700000000000000001ns".to_owned())].into();
    let attributes = Attributes { metadata, ..Attributes::default() };
    let gone = FaultKind::ApplyThenAnswer { status: 404, code: "NoSuchUpload".into() };
    // What S3 tells of other sums says nothing of ours: the object is read.
    for (checksums, gets) in [
        (Checksums::Named(ChecksumAlgorithm::Crc64Nvme), 0),
        (Checksums::Named(ChecksumAlgorithm::Crc32c), 1),
        (Checksums::Named(ChecksumAlgorithm::Sha256), 1),
        (Checksums::Off, 1),
    ] {
        for (len, operation, fault) in [
            (1000, Operation::PutObject, FaultKind::ApplyThenDrop),
            (20 * MIB, Operation::CompleteMultipartUpload, gone.clone()),
        ] {
            let (rig, bytes) = (Rig::with(Some(checksums)).await, content(len));
            rig.server.add_fault(Fault::new(fault.clone()).on(operation).once());
            rig.transfer.upload(&key(), &rig.staged(&bytes), &attributes, &Expect::Absent).await.expect("our own");
            assert!(rig.bucket.get("p/file").expect("it is there").body == bytes);
            assert_eq!(rig.server.counters().requests(Operation::GetObject), gets, "{checksums:?}");
            // Another's of the same size is not taken for it.
            let (rig, other) = (Rig::with(Some(checksums)).await, bytes.iter().map(|byte| !byte).collect::<Vec<_>>());
            let theirs = attributes.metadata.clone();
            rig.bucket.put_with("p/file", other, theirs);
            let lost = rig.transfer.upload(&key(), &rig.staged(&bytes), &attributes, &Expect::Absent).await;
            assert!(matches!(lost, Err(Error::PreconditionFailed)), "{checksums:?}: {lost:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_upload_leaves_no_parts_in_the_bucket() {
    let rig = Rig::new().await;
    let refused = FaultKind::Answer { status: 403, code: "AccessDenied".into() };
    rig.server.add_fault(Fault::new(refused).on(Operation::UploadPart).skip(2));
    let file = rig.staged(&content(40 * MIB));
    rig.transfer.upload(&key(), &file, &Attributes::default(), &Expect::Any).await.expect_err("it is refused");
    assert!(rig.bucket.uploads().is_empty());
    assert!(rig.bucket.get("p/file").is_none());
}

/// Some servers make an upload again for a part that comes after its abort.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_a_late_part_brings_back_is_aborted_again() {
    let rig = Rig::new().await;
    let refused = FaultKind::Answer { status: 403, code: "AccessDenied".into() };
    let still_there = FaultKind::Answer { status: 204, code: "None".into() };
    rig.server.add_fault(Fault::new(refused).on(Operation::UploadPart).skip(1));
    rig.server.add_fault(Fault::new(still_there).on(Operation::AbortMultipartUpload).once());
    let file = rig.staged(&content(40 * MIB));
    rig.transfer.upload(&key(), &file, &Attributes::default(), &Expect::Any).await.expect_err("it is refused");
    rig.transfer.uploads_gone(Duration::from_secs(60)).await;
    assert!(rig.bucket.uploads().is_empty());
    assert_eq!(rig.server.counters().requests(Operation::AbortMultipartUpload), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_which_no_part_is_on_its_way_is_aborted_once() {
    let rig = Rig::new().await;
    rig.bucket.put("p/file", "theirs");
    let file = rig.staged(&content(40 * MIB));
    rig.transfer.upload(&key(), &file, &Attributes::default(), &Expect::Absent).await.expect_err("it is a conflict");
    rig.transfer.uploads_gone(Duration::from_secs(60)).await;
    assert!(rig.bucket.uploads().is_empty());
    assert_eq!(rig.server.counters().requests(Operation::AbortMultipartUpload), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_body_is_left_for_another_one() {
    let (rig, bytes) = (Rig::new().await, content(2 * MIB));
    rig.bucket.put("p/file", bytes.clone());
    let silent = FaultKind::StallBody { after: 300_000, pause: Duration::from_secs(600) };
    rig.server.add_fault(Fault::new(silent).on(Operation::GetObject).once());
    let read = tokio::time::timeout(Duration::from_secs(60), rig.read(128 << 10)).await;
    assert!(read.expect("it does not wait for ever") == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_keeps_the_bytes_and_what_travels_with_them() {
    let rig = Rig::new().await;
    rig.bucket.put_with("p/source", content(5000), [("a".to_owned(), "b".to_owned())].into());
    let source = ObjectKey::from_store("p/source");
    let info = rig.store.head(&source).await.expect("it is there");
    let made = rig.transfer.copy(&source, &info.version, &key(), None, &Expect::Absent).await.expect("it copies");
    let found = rig.bucket.get("p/file").expect("it is there");
    assert_eq!((made.size, found.metadata.get("a").map(String::as_str)), (5000, Some("b")));
    assert!(found.body == content(5000));
}
