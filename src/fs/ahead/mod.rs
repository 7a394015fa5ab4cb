//! Small files ahead: who opens the files of a directory in listing order finds the next ones here already, and who looks files
//! up to read them finds their bytes at the open.
//!
//! A guess is one request, begun before anybody asked for the file. What it brought is an answer of S3 as of when the request
//! began, and believed no longer than an open believes any answer: it is let go after that. It is also let go, unread, when
//! the name was changed here since. Writers get nothing. Owns the guesses under way and their account; which files to guess is
//! `order`'s, `siblings`' and `habit`'s business. Its locks are the innermost: nothing else is locked under them.

mod habit;
mod looked_up;
mod order;
mod siblings;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::habit::Habits;
use self::order::{Ledger, Limits, weight};
use self::siblings::{Sibling, Siblings};
use super::Filesystem;
use super::open::{First, is_archived};
use crate::cache::Reservation;
use crate::error::{Error, Result};
use crate::inode::{Belief, FileState, FileType, Kind, Listed, Pin};
use crate::store::Attributes;
use crate::transfer::{ObjectReader, WHOLE_MAX, whole_or};
use crate::types::{ByteRange, Ino, Name, ObjectKey, Version};

/// Directories whose listings are kept for guessing, and names in all of them (about 50 bytes each).
const DIRS_MAX: usize = 16;
const NAMES_MAX: usize = 200_000;

/// Guesses under way or waiting, for each part that one file may have in flight (`concurrency`); small files are waited for,
/// not moved.
const FILES_PER_PART: usize = 4;

/// Of the memory for reading, guesses leave this share (one of so many) to those who wait for bytes.
const SPARED: u64 = 4;

/// All guesses of a mount.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug, Default)]
struct State {
    /// The one used last comes first.
    dirs: Vec<Siblings>,
    habits: Habits,
    guesses: HashMap<Ino, Arc<Guess>>,
    /// A program here reads directories in order: the next one is trusted from its first file.
    trusted: bool,
}

/// Why a file is asked for ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It is the turn of others in the order of the listing, and then its own.
    Order,
    /// It is looked up, and those that were looked up before it were read. A listing shows it.
    Listed,
    /// As `Listed`, but no listing shows it: a directory may have its name.
    Unlisted,
}

/// One file, asked for ahead.
#[derive(Debug)]
struct Guess {
    cause: Cause,
    dir: Ino,
    name: Name,
    key: ObjectKey,
    began: Instant,
    answer: watch::Receiver<Option<Answer>>,
    task: AbortHandle,
    stake: Stake,
}

/// Bytes of a file to fetch: the memory for them, how many, and the version that they were last of.
type Wanted = (Reservation, u64, Option<Version>);

/// What S3 answered; `Err` is also for what came too late.
type Answer = Result<Arc<Brought>>;

#[derive(Debug)]
struct Brought {
    version: Version,
    attributes: Arc<Attributes>,
    /// `None` where no bytes were asked for.
    reader: Option<Arc<ObjectReader>>,
}

/// What a guess puts at risk, entered in the ledger when it ends.
#[derive(Debug)]
struct Stake {
    ledger: Arc<Mutex<Ledger>>,
    weight: u64,
    used: AtomicBool,
}

