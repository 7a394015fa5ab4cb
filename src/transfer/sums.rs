//! The checksum of a larger object, put together from those of the ranges in which it comes, and compared with the store's.
//!
//! Owns which bytes are summed, what the store says of the whole, and the verdict. Each byte is summed once, where it passes, also
//! one from the local disk. Whoever wants the last byte waits for the verdict, if all others came or are on their way; what is
//! read in part is never compared. Knows nothing of requests for bytes, nor of who reads.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crc_fast::CrcAlgorithm::Crc64Nvme;
use lru::LruCache;
use tokio::sync::Notify;

use super::fetch::{Source, WHOLE_MAX};
use crate::error::{Error, Result};
use crate::store::ObjectInfo;
use crate::types::{ByteRange, ETag, ObjectKey, Version};

/// Objects of which it is remembered what HEAD said, at most some 200 bytes and a key each.
const HEARD: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Runs of bytes that are summed and don't touch each other: who reads in order has few, who jumps about never reads all.
const RUNS_MAX: usize = 1024;

/// What HEAD said of the checksums of larger objects.
#[derive(Debug)]
pub(super) struct Heard(Mutex<LruCache<(ObjectKey, ETag, u64), Option<u64>>>);

impl Default for Heard {
    fn default() -> Self {
        Heard(Mutex::new(LruCache::new(HEARD)))
    }
}

impl Heard {
    /// Remembers what an answer to HEAD says, also that it names no sum.
    pub fn note(&self, key: &ObjectKey, info: &ObjectInfo) {
        let Version { etag, size, .. } = &info.version;
        if *size > WHOLE_MAX {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.put((key.clone(), etag.clone(), *size), info.crc64nvme);
        }
    }

    fn of(&self, source: &Source) -> Option<Told> {
        let Version { etag, size, .. } = &source.version;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(source.key.clone(), etag.clone(), *size)).map(|sum| Told::from_head(*sum))
    }
}

/// What the store says of the whole object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Unasked,
    /// The answer comes, or the time for it ends.
    Asked,
    /// The sum of all bytes.
    Sum(u64),
    /// No such sum, or none that is wanted: nothing is compared.
    Nothing,
}

impl Told {
    fn from_head(sum: Option<u64>) -> Told {
        sum.map_or(Told::Nothing, Told::Sum)
    }
}

#[derive(Debug)]
enum Verdict {
    /// Nothing wrong is known.
    Open,
    /// The bytes are wrong, and what is kept of them is being dropped.
    Dropping,
    /// The bytes are wrong.
    Wrong(Error),
}

/// What is summed of one version, as far as one reader fetched it.
#[derive(Debug)]
pub(super) struct Sums {
    source: Source,
    state: Mutex<State>,
    /// Told after every change of `state`.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    runs: Runs,
    /// Bytes that are on their way.
    coming: Vec<ByteRange>,
    told: Told,
    verdict: Verdict,
}

impl Sums {
    pub fn new(source: Source) -> Arc<Sums> {
        let etag = source.version.etag.as_str();
        // Under a weak ETag, or none, the next answer may be about other bytes.
        let strong = !etag.is_empty() && !etag.starts_with("W/");
        let told = match source.shared.settings.compare && strong && source.version.size > WHOLE_MAX {
            true => source.shared.heard.of(&source).unwrap_or(Told::Unasked),
            false => Told::Nothing,
        };
        let state = State { runs: Runs::default(), coming: Vec::new(), told, verdict: Verdict::Open };
        Arc::new(Sums { source, state: Mutex::new(state), changed: Notify::new() })
    }

    /// The sums of `range`, which is about to come. `None` when nothing of it is of use.
    pub fn begin(self: &Arc<Self>, range: ByteRange) -> Option<Summing> {
        let mut state = self.state();
        if state.told == Told::Nothing || !matches!(state.verdict, Verdict::Open) {
            return None;
        }
        let gaps = state.runs.missing(range);
        let at = gaps.first()?.start;
        state.coming.extend(&gaps);
        Some(Summing { sums: self.clone(), gaps: gaps.into(), at, digest: crc_fast::Digest::new(Crc64Nvme) })
    }

    /// A program reads `range`. One who is past the middle, and read all before, will want to know the sum of the whole: it is
    /// asked for, if it is not known and bytes came out of the store.
    pub fn ask(self: &Arc<Self>, range: ByteRange) {
        if range.end <= self.source.version.size / 2 || !self.source.has_fetched() {
            return;
        }
        let mut state = self.state();
        if state.told != Told::Unasked || state.reach() < range.start {
            return;
        }
        state.told = self.source.shared.heard.of(&self.source).unwrap_or(Told::Asked);
        if state.told == Told::Asked {
            self.source.shared.runtime.spawn(self.clone().learn());
        }
        self.judge(state);
    }

