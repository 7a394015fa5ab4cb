//! One multipart upload, which never outlives its owner.
//!
//! Dropped before it is complete, for a failure or because nobody waits any more, it aborts itself in the store.

use std::sync::Arc;

use super::Shared;
use crate::error::Result;
use crate::store::{Attributes, PartSource, UploadedPart};
use crate::types::{Expect, ObjectKey, UploadId, Version};

/// So often an upload that failed is aborted, over some minutes: what is left is billed.
const ABORTS: u32 = 8;

pub(super) struct Multipart {
    shared: Arc<Shared>,
    key: ObjectKey,
    id: UploadId,
    /// It may exist in the store.
    pending: bool,
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
        let counted = Some(Counted::new(shared));
        let id = shared.store.create_upload(key, attributes, parts).await?;
        Ok(Multipart { shared: shared.clone(), key: key.clone(), id, pending: true, counted })
    }

    pub(super) fn id(&self) -> &UploadId {
        &self.id
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
        let store = &self.shared.store;
        let version = store.complete_upload(&self.key, &self.id, &parts, size, crc64nvme, expect).await?;
        self.pending = false;
        Ok(Version { size, ..version })
    }

    /// Removes what was uploaded, and waits for it. False when that failed: it is tried again a few times.
    pub(super) async fn abort(mut self) -> bool {
        let (store, key, id) = (self.shared.store.clone(), self.key.clone(), self.id.clone());
        match store.abort_upload(&key, &id).await {
            Ok(()) => self.pending = false,
            Err(error) => tracing::debug!(%key, %error, "an upload could not be aborted at once"),
        }
        !self.pending
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        if !self.pending {
            return;
        }
        let (store, key, id) = (self.shared.store.clone(), self.key.clone(), self.id.clone());
        let (counted, patience) = (self.counted.take(), self.shared.patience);
        self.shared.runtime.spawn(async move {
            let _counted = counted;
            let mut attempt = 1;
            // What broke the upload most often breaks its end too, and passes.
            while let Err(error) = store.abort_upload(&key, &id).await {
                if attempt == ABORTS {
                    tracing::warn!(%key, upload = id.as_str(), %error, "an unfinished upload is left in the bucket");
                    break;
                }
                tokio::time::sleep(patience.before_abort(attempt)).await;
                attempt += 1;
            }
        });
    }
}
