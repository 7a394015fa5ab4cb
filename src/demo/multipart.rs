//! Multipart uploads: create, part, complete, abort, and the listings of parts and uploads.
//!
//! Owns the rules of completing. They are as strict as the strictest server: MinIO wants the sums repeated when the
//! upload named an algorithm, versitygw refuses them when it named none, and a client that follows S3 pleases both.

use super::checksums::{self, Algorithm, Kind, Stored as StoredSum, encode};
use super::conditions::WriteConditions;
use super::encryption::{key_of, tell_encryption};
use super::objects::class_of;
use super::service::Shared;
use super::state::{Body, Object, Part, Upload, hex, no_such_upload, now};
use super::upload::{headers_of, receive, tags_of};
use hyper::HeaderMap;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Part as ListedPart, *};
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use std::sync::Arc;

/// The smallest part that is not the last one (S3 User Guide, "Amazon S3 multipart upload limits").
const MIN_PART: u64 = 5 << 20;

/// The highest part number.
const MAX_NUMBER: u16 = 10_000;

/// A part number of S3, or a refusal.
pub(super) fn check_number(number: i32) -> S3Result<u16> {
    u16::try_from(number)
        .ok()
        .filter(|number| (1..=MAX_NUMBER).contains(number))
        .ok_or_else(|| s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
}

pub(super) fn create(shared: &Shared, mut input: CreateMultipartUploadInput) -> S3Result<CreateMultipartUploadOutput> {
    let algorithm = input.checksum_algorithm.as_ref().map(|name| Algorithm::parse(name.as_str())).transpose()?;
    let kind = input.checksum_type.as_ref().map(Kind::parse).transpose()?;
    let checksum = match (algorithm, kind) {
        (None, Some(_)) => {
            return Err(s3_error!(InvalidRequest, "The x-amz-checksum-type header needs a checksum algorithm."));
        }
        (None, None) => None,
        (Some(algorithm), kind) => Some((algorithm, kind.unwrap_or(algorithm.default_kind()))),
    };
    if checksum.is_some_and(|(algorithm, kind)| !algorithm.allows(kind)) {
        return Err(s3_error!(InvalidRequest, "The checksum type can't be used with this checksum algorithm."));
    }
    let mut upload = Upload {
        key: input.key.clone(),
        headers: headers_of!(input)?,
        storage_class: class_of(input.storage_class.as_ref()),
        tags: tags_of(input.tagging.as_deref()),
        checksum,
        initiated: now(),
        parts: Default::default(),
    };
    let mut buckets = shared.state.lock();
    upload.headers.encryption = buckets.bucket(&input.bucket)?.applied(upload.headers.encryption);
    let encryption = upload.headers.encryption.clone();
    let id = buckets.upload_id();
    buckets.bucket(&input.bucket)?.uploads.insert(id.clone(), upload);
    let mut output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
        checksum_type: checksum.map(|(_, kind)| kind.dto()),
        ..CreateMultipartUploadOutput::default()
    };
    tell_encryption!(output, &encryption);
    Ok(output)
}

/// The sum of a part that its uploader was told, as reply fields.
pub(super) fn told_sum(part: &Part) -> Option<Checksum> {
    let algorithm = part.told?;
    Some(StoredSum::full(algorithm, part.sums.get(&algorithm)?).dto())
}

pub(super) async fn upload_part(
    shared: &Shared,
    mut input: UploadPartInput,
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<UploadPartOutput> {
    let number = check_number(input.part_number)?;
    let (encryption, checksum) = {
        let mut buckets = shared.state.lock();
        let upload = buckets.bucket(&input.bucket)?.upload(&input.key, &input.upload_id)?;
        (upload.headers.encryption.clone(), upload.checksum)
    };
    encryption.check_key(key_of!(input))?;
    let named = checksum.map(|(algorithm, _)| algorithm);
    let etags = encryption.etags(shared.etags);
    let received = receive(input.body.take(), headers, trailers, named, etags).await?;
    if named.is_some() && received.algorithm != named {
        let name = |algorithm: Option<Algorithm>| algorithm.map_or("null", Algorithm::name);
        return Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            name(named),
            name(received.algorithm)
        ));
    }
    let part =
        Part { body: received.body, md5: received.md5, sums: received.sums, told: received.algorithm, modified: now() };
    let sum = told_sum(&part).unwrap_or_default();
    let output = UploadPartOutput {
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        e_tag: Some(ETag::Strong(part.etag())),
        ..UploadPartOutput::default()
    };
    let mut buckets = shared.state.lock();
    buckets.bucket(&input.bucket)?.upload(&input.key, &input.upload_id)?.parts.insert(number, part);
    Ok(output)
}

