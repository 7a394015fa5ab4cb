//! A decorator: no more than so many requests at once.
//!
//! A request counts until its answer is complete; for a GET, until its body is read to the end or dropped. Who
//! keeps an unread body therefore keeps a place: readers take bodies only as fast as they want the bytes.
//!
//! Requests that move no bytes have places of their own: a name is looked up while a slow line is full of transfers.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Attributes, BodyStream, Capabilities, CopyRequest, GetReply, ListPage, ListRequest, ObjectInfo, ObjectStore,
    PartSource, PartsPage, UploadBody, UploadedPart,
};
use crate::error::{Error, Result};
use crate::types::{ByteRange, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

/// Lets at most a given number of requests run at once; the others wait in the order they came.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn ObjectStore>,
    /// For objects, parts and copies, which take their time.
    places: Arc<Semaphore>,
    brief: Arc<Semaphore>,
}

impl Limited {
    /// At most `max_requests` (at least 1) that move bytes at once, and as many others.
    pub fn new(inner: Arc<dyn ObjectStore>, max_requests: usize) -> Self {
        let places = || Arc::new(Semaphore::new(max_requests.clamp(1, Semaphore::MAX_PERMITS)));
        Limited { inner, places: places(), brief: places() }
    }

    /// Requests that could start now: those that move bytes, and the others.
    pub fn free(&self) -> (usize, usize) {
        (self.places.available_permits(), self.brief.available_permits())
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        taken(&self.places).await
    }

    async fn brief(&self) -> Result<OwnedSemaphorePermit> {
        taken(&self.brief).await
    }
}

async fn taken(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let place = places.clone().acquire_owned().await;
    place.map_err(|_| Error::Internal("the request limit was closed"))
}

/// The body, which gives the place back at its end.
fn holding(body: BodyStream, place: OwnedSemaphorePermit) -> BodyStream {
    Box::pin(stream::unfold(Some((body, place)), |state| async {
        let (mut body, place) = state?;
        let item = body.next().await?;
        let rest = if item.is_ok() { Some((body, place)) } else { None };
        Some((item, rest))
    }))
}

#[async_trait]
impl ObjectStore for Limited {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo> {
        let _place = self.brief().await?;
        self.inner.head(key).await
    }

    async fn tags(&self, key: &ObjectKey) -> Result<Vec<(String, String)>> {
        let _place = self.brief().await?;
        self.inner.tags(key).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        let _place = self.brief().await?;
        self.inner.list(request).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetReply> {
        let place = self.place().await?;
        let reply = self.inner.get(key, range, if_match).await?;
        Ok(GetReply { body: holding(reply.body, place), ..reply })
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        let _place = self.place().await?;
        self.inner.put(key, body, attributes, expect).await
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: &Attributes, parts: PartSource) -> Result<UploadId> {
        let _place = self.brief().await?;
        self.inner.create_upload(key, attributes, parts).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        body: UploadBody,
    ) -> Result<UploadedPart> {
        let _place = self.place().await?;
        self.inner.upload_part(key, upload, number, body).await
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
        let _place = self.place().await?;
        self.inner.upload_part_copy(key, upload, number, source, source_etag, range).await
    }

    async fn list_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage> {
        let _place = self.brief().await?;
        self.inner.list_parts(key, upload, after, most).await
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
        let _place = self.place().await?;
        self.inner.complete_upload(key, upload, parts, size, crc64nvme, expect).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        let _place = self.brief().await?;
        self.inner.abort_upload(key, upload).await
    }

    async fn copy(&self, request: CopyRequest) -> Result<Version> {
        let _place = self.place().await?;
        self.inner.copy(request).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        let _place = self.brief().await?;
        self.inner.delete(key, if_match).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Result<Vec<(ObjectKey, Error)>> {
        let _place = self.brief().await?;
        self.inner.delete_many(keys).await
    }

    async fn rename(&self, source: &ObjectKey, source_etag: &ETag, target: &ObjectKey, expect: &Expect) -> Result<()> {
        let _place = self.brief().await?;
        self.inner.rename(source, source_etag, target, expect).await
    }
}
