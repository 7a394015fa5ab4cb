//! A decorator: how many requests of each kind, how many bytes, and how long the answers took.
//!
//! Counts what callers ask for: a retry inside the store below is no request of theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;

use super::{
    Attributes, Capabilities, CopyRequest, GetReply, ListPage, ListRequest, ObjectInfo, ObjectStore, Operation,
    Outcome, PartSource, PartsPage, UploadBody, UploadedPart,
};
use crate::error::{Error, Result};
use crate::latency::{Distribution, Histogram};
use crate::types::{ByteRange, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

/// What was counted of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests, whatever came of them.
    pub requests: u64,
    /// Of these, those that failed.
    pub failures: u64,
    /// Bytes of objects that came from the store.
    pub bytes_in: u64,
    /// Bytes of objects that were sent to the store and taken.
    pub bytes_out: u64,
}

/// What was counted up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([Count; Operation::ALL.len()]);

impl Counts {
    /// Of one operation.
    pub fn of(&self, operation: Operation) -> Count {
        self.0[operation as usize]
    }

    /// Of all operations together.
    pub fn total(&self) -> Count {
        self.0.iter().fold(Count::default(), |sum, count| Count {
            requests: sum.requests + count.requests,
            failures: sum.failures + count.failures,
            bytes_in: sum.bytes_in + count.bytes_in,
            bytes_out: sum.bytes_out + count.bytes_out,
        })
    }
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    /// Requests that are over, by what came of them.
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Bodies that ended early.
    broken: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Until the answer; of a GET, until its body begins.
    latency: Histogram,
}

impl Counters {
    fn read(&self) -> Count {
        let failed = Outcome::ALL.into_iter().filter(|outcome| outcome.is_failure());
        let failures: u64 = failed.map(|outcome| self.outcomes[outcome as usize].load(Ordering::Relaxed)).sum();
        Count {
            requests: self.requests.load(Ordering::Relaxed),
            failures: failures + self.broken.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}

/// Counts what came of a request when it is over, also when nobody waits for it any more.
struct Over<'a> {
    counters: &'a Counters,
    outcome: Outcome,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.counters.outcomes[self.outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts requests and bytes of the store below.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<dyn ObjectStore>,
    counters: Arc<[Counters; Operation::ALL.len()]>,
    /// What takes so long is logged.
    slow: Option<Duration>,
}

impl Counted {
    /// Starts at zero.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Counted { inner, counters: Arc::default(), slow: None }
    }

    /// Requests that take as long as `slow`, with their retries, are logged.
    pub fn telling(self, slow: Option<Duration>) -> Self {
        Counted { slow, ..self }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|index| self.counters[index].read()))
    }

    /// A time within which this share (0 to 1) of the answers came to requests of one operation: of a GET, until its body began.
    /// `None` before the first one.
    pub fn answered_within(&self, operation: Operation, share: f64) -> Option<Duration> {
        self.counters[operation as usize].latency.within(share)
    }

    /// How many requests of one operation are over, by what came of them.
    pub fn outcomes(&self, operation: Operation) -> [(Outcome, u64); Outcome::ALL.len()] {
        let outcomes = &self.counters[operation as usize].outcomes;
        Outcome::ALL.map(|outcome| (outcome, outcomes[outcome as usize].load(Ordering::Relaxed)))
    }

    /// How many bodies of GET ended early.
    pub fn broken_bodies(&self) -> u64 {
        self.counters[Operation::Get as usize].broken.load(Ordering::Relaxed)
    }

    /// How long the answers took to requests of one operation: of a GET, until its body began.
    pub fn latencies(&self, operation: Operation) -> Distribution {
        self.counters[operation as usize].latency.distribution()
    }

    /// Waits for the answer to what is asked about a key and counts it; `sent` bytes count when it is a success.
    async fn count<T>(
        &self,
        (operation, key): (Operation, &str),
        sent: u64,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let counters = &self.counters[operation as usize];
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let mut over = Over { counters, outcome: Outcome::Cancelled };
        let answer = answer.await;
        let took = asked.elapsed();
        counters.latency.add(took);
        over.outcome = Outcome::of(&answer);
        if self.slow.is_some_and(|slow| took >= slow) {
            let (request, seconds, outcome) = (operation.s3_name(), took.as_secs_f64(), over.outcome.word());
            tracing::warn!(request, key, seconds, outcome, "S3 was slow");
        }
        if answer.is_ok() {
            counters.bytes_out.fetch_add(sent, Ordering::Relaxed);
        }
        answer
    }
}

#[async_trait]
impl ObjectStore for Counted {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo> {
        self.count((Operation::Head, key.as_str()), 0, self.inner.head(key)).await
    }

    async fn tags(&self, key: &ObjectKey) -> Result<Vec<(String, String)>> {
        self.count((Operation::Tags, key.as_str()), 0, self.inner.tags(key)).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        let prefix = request.prefix.clone();
        self.count((Operation::List, &prefix), 0, self.inner.list(request)).await
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetReply> {
        let reply = self.count((Operation::Get, key.as_str()), 0, self.inner.get(key, range, if_match)).await?;
        let counters = self.counters.clone();
        let body = reply.body.inspect(move |chunk| {
            let counters = &counters[Operation::Get as usize];
            match chunk {
                Ok(bytes) => counters.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed),
                Err(_) => counters.broken.fetch_add(1, Ordering::Relaxed),
            };
        });
        Ok(GetReply { body: Box::pin(body), ..reply })
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        self.count((Operation::Put, key.as_str()), body.len(), self.inner.put(key, body, attributes, expect)).await
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: &Attributes, parts: PartSource) -> Result<UploadId> {
        self.count((Operation::CreateUpload, key.as_str()), 0, self.inner.create_upload(key, attributes, parts)).await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        body: UploadBody,
    ) -> Result<UploadedPart> {
        self.count((Operation::UploadPart, key.as_str()), body.len(), self.inner.upload_part(key, upload, number, body))
            .await
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
        let copy = self.inner.upload_part_copy(key, upload, number, source, source_etag, range);
        self.count((Operation::UploadPartCopy, key.as_str()), 0, copy).await
    }

    async fn list_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage> {
        self.count((Operation::ListParts, key.as_str()), 0, self.inner.list_parts(key, upload, after, most)).await
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
        let complete = self.inner.complete_upload(key, upload, parts, size, crc64nvme, expect);
        self.count((Operation::CompleteUpload, key.as_str()), 0, complete).await
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.count((Operation::AbortUpload, key.as_str()), 0, self.inner.abort_upload(key, upload)).await
    }

    async fn copy(&self, request: CopyRequest) -> Result<Version> {
        let target = request.target.clone();
        self.count((Operation::Copy, target.as_str()), 0, self.inner.copy(request)).await
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        self.count((Operation::Delete, key.as_str()), 0, self.inner.delete(key, if_match)).await
    }

    async fn delete_many(&self, keys: &[ObjectKey]) -> Result<Vec<(ObjectKey, Error)>> {
        let first = keys.first().map_or("", ObjectKey::as_str);
        self.count((Operation::DeleteMany, first), 0, self.inner.delete_many(keys)).await
    }

    async fn rename(&self, source: &ObjectKey, source_etag: &ETag, target: &ObjectKey, expect: &Expect) -> Result<()> {
        self.count((Operation::Rename, target.as_str()), 0, self.inner.rename(source, source_etag, target, expect))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_numbered_in_order() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
    }
}
