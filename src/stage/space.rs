//! What the staged files of a mount take of the disk, and how much they may.
//!
//! Owns the account of bytes: taken before they are written, given back when they are gone, with the two limits that a
//! taking has to keep, and the news of room for those who wait. Knows no file: which of its bytes take room each file
//! notes in a [`Held`]. Counted are bytes of data; journal records are small, and are not.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::ranges::RangeMap;
use crate::config::StageSettings;
use crate::error::{Error, Result};
use crate::types::ByteRange;

/// Most bytes that are taken between two looks at the file system. Others fill it too.
const LOOK_EVERY: u64 = 16 << 20;
/// Of the room that a look finds only this share is taken before the next: the fuller the disk, the closer it is watched.
const SHARE: u64 = 4;
/// Most bytes that the file system keeps free where nothing is said about that.
const MIN_FREE: u64 = 1 << 30;

/// The account of one mount.
#[derive(Debug)]
pub(super) struct Space {
    /// Most bytes that may be taken.
    limit: u64,
    /// Bytes that the file system must still have; 0 asks it nothing.
    min_free: u64,
    /// Anything on that file system.
    place: Option<File>,

    account: Mutex<Account>,
    news: watch::Sender<News>,
}

#[derive(Debug, Default)]
struct Account {
    /// Bytes on the disk, or on their way there.
    taken: u64,
    /// Those of them that may not be on the disk yet.
    on_the_way: u64,
    /// All that was ever taken, also what was given back since.
    ever: u64,
    /// Bytes that may be taken before the file system is asked again.
    granted: u64,
}

/// What those who wait for room want to know.
#[derive(Debug, Default)]
struct News {
    /// Grows when bytes are given back, and when something that would have done so has ended.
    changes: u64,
    /// What is going to give bytes back.
    under_way: usize,
}

/// Bytes taken for a write that is not done yet. What of it is not [kept](Reserved::keep) is given back.
#[derive(Debug)]
#[must_use]
pub(super) struct Reserved<'a> {
    space: &'a Space,
    bytes: u64,
    kept: u64,
}

/// Something that gives bytes back soon: while it lives, waiting for room is not in vain.
#[derive(Debug)]
#[must_use]
pub struct UnderWay(Arc<Space>);

/// The bytes of one file that take room on the disk. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    space: Arc<Space>,
    map: RangeMap,
}

impl Space {
    /// Without limits.
    pub fn unlimited() -> Self {
        Space::new(u64::MAX, 0, None)
    }

    /// With these limits, for the file system that `dir` is on.
    pub fn within(settings: &StageSettings, dir: &Path) -> Result<Self> {
        let failed = |err| Error::local("asking for free space in the stage", err);
        let place = File::open(dir).map_err(failed)?;
        let min_free = match settings.min_free {
            Some(bytes) => bytes,
            None => {
                let told = rustix::fs::fstatvfs(&place).map_err(|err| failed(err.into()))?;
                let [size, free] = [told.f_blocks, told.f_bavail].map(|blocks| blocks.saturating_mul(told.f_frsize));
                default_min_free(size, free)
            }
        };
        Ok(Space::new(settings.limit.unwrap_or(u64::MAX), min_free, Some(place)))
    }

    fn new(limit: u64, min_free: u64, place: Option<File>) -> Self {
        Space { limit, min_free, place, account: Mutex::default(), news: watch::Sender::default() }
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> u64 {
        self.account().taken
    }

    /// Bytes that could be taken now.
    pub fn room(&self) -> u64 {
        let told = self.place.as_ref().map(rustix::fs::fstatvfs);
        let account = self.account();
        let free = match told {
            Some(Ok(told)) => {
                let reserved = self.min_free.saturating_add(account.on_the_way);
                told.f_bavail.saturating_mul(told.f_frsize).saturating_sub(reserved)
            }
            _ => u64::MAX,
        };
        free.min(self.limit.saturating_sub(account.taken))
    }

    /// Takes bytes that are about to be written.
    ///
    /// # Errors
    /// `StageFull`
    pub fn take(&self, bytes: u64) -> Result<Reserved<'_>> {
        if bytes > 0 {
            let mut account = self.account();
            if self.min_free > 0 && account.granted < bytes {
                account = self.look(account, bytes);
                if account.granted < bytes {
                    return Err(Error::StageFull);
                }
            }
            if account.taken.checked_add(bytes).is_none_or(|taken| taken > self.limit) {
                return Err(Error::StageFull);
            }
            account.take(bytes);
        }
        Ok(Reserved { space: self, bytes, kept: 0 })
    }

