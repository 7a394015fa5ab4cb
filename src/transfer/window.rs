//! Read-ahead: which bytes to have, given what was asked. Pure: a state machine over requests.
//!
//! A file begins with a small fetch. Who reads on in order gets a window that doubles; who jumps about gets what
//! he asked, rounded to blocks. The kernel's own read-ahead sends requests of 128 KiB to 1 MiB that arrive a little
//! out of order: near the window they count as in order. A few streams are told apart in one handle. Who jumps about
//! with reads of one length, which the kernel cuts into its own requests, gets that length at once and nothing beyond it.

use std::collections::VecDeque;

use super::strides::{Runs, Strides};
use crate::types::ByteRange;

const MIB: u64 = 1 << 20;
/// Random reads are rounded to this: the kernel's usual read-ahead, so that its neighbours are not asked for twice.
pub(super) const BLOCK: u64 = 128 << 10;
/// First fetch at the start of a file: one round trip's worth on a good line, and the whole of most files.
const FIRST: u64 = MIB;
/// Largest piece that one request fetches ahead.
const PIECE_MAX: u64 = 8 * MIB;
/// Bytes that are kept behind a sequential reader, for requests that arrive late.
const BEHIND: u64 = 4 * MIB;
/// Streams told apart in one handle.
const STREAMS: usize = 4;
/// So many streams in a row that ended early tell how long the next one is.
const ENDED: usize = 3;

/// What to have for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Needed now; holds the request.
    pub demand: ByteRange,
    /// Wanted soon; begins at or after the end of `demand`, and may be empty.
    pub ahead: ByteRange,
    /// Bytes to fetch with one request, when more than `demand` is missing.
    pub piece: u64,
}

impl Advice {
    /// The same, widened to whole blocks of a file of `size` bytes: parts of blocks are kept nowhere.
    pub(super) fn in_blocks(self, block: u64, size: u64) -> Advice {
        let up = |offset: u64| offset.checked_next_multiple_of(block).unwrap_or(u64::MAX).min(size);
        let demand = ByteRange::new(self.demand.start - self.demand.start % block, up(self.demand.end));
        let ahead = ByteRange::new(self.ahead.start.max(demand.end), up(self.ahead.end));
        Advice { demand, ahead, piece: self.piece.checked_next_multiple_of(block).unwrap_or(u64::MAX) }
    }
}

/// The pattern of one handle's reads.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    /// The stream that was read last comes first.
    streams: Vec<Stream>,
    /// How long the last streams were when another one began.
    ended: VecDeque<u64>,
    strides: Strides,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// First byte that was asked for.
    start: u64,
    /// Bytes that such a stream usually has; 0 when nothing is known.
    usual: u64,
    /// One past the furthest byte that was asked for.
    next: u64,
    /// Bytes to have beyond `next`; 0 while nothing says that it goes on.
    window: u64,
    /// Bytes asked for in order.
    run: u64,
    /// The last request, rounded to blocks.
    last: ByteRange,
}

impl Pattern {
    /// Takes a request (not empty, within the file) of a file of `size` bytes into account. `most` is the largest
    /// window in bytes; 0 turns read-ahead off.
    pub fn observe(&mut self, range: ByteRange, size: u64, most: u64) -> Advice {
        let known = self.streams.iter().position(|stream| stream.takes(range));
        let mut stream = match known {
            Some(index) => {
                let mut stream = self.streams.remove(index);
                stream.advance(range, most);
                stream
            }
            None => {
                self.note_ended();
                self.streams.truncate(STREAMS - 1);
                Stream::begin(range, most.min(self.usual(most)), most)
            }
        };
        stream.last = blocks(range, size);
        if stream.window == 0 {
            self.strides.observe(range, size, most);
        }
        self.streams.insert(0, stream);
        stream.advice(range, size, most)
    }

    fn note_ended(&mut self) {
        let Some(stream) = self.streams.first() else { return };
        self.ended.truncate(ENDED - 1);
        self.ended.push_front(stream.run);
    }

    /// The least of the last lengths: one long read among short ones must not make the short ones costly.
    fn usual(&self, most: u64) -> u64 {
        let least = self.ended.iter().min().filter(|_| self.ended.len() == ENDED && most > 0);
        least.copied().filter(|length| *length <= PIECE_MAX).unwrap_or_default()
    }