    /// Asks the store for the sum of the whole. An answer that does not come or is of no use only means that nothing is compared.
    async fn learn(self: Arc<Self>) {
        let Source { shared, key, version, .. } = &self.source;
        let answer = tokio::time::timeout(shared.patience.stall, shared.store.head(key)).await;
        let told = match answer {
            Ok(Ok(info)) if info.version.same_bytes(version) => {
                shared.heard.note(key, &info);
                Told::from_head(info.crc64nvme)
            }
            _ => Told::Nothing,
        };
        if told == Told::Nothing {
            tracing::debug!(%key, "the store tells no checksum of the whole object; its bytes are not compared");
        }
        let mut state = self.state();
        state.told = told;
        self.judge(state);
    }

    /// Waits until the bytes are known to be right, or are not to be compared.
    ///
    /// # Errors
    /// `Corrupt` when they are wrong.
    pub async fn settled(&self) -> Result<()> {
        loop {
            // Made before the look: a change after the look wakes it.
            let changed = self.changed.notified();
            {
                let state = self.state();
                match (&state.verdict, state.told) {
                    (Verdict::Wrong(error), _) => return Err(error.clone()),
                    (Verdict::Dropping, _) => {}
                    (Verdict::Open, Told::Nothing | Told::Unasked) => return Ok(()),
                    // They are right, or some were never fetched.
                    (Verdict::Open, _) if state.reach() < self.source.version.size => return Ok(()),
                    (Verdict::Open, _) => {}
                }
            }
            changed.await;
        }
    }

