//! S3 objects, and nothing about files.
//!
//! Owns: the [`ObjectStore`] seam, its implementation on the AWS SDK, and the decorators around it
//! (concurrency limit, accounting, faults). It is the only place that names the SDK and the only one that
//! reads its errors. Knows nothing of inodes, handles, staged files or the kernel; never retries what a
//! caller must decide (a 412, a 409).

mod attributes;
mod base64;
mod connect;
mod counted;
mod create;
mod credentials;
mod customer_key;
mod errors;
mod faulty;
mod limited;
mod operation;
mod outcome;
mod region;
mod renew;
mod s3;
mod signing;
mod trust;

use std::collections::BTreeMap;
use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::error::Result;
use crate::types::{ByteRange, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

pub use attributes::{Encryption, Requested, Tags};
pub use base64::{from_base64, to_base64};
pub use connect::{AccessKeys, Checksums, StoreOptions, connect};
pub use counted::{Count, Counted, Counts};
pub use create::{Made, create_bucket};
pub use credentials::{FoundCredentials, find_credentials};
pub use customer_key::CustomerKey;
pub use faulty::{Fault, FaultKind, Faulty};
pub use limited::Limited;
pub use operation::Operation;
pub use outcome::Outcome;
pub use region::{RegionSource, region_in_name};
pub use s3::{Digest, S3Store, Sum};

/// User metadata (`x-amz-meta-*`): lower-case names without that prefix, at most 2 KiB in all.
pub type UserMetadata = BTreeMap<String, String>;

/// What travels with an object's bytes when it is written, and is kept when it is rewritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// User metadata.
    pub metadata: UserMetadata,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, without the `aws-chunked` token that some stores leave in it.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `x-amz-storage-class`; `None` is the bucket's default (STANDARD).
    pub storage_class: Option<String>,
    /// How it is encrypted; `None` is the bucket's default.
    pub encryption: Option<Encryption>,
    /// Its tags. CopyObject takes no notice of them: it copies the source's.
    pub tags: Tags,
}

/// What HEAD and GET tell of an object.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Its version; `size` is that of the whole object, also for a ranged GET.
    pub version: Version,
    /// What travels with it.
    pub attributes: Attributes,
    /// CRC-64/NVME of the whole object, when the store has one (`x-amz-checksum-crc64nvme`, full object).
    pub crc64nvme: Option<u64>,
    /// `x-amz-version-id`: its name among the versions of the key, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// It is not encrypted as all that is written here is to be.
    pub otherwise_encrypted: bool,
}

/// One object in a listing. Listings never carry user metadata.
#[derive(Clone, Debug)]
pub struct ListedObject {
    /// Whole key.
    pub key: ObjectKey,
    /// Its version.
    pub version: Version,
    /// Storage class, when the store names one other than STANDARD.
    pub storage_class: Option<String>,
}

/// One request of ListObjectsV2.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Keys that begin with this.
    pub prefix: String,
    /// Fold what follows the next `/` into `prefixes`.
    pub by_directory: bool,
    /// 1 to 1000; 0 asks for the most.
    pub max_keys: u16,
    /// Token of the page before.
    pub continuation: Option<String>,
    /// First key is after this one.
    pub start_after: Option<String>,
}

/// One page of a listing, in UTF-8 byte order within `objects` and within `prefixes`
/// (on general-purpose buckets; directory buckets give no order).
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects.
    pub objects: Vec<ListedObject>,
    /// Common prefixes, each ending in `/`.
    pub prefixes: Vec<String>,
    /// Token of the next page; `None` is the end.
    pub next: Option<String>,
}

/// Body of a GET: chunks in order. An `Err` ends it; the bytes before it are good.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Answer of a GET.
pub struct GetReply {
    /// The object it is a part of.
    pub info: ObjectInfo,
    /// The bytes that `body` carries, as the server says (`Content-Range`).
    pub range: ByteRange,
    /// The bytes.
    pub body: BodyStream,
}

impl std::fmt::Debug for GetReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetReply").field("info", &self.info).field("range", &self.range).finish_non_exhaustive()
    }
}

/// Bytes to upload. Must be the same each time they are read: the SDK reads them again when it retries.
#[derive(Clone, Debug)]
pub enum UploadBody {
    /// From memory.
    Memory(Bytes),
    /// From memory, and summed already.
    Summed {
        /// The bytes.
        bytes: Bytes,
        /// Their CRC-64/NVME.
        crc64nvme: u64,
    },
    /// From a local file that does not change meanwhile, read with pread(2).
    File {
        /// Open for reading.
        file: Arc<File>,
        /// Which bytes of it.
        range: ByteRange,
    },
}

impl UploadBody {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            UploadBody::Memory(bytes) | UploadBody::Summed { bytes, .. } => bytes.len() as u64,
            UploadBody::File { range, .. } => range.len(),
        }
    }

    /// True for no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the parts of a multipart upload are going to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartSource {
    /// Bytes that are sent.
    Bodies,
    /// Ranges of other objects. Some stores can't sum these.
    Copies,
}

/// A part that was uploaded, as CompleteMultipartUpload wants it repeated.
#[derive(Clone, Debug)]
pub struct UploadedPart {
    /// Its number.
    pub number: PartNumber,
    /// Its ETag.
    pub etag: ETag,
    /// Number of bytes.
    pub size: u64,
    /// Its checksum (base64, of the algorithm named at creation), when the store gave one or has to be told.
    pub checksum: Option<String>,
}

