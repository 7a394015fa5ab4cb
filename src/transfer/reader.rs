//! Reading one version of an object, by any number of handles.
//!
//! Parts belong to the cursors that want them: the reader only knows them weakly, so a part that nobody wants any
//! more is cancelled and freed at once, and one that several want is fetched once. Lock order: cursor, then reader;
//! neither is held while waiting.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use super::Shared;
use super::cursor::{Cursor, CursorState, Fetch};
use super::fetch::Source;
use super::sums::Sums;
use super::window::Advice;
use crate::cache::disk::BLOCK;
use crate::cache::{Part, Reservation, join};
use crate::error::{Error, Result};
use crate::store::GetReply;
use crate::types::{ByteRange, ObjectKey, Version};

/// Most of an adopted body that is kept: it was asked for before anybody knew how much of it is wanted.
const ADOPT_MAX: u64 = 8 << 20;
/// With less of the budget left, cursors that stand still give up what they hold.
const PRESSURE: u64 = 16 << 20;

/// Reads one version of one object. Shared by all handles of that version.
#[derive(Debug)]
pub struct ObjectReader {
    source: Source,
    sums: Arc<Sums>,
    number: u64,
    /// Live parts by their first byte; they never overlap.
    parts: Mutex<BTreeMap<u64, Weak<Fetch>>>,
    /// An open's first part, until a cursor takes it.
    adopted: Mutex<Option<Arc<Fetch>>>,
}

