//! Server-side copies: CopyObject and UploadPartCopy.
//!
//! Owns the reading of the source and its conditions. No byte is copied, bodies are shared; sums are computed only
//! where S3's result differs from the source's.

use super::checksums::{Algorithm, ETags, Hasher, Kind, Stored as StoredSum, Sums};
use super::conditions::{ReadConditions, WriteConditions};
use super::encryption::{KeyHeaders, encryption_of, key_of, source_key_of, tell_encryption};
use super::multipart::{check_number, told_sum};
use super::objects::{class_of, publish};
use super::operation::Operation;
use super::service::Shared;
use super::state::{Body, Headers, Object, Part, hex, now};
use super::upload::{MAX_PUT, headers_of, tags_of};
use hyper::HeaderMap;
use s3s::dto::*;
use s3s::{S3Error, S3Result, s3_error};
use std::ops::Range as ByteRange;
use std::sync::Arc;

/// Ranges are copied only of objects that are larger (API reference, UploadPartCopy).
const MIN_RANGED: u64 = 5 << 20;

/// Where the source is.
fn source_of(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, .. } => Ok((bucket, key)),
        _ => Err(s3_error!(NotImplemented, "Copies are from buckets only.")),
    }
}

/// The source object, if the caller may read it and its conditions hold.
fn read_source(
    shared: &Shared,
    source: &CopySource,
    key_headers: KeyHeaders<'_>,
    conditions: &ReadConditions<'_>,
) -> S3Result<Arc<Object>> {
    let (bucket, key) = source_of(source)?;
    shared.check_access(Operation::GetObject, key)?;
    let object = shared.state.get(bucket, key)?;
    object.headers.encryption.check_key(key_headers)?;
    conditions.check_source(&object)?;
    object.check_readable()?;
    Ok(object)
}

pub(super) async fn copy(
    shared: &Shared,
    mut input: CopyObjectInput,
    headers: &HeaderMap,
) -> S3Result<CopyObjectOutput> {
    let target = WriteConditions::from_headers(headers)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    let source = read_source(shared, &input.copy_source, source_key_of!(input), &conditions)?;
    if source.body.len() > MAX_PUT {
        return Err(s3_error!(
            InvalidRequest,
            "The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PUT}"
        ));
    }
    let replaces = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
    let class = input.storage_class.as_ref();
    let itself = source_of(&input.copy_source)? == (input.bucket.as_str(), input.key.as_str());
    if itself && !replaces && class.is_none_or(|class| class.as_str() == source.storage_class) {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let replaces_tags = input.tagging_directive.as_ref().is_some_and(|d| d.as_str() == TaggingDirective::REPLACE);
    let wanted = input.checksum_algorithm.as_ref().map(|name| Algorithm::parse(name.as_str())).transpose()?;
    let mut headers = if replaces {
        headers_of!(input)?
    } else {
        // A copy is encrypted as it says, or as the bucket's default.
        Headers { encryption: encryption_of!(input), ..source.headers.clone() }
    };
    headers.encryption = shared.state.lock().bucket(&input.bucket)?.applied(headers.encryption);
    let (etag, sum) = sums_of_copy(&source, wanted, headers.encryption.etags(shared.etags)).await?;
    let object = Object {
        body: source.body.clone(),
        etag,
        headers,
        storage_class: class_of(class),
        sum,
        tags: if replaces_tags { tags_of(input.tagging.as_deref()) } else { source.tags.clone() },
        ..Object::default()
    };
    let object = publish(shared, &input.bucket, &input.key, object, &target)?;
    let sum = object.sum.as_ref().map(StoredSum::dto).unwrap_or_default();
    let result = CopyObjectResult {
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        checksum_type: sum.checksum_type,
        e_tag: Some(object.etag()),
        last_modified: Some(object.modified.into()),
    };
    let mut output = CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() };
    tell_encryption!(output, &object.headers.encryption);
    Ok(output)
}

/// ETag and checksum of the copy. A copy is one piece, so that what the source has from its parts is made anew.
async fn sums_of_copy(
    source: &Object,
    wanted: Option<Algorithm>,
    etags: ETags,
) -> S3Result<(String, Option<StoredSum>)> {
    let kept = source
        .sum
        .as_ref()
        .filter(|sum| sum.kind == Kind::FullObject && wanted.is_none_or(|algorithm| algorithm == sum.algorithm));
    // The bytes of an ETag that are none of the object's are others in each version.
    let plain = source.headers.encryption.customer_md5.is_none() || etags == ETags::Md5;
    if let (Some(sum), true) = (kept, source.parts.is_empty() && plain) {
        return Ok((source.etag.clone(), Some(sum.clone())));
    }
    let algorithm = wanted.or(source.sum.as_ref().map(|sum| sum.algorithm)).unwrap_or(Algorithm::Crc64Nvme);
    let (md5, sums) = hash(source.body.clone(), Some(algorithm), etags).await?;
    Ok((hex(&md5), sums.get(&algorithm).map(|sum| StoredSum::full(algorithm, sum))))
}

/// Sums a body on a thread that may take its time.
async fn hash(body: Body, algorithm: Option<Algorithm>, etags: ETags) -> S3Result<([u8; 16], Sums)> {
    let work = move || {
        let mut hasher = Hasher::new(algorithm.as_slice(), etags);
        body.segments().iter().for_each(|segment| hasher.update(segment));
        hasher.finish()
    };
    tokio::task::spawn_blocking(work).await.map_err(S3Error::internal_error)
}

pub(super) async fn copy_part(shared: &Shared, input: &UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
    let number = check_number(input.part_number)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    let source = read_source(shared, &input.copy_source, source_key_of!(input), &conditions)?;
    let range = match input.copy_source_range.as_deref() {
        None => 0..source.body.len(),
        Some(_) if source.body.len() <= MIN_RANGED => {
            let text = "The specified copy source is not supported as a byte-range copy source";
            return Err(s3_error!(InvalidRequest, "{text}"));
        }
        Some(text) => copied_range(text, source.body.len())?,
    };
    if range.end - range.start > MAX_PUT {
        return Err(s3_error!(InvalidRequest, "The specified copy range is larger than the largest part."));
    }
    let (encryption, checksum) = {
        let mut buckets = shared.state.lock();
        let upload = buckets.bucket(&input.bucket)?.upload(&input.key, &input.upload_id)?;
        (upload.headers.encryption.clone(), upload.checksum)
    };
    encryption.check_key(key_of!(input))?;
    let algorithm = checksum.map(|(algorithm, _)| algorithm);
    let body = source.body.slice(range);
    let (md5, sums) = hash(body.clone(), algorithm, encryption.etags(shared.etags)).await?;
    let part = Part { body, md5, sums, told: algorithm, modified: now() };
    let sum = told_sum(&part).unwrap_or_default();
    let result = CopyPartResult {
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        e_tag: Some(ETag::Strong(part.etag())),
        last_modified: Some(part.modified.into()),
    };
    let mut buckets = shared.state.lock();
    buckets.bucket(&input.bucket)?.upload(&input.key, &input.upload_id)?.parts.insert(number, part);
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() })
}

/// `bytes=first-last`, both given and both inside the source.
fn copied_range(text: &str, len: u64) -> S3Result<ByteRange<u64>> {
    match Range::parse(text) {
        Ok(Range::Int { first, last: Some(last) }) if last < len => Ok(first..last + 1),
        Ok(Range::Int { last: Some(_), .. }) => {
            Err(s3_error!(InvalidArgument, "Range specified is not valid for source object of size: {len}"))
        }
        _ => Err(s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy"
        )),
    }
}