/// A part of an upload that is not complete, as the store tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// Its number.
    pub number: PartNumber,
    /// Its ETag.
    pub etag: ETag,
    /// Number of bytes.
    pub size: u64,
    /// The sum of its bytes, by the algorithm of this mount's uploads, when the store tells it.
    pub sum: Option<Sum>,
}

/// One page of the parts of an upload, by number.
#[derive(Clone, Debug, Default)]
pub struct PartsPage {
    /// Parts.
    pub parts: Vec<ListedPart>,
    /// The next page begins after this part; `None` is the end.
    pub next: Option<PartNumber>,
}

/// A server-side copy of a whole object of at most 5 GiB.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// From.
    pub source: ObjectKey,
    /// The source must have this ETag; else `PreconditionFailed`.
    pub source_etag: ETag,
    /// To. May be the source itself, with other attributes.
    pub target: ObjectKey,
    /// What must stand at the target. Several stores ignore it (see `Capabilities`).
    pub expect: Expect,
    /// What travels with the bytes.
    pub attributes: CopyAttributes,
}

/// What travels with the bytes of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyAttributes {
    /// What the source has. S3 copies all but the storage class and the encryption, so those have to be named.
    Keep {
        /// The source's, as HEAD tells it; `None` is STANDARD.
        storage_class: Option<String>,
        /// The source's, as HEAD tells it; `None` is the bucket's default.
        encryption: Option<Encryption>,
    },
    /// These, and nothing of what the source has but its tags.
    Replace(Attributes),
}

impl CopyAttributes {
    /// What the source has, which are these.
    pub fn keep(source: &Attributes) -> Self {
        CopyAttributes::Keep { storage_class: source.storage_class.clone(), encryption: source.encryption.clone() }
    }
}

/// What the store can do beyond the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// RenameObject works (directory buckets only; other stores take it for an empty PUT).
    pub rename: bool,
    /// Listings come in key order (not on directory buckets).
    pub ordered_listing: bool,
    /// CopyObject honours what is expected at its target. MinIO, versitygw and others copy over whatever is there.
    pub conditional_copy: bool,
}

/// The seam to S3: one bucket. Object-safe and without default methods, so that a decorator that forgets
/// one does not compile. Every implementation passes the suite of `tests/store_contract.rs`.
///
/// Transport errors, 5xx and throttling are retried inside, within bounds; what comes out is final for this
/// call. Every method ends: each has a deadline of its own.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// What this store can do.
    fn capabilities(&self) -> Capabilities;

    /// HEAD. Errors: `NotFound`, `AccessDenied`, …
    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo>;

    /// GetObjectTagging: names and values. Errors: `NotFound`, `AccessDenied`, `Unsupported`, …
    async fn tags(&self, key: &ObjectKey) -> Result<Vec<(String, String)>>;

    /// One page of ListObjectsV2, always with `encoding-type=url` on the wire and decoded here.
    async fn list(&self, request: ListRequest) -> Result<ListPage>;

    /// GET of `range` (cut at the object's end), or of the whole object. `if_match` that fails is `PreconditionFailed`;
    /// a range that begins past the end is `RangeNotSatisfiable`; archived objects are `Archived`.
    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetReply>;

    /// PUT of at most 5 GiB. Tags that the caller may not set are left out, with a warning. Errors: `PreconditionFailed` (412), `ConcurrentWrite` (409), …
    async fn put(&self, key: &ObjectKey, body: UploadBody, attributes: &Attributes, expect: &Expect)
    -> Result<Version>;

    /// CreateMultipartUpload, naming the checksum algorithm where the store can sum such parts, or always if one was asked for.
    async fn create_upload(&self, key: &ObjectKey, attributes: &Attributes, parts: PartSource) -> Result<UploadId>;

    /// UploadPart: 5 MiB to 5 GiB, the last may be smaller.
    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        body: UploadBody,
    ) -> Result<UploadedPart>;

    /// UploadPartCopy of `range` of `source`, guarded by its ETag. `None` is all of it, at most 5 GiB: of an object of no more than
    /// 5 MiB S3 copies no range.
    async fn upload_part_copy(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        source: &ObjectKey,
        source_etag: &ETag,
        range: Option<ByteRange>,
    ) -> Result<UploadedPart>;

    /// One page of ListParts: of the parts after `after`, at most `most` (1 to 1000; 0 asks for the most). Errors: `UploadGone`,
    /// `AccessDenied`, …
    async fn list_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage>;

    /// CompleteMultipartUpload with the parts in order, repeating each part's checksum. `size` is that of the
    /// whole object, `crc64nvme` its checksum when it is known. Errors as `put`, and `UploadGone`.
    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[UploadedPart],
        size: u64,
        crc64nvme: Option<u64>,
        expect: &Expect,
    ) -> Result<Version>;

    /// AbortMultipartUpload. An upload that is gone already is a success.
    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<()>;

    /// CopyObject. The version's `size` is 0 when the store does not say: callers know the source's.
    async fn copy(&self, request: CopyRequest) -> Result<Version>;

    /// DeleteObject; of a key that is not there, a success. `if_match` guards it where the store honours it.
    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()>;

    /// DeleteObjects of 1 to 1000 keys; the answer lists those that failed.
    async fn delete_many(&self, keys: &[ObjectKey]) -> Result<Vec<(ObjectKey, crate::error::Error)>>;

    /// RenameObject (directory buckets). Without `Capabilities::rename` it is `Unsupported` and sends nothing.
    async fn rename(&self, source: &ObjectKey, source_etag: &ETag, target: &ObjectKey, expect: &Expect) -> Result<()>;
}