    /// What to fetch for the next of several reads at equal distances.
    pub fn runs(&self) -> &Runs {
        self.strides.ahead()
    }

    /// True when a fetched part is still of use to one of the streams, or will be.
    pub fn wants(&self, part: ByteRange) -> bool {
        let kept = self.streams.iter().map(Stream::kept);
        kept.chain(self.runs().ranges.iter().copied()).any(|wanted| !wanted.intersect(part).is_empty())
    }
}

impl Stream {
    /// A read of the first byte most often begins a read of the whole file; another first read tells nothing.
    fn begin(range: ByteRange, usual: u64, most: u64) -> Self {
        let window = if range.start == 0 && usual == 0 { FIRST.min(most) } else { 0 };
        Stream { start: range.start, usual, next: range.end, window, run: range.len(), last: range }
    }

    /// True when a request belongs to this stream.
    fn takes(&self, range: ByteRange) -> bool {
        let (behind, before) = if self.window > 0 { (BEHIND, self.window + MIB) } else { (MIB, BLOCK) };
        let reach = self.next.saturating_add(before).max(self.usual_end());
        range.start >= self.next.saturating_sub(behind) && range.start <= reach
    }

    fn usual_end(&self) -> u64 {
        self.start.saturating_add(self.usual)
    }

    fn advance(&mut self, range: ByteRange, most: u64) {
        if range.end <= self.next {
            // Late, or read again: no news about where it goes on.
            return;
        }
        self.run = self.run.saturating_add(range.len());
        self.next = range.end;
        if self.next <= self.usual_end() {
            return;
        }
        if self.run <= FIRST && self.start > 0 {
            // It began somewhere, and may end as soon: what is fetched in vain is no more than what was read.
            self.window = self.window.max(self.run.max(BLOCK)).min(most);
            return;
        }
        self.window = self.window.max(FIRST.min(most));
        while self.window < most && self.run >= self.window / 2 {
            self.window = (self.window * 2).min(most);
        }
    }

    fn advice(&self, range: ByteRange, size: u64, most: u64) -> Advice {
        let window = self.window.min(most);
        if window == 0 {
            // The rest of what such a read usually has, with one request.
            let usual = blocks(ByteRange::new(self.start, self.usual_end()), size).end;
            let goes_on = self.usual > 0 && range.start >= self.start;
            let end = if goes_on { usual.min(self.last.end.saturating_add(most)).min(size) } else { 0 };
            let ahead = ByteRange::new(self.last.end, end.max(self.last.end));
            return Advice { demand: self.last, ahead, piece: self.last.len() + ahead.len() };
        }
        // The window counts from what was asked; at the very first read it holds the request itself.
        let from = if self.run == range.len() { range.start } else { self.next };
        // Who goes back asks for the neighbours next; who goes on gets them anyway.
        let demand = if range.end < self.next { self.last } else { ByteRange::new(range.start, range.end.min(size)) };
        let ahead = ByteRange::new(demand.end.max(self.next), from.saturating_add(window).min(size));
        Advice { demand, ahead, piece: (window / 4).clamp(FIRST.min(window), PIECE_MAX) }
    }

    fn kept(&self) -> ByteRange {
        if self.window == 0 {
            let end = self.usual_end().checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
            return ByteRange::new(self.last.start.min(self.start), self.last.end.max(end));
        }
        ByteRange::new(self.next.saturating_sub(BEHIND), self.next.saturating_add(self.window + PIECE_MAX))
    }
}

