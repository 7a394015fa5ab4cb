//! Room for entries: what they take all together, whose turn it is to change that, and what goes when it is too much.
//!
//! `DIR/usage` holds 256 numbers, the bytes on disk of each folder. Whoever makes, fills or removes entries holds a lock on it,
//! in whichever process: so the limits hold for all mounts together. A process that is killed may leave a number wrong; a survey
//! of the folder puts it right. Entries that were used last go last: a record's time is that of its last use.

use std::collections::{BinaryHeap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::name::EntryName;
use crate::config::CacheSettings;

const SHARDS: usize = 256;
/// Entries that one look at the whole directory finds to be removed: so that it is taken rarely.
const CANDIDATES: usize = 16 << 10;
/// After room could not be made it is not tried again for so long: each try looks at the whole directory.
const PAUSE: Duration = Duration::from_secs(1);

/// The directory, its limits, and what is to go next.
#[derive(Debug)]
pub(super) struct Room {
    settings: CacheSettings,
    oldest: Mutex<VecDeque<Candidate>>,
    /// When room could not be made.
    refused: Mutex<Option<Instant>>,
    told_short: AtomicBool,
}

/// An entry, by when it was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// Seconds and nanoseconds.
    used: (i64, i64),
    name: EntryName,
}

/// The lock, as long as it lives.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    room: &'a Room,
    usage: File,
}

impl Room {
    pub fn new(settings: CacheSettings) -> Self {
        Room { settings, oldest: Mutex::default(), refused: Mutex::default(), told_short: AtomicBool::new(false) }
    }

    pub fn data_path(&self, name: &EntryName) -> PathBuf {
        self.shard_dir(name.shard()).join(name.data())
    }

    pub fn record_path(&self, name: &EntryName) -> PathBuf {
        self.shard_dir(name.shard()).join(name.record())
    }

    fn shard_dir(&self, shard: u8) -> PathBuf {
        self.settings.dir.join(format!("{shard:02x}"))
    }

    /// Tries to write into the directory, without waiting for the lock.
    pub fn check(&self) -> io::Result<()> {
        self.usage().map(drop)
    }

