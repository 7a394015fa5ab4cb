//! Uploading and copying.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::fake::{Call, Fake, Fault};
use super::{MIB, Rig, content, is_pending, until};
use crate::config::TransferSettings;
use crate::error::{Error, Result};
use crate::stage::StagedFile;
use crate::store::{Attributes, CopyAttributes};
use crate::types::{ETag, Expect, ObjectKey, Version};

fn key() -> ObjectKey {
    ObjectKey::from_store("p/file")
}

fn named(name: &str) -> Attributes {
    Attributes { metadata: [("mtime".to_owned(), name.to_owned())].into(), ..Attributes::default() }
}

fn staged(rig: &Rig, len: u64) -> Arc<StagedFile> {
    let file = rig.stage.new_file().expect("a staged file");
    file.write_at(0, &content(len)).expect("written");
    Arc::new(file)
}

async fn upload(rig: &Rig, file: &Arc<StagedFile>, expect: Expect) -> Result<Version> {
    rig.transfer.upload(&key(), file, &named("here"), &expect).await
}

#[tokio::test]
async fn small_files_go_up_in_one_request_and_large_ones_in_parts() {
    for (len, puts) in [(0, 1), (1, 1), (16 * MIB, 1), (16 * MIB + 1, 0), (41 * MIB, 0)] {
        let rig = Rig::new();
        let version = upload(&rig, &staged(&rig, len), Expect::Absent).await.expect("it goes up");
        assert_eq!((version.size, rig.store.count(Call::Put)), (len, puts));
        assert!(rig.store.bytes("p/file").expect("it is there") == content(len));
        assert_eq!(rig.store.attributes("p/file").expect("it is there"), named("here"));
        assert_eq!(rig.store.open_uploads(), 0);
    }
}

