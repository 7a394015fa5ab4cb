//! What is known of a directory's names: the last listing, names that were not there, names taken away here.
//!
//! Owns memory bounds for all three. Knows nothing of requests: pages and outcomes are given to it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::attr::Kind;
use crate::types::{Ino, Name, Version};

/// A listing with more names than this is not kept: about 100 bytes a name.
const LISTING_MAX: usize = 200_000;

/// How long it is remembered that a name was changed here: longer than any answer is believed that may be older than that.
const CHANGES_KEPT: Duration = Duration::from_secs(10);

/// Names that were not there, for each directory.
const MISSES_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// What a listing says of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// File or directory.
    pub kind: Kind,
    /// Version of a file's object; `None` for a directory.
    pub version: Option<Version>,
}

/// Answer of the last listing to the question for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is there.
    Present(Listed),
    /// It is not there.
    Absent,
    /// Nobody knows without asking.
    Unknown,
}

/// Everything a directory inode knows of its names beside the inode table.
#[derive(Debug)]
pub struct DirNames {
    listed: BTreeMap<Name, Listed>,
    listed_at: Option<Instant>,
    misses: LruCache<Name, Instant>,
    removed: HashMap<Name, Ino>,
    changes: u64,
    /// When names were changed here lately.
    changed: HashMap<Name, Instant>,
    /// Changes before this may be forgotten.
    changes_since: Option<Instant>,
}

impl Default for DirNames {
    fn default() -> Self {
        DirNames {
            listed: BTreeMap::new(),
            listed_at: None,
            misses: LruCache::new(MISSES_MAX),
            removed: HashMap::new(),
            changes: 0,
            changed: HashMap::new(),
            changes_since: None,
        }
    }
}

impl DirNames {
    /// A number that grows with each change made here; a listing taken meanwhile is not kept.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Keeps a whole listing that began at `began`, unless names changed here since `changes`.
    pub fn keep_listing(&mut self, entries: BTreeMap<Name, Listed>, began: Instant, changes: u64) {
        if changes == self.changes && entries.len() <= LISTING_MAX {
            self.listed = entries;
            self.listed_at = Some(began);
            self.misses.clear();
        }
    }

    /// When the listing that is kept began.
    pub fn listed_at(&self) -> Option<Instant> {
        self.listed_at
    }

    /// The version of a file in the listing that is kept, however old that is.
    pub fn listed_version(&self, name: &Name) -> Option<&Version> {
        self.listed.get(name)?.version.as_ref()
    }

    /// What is known of `name` without asking S3.
    pub fn known(&mut self, name: &Name, now: Instant, listing_ttl: Duration, negative_ttl: Duration) -> Known {
        if self.removed.contains_key(name) {
            return Known::Absent;
        }
        if self.misses.get(name).is_some_and(|at| now.saturating_duration_since(*at) < negative_ttl) {
            return Known::Absent;
        }
        match self.listed_at {
            Some(at) if now.saturating_duration_since(at) < listing_ttl => match self.listed.get(name) {
                Some(listed) => Known::Present(listed.clone()),
                None => Known::Absent,
            },
            Some(_) => {
                self.forget_listing();
                Known::Unknown
            }
            None => Known::Unknown,
        }
    }

    /// S3 said that `name` is not there.
    pub fn note_miss(&mut self, name: &Name, now: Instant) {
        self.listed.remove(name);
        self.misses.put(name.clone(), now);
    }

    /// S3 said that `name` is there.
    pub fn note_found(&mut self, name: &Name) {
        self.misses.pop(name);
    }

    /// `name` was made or changed here.
    pub fn note_change(&mut self, name: &Name, listed: Option<Listed>) {
        self.changes += 1;
        self.remember_change(name, Instant::now());
        self.misses.pop(name);
        match listed {
            Some(listed) if self.listed_at.is_some() => self.listed.insert(name.clone(), listed),
            _ => self.listed.remove(name),
        };
        self.removed.remove(name);
    }

    fn remember_change(&mut self, name: &Name, now: Instant) {
        if self.changed.len() == self.changed.capacity() {
            let kept = now.checked_sub(CHANGES_KEPT);
            self.changed.retain(|_, at| kept.is_none_or(|kept| *at >= kept));
            self.changes_since = kept;
        }
        self.changed.insert(name.clone(), now);
    }

