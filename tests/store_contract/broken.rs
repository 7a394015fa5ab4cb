//! What the store makes of a server that misbehaves, denies or holds archived objects: always in this process.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pailfs::demo::{Fault, FaultKind, Operation, Server};
use pailfs::error::{Error, Result};
use pailfs::store::{
    Attributes, CopyAttributes, CopyRequest, ObjectStore, PartSource, S3Store, StoreOptions, Tags, UploadBody, connect,
};
use pailfs::types::{ByteRange, DirPrefix, Expect, ObjectKey, PartNumber, Version};

use crate::world::{collect, pattern};

/// Runs a case with a server of its own that holds the object `a`.
fn with_server(case: impl AsyncFnOnce(&Server, S3Store)) {
    let server = crate::server::start();
    let place = crate::server::in_process(&server, "broken");
    let options = StoreOptions { stall_timeout: Duration::from_secs(2), ..place.options };
    server.bucket("broken").put("a", pattern(100_000));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { case(&server, connect(&options).await.unwrap()).await });
}

fn key() -> ObjectKey {
    ObjectKey::from_store("a")
}

async fn get(store: &S3Store, range: Option<ByteRange>) -> Result<Bytes> {
    collect(store.get(&key(), range, None).await?).await
}

async fn put(store: &S3Store) -> Result<Version> {
    store.put(&key(), UploadBody::Memory("new".into()), &Attributes::default(), &Expect::Any).await
}

fn answer(status: u16, code: &str) -> FaultKind {
    FaultKind::Answer { status, code: code.to_owned() }
}

/// Credentials may be allowed to write objects and not to tag them: the bytes are worth more than the tags.
#[test]
fn an_object_whose_tags_are_refused_is_stored_without_them_and_what_follows_is_told() {
    let tags = Tags::of(vec![("team".to_owned(), "blue".to_owned())]);
    let tagged = Attributes { tags, ..Attributes::default() };
    with_server(async |server, store| {
        server.add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::PutObject).once());
        store.put(&key(), UploadBody::Memory("new".into()), &tagged, &Expect::Any).await.unwrap();
        assert_eq!(store.tags(&key()).await.unwrap(), []);
        server.add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::PutObject).once());
        let lost = store.put(&key(), UploadBody::Memory("newer".into()), &tagged, &Expect::Absent).await;
        assert!(matches!(lost, Err(Error::PreconditionFailed)), "another client's object is there: {lost:?}");
        server.add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::PutObject).times(2));
        let refused = store.put(&key(), UploadBody::Memory("newer".into()), &tagged, &Expect::Any).await;
        assert!(matches!(refused, Err(Error::AccessDenied(_))), "{refused:?}");
        server.add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::CreateMultipartUpload).once());
        store.create_upload(&key(), &tagged, PartSource::Bodies).await.unwrap();
    });
}

#[test]
fn throttling_and_lost_connections_are_tried_again() {
    with_server(async |server, store| {
        for kind in [answer(503, "SlowDown"), answer(500, "InternalError"), FaultKind::DropBeforeApply] {
            server.clear_faults();
            server.add_fault(Fault::new(kind).times(2));
            assert_eq!(store.head(&key()).await.unwrap().version.size, 100_000);
        }
        assert_eq!(server.faults_fired(), 6);
    });
}

#[test]
fn a_put_whose_reply_is_lost_is_repeated() {
    with_server(async |server, store| {
        server.add_fault(Fault::new(FaultKind::ApplyThenDrop).on(Operation::PutObject).once());
        put(&store).await.unwrap();
        assert_eq!(server.counters().requests(Operation::PutObject), 2);
        assert_eq!(server.bucket("broken").get("a").unwrap().body, "new");
    });
}

