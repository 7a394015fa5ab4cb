//! copy_file_range: files and ranges that are copied within S3.
//!
//! Owns when that may be done, the copy of a whole file into one that is still empty, and what such a copy without an answer leaves
//! to be known; files that are composed of several ranges are `compose`. All else is refused with EXDEV, so that programs and the
//! kernel copy by reading and writing, and learn there of what went wrong here.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::Filesystem;
use super::handle::FileHandle;
use super::open::is_archived;
use super::publish::remember;
use super::refused::Refused;
use crate::error::{Error, Result};
use crate::inode::{Attempt, Clean, Draft, FileState, Inode, Located, Owned, Prior};
use crate::store::{Attributes, Tags};
use crate::types::{Access, ByteRange, Fh, ObjectKey, Version};

/// The shortest part but for the last, and the largest object of which no range is copied (S3 User Guide, "Amazon S3 multipart upload
/// limits"; API reference, UploadPartCopy).
pub(super) const PART_MIN: u64 = 5 << 20;

/// What copy_file_range asks for.
#[derive(Clone, Copy, Debug)]
pub struct CopyRange {
    /// From where: an open file, and an offset in it.
    pub from: (Fh, u64),
    /// To where.
    pub to: (Fh, u64),
    /// Bytes at most. The kernel never asks for more than 4,294,963,200, nor for more than it knows the source to have.
    pub len: u64,
}

/// Bytes of a file as it is in S3.
pub(super) struct Piece {
    pub object: Located,
    pub range: ByteRange,
    /// Those of the object.
    pub attributes: Attributes,
}

impl Piece {
    fn is_whole(&self) -> bool {
        self.range == ByteRange::new(0, self.object.version.size)
    }
}

impl Filesystem {
    /// Copies a whole file into one that is open, empty and not stored yet: it is stored when this returns the bytes in it. Or
    /// copies a range behind what such a file has so far: its bytes are then in parts of the object that it will be.
    ///
    /// # Errors
    /// `CrossDevice` for everything else, and when S3 does not do it: the caller then reads and writes.
    pub async fn copy_file_range(self: &Arc<Self>, copy: CopyRange) -> Result<u32> {
        let refused = |error| {
            tracing::debug!(%error, "a range is not copied within S3");
            Refused::CopyFileRange.error()
        };
        let piece = self.piece(&copy).await.map_err(refused)?;
        let handle = self.writable(copy.to.0).map_err(refused)?;
        let len = u32::try_from(piece.range.len()).map_err(|_| Refused::CopyFileRange.error())?;
        let (fs, at) = (self.clone(), copy.to.1);
        // A task of its own, as a commit has: a caller that gives up does not stop it half-way.
        let task = self.runtime.spawn(async move {
            match at == 0 && piece.is_whole() {
                true => fs.copy_into(&piece, &handle).await,
                false => fs.add_piece(&piece, at, &handle).await,
            }
        });
        task.await.unwrap_or(Err(Error::Internal("a copy ended in a panic"))).map_err(refused)?;
        Ok(len)
    }

    /// What is asked for, if it is of the object that the source was opened as and may be copied to where it is to go.
    async fn piece(&self, copy: &CopyRange) -> Result<Piece> {
        let (from, to) = (self.file_handle(copy.from.0)?, self.file_handle(copy.to.0)?);
        let inode = from.pin.inode();
        if from.intent.access == Access::Write || from.pin.ino() == to.pin.ino() {
            return Err(Error::CrossDevice);
        }
        // The key first: the table's lock comes before an inode's.
        let key = self.table.key_of(inode.ino())?;
        let (version, known) = {
            let data = inode.lock();
            match data.file()? {
                FileState::Clean(clean) if data.lineage == from.lineage && !data.parted => {
                    (clean.version.clone(), data.attributes.clone())
                }
                _ => return Err(Error::CrossDevice),
            }
        };
        let asked = ByteRange::at(copy.from.1, copy.len.min(u32::MAX.into()));
        let range = asked.intersect(ByteRange::new(0, version.size));
        let whole = range == ByteRange::new(0, version.size);
        let fits = match copy.to.1 {
            0 if whole => is_empty_draft(to.pin.inode()),
            at => may_be_a_part(range, version.size, at) && self.can_follow(to.pin.inode(), at),
        };
        if range.is_empty() || !fits {
            return Err(Error::CrossDevice);
        }
        let attributes = match known {
            Some(known) => (*known).clone(),
            None => self.store.head(&key).await?.attributes,
        };
        if is_archived(attributes.storage_class.as_deref()) {
            return Err(Error::Archived);
        }
        Ok(Piece { object: Located { key, version }, range, attributes })
    }

