//! Whole objects: head, get, put, delete, tags, restore.
//!
//! Owns what these operations mean. Where a write is conditional, the condition is judged under the lock that
//! publishes it, so that of many creators one wins.

use super::checksums::{Algorithm, Stored as StoredSum};
use super::conditions::{ReadConditions, WriteConditions, check_delete};
use super::encryption::{key_of, tell_encryption};
use super::operation::Operation;
use super::service::{Shared, access_denied};
use super::state::{Body, Object, STANDARD, hex};
use super::upload::{headers_of, receive, tags_of};
use hyper::{HeaderMap, StatusCode};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Response, S3Result, TrailingHeaders, s3_error};
use std::ops::Range as ByteRange;
use std::sync::Arc;

/// Content-Type of an object that was stored without one.
const DEFAULT_TYPE: &str = "binary/octet-stream";

/// A reply that describes an object: GET and HEAD have the same fields, but no type in common.
macro_rules! describe {
    ($reply:ident, $object:expr, $view:expr, $with_sum:expr) => {{
        let (object, view): (&Object, &View) = ($object, $view);
        let sum = object.sum.as_ref().filter(|_| $with_sum && view.content_range.is_none());
        let sum = sum.map(StoredSum::dto).unwrap_or_default();
        let headers = object.headers.clone();
        $reply {
            accept_ranges: Some("bytes".to_owned()),
            cache_control: headers.cache_control,
            content_disposition: headers.content_disposition,
            content_encoding: headers.content_encoding,
            content_language: headers.content_language,
            content_length: Some((view.range.end - view.range.start) as i64),
            content_range: view.content_range.clone(),
            content_type: Some(headers.content_type.unwrap_or_else(|| DEFAULT_TYPE.to_owned())),
            e_tag: Some(object.etag()),
            expires: headers.expires,
            last_modified: Some(object.modified.into()),
            metadata: Some(headers.metadata),
            server_side_encryption: headers.encryption.algorithm,
            ssekms_key_id: headers.encryption.key,
            bucket_key_enabled: headers.encryption.bucket_key,
            sse_customer_algorithm: headers.encryption.customer_md5.as_ref().map(|_| "AES256".to_owned()),
            sse_customer_key_md5: headers.encryption.customer_md5,
            parts_count: view.parts_count,
            restore: object.restored.then(|| RESTORED.to_owned()),
            storage_class: (object.storage_class != STANDARD).then(|| StorageClass::from(object.storage_class.clone())),
            checksum_crc32: sum.checksum_crc32,
            checksum_crc32c: sum.checksum_crc32c,
            checksum_crc64nvme: sum.checksum_crc64nvme,
            checksum_sha1: sum.checksum_sha1,
            checksum_sha256: sum.checksum_sha256,
            checksum_type: sum.checksum_type,
            ..$reply::default()
        }
    }};
}

/// What HEAD says of a restored object; the date is as far away as S3's dates for ever.
const RESTORED: &str = "ongoing-request=\"false\", expiry-date=\"Fri, 31 Dec 2100 00:00:00 GMT\"";

/// The bytes of an object a request is about.
struct View {
    range: ByteRange<u64>,
    content_range: Option<String>,
    parts_count: Option<i32>,
}

impl View {
    fn of(object: &Object, range: Option<Range>, part: Option<i32>) -> S3Result<Self> {
        let len = object.body.len();
        let (range, parts_count) = match (range, part) {
            (Some(_), Some(_)) => {
                return Err(s3_error!(
                    InvalidRequest,
                    "Cannot specify both Range header and partNumber query parameter"
                ));
            }
            (None, None) => return Ok(Self { range: 0..len, content_range: None, parts_count: None }),
            (Some(range), None) => {
                let range = range.check(len).ok().filter(|range| !range.is_empty());
                (range.ok_or_else(|| invalid_range(len))?, None)
            }
            (None, Some(part)) => part_range(object, part)?,
        };
        Ok(Self { content_range: content_range(&range, len), range, parts_count })
    }

    /// Other bytes than were asked for, of the same number where the object is long enough.
    fn shifted(self, len: u64) -> Self {
        let ByteRange { start, end } = self.range;
        let range = if end < len {
            start + 1..end + 1
        } else if start > 0 {
            start - 1..end - 1
        } else {
            len.min(1)..end
        };
        Self { content_range: content_range(&range, len), range, ..self }
    }
}

/// None for no bytes at all, which no Content-Range can express.
fn content_range(range: &ByteRange<u64>, len: u64) -> Option<String> {
    (range.start < range.end).then(|| format!("bytes {}-{}/{len}", range.start, range.end - 1))
}

