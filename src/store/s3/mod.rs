//! The store on the AWS SDK.
//!
//! Owns: one bucket behind an SDK client, and what every request of it has in common. One file per family of
//! requests; `body` and `encoding` are how bytes, keys and metadata are written on the wire. Which endpoint and
//! which credentials is decided in `connect`; what an error means, in `errors`.

mod attempts;
mod body;
mod checksum;
mod copy;
mod delete;
mod encoding;
mod encryption;
mod list;
mod multipart;
mod probe;
mod read;
mod write;

pub use checksum::{Digest, Sum};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::RequestPayer;

pub(super) use attempts::Attempts;
pub(super) use encryption::Sealing;

use super::connect::ask_first;
use super::region::RegionSource;
use super::signing::BodySigning;
use super::{
    Attributes, Capabilities, Checksums, CopyRequest, GetReply, ListPage, ListRequest, ListedObject, ObjectInfo,
    ObjectStore, PartSource, PartsPage, UploadBody, UploadedPart,
};
use crate::config::ChecksumAlgorithm;
use crate::error::{Error, Result};
use crate::types::{ByteRange, DirPrefix, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

/// Slowest upload that is waited for. A body that stands still is noticed by the SDK's own watch long before.
const SLOWEST_UPLOAD: u64 = 32 << 10;

/// Longest wait for work that S3 does by itself before it answers: copying 5 GiB, joining 10,000 parts.
const SERVER_SIDE_WORK: Duration = Duration::from_secs(900);

/// One bucket, on the AWS SDK. Made by [`super::connect`].
#[derive(Debug)]
pub struct S3Store {
    pub(super) client: Client,
    pub(super) bucket: String,
    pub(super) region: String,
    pub(super) region_source: RegionSource,
    /// `None` is AWS.
    pub(super) endpoint: Option<String>,
    pub(super) requester_pays: bool,
    /// No other endpoint was asked for.
    pub(super) is_aws: bool,
    pub(super) checksums: Checksums,
    /// This store was seen to refuse uploads that name a checksum algorithm, and to take them without.
    pub(super) refuses_sums: AtomicBool,
    /// It was said that this store copies no parts into uploads with a named checksum: once is enough.
    pub(super) body_signing: BodySigning,
    pub(super) told_of_copies: AtomicBool,
    pub(super) sealing: Sealing,
    pub(super) attempts: Attempts,
    pub(super) attempt_timeout: Duration,
}

impl S3Store {
    /// Asks the bucket for one key under `prefix`: it exists, and may be listed there. A user waits for the answer: what
    /// can't be reached at all is told after two tries.
    ///
    /// # Errors
    /// `NoSuchBucket`, `AccessDenied`, `BadCredentials`, `WrongRegion`, `Unreachable`, …
    pub async fn check(&self, prefix: &DirPrefix) -> Result<()> {
        self.first_object(prefix).await.map(drop)
    }

    /// The object that this asks for, where there is one.
    ///
    /// # Errors
    /// As of `check`.
    pub async fn first_object(&self, prefix: &DirPrefix) -> Result<Option<ListedObject>> {
        let request = ListRequest { prefix: prefix.as_str().to_owned(), max_keys: 1, ..ListRequest::default() };
        let page = ask_first(async |how| self.list_page_with(request.clone(), how).await).await?;
        Ok(page.objects.into_iter().next())
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// How that region is known.
    pub fn region_source(&self) -> RegionSource {
        self.region_source
    }

    /// Where requests go; `None` is AWS.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// How far the store's clock is ahead of this machine's, in seconds, by the `Date` of its last answer; negative when it is
    /// behind. `None` before an answer, and where answers carry none.
    pub fn clock_ahead(&self) -> Option<i64> {
        self.attempts.clock_ahead()
    }

    /// How often a request was sent once more, so far.
    pub fn retries(&self) -> u64 {
        self.attempts.retries()
    }

    /// Whether uploads carry checksums at all.
    pub fn sums(&self) -> bool {
        self.algorithm().is_some()
    }

    /// Whether they carry others than CRC-64/NVME.
    pub fn sums_otherwise(&self) -> bool {
        self.algorithm().is_some_and(|algorithm| algorithm != ChecksumAlgorithm::Crc64Nvme)
    }

    /// Bodies carry sums of it. With any, whole objects are compared with theirs when they are read.
    fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        match self.checksums {
            Checksums::Off => None,
            Checksums::Bodies | Checksums::Whole => Some(ChecksumAlgorithm::Crc64Nvme),
            Checksums::Named(algorithm) => Some(algorithm),
        }
    }

    /// What was asked for by name is sent whatever the store makes of it.
    fn is_named(&self) -> bool {
        matches!(self.checksums, Checksums::Named(_))
    }

    /// Uploads of such parts name it and repeat the sums.
    fn algorithm_of_upload(&self, parts: PartSource) -> Option<ChecksumAlgorithm> {
        let summed = match self.checksums {
            Checksums::Named(_) => true,
            _ if self.refuses_sums.load(Ordering::Relaxed) => false,
            Checksums::Bodies => parts == PartSource::Bodies,
            Checksums::Whole | Checksums::Off => true,
        };
        self.algorithm().filter(|_| summed)
    }

    /// Directory buckets say so in their names (S3 User Guide, "Directory bucket naming rules").
    fn is_directory_bucket(&self) -> bool {
        self.bucket.ends_with("--x-s3")
    }

    fn payer(&self) -> Option<RequestPayer> {
        self.requester_pays.then_some(RequestPayer::Requester)
    }

    /// Configuration of a request that sends `len` bytes: its attempts may take longer than the others.
    fn sending(&self, len: u64) -> aws_sdk_s3::config::Builder {
        attempts_of(self.attempt_timeout + Duration::from_secs(len / SLOWEST_UPLOAD))
    }

    /// Configuration of a request that S3 may work on for minutes before it answers.
    fn working(&self) -> aws_sdk_s3::config::Builder {
        attempts_of(self.attempt_timeout.max(SERVER_SIDE_WORK))
    }
}

fn attempts_of(timeout: Duration) -> aws_sdk_s3::config::Builder {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(timeout).build();
    aws_sdk_s3::Config::builder().timeout_config(timeouts)
}

/// The two headers of a condition on what stands at the key: `If-Match` and `If-None-Match`.
fn conditions(expect: &Expect) -> (Option<String>, Option<String>) {
    match expect {
        Expect::Any => (None, None),
        Expect::Absent => (None, Some("*".to_owned())),
        Expect::Is(etag) => (Some(etag.quoted()), None),
    }
}

/// Whole seconds: listings of some stores carry fractions, HEAD never does, and the two must compare equal.
fn seconds(time: Option<&DateTime>) -> SystemTime {
    let seconds = time.map(DateTime::secs).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// The version of an object that was just written here.
fn written(call: &str, etag: Option<&str>, size: u64) -> Result<Version> {
    let etag = etag.ok_or_else(|| Error::Corrupt(format!("{call} was answered without an ETag")))?;
    Ok(Version { etag: ETag::parse(etag), size, modified: SystemTime::now() })
}

#[async_trait]
impl ObjectStore for S3Store {
    fn capabilities(&self) -> Capabilities {
        let of_directories = self.is_directory_bucket();
        Capabilities {
            rename: of_directories,
            ordered_listing: !of_directories,
            conditional_copy: self.is_aws && !of_directories,
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo> {
        self.head_object(key).await
    }

    async fn tags(&self, key: &ObjectKey) -> Result<Vec<(String, String)>> {
        self.get_tags(key).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        self.list_page(request).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetReply> {
        self.get_object(key, range, if_match).await
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        self.put_object(key, body, attributes, expect).await
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: &Attributes, parts: PartSource) -> Result<UploadId> {
        self.create_multipart(key, attributes, parts).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        body: UploadBody,
    ) -> Result<UploadedPart> {
        self.send_part(key, upload, number, body).await
    }

    async fn upload_part_copy(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        source: &ObjectKey,
        source_etag: &ETag,
        range: Option<ByteRange>,
    ) -> Result<UploadedPart> {
        self.copy_part(key, upload, number, source, source_etag, range).await
    }

    async fn list_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage> {
        self.list_parts_page(key, upload, after, most).await
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[UploadedPart],
        size: u64,
        crc64nvme: Option<u64>,
        expect: &Expect,
    ) -> Result<Version> {
        self.complete_multipart(key, upload, parts, size, crc64nvme, expect).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.abort_multipart(key, upload).await
    }

    async fn copy(&self, request: CopyRequest) -> Result<Version> {
        self.copy_object(request).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.delete_object(key, if_match).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Result<Vec<(ObjectKey, Error)>> {
        self.delete_objects(keys).await
    }

    async fn rename(&self, source: &ObjectKey, source_etag: &ETag, target: &ObjectKey, expect: &Expect) -> Result<()> {
        self.rename_object(source, source_etag, target, expect).await
    }
}