fn invalid_part() -> S3Error {
    s3_error!(
        InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the \
         specified entity tag may not match the part's entity tag."
    )
}

/// Whether the caller's word on a part is what the server has.
fn check_part<'a>(upload: &'a Upload, named: &CompletedPart) -> S3Result<&'a Part> {
    let number = named.part_number.and_then(|number| u16::try_from(number).ok());
    let part = number.and_then(|number| upload.parts.get(&number)).ok_or_else(invalid_part)?;
    if named.e_tag.as_ref().is_none_or(|etag| etag.value() != part.etag()) {
        return Err(invalid_part());
    }
    let sums = [
        (Algorithm::Crc32, &named.checksum_crc32),
        (Algorithm::Crc32c, &named.checksum_crc32c),
        (Algorithm::Crc64Nvme, &named.checksum_crc64nvme),
        (Algorithm::Sha1, &named.checksum_sha1),
        (Algorithm::Sha256, &named.checksum_sha256),
    ];
    let repeated: Vec<_> = sums.into_iter().filter_map(|(a, sum)| sum.as_ref().map(|sum| (a, sum.clone()))).collect();
    let algorithm = upload.checksum.map(|(algorithm, _)| algorithm);
    let expected = algorithm.and_then(|a| part.sums.get(&a).map(|sum| (a, encode(sum))));
    if repeated.as_slice() != expected.as_slice() {
        return Err(invalid_part());
    }
    Ok(part)
}

/// The parts the caller names, in its order, if they can be made one object.
fn chosen<'a>(upload: &'a Upload, named: &[CompletedPart]) -> S3Result<Vec<&'a Part>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    if !named.is_sorted_by(|a, b| a.part_number < b.part_number) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
    }
    let parts = named.iter().map(|part| check_part(upload, part)).collect::<S3Result<Vec<_>>>()?;
    if parts.iter().rev().skip(1).any(|part| part.body.len() < MIN_PART) {
        return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
    }
    Ok(parts)
}

fn assemble(upload: &Upload, parts: &[&Part]) -> Object {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(&part.md5));
    let (algorithm, kind) = upload.checksum.unwrap_or((Algorithm::Crc64Nvme, Kind::FullObject));
    let sums: Vec<_> =
        parts.iter().filter_map(|p| p.sums.get(&algorithm).map(|sum| (p.body.len(), sum.as_slice()))).collect();
    Object {
        body: Body::joined(parts.iter().map(|part| &part.body)),
        etag: format!("{}-{}", hex(&md5.finalize()), parts.len()),
        headers: upload.headers.clone(),
        storage_class: upload.storage_class.clone(),
        sum: checksums::of_parts(algorithm, kind, &sums),
        parts: parts.iter().map(|part| part.body.len()).collect(),
        tags: upload.tags.clone(),
        ..Object::default()
    }
}

pub(super) fn complete(
    shared: &Shared,
    mut input: CompleteMultipartUploadInput,
    headers: &HeaderMap,
) -> S3Result<CompleteMultipartUploadOutput> {
    let conditions = WriteConditions::new(input.if_match.take(), input.if_none_match.take())?;
    let named = input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
    let mut buckets = shared.state.lock();
    let bucket = buckets.bucket(&input.bucket)?;
    if let Some((key, object)) = bucket.completed.get(&input.upload_id)
        && *key == input.key
    {
        return Ok(completed(&input, object));
    }
    let upload = bucket.upload(&input.key, &input.upload_id)?.clone();
    let parts = chosen(&upload, &named)?;
    let object = assemble(&upload, &parts);
    if input.mpu_object_size.is_some_and(|size| u64::try_from(size) != Ok(object.body.len())) {
        return Err(s3_error!(InvalidRequest, "The provided 'x-amz-mp-object-size' header does not match."));
    }
    check_whole(&object, headers)?;
    bucket.judge(&conditions, &input.key)?;
    let object = Arc::new(object);
    bucket.uploads.remove(&input.upload_id);
    bucket.completed.insert(input.upload_id.clone(), (input.key.clone(), object.clone()));
    bucket.objects.insert(input.key.clone(), object.clone());
    Ok(completed(&input, &object))
}

