//! read, write, fallocate: bytes of an open file.
//!
//! Owns where bytes come from: the staged file while there is one (fetching what is missing there), else the reader of
//! the version that the handle was opened on.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Filesystem;
use super::handle::FileHandle;
use crate::error::{Error, Result};
use crate::inode::{FileState, Located, Remains, WriteTicket};
use crate::stage::StagedFile;
use crate::transfer::Need;
use crate::types::{ByteRange, Fh, ObjectKey, Version};

/// Reads of a sparse staged file fetch at least this much at once: a sequential reader then needs few requests.
const HYDRATE_STEP: u64 = 8 << 20;

/// Most times that a read begins again because the file moved or was committed under it.
const ROUNDS: usize = 8;

/// What fallocate(2) asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Reserve room; without `keep_size` the file grows to the end of the range.
    Reserve {
        /// `FALLOC_FL_KEEP_SIZE`
        keep_size: bool,
    },
    /// `FALLOC_FL_PUNCH_HOLE`
    Punch,
    /// `FALLOC_FL_ZERO_RANGE`
    Zero {
        /// `FALLOC_FL_KEEP_SIZE`
        keep_size: bool,
    },
}

/// Of the room in the stage a read fills this share at most with bytes that S3 has: they stay as long as the file is a draft,
/// and writers need the room more.
const READ_SHARE: u64 = 8;

/// Where a read finds its bytes.
enum Source {
    Staged(Arc<StagedFile>, Option<Located>),
    Object(Located),
}

impl Source {
    /// True when bytes of `range` are in the object, and not here any more.
    fn has_let_go_of(&self, range: ByteRange) -> bool {
        matches!(self, Source::Staged(staged, _) if !staged.missing(range).is_empty())
    }
}

impl Filesystem {
    /// Reads up to `size` bytes at `offset`; fewer only at the end of the file. Write-only handles are read too: the kernel
    /// fills pages that are partly written, and has refused what a program may not do.
    ///
    /// # Errors
    /// `BadHandle`, `Stale` when the object was replaced in S3, `NotReadableYet` for bytes of a new file that have left a full stage,
    /// and what S3 answers.
    pub async fn read(self: &Arc<Self>, fh: Fh, offset: u64, size: u32) -> Result<Bytes> {
        let handle = self.file_handle(fh)?;
        let mut rounds = 0;
        loop {
            let (source, file_size) = self.source(&handle)?;
            let range = ByteRange::at(offset, size.into()).intersect(ByteRange::new(0, file_size));
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            rounds += 1;
            match self.read_source(&handle, &source, range).await {
                Err(Error::Stale | Error::NotReadableYet)
                    if rounds < ROUNDS && (source.has_let_go_of(range) || self.has_moved(&handle, &source).await?) => {}
                outcome => {
                    if outcome.is_err() {
                        handle.distrust_wrong_pages();
                    }
                    return outcome;
                }
            }
        }
    }

    async fn read_source(self: &Arc<Self>, handle: &FileHandle, source: &Source, range: ByteRange) -> Result<Bytes> {
        if let Source::Staged(staged, _) = source
            && let Some(composition) = self.transfer.composition(staged)
        {
            return self.read_composed(handle.pin.inode(), (staged, &composition), range).await;
        }
        match source {
            Source::Staged(staged, base) => match self.make_present(staged, base.as_ref(), range).await {
                Ok(()) => staged.read_at(range.start, range.len() as usize),
                Err(Error::StageFull) => self.read_past_the_stage(handle, (staged, base.as_ref()), range).await,
                Err(error) => Err(error),
            },
            Source::Object(object) => {
                let reader = handle.reader(self, &object.key, &object.version);
                reader.read(&handle.cursor, range).await
            }
        }
    }

    fn source(&self, handle: &FileHandle) -> Result<(Source, u64)> {
        let key = self.table.key_of(handle.pin.ino());
        let mut data = handle.pin.inode().lock();
        if data.lineage == handle.lineage {
            // From the first read on, when the open is over for sure: until then it drops those of before.
            handle.note_pages(&mut data);
        }
        let state = data.file()?;
        let located = |key: Result<ObjectKey>, version: &Version| Ok(Located { key: key?, version: version.clone() });
        let source = match state {
            FileState::Unlinked(Remains::Object(object)) => Source::Object(object.clone()),
            FileState::Unlinked(Remains::Staged { staged, base }) => Source::Staged(staged.clone(), base.clone()),
            FileState::Removed => return Err(Error::Stale),
            _ if data.lineage != handle.lineage => return Err(Error::Stale),
            state => match (state.staged(), state.object()) {
                (Some(staged), Some(version)) if !staged.is_complete() => {
                    Source::Staged(staged.clone(), Some(located(key, version)?))
                }
                (Some(staged), _) => Source::Staged(staged.clone(), None),
                (None, Some(version)) => Source::Object(located(key, version)?),
                (None, None) => return Err(Error::Stale),
            },
        };
        Ok((source, state.size()))
    }

    /// True when the bytes are to be found elsewhere by now: a rename or a commit got in between. One that is under way is
    /// waited for: what it moves is nowhere else until it is done.
    async fn has_moved(&self, handle: &FileHandle, source: &Source) -> Result<bool> {
        let owner = handle.pin.inode().lock().file()?.owner().cloned();
        if let Some(settled) = owner {
            // How it ended shows in the state.
            drop(settled.wait().await);
        }
        let before = match source {
            Source::Object(object) => Some(object),
            Source::Staged(_, base) => base.as_ref(),
        };
        let (now, _) = self.source(handle)?;
        let after = match &now {
            Source::Object(object) => Some(object),
            Source::Staged(_, base) => base.as_ref(),
        };
        Ok(match (before, after) {
            (Some(before), Some(after)) => before.key != after.key || !before.version.same_bytes(&after.version),
            (before, after) => before.is_some() != after.is_some(),
        })
    }

