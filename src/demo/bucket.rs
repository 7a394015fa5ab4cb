//! A bucket without HTTP: to fill it before a test and to look at it afterwards.
//!
//! Owns the direct access only; it stores exactly what a PUT of the same bytes would.

use super::checksums::{Algorithm, ETags, Hasher, Stored as StoredSum};
use super::service::Shared;
use super::state::{Body, BucketState, Headers, Object, hex, now};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Direct access to one bucket of a running server.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
    name: String,
}

/// An object as the server holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// All bytes.
    pub body: Bytes,
    /// User metadata, names without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// Content-Type as it was stored.
    pub content_type: Option<String>,
    /// Content-Encoding as it was stored.
    pub content_encoding: Option<String>,
    /// `STANDARD` when none was named.
    pub storage_class: String,
    /// The encryption that was asked for, and the KMS key; `customer` and the MD5 of a key of the caller's own.
    pub encryption: Option<(String, Option<String>)>,
    /// Without quotes.
    pub etag: String,
    /// The checksum it keeps: the name of the algorithm, and base64.
    pub checksum: Option<(&'static str, String)>,
    /// Bytes of each part, when it was uploaded in parts.
    pub parts: Vec<u64>,
    /// Whole seconds.
    pub modified: SystemTime,
}

impl Bucket {
    pub(super) fn open(shared: Arc<Shared>, name: &str) -> Self {
        shared
            .state
            .lock()
            .by_name
            .entry(name.to_owned())
            .or_insert_with(|| BucketState { created: Some(now()), ..BucketState::default() });
        Self { shared, name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stores an object without metadata.
    pub fn put(&self, key: &str, body: impl Into<Bytes>) {
        self.put_with(key, body, BTreeMap::new());
    }

    /// Stores an object with user metadata, names without `x-amz-meta-`.
    pub fn put_with(&self, key: &str, body: impl Into<Bytes>, metadata: BTreeMap<String, String>) {
        let object = made(body.into(), metadata, self.shared.etags);
        self.with(|bucket| bucket.objects.insert(key.to_owned(), object));
    }

    /// Stores many objects with the same bytes, which are held once: a million take about 100 MB.
    pub fn put_all(&self, keys: impl IntoIterator<Item = String>, body: impl Into<Bytes>) {
        let object = made(body.into(), BTreeMap::new(), self.shared.etags);
        self.with(|bucket| bucket.objects.extend(keys.into_iter().map(|key| (key, object.clone()))));
    }

    /// The object of that key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Stored> {
        let object = self.with(|bucket| bucket.objects.get(key).cloned())?;
        Some(Stored {
            body: object.body.to_bytes(),
            metadata: object.headers.metadata.clone().into_iter().collect(),
            content_type: object.headers.content_type.clone(),
            content_encoding: object.headers.content_encoding.clone(),
            storage_class: object.storage_class.clone(),
            encryption: object.headers.encryption.told(),
            etag: object.etag.clone(),
            checksum: object.sum.as_ref().map(|sum| (sum.algorithm.name(), sum.text.clone())),
            parts: object.parts.clone(),
            modified: object.modified,
        })
    }

    /// All keys, in the order S3 lists them.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.with(|bucket| bucket.objects.keys().cloned().collect())
    }

    /// Removes an object; says whether it was there.
    pub fn delete(&self, key: &str) -> bool {
        self.with(|bucket| bucket.objects.remove(key).is_some())
    }

    /// The open multipart uploads: key and upload id.
    #[must_use]
    pub fn uploads(&self) -> Vec<(String, String)> {
        self.with(|bucket| bucket.uploads.iter().map(|(id, upload)| (upload.key.clone(), id.clone())).collect())
    }

    /// Takes every PUT and Complete whatever its conditions, as some stores do.
    pub fn ignore_conditions(&self) {
        self.with(|bucket| bucket.ignores_conditions = true);
    }

    /// Encrypts nothing from now on, whatever is asked for, and says so; or does it again.
    pub fn ignore_encryption(&self, ignored: bool) {
        self.with(|bucket| bucket.ignores_encryption = ignored);
    }

    /// Moves an object to the storage class GLACIER, where it can't be read.
    pub fn archive(&self, key: &str) {
        self.change(key, |object| {
            object.storage_class = "GLACIER".to_owned();
            object.restored = false;
        });
    }

    /// Sets when an object was last modified.
    pub fn set_modified(&self, key: &str, modified: SystemTime) {
        self.change(key, |object| object.modified = modified);
    }

    fn change(&self, key: &str, change: impl FnOnce(&mut Object)) {
        self.with(|bucket| {
            if let Some(object) = bucket.objects.get_mut(key) {
                change(Arc::make_mut(object));
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut BucketState) -> T) -> T {
        work(self.shared.state.lock().by_name.entry(self.name.clone()).or_default())
    }
}

/// An object as a PUT of these bytes makes it.
fn made(body: Bytes, metadata: BTreeMap<String, String>, etags: ETags) -> Arc<Object> {
    let mut hasher = Hasher::new(&[], etags);
    hasher.update(&body);
    let (md5, sums) = hasher.finish();
    Arc::new(Object {
        body: Body::new(vec![body]),
        etag: hex(&md5),
        headers: Headers { metadata: metadata.into_iter().collect(), ..Headers::default() },
        sum: sums.get(&Algorithm::Crc64Nvme).map(|sum| StoredSum::full(Algorithm::Crc64Nvme, sum)),
        ..Object::default()
    })
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}