    /// True when `name` was certainly not made, changed or taken away here since `began`: what S3 was asked then still holds as
    /// far as this mount goes.
    pub fn is_untouched_since(&self, name: &Name, began: Instant) -> bool {
        self.changes_since.is_none_or(|since| since <= began) && self.changed.get(name).is_none_or(|at| *at < began)
    }

    /// `name` was taken away here, but its object stays until the last handle of `ino` is closed.
    pub fn hide(&mut self, name: &Name, ino: Ino) {
        self.note_change(name, None);
        self.removed.insert(name.clone(), ino);
    }

    /// The object behind a hidden name is gone.
    pub fn unhide(&mut self, name: &Name, ino: Ino) {
        if self.removed.get(name) == Some(&ino) {
            self.removed.remove(name);
        }
    }

    /// True when the object under `name` only waits for its last handle.
    pub fn is_hidden(&self, name: &Name) -> bool {
        self.removed.contains_key(name)
    }

    /// The unlinked inode whose object waits under `name`.
    pub fn hidden(&self, name: &Name) -> Option<Ino> {
        self.removed.get(name).copied()
    }

    /// All unlinked inodes whose objects wait.
    pub fn all_hidden(&self) -> Vec<Ino> {
        self.removed.values().copied().collect()
    }

    /// Nothing of the listing is believed any more.
    pub fn forget_listing(&mut self) {
        self.listed.clear();
        self.listed_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).expect("a name")
    }

    fn dir() -> Listed {
        Listed { kind: Kind::Dir, version: None }
    }

    #[test]
    fn a_fresh_listing_answers_for_every_name_and_an_old_one_for_none() {
        let now = Instant::now();
        let mut names = DirNames::default();
        assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Unknown);
        names.keep_listing(BTreeMap::from([(name("a"), dir())]), now, 0);
        assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Present(dir()));
        assert_eq!(names.known(&name("b"), now, TTL, TTL), Known::Absent);
        assert_eq!(names.known(&name("a"), now + TTL, TTL, TTL), Known::Unknown);
    }

    #[test]
    fn a_listing_taken_while_a_name_changed_here_is_not_kept() {
        let now = Instant::now();
        let mut names = DirNames::default();
        let before = names.changes();
        names.note_change(&name("new"), None);
        names.keep_listing(BTreeMap::new(), now, before);
        assert_eq!(names.known(&name("new"), now, TTL, TTL), Known::Unknown);
    }

    #[test]
    fn a_miss_is_believed_until_its_time_is_over_or_the_name_is_made_here() {
        let now = Instant::now();
        let mut names = DirNames::default();
        names.note_miss(&name("a"), now);
        assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Absent);
        assert_eq!(names.known(&name("a"), now + TTL, TTL, TTL), Known::Unknown);
        names.note_change(&name("a"), None);
        assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Unknown);
    }

    #[test]
    fn a_name_that_was_changed_here_is_not_untouched() {
        let before = Instant::now();
        let mut names = DirNames::default();
        names.note_change(&name("a"), None);
        let after = Instant::now() + Duration::from_nanos(1);
        assert!(!names.is_untouched_since(&name("a"), before));
        assert!(names.is_untouched_since(&name("a"), after) && names.is_untouched_since(&name("b"), before));
        // Old changes are forgotten, and nothing is then said of the time before.
        let late = before + CHANGES_KEPT * 2;
        (0..100).for_each(|index| names.remember_change(&name(&format!("{index}")), late));
        assert!(names.changed.len() <= 101);
        assert!(!names.is_untouched_since(&name("b"), before), "nobody knows");
        assert!(names.is_untouched_since(&name("b"), late));
    }

    #[test]
    fn a_hidden_name_is_absent_until_its_own_inode_is_gone() {
        let now = Instant::now();
        let mut names = DirNames::default();
        names.hide(&name("a"), Ino::new(7));
        assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Absent);
        names.unhide(&name("a"), Ino::new(8));
        assert!(names.is_hidden(&name("a")));
        names.unhide(&name("a"), Ino::new(7));
        assert!(!names.is_hidden(&name("a")));
    }
}
