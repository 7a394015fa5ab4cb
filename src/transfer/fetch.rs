//! One range of one version, streamed, and resumed where its body broke.
//!
//! Owns what an answer must look like and what is tried again: a body that breaks, stalls or ends early goes on at
//! the byte where it stopped, with pauses and a bounded number of tries. Knows nothing of who wants the bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;

use super::Shared;
use super::keep::{Gatherer, Kept};
use crate::error::{Error, Result};
use crate::store::{BodyStream, GetReply};
use crate::types::{ByteRange, ObjectKey, Version};

/// An object up to this size comes whole: in one round trip, and compared with its checksum before a byte of it is given on.
/// Of whole objects stores know the checksum, of ranges they don't: what becomes of those is told in `sums`.
pub const WHOLE_MAX: u64 = 1 << 20;

/// What to ask the store for, to have `range` of an object of `size` bytes: `None` is the whole.
pub fn whole_or(range: ByteRange, size: u64) -> Option<ByteRange> {
    (size > WHOLE_MAX || range != ByteRange::new(0, size)).then_some(range)
}

/// Where the bytes come from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) shared: Arc<Shared>,
    pub(super) key: ObjectKey,
    pub(super) version: Version,
    /// Its place on the local disk, if there is a cache.
    pub(super) kept: Option<Kept>,
    /// Something was fetched from the store.
    fetched: Arc<AtomicBool>,
}

/// Why a try ended early.
enum Ended {
    /// Trying again may help.
    Broken(Error),
    /// It won't.
    Final(Error),
}

impl Source {
    pub(super) fn new(shared: Arc<Shared>, key: ObjectKey, version: Version) -> Self {
        let kept = shared.keeping.as_ref().and_then(|keeping| keeping.entry(&key, &version));
        Source { shared, key, version, kept, fetched: Arc::default() }
    }

    pub(super) fn has_fetched(&self) -> bool {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Fetches the bytes of `range`, gives them to `sink`, in order, with their offsets, and to the cache. `first` is an answer
    /// that is there already and begins where the range does.
    ///
    /// # Errors
    /// `Stale` when the object is not the version any more, what `sink` says, what the store says.
    pub(super) async fn fetch(
        &self,
        range: ByteRange,
        first: Option<GetReply>,
        sink: &mut (dyn FnMut(u64, Bytes) -> Result<()> + Send),
    ) -> Result<()> {
        let patience = self.shared.patience;
        self.fetched.store(true, Ordering::Relaxed);
        let (mut at, mut first) = (range.start, first);
        let (mut tries, mut fruitless) = (0, 0);
        let mut gatherer = self.kept.clone().map(|kept| Gatherer::new(kept, range.start));
        while at < range.end {
            let began = at;
            let error = match self.attempt(&mut at, range.end, first.take(), sink, &mut gatherer).await {
                Ok(()) => continue,
                Err(Ended::Final(error)) => return Err(error),
                Err(Ended::Broken(error)) => error,
            };
            tries += 1;
            fruitless = if at > began { 1 } else { fruitless + 1 };
            if tries >= patience.tries || fruitless >= patience.fruitless {
                return Err(error);
            }
            tracing::debug!(key = %self.key, at, %error, "a body broke; going on where it stopped");
            tokio::time::sleep(patience.before(fruitless)).await;
        }
        Ok(())
    }

    async fn attempt(
        &self,
        at: &mut u64,
        end: u64,
        first: Option<GetReply>,
        sink: &mut (dyn FnMut(u64, Bytes) -> Result<()> + Send),
        gatherer: &mut Option<Gatherer>,
    ) -> Result<(), Ended> {
        let reply = match first {
            Some(reply) => reply,
            None => self.get(ByteRange::new(*at, end)).await?,
        };
        let (promised, mut body) = (reply.range, reply.body);
        if promised == ByteRange::new(0, reply.info.version.size) && promised.end <= WHOLE_MAX {
            body = self.checked(body).await?;
        }
        while *at < end {
            let mut chunk = match self.next_chunk(&mut body).await? {
                Some(chunk) => chunk,
                None => return Err(Ended::Broken(Error::Corrupt("the body ended early".into()))),
            };
            chunk.truncate(usize::try_from(end - *at).unwrap_or(usize::MAX));
            let count = chunk.len() as u64;
            sink(*at, chunk.clone()).map_err(Ended::Final)?;
            if let Some(gatherer) = gatherer {
                gatherer.take(*at, chunk).await;
            }
            *at += count;
        }
        if promised.end == end {
            // Reading to the end gives the connection back for the next request.
            _ = self.next_chunk(&mut body).await;
        }
        Ok(())
    }

    /// A body that has come to its end, which says whether it is right, or to where it broke: from there it is asked for in
    /// ranges.
    async fn checked(&self, mut body: BodyStream) -> Result<BodyStream, Ended> {
        let mut chunks = Vec::new();
        loop {
            match self.next_chunk(&mut body).await {
                Ok(Some(chunk)) => chunks.push(Ok(chunk)),
                Ok(None) => break,
                Err(Ended::Broken(error)) if !matches!(error, Error::Corrupt(_)) => {
                    chunks.push(Err(error));
                    break;
                }
                Err(ended) => return Err(ended),
            }
        }
        Ok(Box::pin(futures_util::stream::iter(chunks)))
    }

    async fn next_chunk(&self, body: &mut BodyStream) -> Result<Option<Bytes>, Ended> {
        match tokio::time::timeout(self.shared.patience.stall, body.next()).await {
            Err(_) => Err(Ended::Broken(Error::Timeout("the body stalled".into()))),
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(error))) => Err(Ended::Broken(error)),
        }
    }

    async fn get(&self, range: ByteRange) -> Result<GetReply, Ended> {
        let reply =
            self.shared.store.get(&self.key, whole_or(range, self.version.size), Some(&self.version.etag)).await;
        let reply = reply.map_err(|error| match error {
            Error::PreconditionFailed | Error::NotFound | Error::RangeNotSatisfiable => Ended::Final(Error::Stale),
            Error::Corrupt(_) => Ended::Broken(error),
            // The store has tried again already what may help.
            other => Ended::Final(other),
        })?;
        self.check(&reply, range)?;
        Ok(reply)
    }

    fn check(&self, reply: &GetReply, range: ByteRange) -> Result<(), Ended> {
        if reply.info.version.etag != self.version.etag {
            // A store that ignores If-Match.
            return Err(Ended::Final(Error::Stale));
        }
        if reply.range != range {
            let text =
                format!("bytes {}-{} came for {}-{}", reply.range.start, reply.range.end, range.start, range.end);
            return Err(Ended::Broken(Error::Corrupt(text)));
        }
        if reply.info.version.size != self.version.size {
            let text = format!("a size of {} under an ETag of {}", reply.info.version.size, self.version.size);
            return Err(Ended::Broken(Error::Corrupt(text)));
        }
        Ok(())
    }
}