fn part_range(object: &Object, part: i32) -> S3Result<(ByteRange<u64>, Option<i32>)> {
    let whole = [object.body.len()];
    let (parts, count) = match object.parts.as_slice() {
        [] => (&whole[..], None),
        parts => (parts, i32::try_from(parts.len()).ok()),
    };
    let index = usize::try_from(part - 1).ok().filter(|index| *index < parts.len());
    let index = index.ok_or_else(|| {
        custom("InvalidPartNumber", StatusCode::RANGE_NOT_SATISFIABLE, "The requested partnumber is not satisfiable")
    })?;
    let start: u64 = parts[..index].iter().sum();
    Ok((start..start + parts[index], count))
}

fn invalid_range(len: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    let mut headers = HeaderMap::new();
    if let Ok(value) = format!("bytes */{len}").parse() {
        headers.insert(hyper::header::CONTENT_RANGE, value);
    }
    headers.insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/xml"));
    error.set_headers(headers);
    error
}

/// An error that the generated list of codes does not have.
pub(super) fn custom(code: &'static str, status: StatusCode, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

fn wants_sums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str().eq_ignore_ascii_case(ChecksumMode::ENABLED))
}

fn reply<T>(output: T, view: &View) -> S3Response<T> {
    match view.content_range {
        Some(_) => S3Response::with_status(output, StatusCode::PARTIAL_CONTENT),
        None => S3Response::new(output),
    }
}

/// The bytes of an object; `wrong` answers another range.
pub(super) fn get(shared: &Shared, input: &GetObjectInput, wrong: bool) -> S3Result<S3Response<GetObjectOutput>> {
    let object = shared.state.get(&input.bucket, &input.key)?;
    object.headers.encryption.check_key(key_of!(input))?;
    let conditions = ReadConditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    conditions.check_read(&object)?;
    object.check_readable()?;
    let mut view = View::of(&object, input.range, input.part_number)?;
    if wrong {
        view = view.shifted(object.body.len());
    }
    let mut output = describe!(GetObjectOutput, &object, &view, wants_sums(input.checksum_mode.as_ref()));
    output.tag_count = Some(object.tags.len() as i32).filter(|count| *count > 0);
    output.body = Some(stream(&object.body.slice(view.range.clone())));
    Ok(reply(output, &view))
}

fn stream(body: &Body) -> StreamingBlob {
    let segments = body.segments().to_vec().into_iter().map(Ok::<_, std::convert::Infallible>);
    StreamingBlob::wrap(futures_util::stream::iter(segments))
}

pub(super) fn head(shared: &Shared, input: &HeadObjectInput) -> S3Result<S3Response<HeadObjectOutput>> {
    let object = shared.state.get(&input.bucket, &input.key)?;
    object.headers.encryption.check_key(key_of!(input))?;
    let conditions = ReadConditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    conditions.check_read(&object)?;
    let view = View::of(&object, input.range, input.part_number)?;
    let output = describe!(HeadObjectOutput, &object, &view, wants_sums(input.checksum_mode.as_ref()));
    let mut answer = reply(output, &view);
    if !object.tags.is_empty() {
        // The model of HEAD lacks it.
        answer.headers.insert("x-amz-tagging-count", object.tags.len().into());
    }
    Ok(answer)
}

