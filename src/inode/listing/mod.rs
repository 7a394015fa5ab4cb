//! What is known of a directory's names: the last listing, names that were not there, names taken away here.
//!
//! Owns memory bounds for all three. Knows nothing of requests: pages and outcomes are given to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::attr::Kind;
use crate::types::{Ino, Name, Version};

/// A listing with more names than this is not kept: about 200 bytes a name.
const LISTING_MAX: usize = 200_000;

/// How long it is remembered that a name was changed here: longer than any answer is believed that may be older than that.
const CHANGES_KEPT: Duration = Duration::from_secs(10);

/// Names that were not there, for each directory.
const MISSES_MAX: usize = 4096;

/// So many questions for names that are not there, or of which nothing is known, while a listing would have lasted, make it worth to
/// have one.
const ASKED_WORTH: usize = 3;

/// How long a directory that turned out too large for that is left alone.
const LARGE_FOR: Duration = Duration::from_secs(60);

/// A number that grows with each change of a name that is made here, in whatever directory of one mount.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<AtomicU64>);

impl Changes {
    /// What it is now.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// To hold while names may change.
    pub fn changing(&self) -> Changing {
        Changing(self.clone())
    }

    fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Names may change here until it is dropped, whatever comes of that.
#[derive(Debug)]
pub struct Changing(Changes);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.note();
    }
}

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

/// Who lists a directory for those who ask for single names: nobody else does while it lives.
#[derive(Debug)]
pub struct Lister {
    /// For names that are not there, each of which would be asked for again and again; else for names that are, mostly.
    pub for_absent: bool,
    _alive: Arc<()>,
}

/// A whole listing, for who reads the directory again.
#[derive(Debug)]
pub struct KeptListing {
    /// Every name, in the order of S3.
    pub entries: Vec<(Name, Listed)>,
    /// When it was begun.
    pub began: Instant,
    /// What [`DirNames::changes`] was then, and is.
    pub changes: u64,
}

/// Everything a directory inode knows of its names beside the inode table.
#[derive(Debug)]
pub struct DirNames {
    listed: BTreeMap<Name, Listed>,
    listed_at: Option<Instant>,
    /// Nothing that is known since tells of other names than the listing that is kept.
    repeatable: bool,
    /// When S3 last told something of the names that is in no listing of before.
    learned: Option<Instant>,
    misses: LruCache<Name, Instant>,
    removed: HashMap<Name, Ino>,
    changes: u64,
    /// The changes of all directories of its mount, once it is in one.
    anywhere: Option<Changes>,
    /// When names were changed here lately, and what stands there since.
    changed: HashMap<Name, (Instant, Option<Listed>)>,
    /// Changes before this may be forgotten.
    changes_since: Option<Instant>,
    /// When it was last asked for names that are not there.
    absent: VecDeque<Instant>,
    /// When it was last asked for names of which nothing was known.
    unknown: VecDeque<Instant>,
    /// The listing that is kept tells also which names are not there.
    tells_absent: bool,
    /// Alive while somebody lists the directory for those who ask.
    lister: Weak<()>,
    /// That one's [`Lister::for_absent`].
    lists_for_absent: bool,
    large_since: Option<Instant>,
    /// When it turned out too large for who asks for names that are there.
    no_page_since: Option<Instant>,
}

impl Default for DirNames {
    fn default() -> Self {
        DirNames {
            listed: BTreeMap::new(),
            listed_at: None,
            repeatable: false,
            learned: None,
            // One with a limit of its own takes all of its memory at once, and there are many directories.
            misses: LruCache::unbounded(),
            removed: HashMap::new(),
            changes: 0,
            anywhere: None,
            changed: HashMap::new(),
            changes_since: None,
            absent: VecDeque::new(),
            unknown: VecDeque::new(),
            tells_absent: false,
            lister: Weak::new(),
            lists_for_absent: false,
            large_since: None,
            no_page_since: None,
        }
    }
}

impl DirNames {
    /// A number that grows with each change made here.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Its changes are among these from now on.
    pub(super) fn count_among(&mut self, anywhere: &Changes) {
        self.anywhere = Some(anywhere.clone());
    }

    /// False for a listing of so many names that it is not kept.
    pub fn may_keep(names: usize) -> bool {
        names <= LISTING_MAX
    }

    /// Keeps a whole listing that began at `began`. What changed here since stands as it was changed. False when it is not kept.
    pub fn keep_listing(&mut self, mut entries: BTreeMap<Name, Listed>, began: Instant) -> bool {
        if !Self::may_keep(entries.len()) || self.changes_since.is_some_and(|since| since > began) {
            return false;
        }
        for (name, (_, listed)) in self.changed.iter().filter(|(_, (at, _))| *at >= began) {
            match listed {
                Some(listed) => entries.insert(name.clone(), listed.clone()),
                None => entries.remove(name),
            };
        }
        self.learned = self.learned.max(Some(began));
        // One that was taken for names that are there is not believed of others: they may have been made since by who tells of them.
        self.tells_absent = self.lister.strong_count() == 0 || self.lists_for_absent;
        self.listed = entries;
        self.listed_at = Some(began);
        self.repeatable = true;
        self.misses.clear();
        true
    }

    /// It was asked for a name that is not there.
    pub fn note_absent(&mut self, now: Instant) {
        self.absent.truncate(ASKED_WORTH - 1);
        self.absent.push_front(now);
    }

    /// It was asked for a name of which nothing is known.
    pub fn note_unknown(&mut self, now: Instant) {
        self.unknown.truncate(ASKED_WORTH - 1);
        self.unknown.push_front(now);
    }

