//! Whether a file that is looked up will be opened for reading next, judged by what became of its siblings. Pure: numbers and
//! times go in, answers come out.
//!
//! [`Habit`] follows one directory. It starts without trust; two of the last three files that were opened for reading soon after
//! their lookup earn it, and others lose it. While nobody knows what becomes of the last ones, few are fetched.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::order::LEAST_WEIGHT;
use crate::transfer::WHOLE_MAX;
use crate::types::Ino;

/// Directories whose habits are known; each takes a kilobyte at most.
const HABITS_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Outcomes that count, and how many of them must be good.
const OUTCOMES: usize = 3;
const GOOD: usize = 2;

/// Lookups whose outcome is waited for: with more of them the oldest one counts as not opened.
const PENDING_MAX: usize = 32;

/// Files fetched that may wait for their open: two for a program that takes one file after the other, which is all that it can
/// make in vain in a row, and more for those that were seen to open many at once.
const LEAST_ROOM: usize = 2;
const MOST_ROOM: usize = 16;

/// The habits of the directories used last.
#[derive(Debug)]
pub(super) struct Habits(LruCache<Ino, Habit>);

impl Default for Habits {
    fn default() -> Self {
        Habits(LruCache::new(HABITS_MAX))
    }
}

impl Habits {
    /// The habit of a directory, a new one if nothing is known.
    pub fn of(&mut self, dir: Ino) -> &mut Habit {
        self.0.get_or_insert_mut(dir, Habit::default)
    }
}

/// What becomes of the files of one directory that are looked up.
#[derive(Debug)]
pub(super) struct Habit {
    /// The last ones, the newest last: bytes of a file that was opened for reading, `None` for others.
    outcomes: VecDeque<Option<u64>>,
    pending: VecDeque<Pending>,
    /// How many may be fetched and not opened yet.
    room: usize,
}

/// A file that was looked up, and nobody knows yet.
#[derive(Debug)]
struct Pending {
    ino: Ino,
    since: Instant,
    fetched: bool,
}

impl Default for Habit {
    fn default() -> Self {
        Habit { outcomes: VecDeque::new(), pending: VecDeque::new(), room: LEAST_ROOM }
    }
}

impl Habit {
    /// True when `ino`, which is being looked up, is to be fetched: it then waits for its open. `within` is how soon an open has
    /// to come.
    pub fn fetches(&mut self, ino: Ino, now: Instant, within: Duration) -> bool {
        self.settle(now, within);
        let trusted = self.outcomes.iter().flatten().count() >= GOOD;
        if !trusted || self.in_doubt() >= self.room {
            return false;
        }
        self.wait_for(ino, now, true);
        true
    }

    /// Bytes that a file of unknown size likely has at most; `None` before anything was read, and where large files are.
    pub fn likely_size(&self) -> Option<u64> {
        let largest = *self.outcomes.iter().flatten().max()?;
        (largest <= WHOLE_MAX).then(|| largest.saturating_mul(2).clamp(LEAST_WEIGHT, WHOLE_MAX))
    }

    /// `ino` was looked up, by a request.
    pub fn looked_up(&mut self, ino: Ino, now: Instant, within: Duration) {
        self.settle(now, within);
        if self.pending.iter().all(|pending| pending.ino != ino) {
            self.wait_for(ino, now, false);
        }
    }

    /// `ino`, of `size` bytes, is opened for reading; for anything else there is no size.
    pub fn opened(&mut self, ino: Ino, size: Option<u64>, now: Instant, within: Duration) {
        self.settle(now, within);
        let Some(index) = self.pending.iter().position(|pending| pending.ino == ino) else { return };
        let full = self.in_doubt() == self.room;
        let Some(pending) = self.pending.remove(index) else { return };
        if pending.fetched && size.is_some() && full {
            // All that were fetched wait, and are opened: several programs, or threads, are at work.
            self.room = (self.room + 1).min(MOST_ROOM);
        }
        self.note(&pending, size);
    }

    /// What was asked for with `ino` did not come: trust has to be earned anew.
    pub fn failed(&mut self, ino: Ino) {
        self.pending.retain(|pending| pending.ino != ino);
        self.outcomes.clear();
        self.room = LEAST_ROOM;
    }

    fn in_doubt(&self) -> usize {
        self.pending.iter().filter(|pending| pending.fetched).count()
    }

    fn wait_for(&mut self, ino: Ino, since: Instant, fetched: bool) {
        self.pending.retain(|pending| pending.ino != ino);
        if self.pending.len() == PENDING_MAX
            && let Some(oldest) = self.pending.pop_front()
        {
            self.give_up(&oldest);
        }
        self.pending.push_back(Pending { ino, since, fetched });
    }

    /// Who was not opened in time was not meant to be.
    fn settle(&mut self, now: Instant, within: Duration) {
        while let Some(oldest) = self.pending.front()
            && now.saturating_duration_since(oldest.since) >= within
            && let Some(oldest) = self.pending.pop_front()
        {
            self.give_up(&oldest);
        }
    }

    /// One that was fetched counts twice: it took long to find out, and another one must not be tried while others are in doubt.
    fn give_up(&mut self, pending: &Pending) {
        self.note(pending, None);
        if pending.fetched {
            self.note(pending, None);
        }
    }