#[tokio::test]
async fn parts_go_up_at_once_but_not_more_than_allowed() {
    let settings = TransferSettings { part_size: 5 * MIB, concurrency: 3, ..TransferSettings::default() };
    let rig = Rig::with(Fake::default(), settings);
    upload(&rig, &staged(&rig, 40 * MIB), Expect::Any).await.expect("it goes up");
    assert_eq!(rig.store.count(Call::Part), 8);
    assert!((2..=3).contains(&rig.store.most_at_once.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn bodies_come_from_the_file_when_the_budget_is_spent() {
    let settings = TransferSettings { memory_limit: MIB, ..TransferSettings::default() };
    let rig = Rig::with(Fake::default(), settings);
    upload(&rig, &staged(&rig, 24 * MIB), Expect::Any).await.expect("it goes up");
    assert_eq!(rig.store.bodies_from_file(), 3);
    assert!(rig.store.bytes("p/file").expect("it is there") == content(24 * MIB));
    assert_eq!(rig.transfer.budget().used(), 0);
}

#[tokio::test]
async fn a_failed_upload_leaves_nothing_behind() {
    let broken = || Error::Unavailable("500".into());
    for call in [Call::Part, Call::Complete] {
        let rig = Rig::new();
        rig.store.next(call, Fault::Fail(broken()));
        let failed = upload(&rig, &staged(&rig, 24 * MIB), Expect::Any).await;
        assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
        assert_eq!((rig.store.open_uploads(), rig.store.bytes("p/file")), (0, None));
    }
}

#[tokio::test]
async fn an_upload_that_nobody_waits_for_is_aborted() {
    let rig = Rig::new();
    let file = staged(&rig, 24 * MIB);
    rig.store.next(Call::Complete, Fault::Hang);
    {
        let mut going = Box::pin(upload(&rig, &file, Expect::Any));
        while rig.store.count(Call::Complete) == 0 {
            assert!(is_pending(&mut going));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(rig.store.open_uploads(), 1);
    }
    until("the upload is aborted", || rig.store.open_uploads() == 0).await;
}

#[tokio::test]
async fn an_upload_that_nobody_waits_for_is_aborted_even_if_it_is_only_being_begun() {
    let rig = Rig::new();
    let file = staged(&rig, 24 * MIB);
    let word = Arc::new(tokio::sync::Notify::new());
    rig.store.next(Call::Create, Fault::Late(word.clone()));
    {
        let mut going = Box::pin(upload(&rig, &file, Expect::Any));
        while rig.store.open_uploads() == 0 {
            assert!(is_pending(&mut going));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // Whatever can stop has stopped.
    tokio::time::sleep(Duration::from_millis(20)).await;
    word.notify_one();
    until("the upload is aborted", || rig.store.open_uploads() == 0).await;
    assert_eq!(rig.store.count(Call::Part), 0);
}

#[tokio::test]
async fn a_concurrent_write_makes_it_begin_anew() {
    for (len, call) in [(100, Call::Put), (24 * MIB, Call::Complete)] {
        let rig = Rig::new();
        rig.store.next(call, Fault::Fail(Error::ConcurrentWrite));
        rig.store.next(call, Fault::Fail(Error::ConcurrentWrite));
        upload(&rig, &staged(&rig, len), Expect::Absent).await.expect("the third time it works");
        assert_eq!((rig.store.count(call), rig.store.open_uploads()), (3, 0));
    }
}

#[tokio::test]
async fn a_concurrent_write_that_never_ends_is_told() {
    let rig = Rig::new();
    (0..9).for_each(|_| rig.store.next(Call::Put, Fault::Fail(Error::ConcurrentWrite)));
    let failed = upload(&rig, &staged(&rig, 1), Expect::Any).await;
    assert!(matches!(failed, Err(Error::ConcurrentWrite)), "{failed:?}");
}

#[tokio::test]
async fn a_conflict_after_a_lost_reply_is_known_as_our_own_work() {
    for without_checksums in [false, true] {
        for len in [0, 100, 24 * MIB] {
            let rig = Rig::with(Fake::new(without_checksums), TransferSettings::default());
            // The store tried again by itself, and the second answer spoke of what the first one had done.
            let (call, error) = if len > 16 * MIB {
                (Call::Complete, Error::UploadGone)
            } else {
                (Call::Put, Error::PreconditionFailed)
            };
            rig.store.next(call, Fault::DoneBut(error));
            let version = upload(&rig, &staged(&rig, len), Expect::Absent).await.expect("it is our own");
            assert_eq!((version.size, rig.store.count(call)), (len, 1));
        }
    }
}

#[tokio::test]
async fn somebody_elses_object_is_a_conflict() {
    for len in [100, 24 * MIB] {
        let rig = Rig::new();
        rig.store.set("p/file", content(len + 1));
        let failed = upload(&rig, &staged(&rig, len), Expect::Absent).await;
        assert!(matches!(failed, Err(Error::PreconditionFailed)), "{failed:?}");
        assert_eq!((rig.store.bytes("p/file"), rig.store.open_uploads()), (Some(content(len + 1)), 0));
        let failed = upload(&rig, &staged(&rig, len), Expect::Is(ETag::parse("gone"))).await;
        assert!(matches!(failed, Err(Error::PreconditionFailed)), "{failed:?}");
    }
}

#[tokio::test]
async fn of_two_who_create_equal_files_one_loses() {
    let rig = Rig::new();
    rig.store.set_with("p/file", content(8), &named("elsewhere"), SystemTime::now());
    let other_metadata = upload(&rig, &staged(&rig, 8), Expect::Absent).await;
    assert!(matches!(other_metadata, Err(Error::PreconditionFailed)), "{other_metadata:?}");
    rig.store.set_with("p/file", content(8), &named("here"), SystemTime::UNIX_EPOCH);
    let long_ago = upload(&rig, &staged(&rig, 8), Expect::Absent).await;
    assert!(matches!(long_ago, Err(Error::PreconditionFailed)), "{long_ago:?}");
    rig.store.set("p/file", content(0));
    let nothing_to_tell = rig.transfer.upload(&key(), &staged(&rig, 0), &Attributes::default(), &Expect::Absent).await;
    assert!(matches!(nothing_to_tell, Err(Error::PreconditionFailed)), "{nothing_to_tell:?}");
}

#[tokio::test]
async fn a_file_with_missing_bytes_is_never_uploaded() {
    let rig = Rig::new();
    let file = Arc::new(rig.stage.over(10).expect("a staged file"));
    assert!(matches!(upload(&rig, &file, Expect::Any).await, Err(Error::Internal(_))));
    assert_eq!(rig.store.bytes("p/file"), None);
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_attributes_and_knows_its_size() {
    let rig = Rig::new();
    let source = rig.store.set_with("p/source", content(99), &named("source"), SystemTime::now());
    let from = ObjectKey::from_store("p/source");
    for (asked, found) in [(None, named("source")), (Some(CopyAttributes::Replace(named("new"))), named("new"))] {
        let made = rig.transfer.copy(&from, &source, &key(), asked, &Expect::Any).await.expect("it copies");
        assert_eq!(made.size, 99);
        assert_eq!(rig.store.attributes("p/file").expect("it is there"), found);
    }
}

#[tokio::test]
async fn a_copy_keeps_the_storage_class_and_asks_for_it_only_when_nobody_knows_it() {
    let rig = Rig::new();
    let cold = Some("STANDARD_IA".to_owned());
    let attributes = Attributes { storage_class: cold.clone(), ..named("source") };
    let source = rig.store.set_with("p/source", content(99), &attributes, SystemTime::now());
    let from = ObjectKey::from_store("p/source");
    for (asked, heads) in [(Some(CopyAttributes::keep(&attributes)), 0), (None, 1)] {
        rig.transfer.copy(&from, &source, &key(), asked, &Expect::Any).await.expect("it copies");
        assert_eq!(rig.store.attributes("p/file").expect("it is there"), attributes);
        assert_eq!(rig.store.count(Call::Head), heads);
    }
    rig.store.set("p/source", content(98));
    let changed = rig.transfer.copy(&from, &source, &key(), None, &Expect::Any).await;
    assert!(matches!(changed, Err(Error::PreconditionFailed)), "{changed:?}");
    rig.store.next(Call::Copy, Fault::Fail(Error::Archived));
    let source = rig.store.set("p/source", content(99));
    let archived = rig.transfer.copy(&from, &source, &key(), None, &Expect::Any).await;
    assert!(matches!(archived, Err(Error::Archived)), "{archived:?}");
}

#[tokio::test]
async fn a_copy_guards_source_and_target() {
    let rig = Rig::new();
    let source = rig.store.set("p/source", content(99));
    let there = rig.store.set("p/file", content(99));
    let from = ObjectKey::from_store("p/source");
    let taken = rig.transfer.copy(&from, &source, &key(), None, &Expect::Absent).await;
    assert!(matches!(taken, Err(Error::PreconditionFailed)), "{taken:?}");
    rig.transfer.copy(&from, &source, &key(), None, &Expect::Is(there.etag)).await.expect("it copies");
    rig.store.set("p/source", content(98));
    let changed = rig.transfer.copy(&from, &source, &key(), None, &Expect::Any).await;
    assert!(matches!(changed, Err(Error::PreconditionFailed)), "{changed:?}");
}

#[tokio::test]
async fn a_copy_onto_itself_whose_reply_was_lost_is_done() {
    let rig = Rig::new();
    let version = rig.store.set("p/file", content(99));
    rig.store.next(Call::Copy, Fault::DoneBut(Error::PreconditionFailed));
    let asked = Some(CopyAttributes::Replace(named("new")));
    rig.transfer.copy(&key(), &version, &key(), asked, &Expect::Is(version.etag.clone())).await.expect("it is done");
    assert_eq!(rig.store.attributes("p/file").expect("it is there"), named("new"));
}

/// The network that broke the upload breaks its end too.
#[tokio::test]
async fn an_upload_that_could_not_be_aborted_is_aborted_later_and_named_in_the_journal_until_then() {
    let settings = TransferSettings { part_size: 5 * MIB, ..TransferSettings::default() };
    let rig = Rig::with(Fake::default(), settings);
    let file = staged(&rig, 20 * MIB);
    rig.store.next(Call::Part, Fault::Fail(Error::Unavailable("test".into())));
    let word = Arc::new(tokio::sync::Notify::new());
    rig.store.next(Call::Abort, Fault::Fail(Error::Unavailable("test".into())));
    rig.store.next(Call::Abort, Fault::FailLate(word.clone(), Error::Unavailable("test".into())));
    assert!(upload(&rig, &file, Expect::Absent).await.is_err());
    assert_eq!(rig.store.open_uploads(), 1);
    assert!(file.upload().is_some(), "whoever finds the file must know of the upload");
    word.notify_one();
    until("the upload is aborted", || rig.store.open_uploads() == 0).await;
    assert!(rig.store.count(Call::Abort) >= 3);
}

#[tokio::test]
async fn uploads_leave_half_of_the_memory_to_readers() {
    let settings = TransferSettings { part_size: 5 * MIB, memory_limit: 24 * MIB, ..TransferSettings::default() };
    let rig = Rig::with(Fake::default(), settings);
    let word = Arc::new(tokio::sync::Notify::new());
    for _ in 0..8 {
        rig.store.next(Call::Part, Fault::Late(word.clone()));
    }
    let file = staged(&rig, 40 * MIB);
    let mut going = Box::pin(upload(&rig, &file, Expect::Absent));
    assert!(is_pending(&mut going));
    until("all parts are on their way", || rig.store.count(Call::Part) == 8).await;
    assert_eq!(rig.store.bodies_from_file(), 6);
    until("all of them wait", || {
        word.notify_waiters();
        !is_pending(&mut going)
    })
    .await;
}
