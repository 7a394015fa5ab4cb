//! Where handles read, and which parts they hold for that.
//!
//! Holding is owning: a part goes, and its request is cancelled, when the last cursor lets it go. Cursors that have
//! not moved for a while give theirs up when others need the memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::window::Pattern;
use crate::cache::Part;

/// Where one handle reads, and what it holds for that. Dropping it gives up what nobody else holds.
#[derive(Debug, Default)]
pub struct Cursor {
    state: Arc<Mutex<CursorState>>,
}

#[derive(Debug, Default)]
pub(super) struct CursorState {
    /// Number of the reader that the rest is about; 0 is none.
    reader: u64,
    pub(super) pattern: Pattern,
    pub(super) held: Vec<Arc<Fetch>>,
    moved: Option<Instant>,
}

/// A part, and the task that fills it.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) part: Arc<Part>,
    pub(super) task: AbortHandle,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cursor {
    /// The state, for a read through the reader with this number: what it had of another one is given up.
    pub(super) fn on(&self, reader: u64, all: &Cursors) -> MutexGuard<'_, CursorState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.reader != reader {
            if state.reader == 0 {
                all.add(&self.state);
            }
            *state = CursorState { reader, ..CursorState::default() };
        }
        state.moved = Some(Instant::now());
        state
    }
}

impl CursorState {
    /// Holds these parts too.
    pub(super) fn hold(&mut self, more: &[Arc<Fetch>]) {
        for fetch in more {
            if !self.held.iter().any(|known| Arc::ptr_eq(known, fetch)) {
                self.held.push(fetch.clone());
            }
        }
    }

    /// Lets go what the pattern has no use for.
    pub(super) fn let_go(&mut self) {
        let CursorState { pattern, held, .. } = self;
        held.retain(|fetch| pattern.wants(fetch.part.range()));
    }

    /// Bytes of all parts that it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.held.iter().map(|fetch| fetch.part.range().len()).sum()
    }
}

/// All cursors that ever read.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    known: Mutex<Vec<Weak<Mutex<CursorState>>>>,
}

impl Cursors {
    fn add(&self, cursor: &Arc<Mutex<CursorState>>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == known.capacity() {
            known.retain(|cursor| cursor.strong_count() > 0);
        }
        known.push(Arc::downgrade(cursor));
    }

    /// Takes what those hold that have not moved for so long. Called with a cursor locked, and so waits for none.
    pub(super) fn reclaim(&self, idle: Duration) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for cursor in known.iter().filter_map(Weak::upgrade) {
            if let Ok(mut state) = cursor.try_lock()
                && state.moved.is_some_and(|moved| moved.elapsed() >= idle)
            {
                state.held.clear();
            }
        }
    }
}
