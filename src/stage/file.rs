//! One staged file: sparse, with a map of which bytes are here and which are dirty.
//!
//! Owns the local data file and that map. One mutex covers the map *and* the local write that changes it:
//! `fill_at` (base bytes arriving from afar) decides by the map what it may write, so a `write_at` between
//! that decision and the write would be overwritten by older bytes. Reads take the mutex only to learn the
//! size. The data file's length is the file's size, so bytes beyond it are never seen again; it is shorter only while the file's
//! last bytes are elsewhere.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::away::Away;
use super::beside::Companion;
use super::journal::NotedUpload;
use super::ranges::RangeMap;
use super::session::Session;
use super::space::{Held, Reserved, UnderWay};
use crate::error::{Error, Result};
use crate::types::ByteRange;

/// Largest file size of Linux (`loff_t`).
const SIZE_MAX: u64 = i64::MAX as u64;

/// A file's bytes on the local disk. Removed with its record when dropped, unless [`StagedFile::keep`] was called.
#[derive(Debug)]
pub struct StagedFile {
    pub(super) file: Arc<File>,
    /// Keeps the session's lock held, and its directory in place, as long as the file lives.
    pub(super) session: Arc<Session>,

    pub(super) data_path: PathBuf,
    pub(super) record_path: PathBuf,

    pub(super) kept: AtomicBool,
    /// What `transfer` keeps with the file: it goes when the file goes.
    pub(super) companion: Mutex<Option<Companion>>,
    /// Last, so that its bytes are given back when the data file is removed and closed.
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) size: u64,
    /// Bytes that are here; what is missing has to come from the base version.
    pub(super) present: RangeMap,
    /// Bytes that differ from the base version.
    pub(super) dirty: RangeMap,
    /// Bytes that were handed to an upload and are the same since.
    pub(super) sent: RangeMap,
    /// Where the last writes followed each other.
    pub(super) run: ByteRange,
    /// The multipart upload of this file that may be in the store.
    pub(super) upload: Option<NotedUpload>,
    /// Parts whose bytes are only in that upload. They are dirty and sent, and neither here nor missing.
    pub(super) away: Away,
    /// Something changed, perhaps only the size, since it was clean.
    pub(super) changed: bool,
    /// When it was made, was cleaned, or was first changed after that.
    pub(super) since: Instant,
    /// Counts changes.
    pub(super) generation: u64,
    /// The data is on the disk as it was after this change, whatever becomes of the machine.
    pub(super) synced: Option<u64>,
    /// The bytes that take room on the disk: those that were written or reserved, and no hole.
    pub(super) held: Held,
    /// Held by a file that nobody uses any more.
    leaving: Option<UnderWay>,
}

impl State {
    pub(super) fn new(session: &Session, size: u64) -> Self {
        State {
            size,
            present: RangeMap::new(),
            dirty: RangeMap::new(),
            sent: RangeMap::new(),
            run: ByteRange::new(0, 0),
            upload: None,
            away: Away::default(),
            changed: false,
            since: Instant::now(),
            generation: 0,
            synced: None,
            held: Held::new(&session.space),
            leaving: None,
        }
    }

    pub(super) fn extent(&self) -> ByteRange {
        ByteRange::new(0, self.size)
    }

    fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        self.away.besides(self.present.missing(range))
    }

    pub(super) fn wrote(&mut self, range: ByteRange) {
        self.present.insert(range);
        self.dirty.insert(range);
        self.sent.remove(range);
        self.touch();
    }

    fn touch(&mut self) {
        if !std::mem::replace(&mut self.changed, true) {
            self.since = Instant::now();
        }
        self.generation += 1;
    }
}

impl StagedFile {
    /// A file over a base of `base_size` bytes, all of them missing.
    pub(super) fn create(session: Arc<Session>, base_size: u64) -> Result<Self> {
        let (file, data_path, record_path) = session.new_data_file()?;
        let state = State::new(&session, base_size);
        let staged = StagedFile {
            file: Arc::new(file),
            session,
            data_path,
            record_path,
            kept: AtomicBool::new(false),
            companion: Mutex::default(),
            state: Mutex::new(state),
        };
        staged.set_len(base_size)?;
        Ok(staged)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.state().size
    }