#[test]
fn a_store_that_refuses_sums_of_whole_uploads_is_used_without() {
    with_server(async |server, store| {
        server.add_fault(Fault::new(answer(400, "InvalidRequest")).on(Operation::CreateMultipartUpload).once());
        for _ in 0..2 {
            let attributes = Attributes::default();
            let upload = store.create_upload(&key(), &attributes, PartSource::Bodies).await.unwrap();
            let number = PartNumber::from_index(0).unwrap();
            let part = store.upload_part(&key(), &upload, number, UploadBody::Memory("new".into())).await.unwrap();
            assert_eq!(part.checksum, None);
            let sum = Some(crate::reading::crc(b"new"));
            store.complete_upload(&key(), &upload, &[part], 3, sum, &Expect::Any).await.unwrap();
            assert_eq!(server.bucket("broken").get("a").unwrap().body, "new");
        }
        assert_eq!(server.counters().requests(Operation::CreateMultipartUpload), 3);
    });
}

#[test]
fn an_upload_that_is_refused_either_way_tells_why() {
    with_server(async |server, store| {
        server.add_fault(Fault::new(answer(400, "InvalidStorageClass")).on(Operation::CreateMultipartUpload));
        let refused = store.create_upload(&key(), &Attributes::default(), PartSource::Bodies).await;
        assert!(matches!(refused, Err(Error::Server { status: 400, .. })), "{refused:?}");
        server.clear_faults();
        let upload = store.create_upload(&key(), &Attributes::default(), PartSource::Bodies).await.unwrap();
        let number = PartNumber::from_index(0).unwrap();
        let part = store.upload_part(&key(), &upload, number, UploadBody::Memory("new".into())).await.unwrap();
        assert!(part.checksum.is_some(), "the refusal had another reason");
    });
}

#[test]
fn overload_that_goes_on_is_told() {
    with_server(async |server, store| {
        server.add_fault(Fault::new(answer(503, "SlowDown")).on(Operation::PutObject));
        let failed = put(&store).await;
        assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
        let failed = failed.unwrap_err();
        assert!(failed.is_transient());
    });
}

#[test]
fn codes_are_read_by_their_meaning() {
    with_server(async |server, store| {
        type Check = fn(&Error) -> bool;
        let cases: [(u16, &str, Check); 14] = [
            (403, "AccessDenied", |error| matches!(error, Error::AccessDenied(_))),
            (403, "InvalidAccessKeyId", |error| matches!(error, Error::BadCredentials(_))),
            (403, "SignatureDoesNotMatch", |error| matches!(error, Error::BadCredentials(_))),
            (400, "ExpiredToken", |error| matches!(error, Error::BadCredentials(_))),
            (403, "RequestTimeTooSkewed", |error| matches!(error, Error::ClockSkew)),
            (301, "PermanentRedirect", |error| matches!(error, Error::WrongRegion(_))),
            (400, "AuthorizationHeaderMalformed", |error| matches!(error, Error::WrongRegion(_))),
            (412, "PreconditionFailed", |error| matches!(error, Error::PreconditionFailed)),
            (409, "ConditionalRequestConflict", |error| matches!(error, Error::ConcurrentWrite)),
            (409, "OperationAborted", |error| matches!(error, Error::ConcurrentWrite)),
            (404, "NoSuchBucket", |error| matches!(error, Error::NoSuchBucket)),
            (501, "NotImplemented", |error| matches!(error, Error::Unsupported("PutObject"))),
            (400, "BadDigest", |error| matches!(error, Error::Corrupt(_))),
            (418, "Teapot", |error| matches!(error, Error::Server { status: 418, .. })),
        ];
        for (status, code, fits) in cases {
            server.clear_faults();
            server.reset_counters();
            server.add_fault(Fault::new(answer(status, code)).on(Operation::PutObject));
            let error = put(&store).await.unwrap_err();
            assert!(fits(&error), "{status} {code}: {error:?}");
            assert_eq!(server.counters().requests(Operation::PutObject), 1, "{status} {code}");
        }
    });
}

#[test]
fn head_is_read_by_its_status() {
    with_server(async |server, store| {
        server.add_fault(Fault::new(answer(403, "AccessDenied")).once());
        let denied = store.head(&key()).await;
        assert!(matches!(denied, Err(Error::AccessDenied(_))), "{denied:?}");
        server.add_fault(Fault::new(answer(404, "NoSuchBucket")).once());
        let absent = store.head(&key()).await;
        assert!(matches!(absent, Err(Error::NotFound | Error::NoSuchBucket)), "{absent:?}");
        server.add_fault(Fault::new(answer(400, "ExpiredToken")).once());
        assert!(store.head(&key()).await.is_err());
    });
}

