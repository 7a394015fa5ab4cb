//! Trees that are walked: the listings of directories that are read one after the other come out of one listing of all keys below
//! the directory that they are in.
//!
//! Owns when that is tried and when it is given up, and the keys that came and were not wanted yet. What comes out is what S3 would
//! have answered for the directory alone, as of when the keys were asked for. That is only so while nothing was changed here
//! since: a change anywhere in the mount ends all walks.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use lru::LruCache;
use tokio::task::JoinHandle;

use super::Filesystem;
use crate::error::{Error, Result};
use crate::store::{ListPage, ListRequest, ListedObject};
use crate::types::{DirPrefix, Ino};

/// So many directories of one are read in the order of the listing before the keys of the next ones are asked for at once: a shell
/// that completes a path reads fewer.
const STREAK: u32 = 3;

/// Directories of which it is known which one of theirs was read last.
const PARENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Walks that go on at once.
const WALKS: usize = 4;

/// Most keys of one walk that are kept: with about 250 bytes each, 1 MB. A directory with more is listed by itself.
const KEYS_MAX: usize = 4000;

/// Keys of a page: with fewer of them left the next one is asked for.
const PAGE: usize = 1000;

/// What is known of who reads directories.
#[derive(Debug)]
pub(super) struct Walks {
    steps: LruCache<String, Steps>,
    /// The youngest last.
    walks: VecDeque<Arc<Walk>>,
}

/// How the directories of one were read.
#[derive(Debug)]
struct Steps {
    last: String,
    streak: u32,
    /// What [`crate::inode::Changes`] counted at the last step: who changes what is walked would find each page in vain.
    changes: u64,
}

#[derive(Debug)]
struct Walk {
    /// What all keys begin with.
    root: String,
    keys: tokio::sync::Mutex<Keys>,
}

/// Keys in order, of which all from `from` to `reached` are here.
#[derive(Debug)]
struct Keys {
    from: String,
    reached: String,
    held: VecDeque<(ListedObject, Instant)>,
    next: Next,
    /// What [`crate::inode::Changes`] counted before the first of them was asked for.
    changes: u64,
}

/// What comes behind the keys that are here.
#[derive(Debug)]
enum Next {
    /// The first page is to be asked for.
    Start,
    Token(String),
    UnderWay(Instant, JoinHandle<Result<ListPage>>),
    End,
}

impl Drop for Next {
    fn drop(&mut self) {
        if let Next::UnderWay(_, page) = self {
            page.abort();
        }
    }
}

/// What the keys that are here tell of one directory.
#[derive(Debug)]
enum Told {
    /// All that is in it, as of this time.
    All(ListPage, Instant),
    /// The beginning, perhaps.
    Some,
    /// It was passed.
    Passed,
    /// No key is in it, and then S3 would not have listed it: it is gone, or the order of the keys is not that of S3.
    Nothing,
}

impl Default for Walks {
    fn default() -> Self {
        Walks { steps: LruCache::new(PARENTS), walks: VecDeque::new() }
    }
}

impl Walks {
    /// The walk that a directory belongs to, which is read now, and whether that makes a streak: then there is a new one at least.
    fn walk_to(&mut self, parent: &str, dir: &str, changes: u64) -> Option<(Arc<Walk>, bool)> {
        let first = Steps { last: String::new(), streak: 0, changes };
        let is_streak = self.steps.get_or_insert_mut(parent.to_owned(), || first).step(dir, changes) >= STREAK;
        let known = self.walks.iter().find(|walk| dir.starts_with(&walk.root)).cloned();
        if known.is_some() || !is_streak {
            return known.map(|walk| (walk, is_streak));
        }
        let keys = tokio::sync::Mutex::new(Keys::beginning_at(dir, changes));
        let walk = Arc::new(Walk { root: parent.to_owned(), keys });
        if self.walks.len() == WALKS {
            self.walks.pop_front();
        }
        self.walks.push_back(walk.clone());
        Some((walk, true))
    }

    /// It leads nowhere: a new one takes a new streak.
    fn end(&mut self, walk: &Arc<Walk>) {
        self.walks.retain(|other| !Arc::ptr_eq(other, walk));
        self.steps.pop(&walk.root);
    }
}

impl Steps {
    fn step(&mut self, dir: &str, changes: u64) -> u32 {
        let goes_on = dir > self.last.as_str() && changes == self.changes;
        self.streak = if goes_on { self.streak.saturating_add(1) } else { 1 };
        (self.last, self.changes) = (dir.to_owned(), changes);
        self.streak
    }
}

impl Keys {
    fn beginning_at(dir: &str, changes: u64) -> Self {
        Keys { from: dir.to_owned(), reached: dir.to_owned(), held: VecDeque::new(), next: Next::Start, changes }
    }

    /// When what is told of a directory was asked for, at the earliest; now, if it is asked for now.
    fn asked_at(&self, dir: &str) -> Instant {
        let behind = self.held.iter().find(|(object, _)| object.key.as_str() >= dir);
        match (behind, &self.next) {
            (Some((_, asked)), _) | (None, Next::UnderWay(asked, _)) => *asked,
            (None, _) => Instant::now(),
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self.next, Next::End)
    }

    /// For one more page.
    fn has_room(&self) -> bool {
        self.held.len() + PAGE <= KEYS_MAX
    }

