//! Multipart uploads.

use pailfs::config::ChecksumAlgorithm;
use pailfs::error::{Error, Result};
use pailfs::store::{Attributes, ListedPart, PartSource, Sum, UploadBody, UploadedPart};
use pailfs::types::{ByteRange, ETag, Expect, PartNumber, UploadId, Version};

use crate::reading::crc;
use crate::world::{Ability, World, on_every_store, pattern};

/// Least size of a part that is not the last.
const PART: usize = 5 << 20;

async fn start(world: &World) -> UploadId {
    start_of(world, PartSource::Bodies).await
}

async fn start_of(world: &World, parts: PartSource) -> UploadId {
    world.store.create_upload(&world.key("a"), &Attributes::default(), parts).await.unwrap()
}

async fn send(world: &World, upload: &UploadId, index: u64, bytes: &[u8]) -> Result<UploadedPart> {
    let number = PartNumber::from_index(index).unwrap();
    let body = UploadBody::Memory(bytes.to_vec().into());
    world.store.upload_part(&world.key("a"), upload, number, body).await
}

/// Uploads `bytes` in parts of the least size, up to the completion.
async fn parts_of(world: &World, upload: &UploadId, bytes: &[u8]) -> Vec<UploadedPart> {
    let mut parts = Vec::new();
    for (index, chunk) in bytes.chunks(PART).enumerate() {
        parts.push(send(world, upload, index as u64, chunk).await.unwrap());
    }
    parts
}

async fn complete(
    world: &World,
    upload: &UploadId,
    parts: &[UploadedPart],
    bytes: &[u8],
    expect: &Expect,
) -> Result<Version> {
    let size = bytes.len() as u64;
    world.store.complete_upload(&world.key("a"), upload, parts, size, Some(crc(bytes)), expect).await
}

#[test]
fn parts_become_one_object_with_its_attributes() {
    on_every_store(|world| async move {
        let bytes = pattern(2 * PART + 12345);
        let attributes = Attributes {
            metadata: [("file-mode".to_owned(), "0600".to_owned())].into(),
            content_type: Some("image/png".into()),
            ..Attributes::default()
        };
        let upload = world.store.create_upload(&world.key("a"), &attributes, PartSource::Bodies).await.unwrap();
        let parts = parts_of(&world, &upload, &bytes).await;
        assert!(!world.exists("a").await);
        let version = complete(&world, &upload, &parts, &bytes, &Expect::Any).await.unwrap();
        let info = world.store.head(&world.key("a")).await.unwrap();
        assert!(info.version.same_bytes(&version));
        assert_eq!(info.crc64nvme, Some(crc(&bytes)), "the store knows the sum of the whole");
        assert_eq!(info.attributes.metadata, attributes.metadata);
        assert_eq!(info.attributes.content_type, attributes.content_type);
        assert!(world.bytes("a").await == bytes);
        let seam = ByteRange::at(PART as u64 - 10, 20);
        let reply = world.store.get(&world.key("a"), Some(seam), Some(&version.etag)).await.unwrap();
        assert!(crate::world::collect(reply).await.unwrap() == bytes[PART - 10..PART + 10]);
    });
}

#[test]
fn a_part_may_be_sent_again() {
    on_every_store(|world| async move {
        let bytes = pattern(PART + 10);
        let upload = start(&world).await;
        send(&world, &upload, 0, &vec![0; PART]).await.unwrap();
        let parts = parts_of(&world, &upload, &bytes).await;
        complete(&world, &upload, &parts, &bytes, &Expect::Any).await.unwrap();
        assert!(world.bytes("a").await == bytes);
    });
}

#[test]
fn parts_that_are_up_are_told_page_by_page_and_make_the_object() {
    on_every_store(|world| async move {
        let bytes = pattern(3 * PART + 10);
        let upload = start(&world).await;
        send(&world, &upload, 1, &vec![0; PART]).await.unwrap();
        let sent = parts_of(&world, &upload, &bytes).await;
        let (mut told, mut after) = (Vec::new(), None);
        for wanted in [3, 1] {
            let page = world.store.list_parts(&world.key("a"), &upload, after, 3).await.unwrap();
            assert_eq!(page.parts.len(), wanted);
            told.extend(page.parts);
            after = page.next;
        }
        assert_eq!(after, None);
        let all = world.store.list_parts(&world.key("a"), &upload, None, 0).await.unwrap();
        assert_eq!((&all.parts, all.next), (&told, None));
        for ((part, sent), chunk) in told.iter().zip(&sent).zip(bytes.chunks(PART)) {
            assert_eq!((part.number, &part.etag, part.size), (sent.number, &sent.etag, chunk.len() as u64));
            let sum = Sum::of(ChecksumAlgorithm::Crc64Nvme, chunk);
            assert_eq!(part.sum.as_ref(), Some(&sum));
        }
        let again = |part: &ListedPart| UploadedPart {
            number: part.number,
            etag: part.etag.clone(),
            size: part.size,
            checksum: part.sum.as_ref().map(|sum| sum.text.clone()),
        };
        let parts: Vec<_> = told.iter().map(again).collect();
        complete(&world, &upload, &parts, &bytes, &Expect::Absent).await.unwrap();
        assert!(world.bytes("a").await == bytes);
        let late = world.store.list_parts(&world.key("a"), &upload, None, 0).await;
        assert!(matches!(late, Err(Error::UploadGone)), "{late:?}");
    });
}

