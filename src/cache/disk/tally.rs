//! How often what was looked for was here.

use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Found;

/// What came of looks for bytes, up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// Looks that found bytes.
    pub hits: u64,
    /// Looks that found none.
    pub misses: u64,
    /// Bytes that were found.
    pub bytes: u64,
}

/// Counts looks.
#[derive(Debug, Default)]
pub(super) struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    pub fn count(&self, found: &Found) {
        match found {
            Found::Here(bytes) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Found::MissingUntil(_) => _ = self.misses.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub fn read(&self) -> Looks {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Looks { hits: read(&self.hits), misses: read(&self.misses), bytes: read(&self.bytes) }
    }
}
