//! Parts of a staged file whose bytes are only in a multipart upload that is not complete: the disk has given them up.
//!
//! Owns which parts these are, and the order in which journal, map and disk learn of it: a record that does not name such a part
//! would pass a hole off as zeros, and one that names a part that was changed since would pass old bytes off as new ones. So the
//! record comes before the hole, and is changed before new bytes are taken. What an upload is, only `transfer` knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};

use super::file::{StagedFile, State};
use super::journal::in_record;
use super::record;
use super::space::UnderWay;
use crate::error::{Error, Result};
use crate::types::{ByteRange, ETag};

/// Bytes that stay beside those that were changed: the least of a part.
const BESIDE: u64 = 5 << 20;
/// A hole smaller than this is not made.
const WORTH_IT: u64 = 1 << 20;

/// A part whose bytes are only in the upload. What S3 has said of it is all that completes the upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwayPart {
    /// Its place in the upload, counted from 0.
    pub index: u64,
    /// Its bytes in the file.
    pub range: ByteRange,
    /// Their CRC-64/NVME.
    pub crc: u64,
    /// Its ETag.
    pub etag: ETag,
    /// The checksum that S3 wants to be told at the end, if it does.
    pub checksum: Option<String>,
}

/// An [`AwayPart`] as the record keeps it.
#[derive(Serialize, Deserialize)]
pub(super) struct AwayLine {
    index: u64,
    start: u64,
    end: u64,
    crc: u64,
    etag: String,
    checksum: Option<String>,
}

impl AwayLine {
    pub fn new(part: &AwayPart) -> Self {
        let AwayPart { index, range, crc, etag, checksum } = part.clone();
        AwayLine { index, start: range.start, end: range.end, crc, etag: etag.as_str().to_owned(), checksum }
    }

    /// `None` for a range that can't be.
    pub fn part(&self) -> Option<AwayPart> {
        let AwayLine { index, start, end, crc, etag, checksum } = self;
        let range = (start < end).then(|| ByteRange::new(*start, *end))?;
        Some(AwayPart { index: *index, range, crc: *crc, etag: ETag::parse(etag), checksum: checksum.clone() })
    }
}

/// The parts of one file that are away.
#[derive(Debug, Default)]
pub(super) struct Away {
    /// By where they begin.
    parts: BTreeMap<u64, AwayPart>,
    /// Grows with every part that goes: who reads a file while it does looks again.
    pub gone: u64,
    /// True while an upload has bytes of the file that are nowhere else.
    needs_upload: Arc<AtomicBool>,
}

impl Away {
    pub fn of(parts: &[AwayPart]) -> Self {
        let parts: BTreeMap<u64, AwayPart> = parts.iter().map(|part| (part.range.start, part.clone())).collect();
        Away { gone: parts.len() as u64, parts, needs_upload: Arc::default() }
    }

    /// What was away is a part of the object: it is missing here like any of its bytes.
    pub fn settle(&mut self) {
        self.parts.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn list(&self) -> Vec<AwayPart> {
        self.parts.values().cloned().collect()
    }

    pub fn overlaps(&self, range: ByteRange) -> bool {
        // They lie apart: only the last one that begins before the end of the range can reach into it.
        let last = self.parts.range(..range.end).next_back();
        last.is_some_and(|(_, part)| !part.range.intersect(range).is_empty())
    }

    /// Those of `gaps` that are not away.
    pub fn besides(&self, gaps: Vec<ByteRange>) -> Vec<ByteRange> {
        if gaps.is_empty() || self.is_empty() {
            return gaps;
        }
        let mut rest: super::RangeMap = gaps.into_iter().collect();
        self.parts.values().for_each(|part| rest.remove(part.range));
        rest.iter().collect()
    }
}

impl State {
    /// The stretches that are here as they are in the base version, without what lies beside changed bytes.
    fn can_go(&self, base_size: u64) -> Vec<ByteRange> {
        let unchanged = self.dirty.missing(ByteRange::new(0, base_size.min(self.size)));
        let apart = unchanged.into_iter().filter_map(|range| {
            let start = if range.start == 0 { 0 } else { range.start + BESIDE };
            let end = range.end.saturating_sub(BESIDE);
            (start < end).then(|| ByteRange::new(start, end))
        });
        apart.flat_map(|range| self.present.within(range)).filter(|range| range.len() >= WORTH_IT).collect()
    }

    /// # Errors
    /// `NotChangeableYet` where bytes of `range` are away: a part of which only some bytes are known can't go up again.
    pub(super) fn refuse_away(&self, range: ByteRange) -> Result<()> {
        if self.away.overlaps(range) { Err(Error::NotChangeableYet) } else { Ok(()) }
    }

    /// # Errors
    /// As above, for a file that is cut in the middle of a part that is away.
    pub(super) fn refuse_cut(&self, size: u64) -> Result<()> {
        let last = self.away.parts.range(..size).next_back();
        if last.is_some_and(|(_, part)| size < part.range.end) { Err(Error::NotChangeableYet) } else { Ok(()) }
    }

    /// # Errors
    /// `NotReadableYet` or `PartsLost` where a reader would get zeros in the place of bytes that the disk has given up.
    pub(super) fn refuse_unreadable(&self, range: ByteRange) -> Result<()> {
        match () {
            () if self.away.gone == 0 || self.present.contains(range) => Ok(()),
            () if self.upload.is_none() && self.away.overlaps(range) => Err(Error::PartsLost),
            () => Err(Error::NotReadableYet),
        }
    }

    /// To be called after every change of what is away, and of the upload.
    pub(super) fn note_need(&self) {
        self.away.needs_upload.store(!self.away.is_empty() && self.upload.is_some(), Ordering::SeqCst);
    }
}

impl StagedFile {
    /// The parts whose bytes are only in the upload, by place.
    pub fn away(&self) -> Vec<AwayPart> {
        self.state().away.list()
    }

