//! The rights that only writing shows, tried with objects of the check's own.
//!
//! Owns their names, and that they go again: whatever was begun is noted before it is asked for, and [`Probe::clean`] removes
//! it, however far the run came.

use bytes::Bytes;

use super::report::{Report, Right};
use crate::error::{Error, Result};
use crate::store::{Attributes, CopyAttributes, CopyRequest, ObjectStore, PartSource, S3Store, UploadBody};
use crate::types::{DirPrefix, Expect, ObjectKey, PartNumber, UploadId, Version};

const CONTENT: &[u8] = b"pailfs check\n";

/// Objects of one check.
pub(super) struct Probe<'a> {
    store: &'a S3Store,
    prefix: &'a DirPrefix,
    base: String,
    /// May be in the bucket.
    keys: Vec<ObjectKey>,
    /// Are in the bucket, and not complete.
    uploads: Vec<(ObjectKey, UploadId)>,
}

impl<'a> Probe<'a> {
    /// Names them so that nobody else has such names.
    pub(super) fn new(store: &'a S3Store, prefix: &'a DirPrefix, host: &str) -> Self {
        let base = format!("{}.pailfs-check-{host}-{:016x}", prefix.as_str(), fastrand::u64(..));
        Probe { store, prefix, base, keys: Vec::new(), uploads: Vec::new() }
    }

    /// Tries each right.
    pub(super) async fn run(&mut self, report: &mut Report) {
        let key = ObjectKey::from_store(self.base.clone());
        let stored = self.put(&key).await;
        if let Ok(version) = &stored {
            if !report.has(Right::Get.name()) {
                let got = self.store.get(&key, None, None).await.map(drop);
                report.tried(Right::Get, got);
            }
            self.tell_checksum(&key, report).await;
            let copied = self.copy(&key, version).await;
            report.tried(Right::Copy, copied);
        }
        let may_put = stored.is_ok();
        report.tried(Right::Put, stored.map(drop));
        if may_put {
            self.tell_conditions(report).await;
        }
        let uploaded = self.upload().await;
        report.tried(Right::Multipart, uploaded);
        let aborted = self.abort().await;
        match aborted {
            Ok(aborted) => report.tried(Right::Abort, aborted),
            Err(_) => report.not_tried(Right::Abort, "no upload could be begun"),
        }
        let deleted = self.store.delete(&key, None).await;
        if deleted.is_ok() {
            self.keys.retain(|kept| *kept != key);
        }
        report.tried(Right::Delete, deleted);
    }

    /// Removes what is there, and names what can't be removed.
    pub(super) async fn clean(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for (key, id) in std::mem::take(&mut self.uploads) {
            if let Err(error) = self.store.abort_upload(&key, &id).await {
                left.push(format!("the unfinished upload of {key}: {error}"));
            }
        }
        for key in std::mem::take(&mut self.keys) {
            if let Err(error) = self.store.delete(&key, None).await {
                left.push(format!("{key}: {error}"));
            }
        }
        left
    }

    /// Does what may put an object under `key`. Only after a refusal that has no effect it is known not to be there.
    async fn noted<T>(&mut self, key: &ObjectKey, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.keys.push(key.clone());
        let done = work.await;
        let refused =
            |error: &Error| matches!(error, Error::AccessDenied(_) | Error::PreconditionFailed | Error::Unsupported(_));
        if done.as_ref().is_err_and(refused) {
            self.keys.retain(|kept| kept != key);
        }
        done
    }

    async fn put(&mut self, key: &ObjectKey) -> Result<Version> {
        let store = self.store;
        let attributes = Attributes::default();
        let body = UploadBody::Memory(Bytes::from_static(CONTENT));
        self.noted(key, store.put(key, body, &attributes, &Expect::Any)).await
    }

    async fn copy(&mut self, key: &ObjectKey, version: &Version) -> Result<()> {
        let (store, target) = (self.store, self.named("copy"));
        let request = CopyRequest {
            source: key.clone(),
            source_etag: version.etag.clone(),
            target: target.clone(),
            expect: Expect::Any,
            attributes: CopyAttributes::keep(&Attributes::default()),
        };
        self.noted(&target, store.copy(request)).await.map(drop)
    }

    async fn begin(&mut self, key: &ObjectKey) -> Result<UploadId> {
        let id = self.store.create_upload(key, &Attributes::default(), PartSource::Bodies).await?;
        self.uploads.push((key.clone(), id.clone()));
        Ok(id)
    }

    /// An upload of one part, with all that a mount asks of it.
    async fn upload(&mut self) -> Result<()> {
        let (store, key) = (self.store, self.named("parts"));
        let id = self.begin(&key).await?;
        let (body, first) = (UploadBody::Memory(Bytes::from_static(CONTENT)), PartNumber::from_index(0)?);
        let part = store.upload_part(&key, &id, first, body).await?;
        store.list_parts(&key, &id, None, 0).await?;
        let (parts, size) = ([part], CONTENT.len() as u64);
        self.noted(&key, store.complete_upload(&key, &id, &parts, size, None, &Expect::Any)).await?;
        self.uploads.retain(|(_, begun)| *begun != id);
        Ok(())
    }

    /// What an abort said; `Err` when there was nothing to abort.
    async fn abort(&mut self) -> Result<Result<()>> {
        let key = self.named("aborted");
        let id = self.begin(&key).await?;
        let aborted = self.store.abort_upload(&key, &id).await;
        if aborted.is_ok() {
            self.uploads.retain(|(_, begun)| *begun != id);
        }
        Ok(aborted)
    }

    async fn tell_conditions(&self, report: &mut Report) {
        match self.store.heeds_conditions(self.prefix).await {
            Ok(true) => report.works(Right::Conditions.name(), ""),
            Ok(false) => report.refused(Right::Conditions, "the store ignores conditions"),
            Err(error) => report.tried(Right::Conditions, Err(error)),
        }
    }

    /// The bytes of the PUT were compared when it was answered; here it shows whether the store keeps their sum.
    async fn tell_checksum(&self, key: &ObjectKey, report: &mut Report) {
        if !self.store.sums() {
            report.not_tried(Right::Checksum, "none is sent, as asked for");
            return;
        }
        match self.store.head(key).await {
            Ok(info) if info.crc64nvme.is_some() => report.works(Right::Checksum.name(), "CRC-64/NVME"),
            Ok(_) if self.store.sums_otherwise() => report.works(Right::Checksum.name(), "as asked for"),
            Ok(_) => report.refused(Right::Checksum, "the store keeps no CRC-64/NVME"),
            Err(error) => report.tried(Right::Checksum, Err(error)),
        }
    }

    fn named(&self, what: &str) -> ObjectKey {
        ObjectKey::from_store(format!("{}-{what}", self.base))
    }
}

/// An error behind the name of a right: what was denied stands there, and the way out behind it.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::AccessDenied(_) => "denied (403)".to_owned(),
        other => other.to_string(),
    }
}
