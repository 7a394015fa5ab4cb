//! Bringing missing bytes of the base version into a staged file.
//!
//! Pieces are fetched in parallel and written as they arrive: no piece is ever in memory as a whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::fetch::Source;
use super::{Shared, tasks};
use crate::error::{Error, Result};
use crate::stage::StagedFile;
use crate::types::{ByteRange, ObjectKey, Version};

/// Least that one call brings.
const LEAST: u64 = 1 << 20;
/// Most that one call brings beyond what was asked.
const EXTRA_MAX: u64 = 16 << 20;
/// Bytes of one request.
const PIECE: u64 = 8 << 20;

type Gate = tokio::sync::Mutex<()>;

/// Lets one at a time bring bytes of the same stretch of the same file, so that the others find them here.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// By the file's address, which nobody else can have while the gate is held, and stretch of [`PIECE`] bytes.
    known: Mutex<HashMap<(usize, u64), Weak<Gate>>>,
}

impl Gates {
    fn of(&self, file: &Arc<StagedFile>, offset: u64) -> Arc<Gate> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (Arc::as_ptr(file).addr(), offset / PIECE);
        if let Some(gate) = known.get(&place).and_then(Weak::upgrade) {
            return gate;
        }
        known.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::default());
        known.insert(place, Arc::downgrade(&gate));
        gate
    }
}

/// What becomes of bytes for which the stage has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// They come all the same, as long as the disk takes them: without them a file could not be stored.
    Must,
    /// They stay away: they can be read without the stage, too.
    May,
}

impl Need {
    pub(super) fn fill(self, file: &StagedFile, at: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Need::Must => file.fill_at(at, bytes),
            Need::May => file.fill_if_room(at, bytes),
        }
    }
}

pub(super) async fn hydrate(
    shared: &Arc<Shared>,
    (key, version): (&ObjectKey, &Version),
    file: &Arc<StagedFile>,
    range: ByteRange,
    need: Need,
) -> Result<()> {
    if file.missing(range).is_empty() {
        return Ok(());
    }
    let gate = shared.gates.of(file, range.start);
    let _turn = gate.lock().await;
    let gaps = match file.missing(range) {
        gaps if gaps.is_empty() => return Ok(()),
        _ => file.missing(extend(range, file.present_before(range.start))),
    };
    if gaps.iter().any(|gap| gap.end > version.size) {
        return Err(Error::Internal("bytes are missing that the base version does not have"));
    }
    let source = Source::new(shared.clone(), key.clone(), version.clone());
    let (file, runtime, limit) = (file.clone(), shared.runtime.clone(), shared.settings.concurrency);
    tasks::run(&shared.runtime, async move {
        let jobs = gaps.into_iter().flat_map(pieces).map(|piece| bring(source.clone(), file.clone(), piece, need));
        tasks::run_all(&runtime, limit, jobs).await.map(drop)
    })
    .await
}

/// A reader in order finds the bytes before its request here already: the longer that run, the more it is going
/// to want, so what is brought doubles as it goes.
fn extend(range: ByteRange, present_before: u64) -> ByteRange {
    let extra = present_before.clamp(LEAST, EXTRA_MAX);
    ByteRange::new(range.start, range.end.max(range.start.saturating_add(extra)))
}

fn pieces(gap: ByteRange) -> impl Iterator<Item = ByteRange> {
    (0..gap.len().div_ceil(PIECE)).map(move |index| ByteRange::at(gap.start + index * PIECE, PIECE).intersect(gap))
}

async fn bring(source: Source, file: Arc<StagedFile>, piece: ByteRange, need: Need) -> Result<()> {
    source.stream(piece, None, &mut |at, chunk| need.fill(&file, at, &chunk)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_brought_doubles_while_it_is_read_in_order() {
        let asked = ByteRange::at(64 << 20, 4096);
        assert_eq!(extend(asked, 0).len(), LEAST);
        assert_eq!(extend(asked, 4 << 20).len(), 4 << 20);
        assert_eq!(extend(asked, u64::MAX).len(), EXTRA_MAX);
        assert_eq!(extend(ByteRange::at(0, 1 << 30), 0).len(), 1 << 30);
    }

    #[test]
    fn pieces_cover_the_gap() {
        let gap = ByteRange::at(5, 2 * PIECE + 1);
        let pieces: Vec<_> = pieces(gap).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!((pieces[0].start, pieces[1].start, pieces[2].end), (5, pieces[0].end, gap.end));
    }
}
