//! The disk cache on the way of bytes: what is there is not fetched, and what is fetched is kept there.
//!
//! Owns when the cache is asked and when bytes are handed to it, and how many may wait for the disk. A reader never waits for
//! bytes to be written, but for a moment when the disk is slower than the store; what has to wait longer is not kept.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fetch::Source;
use crate::cache::disk::{BLOCK, DiskCache, Entry, Found, Whole};
use crate::error::Result;
use crate::stage::StagedFile;
use crate::store::GetReply;
use crate::types::{ByteRange, ObjectKey, Version};

/// Blocks that may wait to be written: 16 MiB.
const WAITING: u32 = 128;
/// Blocks that are written at once, if so many follow each other.
const AT_ONCE: u64 = 8;
/// Threads that may wait for the disk to read: one that answers no more must not take those that others need.
const READERS: usize = 64;
/// Longest wait for room among what is to be written.
const WRITE_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for what is read.
const READ_WAIT: Duration = Duration::from_secs(5);
/// An open waits until a file of so many bytes is compared with its checksums: some milliseconds. Of a larger one that is done
/// meanwhile, for the next open.
const VERIFY_NOW: u64 = 8 << 20;
/// A disk that was waited for in vain is not waited for again for so long.
const SLOW: Duration = Duration::from_secs(10);

/// The disk cache of a mount, and what waits for it.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    cache: DiskCache,
    room: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    /// Held by who compares a large file with its checksums: one at a time.
    verifying: Arc<Semaphore>,
    runtime: Handle,
    reads_late: Late,
    writes_late: Late,
}

/// When the disk was waited for in vain.
#[derive(Clone, Debug, Default)]
struct Late(Arc<Mutex<Option<Instant>>>);

impl Late {
    fn is_recent(&self) -> bool {
        self.when().is_some_and(|when| when.elapsed() < SLOW)
    }

    fn note(&self) {
        tracing::debug!("the disk cache is slow, and is not waited for");
        *self.when() = Some(Instant::now());
    }

    fn when(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeping {
    pub fn new(cache: DiskCache, runtime: Handle) -> Self {
        let room = Arc::new(Semaphore::new(WAITING as usize));
        let readers = Arc::new(Semaphore::new(READERS));
        let verifying = Arc::new(Semaphore::new(1));
        Keeping { cache, room, readers, verifying, runtime, reads_late: Late::default(), writes_late: Late::default() }
    }

    pub fn entry(&self, key: &ObjectKey, version: &Version) -> Option<Kept> {
        let entry = self.cache.entry(key, version)?;
        Some(Kept { entry, keeping: self.clone() })
    }

    /// What `work` on the disk gives; `None` when that takes too long, or did so a short time ago: the store is faster then.
    async fn in_time<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.reads_late.is_recent() {
            return None;
        }
        // Held until the disk has answered, however long that takes.
        let place = self.readers.clone().try_acquire_owned().ok()?;
        let work = move || {
            let done = work();
            drop(place);
            done
        };
        let done = tokio::time::timeout(READ_WAIT, self.runtime.spawn_blocking(work)).await;
        if done.is_err() {
            self.reads_late.note();
        }
        done.ok()?.ok()
    }

    /// Room for so many blocks among those that wait to be written.
    async fn room_for(&self, blocks: u64) -> Option<OwnedSemaphorePermit> {
        let count = permits(blocks);
        let now = self.room.clone().try_acquire_many_owned(count);
        if now.is_ok() || self.writes_late.is_recent() {
            return now.ok();
        }
        let later = tokio::time::timeout(WRITE_WAIT, self.room.clone().acquire_many_owned(count)).await;
        if later.is_err() {
            self.writes_late.note();
        }
        later.ok()?.ok()
    }

    /// Waits until nothing waits for the disk any more, for at most `limit`.
    pub async fn settled(&self, limit: Duration) {
        // The semaphore is never closed: the wait ends by itself or at the limit.
        let _ = tokio::time::timeout(limit, self.room.acquire_many(WAITING)).await;
    }
}

/// One version's place in the cache.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    entry: Arc<Entry>,
    keeping: Keeping,
}

impl Kept {
    /// True when all of `range` is there.
    pub async fn has(&self, range: ByteRange) -> bool {
        let entry = self.entry.clone();
        self.keeping.in_time(move || entry.has(range)).await.unwrap_or(false)
    }

