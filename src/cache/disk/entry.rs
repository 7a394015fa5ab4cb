//! One version's entry: which blocks are here, reading them, adding some.
//!
//! The record has a header, the same for all time, and then eight bytes for each block: its checksum, or zero while it is not
//! here. Only who has the turn (see [`super::room`]) writes; who reads needs none, and takes one only to look again at what
//! seems wrong.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::name::{EntryName, identify};
use super::room::Turn;
use super::{BLOCK, READ_MOST, Shared};
use crate::types::{ByteRange, ObjectKey, Version};

/// What is fetched because some of it is missing ends where so many blocks in a row are here: for fewer a second request costs
/// more than it saves.
const WORTH: u64 = 8;
/// An entry that is read for long counts as used again after this.
const TOUCH: Duration = Duration::from_secs(30);
/// What a file system gives out at least, in bytes.
pub(super) const PAGE: u64 = 4096;

/// One version's bytes on the disk, be there any or not.
#[derive(Debug)]
pub struct Entry {
    pub(super) disk: Arc<Shared>,
    name: EntryName,
    header: Vec<u8>,
    size: u64,
    /// The bytes that come are wrong: nothing more is added.
    discarded: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: Option<Arc<Files>>,
    touched: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: File,
    pub(super) record: File,
}

/// What is here of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its first bytes.
    Here(Bytes),
    /// Nothing that is worth having before this offset.
    MissingUntil(u64),
}

/// What a look at the directory shows.
pub(super) enum Seen {
    Nothing,
    /// Torn, foreign, or of another format.
    Bad,
    Good(Files),
}

impl Files {
    pub(super) fn bytes_on_disk(&self) -> io::Result<u64> {
        Ok((self.data.metadata()?.blocks() + self.record.metadata()?.blocks()) * 512)
    }

    fn are_gone(&self) -> io::Result<bool> {
        Ok(self.data.metadata()?.nlink() == 0 || self.record.metadata()?.nlink() == 0)
    }
}

impl Entry {
    pub(super) fn new(disk: Arc<Shared>, key: &ObjectKey, version: &Version) -> Self {
        let (name, header) = identify(&disk.source, key, version);
        Entry { disk, name, header, size: version.size, discarded: AtomicBool::new(false), open: Mutex::default() }
    }

    /// Bytes of the version.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The first bytes of `range` (within the version, not empty), or where to look next.
    pub fn look(&self, range: ByteRange) -> Found {
        let nothing = Found::MissingUntil(range.end);
        if self.disk.is_off() {
            return nothing;
        }
        let found = self.try_look(range).unwrap_or_else(|error| {
            self.disk.note(&error);
            nothing
        });
        self.disk.tally.count(&found);
        found
    }

    /// True when all of `range` is here, as far as the record knows.
    pub fn has(&self, range: ByteRange) -> bool {
        let has = || {
            let Some(files) = self.files()? else { return Ok(false) };
            Ok(self.slots(&files, range)?.iter().all(|sum| *sum != 0))
        };
        !self.disk.is_off() && has().inspect_err(|error| self.disk.note(error)).unwrap_or(false)
    }

    /// Adds bytes from `at` on, a block's first: whole blocks, or all up to the end. False when they are not kept.
    pub fn keep(&self, at: u64, pieces: &[Bytes]) -> bool {
        !self.is_closed() && self.try_keep(at, pieces).inspect_err(|error| self.disk.note(error)).unwrap_or(false)
    }

    /// Drops all that is here, and adds nothing more: what came of the version is wrong, though it fits its checksums.
    pub fn discard(&self) {
        self.discarded.store(true, Ordering::Relaxed);
        let drop_all = || {
            // Who adds something has the turn.
            let turn = self.disk.room.turn()?;
            self.forget_files();
            turn.remove(&self.name).map(drop)
        };
        drop_all().unwrap_or_else(|error| self.disk.note(&error));
    }

    /// True when adding something is not worth trying.
    pub(super) fn is_closed(&self) -> bool {
        self.disk.is_off() || self.disk.room.is_refused()
    }

    pub(super) fn name(&self) -> &EntryName {
        &self.name
    }

    /// What is there now is other files than those that are open.
    pub(super) fn forget_files(&self) {
        self.open().files = None;
    }

    fn try_look(&self, range: ByteRange) -> io::Result<Found> {
        let Some(files) = self.files()? else { return Ok(Found::MissingUntil(range.end)) };
        self.touch(&files);
        let sums = self.slots(&files, range)?;
        let here = sums.iter().take(READ_MOST as usize).take_while(|sum| **sum != 0).count();
        if here == 0 {
            return Ok(Found::MissingUntil(next_worthwhile(&sums, range)));
        }
        let first = range.start / BLOCK;
        let blocks = self.blocks(first, here as u64);
        let mut bytes = read_up_to(&files.data, blocks)?;
        let good = count_good(&bytes, sums.get(..here).unwrap_or_default(), blocks);
        if good == 0 {
            drop(files);
            return self.look_again(range);
        }
        bytes.truncate(usize::try_from(self.blocks(first, good).len()).unwrap_or(usize::MAX));
        let read = ByteRange::at(blocks.start, bytes.len() as u64);
        let wanted = read.intersect(range);
        let bytes = Bytes::from(bytes);
        Ok(Found::Here(bytes.slice((wanted.start - read.start) as usize..(wanted.end - read.start) as usize)))
    }