    /// True when there are such parts.
    pub fn has_away(&self) -> bool {
        !self.state().away.is_empty()
    }

    /// True when there are such parts, and the upload is gone: no byte of them is anywhere.
    pub fn has_lost(&self) -> bool {
        let state = self.state();
        !state.away.is_empty() && state.upload.is_none()
    }

    /// True while the upload that the record names has bytes of this file that are nowhere else: it must not be aborted.
    pub fn needs_upload(&self) -> Arc<AtomicBool> {
        self.state().away.needs_upload.clone()
    }

    /// Something begins that makes it possible to give bytes back. Who waits for room waits for it.
    pub fn under_way(&self) -> UnderWay {
        self.session.space.under_way()
    }

    /// True when all of a range was written or reserved here, and has not left: no byte of it is a hole.
    pub fn is_on_disk(&self, range: ByteRange) -> bool {
        self.state().held.lacks(range) == 0
    }

    /// Keeps some room of the disk for the record of parts that have to leave it once it is full. Where there is none any more, that
    /// has to do without.
    pub fn keep_spare(&self) {
        self.session.keep_spare();
    }

    /// The bytes that the last writes have written one after the other.
    pub fn run(&self) -> ByteRange {
        self.state().run
    }

    /// Notes that a part is away from now on, in the record first. False for one that has changed since it was sent, or is away
    /// already. [`StagedFile::let_go_of`] then frees its place.
    ///
    /// # Errors
    /// As [`StagedFile::record`]; it is then as before.
    pub fn send_away(&self, part: &AwayPart) -> Result<bool> {
        let mut state = self.state();
        let range = part.range;
        let is_up = !range.is_empty() && state.sent.contains(range) && state.present.contains(range);
        if !is_up || range.end > state.size || state.upload.is_none() {
            return Ok(false);
        }
        state.away.parts.insert(range.start, part.clone());
        if let Err(error) = self.session.with_spare(|| self.write_away(&state)) {
            state.away.parts.remove(&range.start);
            return Err(error);
        }
        state.away.gone += 1;
        state.present.remove(range);
        state.note_need();
        Ok(true)
    }

    /// Frees the place of a part that [`StagedFile::send_away`] has noted, and gives its bytes: 0 where the disk can't do that,
    /// and when it was cut off meanwhile. Blocks: the record gets to the disk first, so that a loss of power finds no hole that
    /// it does not name.
    pub fn let_go_of(&self, part: &AwayPart) -> u64 {
        let synced = record::sync(&self.record_path);
        let mut state = self.state();
        if state.away.parts.get(&part.range.start) != Some(part) {
            return 0;
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match synced.and_then(|()| self.fallocate(flags, part.range)) {
            Ok(()) => {
                let held = state.held.lacks(part.range);
                state.held.release(part.range);
                self.session.keep_spare();
                part.range.len() - held
            }
            Err(error) => {
                tracing::debug!(%error, file = %self.data_path.display(), "a staged file can't give bytes back");
                // A hole is made whole or not at all, so the bytes are still here.
                state.away.parts.remove(&part.range.start);
                state.present.insert(part.range);
                state.note_need();
                self.rewrite_away(&state);
                0
            }
        }
    }

    /// Bytes that are the same as in the base version, of `base_size` bytes, are missing here from now on, in the record first, and
    /// their place is freed: the bytes that this gives. Those right beside what was changed stay: a commit may want them for
    /// a part. Blocks, as [`StagedFile::let_go_of`] does.
    ///
    /// # Errors
    /// As [`StagedFile::record`]; it is then as before.
    pub fn let_go_of_unchanged(&self, base_size: u64) -> Result<u64> {
        let mut state = self.state();
        let gone = state.can_go(base_size);
        if gone.is_empty() {
            return Ok(0);
        }
        self.session.with_spare(|| record::note_gone(&self.record_path, &gone))?;
        state.away.gone += 1;
        gone.iter().for_each(|range| state.present.remove(*range));
        drop(state);
        let synced = record::sync(&self.record_path);
        let mut state = self.state();
        let mut freed = 0;
        for range in gone {
            // What was written meanwhile stays.
            for range in state.present.missing(range.intersect(state.extent())) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                if synced.is_ok() && self.fallocate(flags, range).is_ok() {
                    freed += range.len() - state.held.lacks(range);
                    state.held.release(range);
                } else {
                    // A hole is made whole or not at all, so the bytes are still here.
                    state.present.insert(range);
                }
            }
        }
        self.session.keep_spare();
        Ok(freed)
    }

    /// Parts beyond the end of a file that was cut are not away any more, but gone.
    pub(super) fn cut_away(&self, state: &mut State) {
        if state.away.parts.last_key_value().is_none_or(|(_, part)| part.range.end <= state.size) {
            return;
        }
        let size = state.size;
        state.away.parts.retain(|_, part| part.range.end <= size);
        state.note_need();
        self.rewrite_away(state);
    }

    /// A record that can't be changed goes: it would name parts that are not what the file holds.
    fn rewrite_away(&self, state: &State) {
        if let Err(error) = self.write_away(state) {
            tracing::warn!(%error, file = %self.data_path.display(), "the journal record of a file is removed: it can't be changed");
            self.session.remove(&self.record_path);
        }
    }

    fn write_away(&self, state: &State) -> Result<()> {
        let (upload_id, upload_mark) = in_record(state.upload.as_ref());
        record::change(&self.record_path, |record| {
            (record.upload_id, record.upload_mark) = (upload_id, upload_mark);
            record.away = state.away.list();
        })
    }
}