    /// As [`Space::take`], also over the limits: for bytes without which a file could not be stored.
    pub fn take_regardless(&self, bytes: u64) -> Reserved<'_> {
        self.account().take(bytes);
        Reserved { space: self, bytes, kept: 0 }
    }

    /// Asks the file system, without the lock. What was taken since the question counts as not written yet.
    fn look<'a>(&'a self, account: MutexGuard<'a, Account>, bytes: u64) -> MutexGuard<'a, Account> {
        let (on_the_way, ever) = (account.on_the_way, account.ever);
        drop(account);
        let told = self.place.as_ref().map(rustix::fs::fstatvfs);
        let mut account = self.account();
        account.granted = match told {
            Some(Ok(told)) => {
                let since = account.ever.wrapping_sub(ever);
                let reserved = self.min_free.saturating_add(on_the_way).saturating_add(since);
                let room = told.f_bavail.saturating_mul(told.f_frsize).saturating_sub(reserved);
                if room < bytes { 0 } else { (room / SHARE).min(LOOK_EVERY).max(bytes) }
            }
            // It will say itself when it is full.
            _ => LOOK_EVERY.max(bytes),
        };
        account
    }

    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            let mut account = self.account();
            account.taken = account.taken.saturating_sub(bytes);
            drop(account);
            self.news.send_modify(|news| news.changes += 1);
        }
    }

    /// What [`Space::changed`] compares with. To be asked before bytes are taken in vain.
    pub fn changes(&self) -> u64 {
        self.news.borrow().changes
    }

    /// Waits until there is news since `seen`: true. False when nothing is under way that could give bytes back.
    pub async fn changed(&self, seen: u64) -> bool {
        let mut news = self.news.subscribe();
        let heard = news.wait_for(|news| news.changes != seen || news.under_way == 0).await;
        heard.is_ok_and(|news| news.changes != seen)
    }

    /// Something that gives bytes back begins.
    pub fn under_way(self: &Arc<Self>) -> UnderWay {
        self.news.send_modify(|news| news.under_way += 1);
        UnderWay(self.clone())
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn take(&mut self, bytes: u64) {
        self.taken = self.taken.saturating_add(bytes);
        self.on_the_way = self.on_the_way.saturating_add(bytes);
        self.ever = self.ever.wrapping_add(bytes);
        self.granted = self.granted.saturating_sub(bytes);
    }
}

impl Reserved<'_> {
    /// So many of the bytes are on the disk now. The others go back.
    pub fn keep(mut self, bytes: u64) {
        self.kept = bytes.min(self.bytes);
    }
}

impl Drop for Reserved<'_> {
    /// Tells nobody: who waits would try in vain, fail, and so wake up all others, for ever.
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut account = self.space.account();
            account.on_the_way = account.on_the_way.saturating_sub(self.bytes);
            account.taken = account.taken.saturating_sub(self.bytes - self.kept);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.news.send_modify(|news| {
            news.under_way = news.under_way.saturating_sub(1);
            news.changes += 1;
        });
    }
}

impl Held {
    pub fn new(space: &Arc<Space>) -> Self {
        Held { space: space.clone(), map: RangeMap::new() }
    }

    /// Bytes that writing `range` would take.
    pub fn lacks(&self, range: ByteRange) -> u64 {
        range.len() - self.map.covered(range)
    }

    /// Notes that all of `range` is on the disk, and gives the bytes that are so since now.
    pub fn add(&mut self, range: ByteRange) -> u64 {
        let new = self.lacks(range);
        self.map.insert(range);
        new
    }

    /// The parts of `range` that take no room.
    pub fn gaps(&self, range: ByteRange) -> Vec<ByteRange> {
        self.map.missing(range)
    }

    /// `range` takes no room any more.
    pub fn release(&mut self, range: ByteRange) {
        let bytes = self.map.covered(range);
        if bytes > 0 {
            self.map.remove(range);
            self.space.give_back(bytes);
        }
    }