    async fn copy_into(self: &Arc<Self>, source: &Piece, handle: &FileHandle) -> Result<()> {
        let inode = handle.pin.inode();
        let (_passage, owned) = self.own_in_place(inode).await?;
        owned.writers_gone().await;
        // It was waited for: somebody may have written, or replaced, what was an empty draft before.
        let draft = match owned.prior()? {
            Prior::Dirty(draft) if draft.staged.size() == 0 => draft.clone(),
            _ => return Err(Error::CrossDevice),
        };
        {
            let data = inode.lock();
            if data.lineage != handle.lineage || !data.attempts.is_empty() {
                return Err(Error::CrossDevice);
            }
        }
        let key = self.table.key_of(inode.ino())?;
        // What was cut off again may have gone up in parts.
        self.transfer.call_back(&draft.staged);
        let attributes = self.attributes_of_copy(&owned, &key, &draft, &source.attributes).await?;
        if attributes.tags != Tags::None {
            // CopyObject would give it those of the source.
            return Err(Error::CrossDevice);
        }
        let version = self.copy_object(source, (&owned, &draft), &key, &attributes).await?;
        draft.staged.clean();
        self.settle_stored(owned, Clean { version, local: None }, attributes)
    }

    /// Those that a commit would store, at the time of this write; and how the bytes are to be read is the source's to say,
    /// where the target does not.
    pub(super) async fn attributes_of_copy(
        &self,
        owned: &Owned,
        key: &ObjectKey,
        draft: &Draft,
        source: &Attributes,
    ) -> Result<Attributes> {
        {
            self.touch_file(&mut owned.inode().lock());
        }
        let own = self.attributes_of(owned.inode(), key, &draft.origin).await?;
        let theirs = source.clone();
        Ok(Attributes {
            content_type: own.content_type.or(theirs.content_type),
            cache_control: own.cache_control.or(theirs.cache_control),
            content_disposition: own.content_disposition.or(theirs.content_disposition),
            content_encoding: own.content_encoding.or(theirs.content_encoding),
            content_language: own.content_language.or(theirs.content_language),
            ..own
        })
    }

    /// A copy without an answer may have been made. Its time, to the nanosecond, is among its attributes with `metadata=posix`,
    /// so that it is known again: here, or when the draft is committed. With `basic` a commit of the same bytes knows them.
    async fn copy_object(
        &self,
        source: &Piece,
        (owned, draft): (&Owned, &Draft),
        key: &ObjectKey,
        attributes: &Attributes,
    ) -> Result<Version> {
        let (from, expect, began) = (&source.object, draft.origin.expect(), SystemTime::now());
        let copied = self.transfer.copy_if_cheaper((&from.key, &from.version), key, attributes.clone(), &expect).await;
        let error = match copied {
            Ok(version) => return Ok(version),
            Err(error) => error,
        };
        // A refusal may be of a second request, after the first was done.
        let uncertain = error.is_transient() || matches!(error, Error::PreconditionFailed | Error::UploadGone);
        if !uncertain || !self.keeps_metadata() {
            return Err(error);
        }
        let size = from.version.size;
        let attempt = Arc::new(Attempt {
            size,
            sums: Vec::new(),
            attributes: attributes.clone(),
            began,
            refuted: AtomicBool::new(false),
        });
        remember(owned.inode(), attempt.clone());
        self.transfer.made_before(key, &draft.staged, &attempt, &expect).await?.ok_or(error)
    }
}

/// Whether S3 takes a range of an object of `size` bytes for a part of another one: a short one can only be the last, which that at the
/// end of its source may be, and of a small object all of it is one.
fn may_be_a_part(range: ByteRange, size: u64, at: u64) -> bool {
    let whole = range == ByteRange::new(0, size);
    let last = at > 0 && range.end == size;
    (range.len() >= PART_MIN || last) && (size > PART_MIN || whole)
}

/// A draft without bytes that nobody owns, and of which no upload may have made an object.
fn is_empty_draft(inode: &Arc<Inode>) -> bool {
    let data = inode.lock();
    let empty = matches!(data.file(), Ok(FileState::Dirty(draft)) if draft.staged.size() == 0);
    empty && data.attempts.is_empty()
}