/// A sum of the whole object in the request is compared with what the parts give.
fn check_whole(object: &Object, headers: &HeaderMap) -> S3Result {
    let declared = checksums::whole_sum(headers)?;
    match (declared, &object.sum) {
        (Some((algorithm, text)), Some(sum)) if sum.algorithm != algorithm || sum.text != text => {
            Err(s3_error!(BadDigest, "The {} you specified did not match what we received.", algorithm.name()))
        }
        _ => Ok(()),
    }
}

fn completed(input: &CompleteMultipartUploadInput, object: &Object) -> CompleteMultipartUploadOutput {
    let sum = object.sum.as_ref().map(StoredSum::dto).unwrap_or_default();
    CompleteMultipartUploadOutput {
        bucket: Some(input.bucket.clone()),
        key: Some(input.key.clone()),
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        e_tag: Some(object.etag()),
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        checksum_type: sum.checksum_type,
        server_side_encryption: object.headers.encryption.algorithm.clone(),
        ssekms_key_id: object.headers.encryption.key.clone(),
        ..CompleteMultipartUploadOutput::default()
    }
}

pub(super) fn abort(shared: &Shared, input: &AbortMultipartUploadInput) -> S3Result<AbortMultipartUploadOutput> {
    let mut buckets = shared.state.lock();
    let bucket = buckets.bucket(&input.bucket)?;
    bucket.upload(&input.key, &input.upload_id)?;
    bucket.uploads.remove(&input.upload_id).ok_or_else(no_such_upload)?;
    Ok(AbortMultipartUploadOutput::default())
}

/// The most entries of one page of parts or uploads.
const MAX_PAGE: i32 = 1000;

fn page_size(asked: Option<i32>) -> S3Result<usize> {
    usize::try_from(asked.unwrap_or(MAX_PAGE).min(MAX_PAGE)).map_err(|_| s3_error!(InvalidArgument))
}

pub(super) fn list_parts(shared: &Shared, input: ListPartsInput) -> S3Result<ListPartsOutput> {
    let max = page_size(input.max_parts)?;
    let after = input.part_number_marker.and_then(|marker| u16::try_from(marker).ok()).unwrap_or(0);
    let mut buckets = shared.state.lock();
    let upload = buckets.bucket(&input.bucket)?.upload(&input.key, &input.upload_id)?;
    let mut rest = upload.parts.range(after.saturating_add(1)..);
    let parts: Vec<_> = rest.by_ref().take(max).map(|(number, part)| listed(*number, part)).collect();
    let truncated = rest.next().is_some();
    Ok(ListPartsOutput {
        next_part_number_marker: parts.last().and_then(|part| part.part_number).filter(|_| truncated),
        parts: Some(parts),
        is_truncated: Some(truncated),
        max_parts: i32::try_from(max).ok(),
        part_number_marker: input.part_number_marker,
        checksum_algorithm: upload.checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
        checksum_type: upload.checksum.map(|(_, kind)| kind.dto()),
        storage_class: Some(StorageClass::from(upload.storage_class.clone())),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        ..ListPartsOutput::default()
    })
}

fn listed(number: u16, part: &Part) -> ListedPart {
    let sum = told_sum(part).unwrap_or_default();
    ListedPart {
        part_number: Some(i32::from(number)),
        e_tag: Some(ETag::Strong(part.etag())),
        last_modified: Some(part.modified.into()),
        size: Some(part.body.len() as i64),
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
    }
}