impl ObjectReader {
    pub(super) fn new(shared: Arc<Shared>, key: ObjectKey, version: Version) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let source = Source::new(shared, key, version);
        ObjectReader {
            sums: Sums::new(source.clone()),
            source,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            parts: Mutex::default(),
            adopted: Mutex::default(),
        }
    }

    /// The version it reads.
    pub fn version(&self) -> &Version {
        &self.source.version
    }

    /// Takes the answer of an open's GET as a first part. One of another version, or of bytes that are on their way
    /// already, is dropped.
    pub fn adopt(&self, reply: GetReply) {
        self.adopt_paid(reply, None);
    }

    /// As [`ObjectReader::adopt`]; `paid` is the memory for it, if somebody has taken that out of the budget already.
    pub(super) fn adopt_paid(&self, reply: GetReply, paid: Option<Reservation>) {
        let range = ByteRange::at(reply.range.start, reply.range.len().min(ADOPT_MAX));
        if range.is_empty() || !reply.info.version.same_bytes(self.version()) || range.end > self.version().size {
            return;
        }
        let mut parts = lock(&self.parts);
        if !live(&mut parts, range).is_empty() {
            return;
        }
        let paid = paid.filter(|paid| paid.bytes() >= range.len());
        // Nobody may ever read them.
        let Some(reserved) = paid.or_else(|| self.source.shared.budget.try_reserve(range.len())) else { return };
        let fetch = self.start(&mut parts, range, reserved, Some(reply));
        drop(parts);
        *lock(&self.adopted) = Some(fetch);
    }

    /// True when all of `range`, within the object, is on the local disk.
    pub async fn is_kept(&self, range: ByteRange) -> bool {
        match &self.source.kept {
            Some(kept) => kept.has(range).await,
            None => false,
        }
    }

    /// The file of the local disk that has all bytes of this version, if there is one that is known to be right.
    pub async fn whole_file(&self) -> Option<File> {
        self.source.kept.as_ref()?.whole().await
    }

    /// True when the bytes that came are not those that the store has: what was given of them is not to be kept.
    pub fn is_wrong(&self) -> bool {
        self.sums.check().is_err()
    }

    /// The bytes of `range`, cut at the end of the object. Who reads all of a larger object is given its last byte only when the
    /// whole was compared with the checksum that the store has, if it has one.
    ///
    /// # Errors
    /// `Stale` when the object is not this version any more; `Corrupt` when what came does not have the store's checksum, also
    /// of what was given before; what the store says.
    pub async fn read(&self, cursor: &Cursor, range: ByteRange) -> Result<Bytes> {
        let range = range.intersect(ByteRange::new(0, self.version().size));
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.sums.check()?;
        let parts = self.arrange(cursor, range);
        self.sums.ask(range);
        let bytes = gather(&parts, range).await?;
        if range.end == self.version().size {
            // Now for sure it shows whether anything came out of the store.
            self.sums.ask(range);
            self.sums.settled().await?;
        }
        Ok(bytes)
    }

    /// Sees to it that what the request needs is on its way, and what comes after it; gives the parts it needs.
    fn arrange(&self, cursor: &Cursor, range: ByteRange) -> Vec<Arc<Fetch>> {
        let (size, shared) = (self.version().size, &self.source.shared);
        let mut state = cursor.on(self.number, &shared.cursors);
        state.held.extend(lock(&self.adopted).take());
        if shared.budget.available() < PRESSURE {
            shared.cursors.reclaim(shared.patience.idle);
        }
        // Under pressure the windows shrink: each reader may take what it has, and half of what is left.
        let most = shared.settings.read_ahead.min(state.bytes().saturating_add(shared.budget.available() / 2));
        let mut advice = state.pattern.observe(range, size, most);
        if self.source.kept.is_some() {
            advice = advice.in_blocks(BLOCK, size);
        }

        let mut parts = lock(&self.parts);
        let needed = self.cover_demand(&mut parts, advice);
        state.hold(&needed);
        let ahead = self.cover_ahead(&mut parts, advice, &state.held);
        state.hold(&ahead);
        let runs = self.cover_runs(&mut parts, &state);
        state.hold(&runs);
        drop(parts);
        state.let_go();
        needed
    }

    /// The parts that hold the demand, in order. What is missing is fetched whatever the budget says; when it can,
    /// a request goes on into what is wanted next.
    fn cover_demand(&self, parts: &mut BTreeMap<u64, Weak<Fetch>>, advice: Advice) -> Vec<Arc<Fetch>> {
        let budget = &self.source.shared.budget;
        let reach = if advice.ahead.start <= advice.demand.end { advice.ahead.end } else { advice.demand.end };
        let whole = ByteRange::new(advice.demand.start, reach.max(advice.demand.end));
        let mut needed = live(parts, advice.demand);
        for gap in gaps(parts, whole) {
            if gap.start >= advice.demand.end {
                break;
            }
            let least = ByteRange::new(gap.start, gap.end.min(advice.demand.end));
            let long = ByteRange::new(gap.start, gap.end.min(least.end.max(gap.start + advice.piece)));
            let (piece, reserved) = match budget.try_reserve(long.len()) {
                Some(reserved) => (long, reserved),
                None => (least, budget.reserve_anyway(least.len())),
            };
            needed.push(self.start(parts, piece, reserved, None));
        }
        needed.sort_by_key(|fetch| fetch.part.range().start);
        needed
    }

    /// The parts that hold what is wanted next, as far as budget and concurrency go.
    fn cover_ahead(
        &self,
        parts: &mut BTreeMap<u64, Weak<Fetch>>,
        advice: Advice,
        held: &[Arc<Fetch>],
    ) -> Vec<Arc<Fetch>> {
        let shared = &self.source.shared;
        let mut ahead = live(parts, advice.ahead);
        let mut running = held.iter().filter(|fetch| !fetch.part.is_complete()).count();
        for gap in gaps(parts, advice.ahead) {
            let mut start = gap.start;
            // The last piece of a window waits until it is a whole one, unless nothing comes after it.
            while start < gap.end && (gap.end - start >= advice.piece || self.ends_there(parts, gap.end)) {
                let piece = ByteRange::new(start, gap.end.min(start + advice.piece));
                let reserved = if running < shared.settings.concurrency.max(1) {
                    shared.budget.try_reserve(piece.len())
                } else {
                    None
                };
                let Some(reserved) = reserved else { return ahead };
                ahead.push(self.start(parts, piece, reserved, None));
                running += 1;
                start = piece.end;
            }
        }
        ahead
    }

    /// The parts that hold the next of several runs at equal distances, as far as budget and concurrency go.
    fn cover_runs(&self, parts: &mut BTreeMap<u64, Weak<Fetch>>, state: &CursorState) -> Vec<Arc<Fetch>> {
        let (shared, runs) = (&self.source.shared, state.pattern.runs());
        let mut covering = Vec::new();
        let mut running = state.held.iter().filter(|fetch| !fetch.part.is_complete()).count();
        for range in &runs.ranges {
            covering.extend(live(parts, *range));
            for gap in gaps(parts, *range) {
                if gap.len() < runs.piece && gap.start > 0 {
                    continue;
                }
                let most = if runs.piece > 0 { runs.piece } else { gap.len() };
                let mut end = gap.end;
                // What comes next lies at the end where a file is read from there.
                while end > gap.start {
                    let piece = ByteRange::new(end.saturating_sub(most).max(gap.start), end);
                    let reserved = if running < shared.settings.concurrency.max(1) {
                        shared.budget.try_reserve(piece.len())
                    } else {
                        None
                    };
                    let Some(reserved) = reserved else { return covering };
                    covering.push(self.start(parts, piece, reserved, None));
                    running += 1;
                    end = piece.start;
                }
            }
        }
        covering
    }

    fn ends_there(&self, parts: &BTreeMap<u64, Weak<Fetch>>, end: u64) -> bool {
        end == self.version().size || parts.contains_key(&end)
    }

    fn start(
        &self,
        parts: &mut BTreeMap<u64, Weak<Fetch>>,
        range: ByteRange,
        reserved: Reservation,
        first: Option<GetReply>,
    ) -> Arc<Fetch> {
        let part = Arc::new(Part::new(range, reserved));
        let task = self.source.shared.runtime.spawn({
            let (source, part) = (self.source.clone(), part.clone());
            let mut summing = self.sums.begin(range);
            async move {
                let mut sink = |at, chunk: Bytes| {
                    if let Some(summing) = &mut summing {
                        summing.take(at, &chunk);
                    }
                    part.push(chunk);
                    Ok(())
                };
                let outcome = source.stream(range, first, &mut sink).await;
                // Before anybody learns of it and asks for the rest anew.
                drop(summing);
                if let Err(error) = outcome {
                    part.fail(error);
                }
            }
        });
        let fetch = Arc::new(Fetch { part, task: task.abort_handle() });
        parts.insert(range.start, Arc::downgrade(&fetch));
        fetch
    }
}

