//! Making an object of a staged file, and knowing one's own work again when the answer got lost.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use crc_fast::CrcAlgorithm::Crc64Nvme;
use futures_util::StreamExt;

use super::multipart::{Multipart, Parts};
use super::plan::{Plan, plan_upload};
use super::stream::{Finished, Stream};
use super::{Shared, away, journal, tasks};
use crate::cache::Reservation;
use crate::config::ChecksumAlgorithm;
use crate::error::{Error, Result};
use crate::inode::Attempt;
use crate::stage::{NotedUpload, StagedFile};
use crate::store::{Attributes, Digest, ObjectInfo, PartSource, Sum, UploadBody, UploadedPart};
use crate::types::{ByteRange, Expect, ObjectKey, Version};

/// Larger parts are read from the file while they are sent.
const MEMORY_MAX: u64 = 32 << 20;
/// How far the store's clock may be behind ours.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// Bytes read at once for a checksum.
const READ: usize = 1 << 20;

pub(super) async fn upload(
    shared: &Arc<Shared>,
    key: &ObjectKey,
    file: &Arc<StagedFile>,
    attributes: &Attributes,
    expect: &Expect,
) -> Result<Version> {
    if file.has_lost() {
        return Err(Error::PartsLost);
    }
    if !file.missing(ByteRange::new(0, file.size())).is_empty() {
        return Err(Error::Internal("a staged file with missing bytes can't be uploaded"));
    }
    let upload = Upload {
        bytes: StagedBytes::new(shared, file),
        key: key.clone(),
        attributes: attributes.clone(),
        expect: expect.clone(),
        size: file.size(),
        started: SystemTime::now(),
    };
    if file.has_away() {
        return away::upload(upload).await;
    }
    let plan = plan_upload(upload.size, shared.settings.part_size)?;
    let begun = Stream::of(file);
    file.take_companion();
    tasks::run(&shared.runtime, async move {
        match plan {
            Plan::Single => {
                if let Some(begun) = begun {
                    begun.cancel();
                }
                upload.single().await
            }
            Plan::Parts { .. } => upload.by_parts(plan, begun).await,
        }
    })
    .await
}

/// What stands under `key`, if it is what an earlier upload made that got no answer.
pub(super) async fn made_before(
    shared: &Arc<Shared>,
    key: &ObjectKey,
    file: &Arc<StagedFile>,
    attempt: &Attempt,
    expect: &Expect,
) -> Result<Option<Version>> {
    let upload = Upload {
        bytes: StagedBytes::new(shared, file),
        key: key.clone(),
        attributes: attempt.attributes.clone(),
        expect: expect.clone(),
        size: attempt.size,
        started: attempt.began,
    };
    let sums = attempt.sums.clone();
    tasks::run(&shared.runtime, async move { upload.own_work(&sums).await }).await
}

/// CRC-64/NVME of a staged file that nobody writes to: of all of it, or of each range that was changed if some is missing.
pub(super) async fn sums(shared: &Arc<Shared>, file: &Arc<StagedFile>) -> Result<Vec<(ByteRange, u64)>> {
    let bytes = StagedBytes::new(shared, file);
    if file.has_away() {
        return Ok(vec![(ByteRange::new(0, file.size()), away::checksum(&bytes).await?)]);
    }
    let ranges = if file.is_complete() { vec![ByteRange::new(0, file.size())] } else { file.dirty_ranges() };
    let mut sums = Vec::with_capacity(ranges.len());
    for range in ranges {
        sums.push((range, bytes.checksum(range).await?));
    }
    Ok(sums)
}

pub(super) struct Upload {
    pub(super) bytes: StagedBytes,
    pub(super) key: ObjectKey,
    pub(super) attributes: Attributes,
    pub(super) expect: Expect,
    pub(super) size: u64,
    pub(super) started: SystemTime,
}