    /// The file with all bytes of the version, if it is there and known to be right.
    pub async fn whole(&self) -> Option<File> {
        let entry = self.entry.clone();
        let look = move || match entry.whole() {
            Whole::Unverified if entry.size() <= VERIFY_NOW && entry.verify() => entry.whole(),
            found => found,
        };
        match self.keeping.in_time(look).await? {
            Whole::Here(file) => Some(file),
            Whole::Unverified => {
                self.verify_meanwhile();
                None
            }
            Whole::Missing => None,
        }
    }

    fn verify_meanwhile(&self) {
        if let Ok(turn) = self.keeping.verifying.clone().try_acquire_owned() {
            let entry = self.entry.clone();
            self.keeping.runtime.spawn_blocking(move || {
                entry.verify();
                drop(turn);
            });
        }
    }

    /// Drops what is there of the version, which is wrong, and has nothing more kept through this place. The disk is waited for
    /// as long as for a read; it goes on by itself after that.
    pub async fn discard(&self) {
        let entry = self.entry.clone();
        let gone = self.keeping.runtime.spawn_blocking(move || entry.discard());
        if tokio::time::timeout(READ_WAIT, gone).await.is_err() {
            self.keeping.reads_late.note();
        }
    }

    async fn look(&self, range: ByteRange) -> Found {
        let entry = self.entry.clone();
        let found = self.keeping.in_time(move || entry.look(range)).await;
        found.unwrap_or(Found::MissingUntil(range.end))
    }

    fn write(&self, at: u64, pieces: Vec<Bytes>, permit: OwnedSemaphorePermit) {
        let entry = self.entry.clone();
        self.keeping.runtime.spawn_blocking(move || {
            entry.keep(at, &pieces);
            drop((pieces, permit));
        });
    }
}

/// What a file that was written here costs of the room for what waits: so that few are read at once.
const WRITTEN: u32 = 16;

impl Kept {
    /// Takes over a staged file that is what the version has, and that nobody changes any more.
    pub fn take_over(self, staged: Arc<StagedFile>) {
        let (room, runtime) = (self.keeping.room.clone(), self.keeping.runtime.clone());
        // At once where it can be: the end of the mount then waits for it.
        let permit = room.clone().try_acquire_many_owned(WRITTEN).ok();
        self.keeping.runtime.clone().spawn(async move {
            let permit = match permit {
                Some(permit) => Ok(permit),
                None => room.acquire_many_owned(WRITTEN).await,
            };
            if let Ok(permit) = permit {
                runtime.spawn_blocking(move || {
                    self.move_or_copy(staged);
                    drop(permit);
                });
            }
        });
    }

    /// Who still reads the staged file goes on doing so: it is then copied.
    fn move_or_copy(&self, staged: Arc<StagedFile>) {
        let staged = match Arc::try_unwrap(staged) {
            Ok(alone) if self.entry.adopt(alone.path()) => return,
            Ok(alone) => Arc::new(alone),
            Err(shared) => shared,
        };
        let (mut at, size) = (0, self.entry.size());
        while at < size {
            let Ok(bytes) = staged.read_at(at, (AT_ONCE * BLOCK) as usize) else { return };
            let count = bytes.len() as u64;
            if count == 0 || !self.entry.keep(at, &[bytes]) {
                return;
            }
            at += count;
        }
    }
}

impl Source {
    /// Gives the bytes of `range` to `sink`, in order, with their offsets: those that are kept on the disk from there, the
    /// others from the store. `first` is an answer of the store that is there already and begins where the range does.
    ///
    /// # Errors
    /// `Stale` when bytes are fetched and the object is not the version any more, what `sink` says, what the store says.
    pub(super) async fn stream(
        &self,
        range: ByteRange,
        first: Option<GetReply>,
        sink: &mut (dyn FnMut(u64, Bytes) -> Result<()> + Send),
    ) -> Result<()> {
        let Some(kept) = self.kept.as_ref().filter(|_| first.is_none()) else {
            return self.fetch(range, first, sink).await;
        };
        let mut at = range.start;
        while at < range.end {
            let rest = ByteRange::new(at, range.end);
            match kept.look(rest).await {
                Found::Here(bytes) if !bytes.is_empty() => {
                    let count = bytes.len() as u64;
                    sink(at, bytes)?;
                    at += count;
                }
                Found::MissingUntil(until) if until > at => {
                    self.fetch(ByteRange::new(at, until), None, sink).await?;
                    at = until;
                }
                _ => return self.fetch(rest, None, sink).await,
            }
        }
        Ok(())
    }
}

