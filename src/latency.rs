//! How long answers took: a histogram that many tasks add to, without a lock.
//!
//! Owns the buckets. They end at the numbers of the series R20 (ISO 3): each is at most a seventh wider than the one before it, so
//! that what is told of a share is at most that much more than what was measured, and the round numbers that monitoring asks for
//! are among them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// R20, in hundredths.
const SERIES: [u64; 20] =
    [100, 112, 125, 140, 160, 180, 200, 224, 250, 280, 315, 355, 400, 450, 500, 560, 630, 710, 800, 900];

/// From 10 us, sooner than which nothing answers, to 1000 s, later than any deadline of a request. What takes longer is counted in
/// the last one.
const BUCKETS: usize = SERIES.len() * 8 + 1;

/// Where each bucket ends, in nanoseconds; the end is part of it.
const ENDS: [u64; BUCKETS] = {
    let mut ends = [0; BUCKETS];
    let (mut index, mut decade) = (0, 100);
    while index < BUCKETS {
        ends[index] = SERIES[index % SERIES.len()] * decade;
        index += 1;
        if index % SERIES.len() == 0 {
            decade *= 10;
        }
    }
    ends
};

/// Where the coarse buckets end that monitoring gets, in microseconds: few, since each is kept for each operation.
const COARSE: [u64; 12] =
    [100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000, 100_000_000];

/// Counts durations by their length.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    /// Nanoseconds.
    sum: AtomicU64,
}

/// What was counted up to one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Durations up to each of a few ends, and longer than the one before.
    pub buckets: Vec<(Duration, u64)>,
    /// All of them, also those that are longer than the last end.
    pub count: u64,
    /// Together.
    pub sum: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let index = ENDS.partition_point(|end| *end < nanos).min(BUCKETS - 1);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.read().iter().sum()
    }

    /// A time within which this share (0 to 1) of what was counted lies; `None` when nothing was.
    pub fn within(&self, share: f64) -> Option<Duration> {
        let counts = self.read();
        let total: u64 = counts.iter().sum();
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let index = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_nanos(ENDS[index]))
    }

    /// All of it, in a few buckets.
    pub fn distribution(&self) -> Distribution {
        let counts = self.read();
        let mut from = 0;
        let buckets = COARSE.map(|end| {
            let to = ENDS.partition_point(|fine| *fine <= end * 1_000);
            let count = counts[from..to].iter().sum();
            from = to;
            (Duration::from_micros(end), count)
        });
        let sum = Duration::from_nanos(self.sum.load(Ordering::Relaxed));
        Distribution { buckets: buckets.into(), count: counts.iter().sum(), sum }
    }

    fn read(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed))
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
            assert!((exact..=exact * 8.0 / 7.0).contains(&told), "{share}: {told} instead of {exact}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_times_are_counted_too() {
        let histogram = Histogram::default();
        histogram.add(Duration::ZERO);
        histogram.add(Duration::MAX);
        assert_eq!(histogram.within(0.1), Some(Duration::from_micros(10)));
        assert_eq!(histogram.within(1.0), Some(Duration::from_secs(1000)));
        assert_eq!(histogram.count(), 2);
    }

    #[test]
    fn each_bucket_is_at_most_a_seventh_wider_than_the_one_before() {
        for ends in ENDS.windows(2) {
            assert!(ends[0] < ends[1] && ends[1] * 7 <= ends[0] * 8, "{ends:?}");
        }
    }

    #[test]
    fn the_few_buckets_end_where_they_say() {
        for end in COARSE {
            assert!(ENDS.contains(&(end * 1_000)), "no bucket ends at {end} us");
            let histogram = Histogram::default();
            histogram.add(Duration::from_micros(end));
            histogram.add(Duration::from_micros(end) + Duration::from_nanos(1));
            let told = histogram.distribution();
            let up_to = |most: u64| {
                let most = Duration::from_micros(most);
                told.buckets.iter().filter(|(end, _)| *end <= most).map(|(_, count)| count).sum::<u64>()
            };
            assert_eq!((up_to(end - 1), up_to(end), told.count), (0, 1, 2), "{end} us");
            assert_eq!(told.sum, Duration::from_micros(end) * 2 + Duration::from_nanos(1));
        }
    }
}
