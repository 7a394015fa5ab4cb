//! A set of byte offsets, kept as ranges that neither overlap nor touch.
//!
//! Owns the arithmetic of "which bytes are here" and "which are dirty", and nothing else: it is a value,
//! without files, locks or clocks.

use std::collections::BTreeMap;

use crate::types::ByteRange;

/// Ranges of bytes; neighbours that touch are merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeMap {
    /// Start to end of each range, none empty, with at least one byte between two of them.
    ranges: BTreeMap<u64, u64>,
}

impl RangeMap {
    /// No bytes at all.
    pub fn new() -> Self {
        RangeMap::default()
    }

    /// Adds the bytes of `range`.
    pub fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // The last range that begins at or before the end reaches furthest back; each step eats one that touches.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            start = start.min(s);
            end = end.max(e);
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
    }

    /// Takes the bytes of `range` out.
    pub fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.ranges.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.ranges.remove(&s);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
            if s < range.start {
                self.ranges.insert(s, range.start);
                break;
            }
        }
    }

    /// Takes out all bytes at and after `size`.
    pub fn truncate(&mut self, size: u64) {
        self.remove(ByteRange::new(size, u64::MAX));
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// True when no byte is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of bytes in it.
    pub fn total(&self) -> u64 {
        self.iter().map(|range| range.len()).sum()
    }

    /// True when every byte of `range` is in it; an empty range always is.
    pub fn contains(&self, range: ByteRange) -> bool {
        range.is_empty() || self.run_at(range.start).is_some_and(|run| run.end >= range.end)
    }

    /// The merged range that holds the byte at `offset`.
    pub fn run_at(&self, offset: u64) -> Option<ByteRange> {
        let (&start, &end) = self.ranges.range(..=offset).next_back()?;
        (offset < end).then(|| ByteRange::new(start, end))
    }

    /// The parts of `range` that are not in it, in order.
    pub fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for present in self.within(range) {
            if present.start > at {
                gaps.push(ByteRange::new(at, present.start));
            }
            at = present.end;
        }
        if at < range.end {
            gaps.push(ByteRange::new(at, range.end));
        }
        gaps
    }

    /// The parts of `range` that are in it, in order.
    pub fn within(&self, range: ByteRange) -> Vec<ByteRange> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = self.run_at(range.start).map_or(range.start, |run| run.start);
        self.ranges.range(first..range.end).map(|(&s, &e)| ByteRange::new(s, e).intersect(range)).collect()
    }

    /// How many bytes of `range` are in it. Takes no memory, unlike [`RangeMap::within`].
    pub fn covered(&self, range: ByteRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let first = self.run_at(range.start).map_or(range.start, |run| run.start);
        let found = self.ranges.range(first..range.end);
        found.map(|(&start, &end)| ByteRange::new(start, end).intersect(range).len()).sum()
    }

    /// All ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(&start, &end)| ByteRange::new(start, end))
    }
}

impl FromIterator<ByteRange> for RangeMap {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(ranges: I) -> Self {
        let mut map = RangeMap::new();
        ranges.into_iter().for_each(|range| map.insert(range));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACE: u64 = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(ByteRange),
        Remove(ByteRange),
        Truncate(u64),
    }

    fn any_range() -> impl Strategy<Value = ByteRange> {
        (0..SPACE, 0..SPACE).prop_map(|(a, b)| ByteRange::new(a.min(b), a.max(b)))
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any_range().prop_map(Step::Insert),
            2 => any_range().prop_map(Step::Remove),
            1 => (0..SPACE).prop_map(Step::Truncate),
        ]
    }

    /// One bool per byte: slow, and too simple to be wrong.
    struct Bitmap(Vec<bool>);

    impl Bitmap {
        fn apply(&mut self, step: &Step) {
            let (range, value) = match *step {
                Step::Insert(range) => (range, true),
                Step::Remove(range) => (range, false),
                Step::Truncate(size) => (ByteRange::new(size, SPACE), false),
            };
            (range.start..range.end).for_each(|at| self.0[at as usize] = value);
        }

        fn runs(&self, range: ByteRange, wanted: bool) -> Vec<ByteRange> {
            let mut runs: Vec<ByteRange> = Vec::new();
            for at in (range.start..range.end).filter(|&at| self.0[at as usize] == wanted) {
                match runs.last_mut() {
                    Some(last) if last.end == at => last.end = at + 1,
                    _ => runs.push(ByteRange::at(at, 1)),
                }
            }
            runs
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_bitmap(steps in prop::collection::vec(any_step(), 0..40), asked in any_range()) {
            let (mut map, mut bitmap) = (RangeMap::new(), Bitmap(vec![false; SPACE as usize]));
            for step in &steps {
                bitmap.apply(step);
                match *step {
                    Step::Insert(range) => map.insert(range),
                    Step::Remove(range) => map.remove(range),
                    Step::Truncate(size) => map.truncate(size),
                }
            }
            let all = ByteRange::new(0, SPACE);
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), bitmap.runs(all, true));
            prop_assert_eq!(map.missing(asked), bitmap.runs(asked, false));
            prop_assert_eq!(map.within(asked), bitmap.runs(asked, true));
            prop_assert_eq!(map.contains(asked), bitmap.runs(asked, false).is_empty());
            prop_assert_eq!(map.covered(asked), map.within(asked).iter().map(|run| run.len()).sum::<u64>());
            prop_assert_eq!(map.total(), bitmap.0.iter().filter(|bit| **bit).count() as u64);
            prop_assert_eq!(&map.iter().collect::<RangeMap>(), &map);
        }
    }

    #[test]
    fn neighbours_that_touch_become_one() {
        let map: RangeMap = [ByteRange::new(0, 4), ByteRange::new(8, 12), ByteRange::new(4, 8)].into_iter().collect();
        assert_eq!(map.iter().collect::<Vec<_>>(), [ByteRange::new(0, 12)]);
    }
}
