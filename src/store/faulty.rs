//! A decorator for tests: requests that fail as a script says.
//!
//! A fault is chosen when its request starts; the first of the script that fits is used. What a fault leaves
//! alone, the store below does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    Attributes, BodyStream, Capabilities, CopyRequest, GetReply, ListPage, ListRequest, ObjectInfo, ObjectStore,
    Operation, PartSource, PartsPage, UploadBody, UploadedPart,
};
use crate::error::{Error, Result};
use crate::types::{ByteRange, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum FaultKind {
    /// The request fails, and nothing is done.
    Fail(Error),
    /// The request is done, but its answer never comes: `Timeout`.
    LoseReply,
    /// The request starts this much later.
    Delay(Duration),
    /// The body of a GET breaks after this many bytes.
    CutBody {
        /// Bytes that still come.
        after: u64,
    },
}

/// One line of the script.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Of which operation; `None` is any.
    pub operation: Option<Operation>,
    /// Part of the key (of a listing: of its prefix); `None` is any.
    pub key: Option<String>,
    /// How many requests that fit go well first.
    pub skip: u64,
    /// How many then fail; `None` is all.
    pub times: Option<u64>,
    /// What goes wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// The next request of this operation.
    pub fn next(operation: Operation, kind: FaultKind) -> Self {
        Fault { operation: Some(operation), key: None, skip: 0, times: Some(1), kind }
    }

    /// True when this request is to fail; counts it.
    fn strikes(&mut self, operation: Operation, key: &str) -> bool {
        let fits = self.operation.is_none_or(|wanted| wanted == operation)
            && self.key.as_deref().is_none_or(|wanted| key.contains(wanted));
        if !fits || self.times == Some(0) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = self.times.map(|left| left - 1);
        true
    }
}

#[derive(Debug, Default)]
struct Script {
    faults: Vec<Fault>,
    fired: u64,
}

/// Breaks requests of the store below.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Mutex<Script>,
}

impl Faulty {
    /// With an empty script: nothing goes wrong.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Faulty { inner, script: Mutex::default() }
    }

    /// Adds a line to the script.
    pub fn add(&self, fault: Fault) {
        self.with_script(|script| script.faults.push(fault));
    }

    /// Empties the script.
    pub fn clear(&self) {
        self.with_script(|script| script.faults.clear());
    }

    /// How many requests went wrong so far.
    pub fn fired(&self) -> u64 {
        self.with_script(|script| script.fired)
    }

    fn with_script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn strike(&self, operation: Operation, key: &str) -> Option<FaultKind> {
        self.with_script(|script| {
            let kind = script
                .faults
                .iter_mut()
                .find_map(|fault| if fault.strikes(operation, key) { Some(fault.kind.clone()) } else { None })?;
            script.fired += 1;
            Some(kind)
        })
    }

    async fn play<T>(
        &self,
        operation: Operation,
        key: &str,
        request: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match self.strike(operation, key) {
            Some(FaultKind::Fail(error)) => Err(error),
            Some(FaultKind::LoseReply) => {
                request.await?;
                Err(Error::Timeout("the reply was lost".into()))
            }
            Some(FaultKind::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                request.await
            }
            Some(FaultKind::CutBody { .. }) | None => request.await,
        }
    }
}

/// The body up to a place, and then an error.
fn cut(body: BodyStream, after: u64) -> BodyStream {
    Box::pin(stream::unfold(Some((body, after)), |state| async {
        let (mut body, left) = state?;
        let broken = || Err(Error::Unreachable("the connection was reset".into()));
        if left == 0 {
            return Some((broken(), None));
        }
        let item = body.next().await?;
        let rest = left.saturating_sub(item.as_ref().map_or(0, Bytes::len) as u64);
        let kept = item.map(|chunk| chunk.slice(..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX))));
        Some((kept, Some((body, rest))))
    }))
}

#[async_trait]
impl ObjectStore for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo> {
        self.play(Operation::Head, key.as_str(), self.inner.head(key)).await
    }

    async fn tags(&self, key: &ObjectKey) -> Result<Vec<(String, String)>> {
        self.play(Operation::Tags, key.as_str(), self.inner.tags(key)).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        let prefix = request.prefix.clone();
        self.play(Operation::List, &prefix, self.inner.list(request)).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetReply> {
        let request = self.inner.get(key, range, if_match);
        match self.strike(Operation::Get, key.as_str()) {
            Some(FaultKind::Fail(error)) => return Err(error),
            Some(FaultKind::LoseReply) => return Err(Error::Timeout("the reply was lost".into())),
            Some(FaultKind::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(FaultKind::CutBody { after }) => {
                let reply = request.await?;
                return Ok(GetReply { body: cut(reply.body, after), ..reply });
            }
            None => {}
        }
        request.await
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        self.play(Operation::Put, key.as_str(), self.inner.put(key, body, attributes, expect)).await
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: &Attributes, parts: PartSource) -> Result<UploadId> {
        self.play(Operation::CreateUpload, key.as_str(), self.inner.create_upload(key, attributes, parts)).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        body: UploadBody,
    ) -> Result<UploadedPart> {
        let request = self.inner.upload_part(key, upload, number, body);
        self.play(Operation::UploadPart, key.as_str(), request).await
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
        let request = self.inner.upload_part_copy(key, upload, number, source, source_etag, range);
        self.play(Operation::UploadPartCopy, key.as_str(), request).await
    }

    async fn list_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage> {
        let request = self.inner.list_parts(key, upload, after, most);
        self.play(Operation::ListParts, key.as_str(), request).await
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
        let request = self.inner.complete_upload(key, upload, parts, size, crc64nvme, expect);
        self.play(Operation::CompleteUpload, key.as_str(), request).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.play(Operation::AbortUpload, key.as_str(), self.inner.abort_upload(key, upload)).await
    }

    async fn copy(&self, request: CopyRequest) -> Result<Version> {
        let target = request.target.clone();
        self.play(Operation::Copy, target.as_str(), self.inner.copy(request)).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.play(Operation::Delete, key.as_str(), self.inner.delete(key, if_match)).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Result<Vec<(ObjectKey, Error)>> {
        let all: Vec<&str> = keys.iter().map(ObjectKey::as_str).collect();
        self.play(Operation::DeleteMany, &all.join("\n"), self.inner.delete_many(keys)).await
    }

    async fn rename(&self, source: &ObjectKey, source_etag: &ETag, target: &ObjectKey, expect: &Expect) -> Result<()> {
        let request = self.inner.rename(source, source_etag, target, expect);
        self.play(Operation::Rename, target.as_str(), request).await
    }
}
