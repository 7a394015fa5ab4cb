//! Whether files are opened in the order of a listing, and how far ahead of that to fetch. Pure: positions and times go
//! in, positions come out.
//!
//! [`Run`] follows one order through one directory. [`Ledger`] is the mount's account of what was fetched in vain: it has the
//! last word, so that no pattern of opens can make the share larger than the man page says.

use std::ops::Range;
use std::time::{Duration, Instant};

/// Files fetched ahead when two opens in a row were in order.
const FIRST_WINDOW: usize = 2;

/// Opens that come so many positions late are in order all the same: several threads share the work.
const BEHIND: usize = 16;

/// A run with such a window has shown what the program does: directories that it enters next are trusted from their first file.
const PROVEN_WINDOW: usize = 8;

/// What may be fetched in vain beyond the share, in bytes: else nothing could ever begin.
pub(super) const ALLOWANCE: u64 = 4 << 20;

/// Of so many bytes read in order one may be fetched in vain.
pub(super) const SHARE: u64 = 4;

/// A request costs about what so many bytes do: a smaller file counts as such a one.
pub(super) const LEAST_WEIGHT: u64 = 64 << 10;

/// Bounds of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most files.
    pub files: usize,
    /// What is fetched should be opened within so long.
    pub within: Duration,
}

/// One order in which the files of a directory may be opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// One past the furthest position that was opened; `None` before the first open.
    next: Option<usize>,
    /// Opens in order, without a jump.
    in_order: u32,
    /// How many files to have ahead.
    window: usize,
    /// One past the furthest position that was given out.
    given: usize,
    last: Option<Instant>,
    /// Usual time between two opens.
    every: Duration,
}

impl Run {
    /// Takes the open of the file at position `at` into account. `used` says that it had been fetched ahead, `trusted` that
    /// the first file of the order is enough of a sign.
    pub fn opened(&mut self, at: usize, used: bool, trusted: bool, now: Instant, limits: Limits) {
        match self.next {
            Some(next) if at < next && at + BEHIND >= next => {}
            Some(next) if at == next || (at > next && at <= next.saturating_add(self.window)) => {
                self.in_order = self.in_order.saturating_add(1);
                self.next = Some(at + 1);
            }
            _ => {
                let in_order = if trusted && at == 0 { 2 } else { 1 };
                *self = Run { next: Some(at + 1), in_order, given: at + 1, ..Run::default() };
            }
        }
        self.keep_time(now);
        if self.in_order >= 2 {
            self.window = self.window.max(FIRST_WINDOW);
        }
        if used {
            self.window += 1;
        }
        self.window = self.window.min(limits.files).min(self.files_within(limits.within));
    }

    /// The positions to fetch now. Each is given once.
    pub fn wanted(&mut self) -> Range<usize> {
        let next = self.next.unwrap_or_default();
        let begin = self.given.max(next);
        let end = next.saturating_add(self.window).max(begin);
        self.given = end;
        begin..end
    }

    /// A file that was fetched has not been opened: the guess was wrong, or too early.
    pub fn wasted(&mut self) {
        self.window /= 2;
        // What is gone may be fetched again when its turn comes nearer.
        self.given = self.next.unwrap_or_default();
        if self.window < FIRST_WINDOW {
            // It has to show anew that it goes on.
            self.window = 0;
            self.in_order = 0;
        }
    }

    /// True while it fetches ahead.
    pub fn is_under_way(&self) -> bool {
        self.window > 0
    }

    /// True when enough guesses in a row were right.
    pub fn is_proven(&self) -> bool {
        self.window >= PROVEN_WINDOW
    }

    /// How many opens in order there were.
    pub fn length(&self) -> u32 {
        self.in_order
    }

    fn keep_time(&mut self, now: Instant) {
        if let Some(last) = self.last {
            // One long pause must not be remembered for long.
            let passed = now.saturating_duration_since(last).min(Duration::from_secs(1));
            self.every = if self.in_order <= 2 { passed } else { (self.every * 3 + passed) / 4 };
        }
        self.last = Some(now);
    }

    fn files_within(&self, time: Duration) -> usize {
        match self.every.as_nanos() {
            0 => usize::MAX,
            every => usize::try_from(time.as_nanos() / every).unwrap_or(usize::MAX),
        }
    }
}

/// What was fetched ahead, and what came of it. All in bytes, a file counting as [`LEAST_WEIGHT`] at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Files opened in order, fetched ahead or not.
    read: u64,
    /// Fetched ahead and never opened.
    wasted: u64,
    /// Fetched ahead, and nobody knows yet.
    open: u64,
}

impl Ledger {
    /// True when so much may be fetched; it then counts as open.
    pub fn take(&mut self, weight: u64) -> bool {
        let fits = self.wasted + self.open + weight <= ALLOWANCE + self.read / SHARE;
        if fits {
            self.open += weight;
        }
        fits
    }

    /// What became of it.
    pub fn settle(&mut self, weight: u64, used: bool) {
        self.open = self.open.saturating_sub(weight);
        if !used {
            self.wasted = self.wasted.saturating_add(weight);
        }
    }

