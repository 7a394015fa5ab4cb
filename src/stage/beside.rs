//! What goes with a staged file while an upload of it is under way: the map of bytes that went up and are the same since.
//!
//! What an upload is, only `transfer` knows: its half is kept here as an opaque companion, so that it goes when the file goes.

use std::any::Any;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::file::StagedFile;
use crate::types::ByteRange;

/// Something that lives as long as a staged file, or until it is taken away.
pub type Companion = Arc<dyn Any + Send + Sync>;

impl StagedFile {
    /// Hands `range` to an upload, if all of it is here. It must be read after this, not before: what is written from now
    /// on counts as not sent.
    pub fn send(&self, range: ByteRange) -> bool {
        let mut state = self.state();
        let whole = state.present.contains(range);
        if whole {
            state.sent.insert(range);
        }
        whole
    }

    /// True when none of these bytes has changed since they were handed to an upload.
    pub fn is_sent(&self, range: ByteRange) -> bool {
        self.state().sent.contains(range)
    }

    /// The bytes that are the same as in the base version, of `base_size` bytes, in order and apart.
    pub fn unchanged(&self, base_size: u64) -> Vec<ByteRange> {
        let state = self.state();
        state.dirty.missing(ByteRange::new(0, base_size.min(state.size)))
    }

    /// What goes with the file.
    pub fn companion(&self) -> Option<Companion> {
        self.companion_slot().clone()
    }

    /// Puts a companion beside the file, unless there is one. Nothing was sent for the new one yet,
    /// but what is only in the upload that the record names.
    pub fn accompany(&self, make: impl FnOnce() -> Companion) -> bool {
        let mut slot = self.companion_slot();
        let free = slot.is_none();
        if free {
            let mut state = self.state();
            state.sent = state.away.list().into_iter().map(|part| part.range).collect();
            drop(state);
            *slot = Some(make());
        }
        free
    }

    /// Takes the companion away.
    pub fn take_companion(&self) -> Option<Companion> {
        self.companion_slot().take()
    }

    fn companion_slot(&self) -> MutexGuard<'_, Option<Companion>> {
        self.companion.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
