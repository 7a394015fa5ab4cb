//! What was asked of the server: requests and body bytes by operation.
//!
//! Owns the counting only. A request counts when it arrives, whatever becomes of it; bytes count as they pass.

use super::operation::Operation;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How often one operation was asked for, and what went in and out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that arrived, refused ones too.
    pub requests: u64,
    /// Body bytes received, with chunk framing.
    pub bytes_in: u64,
    /// Body bytes sent.
    pub bytes_out: u64,
}

/// The counts of a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    by_operation: BTreeMap<Operation, Count>,
}

impl Counters {
    /// The counts of one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> Count {
        self.by_operation.get(&operation).copied().unwrap_or_default()
    }

    /// The requests of one operation.
    #[must_use]
    pub fn requests(&self, operation: Operation) -> u64 {
        self.of(operation).requests
    }

    /// All operations together.
    #[must_use]
    pub fn total(&self) -> Count {
        self.by_operation.values().fold(Count::default(), |sum, count| Count {
            requests: sum.requests + count.requests,
            bytes_in: sum.bytes_in + count.bytes_in,
            bytes_out: sum.bytes_out + count.bytes_out,
        })
    }

    /// The operations that were asked for, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Operation, Count)> + '_ {
        self.by_operation.iter().map(|(operation, count)| (*operation, *count))
    }
}

/// The running counts.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counters>);

impl Tally {
    pub(super) fn request(&self, operation: Operation) {
        self.change(operation, |count| count.requests += 1);
    }

    pub(super) fn bytes_in(&self, operation: Operation, bytes: usize) {
        self.change(operation, |count| count.bytes_in += bytes as u64);
    }

    pub(super) fn bytes_out(&self, operation: Operation, bytes: usize) {
        self.change(operation, |count| count.bytes_out += bytes as u64);
    }

    pub(super) fn read(&self) -> Counters {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Counters::default();
    }

    fn change(&self, operation: Operation, change: impl FnOnce(&mut Count)) {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(counters.by_operation.entry(operation).or_default());
    }
}