#[test]
fn an_upload_without_parts_tells_none() {
    on_every_store(|world| async move {
        let upload = start(&world).await;
        let page = world.store.list_parts(&world.key("a"), &upload, None, 0).await.unwrap();
        assert_eq!((page.parts, page.next), (Vec::new(), None));
        world.store.abort_upload(&world.key("a"), &upload).await.unwrap();
        let gone = world.store.list_parts(&world.key("a"), &upload, None, 0).await;
        assert!(matches!(gone, Err(Error::UploadGone)), "{gone:?}");
    });
}

#[test]
fn parts_are_copied_from_other_objects() {
    on_every_store(|world| async move {
        if world.sums_copies && !world.has(Ability::PartCopiesInSummedUploads) {
            return;
        }
        let mut bytes = pattern(PART + 1000);
        let source = world.put("source +%é", bytes.clone()).await;
        let upload = start_of(&world, PartSource::Copies).await;
        let range = Some(ByteRange::new(0, PART as u64));
        let (target, from) = (world.key("a"), world.key("source +%é"));
        let number = PartNumber::from_index(0).unwrap();
        let wrong = ETag::parse("0123456789abcdef0123456789abcdef");
        let refused = world.store.upload_part_copy(&target, &upload, number, &from, &wrong, range).await;
        assert!(matches!(refused, Err(Error::PreconditionFailed)), "{refused:?}");
        let copied = world.store.upload_part_copy(&target, &upload, number, &from, &source.etag, range).await.unwrap();
        let tail = send(&world, &upload, 1, b"appended").await.unwrap();
        bytes.truncate(PART);
        bytes.extend_from_slice(b"appended");
        complete(&world, &upload, &[copied, tail], &bytes, &Expect::Any).await.unwrap();
        assert!(world.bytes("a").await == bytes);
    });
}

#[test]
fn a_small_object_is_copied_as_a_whole_where_nothing_stands() {
    on_every_store(|world| async move {
        if world.sums_copies && !world.has(Ability::PartCopiesInSummedUploads) {
            return;
        }
        let source = world.put("source", "bytes").await;
        let (target, from, number) = (world.key("a"), world.key("source"), PartNumber::from_index(0).unwrap());
        for is_there in [false, true] {
            let upload = start_of(&world, PartSource::Copies).await;
            let part = world.store.upload_part_copy(&target, &upload, number, &from, &source.etag, None).await.unwrap();
            let done = complete(&world, &upload, &[part], b"bytes", &Expect::Absent).await;
            match is_there {
                false => drop(done.unwrap()),
                true => assert!(matches!(done, Err(Error::PreconditionFailed)), "{done:?}"),
            }
            assert_eq!(world.bytes("a").await, "bytes");
        }
    });
}

#[test]
fn a_completion_is_guarded() {
    on_every_store(|world| async move {
        let bytes = pattern(PART + 10);
        let there = world.put("a", "there").await;
        let upload = start(&world).await;
        let parts = parts_of(&world, &upload, &bytes).await;
        let refused = complete(&world, &upload, &parts, &bytes, &Expect::Absent).await;
        assert!(matches!(refused, Err(Error::PreconditionFailed)), "{refused:?}");
        let wrong = Expect::Is(ETag::parse("0123456789abcdef0123456789abcdef"));
        let refused = complete(&world, &upload, &parts, &bytes, &wrong).await;
        assert!(matches!(refused, Err(Error::PreconditionFailed)), "{refused:?}");
        assert_eq!(world.bytes("a").await, "there");
        complete(&world, &upload, &parts, &bytes, &Expect::Is(there.etag)).await.unwrap();
        assert!(world.bytes("a").await == bytes);
    });
}

#[test]
fn a_wrong_sum_of_the_whole_is_refused() {
    on_every_store(|world| async move {
        let bytes = pattern(PART + 10);
        let upload = start(&world).await;
        let parts = parts_of(&world, &upload, &bytes).await;
        let size = bytes.len() as u64;
        let sum = Some(crc(&bytes) ^ 1);
        let refused = world.store.complete_upload(&world.key("a"), &upload, &parts, size, sum, &Expect::Any).await;
        assert!(refused.is_err(), "{refused:?}");
        assert!(!world.exists("a").await);
        world.store.abort_upload(&world.key("a"), &upload).await.unwrap();
    });
}

#[test]
fn an_aborted_upload_is_gone() {
    on_every_store(|world| async move {
        let bytes = pattern(1000);
        let upload = start(&world).await;
        let parts = parts_of(&world, &upload, &bytes).await;
        for _ in 0..2 {
            world.store.abort_upload(&world.key("a"), &upload).await.unwrap();
        }
        let late = send(&world, &upload, 0, &bytes).await;
        assert!(matches!(late, Err(Error::UploadGone)), "{late:?}");
        let late = complete(&world, &upload, &parts, &bytes, &Expect::Any).await;
        assert!(matches!(late, Err(Error::UploadGone)), "{late:?}");
        assert!(!world.exists("a").await);
    });
}