    /// What is known of a directory. Keys before it go.
    fn tell(&mut self, dir: &str) -> Told {
        if dir < self.from.as_str() {
            return Told::Passed;
        }
        self.from = dir.to_owned();
        while self.held.front().is_some_and(|(object, _)| object.key.as_str() < dir) {
            self.held.pop_front();
        }
        let is_behind = self.reached.as_str() > dir && !self.reached.starts_with(dir);
        if !is_behind && !self.is_whole() {
            return Told::Some;
        }
        match self.held.front() {
            // Of several pages the first was asked for first.
            Some((first, asked)) if first.key.as_str().starts_with(dir) => {
                let inside = self.held.iter().take_while(|(object, _)| object.key.as_str().starts_with(dir));
                Told::All(page_of(dir, inside.map(|(object, _)| object)), *asked)
            }
            _ => Told::Nothing,
        }
    }

    /// # Errors
    /// `Internal` for a page that does not go on in the order of S3: nothing follows from it.
    fn take_in(&mut self, page: ListPage, asked: Instant) -> Result<()> {
        for object in page.objects {
            let key = object.key.as_str();
            if key <= self.reached.as_str() {
                return Err(Error::Internal("a listing is not in the order of S3"));
            }
            self.reached = key.to_owned();
            self.held.push_back((object, asked));
        }
        self.next = page.next.map_or(Next::End, Next::Token);
        Ok(())
    }
}

/// The page that S3 answers for the directory alone, of all keys in it.
fn page_of<'a>(dir: &str, keys: impl Iterator<Item = &'a ListedObject>) -> ListPage {
    let mut page = ListPage::default();
    for object in keys {
        let key = object.key.as_str();
        let rest = key.get(dir.len()..).unwrap_or_default();
        match rest.find('/').and_then(|at| key.get(..=dir.len() + at)) {
            Some(below) if page.prefixes.last().is_some_and(|last| last == below) => {}
            Some(below) => page.prefixes.push(below.to_owned()),
            None => page.objects.push(object.clone()),
        }
    }
    page
}

impl Filesystem {
    /// All that is in a directory that is read now, out of the walk that it is part of, and when that was asked for. The caller has
    /// passed its gate. `None`: ask S3 for it.
    pub(super) async fn page_of_walk(self: &Arc<Self>, dir: Ino, prefix: &DirPrefix) -> Option<(ListPage, Instant)> {
        let lasts = self.settings.freshness.dir_min;
        if lasts.is_zero() || !self.store.capabilities().ordered_listing {
            return None;
        }
        let (parent, changes) = (self.table.place(dir)?.parent, self.table.changes().count());
        let parent = self.table.prefix_of(parent).ok()?;
        let (walk, is_streak) = self.walks().walk_to(parent.as_str(), prefix.as_str(), changes)?;
        // Two that read one tree at once are not in one place.
        let mut keys = walk.keys.try_lock().ok()?;
        let is_passed = is_streak && prefix.as_str() < keys.from.as_str();
        if keys.changes == changes && (is_passed || keys.asked_at(prefix.as_str()).elapsed() >= lasts) {
            *keys = Keys::beginning_at(prefix.as_str(), changes);
        }
        let found = match keys.changes == changes {
            true => self.find_in(&walk.root, &mut keys, prefix.as_str()).await,
            false => Err(Error::Stale),
        };
        let holds = changes == self.table.changes().count();
        let inode = self.table.get_plain(dir).ok()?;
        let is_latest = |asked| inode.lock().dir().is_ok_and(|body| !body.names.has_learned_since(asked));
        match found {
            Ok(Some(found)) if holds && found.1.elapsed() < lasts => {
                self.walk_ahead(&walk.root, &mut keys);
                is_latest(found.1).then_some(found)
            }
            Ok(None) if holds => None,
            _ => {
                self.walks().end(&walk);
                None
            }
        }
    }

    /// All of a directory; `None` where S3 has to be asked for it.
    ///
    /// # Errors
    /// What S3 says; `NotFound` for a directory that is not where the walk goes, or too large for it.
    async fn find_in(&self, root: &str, keys: &mut Keys, dir: &str) -> Result<Option<(ListPage, Instant)>> {
        loop {
            match keys.tell(dir) {
                Told::All(page, asked) => return Ok(Some((page, asked))),
                Told::Passed | Told::Nothing => return Ok(None),
                Told::Some if !keys.has_room() => return Err(Error::NotFound),
                Told::Some => {}
            }
            self.ask_more(root, keys);
            let Next::UnderWay(asked, page) = &mut keys.next else { return Err(Error::NotFound) };
            let (asked, page) = (*asked, page.await);
            // Who finds the walk yet begins it anew.
            keys.next = Next::Start;
            keys.take_in(page.map_err(|_| Error::Internal("a listing ended early"))??, asked)?;
            if !keys.is_whole() && keys.reached.as_str() < dir {
                return Err(Error::NotFound);
            }
        }
    }

    /// Who walks walks on.
    fn walk_ahead(&self, root: &str, keys: &mut Keys) {
        let dir = keys.from.as_str();
        let left = keys.held.iter().rev().take_while(|(object, _)| !object.key.as_str().starts_with(dir)).count();
        if left < PAGE && keys.has_room() {
            self.ask_more(root, keys);
        }
    }

    fn ask_more(&self, root: &str, keys: &mut Keys) {
        let (continuation, start_after) = match &keys.next {
            // The directory's own marker is none of its names.
            Next::Start => (None, Some(keys.from.clone())),
            Next::Token(token) => (Some(token.clone()), None),
            Next::UnderWay(..) | Next::End => return,
        };
        let request = ListRequest { prefix: root.to_owned(), continuation, start_after, ..ListRequest::default() };
        let (store, asked) = (self.store.clone(), Instant::now());
        let page = self.runtime.spawn(async move { store.list(request).await });
        keys.next = Next::UnderWay(asked, page);
    }

    fn walks(&self) -> MutexGuard<'_, Walks> {
        self.walks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