    /// Waits for the lock.
    pub fn turn(&self) -> io::Result<Turn<'_>> {
        let usage = self.usage()?;
        usage.lock()?;
        Ok(Turn { room: self, usage })
    }

    fn usage(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(self.settings.dir.join("usage"))
    }

    /// True for a while after room could not be made.
    pub fn is_refused(&self) -> bool {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|when| when.elapsed() < PAUSE)
    }

    /// Counts everything anew, one folder after the other, and clears away what a killed process left half made.
    pub fn survey(&self) -> io::Result<()> {
        (0..=u8::MAX).try_for_each(|shard| self.turn()?.survey(shard, &mut |_| {}))
    }

    fn next_candidate(&self) -> Option<Candidate> {
        self.oldest.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Turn<'_> {
    /// Makes the folder of an entry.
    pub fn make_shard(&self, name: &EntryName) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.room.shard_dir(name.shard())) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Makes sure that `bytes` more may be taken for the entry `keep`, by removing others; false when that can't be.
    pub fn make_room(&self, bytes: u64, keep: &EntryName) -> io::Result<bool> {
        let (limit, min_free) = (self.room.settings.limit, self.room.settings.min_free);
        let over = |used: u64| used.saturating_add(bytes).saturating_sub(limit);
        let short = |free: u64| min_free.saturating_add(bytes).saturating_sub(free);
        let wanted = over(self.used()?).max(short(self.free()?));
        if wanted == 0 {
            return Ok(true);
        }
        if bytes <= limit {
            self.evict(wanted, keep)?;
        }
        // What is removed while somebody reads it is free only later.
        let (over, short) = (over(self.used()?), short(self.free()?));
        let made = over == 0 && short == 0;
        if short > 0 && !self.room.told_short.swap(true, Ordering::Relaxed) {
            let dir = self.room.settings.dir.display();
            tracing::warn!(%dir, "cache_min_free leaves the disk cache no room for now");
        }
        *self.room.refused.lock().unwrap_or_else(PoisonError::into_inner) = (!made).then(Instant::now);
        Ok(made)
    }

    /// Removes the entries that were used longest ago until `wanted` bytes are given back, or nothing is left but `keep`.
    fn evict(&self, wanted: u64, keep: &EntryName) -> io::Result<()> {
        let (mut freed, mut looked) = (0, false);
        while freed < wanted {
            match self.room.next_candidate() {
                Some(candidate) if candidate.name == *keep || self.is_used_since(&candidate) => {}
                Some(candidate) => freed += self.remove(&candidate.name)?,
                None if looked => break,
                None => {
                    looked = true;
                    self.find_candidates()?;
                }
            }
        }
        Ok(())
    }

    fn is_used_since(&self, candidate: &Candidate) -> bool {
        let now = std::fs::symlink_metadata(self.room.record_path(&candidate.name));
        now.is_ok_and(|now| (now.mtime(), now.mtime_nsec()) != candidate.used)
    }

    fn find_candidates(&self) -> io::Result<()> {
        let mut found = BinaryHeap::new();
        for shard in 0..=u8::MAX {
            self.survey(shard, &mut |candidate| {
                found.push(candidate);
                if found.len() > CANDIDATES {
                    found.pop();
                }
            })?;
        }
        *self.room.oldest.lock().unwrap_or_else(PoisonError::into_inner) = found.into_sorted_vec().into();
        Ok(())
    }

    /// Removes an entry, and gives back what it took.
    pub fn remove(&self, name: &EntryName) -> io::Result<u64> {
        let mut freed = 0;
        for path in [self.room.data_path(name), self.room.record_path(name)] {
            match std::fs::symlink_metadata(&path) {
                Ok(found) => {
                    std::fs::remove_file(&path)?;
                    freed += found.blocks() * 512;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.changed(name, freed, 0)?;
        Ok(freed)
    }

    /// An entry took `before` bytes on the disk and takes `after` now.
    pub fn changed(&self, name: &EntryName, before: u64, after: u64) -> io::Result<()> {
        let at = u64::from(name.shard()) * 8;
        let used = self.numbers()?.get(usize::from(name.shard())).copied().unwrap_or_default();
        self.usage.write_all_at(&used.saturating_add(after).saturating_sub(before).to_le_bytes(), at)
    }

    /// Bytes that all entries take.
    pub fn used(&self) -> io::Result<u64> {
        Ok(self.numbers()?.into_iter().fold(0, u64::saturating_add))
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut bytes = [0; SHARDS * 8];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.usage.read_at(rest, filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(bytes.chunks_exact(8).map(|number| number.try_into().map_or(0, u64::from_le_bytes)).collect())
    }

    /// Bytes that the file system still has for this user.
    fn free(&self) -> io::Result<u64> {
        let told = rustix::fs::fstatvfs(&self.usage)?;
        Ok(told.f_bavail.saturating_mul(told.f_frsize))
    }

    /// Counts one folder anew and tells its entries. Only files with a name that a cache gives are touched.
    fn survey(&self, shard: u8, tell: &mut dyn FnMut(Candidate)) -> io::Result<()> {
        let dir = self.room.shard_dir(shard);
        let mut files: Vec<(EntryName, bool)> = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            entries => {
                let named = entries?.map(|entry| Ok(entry?.file_name().to_str().and_then(EntryName::of_file)));
                named.filter_map(io::Result::transpose).collect::<io::Result<_>>()?
            }
        };
        files.retain(|(name, _)| name.shard() == shard);
        files.sort();
        let mut used = 0;
        for entry in files.chunk_by(|one, other| one.0 == other.0) {
            let Some((name, _)) = entry.first() else { continue };
            if entry.len() < 2 {
                self.remove(name)?;
                continue;
            }
            let (data, record) = (self.room.data_path(name), self.room.record_path(name));
            let (data, record) = (std::fs::symlink_metadata(data)?, std::fs::symlink_metadata(record)?);
            used += (data.blocks() + record.blocks()) * 512;
            tell(Candidate { used: (record.mtime(), record.mtime_nsec()), name: name.clone() });
        }
        self.usage.write_all_at(&u64::to_le_bytes(used), u64::from(shard) * 8)
    }
}