#[test]
fn a_denied_bucket_is_told() {
    with_server(async |server, store| {
        server.deny(None, "");
        let denied = store.check(&DirPrefix::normalize("")).await;
        assert!(matches!(denied, Err(Error::AccessDenied(_))), "{denied:?}");
        let denied = store.delete_many(&[key()]).await;
        let each = denied.unwrap_or_else(|error| vec![(key(), error)]);
        assert!(matches!(each.as_slice(), [(_, Error::AccessDenied(_))]), "{each:?}");
    });
}

#[test]
fn an_archived_object_is_told() {
    with_server(async |server, store| {
        server.bucket("broken").archive("a");
        let archived = get(&store, None).await;
        assert!(matches!(archived, Err(Error::Archived)), "{archived:?}");
        assert_eq!(store.head(&key()).await.unwrap().attributes.storage_class.as_deref(), Some("GLACIER"));
    });
}

#[test]
fn a_body_that_breaks_gives_its_good_bytes_first() {
    with_server(async |server, store| {
        // Each time: where the end of the connection overtakes the first bytes, the request is tried again.
        server.add_fault(Fault::new(FaultKind::CutBody { after: 30_000 }).on(Operation::GetObject));
        let reply = store.get(&key(), Some(ByteRange::new(0, 100_000)), None).await.unwrap();
        let (mut body, mut good) = (reply.body, Vec::new());
        let error = loop {
            match futures_util::StreamExt::next(&mut body).await.expect("an error before the end") {
                Ok(chunk) => good.extend_from_slice(&chunk),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        assert!(!good.is_empty() && good[..] == pattern(100_000)[..good.len()]);
        assert!(futures_util::StreamExt::next(&mut body).await.is_none());
    });
}

#[test]
fn a_body_that_stands_still_times_out() {
    with_server(async |server, store| {
        let pause = Duration::from_secs(60);
        let stall = FaultKind::StallBody { after: 30_000, pause };
        server.add_fault(Fault::new(stall).on(Operation::GetObject).once());
        let start = Instant::now();
        let late = get(&store, Some(ByteRange::new(0, 100_000))).await;
        assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
        assert!(start.elapsed() < pause);
    });
}

#[test]
fn a_wrong_range_is_not_taken_for_the_right_one() {
    with_server(async |server, store| {
        server.add_fault(Fault::new(FaultKind::WrongRange).on(Operation::GetObject).once());
        let wrong = get(&store, Some(ByteRange::new(100, 200))).await;
        assert!(matches!(wrong, Err(Error::Corrupt(_))), "{wrong:?}");
    });
}

#[test]
fn a_whole_body_is_compared_with_its_sum() {
    with_server(async |server, store| {
        put(&store).await.unwrap();
        server.add_fault(Fault::new(FaultKind::CorruptBody { at: 1 }).on(Operation::GetObject).once());
        let corrupt = get(&store, None).await;
        assert!(matches!(corrupt, Err(Error::Corrupt(_))), "{corrupt:?}");
        assert_eq!(get(&store, None).await.unwrap(), "new");
    });
}

/// S3 answers 200 before a copy is made or parts are put together, and what came of it follows; that may be cut off, or say no more
/// than that something failed.
#[test]
fn a_200_that_tells_of_no_outcome_is_an_answer_that_was_lost() {
    with_server(async |server, store| {
        for code in ["", "InternalError"] {
            server.add_fault(Fault::new(answer(200, code)).on(Operation::CopyObject));
            let etag = store.head(&key()).await.unwrap().version.etag;
            let attributes = CopyAttributes::Keep { storage_class: None, encryption: None };
            let (source, target) = (key(), ObjectKey::from_store("b"));
            let request = CopyRequest { source, source_etag: etag, target, expect: Expect::Any, attributes };
            let copied = store.copy(request).await;
            assert!(copied.as_ref().is_err_and(Error::is_transient), "{code:?}: {copied:?}");
            server.clear_faults();
        }
    });
}