    /// A file was opened in order.
    pub fn note_read(&mut self, weight: u64) {
        self.read = self.read.saturating_add(weight);
    }
}

/// What a file of so many bytes counts as.
pub(super) fn weight(size: u64) -> u64 {
    size.max(LEAST_WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { files: 32, within: Duration::from_millis(500) };

    /// Opens positions, one each millisecond; gives what is fetched after each.
    fn follow(run: &mut Run, opens: impl IntoIterator<Item = (usize, bool)>) -> Vec<Range<usize>> {
        let mut now = Instant::now();
        let mut open = |(at, used)| {
            now += Duration::from_millis(1);
            run.opened(at, used, false, now, LIMITS);
            run.wanted()
        };
        opens.into_iter().map(&mut open).collect()
    }

    #[test]
    fn the_second_open_in_order_begins_with_two_files() {
        let wanted = follow(&mut Run::default(), [(5, false), (6, false)]);
        assert_eq!(wanted, [6..6, 7..9]);
    }

    #[test]
    fn each_right_guess_makes_the_window_larger_up_to_the_limit() {
        let mut run = Run::default();
        let wanted = follow(&mut run, (0..100).map(|at| (at, at > 1)));
        assert_eq!(wanted[2..6], [4..6, 6..8, 8..10, 10..12]);
        assert_eq!(wanted[99], 131..132);
        assert!(run.is_proven());
    }

    #[test]
    fn no_position_is_given_twice() {
        let mut given: Vec<usize> =
            follow(&mut Run::default(), (0..60).map(|at| (at, at > 1))).into_iter().flatten().collect();
        let count = given.len();
        given.dedup();
        assert_eq!(given.len(), count);
    }

    #[test]
    fn threads_that_overtake_each_other_are_in_order() {
        let mut run = Run::default();
        let opens = [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9].map(|at| (at, at > 1));
        assert!(follow(&mut run, opens).iter().skip(1).all(|wanted| !wanted.is_empty() || run.is_under_way()));
        assert_eq!(run.length(), 7);
    }

    #[test]
    fn a_jump_ends_it_and_random_opens_fetch_nothing() {
        let mut run = Run::default();
        follow(&mut run, (0..20).map(|at| (at, at > 1)));
        let wanted = follow(&mut run, [500, 100, 900, 300, 20, 700].map(|at| (at, false)));
        assert!(wanted.iter().all(Range::is_empty), "{wanted:?}");
    }

    #[test]
    fn guesses_that_nobody_opens_stop_it() {
        let mut run = Run::default();
        follow(&mut run, (0..40).map(|at| (at, at > 1)));
        (0..5).for_each(|_| run.wasted());
        assert!(!run.is_under_way());
        let wanted = follow(&mut run, [(40, false), (41, false)]);
        assert!(wanted[0].is_empty() && !wanted[1].is_empty(), "it has to show anew that it goes on: {wanted:?}");
    }

    #[test]
    fn a_slow_reader_gets_only_what_it_opens_in_time() {
        let (mut run, mut now) = (Run::default(), Instant::now());
        for at in 0..30 {
            now += Duration::from_millis(100);
            run.opened(at, at > 1, false, now, LIMITS);
            run.wanted();
        }
        assert_eq!(run.window, 5);
        for at in 30..60 {
            now += Duration::from_secs(2);
            run.opened(at, true, false, now, LIMITS);
        }
        assert_eq!(run.wanted().len(), 0);
    }

    #[test]
    fn trust_begins_with_the_first_file() {
        let mut run = Run::default();
        run.opened(0, false, true, Instant::now(), LIMITS);
        assert_eq!(run.wanted(), 1..3);
        let mut run = Run::default();
        run.opened(7, false, true, Instant::now(), LIMITS);
        assert!(run.wanted().is_empty());
    }

    #[test]
    fn reading_in_order_earns_what_was_wasted_back() {
        let mut ledger = Ledger::default();
        while ledger.take(LEAST_WEIGHT) {
            ledger.settle(LEAST_WEIGHT, false);
        }
        assert!(!ledger.take(LEAST_WEIGHT));
        (0..SHARE).for_each(|_| ledger.note_read(LEAST_WEIGHT));
        assert!(ledger.take(LEAST_WEIGHT));
    }

    proptest! {
        #[test]
        fn what_is_wasted_stays_under_the_share(
            steps in prop::collection::vec((0..4u8, 1..(2u64 << 20)), 1..400),
        ) {
            let (mut ledger, mut open, mut read, mut wasted) = (Ledger::default(), Vec::new(), 0, 0);
            for (step, size) in steps {
                match step {
                    0 => { ledger.note_read(weight(size)); read += weight(size); }
                    1 => { if let Some(size) = open.pop() { ledger.settle(size, true); } }
                    2 => { if let Some(size) = open.pop() { ledger.settle(size, false); wasted += size; } }
                    _ => if ledger.take(weight(size)) { open.push(weight(size)); },
                }
                prop_assert!(wasted <= ALLOWANCE + read / SHARE);
            }
        }
    }
}
