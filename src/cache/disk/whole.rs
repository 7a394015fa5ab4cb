//! A complete entry as one file, for who reads it without asking here again: its bytes are compared with their checksums before.
//!
//! Owns what is remembered of those comparisons. A file is taken for compared as long as nobody has changed it: a complete entry
//! is never written to again.

use std::fs::{File, Metadata};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use super::entry::{Entry, Files, count_good, read_up_to};
use super::name::EntryName;
use super::{BLOCK, READ_MOST};
use crate::types::ByteRange;

/// Entries that are remembered, about 150 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(32 << 10).unwrap();

/// What is here of a version, as one file.
#[derive(Debug)]
pub enum Whole {
    /// All of it, and it is right.
    Here(File),
    /// All of it, and nobody has compared it with its checksums yet.
    Unverified,
    /// Not all of it.
    Missing,
}

/// The files that were found right.
#[derive(Debug)]
pub(super) struct Verified(Mutex<LruCache<EntryName, Stamp>>);

/// What tells a file from another one and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Stamp { device: found.dev(), inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) }
    }
}

impl Default for Verified {
    fn default() -> Self {
        Verified(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Verified {
    fn knows(&self, name: &EntryName, stamp: Stamp) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) == Some(&stamp)
    }

    fn note(&self, name: &EntryName, stamp: Stamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(name.clone(), stamp);
    }
}

impl Entry {
    /// The file with all bytes of the version.
    pub fn whole(&self) -> Whole {
        if self.disk.is_off() {
            return Whole::Missing;
        }
        self.try_whole().unwrap_or_else(|error| {
            self.disk.note(&error);
            Whole::Missing
        })
    }

    /// Compares a complete entry with its checksums: reads all of it. What is damaged is dropped. False when it is not all here,
    /// or was changed meanwhile.
    pub fn verify(&self) -> bool {
        !self.disk.is_off() && self.try_verify().inspect_err(|error| self.disk.note(error)).unwrap_or(false)
    }

    fn try_whole(&self) -> io::Result<Whole> {
        let Some(files) = self.files()? else { return Ok(Whole::Missing) };
        self.touch(&files);
        let found = files.data.metadata()?;
        if self.disk.verified.knows(self.name(), Stamp::of(&found)) {
            return Ok(Whole::Here(files.data.try_clone()?));
        }
        let complete = found.len() == self.size() && self.is_complete(&files)?;
        Ok(if complete { Whole::Unverified } else { Whole::Missing })
    }

    fn is_complete(&self, files: &Files) -> io::Result<bool> {
        Ok(self.slots(files, ByteRange::new(0, self.size()))?.iter().all(|sum| *sum != 0))
    }

    fn try_verify(&self) -> io::Result<bool> {
        let Some(files) = self.files()? else { return Ok(false) };
        let before = Stamp::of(&files.data.metadata()?);
        let mut at = 0;
        while at < self.size() {
            let rest = ByteRange::new(at, self.size());
            let good = self.good_bytes(&files, rest)?;
            if good == 0 {
                drop(files);
                // Drops what is damaged.
                self.look(rest);
                return Ok(false);
            }
            at += good;
        }
        let after = Stamp::of(&files.data.metadata()?);
        if before == after {
            self.disk.verified.note(self.name(), after);
        }
        Ok(before == after)
    }

    /// How many bytes at the beginning of `range`, up to [`READ_MOST`] blocks, fit their checksums.
    fn good_bytes(&self, files: &Files, range: ByteRange) -> io::Result<u64> {
        let blocks = self.blocks(range.start / BLOCK, READ_MOST);
        let bytes = read_up_to(&files.data, blocks)?;
        let good = count_good(&bytes, &self.slots(files, blocks)?, blocks);
        Ok(self.blocks(range.start / BLOCK, good).len())
    }
}
