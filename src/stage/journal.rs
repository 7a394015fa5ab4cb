//! A staged file and its journal record: written, changed, removed, and found again by the next process.
//!
//! Owns the order of the two on the disk. Records of one file are written one after the other, under the file's mutex.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::away::{Away, AwayPart};
use super::file::{StagedFile, State};
use super::record::{self, Record};
use super::session::Session;
use crate::error::{Error, Result};
use crate::types::{ByteRange, Expect, ObjectKey, UploadId, Version};

/// A multipart upload of a staged file, as its record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedUpload {
    /// Its id.
    pub id: UploadId,
    /// What it makes ([`RecordAttributes::mark`](super::RecordAttributes::mark)), if its parts are bytes of the file.
    pub mark: Option<u64>,
}

impl StagedFile {
    /// Over the data that a dead session left, of which `present` is here. It may differ from the base version everywhere.
    /// Data and record stay when it is dropped, until it is clean. `upload` is the one that the record names, and `away` what is
    /// only there.
    pub(super) fn adopt(
        session: Arc<Session>,
        data_path: &Path,
        present: &[ByteRange],
        upload: Option<NotedUpload>,
        away: &[AwayPart],
    ) -> Result<Self> {
        let failed = |err| Error::local("opening a staged file", err);
        let file = OpenOptions::new().read(true).write(true).open(data_path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut state = State::new(&session, size);
        state.changed = true;
        state.upload = upload;
        for range in present {
            let range = range.intersect(ByteRange::new(0, size));
            state.wrote(range);
            let new = state.held.add(range);
            // They are there: no limit keeps them from being stored.
            session.space.take_regardless(new).keep(new);
        }
        state.away = Away::of(away);
        for part in away {
            state.dirty.insert(part.range);
            state.sent.insert(part.range);
        }
        state.note_need();
        Ok(StagedFile {
            file: Arc::new(file),
            session,
            data_path: data_path.to_owned(),
            record_path: data_path.with_extension("json"),
            kept: AtomicBool::new(true),
            companion: Mutex::default(),
            state: Mutex::new(state),
        })
    }

    /// Brings data and record to the disk, so that they survive a loss of power. The end of this process they survive
    /// without.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn fsync(&self) -> Result<()> {
        let failed = |err| Error::local("syncing a staged file", err);
        let (generation, present) = {
            let state = self.state();
            (state.generation, state.present.iter().collect::<Vec<ByteRange>>())
        };
        self.file.sync_data().map_err(failed)?;
        {
            let mut state = self.state();
            // What came since may not be on the disk.
            if state.generation == generation {
                state.synced = state.present.iter().eq(present.iter().copied()).then_some(generation);
                record::note_synced(&self.record_path, state.size, &present)?;
            }
        }
        record::sync(&self.record_path).map_err(failed)
    }

    /// Writes the journal record of this file, in one step: a reader finds the old one or the new one. When it gets to
    /// the disk is left to the system, or to [`StagedFile::fsync`]. It must be written before the first byte is: data
    /// without a record counts as clean. It names the upload of
    /// [`StagedFile::note_upload`] and what is only there.
    ///
    /// # Errors
    /// `StageFull` and what the local file system gives.
    pub fn record(&self, record: &Record) -> Result<()> {
        let state = self.state();
        let present: Vec<ByteRange> = state.present.iter().collect();
        let (upload_id, upload_mark) = in_record(state.upload.as_ref());
        let record = Record { upload_id, upload_mark, away: state.away.list(), ..record.clone() };
        record::save(&self.record_path, &record, &present, state.synced == Some(state.generation))
    }

    /// A multipart upload of this file was begun, or has ended: whoever finds the record, if there is one, knows of it.
    ///
    /// # Errors
    /// As [`StagedFile::record`].
    pub fn note_upload(&self, upload: Option<NotedUpload>) -> Result<()> {
        let mut state = self.state();
        if state.upload == upload {
            return Ok(());
        }
        state.upload = upload;
        state.note_need();
        if state.upload.is_some() {
            // Parts may have to leave a disk that is full, and the record must say so before.
            self.session.keep_spare();
        }
        let noted = in_record(state.upload.as_ref());
        record::change(&self.record_path, |record| (record.upload_id, record.upload_mark) = noted)
    }

    /// The multipart upload of this file that may be in the store.
    pub fn upload(&self) -> Option<UploadId> {
        self.state().upload.as_ref().map(|upload| upload.id.clone())
    }

    /// Notes in the record, if there is one, that the file belongs elsewhere now.
    ///
    /// # Errors
    /// As [`StagedFile::record`].
    pub fn moved(&self, key: &ObjectKey, base: Option<&Version>, expect: &Expect) -> Result<()> {
        let _one_at_a_time = self.state();
        record::change(&self.record_path, |record| {
            record.key = key.clone();
            record.base = base.cloned();
            record.expect = expect.clone();
        })
    }

    /// Leaves data and record on the disk when this is dropped.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Notes that all of it is safe elsewhere: nothing is dirty. Its record goes, so that nobody takes the file for lost
    /// work if this process is killed; it needs a new one before it is changed again.
    pub fn clean(&self) {
        let mut state = self.state();
        // Bytes that were never here are holes from now on, in front of the version that has them.
        if !state.present.contains(state.extent())
            && let Err(error) = self.set_len(state.size)
        {
            tracing::warn!(file = %self.data_path.display(), %error, "a staged file is shorter than its object");
        }
        state.dirty.clear();
        state.changed = false;
        state.since = Instant::now();
        state.upload = None;
        state.away.settle();
        state.note_need();
        self.forget_record();
        drop(state);
    }

    /// Notes that the file has no name any more: whatever becomes of this process, nobody is to find it again.
    pub fn disown(&self) {
        let state = self.state();
        self.forget_record();
        drop(state);
    }

    /// To be called with the lock held, so that records are written and removed one after the other.
    fn forget_record(&self) {
        self.session.remove(&self.record_path);
        self.kept.store(false, Ordering::Relaxed);
    }
}

pub(super) fn in_record(upload: Option<&NotedUpload>) -> (Option<UploadId>, Option<u64>) {
    (upload.map(|upload| upload.id.clone()), upload.and_then(|upload| upload.mark))
}