    /// What the file takes stays taken after it: it stays on the disk.
    pub fn leave(&mut self) {
        self.map.clear();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.space.give_back(self.map.total());
    }
}

/// Leaves a small file system, and one that is nearly full already, usable.
fn default_min_free(size: u64, free: u64) -> u64 {
    MIN_FREE.min(size / 20).min(free / 4)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn of(limit: u64) -> Arc<Space> {
        Arc::new(Space::new(limit, 0, None))
    }

    #[test]
    fn what_is_taken_and_not_kept_goes_back() {
        let space = of(10);
        let reserved = space.take(8).expect("room");
        assert!(matches!(space.take(3), Err(Error::StageFull)), "more than the limit was taken");
        assert_eq!(space.room(), 2);
        reserved.keep(5);
        assert_eq!((space.taken(), space.account().on_the_way), (5, 0));
        drop(space.take(5).expect("room up to the limit"));
        assert_eq!(space.taken(), 5);
        assert!(space.take(u64::MAX).is_err());
    }

    #[test]
    fn bytes_that_must_come_go_over_the_limit_and_count() {
        let space = of(10);
        space.take_regardless(25).keep(25);
        assert_eq!(space.taken(), 25);
        assert!(space.take(1).is_err());
        space.give_back(16);
        assert!(space.take(1).is_ok());
    }

    #[test]
    fn what_is_on_its_way_counts_as_not_free() {
        let root = tempfile::tempdir().expect("a folder");
        let asked = |min_free| {
            let settings = StageSettings { dir: root.path().to_owned(), limit: None, min_free: Some(min_free) };
            Space::within(&settings, root.path()).expect("a file system")
        };
        assert!(asked(u64::MAX).take(1).is_err(), "more than there is was kept free");
        let space = asked(1);
        // Others use this disk too, but not for so much within a moment.
        let told = rustix::fs::statvfs(root.path()).expect("a file system");
        let most = told.f_bavail * told.f_frsize / 4 * 3;
        let first = space.take(most).expect("room");
        assert!(space.take(most).is_err(), "the same room was taken twice");
        drop(first);
        assert!(space.take(most).is_ok());
    }

    #[test]
    fn the_file_system_is_not_asked_at_each_write() {
        let root = tempfile::tempdir().expect("a folder");
        let settings = StageSettings { dir: root.path().to_owned(), limit: None, min_free: Some(1) };
        let space = Space::within(&settings, root.path()).expect("a file system");
        space.take(1).expect("room").keep(1);
        let granted = space.account().granted;
        assert!(granted > 0 && granted < LOOK_EVERY, "{granted}");
        space.take(granted).expect("room").keep(granted);
        assert_eq!(space.account().granted, 0, "what was granted was asked for again");
    }

    #[test]
    fn a_small_or_nearly_full_file_system_stays_usable() {
        for (size, free, kept) in [
            (1 << 40, 1 << 39, 1 << 30),
            (64 << 20, 64 << 20, (64 << 20) / 20),
            (1 << 40, 800 << 20, 200 << 20),
            (1 << 40, 0, 0),
            (0, 0, 0),
        ] {
            assert_eq!(default_min_free(size, free), kept, "{free} of {size}");
        }
    }

    #[test]
    fn who_waits_hears_of_room_and_of_the_end_of_what_could_make_some() {
        let space = of(10);
        let seen = space.changes();
        assert_eq!(space.changed(seen).now_or_never(), Some(false), "waited for nothing");
        let one = space.under_way();
        let mut waiting = Box::pin(space.changed(seen));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        let reserved = space.take(4).expect("room");
        reserved.keep(4);
        drop(space.take(4).expect("room"));
        assert_eq!(waiting.as_mut().now_or_never(), None, "a write that failed was taken for room");
        space.give_back(4);
        assert_eq!(waiting.now_or_never(), Some(true));
        let seen = space.changes();
        let mut waiting = Box::pin(space.changed(seen));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(one);
        assert_eq!(waiting.now_or_never(), Some(true), "the end was not told");
        assert_eq!(space.changed(space.changes()).now_or_never(), Some(false));
    }
}