/// Gathers what arrives of a version until it makes whole blocks, and has them written.
#[derive(Debug)]
pub(super) struct Gatherer {
    kept: Kept,
    /// Offset of the first byte of `pieces`, which is a block's first.
    start: u64,
    end: u64,
    pieces: Vec<Bytes>,
}

impl Gatherer {
    pub fn new(kept: Kept, at: u64) -> Self {
        let start = at.next_multiple_of(BLOCK);
        Gatherer { kept, start, end: start, pieces: Vec::new() }
    }

    /// Takes the bytes that come next.
    pub async fn take(&mut self, at: u64, mut chunk: Bytes) {
        if at < self.end {
            // The rest of a block whose first bytes came another way.
            let before = chunk.len().min(usize::try_from(self.end - at).unwrap_or(usize::MAX));
            chunk = chunk.split_off(before);
        }
        self.end += chunk.len() as u64;
        if !chunk.is_empty() {
            self.pieces.push(chunk);
        }
        let blocks = self.whole_blocks();
        if blocks >= AT_ONCE || (blocks > 0 && self.end == self.kept.entry.size()) {
            let permit = self.kept.keeping.room_for(blocks).await;
            let (start, pieces) = self.cut();
            if let Some(permit) = permit {
                self.kept.write(start, pieces, permit);
            }
        }
    }

    fn whole_blocks(&self) -> u64 {
        let len = self.end - self.start;
        if self.end == self.kept.entry.size() { len.div_ceil(BLOCK) } else { len / BLOCK }
    }

    /// The whole blocks, with the offset of the first; the rest stays.
    fn cut(&mut self) -> (u64, Vec<Bytes>) {
        let (start, cut) = (self.start, (self.start + self.whole_blocks() * BLOCK).min(self.end));
        let (mut at, mut whole, mut rest) = (start, Vec::new(), Vec::new());
        for mut piece in std::mem::take(&mut self.pieces) {
            let len = piece.len() as u64;
            let head = piece.split_to(cut.saturating_sub(at).min(len) as usize);
            whole.extend((!head.is_empty()).then_some(head));
            rest.extend((!piece.is_empty()).then_some(piece));
            at += len;
        }
        (self.start, self.pieces) = (cut, rest);
        (start, whole)
    }
}

impl Drop for Gatherer {
    /// A request may be cut short when nobody wants the rest: what came is kept all the same.
    fn drop(&mut self) {
        let blocks = self.whole_blocks();
        if blocks > 0
            && let Ok(permit) = self.kept.keeping.room.clone().try_acquire_many_owned(permits(blocks))
        {
            let (start, pieces) = self.cut();
            self.kept.write(start, pieces, permit);
        }
    }
}

fn permits(blocks: u64) -> u32 {
    u32::try_from(blocks).unwrap_or(WAITING).min(WAITING)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;
    use crate::config::CacheSettings;

    #[tokio::test]
    async fn a_disk_that_does_not_answer_takes_so_many_threads_and_no_more() {
        let root = tempfile::tempdir().expect("a folder");
        let settings = CacheSettings { dir: root.path().join("cache"), limit: 1 << 20, min_free: 0 };
        let cache = DiskCache::open(settings, "test".to_owned()).expect("a cache");
        let keeping = Keeping::new(cache, Handle::current());
        let stuck = Arc::new(Barrier::new(READERS + 1));
        let mut reads: Vec<_> = (0..READERS)
            .map(|_| {
                let stuck = stuck.clone();
                Box::pin(keeping.in_time(move || _ = stuck.wait()))
            })
            .collect();
        assert!(reads.iter_mut().all(|read| read.now_or_never().is_none()));
        let next = keeping.in_time(|| {}).now_or_never();
        stuck.wait();
        assert_eq!(next, Some(None), "one more thread waits for the disk");
        assert!(join_all(reads).await.iter().all(Option::is_some));
        assert_eq!(keeping.in_time(|| {}).await, Some(()));
    }
}