impl Upload {
    async fn single(&self) -> Result<Version> {
        let shared = &self.bytes.shared;
        let body = self.bytes.body(ByteRange::new(0, self.size)).await?;
        let mut attempt = 1;
        loop {
            match shared.store.put(&self.key, body.body.clone(), &self.attributes, &self.expect).await {
                Ok(version) => return Ok(Version { size: self.size, ..version }),
                Err(Error::ConcurrentWrite) if attempt < shared.patience.redo => {
                    tokio::time::sleep(shared.patience.before(attempt)).await;
                    attempt += 1;
                }
                Err(Error::PreconditionFailed) => {
                    let crc = self.bytes.checksum(ByteRange::new(0, self.size)).await?;
                    return self
                        .own_work(&[(ByteRange::new(0, self.size), crc)])
                        .await?
                        .ok_or(Error::PreconditionFailed);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// AWS wants a whole new upload after a 409 on completing one.
    async fn by_parts(&self, plan: Plan, mut begun: Option<Arc<Stream>>) -> Result<Version> {
        let shared = &self.bytes.shared;
        let mut attempt = 1;
        loop {
            let resumed = begun.as_ref().is_some_and(|begun| begun.is_resumed());
            let error = match self.one_upload(plan, begun.take()).await {
                Err(error @ (Error::ConcurrentWrite | Error::UploadGone)) => error,
                // What an earlier run has left does not fit: this one sends all of it.
                Err(error @ (Error::Corrupt(_) | Error::Server { .. })) if resumed => error,
                done => return done,
            };
            if attempt >= shared.patience.redo {
                return Err(error);
            }
            tracing::debug!(key = %self.key, %error, "an upload begins anew");
            tokio::time::sleep(shared.patience.before(attempt)).await;
            attempt += 1;
        }
    }

    /// Goes on with what was begun while the file was written, or begins here.
    async fn one_upload(&self, plan: Plan, begun: Option<Arc<Stream>>) -> Result<Version> {
        let ready = match begun {
            // What was begun is aborted when this fails.
            Some(begun) => begun.finish(&self.bytes.file).await.inspect_err(|_| self.note_upload(None))?,
            None => None,
        };
        let (mut multipart, sent) = match ready {
            Some(Finished { multipart, sent, .. }) => (multipart, Ok(sent)),
            None => self.send_all(plan).await?,
        };
        let done = match sent {
            Ok(sent) => self.complete(&mut multipart, sent).await,
            Err(error) => Err(error),
        };
        // The journal names it as long as it may be there.
        if done.is_err() && multipart.abort().await {
            self.note_upload(None);
        }
        done
    }

    /// An upload, and what became of its parts.
    async fn send_all(&self, plan: Plan) -> Result<(Multipart, Result<Vec<SentPart>>)> {
        let shared = &self.bytes.shared;
        let multipart = Multipart::create(shared, &self.key, &self.attributes, PartSource::Bodies).await?;
        self.note_upload(Some(journal::noted(multipart.id(), &self.key, &self.attributes)));
        let jobs = plan
            .parts(self.size)
            .enumerate()
            .map(|(index, range)| send_part(self.bytes.clone(), multipart.parts().clone(), index as u64, range));
        let sent = tasks::run_all(&shared.runtime, shared.settings.concurrency, jobs).await;
        Ok((multipart, sent))
    }

    pub(super) async fn complete(&self, multipart: &mut Multipart, mut sent: Vec<SentPart>) -> Result<Version> {
        sent.sort_by_key(|part| part.range.start);
        let crc =
            sent.iter().fold(0, |crc, part| crc_fast::checksum_combine(Crc64Nvme, crc, part.crc, part.range.len()));
        let parts = sent.into_iter().map(|part| part.uploaded).collect();
        match multipart.complete(parts, self.size, Some(crc), &self.expect).await {
            Err(error @ (Error::PreconditionFailed | Error::UploadGone)) => {
                self.own_work(&[(ByteRange::new(0, self.size), crc)]).await?.ok_or(error)
            }
            done => done,
        }
    }

    pub(super) fn note_upload(&self, upload: Option<NotedUpload>) {
        if let Err(error) = self.bytes.file.note_upload(upload) {
            tracing::debug!(%error, "the journal does not name an upload");
        }
    }

    /// What stands under the key, if it is what this upload made: the answer may have been lost on its way. `sums` are those
    /// of the ranges that went up; what was copied beside them is known by the attributes alone.
    pub(super) async fn own_work(&self, sums: &[(ByteRange, u64)]) -> Result<Option<Version>> {
        let shared = &self.bytes.shared;
        let unconfirmed = |error| Error::Unconfirmed(Box::new(error));
        let info = match shared.store.head(&self.key).await {
            Ok(info) => info,
            Err(Error::NotFound) => return Ok(None),
            Err(error) => return Err(unconfirmed(error)),
        };
        if info.version.size != self.size || !self.may_have_made(&info) {
            return Ok(None);
        }
        let whole = ByteRange::new(0, self.size);
        if sums.iter().all(|(range, _)| *range != whole) && self.attributes.metadata.is_empty() {
            return Ok(None);
        }
        for (range, crc) in sums {
            let theirs = match info.crc64nvme.filter(|_| *range == whole) {
                Some(theirs) => Some(theirs),
                None => read_back(shared, &self.key, &info, *range).await.map_err(unconfirmed)?,
            };
            if theirs != Some(*crc) {
                return Ok(None);
            }
        }
        match info.otherwise_encrypted {
            // It was refused when it was written, and is not taken for a success now.
            true => Err(Error::Encryption("what was written before is in the bucket, encrypted otherwise".to_owned())),
            false => Ok(Some(info.version)),
        }
    }

    /// Whether an object of the same size can be this upload's, as far as all but its bytes tell. Replacing one version
    /// by another that somebody else made of the same bytes hurts nobody. But of two who create the same name
    /// exclusively only one may win, and lock files are often equal, even empty: there, more must agree.
    fn may_have_made(&self, info: &ObjectInfo) -> bool {
        if info.attributes.metadata != self.attributes.metadata {
            return false;
        }
        if self.expect != Expect::Absent {
            return true;
        }
        let telling = self.size > 0 || !self.attributes.metadata.is_empty();
        telling && info.version.modified + CLOCKS_DIFFER >= self.started
    }
}

/// The checksum of bytes of an object whose store does not tell it: rare and slow, and better than to call one's own work
/// a conflict. `None` when it changed meanwhile.
async fn read_back(shared: &Arc<Shared>, key: &ObjectKey, info: &ObjectInfo, range: ByteRange) -> Result<Option<u64>> {
    let mut digest = crc_fast::Digest::new(Crc64Nvme);
    if range.is_empty() {
        return Ok(Some(digest.finalize()));
    }
    let mut body = match shared.store.get(key, Some(range), Some(&info.version.etag)).await {
        Ok(reply) if reply.range == range && reply.info.version.same_bytes(&info.version) => reply.body,
        Ok(_) => return Ok(None),
        Err(Error::PreconditionFailed | Error::NotFound | Error::RangeNotSatisfiable) => return Ok(None),
        Err(error) => return Err(error),
    };
    while let Some(chunk) = body.next().await {
        digest.update(&chunk?);
    }
    Ok(Some(digest.finalize()))
}

/// A part that is in the store.
#[derive(Clone)]
pub(super) struct SentPart {
    pub(super) range: ByteRange,
    pub(super) crc: u64,
    pub(super) uploaded: UploadedPart,
}

pub(super) async fn send_part(bytes: StagedBytes, parts: Parts, index: u64, range: ByteRange) -> Result<SentPart> {
    let body = bytes.body(range).await?;
    let crc = match &body.body {
        UploadBody::Summed { crc64nvme, .. } => *crc64nvme,
        UploadBody::Memory(_) | UploadBody::File { .. } => bytes.checksum(range).await?,
    };
    let uploaded = parts.send(index, body.body).await?;
    Ok(SentPart { range, crc, uploaded })
}

/// The bytes of a staged file.
#[derive(Clone)]
pub(super) struct StagedBytes {
    pub(super) shared: Arc<Shared>,
    pub(super) file: Arc<StagedFile>,
}

/// A body, with the memory it takes.
struct Body {
    body: UploadBody,
    _reserved: Option<Reservation>,
}

impl StagedBytes {
    pub(super) fn new(shared: &Arc<Shared>, file: &Arc<StagedFile>) -> Self {
        StagedBytes { shared: shared.clone(), file: file.clone() }
    }

    /// From memory while that is small and the budget has it; else from the file, as it is sent.
    async fn body(&self, range: ByteRange) -> Result<Body> {
        // Half of it is left to readers, who have no other way.
        let (budget, len) = (&self.shared.budget, range.len());
        let may = len <= MEMORY_MAX && budget.available() >= (budget.limit() / 2).saturating_add(len);
        let reserved = if may { budget.try_reserve(len) } else { None };
        let Some(reserved) = reserved else {
            return Ok(Body { body: UploadBody::File { file: self.file.file(), range }, _reserved: None });
        };
        // Summed where the bytes were just touched, and once: the store's header takes this sum.
        let file = self.file.clone();
        let read = tasks::run_blocking(&self.shared.runtime, move || {
            let bytes = read_exact(&file, range.start, range.len() as usize)?;
            let crc64nvme = crc_fast::crc64_nvme(&bytes);
            Ok(UploadBody::Summed { bytes, crc64nvme })
        });
        Ok(Body { body: read.await?, _reserved: Some(reserved) })
    }

    /// CRC-64/NVME of a range.
    pub(super) async fn checksum(&self, range: ByteRange) -> Result<u64> {
        let file = self.file.clone();
        tasks::run_blocking(&self.shared.runtime, move || {
            let mut digest = crc_fast::Digest::new(Crc64Nvme);
            read_through(&file, range, |bytes| digest.update(bytes))?;
            Ok(digest.finalize())
        })
        .await
    }

    /// As above, and the sum of this algorithm.
    pub(super) async fn checksum_and(&self, range: ByteRange, algorithm: ChecksumAlgorithm) -> Result<(u64, Sum)> {
        let file = self.file.clone();
        tasks::run_blocking(&self.shared.runtime, move || {
            let (mut digest, mut other) = (crc_fast::Digest::new(Crc64Nvme), Digest::new(algorithm));
            read_through(&file, range, |bytes| {
                digest.update(bytes);
                other.update(bytes);
            })?;
            Ok((digest.finalize(), other.finish()))
        })
        .await
    }
}

fn read_through(file: &StagedFile, range: ByteRange, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let bytes = read_exact(file, at, (range.end - at).min(READ as u64) as usize)?;
        take(&bytes);
        at += bytes.len() as u64;
    }
    Ok(())
}

fn read_exact(file: &StagedFile, offset: u64, len: usize) -> Result<Bytes> {
    let bytes = file.read_at(offset, len)?;
    if bytes.len() == len { Ok(bytes) } else { Err(Error::Internal("a staged file shrank while it was uploaded")) }
}