    fn note(&mut self, pending: &Pending, outcome: Option<u64>) {
        if self.outcomes.len() == OUTCOMES {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
        if pending.fetched && outcome.is_none() {
            self.room = (self.room / 2).max(LEAST_ROOM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(1);

    /// What happens to one file, a millisecond after the one before it.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Looked up, and read.
        Read,
        /// Looked up, and opened for writing.
        Write,
        /// Looked up.
        Stat,
        /// A second passes.
        Pause,
    }
    use Step::*;

    struct Follower {
        habit: Habit,
        now: Instant,
        last: u64,
    }

    impl Follower {
        fn new() -> Self {
            Follower { habit: Habit::default(), now: Instant::now(), last: 0 }
        }

        /// True where the file of the step was fetched.
        fn step(&mut self, step: Step) -> bool {
            self.now += Duration::from_millis(1);
            self.last += 1;
            let ino = Ino::new(self.last);
            if matches!(step, Pause) {
                self.now += WITHIN;
                return false;
            }
            let fetched = self.look(ino);
            match step {
                Read => self.habit.opened(ino, Some(4096), self.now, WITHIN),
                Write => self.habit.opened(ino, None, self.now, WITHIN),
                Stat | Pause => {}
            }
            fetched
        }

        fn look(&mut self, ino: Ino) -> bool {
            let fetched = self.habit.fetches(ino, self.now, WITHIN);
            self.habit.looked_up(ino, self.now, WITHIN);
            fetched
        }

        fn count(&mut self, step: Step, times: usize) -> usize {
            (0..times).filter(|_| self.step(step)).count()
        }
    }

    #[test]
    fn what_became_of_the_last_three_says_whether_the_next_is_fetched() {
        let table: [(&[Step], bool); 13] = [
            (&[], false),
            (&[Read], false),
            (&[Read, Read], true),
            (&[Read, Write, Read], true),
            (&[Read, Read, Write, Write], false),
            (&[Stat, Stat, Stat], false),
            (&[Write, Write, Write], false),
            (&[Read, Read, Stat], true),
            (&[Read, Read, Stat, Stat], false),
            (&[Read, Read, Stat, Stat, Pause], false),
            (&[Read, Read, Stat, Pause], false),
            (&[Read, Read, Stat, Pause, Read, Read], true),
            (&[Stat, Stat, Pause, Read, Read], true),
        ];
        for (steps, expected) in table {
            let mut follower = Follower::new();
            steps.iter().for_each(|step| _ = follower.step(*step));
            assert_eq!(follower.step(Read), expected, "{steps:?}");
        }
    }

    #[test]
    fn two_are_fetched_in_vain_when_a_reader_begins_to_look_only() {
        let mut follower = Follower::new();
        assert_eq!(follower.count(Read, 100), 98);
        assert_eq!(follower.count(Stat, 300), 2);
        follower.step(Pause);
        assert_eq!(follower.count(Stat, 300), 0, "it was not given up");
        follower.step(Pause);
        assert_eq!(follower.count(Read, 10), 8, "it is never earned again");
    }

    #[test]
    fn not_one_more_is_fetched_while_the_first_is_found_to_be_in_vain_and_the_second_not_yet() {
        let mut follower = Follower::new();
        follower.count(Read, 10);
        let fetched = (0..100).filter(|_| {
            follower.now += WITHIN / 10;
            follower.step(Stat)
        });
        assert_eq!(fetched.count(), 2);
    }

    #[test]
    fn a_writer_after_readers_gets_two_at_most() {
        let mut follower = Follower::new();
        follower.count(Read, 10);
        assert_eq!(follower.count(Write, 50), 2);
    }

    #[test]
    fn threads_that_open_many_at_once_get_as_many_up_to_the_limit() {
        let mut follower = Follower::new();
        follower.count(Read, 3);
        let mut fetched = 0;
        for round in 0..40u64 {
            let inos: Vec<Ino> = (0..24).map(|number| Ino::new(1000 + round * 24 + number)).collect();
            fetched = inos.iter().filter(|ino| follower.look(**ino)).count();
            inos.iter().for_each(|ino| follower.habit.opened(*ino, Some(1), follower.now, WITHIN));
        }
        assert_eq!(fetched, MOST_ROOM);
        assert_eq!(follower.count(Stat, 100), MOST_ROOM, "in vain, and no more");
    }

    #[test]
    fn an_answer_that_did_not_come_ends_it() {
        let mut follower = Follower::new();
        follower.count(Read, 3);
        let ino = Ino::new(50);
        assert!(follower.look(ino));
        follower.habit.failed(ino);
        assert!(!follower.step(Read) && !follower.step(Read) && follower.step(Read));
    }

    #[test]
    fn an_open_that_nobody_looked_up_says_nothing() {
        let mut follower = Follower::new();
        let now = follower.now;
        (0..9).for_each(|number| follower.habit.opened(Ino::new(number), Some(1), now, WITHIN));
        assert!(!follower.step(Read));
    }

    #[test]
    fn the_likely_size_is_twice_that_of_the_largest_of_the_last() {
        let mut habit = Habit::default();
        let now = Instant::now();
        assert_eq!(habit.likely_size(), None);
        let mut read = |number: u64, size: u64| {
            habit.looked_up(Ino::new(number), now, WITHIN);
            habit.opened(Ino::new(number), Some(size), now, WITHIN);
            habit.likely_size()
        };
        for (number, size) in [(1, 1), (2, 100_000), (3, 5), (4, 6), (5, 7)] {
            let expected = if (2..5).contains(&number) { 200_000 } else { 65_536 };
            assert_eq!(read(number, size), Some(expected), "{number}");
        }
        assert_eq!(read(6, WHOLE_MAX - 1), Some(WHOLE_MAX));
        assert_eq!(read(7, WHOLE_MAX + 1), None);
    }
}