    /// What the staged file has comes from there, and the rest from the object, without being kept: a full stage fails no read.
    async fn read_past_the_stage(
        self: &Arc<Self>,
        handle: &FileHandle,
        (staged, base): (&Arc<StagedFile>, Option<&Located>),
        range: ByteRange,
    ) -> Result<Bytes> {
        let base = base.ok_or(Error::StageFull)?;
        let reader = handle.reader(self, &base.key, &base.version);
        let mut bytes = BytesMut::with_capacity(range.len() as usize);
        let mut at = range.start;
        let end = ByteRange::new(range.end, range.end);
        for gap in staged.missing(range).into_iter().chain([end]) {
            let here = staged.read_at(at, (gap.start - at) as usize)?;
            let there = reader.read(&handle.cursor, gap).await?;
            let whole = here.len() as u64 == gap.start - at && there.len() as u64 == gap.len();
            bytes.extend_from_slice(&here);
            if !whole {
                // It was cut meanwhile.
                break;
            }
            bytes.extend_from_slice(&there);
            at = gap.end;
        }
        Ok(bytes.freeze())
    }

    /// Fetches what a staged file lacks of `range`. `StageFull` where it has no room for that.
    async fn make_present(&self, staged: &Arc<StagedFile>, base: Option<&Located>, range: ByteRange) -> Result<()> {
        if staged.missing(range).is_empty() {
            return Ok(());
        }
        let base = base.ok_or(Error::Internal("a staged file has holes and no object to fill them from"))?;
        let start = range.start - range.start % HYDRATE_STEP;
        let step = ByteRange::new(start, range.end.max(start + HYDRATE_STEP));
        let wanted = step.intersect(ByteRange::new(0, base.version.size));
        let bytes: u64 = staged.missing(wanted).iter().map(ByteRange::len).sum();
        if bytes > staged.room() / READ_SHARE {
            return Err(Error::StageFull);
        }
        self.transfer.hydrate(&base.key, &base.version, staged, wanted, Need::May).await
    }

    /// Writes at `offset`; the kernel has already made that the end for `O_APPEND`.
    ///
    /// # Errors
    /// `BadHandle`, `StageFull` when no room can be made, `NotChangeableYet` where it needs bytes that have left a full stage,
    /// `ReadOnly`.
    pub async fn write(self: &Arc<Self>, fh: Fh, offset: u64, data: &[u8]) -> Result<u32> {
        self.change_with_room(fh, true, |handle, ticket| self.write_through(handle, ticket, offset, data)).await?;
        u32::try_from(data.len()).map_err(|_| Error::InvalidArgument("a write of more than 4 GiB"))
    }

    /// Makes a change that needs room in the stage, again and again while room is made for it; `in_parts` one that needs little at a
    /// time, for which parts of files may leave the stage.
    async fn change_with_room(
        self: &Arc<Self>,
        fh: Fh,
        in_parts: bool,
        change: impl Fn(&FileHandle, &WriteTicket) -> Result<()>,
    ) -> Result<()> {
        let mut patience = self.patience();
        loop {
            let handle = self.writable(fh)?;
            // The ticket is given back before anything is waited for: the file's own commit waits for it.
            let outcome = match self.write_ticket(handle.pin.inode()).await {
                Ok(ticket) => change(&handle, &ticket),
                Err(error) => Err(error),
            };
            match outcome {
                Err(Error::StageFull) => {
                    self.make_room(&mut patience, in_parts.then(|| handle.pin.inode())).await?;
                }
                done => return done,
            }
        }
    }

    /// As [`Filesystem::write`], if that needs no waiting, also not for room: the bytes are then not copied on their way.
    pub fn write_now(self: &Arc<Self>, fh: Fh, offset: u64, data: &[u8]) -> Option<Result<u32>> {
        let handle = match self.writable(fh) {
            Ok(handle) => handle,
            Err(error) => return Some(Err(error)),
        };
        let ticket = self.ready_ticket(handle.pin.inode())?;
        match self.write_through(&handle, &ticket, offset, data) {
            Err(Error::StageFull) => None,
            done => Some(done.map(|()| data.len() as u32)),
        }
    }

    fn write_through(
        self: &Arc<Self>,
        handle: &FileHandle,
        ticket: &WriteTicket,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        let run = ticket.staged().write_at(offset, data)?;
        if self.transfer.passes_part(run, data.len()) {
            self.send_ahead(handle.pin.inode(), ticket.staged(), run);
        }
        Ok(())
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// `BadHandle`, `StageFull` when no room can be made, `FileTooLarge`.
    pub async fn allocate(self: &Arc<Self>, fh: Fh, range: ByteRange, how: Allocation) -> Result<()> {
        self.change_with_room(fh, false, |_, ticket| match how {
            Allocation::Reserve { keep_size } => ticket.staged().allocate(range, keep_size),
            Allocation::Punch => ticket.staged().punch(range),
            Allocation::Zero { keep_size } => ticket.staged().zero(range, keep_size),
        })
        .await
    }

    pub(super) fn writable(&self, fh: Fh) -> Result<Arc<FileHandle>> {
        let handle = self.file_handle(fh)?;
        if !handle.intent.writes() {
            return Err(Error::BadHandle);
        }
        // What a program changes is what it opened, not what another writer has put in its place.
        let mut data = handle.pin.inode().lock();
        if data.lineage != handle.lineage {
            return Err(Error::Stale);
        }
        handle.note_pages(&mut data);
        drop(data);
        Ok(handle)
    }
}