    /// A block does not fit its checksum. With the turn nobody writes: what is wrong now is damaged, and goes.
    fn look_again(&self, range: ByteRange) -> io::Result<Found> {
        let turn = self.disk.room.turn()?;
        if let Seen::Good(files) = self.see()? {
            let sums = self.slots(&files, range)?;
            let block = self.blocks(range.start / BLOCK, 1);
            let bytes = read_up_to(&files.data, block)?;
            if count_good(&bytes, sums.get(..1).unwrap_or_default(), block) == 1 {
                let wanted = block.intersect(range);
                let (from, to) = ((wanted.start - block.start) as usize, (wanted.end - block.start) as usize);
                return Ok(Found::Here(Bytes::from(bytes).slice(from..to)));
            }
        }
        self.drop_damaged(&turn)?;
        Ok(Found::MissingUntil(range.end))
    }

    fn drop_damaged(&self, turn: &Turn<'_>) -> io::Result<()> {
        tracing::warn!(entry = self.name.data(), "a damaged entry of the disk cache is dropped, and fetched again");
        self.open().files = None;
        turn.remove(&self.name).map(drop)
    }

    fn try_keep(&self, at: u64, pieces: &[Bytes]) -> io::Result<bool> {
        let range = ByteRange::at(at, pieces.iter().map(|piece| piece.len() as u64).sum());
        let whole = at.is_multiple_of(BLOCK) && (range.end.is_multiple_of(BLOCK) || range.end == self.size);
        if range.is_empty() || !whole || range.end > self.size {
            return Ok(false);
        }
        let sums = checksums(pieces);
        let turn = self.disk.room.turn()?;
        if self.discarded.load(Ordering::Relaxed) {
            return Ok(false);
        }
        // Room for all of it, whatever is here already, and for what the record grows by.
        let record = PAGE * 2 + sums.len() as u64 * 8;
        if !turn.make_room(range.len().next_multiple_of(PAGE) + record, &self.name)? {
            return Ok(false);
        }
        let (files, before) = self.files_to_fill(&turn)?;
        let done = self.fill(&files, range, pieces, &sums);
        // Also of what failed half-way.
        turn.changed(&self.name, before, files.bytes_on_disk()?)?;
        done.map(|()| true)
    }

    /// Writes the blocks that are not here, and then their checksums.
    fn fill(&self, files: &Files, range: ByteRange, pieces: &[Bytes], sums: &[u64]) -> io::Result<()> {
        let known = self.slots(files, range)?;
        let mut at = range.start;
        for piece in pieces {
            let mut rest = piece.clone();
            while !rest.is_empty() {
                let in_block = (BLOCK - at % BLOCK).min(rest.len() as u64);
                let part = rest.split_to(in_block as usize);
                if known.get(((at - range.start) / BLOCK) as usize).is_none_or(|sum| *sum == 0) {
                    files.data.write_all_at(&part, at)?;
                }
                at += in_block;
            }
        }
        let merged = known.iter().zip(sums).map(|(known, sum)| if *known == 0 { sum } else { known });
        let slots: Vec<u8> = merged.flat_map(|sum| sum.to_le_bytes()).collect();
        files.record.write_all_at(&slots, self.slot_at(range.start))
    }

    /// The files, if they are there and good.
    pub(super) fn files(&self) -> io::Result<Option<Arc<Files>>> {
        if let Some(files) = &self.open().files {
            return Ok(Some(files.clone()));
        }
        let seen = match self.see()? {
            Seen::Nothing => return Ok(None),
            Seen::Good(files) => files,
            Seen::Bad => {
                // It may be half made: with the turn it is not.
                let turn = self.disk.room.turn()?;
                match self.see()? {
                    Seen::Good(files) => files,
                    Seen::Nothing => return Ok(None),
                    Seen::Bad => return self.drop_damaged(&turn).map(|()| None),
                }
            }
        };
        Ok(Some(self.open_with(seen)))
    }

    /// The files, made when they are not there, and the bytes that they are counted with.
    fn files_to_fill(&self, turn: &Turn<'_>) -> io::Result<(Arc<Files>, u64)> {
        if let Some(files) = self.open().files.clone()
            && !files.are_gone()?
        {
            let before = files.bytes_on_disk()?;
            return Ok((files, before));
        }
        match self.see()? {
            Seen::Good(files) => {
                let before = files.bytes_on_disk()?;
                return Ok((self.open_with(files), before));
            }
            Seen::Bad => self.drop_damaged(turn)?,
            // Data without a record is of nobody.
            Seen::Nothing => turn.remove(&self.name).map(drop)?,
        }
        turn.make_shard(&self.name)?;
        let made = self.make_files();
        if made.is_err() {
            turn.remove(&self.name)?;
        }
        Ok((self.open_with(made?), 0))
    }