/// The blocks of a file of `size` bytes that hold `range`.
pub(super) fn blocks(range: ByteRange, size: u64) -> ByteRange {
    let end = range.end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
    ByteRange::new(range.start - range.start % BLOCK, end.min(size).max(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;
    const MOST: u64 = 64 * MIB;

    fn read(pattern: &mut Pattern, start: u64, len: u64) -> Advice {
        pattern.observe(ByteRange::at(start, len), GIB, MOST)
    }

    /// How far read-ahead reaches beyond the request.
    fn reach(advice: Advice) -> u64 {
        advice.ahead.end - advice.demand.end
    }

    #[test]
    fn the_first_read_of_a_file_is_small() {
        let advice = read(&mut Pattern::default(), 0, BLOCK);
        assert_eq!((advice.demand.start, advice.ahead.end, advice.piece), (0, FIRST, FIRST));
    }

    #[test]
    fn a_file_smaller_than_the_first_fetch_is_fetched_whole() {
        let advice = Pattern::default().observe(ByteRange::new(0, 10), 5000, MOST);
        assert_eq!((advice.demand, advice.ahead), (ByteRange::new(0, 10), ByteRange::new(10, 5000)));
    }

    #[test]
    fn the_window_of_a_sequential_reader_doubles_up_to_the_most() {
        let mut pattern = Pattern::default();
        let windows: Vec<u64> = (0..400).map(|i| reach(read(&mut pattern, i * BLOCK, BLOCK))).collect();
        assert!(windows[1..].is_sorted());
        assert!(windows.iter().all(|window| *window <= MOST));
        assert_eq!((windows[8], windows[32], windows[399]), (4 * MIB, 16 * MIB, MOST));
    }

    #[test]
    fn pieces_grow_with_the_window() {
        let mut pattern = Pattern::default();
        let mut pieces: Vec<u64> = (0..400).map(|i| read(&mut pattern, i * BLOCK, BLOCK).piece).collect();
        pieces.dedup();
        assert_eq!(pieces, [MIB, 2 * MIB, 4 * MIB, 8 * MIB]);
    }

    #[test]
    fn a_random_reader_gets_blocks_and_no_read_ahead() {
        let mut pattern = Pattern::default();
        for start in [500 * MIB + 1, 100 * MIB, 900 * MIB, 300 * MIB + 70_000, 20 * MIB] {
            let advice = read(&mut pattern, start, 4096);
            assert_eq!(reach(advice), 0);
            assert_eq!(advice.demand, ByteRange::at(start / BLOCK * BLOCK, BLOCK));
        }
    }

    #[test]
    fn the_second_read_in_order_anywhere_opens_a_window_as_large_as_what_was_read() {
        let mut pattern = Pattern::default();
        let reached = [0, 1, 2, 3, 8, 9].map(|i| reach(read(&mut pattern, 100 * MIB + i * BLOCK, BLOCK)));
        assert_eq!(reached, [0, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK, 5 * BLOCK, 6 * BLOCK]);
        assert_eq!((10..40).map(|i| reach(read(&mut pattern, 100 * MIB + i * BLOCK, BLOCK))).max(), Some(16 * MIB));
    }

    #[test]
    fn random_reads_of_one_length_get_it_at_once_and_no_more() {
        let mut pattern = Pattern::default();
        let mut fetched = Vec::new();
        for start in [500, 100, 900, 300, 20, 700, 0].map(|start| start * MIB) {
            let mut end = start;
            for request in 0..8 {
                let advice = read(&mut pattern, start + request * BLOCK, BLOCK);
                end = end.max(advice.ahead.end).max(advice.demand.end);
            }
            fetched.push(end - start);
        }
        assert!(fetched[..3].iter().all(|len| *len <= 2 * MIB), "{fetched:?}");
        assert_eq!(fetched[3..], [MIB; 4]);
    }

    #[test]
    fn reads_of_mixed_lengths_get_the_shortest_at_once() {
        let mut pattern = Pattern::default();
        for (start, len) in [(500, MIB), (100, 4096), (900, MIB), (300, 4096), (20, MIB)] {
            read(&mut pattern, start * MIB, len);
        }
        let advice = read(&mut pattern, 700 * MIB, 4096);
        assert_eq!((advice.demand.len(), reach(advice)), (BLOCK, 0));
    }

    #[test]
    fn a_long_read_among_short_ones_gets_its_window_all_the_same() {
        let mut pattern = Pattern::default();
        for start in [500, 100, 900, 300] {
            read(&mut pattern, start * MIB, BLOCK);
        }
        let last = (0..400).map(|i| reach(read(&mut pattern, 600 * MIB + i * BLOCK, BLOCK))).last();
        assert_eq!(last, Some(MOST));
    }

    #[test]
    fn reads_that_go_backwards_or_in_strides_demand_what_they_ask_and_get_the_next_ones() {
        for step in [-(BLOCK as i64), -(3 * MIB as i64), 3 * MIB as i64] {
            let mut pattern = Pattern::default();
            for count in 0..60 {
                let start = (500 * MIB as i64 + count * step) as u64;
                let known =
                    pattern.runs().ranges.iter().any(|range| range.intersect(ByteRange::at(start, 1)).len() == 1);
                assert_eq!(known, count > 4, "step {step}, read {count}");
                let advice = read(&mut pattern, start, 4096);
                assert_eq!((advice.demand.len(), reach(advice)), (BLOCK, 0), "step {step}, read {count}");
            }
        }
    }

    #[test]
    fn interleaved_streams_at_equal_distances_are_no_strides() {
        let mut pattern = Pattern::default();
        for i in 0..100 {
            (0..4).for_each(|stream| _ = read(&mut pattern, stream * 200 * MIB + i * BLOCK, BLOCK));
            assert!(i < 2 || pattern.runs().ranges.is_empty(), "{:?}", pattern.runs());
        }
    }

    #[test]
    fn requests_of_the_kernel_out_of_order_are_in_order() {
        let mut pattern = Pattern::default();
        // Pairs swapped, as two threads deliver them.
        for pair in 0..40 {
            for half in [1, 0] {
                read(&mut pattern, (pair * 2 + half) * MIB, MIB);
            }
        }
        assert_eq!(reach(read(&mut pattern, 80 * MIB, MIB)), MOST);
    }

    #[test]
    fn a_seek_that_the_window_covers_keeps_it() {
        let mut pattern = Pattern::default();
        (0..400).for_each(|i| _ = read(&mut pattern, i * BLOCK, BLOCK));
        assert_eq!(reach(read(&mut pattern, 90 * MIB, BLOCK)), MOST);
        assert_eq!(reach(read(&mut pattern, 700 * MIB, BLOCK)), 0);
    }

    #[test]
    fn interleaved_streams_keep_their_windows() {
        let mut pattern = Pattern::default();
        let mut last = Vec::new();
        for i in 0..400 {
            last = (0..3).map(|stream| reach(read(&mut pattern, stream * 300 * MIB + i * BLOCK, BLOCK))).collect();
        }
        assert_eq!(last, [MOST; 3]);
    }

    #[test]
    fn read_ahead_can_be_off() {
        let mut pattern = Pattern::default();
        for i in 0..10 {
            let advice = pattern.observe(ByteRange::at(i * BLOCK, BLOCK), GIB, 0);
            assert_eq!((advice.demand, reach(advice)), (ByteRange::at(i * BLOCK, BLOCK), 0));
        }
    }

    #[test]
    fn what_lies_far_behind_is_not_wanted() {
        let mut pattern = Pattern::default();
        (0..800).for_each(|i| _ = read(&mut pattern, i * BLOCK, BLOCK));
        assert!(!pattern.wants(ByteRange::new(80 * MIB, 88 * MIB)));
        assert!(pattern.wants(ByteRange::new(92 * MIB, 100 * MIB)));
        assert!(pattern.wants(ByteRange::new(100 * MIB, 164 * MIB)));
    }

    proptest! {
        #[test]
        fn advice_always_holds_the_request_and_stays_within_file_and_window(
            size in 1..GIB,
            most in prop_oneof![Just(0), Just(MOST), 1..MOST],
            reads in prop::collection::vec((0.0..1.0f64, 1..2 * MIB), 1..60),
        ) {
            let mut pattern = Pattern::default();
            for (place, len) in reads {
                let range = ByteRange::at((size as f64 * place) as u64, len).intersect(ByteRange::new(0, size));
                if range.is_empty() {
                    continue;
                }
                let advice = pattern.observe(range, size, most);
                prop_assert_eq!(advice.demand.intersect(range), range);
                prop_assert!(advice.demand.end <= size && advice.demand.len() < range.len() + 2 * BLOCK);
                prop_assert!(advice.ahead.start >= advice.demand.end);
                prop_assert!(advice.ahead.is_empty() || advice.ahead.end <= size);
                prop_assert!(advice.ahead.len() <= most && advice.piece <= PIECE_MAX);
                prop_assert!(advice.ahead.is_empty() || advice.piece > 0, "what is fetched has a size");
                prop_assert!(pattern.wants(advice.demand), "what is fetched is kept");
            }
        }
    }
}
