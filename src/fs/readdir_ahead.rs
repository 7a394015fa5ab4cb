//! Attributes of listed names: asked for once each, and before the kernel wants them where it reads on and on.
//!
//! Owns what is under way for one open directory, and what came of it, until it was told. An inode that nobody knows of is
//! forgotten with its attributes, and of what an answer holds the kernel may take the first half only: so each is held until
//! then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use tokio::task::JoinHandle;

use super::Filesystem;
use crate::inode::{Listed, Passage, Pin};
use crate::types::{Ino, Name};

/// So many names beyond those that are told now are asked for.
const AHEAD: usize = 512;

/// Fewer are not worth a task of their own, unless no more come.
const LEAST: usize = 128;

/// What is asked for, for one open directory.
#[derive(Debug, Default)]
pub(super) struct AttributesAhead {
    /// In order, without gaps.
    batches: VecDeque<Batch>,
    /// One past the last name that was asked for.
    asked: usize,
}

#[derive(Debug)]
struct Batch {
    first: usize,
    end: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
    UnderWay(JoinHandle<Vec<Pin>>),
    Done { _held: Vec<Pin> },
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Work::UnderWay(task) = &self.work {
            task.abort();
        }
    }
}

impl AttributesAhead {
    /// Waits for what was asked for of the names from `first` to `last`, which are told next, and lets go of what was told.
    pub async fn arrive(&mut self, first: usize, last: usize) {
        self.batches.retain(|batch| batch.end > first);
        for batch in self.batches.iter_mut().filter(|batch| batch.first < last) {
            if let Work::UnderWay(task) = &mut batch.work {
                // Of a task that ended otherwise nothing is known, and it is asked for again.
                let held = task.await.unwrap_or_default();
                batch.work = Work::Done { _held: held };
            }
        }
    }

    /// The names to ask for now, when those from `first` to `last` are being told.
    fn needed(&self, first: usize, last: usize) -> Option<(usize, usize)> {
        let first = self.asked.max(first);
        (first < last).then_some((first, last))
    }

    /// The names to ask for ahead, when those before `last` of `all` are being told, and there are more to come unless `whole`.
    fn wanted(&self, last: usize, all: usize, whole: bool) -> Option<(usize, usize)> {
        let (first, end) = (self.asked.max(last), all.min(last + AHEAD));
        let enough = end >= first + LEAST || (whole && end == all && end > first);
        enough.then_some((first, end))
    }
}

impl Filesystem {
    /// Asks for the attributes of the names from `first` to `last`, of a directory whose gate was passed, and of those that come
    /// after them where more are wanted than what is told first: the first answer has attributes whether somebody wants them
    /// or not.
    pub(super) fn ask_attributes(
        self: &Arc<Self>,
        ahead: &mut AttributesAhead,
        (dir, passage): (Ino, &Arc<Passage>),
        (entries, whole): (&[(Name, Listed)], bool),
        (first, last): (usize, usize),
        listing: (Instant, bool),
    ) {
        let dir = (dir, passage);
        if let Some(range) = ahead.needed(first, last) {
            self.ask_batch(ahead, dir, (entries, range), listing);
        }
        if first > 0
            && let Some(range) = ahead.wanted(last, entries.len(), whole)
        {
            self.ask_batch(ahead, dir, (entries, range), listing);
        }
    }

    fn ask_batch(
        self: &Arc<Self>,
        ahead: &mut AttributesAhead,
        (dir, passage): (Ino, &Arc<Passage>),
        (entries, (first, end)): (&[(Name, Listed)], (usize, usize)),
        listing: (Instant, bool),
    ) {
        let names = entries.get(first..end).unwrap_or_default().to_vec();
        let (fs, passage) = (self.clone(), passage.clone());
        let work = async move {
            let each = names.into_iter().map(|(name, listed)| {
                let fs = fs.clone();
                // Whoever tells of it asks again, and is told of a failure.
                async move { fs.entry_of(dir, &name, &listed, listing).await.ok().flatten() }
            });
            let held = stream::iter(each).buffer_unordered(super::readdir::HEADS_AT_ONCE).filter_map(async |pin| pin);
            let held = held.collect().await;
            drop(passage);
            held
        };
        ahead.asked = end;
        ahead.batches.push_back(Batch { first, end, work: Work::UnderWay(self.runtime.spawn(work)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_for_in_batches_of_which_none_is_small_but_the_last() {
        let mut ahead = AttributesAhead::default();
        for (last, all, whole, expected) in [
            (100, 1000, false, Some((100, 612))),
            // Too few more.
            (200, 1000, false, None),
            (228, 1000, false, Some((612, 740))),
            (700, 1000, false, Some((740, 1000))),
            (800, 1000, true, None),
            (900, 1010, false, None),
            (900, 1010, true, Some((1000, 1010))),
            (1010, 1010, true, None),
            (2000, 2000, true, None),
        ] {
            let wanted = ahead.wanted(last, all, whole);
            assert_eq!(wanted, expected, "{last} of {all}");
            ahead.asked = wanted.map_or(ahead.asked, |(_, end)| end);
        }
    }
}