    fn make_files(&self) -> io::Result<Files> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let data = options.open(self.disk.room.data_path(&self.name))?;
        data.set_len(self.size)?;
        Ok(Files { data, record: self.make_record()? })
    }

    pub(super) fn make_record(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let record = options.open(self.disk.room.record_path(&self.name))?;
        record.write_all_at(&self.header, 0)?;
        Ok(record)
    }

    pub(super) fn see(&self) -> io::Result<Seen> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let record = match options.open(self.disk.room.record_path(&self.name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Seen::Nothing),
            opened => opened?,
        };
        let data = match options.open(self.disk.room.data_path(&self.name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Seen::Bad),
            opened => opened?,
        };
        let header = read_up_to(&record, ByteRange::at(0, self.header.len() as u64))?;
        let good = header == self.header && data.metadata()?.len() == self.size;
        Ok(if good { Seen::Good(Files { data, record }) } else { Seen::Bad })
    }

    /// The checksums of the blocks that `range` touches; 0 for one that is not here.
    pub(super) fn slots(&self, files: &Files, range: ByteRange) -> io::Result<Vec<u64>> {
        let count = range.end.div_ceil(BLOCK) - range.start / BLOCK;
        let mut bytes = read_up_to(&files.record, ByteRange::at(self.slot_at(range.start), count * 8))?;
        // What was never written is not here.
        bytes.resize(count as usize * 8, 0);
        Ok(bytes.chunks_exact(8).map(|slot| slot.try_into().map_or(0, u64::from_le_bytes)).collect())
    }

    pub(super) fn slot_at(&self, offset: u64) -> u64 {
        self.header.len() as u64 + offset / BLOCK * 8
    }

    pub(super) fn blocks(&self, first: u64, count: u64) -> ByteRange {
        ByteRange::at(first * BLOCK, count * BLOCK).intersect(ByteRange::new(0, self.size))
    }

    /// Notes that it is used, for those who look for what to remove.
    pub(super) fn touch(&self, files: &Arc<Files>) {
        {
            let mut open = self.open();
            if open.touched.is_some_and(|when| when.elapsed() < TOUCH) {
                return;
            }
            open.touched = Some(Instant::now());
        }
        let touched = files.record.set_times(FileTimes::new().set_modified(SystemTime::now()));
        if touched.is_err() || files.are_gone().unwrap_or(true) {
            // Another process removed it: what stays open takes room.
            self.open().files = None;
        }
    }

    fn open_with(&self, files: Files) -> Arc<Files> {
        let files = Arc::new(files);
        *self.open() = Open { files: Some(files.clone()), touched: None };
        files
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        // Nothing panics while it is held.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the next blocks are that are worth ending a request for: many, or all that are left.
fn next_worthwhile(sums: &[u64], range: ByteRange) -> u64 {
    let first = range.start / BLOCK;
    let (mut run, mut at) = (0, 0);
    for sum in sums {
        run = if *sum == 0 { 0 } else { run + 1 };
        at += 1;
        if run == WORTH || (run > 0 && at == sums.len() as u64) {
            return ((first + at - run) * BLOCK).clamp(range.start, range.end);
        }
    }
    range.end
}

/// How many of the blocks in `bytes` fit their checksums, up to the first that does not.
pub(super) fn count_good(bytes: &[u8], sums: &[u64], blocks: ByteRange) -> u64 {
    if bytes.len() as u64 != blocks.len() {
        return 0;
    }
    bytes.chunks(BLOCK as usize).zip(sums).take_while(|(block, sum)| checksum(block) == **sum).count() as u64
}

pub(super) fn checksum(block: &[u8]) -> u64 {
    // Zero says that a block is not here.
    crc_fast::crc64_nvme(block).max(1)
}

/// The checksum of each block of what `pieces` make together.
fn checksums(pieces: &[Bytes]) -> Vec<u64> {
    let new = || crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    let (mut sums, mut digest, mut filled) = (Vec::new(), new(), 0);
    for piece in pieces {
        let mut rest = piece.as_ref();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min((BLOCK - filled) as usize));
            digest.update(part);
            filled += part.len() as u64;
            rest = after;
            if filled == BLOCK {
                sums.push(std::mem::replace(&mut digest, new()).finalize().max(1));
                filled = 0;
            }
        }
    }
    if filled > 0 {
        sums.push(digest.finalize().max(1));
    }
    sums
}

/// The bytes of `range`, fewer where the file ends.
pub(super) fn read_up_to(file: &File, range: ByteRange) -> io::Result<Vec<u8>> {
    let len = usize::try_from(range.len()).unwrap_or_default();
    let mut bytes: Vec<u8> = Vec::with_capacity(len);
    while bytes.len() < len {
        let at = range.start + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    bytes.truncate(len);
    Ok(bytes)
}
