//! The bytes of one ranged GET, kept as the chunks in which they arrive.
//!
//! A reader is answered as soon as its own bytes are there. A read within one chunk shares its memory; one that
//! spans several is copied together once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::budget::Reservation;
use crate::error::{Error, Result};
use crate::types::ByteRange;

/// A range of an object that is being fetched, or was.
#[derive(Debug)]
pub struct Part {
    range: ByteRange,
    /// The memory it takes, given back with it.
    _reserved: Reservation,
    state: Mutex<State>,
    /// Told after every change of `state`.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Each with the offset of its first byte, in order and without gaps.
    chunks: Vec<(u64, Bytes)>,
    /// One past the last byte that is here.
    filled: u64,
    failure: Option<Error>,
}

impl Part {
    /// A part without bytes as yet.
    pub fn new(range: ByteRange, reserved: Reservation) -> Self {
        let state = State { chunks: Vec::new(), filled: range.start, failure: None };
        Part { range, _reserved: reserved, state: Mutex::new(state), changed: Notify::new() }
    }

    /// The bytes it is going to have.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// One past the last byte that is here: where the next chunk belongs.
    pub fn filled(&self) -> u64 {
        self.state().filled
    }

    /// True when every byte is here.
    pub fn is_complete(&self) -> bool {
        self.filled() == self.range.end
    }

    /// True when it ended before its last byte.
    pub fn has_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    /// Adds the next bytes and wakes who waits for them. What goes past the end of the part is cut off.
    pub fn push(&self, mut chunk: Bytes) {
        let mut state = self.state();
        let room = self.range.end - state.filled;
        chunk.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if chunk.is_empty() {
            return;
        }
        let at = state.filled;
        state.filled += chunk.len() as u64;
        state.chunks.push((at, chunk));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends it early: who waits for bytes that are not here gets the error.
    pub fn fail(&self, error: Error) {
        let mut state = self.state();
        if state.filled < self.range.end {
            state.failure.get_or_insert(error);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits until all bytes before `end` (cut at the end of the part) are here.
    ///
    /// # Errors
    /// That of [`Part::fail`], if it ended before them.
    pub async fn wait_for(&self, end: u64) -> Result<()> {
        let end = end.min(self.range.end);
        loop {
            // Made before the look: a change after the look wakes it.
            let changed = self.changed.notified();
            {
                let state = self.state();
                if state.filled >= end {
                    return Ok(());
                }
                if let Some(error) = &state.failure {
                    return Err(error.clone());
                }
            }
            changed.await;
        }
    }

    /// Appends the pieces of memory that hold `range`, in order; the bytes that are not here are left out.
    pub fn collect(&self, range: ByteRange, pieces: &mut Vec<Bytes>) {
        let state = self.state();
        let first = state.chunks.partition_point(|(at, chunk)| at + chunk.len() as u64 <= range.start);
        for (at, chunk) in &state.chunks[first..] {
            let wanted = ByteRange::at(*at, chunk.len() as u64).intersect(range);
            if wanted.is_empty() {
                break;
            }
            pieces.push(chunk.slice((wanted.start - at) as usize..(wanted.end - at) as usize));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts pieces together: a single one as it is, several copied once.
pub fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Budget;
    use super::*;

    fn part(start: u64, end: u64) -> Part {
        let range = ByteRange::new(start, end);
        Part::new(range, Budget::new(1 << 20).reserve_anyway(range.len()))
    }

    fn read(part: &Part, start: u64, end: u64) -> Bytes {
        let mut pieces = Vec::new();
        part.collect(ByteRange::new(start, end), &mut pieces);
        join(pieces)
    }

    #[test]
    fn reads_within_and_across_chunks_give_the_bytes() {
        let part = part(100, 110);
        part.push(Bytes::from_static(b"0123"));
        part.push(Bytes::from_static(b"456789 and what does not belong to it"));
        assert!(part.is_complete());
        for start in 100..110 {
            for end in start + 1..=110 {
                assert_eq!(read(&part, start, end), b"0123456789"[start as usize - 100..end as usize - 100]);
            }
        }
    }

    #[tokio::test]
    async fn a_reader_is_answered_before_the_part_is_complete() {
        let part = Arc::new(part(0, 8));
        let waiting = tokio::spawn({
            let part = part.clone();
            async move { part.wait_for(4).await }
        });
        part.push(Bytes::from_static(b"01"));
        part.push(Bytes::from_static(b"234"));
        waiting.await.expect("no panic").expect("the bytes came");
        assert!(!part.is_complete());
    }

    #[tokio::test]
    async fn a_failure_reaches_only_those_whose_bytes_never_came() {
        let part = part(0, 8);
        part.push(Bytes::from_static(b"0123"));
        part.fail(Error::Stale);
        part.wait_for(4).await.expect("these are here");
        assert!(matches!(part.wait_for(5).await, Err(Error::Stale)));
    }
}