    /// Up to `len` bytes from `offset`, fewer at the end of the file. The caller has made sure that they are here:
    /// missing ones read as zeros, but those that the disk has given up are never read so.
    ///
    /// # Errors
    /// `NotReadableYet` or `PartsLost` for bytes that are away; what pread(2) gives.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        loop {
            let (len, gone) = {
                let state = self.state();
                let range = ByteRange::at(offset, len as u64).intersect(state.extent());
                state.refuse_unreadable(range)?;
                (range.len() as usize, state.away.gone)
            };
            if len == 0 {
                return Ok(Bytes::new());
            }
            let bytes = self.pread(offset, len)?;
            // What went away meanwhile may have been read as zeros.
            if self.state().away.gone == gone {
                return Ok(bytes);
            }
        }
    }

    fn pread(&self, offset: u64, len: usize) -> Result<Bytes> {
        let mut bytes: Vec<u8> = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&*self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(Error::local("reading a staged file", err.into())),
            }
        }
        // The allocator may have given more room than was asked for.
        bytes.truncate(len);
        Ok(bytes.into())
    }

    /// Writes bytes of a program. A gap between the old end and `offset` reads as zeros. Returns the bytes that this write
    /// and those right before it have written one after the other.
    ///
    /// # Errors
    /// `StageFull` when the disk is full, or the stage as full as it may be; `FileTooLarge` past what Linux allows; `NotChangeableYet`.
    /// The size is then as before, and nothing that was missing counts as here.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<ByteRange> {
        if data.is_empty() {
            return Ok(ByteRange::new(offset, offset));
        }
        let range = checked_range(offset, data.len() as u64)?;
        let mut state = self.state();
        state.refuse_away(range)?;
        let room = self.session.space.take(state.held.lacks(range))?;
        let (written, result) = self.write_all(offset, data);
        if let Err(err) = result {
            // What was here and was overwritten has changed, whatever the caller is told.
            let mut new = 0;
            for changed in state.present.within(ByteRange::at(offset, written)) {
                state.wrote(changed);
                new += state.held.add(changed);
            }
            room.keep(new);
            if range.end > state.size {
                self.set_len(state.size)?;
                let size = state.size;
                state.held.release(ByteRange::new(size, u64::MAX));
            }
            self.give_back(&mut state, ByteRange::at(offset, written));
            return Err(err);
        }
        room.keep(state.held.add(range));
        // From the old end on, when that lies before: the gap is zeros, and as new as the bytes after it.
        let from = range.start.min(state.size);
        state.size = state.size.max(range.end);
        state.wrote(ByteRange::new(from, range.end));
        let start = if range.start == state.run.end { state.run.start } else { range.start };
        state.run = ByteRange::new(start, range.end);
        Ok(state.run)
    }

    /// Writes bytes of the base version, only where they are still missing. They count, and may go over the limits: without
    /// them the file could not be stored.
    ///
    /// # Errors
    /// `StageFull` when the disk is full, and what pwrite(2) gives; what could not be written stays missing.
    pub fn fill_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.fill(offset, data, |bytes| Ok(self.session.space.take_regardless(bytes)))
    }

    /// As [`StagedFile::fill_at`], within the limits.
    ///
    /// # Errors
    /// As there, and `StageFull` when the stage is as full as it may be.
    pub fn fill_if_room(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.fill(offset, data, |bytes| self.session.space.take(bytes))
    }

    fn fill<'a>(&'a self, offset: u64, data: &[u8], take: impl Fn(u64) -> Result<Reserved<'a>>) -> Result<()> {
        let mut state = self.state();
        let range = ByteRange::at(offset, data.len() as u64).intersect(state.extent());
        for gap in state.missing(range) {
            let room = take(state.held.lacks(gap))?;
            let (from, to) = ((gap.start - offset) as usize, (gap.end - offset) as usize);
            let (written, result) = self.write_all(gap.start, &data[from..to]);
            result.inspect_err(|_| self.give_back(&mut state, ByteRange::at(gap.start, written)))?;
            room.keep(state.held.add(gap));
            state.present.insert(gap);
            state.synced = None;
        }
        Ok(())
    }

    /// Cuts or extends the file. New bytes are zeros; cut ones never come back.
    ///
    /// # Errors
    /// `FileTooLarge` past what Linux allows, `NotChangeableYet`, else what ftruncate(2) gives.
    pub fn set_size(&self, size: u64) -> Result<()> {
        checked_range(0, size)?;
        let mut state = self.state();
        if size == state.size {
            return Ok(());
        }
        state.refuse_cut(size)?;
        self.set_len(size)?;
        self.resized(&mut state, size);
        self.cut_away(&mut state);
        Ok(())
    }

    /// The file has `size` bytes now, and those past its end are in no base version and not here: who calls this knows where to read
    /// them. Until [`StagedFile::clean`] the data file stays as short as it was, so that nobody who finds it takes its holes for
    /// bytes.
    ///
    /// # Errors
    /// `FileTooLarge` past what Linux allows.
    pub fn grow_elsewhere(&self, size: u64) -> Result<()> {
        checked_range(0, size)?;
        let mut state = self.state();
        state.size = state.size.max(size);
        state.touch();
        Ok(())
    }

    /// The parts of `range` (cut at the end of the file) that have to come from the base version.
    pub fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let state = self.state();
        state.missing(range.intersect(state.extent()))
    }

    /// The unbroken run of bytes that are here and end right before `offset`, in bytes.
    pub fn present_before(&self, offset: u64) -> u64 {
        let run = offset.checked_sub(1).and_then(|last| self.state().present.run_at(last));
        run.map_or(0, |run| offset - run.start)
    }

    /// True when every byte is here.
    pub fn is_complete(&self) -> bool {
        let state = self.state();
        state.present.contains(state.extent())
    }

    /// True after a change of bytes or size, until [`StagedFile::clean`].
    pub fn dirty(&self) -> bool {
        self.state().changed
    }

    /// For how long it may have been other than what is safe elsewhere, if it is.
    pub fn age(&self) -> Duration {
        self.state().since.elapsed()
    }

    /// The bytes that were changed since the file was clean.
    pub fn dirty_ranges(&self) -> Vec<ByteRange> {
        self.state().dirty.iter().collect()
    }

    /// Bytes that may be filled in or written now, in this file and all others.
    pub fn room(&self) -> u64 {
        self.session.space.room()
    }

    /// Nobody uses the file any more, so that its bytes are given back soon: who waits for room waits for that.
    pub fn leave(&self) {
        self.state().leaving = Some(self.session.space.under_way());
    }

    /// Counts changes of bytes and size; equal numbers mean nothing changed in between.
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// The data file, open for reading and writing. Do not write through it: the map would not know.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Where the data is, for messages.
    pub fn path(&self) -> &Path {
        &self.data_path
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the guard panics; were it otherwise, the map is still a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes it all, and tells how much of it was written when that fails.
    pub(super) fn write_all(&self, offset: u64, data: &[u8]) -> (u64, Result<()>) {
        let mut written = 0;
        while written < data.len() {
            match self.file.write_at(&data[written..], offset + written as u64) {
                Ok(0) => return (written as u64, Err(Error::local("writing a staged file", no_progress()))),
                Ok(count) => written += count,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return (written as u64, Err(Error::local("writing a staged file", err))),
            }
        }
        (written as u64, Ok(()))
    }

    /// Frees what a failed write took where bytes are still missing, so that a full disk does not stay full for
    /// nothing. Where that can't be done nothing is wrong: missing bytes are written again when they come.
    fn give_back(&self, state: &mut State, written: ByteRange) {
        for gap in state.present.missing(written.intersect(state.extent())) {
            _ = self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, gap);
            state.held.release(gap);
        }
    }

    pub(super) fn set_len(&self, size: u64) -> Result<()> {
        self.file.set_len(size).map_err(|err| Error::local("resizing a staged file", err))
    }

    pub(super) fn resized(&self, state: &mut State, size: u64) {
        let old = std::mem::replace(&mut state.size, size);
        if size < old {
            state.present.truncate(size);
            state.dirty.truncate(size);
            state.sent.truncate(size);
            state.held.release(ByteRange::new(size, u64::MAX));
            state.touch();
        } else {
            state.wrote(ByteRange::new(old, size));
        }
    }

    pub(super) fn fallocate(&self, flags: FallocateFlags, range: ByteRange) -> std::io::Result<()> {
        loop {
            match rustix::fs::fallocate(&*self.file, flags, range.start, range.len()) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            self.state().held.leave();
        } else {
            self.session.remove_data_file(&self.data_path, &self.record_path);
        }
    }
}

pub(super) fn checked_range(offset: u64, len: u64) -> Result<ByteRange> {
    match offset.checked_add(len) {
        Some(end) if end <= SIZE_MAX => Ok(ByteRange::new(offset, end)),
        _ => Err(Error::FileTooLarge),
    }
}

fn no_progress() -> std::io::Error {
    std::io::ErrorKind::WriteZero.into()
}