impl Drop for Stake {
    fn drop(&mut self) {
        lock(&self.ledger).settle(self.weight, self.used.load(Ordering::Relaxed));
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guess {
    /// Waits for the answer; `None` when it was given up.
    async fn answered(&self) -> Option<Answer> {
        let mut answer = self.answer.clone();
        answer.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Waits for the answer; `None` is none that helps.
    async fn brought(&self) -> Option<Arc<Brought>> {
        self.answered().await?.ok()
    }
}

impl Ahead {
    /// Guesses that were neither opened nor given up.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        lock(&self.state).guesses.len()
    }

    /// Gives up all guesses, and forgets what was listed.
    pub fn forget(&self) {
        let (dirs, guesses) = {
            let mut state = lock(&self.state);
            (std::mem::take(&mut state.dirs), std::mem::take(&mut state.guesses))
        };
        // After the lock: each guess is entered in the ledger when it goes.
        drop((dirs, guesses));
    }

    fn get(&self, ino: Ino) -> Option<Arc<Guess>> {
        lock(&self.state).guesses.get(&ino).cloned()
    }

    fn take(&self, ino: Ino) -> Option<Arc<Guess>> {
        lock(&self.state).guesses.remove(&ino)
    }

    /// Adds a page of a listing that began at `listed_at`.
    fn note_page(&self, dir: Ino, listed_at: Instant, files: Vec<Sibling>) {
        let mut state = lock(&self.state);
        let known = state.dirs.iter().position(|known| known.dir == dir).map(|index| state.dirs.remove(index));
        let mut siblings =
            known.filter(|known| known.listed_at == listed_at).unwrap_or_else(|| Siblings::new(dir, listed_at));
        siblings.extend(files);
        let mut room = NAMES_MAX.saturating_sub(siblings.len());
        state.dirs.truncate(DIRS_MAX - 1);
        state.dirs.retain(|dir| {
            let fits = dir.len() <= room;
            room = if fits { room - dir.len() } else { 0 };
            fits
        });
        if siblings.len() <= NAMES_MAX {
            state.dirs.insert(0, siblings);
        }
    }

    /// The files to fetch now that `ino`, of `size` bytes, is opened in `dir`, whose listing must not be older than `since`.
    fn opened(
        &self,
        (dir, ino): (Ino, Ino),
        size: u64,
        used: Option<Cause>,
        since: Instant,
        limits: Limits,
    ) -> Vec<Sibling> {
        let mut state = lock(&self.state);
        let Some(index) = state.dirs.iter().position(|known| known.dir == dir) else { return Vec::new() };
        let mut siblings = state.dirs.remove(index);
        if siblings.listed_at < since {
            return Vec::new();
        }
        let in_order = used == Some(Cause::Order);
        let wanted = siblings.opened(ino, in_order, state.trusted, Instant::now(), limits);
        // What was fetched since it was looked up is entered when it is given out.
        if siblings.in_order() && used.is_none_or(|cause| cause == Cause::Order) {
            lock(&self.ledger).note_read(weight(size.min(WHOLE_MAX)));
        }
        state.trusted |= siblings.is_proven();
        state.dirs.insert(0, siblings);
        wanted
    }

    /// A stake for so many bytes, if the share of what was fetched in vain allows it.
    fn stake(&self, size: u64) -> Option<Stake> {
        let weight = weight(size);
        let taken = lock(&self.ledger).take(weight);
        taken.then(|| Stake { ledger: self.ledger.clone(), weight, used: AtomicBool::new(false) })
    }

    /// The guess at `ino` that began then was not opened in time.
    fn expire(&self, ino: Ino, began: Instant) {
        let mut state = lock(&self.state);
        if state.guesses.get(&ino).is_none_or(|guess| guess.began != began) {
            return;
        }
        let gone = state.guesses.remove(&ino);
        if let Some(gone) = &gone
            && gone.cause == Cause::Order
            && let Some(siblings) = state.dirs.iter_mut().find(|siblings| siblings.dir == gone.dir)
        {
            siblings.wasted();
            state.trusted &= siblings.in_order();
        }
    }
}

impl Filesystem {
    /// A listing that began at `listed_at` shows these next.
    pub(super) fn note_siblings<'a>(
        &self,
        dir: Ino,
        listed_at: Instant,
        shown: impl Iterator<Item = &'a (Name, Listed)>,
    ) {
        if !self.may_guess() {
            return;
        }
        let file = |(name, listed): &(Name, Listed)| {
            let size = listed.version.as_ref()?.size;
            let size = (size <= WHOLE_MAX).then_some(size);
            Some(Sibling { ino: self.table.number_of(dir, name), name: name.clone(), size })
        };
        self.ahead.note_page(dir, listed_at, shown.filter_map(file).collect());
    }

    fn may_guess(&self) -> bool {
        self.settings.transfer.read_ahead > 0 && !self.guess_life().is_zero()
    }

    /// How old the answer to a guess may be when the file is opened.
    fn guess_life(&self) -> Duration {
        Belief::open_believes(self.file_span())
    }

    /// The inode of a name that was fetched ahead; `None` when it was not, or what came is of no use.
    pub(super) async fn found_ahead(self: &Arc<Self>, parent: Ino, name: &Name) -> Option<Pin> {
        let guess = self.ahead.get(self.table.number_of(parent, name))?;
        let key = || self.table.prefix_of(parent).and_then(|prefix| prefix.file(name));
        let is_file = guess.cause != Cause::Unlisted;
        if !is_file || guess.dir != parent || guess.name != *name || key().ok()? != guess.key {
            return None;
        }
        let brought = guess.brought().await?;
        let local = self.table.child(parent, name).is_some_and(|child| child.inode().lock().is_local());
        if local || !self.is_of_use(&guess) || key().ok()? != guess.key {
            return None;
        }
        let found = (brought.version.clone(), Some(brought.attributes.clone()));
        self.take_in_file(parent, name, found, guess.began).ok()
    }

    /// True while what it brought may be believed: it is young enough, and the name was not touched here.
    fn is_of_use(&self, guess: &Guess) -> bool {
        let untouched = self.table.get_plain(guess.dir).is_ok_and(|dir| {
            let mut data = dir.lock();
            data.dir().is_ok_and(|dir| dir.names.is_untouched_since(&guess.name, guess.began))
        });
        untouched && guess.began.elapsed() < self.guess_life()
    }

    /// A program opens a file to read it: gives what was fetched of it ahead, and fetches those ahead that it opens next.
    pub(super) async fn fetched_ahead(self: &Arc<Self>, pin: &Pin) -> Option<First> {
        let place = self.table.place(pin.ino())?;
        let guess = self.ahead.take(pin.ino());
        let size = pin.inode().lock().file().map_or(0, FileState::size);
        self.note_opened((place.parent, pin.ino()), Some(size));
        self.guess_next((place.parent, pin.ino()), size, guess.as_ref().map(|guess| guess.cause));
        let guess = guess?;
        let brought = guess.brought().await?;
        let key = self.table.key_of(pin.ino()).ok()?;
        if key != guess.key || !self.is_of_use(&guess) {
            return None;
        }
        let mut data = pin.inode().lock();
        self.note_version(&mut data, (brought.version.clone(), Some(brought.attributes.clone())), guess.began).ok()?;
        let same = matches!(data.file(), Ok(FileState::Clean(clean)) if clean.version.same_bytes(&brought.version));
        if !same || !data.belief.is_fresh_for_open(Instant::now(), self.file_span()) {
            return None;
        }
        drop(data);
        guess.stake.used.store(true, Ordering::Relaxed);
        if guess.cause != Cause::Order {
            lock(&self.ahead.ledger).note_read(weight(brought.version.size));
        }
        Some(brought.reader.clone().map(|reader| (key, reader)))
    }

    fn guess_next(self: &Arc<Self>, (dir, ino): (Ino, Ino), size: u64, used: Option<Cause>) {
        if !self.may_guess() {
            return;
        }
        let Some(since) = Instant::now().checked_sub(self.settings.freshness.dir_max) else { return };
        let files = self.settings.transfer.concurrency.saturating_mul(FILES_PER_PART);
        let limits = Limits { files, within: self.guess_life() / 2 };
        for sibling in self.ahead.opened((dir, ino), size, used, since, limits) {
            // What there is no room for now is not asked for later: it would come too late.
            let _ = self.guess(dir, &sibling, Cause::Order);
        }
    }

    /// The version that was listed, for what may be on the local disk of it.
    fn listed_version(&self, dir: Ino, name: &Name) -> Option<Version> {
        if !self.transfer.keeps() {
            return None;
        }
        let dir = self.table.get_plain(dir).ok()?;
        let mut data = dir.lock();
        data.dir().ok()?.names.listed_version(name).cloned()
    }

    /// Asks for one file ahead. `None` when nothing is asked: it is large, archived, changed here, or there is no room; or it is
    /// asked for already.
    fn guess(self: &Arc<Self>, dir: Ino, file: &Sibling, cause: Cause) -> Option<Arc<Guess>> {
        let size = file.size?;
        if self.ahead.get(file.ino).is_some() {
            return None;
        }
        let (mut bytes, mut known) = (size > 0, self.listed_version(dir, &file.name));
        if let Some(child) = self.table.child(dir, &file.name) {
            let data = child.inode().lock();
            let opened = child.inode().kind() == Kind::File && data.file_type() == FileType::Regular;
            if data.is_local() || !opened {
                return None;
            }
            known = data.file().ok().and_then(FileState::object).cloned().or(known);
            // The kernel has its pages: only whether they are still right is asked.
            bytes &= data.kernel_pages != Some(data.lineage);
            if data.attributes.as_ref().is_some_and(|known| is_archived(known.storage_class.as_deref())) {
                return None;
            }
        }
        if !bytes && cause != Cause::Order {
            return None;
        }
        let key = self.table.prefix_of(dir).and_then(|prefix| prefix.file(&file.name)).ok()?;
        let budget = self.transfer.budget();
        let spare = budget.available().saturating_sub(budget.limit() / SPARED);
        let memory = if bytes { Some(budget.try_reserve(size).filter(|_| size <= spare)?) } else { None };
        let stake = self.ahead.stake(if bytes { size } else { 0 })?;
        let mut state = lock(&self.ahead.state);
        if state.guesses.contains_key(&file.ino) {
            return None;
        }
        let began = Instant::now();
        let (sender, answer) = watch::channel(None);
        let bytes = memory.map(|memory| (memory, size, known));
        let work = self.clone().fulfil((file.ino, began), key.clone(), bytes, sender);
        let task = self.runtime.spawn(work).abort_handle();
        let guess = Arc::new(Guess { cause, dir, name: file.name.clone(), key, began, answer, task, stake });
        state.guesses.insert(file.ino, guess.clone());
        Some(guess)
    }

    /// Sends the request of a guess, and takes the guess back when its time is over.
    async fn fulfil(
        self: Arc<Self>,
        (ino, began): (Ino, Instant),
        key: ObjectKey,
        bytes: Option<Wanted>,
        answer: watch::Sender<Option<Answer>>,
    ) {
        let end = tokio::time::Instant::from_std(began + self.guess_life());
        let late = || Error::Timeout("a file fetched ahead came too late".into());
        let outcome = tokio::time::timeout_at(end, self.ask_ahead(key, bytes)).await.unwrap_or_else(|_| Err(late()));
        let failed = outcome.is_err();
        answer.send_replace(Some(outcome.map(Arc::new)));
        if !failed {
            tokio::time::sleep_until(end).await;
        }
        self.ahead.expire(ino, began);
    }

    async fn ask_ahead(&self, key: ObjectKey, bytes: Option<Wanted>) -> Result<Brought> {
        let here = match &bytes {
            Some((_, size, known)) => {
                let size = known.as_ref().map_or(*size, |known| known.size.min(*size));
                self.kept_reader(&key, known.clone(), ByteRange::at(0, size)).await.is_some()
            }
            None => true,
        };
        let Some((memory, size, _)) = bytes.filter(|_| !here) else {
            let info = self.head(&key).await?;
            return Ok(Brought { version: info.version, attributes: Arc::new(info.attributes), reader: None });
        };
        let reply = self.store.get(&key, whole_or(ByteRange::at(0, size), size), None).await?;
        let (version, attributes) = (reply.info.version.clone(), Arc::new(reply.info.attributes.clone()));
        // Of what is larger than was thought only this is used: its bytes are left where they are.
        let reader = (reply.range.len() <= memory.bytes()).then(|| self.transfer.reader_with(key, reply, memory));
        Ok(Brought { version, attributes, reader })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
