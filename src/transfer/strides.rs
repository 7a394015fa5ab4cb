//! Reads at equal distances: columns of a table, frames of a film, a file read from its end. Pure, as `window` is.
//!
//! A run is what was read in order, a stride the distance between the first bytes of two runs. When a few strides in a row were
//! the same, the next runs are known: they are fetched ahead, and what is fetched in vain at the end is a share of what was read.

use super::window::{BLOCK, blocks};
use crate::types::ByteRange;

const MIB: u64 = 1 << 20;
/// The kernel asks for whole pages: its strides differ by so much where those of the program do not.
const PAGE: u64 = 4096;
/// For so many equal strides one run is fetched ahead: nothing before the first so many.
const SHARE: u64 = 4;
/// Most runs that are fetched ahead.
const RUNS: u64 = 16;
/// Most bytes that are fetched ahead.
const REACH: u64 = 32 * MIB;

/// What to fetch for the next runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// In the order in which they will be asked for.
    pub ranges: Vec<ByteRange>,
    /// Runs that touch are one range, of which no less than this is fetched at once, but for its beginning; else 0.
    pub piece: u64,
}

/// The runs of one handle.
#[derive(Clone, Debug, Default)]
pub struct Strides {
    run: Option<ByteRange>,
    /// The first byte of the first run of those at equal distances, and how many came after it.
    first: u64,
    count: u64,
    /// The longest of them.
    length: u64,
    known: Runs,
}

impl Strides {
    /// Takes a request (not empty, within the file) of a file of `size` bytes into account. At most `most` bytes are
    /// fetched ahead.
    pub fn observe(&mut self, range: ByteRange, size: u64, most: u64) {
        let Some(run) = self.run.as_mut() else {
            (self.run, self.length) = (Some(range), range.len());
            return;
        };
        // The kernel's own read-ahead may skip what it has.
        if range.start >= run.start && range.start <= run.end.saturating_add(BLOCK) {
            run.end = run.end.max(range.end);
            self.length = self.length.max(run.len());
            return;
        }
        let before = *run;
        *run = range;
        let stride = range.start.abs_diff(before.start);
        let same_way = (range.start > before.start) == (before.start > self.first);
        if self.count > 0 && same_way && stride.abs_diff(self.first.abs_diff(before.start) / self.count) <= PAGE {
            self.count += 1;
            self.length = self.length.max(range.len());
        } else {
            (self.first, self.count) = (before.start, 1);
            self.length = before.len().max(range.len());
        }
        self.known = if self.count >= SHARE { self.next_runs(range.start, size, most) } else { Runs::default() };
    }

    /// What to fetch ahead.
    pub fn ahead(&self) -> &Runs {
        &self.known
    }