/// The bytes of `range` out of parts that are in order.
async fn gather(parts: &[Arc<Fetch>], range: ByteRange) -> Result<Bytes> {
    let (mut pieces, mut at) = (Vec::new(), range.start);
    for Fetch { part, .. } in parts.iter().map(AsRef::as_ref) {
        // A part that failed since, after these bytes had come, lies over the one that took its place.
        let wanted = part.range().intersect(ByteRange::new(at, range.end));
        if wanted.is_empty() || wanted.start != at {
            continue;
        }
        part.wait_for(wanted.end).await?;
        part.collect(wanted, &mut pieces);
        at = wanted.end;
    }
    if at == range.end { Ok(join(pieces)) } else { Err(Error::Internal("a read was not covered by parts")) }
}

/// The parts that overlap `range` and may still be read, in order. Forgets those that are gone or failed.
fn live(parts: &mut BTreeMap<u64, Weak<Fetch>>, range: ByteRange) -> Vec<Arc<Fetch>> {
    let mut found = Vec::new();
    parts.retain(|_, fetch| {
        let Some(fetch) = fetch.upgrade().filter(|fetch| !fetch.part.has_failed()) else { return false };
        if !fetch.part.range().intersect(range).is_empty() {
            found.push(fetch);
        }
        true
    });
    found
}

/// The bytes of `range` that no part has.
fn gaps(parts: &mut BTreeMap<u64, Weak<Fetch>>, range: ByteRange) -> Vec<ByteRange> {
    let (mut gaps, mut at) = (Vec::new(), range.start);
    for fetch in live(parts, range) {
        let part = fetch.part.range();
        if part.start > at {
            gaps.push(ByteRange::new(at, part.start));
        }
        at = part.end;
    }
    if at < range.end {
        gaps.push(ByteRange::new(at, range.end));
    }
    gaps
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Budget;

    #[tokio::test]
    async fn parts_that_lie_over_each_other_give_each_byte_once() {
        let budget = Budget::new(1 << 20);
        let fetch = |range: ByteRange, bytes: &'static [u8]| {
            let part = Arc::new(Part::new(range, budget.reserve_anyway(range.len())));
            part.push(Bytes::from_static(bytes));
            Arc::new(Fetch { part, task: tokio::spawn(async {}).abort_handle() })
        };
        let failed = fetch(ByteRange::new(0, 8), b"0123");
        failed.part.fail(Error::Stale);
        let parts = [failed, fetch(ByteRange::new(0, 6), b"012345"), fetch(ByteRange::new(6, 9), b"678")];
        for (start, end) in [(0, 4), (1, 3), (5, 9)] {
            let range = ByteRange::new(start, end);
            let rest = if start < 4 { &parts[..] } else { &parts[1..] };
            let got = gather(rest, range).await.expect("all bytes are there");
            assert_eq!(got, b"012345678"[start as usize..end as usize]);
        }
        let parts = [fetch(ByteRange::new(0, 4), b"0123"), fetch(ByteRange::new(2, 8), b"234567")];
        assert_eq!(gather(&parts, ByteRange::new(1, 8)).await.expect("all bytes are there"), b"1234567"[..]);
    }
}