    /// # Errors
    /// `Corrupt` when the bytes are known to be wrong.
    pub fn check(&self) -> Result<()> {
        match &self.state().verdict {
            Verdict::Wrong(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// These bytes have come, with this sum.
    fn add(self: &Arc<Self>, range: ByteRange, crc: u64) {
        let mut state = self.state();
        state.forget(range);
        state.runs.add(range, crc);
        if state.runs.count() > RUNS_MAX {
            (state.told, state.runs) = (Told::Nothing, Runs::default());
        }
        self.judge(state);
    }

    /// Compares, if there is all that it takes. Who read to the end may begin again: that is compared anew.
    fn judge(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if let (Verdict::Open, Told::Sum(theirs)) = (&state.verdict, state.told)
            && let Some(ours) = state.runs.whole(self.source.version.size)
        {
            state.runs = Runs::default();
            if ours != theirs {
                state.verdict = Verdict::Dropping;
                self.source.shared.runtime.spawn(self.clone().condemn(ours, theirs));
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nobody is told before the disk has let go what it keeps: who is told opens the file anew.
    async fn condemn(self: Arc<Self>, ours: u64, theirs: u64) {
        let (ours, theirs) = (format!("{ours:016x}"), format!("{theirs:016x}"));
        tracing::error!(
            key = %self.source.key, came = ours, stored = theirs,
            "the bytes that came of an object don't have the CRC-64/NVME that the store has of it; they are dropped"
        );
        if let Some(kept) = &self.source.kept {
            kept.discard().await;
        }
        let text = format!("bytes of the CRC-64/NVME {ours} came, and the store has {theirs}");
        self.state().verdict = Verdict::Wrong(Error::Corrupt(text));
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How far the bytes from the first one on came, or are on their way.
    fn reach(&self) -> u64 {
        let mut at = 0;
        loop {
            let coming = self.coming.iter().find(|range| range.start <= at && range.end > at).map(|range| range.end);
            match self.runs.end_from(at).or(coming) {
                Some(end) => at = end,
                None => return at,
            }
        }
    }

    fn forget(&mut self, range: ByteRange) {
        if let Some(index) = self.coming.iter().position(|coming| coming.start == range.start) {
            self.coming.swap_remove(index);
        }
    }
}

/// The sum of a range that is coming. Dropped early, what came of it counts.
#[derive(Debug)]
pub(super) struct Summing {
    sums: Arc<Sums>,
    /// What is still to be summed, in order.
    gaps: VecDeque<ByteRange>,
    /// One past the last byte of the first gap that is summed.
    at: u64,
    digest: crc_fast::Digest,
}

impl Summing {
    /// Takes the bytes that come next.
    pub fn take(&mut self, at: u64, chunk: &[u8]) {
        while let Some(gap) = self.gaps.front().copied() {
            let wanted = ByteRange::at(at, chunk.len() as u64).intersect(ByteRange::new(self.at, gap.end));
            let bytes = chunk.get((wanted.start.saturating_sub(at)) as usize..(wanted.end.saturating_sub(at)) as usize);
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty() && wanted.start == self.at) else { return };
            self.digest.update(bytes);
            self.at = wanted.end;
            if self.at < gap.end {
                return;
            }
            self.finish(gap);
        }
    }

    /// What came of the first gap is all that will.
    fn finish(&mut self, gap: ByteRange) {
        self.gaps.pop_front();
        let crc = std::mem::replace(&mut self.digest, crc_fast::Digest::new(Crc64Nvme)).finalize();
        self.sums.add(ByteRange::new(gap.start, self.at), crc);
        self.at = self.gaps.front().map_or(self.at, |next| next.start);
    }
}

impl Drop for Summing {
    fn drop(&mut self) {
        let Some(first) = self.gaps.front().copied() else { return };
        if self.at > first.start {
            self.finish(first);
        }
        let mut state = self.sums.state();
        self.gaps.iter().for_each(|gap| state.forget(*gap));
        drop(state);
        self.sums.changed.notify_waiters();
    }
}

/// Runs of bytes and their sums: by their first byte, one past the last, and the CRC.
#[derive(Debug, Default)]
struct Runs(BTreeMap<u64, (u64, u64)>);

impl Runs {
    fn count(&self) -> usize {
        self.0.len()
    }

    /// The parts of `range` that are not summed, in order.
    fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let (mut gaps, mut at) = (Vec::new(), self.end_from(range.start).unwrap_or(range.start));
        for (start, (end, _)) in self.0.range(at..range.end.max(at)) {
            gaps.push(ByteRange::new(at, *start));
            at = *end;
        }
        gaps.push(ByteRange::new(at, range.end.max(at)));
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    /// Where the run ends that holds the byte at `at`.
    fn end_from(&self, at: u64) -> Option<u64> {
        self.0.range(..=at).next_back().map(|(_, (end, _))| *end).filter(|end| *end > at)
    }

    /// Adds a run. One that lies over another one is left out: which of the two a program was given is not known.
    fn add(&mut self, range: ByteRange, crc: u64) {
        if self.missing(range) != [range] {
            return;
        }
        let (mut start, mut end, mut crc) = (range.start, range.end, crc);
        if let Some((at, (before, sum))) = self.0.range(..start).next_back().map(|(at, run)| (*at, *run))
            && before == start
        {
            self.0.remove(&at);
            crc = crc_fast::checksum_combine(Crc64Nvme, sum, crc, range.len());
            start = at;
        }
        if let Some((after, sum)) = self.0.remove(&end) {
            crc = crc_fast::checksum_combine(Crc64Nvme, crc, sum, after - end);
            end = after;
        }
        self.0.insert(start, (end, crc));
    }

    /// The sum of all bytes of an object of that size.
    fn whole(&self, size: u64) -> Option<u64> {
        self.0.get(&0).filter(|(end, _)| *end == size).map(|(_, crc)| *crc)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_in_any_order_make_the_sum_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 1..500),
            pieces in prop::collection::vec((0usize..500, 0usize..120), 0..60),
        ) {
            let (mut runs, size) = (Runs::default(), bytes.len() as u64);
            let add = |runs: &mut Runs, range: ByteRange| {
                for gap in runs.missing(range) {
                    runs.add(gap, crc_fast::crc64_nvme(&bytes[gap.start as usize..gap.end as usize]));
                    // Once more changes nothing.
                    runs.add(gap, 7);
                }
            };
            let all = ByteRange::new(0, size);
            for (start, len) in pieces {
                let range = ByteRange::at(start as u64, len as u64).intersect(all);
                if !range.is_empty() {
                    add(&mut runs, range);
                    prop_assert_eq!(runs.missing(range), vec![]);
                    prop_assert_eq!(runs.end_from(range.end - 1).is_some_and(|end| end >= range.end), true);
                }
            }
            prop_assert_eq!(runs.whole(size).is_some(), runs.missing(all).is_empty());
            add(&mut runs, all);
            prop_assert_eq!((runs.count(), runs.whole(size)), (1, Some(crc_fast::crc64_nvme(&bytes))));
            prop_assert_eq!(runs.whole(size + 1), None);
        }
    }
}
