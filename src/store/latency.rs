//! How long answers took: a histogram that many tasks add to, without a lock.
//!
//! Owns the buckets. Each is a sixth part wider than the one before it, so that what is told is at most that much more than what
//! was measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The first bucket ends here; nothing answers sooner.
const FIRST: f64 = 10e-6;

/// How much later each bucket ends than the one before.
const STEP: f64 = 7.0 / 6.0;

/// The last one ends after a quarter of an hour: later than any deadline.
const BUCKETS: usize = 120;

/// Counts durations by their length.
#[derive(Debug)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, time: Duration) {
        let steps = (time.as_secs_f64() / FIRST).max(1.0).ln() / STEP.ln();
        // Casts of floats saturate.
        let index = (steps.ceil() as usize).min(BUCKETS - 1);
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    /// A time within which this share (0 to 1) of what was counted lies; `None` when nothing was.
    pub fn within(&self, share: f64) -> Option<Duration> {
        let counts: [u64; BUCKETS] = std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed));
        let total: u64 = counts.iter().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let index = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_secs_f64(FIRST * STEP.powi(index as i32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_what_was_counted_lies_within_what_is_told() {
        let histogram = Histogram::default();
        assert_eq!(histogram.within(0.5), None);
        for milliseconds in 1..=1000 {
            histogram.add(Duration::from_millis(milliseconds));
        }
        for (share, exact) in [(0.0, 0.001), (0.5, 0.5), (0.99, 0.99), (1.0, 1.0)] {
            let told = histogram.within(share).expect("something was counted").as_secs_f64();
            assert!((exact..=exact * STEP).contains(&told), "{share}: {told} instead of {exact}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_times_are_counted_too() {
        let histogram = Histogram::default();
        histogram.add(Duration::ZERO);
        histogram.add(Duration::MAX);
        assert_eq!(histogram.within(0.1), Some(Duration::from_secs_f64(FIRST)));
        assert!(histogram.within(1.0) > Some(Duration::from_secs(900)));
    }
}