pub(super) async fn put(
    shared: &Shared,
    mut input: PutObjectInput,
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<PutObjectOutput> {
    let conditions = WriteConditions::new(input.if_match.take(), input.if_none_match.take())?;
    let mut stored = headers_of!(input)?;
    stored.encryption = shared.state.lock().bucket(&input.bucket)?.applied(stored.encryption);
    let etags = stored.encryption.etags(shared.etags);
    let received = receive(input.body.take(), headers, trailers, None, etags).await?;
    let algorithm = received.algorithm.unwrap_or(Algorithm::Crc64Nvme);
    let sum = received.sums.get(&algorithm).map(|sum| StoredSum::full(algorithm, sum));
    let object = Object {
        body: received.body,
        etag: hex(&received.md5),
        headers: stored,
        storage_class: class_of(input.storage_class.as_ref()),
        sum,
        tags: tags_of(input.tagging.as_deref()),
        ..Object::default()
    };
    let mut output = PutObjectOutput { e_tag: Some(object.etag()), ..PutObjectOutput::default() };
    tell_encryption!(output, &object.headers.encryption);
    if let Some(sum) = object.sum.as_ref().map(StoredSum::dto) {
        output.checksum_crc32 = sum.checksum_crc32;
        output.checksum_crc32c = sum.checksum_crc32c;
        output.checksum_crc64nvme = sum.checksum_crc64nvme;
        output.checksum_sha1 = sum.checksum_sha1;
        output.checksum_sha256 = sum.checksum_sha256;
        output.checksum_type = sum.checksum_type;
    }
    publish(shared, &input.bucket, &input.key, object, &conditions)?;
    Ok(output)
}

/// The class a request names, or the default one.
pub(super) fn class_of(class: Option<&StorageClass>) -> String {
    class.map_or(STANDARD, StorageClass::as_str).to_owned()
}

/// Puts an object in its place if the conditions hold at that moment.
pub(super) fn publish(
    shared: &Shared,
    bucket: &str,
    key: &str,
    object: Object,
    conditions: &WriteConditions,
) -> S3Result<Arc<Object>> {
    let mut buckets = shared.state.lock();
    let bucket = buckets.bucket(bucket)?;
    bucket.judge(conditions, key)?;
    let object = Arc::new(object);
    bucket.objects.insert(key.to_owned(), object.clone());
    Ok(object)
}

pub(super) fn delete(shared: &Shared, input: &DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
    let mut buckets = shared.state.lock();
    let bucket = buckets.bucket(&input.bucket)?;
    check_delete(input.if_match.as_ref(), bucket.objects.get(&input.key).map(Arc::as_ref))?;
    bucket.objects.remove(&input.key);
    Ok(DeleteObjectOutput::default())
}

/// The most keys one DeleteObjects takes.
const MAX_DELETES: usize = 1000;

pub(super) fn delete_many(shared: &Shared, input: &DeleteObjectsInput) -> S3Result<DeleteObjectsOutput> {
    if input.delete.objects.is_empty() || input.delete.objects.len() > MAX_DELETES {
        return Err(s3_error!(MalformedXML, "The list of objects must have between 1 and 1000 entries."));
    }
    let mut buckets = shared.state.lock();
    let bucket = buckets.bucket(&input.bucket)?;
    let quiet = input.delete.quiet.unwrap_or(false);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in &input.delete.objects {
        let condition = object.e_tag.clone().map(ETagCondition::ETag);
        let allowed = if shared.faults.is_denied(Operation::DeleteObject, &object.key) {
            Err(access_denied())
        } else {
            check_delete(condition.as_ref(), bucket.objects.get(&object.key).map(Arc::as_ref))
        };
        let key = Some(object.key.clone());
        match allowed {
            Ok(()) => {
                bucket.objects.remove(&object.key);
                deleted.extend((!quiet).then(|| DeletedObject { key, ..DeletedObject::default() }));
            }
            Err(error) => errors.push(s3s::dto::Error {
                code: Some(error.code().as_str().to_owned()),
                key,
                message: error.message().map(str::to_owned),
                version_id: None,
            }),
        }
    }
    Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..DeleteObjectsOutput::default() })
}

/// Changes what is kept beside the bytes of an object, in place.
fn change(shared: &Shared, bucket: &str, key: &str, change: impl FnOnce(&mut Object) -> S3Result) -> S3Result {
    let mut buckets = shared.state.lock();
    let object = buckets.bucket(bucket)?.objects.get_mut(key).ok_or_else(|| s3_error!(NoSuchKey))?;
    change(Arc::make_mut(object))
}

pub(super) fn get_tags(shared: &Shared, input: &GetObjectTaggingInput) -> S3Result<GetObjectTaggingOutput> {
    let object = shared.state.get(&input.bucket, &input.key)?;
    let tag_set = object.tags.iter().map(|(k, v)| Tag { key: Some(k.clone()), value: Some(v.clone()) }).collect();
    Ok(GetObjectTaggingOutput { tag_set, version_id: None })
}

pub(super) fn put_tags(shared: &Shared, input: PutObjectTaggingInput) -> S3Result<PutObjectTaggingOutput> {
    let tags = input.tagging.tag_set.into_iter();
    let tags = tags.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())).collect();
    change(shared, &input.bucket, &input.key, |object| {
        object.tags = tags;
        Ok(())
    })?;
    Ok(PutObjectTaggingOutput::default())
}

pub(super) fn delete_tags(shared: &Shared, input: &DeleteObjectTaggingInput) -> S3Result<DeleteObjectTaggingOutput> {
    change(shared, &input.bucket, &input.key, |object| {
        object.tags.clear();
        Ok(())
    })?;
    Ok(DeleteObjectTaggingOutput::default())
}

/// A restore is done at once.
pub(super) fn restore(shared: &Shared, input: &RestoreObjectInput) -> S3Result<S3Response<RestoreObjectOutput>> {
    change(shared, &input.bucket, &input.key, |object| {
        if !object.is_archived() {
            return Err(s3_error!(InvalidObjectState, "Restore is not allowed for the object's current storage class"));
        }
        object.restored = true;
        Ok(())
    })?;
    Ok(S3Response::with_status(RestoreObjectOutput::default(), StatusCode::ACCEPTED))
}
