//! The one budget of all buffers: who may wait takes only what is left, who must go on takes it anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limit;

/// Bytes of buffers that are in use, against a limit. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Budget { shared: Arc::new(Shared { limit, used: AtomicU64::new(0) }) }
    }

    /// What a process should take by default, in bytes: a quarter of what its cgroup (v2 or v1), else the machine,
    /// gives it; at least 16 MiB and at most 1 GiB.
    pub fn default_limit() -> u64 {
        limit::share_of(limit::memory_of_this_process())
    }

    /// `bytes` for something that can be left undone, such as read-ahead; `None` when the budget does not have them.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.shared.limit);
        self.shared.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Reservation { shared: self.shared.clone(), bytes })
    }

    /// `bytes` for something that somebody waits for: counted, and never refused.
    pub fn reserve_anyway(&self, bytes: u64) -> Reservation {
        self.shared.used.fetch_add(bytes, Ordering::Relaxed);
        Reservation { shared: self.shared.clone(), bytes }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Bytes in all.
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Bytes that are left.
    pub fn available(&self) -> u64 {
        self.shared.limit.saturating_sub(self.used())
    }
}

/// Bytes taken out of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_ahead_is_refused_past_the_limit_and_demand_is_not() {
        let budget = Budget::new(10);
        let first = budget.try_reserve(8).expect("it fits");
        assert!(budget.try_reserve(3).is_none());
        let demanded = budget.reserve_anyway(5);
        assert_eq!((budget.used(), budget.available()), (13, 0));
        drop(first);
        assert_eq!((budget.used(), budget.available()), (demanded.bytes(), 5));
    }

    #[test]
    fn a_request_beyond_all_numbers_is_refused() {
        let budget = Budget::new(u64::MAX);
        let _some = budget.try_reserve(1);
        assert!(budget.try_reserve(u64::MAX).is_none());
    }
}