    /// Something to hold while the directory is listed, if that saves requests, and nobody does so already: many names were asked
    /// for lately, while a listing lasts for `listing_ttl`, and what it says of absent names for `negative_ttl`.
    pub fn worth_listing(&mut self, now: Instant, listing_ttl: Duration, negative_ttl: Duration) -> Option<Lister> {
        let many = |asked: &VecDeque<Instant>, lasts: Duration| {
            asked.len() == ASKED_WORTH && asked.iter().all(|at| now.saturating_duration_since(*at) < lasts)
        };
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < LARGE_FOR);
        let absent_lasts = listing_ttl.min(negative_ttl);
        let mostly_absent =
            self.absent.iter().filter(|at| now.saturating_duration_since(**at) < absent_lasts).count() > 1;
        // What a fresh listing does not say the next one would not say either.
        let listed = self.listed_at.is_some_and(|at| now.saturating_duration_since(at) < listing_ttl);
        let for_any = many(&self.unknown, listing_ttl) && !listed;
        let for_absent = many(&self.absent, absent_lasts) || (for_any && mostly_absent);
        let for_present = for_any && !lately(self.no_page_since);
        if !(for_absent || for_present) || lately(self.large_since) || self.lister.strong_count() > 0 {
            return None;
        }
        self.lists_for_absent = for_absent;
        let alive = Arc::new(());
        self.lister = Arc::downgrade(&alive);
        Some(Lister { for_absent, _alive: alive })
    }

    /// The directory is too large for this, or can't be listed.
    pub fn note_large(&mut self, now: Instant, for_absent: bool) {
        let since = if for_absent { &mut self.large_since } else { &mut self.no_page_since };
        *since = Some(now);
    }

    /// When the listing that is kept began.
    pub fn listed_at(&self) -> Option<Instant> {
        self.listed_at
    }

    /// The listing that is kept, if it is fresh and nothing was changed here since.
    pub fn kept(&self, now: Instant, listing_ttl: Duration) -> Option<KeptListing> {
        let began = self.listed_at.filter(|at| now.saturating_duration_since(*at) < listing_ttl)?;
        let entries = || self.listed.iter().map(|(name, listed)| (name.clone(), listed.clone())).collect();
        self.repeatable.then(|| KeptListing { entries: entries(), began, changes: self.changes })
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
                None if self.tells_absent && now.saturating_duration_since(at) < negative_ttl => Known::Absent,
                None => Known::Unknown,
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
        self.learned = Some(now);
        self.misses.put(name.clone(), now);
        if self.misses.len() > MISSES_MAX {
            self.misses.pop_lru();
        }
        self.note_absent(now);
    }

    /// S3 said that `name` is there.
    pub fn note_found(&mut self, name: &Name) {
        self.misses.pop(name);
        if !self.listed.contains_key(name) {
            self.repeatable = false;
            self.learned = Some(Instant::now());
        }
    }

    /// True when more is known of the names than S3 said when it was asked at `asked`.
    pub fn has_learned_since(&self, asked: Instant) -> bool {
        self.learned.is_some_and(|at| at > asked)
    }

    /// `name` was made or changed here.
    pub fn note_change(&mut self, name: &Name, listed: Option<Listed>) {
        self.changes += 1;
        if let Some(anywhere) = &self.anywhere {
            anywhere.note();
        }
        self.repeatable = false;
        self.remember_change(name, Instant::now(), listed.clone());
        self.misses.pop(name);
        match listed {
            Some(listed) if self.listed_at.is_some() => self.listed.insert(name.clone(), listed),
            _ => self.listed.remove(name),
        };
        if !Self::may_keep(self.listed.len()) {
            self.forget_listing();
        }
        self.removed.remove(name);
    }

    fn remember_change(&mut self, name: &Name, now: Instant, listed: Option<Listed>) {
        if self.changed.len() == self.changed.capacity() {
            let kept = now.checked_sub(CHANGES_KEPT);
            self.changed.retain(|_, (at, _)| kept.is_none_or(|kept| *at >= kept));
            self.changes_since = kept;
        }
        self.changed.insert(name.clone(), (now, listed));
    }

    /// True when `name` was certainly not made, changed or taken away here since `began`: what S3 was asked then still holds as
    /// far as this mount goes.
    pub fn is_untouched_since(&self, name: &Name, began: Instant) -> bool {
        self.changes_since.is_none_or(|since| since <= began)
            && self.changed.get(name).is_none_or(|(at, _)| *at < began)
    }

    /// `name` was taken away here, but its object stays until the last handle of `ino` is closed.
    pub fn hide(&mut self, name: &Name, ino: Ino) {
        self.note_change(name, None);
        self.removed.insert(name.clone(), ino);
    }

    /// The object behind a hidden name is gone.
    pub fn unhide(&mut self, name: &Name, ino: Ino) {
        if self.removed.get(name) == Some(&ino) {
            // A listing that is being taken may have seen the object yet.
            self.note_change(name, None);
        }
    }

    /// True when what a listing that began at `began` says of `name` is of the past: the name was taken away here, or is, or a
    /// new file here has it.
    pub fn is_gone_since(&self, name: &Name, began: Instant) -> bool {
        self.is_hidden(name) || matches!(self.changed.get(name), Some((at, None)) if *at >= began)
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

    /// How many names the listing has that is kept.
    pub fn listed_names(&self) -> usize {
        self.listed.len()
    }

    /// Of what S3 said nothing is believed any more. What was changed here stays known: an answer that is under way may be older.
    pub fn forget_what_s3_said(&mut self) {
        self.forget_listing();
        self.misses.clear();
    }

    /// Nothing of the listing is believed any more.
    pub fn forget_listing(&mut self) {
        self.listed.clear();
        self.listed_at = None;
    }
}

#[cfg(test)]
mod tests;
