//! What the server holds: buckets, objects and open uploads, in memory behind one lock.
//!
//! Owns the data and the moment of publishing. Bodies are shared segments, so that a copy copies no bytes. The lock
//! guards memory only: bodies are received and summed before it is taken. What the requests mean is elsewhere.

use super::checksums::{Algorithm, Kind, Stored as StoredSum, Sums};
use super::conditions::WriteConditions;
use bytes::Bytes;
use s3s::dto::ETag;
use s3s::{S3Result, s3_error};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The bytes of an object or a part: shared segments in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    segments: Arc<Vec<Bytes>>,
    len: u64,
}

impl Body {
    pub(super) fn new(segments: Vec<Bytes>) -> Self {
        let len = segments.iter().map(|segment| segment.len() as u64).sum();
        Self { segments: Arc::new(segments), len }
    }

    /// The bodies one behind the other; no byte is copied.
    pub(super) fn joined<'a>(bodies: impl Iterator<Item = &'a Body>) -> Self {
        Self::new(bodies.flat_map(|body| body.segments.iter().cloned()).collect())
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// A range of the body, cut at its end; no byte is copied.
    pub(super) fn slice(&self, range: Range<u64>) -> Self {
        let mut start = 0;
        let mut segments = Vec::new();
        for segment in self.segments.iter() {
            let end = start + segment.len() as u64;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                segments.push(segment.slice((from - start) as usize..(to - start) as usize));
            }
            start = end;
        }
        Self::new(segments)
    }

    /// All bytes in one piece.
    pub(super) fn to_bytes(&self) -> Bytes {
        match self.segments.as_slice() {
            [only] => only.clone(),
            many => many.concat().into(),
        }
    }
}

/// The headers a caller stores with an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) expires: Option<s3s::dto::Timestamp>,
    pub(super) metadata: HashMap<String, String>,
    pub(super) encryption: Encryption,
}

/// How a caller wants an object encrypted. Nothing is; it is kept and told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Encryption {
    pub(super) algorithm: Option<s3s::dto::ServerSideEncryption>,
    pub(super) key: Option<String>,
    pub(super) bucket_key: Option<bool>,
    /// MD5, in base64, of the key that is the caller's own: without it nothing is told of the object.
    pub(super) customer_md5: Option<String>,
}

/// An object as it was published.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) body: Body,
    /// Without quotes.
    pub(super) etag: String,
    /// Whole seconds, as S3 keeps them.
    pub(super) modified: SystemTime,
    pub(super) headers: Headers,
    pub(super) storage_class: String,
    pub(super) sum: Option<StoredSum>,
    /// The lengths of its parts, when it was uploaded in parts.
    pub(super) parts: Vec<u64>,
    pub(super) tags: Vec<(String, String)>,
    /// An archived object that was restored can be read.
    pub(super) restored: bool,
}

impl Default for Object {
    fn default() -> Self {
        Self {
            body: Body::default(),
            etag: String::new(),
            modified: now(),
            headers: Headers::default(),
            storage_class: STANDARD.to_owned(),
            sum: None,
            parts: Vec::new(),
            tags: Vec::new(),
            restored: false,
        }
    }
}

/// The storage class of an object that names none.
pub(super) const STANDARD: &str = "STANDARD";

impl Object {
    pub(super) fn etag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }

    /// Whether the bytes are away in an archive.
    pub(super) fn is_archived(&self) -> bool {
        !self.restored && matches!(self.storage_class.as_str(), "GLACIER" | "DEEP_ARCHIVE")
    }

    /// Refuses to give the bytes of an archived object.
    pub(super) fn check_readable(&self) -> S3Result {
        if !self.is_archived() {
            return Ok(());
        }
        Err(s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class"))
    }
}

/// A part of an open upload.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) body: Body,
    pub(super) md5: [u8; 16],
    pub(super) sums: Sums,
    /// The algorithm whose sum the caller was told.
    pub(super) told: Option<Algorithm>,
    pub(super) modified: SystemTime,
}

impl Part {
    pub(super) fn etag(&self) -> String {
        hex(&self.md5)
    }
}

/// An open multipart upload.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) headers: Headers,
    pub(super) storage_class: String,
    pub(super) tags: Vec<(String, String)>,
    /// The algorithm named at the start.
    pub(super) checksum: Option<(Algorithm, Kind)>,
    pub(super) initiated: SystemTime,
    pub(super) parts: BTreeMap<u16, Part>,
}

/// A bucket: its keys in the order of their UTF-8 bytes, which is the order S3 lists in.
#[derive(Debug, Default)]
pub(super) struct BucketState {
    pub(super) created: Option<SystemTime>,
    pub(super) objects: BTreeMap<String, Arc<Object>>,
    pub(super) uploads: BTreeMap<String, Upload>,
    /// Uploads that were completed and what came of it: a repeated Complete gets the same answer.
    pub(super) completed: HashMap<String, (String, Arc<Object>)>,
    /// Conditions on what a write replaces are read and not looked at.
    pub(super) ignores_conditions: bool,
    /// What encryption is asked for is read and not looked at.
    pub(super) ignores_encryption: bool,
}

impl BucketState {
    /// What stands at a key that a write is to replace, if the write's conditions hold for it.
    pub(super) fn judge(&self, conditions: &WriteConditions, key: &str) -> S3Result {
        if self.ignores_conditions { Ok(()) } else { conditions.check(self.objects.get(key).map(Arc::as_ref)) }
    }

    /// The encryption that a write gets which asks for this one.
    pub(super) fn applied(&self, asked: Encryption) -> Encryption {
        if self.ignores_encryption { Encryption::default() } else { asked }
    }

    pub(super) fn object(&self, key: &str) -> S3Result<Arc<Object>> {
        self.objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// The open upload of that id, if it is for that key.
    pub(super) fn upload(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        self.uploads.get_mut(id).filter(|upload| upload.key == key).ok_or_else(no_such_upload)
    }
}

pub(super) fn no_such_upload() -> s3s::S3Error {
    s3_error!(NoSuchUpload, "The specified upload does not exist.")
}

/// All buckets.
#[derive(Debug, Default)]
pub(super) struct State {
    buckets: Mutex<Buckets>,
}

/// The buckets under the lock.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub(super) by_name: BTreeMap<String, BucketState>,
    next_upload: u64,
}

impl Buckets {
    pub(super) fn bucket(&mut self, name: &str) -> S3Result<&mut BucketState> {
        self.by_name.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// A fresh upload id, the same ones in every run.
    pub(super) fn upload_id(&mut self) -> String {
        self.next_upload += 1;
        format!("upload-{:06}", self.next_upload)
    }
}

impl State {
    /// Held for memory work only. A panic in another request leaves the data as it was: nothing is half published.
    pub(super) fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        self.lock().bucket(bucket)?.object(key)
    }
}

/// The time in whole seconds.
pub(super) fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
