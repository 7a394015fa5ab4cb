//! One multipart upload, which never outlives its owner, unless it has bytes that are nowhere else.
//!
//! Dropped before it is complete, for a failure or because nobody waits any more, it aborts itself in the store. A part that
//! the store had not answered by then may arrive later, and is there again with the upload: S3 advises to abort such an upload
//! more than once (API reference, AbortMultipartUpload).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Patience, Shared};
use crate::error::{Error, Result};
use crate::store::{Attributes, ObjectStore, PartSource, UploadBody, UploadedPart};
use crate::types::{ByteRange, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

/// So often an upload that failed is aborted, over some minutes: what is left is billed.
const ABORTS: u32 = 8;

/// The pauses before an upload is aborted again that had parts on their way. A server soon gives up a request whose connection
/// was cut; the second one is for a server that is busy.
const LATE_PARTS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// Where the parts of an upload go.
#[derive(Clone)]
pub(super) struct Parts {
    store: Arc<dyn ObjectStore>,
    key: ObjectKey,
    id: UploadId,
    /// Parts that were asked for, and of which the store has not said that it has them.
    unanswered: Arc<AtomicUsize>,
}

impl Parts {
    /// Sends a part, counted from 0.
    pub(super) async fn send(&self, index: u64, body: UploadBody) -> Result<UploadedPart> {
        let number = PartNumber::from_index(index)?;
        self.bring(self.store.upload_part(&self.key, &self.id, number, body)).await
    }

    /// Copies a range of an object, or all of it, into a part, counted from 0.
    pub(super) async fn copy(
        &self,
        index: u64,
        source: &ObjectKey,
        etag: &ETag,
        range: Option<ByteRange>,
    ) -> Result<UploadedPart> {
        let number = PartNumber::from_index(index)?;
        self.bring(self.store.upload_part_copy(&self.key, &self.id, number, source, etag, range)).await
    }

    /// A request that is dropped or fails stays unanswered.
    async fn bring(&self, request: impl Future<Output = Result<UploadedPart>>) -> Result<UploadedPart> {
        self.unanswered.fetch_add(1, Ordering::SeqCst);
        let part = request.await?;
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        Ok(part)
    }

    fn may_come_late(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 0
    }

    async fn abort(&self) -> Result<()> {
        self.store.abort_upload(&self.key, &self.id).await
    }

    /// What broke the upload most often breaks its end too, and passes.
    async fn abort_for_long(&self, patience: &Patience) {
        let mut attempt = 1;
        while let Err(error) = self.abort().await {
            if attempt == ABORTS {
                let (key, upload) = (&self.key, self.id.as_str());
                tracing::warn!(%key, upload, %error, "an unfinished upload is left in the bucket");
                break;
            }
            tokio::time::sleep(patience.before_abort(attempt)).await;
            attempt += 1;
        }
    }
}

pub(super) struct Multipart {
    shared: Arc<Shared>,
    parts: Parts,
    /// It may exist in the store.
    pending: bool,
    /// It was aborted, and a part may still arrive.
    aborted: bool,
    /// While this is true it has bytes that are nowhere else, and is never aborted.
    needed: Arc<AtomicBool>,
    counted: Option<Counted>,
}

/// Counts an upload that may exist in the store.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.uploads.send_modify(|count| *count += 1);
        Counted(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.uploads.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Multipart {
    pub(super) async fn create(
        shared: &Arc<Shared>,
        key: &ObjectKey,
        attributes: &Attributes,
        parts: PartSource,
    ) -> Result<Self> {
        let (shared, key, attributes) = (shared.clone(), key.clone(), attributes.clone());
        let runtime = shared.runtime.clone();
        // In a task that goes on when nobody waits any more: an upload whose id never arrives can't be aborted.
        let begun = runtime.spawn(async move {
            let counted = Some(Counted::new(&shared));
            let store = shared.store.clone();
            let id = store.create_upload(&key, &attributes, parts).await?;
            let parts = Parts { store, key, id, unanswered: Arc::default() };
            Ok(Multipart { shared, parts, pending: true, aborted: false, needed: Arc::default(), counted })
        });
        begun.await.unwrap_or(Err(Error::Internal("the begin of an upload ended in a panic")))
    }

    /// An upload of ours that was begun before, by a process that is gone.
    pub(super) fn adopt(shared: &Arc<Shared>, key: &ObjectKey, id: UploadId) -> Self {
        let parts = Parts { store: shared.store.clone(), key: key.clone(), id, unanswered: Arc::default() };
        let counted = Some(Counted::new(shared));
        Multipart { shared: shared.clone(), parts, pending: true, aborted: false, needed: Arc::default(), counted }
    }

    /// It stays in the store as long as `needed` is true, whatever becomes of this.
    pub(super) fn keep_while(&mut self, needed: Arc<AtomicBool>) {
        self.needed = needed;
    }

    fn is_needed(&self) -> bool {
        self.needed.load(Ordering::SeqCst)
    }

    pub(super) fn id(&self) -> &UploadId {
        &self.parts.id
    }

    /// Where its parts go.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Makes the object. On an error the upload is still there, unless the store says that it is gone.
    pub(super) async fn complete(
        &mut self,
        mut parts: Vec<UploadedPart>,
        size: u64,
        crc64nvme: Option<u64>,
        expect: &Expect,
    ) -> Result<Version> {
        parts.sort_by_key(|part| part.number);
        let Parts { store, key, id, .. } = &self.parts;
        let version = store.complete_upload(key, id, &parts, size, crc64nvme, expect).await?;
        self.pending = false;
        Ok(Version { size, ..version })
    }

    /// Removes what was uploaded, and waits for it. False when that failed or a part may still arrive: it is tried again a few
    /// times.
    pub(super) async fn abort(mut self) -> bool {
        if self.is_needed() {
            return false;
        }
        match self.parts.abort().await {
            Ok(()) => {
                self.pending = self.parts.may_come_late();
                self.aborted = true;
            }
            Err(error) => tracing::debug!(key = %self.parts.key, %error, "an upload could not be aborted at once"),
        }
        !self.pending
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        if !self.pending || self.is_needed() {
            return;
        }
        let (parts, counted, patience) = (self.parts.clone(), self.counted.take(), self.shared.patience);
        let aborted = self.aborted;
        self.shared.runtime.spawn(async move {
            let _counted = counted;
            if !aborted {
                parts.abort_for_long(&patience).await;
            }
            for pause in LATE_PARTS {
                // Looked at after an answer: until then a task that was stopped may have begun one.
                if parts.may_come_late() {
                    tokio::time::sleep(pause).await;
                    parts.abort_for_long(&patience).await;
                }
            }
        });
    }
}
