//! Room that is reserved in a staged file, and holes that are made in it: fallocate(2).
//!
//! Owns what of it takes bytes of the account and what gives them back. Map and mutex are `file`'s.

use rustix::fs::FallocateFlags;

use super::file::{StagedFile, State, checked_range};
use crate::error::{Error, Result};
use crate::types::ByteRange;

impl StagedFile {
    /// Reserves disk space for `range`; without `keep_size` the file grows to its end. Content stays as it is.
    /// A file system that can't reserve is no error.
    ///
    /// # Errors
    /// `StageFull`, `FileTooLarge`, `NotChangeableYet`, `InvalidArgument` for an empty range.
    pub fn allocate(&self, range: ByteRange, keep_size: bool) -> Result<()> {
        let range = nonempty(range)?;
        let mut state = self.state();
        state.refuse_away(range)?;
        let room = self.session.space.take(state.held.lacks(range))?;
        self.reserve(&state, range)?;
        room.keep(state.held.add(range));
        if !keep_size && range.end > state.size {
            self.set_len(range.end)?;
            self.resized(&mut state, range.end);
        }
        Ok(())
    }

    /// Makes a hole: the bytes of `range` within the file read as zeros, the size stays.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty range, `NotChangeableYet`, else what the local file system gives.
    pub fn punch(&self, range: ByteRange) -> Result<()> {
        let mut state = self.state();
        let range = nonempty(range)?.intersect(state.extent());
        state.refuse_away(range)?;
        if self.erase(&mut state, range)? {
            state.held.release(range);
        }
        Ok(())
    }

    /// Zeros the bytes of `range`, with disk space reserved for them; without `keep_size` the file grows to its end.
    ///
    /// # Errors
    /// As [`StagedFile::allocate`].
    pub fn zero(&self, range: ByteRange, keep_size: bool) -> Result<()> {
        let range = nonempty(range)?;
        let mut state = self.state();
        state.refuse_away(range)?;
        let room = self.session.space.take(state.held.lacks(range))?;
        self.reserve(&state, range)?;
        // Noted now, so that nobody else takes the room that is a hole for a moment.
        room.keep(state.held.add(range));
        let old = range.intersect(state.extent());
        let is_hole = self.erase(&mut state, old)?;
        if let Err(err) = self.reserve(&state, range) {
            if is_hole {
                // A part of it may have been reserved.
                _ = self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, old);
                state.held.release(old);
            }
            return Err(err);
        }
        if !keep_size && range.end > state.size {
            self.set_len(range.end)?;
            self.resized(&mut state, range.end);
        }
        Ok(())
    }

    /// Never changes the size: fallocate may extend the file by a part and then fail.
    fn reserve(&self, state: &State, range: ByteRange) -> Result<()> {
        match self.fallocate(FallocateFlags::KEEP_SIZE, range) {
            Err(err) if err.kind() == std::io::ErrorKind::Unsupported => Ok(()),
            Err(err) => {
                // It may have reserved a part, where nothing was: a full disk is not to stay full for nothing.
                for gap in state.held.gaps(range) {
                    _ = self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, gap);
                }
                Err(Error::local("reserving space for a staged file", err))
            }
            Ok(()) => Ok(()),
        }
    }

    /// True when `range` is a hole now; on a file system without holes it is zeros that take room.
    fn erase(&self, state: &mut State, range: ByteRange) -> Result<bool> {
        if range.is_empty() {
            return Ok(true);
        }
        let is_hole = match self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range) {
            Err(err) if err.kind() == std::io::ErrorKind::Unsupported => {
                let room = self.session.space.take(state.held.lacks(range))?;
                self.write_zeros(range)?;
                room.keep(state.held.add(range));
                false
            }
            other => other.map(|()| true).map_err(|err| Error::local("zeroing a staged file", err))?,
        };
        state.wrote(range);
        Ok(is_hole)
    }

    fn write_zeros(&self, range: ByteRange) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = range.start;
        while at < range.end {
            let count = (range.end - at).min(ZEROS.len() as u64);
            self.write_all(at, &ZEROS[..count as usize]).1?;
            at += count;
        }
        Ok(())
    }
}

fn nonempty(range: ByteRange) -> Result<ByteRange> {
    if range.is_empty() {
        Err(Error::InvalidArgument("an empty range"))
    } else {
        checked_range(range.start, range.len())
    }
}