    fn next_runs(&self, start: u64, size: u64, most: u64) -> Runs {
        let (backwards, distance) = (start < self.first, self.first.abs_diff(start));
        let stride = distance / self.count;
        let reach = most.min(REACH);
        if stride <= self.length.saturating_add(BLOCK) {
            // In order those would be one run.
            let reach = reach.min(distance / SHARE);
            let begin = start.saturating_sub(reach);
            let range = ByteRange::new(begin - begin % BLOCK, start - start % BLOCK);
            let ranges = if range.is_empty() { Vec::new() } else { vec![range] };
            let least = self.length.clamp(BLOCK, MIB);
            return Runs { ranges, piece: (reach / 4).clamp(least, MIB) };
        }
        let (mut ranges, mut bytes) = (Vec::new(), 0);
        for step in 1..=(self.count / SHARE).min(RUNS) {
            let away = u128::from(distance) * u128::from(step) / u128::from(self.count);
            let away = u64::try_from(away).unwrap_or(u64::MAX);
            let next = if backwards { start.checked_sub(away) } else { start.checked_add(away) };
            let Some(next) = next.filter(|next| *next < size) else { break };
            let end = next.saturating_add(self.length).min(size);
            let range = blocks(ByteRange::new(next, end), size);
            bytes += range.len();
            if bytes > reach {
                break;
            }
            ranges.push(range);
        }
        Runs { ranges, piece: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;
    const MOST: u64 = 64 * MIB;

    /// What is fetched ahead after reads of `len` bytes at these places.
    fn after(starts: impl IntoIterator<Item = u64>, len: u64) -> Runs {
        let mut strides = Strides::default();
        starts.into_iter().for_each(|start| strides.observe(ByteRange::at(start, len), GIB, MOST));
        strides.ahead().clone()
    }

    #[test]
    fn four_equal_strides_tell_the_next_run_and_each_four_more_another_one() {
        assert_eq!(after([10, 20, 30, 40].map(|at| at * MIB), 4096), Runs::default());
        let expected = [60].map(|at| ByteRange::at(at * MIB, BLOCK));
        assert_eq!(after([10, 20, 30, 40, 50].map(|at| at * MIB), 4096).ranges, expected);
        let expected = [110, 100].map(|at| ByteRange::at(at * MIB, BLOCK));
        assert_eq!(after((0..9).map(|at| (200 - at * 10) * MIB), 4096).ranges, expected);
        assert_eq!(after((0..80).map(|at| at * 10 * MIB), 4096).ranges.len(), RUNS as usize);
    }

    #[test]
    fn a_run_that_the_kernel_cuts_is_one_run() {
        let starts = [10, 20, 30, 40, 50].into_iter().flat_map(|at| (0..8).map(move |piece| at * MIB + piece * BLOCK));
        let expected = [60].map(|at| ByteRange::at(at * MIB, MIB));
        assert_eq!(after(starts, BLOCK).ranges, expected);
    }

    #[test]
    fn strides_that_are_no_whole_pages_are_equal() {
        let starts = (0..9).map(|at| at * 1_000_000 / PAGE * PAGE);
        let ranges = after(starts, PAGE).ranges;
        assert_eq!(ranges.len(), 2);
        for (range, at) in ranges.iter().zip(9..) {
            assert!(
                range.start <= at * 1_000_000 / PAGE * PAGE && at * 1_000_000 / PAGE * PAGE < range.end,
                "{range:?}"
            );
        }
    }

    #[test]
    fn a_file_read_from_its_end_gets_what_lies_before_a_share_of_what_was_read() {
        let runs = after((0..9).map(|at| 100 * MIB - at * MIB), MIB);
        assert_eq!(runs, Runs { ranges: vec![ByteRange::new(90 * MIB, 92 * MIB)], piece: MIB });
        let runs = after((0..400).map(|at| 900 * MIB - at * MIB), MIB);
        assert_eq!(runs.ranges, [ByteRange::new(469 * MIB, 501 * MIB)]);
        assert_eq!(
            after((0..20).map(|at| 4 * MIB - at * BLOCK), BLOCK).ranges,
            [ByteRange::at(4 * MIB - 24 * BLOCK, 5 * BLOCK)]
        );
        assert_eq!(after((0..6).map(|at| at * BLOCK).rev(), BLOCK), Runs { ranges: Vec::new(), piece: BLOCK });
    }

    #[test]
    fn other_orders_tell_nothing() {
        assert_eq!(after((0..100).map(|at| at * BLOCK), BLOCK), Runs::default(), "in order");
        assert_eq!(after([500, 100, 900, 300, 20, 700].map(|at| at * MIB), 4096), Runs::default(), "anywhere");
        let two = (0..20).flat_map(|at| [at * BLOCK, 500 * MIB + at * BLOCK]);
        assert_eq!(after(two, BLOCK), Runs::default(), "two streams by turns");
        assert_eq!(
            after([10, 20, 30, 40, 50, 60, 99].map(|at| at * MIB), 4096),
            Runs::default(),
            "the end of the strides"
        );
    }

    proptest! {
        #[test]
        fn what_is_fetched_lies_in_the_file_and_within_the_most(
            size in 1..GIB,
            most in prop_oneof![Just(0), Just(MOST), 1..MOST],
            (first, stride, len) in (0..GIB, -20 * MIB as i64..20 * MIB as i64, 1..2 * MIB),
            count in 1..60_i64,
        ) {
            let mut strides = Strides::default();
            for step in 0..count {
                let Some(start) = first.checked_add_signed(stride * step).filter(|start| *start < size) else { break };
                strides.observe(ByteRange::at(start, len).intersect(ByteRange::new(0, size)), size, most);
                let runs = strides.ahead();
                prop_assert!(runs.ranges.iter().all(|range| !range.is_empty() && range.end <= size));
                let bytes: u64 = runs.ranges.iter().map(ByteRange::len).sum();
                prop_assert!(bytes <= most.min(REACH) + BLOCK, "{} bytes", bytes);
                prop_assert!(runs.ranges.len() <= RUNS as usize);
            }
        }
    }
}
