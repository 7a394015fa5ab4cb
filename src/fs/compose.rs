//! Files that are composed of ranges of others within S3, while they are copied: none of their bytes pass through this machine.
//!
//! Owns which ranges may follow each other so, and what ends it. Nothing but the next range is added to such a file: whoever writes,
//! cuts, moves or removes it in the middle has it stored as far as it has come, and then finds an ordinary file. Its bytes are read
//! where they come from; should a source be gone, the file is stored, too. The journal calls it open until it is stored: there is
//! nothing of it here that another run could store.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Filesystem;
use super::change::touch;
use super::commit::Scope;
use super::copy_range::{PART_MIN, Piece};
use super::handle::FileHandle;
use crate::error::{Error, Result};
use crate::inode::{Draft, Event, FileState, Inode, Origin, Owned, Phase, Prior};
use crate::stage::StagedFile;
use crate::store::{Attributes, Tags};
use crate::transfer::{Composition, Cursor, Segment, Target};
use crate::types::{ByteRange, Expect, Ino, Name, ObjectKey, Version};

/// An object of up to this size is copied again when ranges are appended to it.
const BASE_MAX: u64 = 5 << 30;

impl Filesystem {
    /// True when the bytes that are copied to `at` can follow what the file has, as far as that shows without a request.
    pub(super) fn can_follow(&self, inode: &Arc<Inode>, at: u64) -> bool {
        let data = inode.lock();
        if data.parted || !data.attempts.is_empty() {
            return false;
        }
        match data.file() {
            Ok(FileState::Clean(clean)) => at == clean.version.size && (PART_MIN..=BASE_MAX).contains(&at),
            Ok(FileState::Dirty(draft)) => {
                at == draft.staged.size() && (at == 0 || self.transfer.is_composed(&draft.staged))
            }
            _ => false,
        }
    }

    /// Adds a range to a file that is empty, as in S3, or composed so far, at its end. The bytes are in S3 when this returns,
    /// and the file is a draft that has them.
    ///
    /// # Errors
    /// `CrossDevice` for a file that can't be composed, and what the store says: then nothing was added.
    pub(super) async fn add_piece(self: &Arc<Self>, piece: &Piece, at: u64, handle: &FileHandle) -> Result<()> {
        let inode = handle.pin.inode();
        if matches!(inode.lock().file()?, FileState::Clean(_)) {
            // A draft of a change of the object, of which nothing is changed yet.
            drop(self.write_ticket(inode).await?);
        }
        let (_passage, owned) = self.own_in_place(inode).await?;
        owned.writers_gone().await;
        let Prior::Dirty(draft) = owned.prior()?.clone() else { return Err(Error::CrossDevice) };
        let is_ours = {
            let data = inode.lock();
            data.lineage == handle.lineage && data.attempts.is_empty() && draft.staged.size() == at
        };
        let key = self.table.key_of(inode.ino())?;
        let composition = match self.transfer.composition(&draft.staged) {
            _ if !is_ours => return Err(Error::CrossDevice),
            Some(composition) if composition.target().key == key => composition,
            Some(_) => return Err(Error::CrossDevice),
            None => self.begin_composition(&owned, &draft, &key, piece).await?,
        };
        let segment =
            Segment { key: piece.object.key.clone(), version: piece.object.version.clone(), range: piece.range, at };
        if let Err(error) = self.transfer.add_range(&composition, segment).await {
            if composition.segments().last().is_none_or(|last| last.key == key) {
                self.transfer.give_up_composition(&draft.staged);
            }
            return Err(error);
        }
        draft.staged.grow_elsewhere(at + piece.range.len())?;
        {
            let mut data = inode.lock();
            if !matches!(draft.phase, Phase::Changed) {
                data.apply(Event::Written)?;
            }
            touch(&mut data.ownership);
            data.mtime_given = false;
        }
        owned.reopen(draft.origin)
    }

    async fn begin_composition(
        &self,
        owned: &Owned,
        draft: &Draft,
        key: &ObjectKey,
        piece: &Piece,
    ) -> Result<Arc<Composition>> {
        let staged = &draft.staged;
        let base = match &draft.origin {
            _ if staged.size() == 0 => None,
            Origin::Changed(base) if staged.size() == base.size && staged.dirty_ranges().is_empty() => Some(base),
            _ => return Err(Error::CrossDevice),
        };
        // What was cut off again may have gone up in parts.
        self.transfer.call_back(staged);
        let attributes = match base {
            Some(_) => self.attributes_to_send(owned.inode(), key, &draft.origin).await?,
            None => self.attributes_of_composed(owned, key, draft, piece).await?,
        };
        let composition = self.transfer.compose(staged, Target { key: key.clone(), attributes }).await?;
        if let Some(base) = base {
            let range = ByteRange::new(0, base.size);
            let segment = Segment { key: key.clone(), version: base.clone(), range, at: 0 };
            if let Err(error) = self.transfer.add_range(&composition, segment).await {
                self.transfer.give_up_composition(staged);
                return Err(error);
            }
        }
        Ok(composition)
    }

    /// As of a file that is copied whole: the tags are the source's, unless the file that is replaced had some.
    async fn attributes_of_composed(
        &self,
        owned: &Owned,
        key: &ObjectKey,
        draft: &Draft,
        piece: &Piece,
    ) -> Result<Attributes> {
        let own = self.attributes_of_copy(owned, key, draft, &piece.attributes).await?;
        if own.tags != Tags::None {
            return self.transfer.with_tags(key, own).await;
        }
        let tagged = Attributes { tags: piece.attributes.tags.clone(), ..own };
        self.transfer.with_tags(&piece.object.key, tagged).await
    }

    /// Makes the object of a draft that is composed; `None` when that can't be done any more, or the file has another name by now:
    /// its bytes are here then.
    pub(super) async fn publish_composed(
        &self,
        draft: &Draft,
        key: &ObjectKey,
        expect: &Expect,
    ) -> Result<Option<Version>> {
        let composition = match self.transfer.composition(&draft.staged) {
            Some(composition) if self.transfer.is_composed(&draft.staged) => composition,
            _ => return Ok(None),
        };
        if composition.target().key == *key {
            match self.transfer.complete_composition(&composition, &draft.staged, expect).await {
                // AWS wants a whole new upload after a 409.
                Err(Error::UploadGone | Error::ConcurrentWrite) => {}
                done => return done.map(Some),
            }
        }
        self.bring_composed(&draft.staged).await.map(|()| None)
    }

    /// The bytes of a composed file are brought here, where they can be kept, moved and sent as those of any other draft. Of a file
    /// that is not composed they are here.
    pub(super) async fn bring_composed(&self, staged: &Arc<StagedFile>) -> Result<()> {
        match self.transfer.composition(staged) {
            Some(composition) if self.transfer.is_composed(staged) => {
                self.transfer.bring_composed(&composition, staged).await
            }
            _ => Ok(()),
        }
    }

    /// Ends the composition of a file that is to be changed in another way: it is stored as far as it has come.
    pub(super) async fn end_composition(self: &Arc<Self>, inode: &Arc<Inode>, staged: &Arc<StagedFile>) -> Result<()> {
        self.commit(inode, Scope::Everything).await?;
        // One without a name is not stored.
        self.bring_composed(staged).await
    }

    /// Has the file at a name, and those below it if it is a directory, stored before the name goes. Where that fails whoever moves
    /// or removes them finds out, too. The caller has not passed a gate.
    pub(super) async fn end_compositions_at(self: &Arc<Self>, parent: Ino, name: &Name) {
        let Some(child) = self.table.child(parent, name) else { return };
        for inode in self.table.below(child.ino()).iter().chain([child.inode()]) {
            let composed = match inode.lock().file() {
                Ok(FileState::Dirty(draft) | FileState::Uploading(draft, _)) => Some(draft.staged.clone()),
                _ => None,
            };
            if composed.is_some_and(|staged| self.transfer.is_composed(&staged))
                && let Err(error) = self.commit(inode, Scope::Everything).await
            {
                tracing::debug!(%error, "a file that is being copied could not be stored before its name goes");
            }
        }
    }

    /// Reads a composed file: what is here from here, the rest where it comes from.
    pub(super) async fn read_composed(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        (staged, composition): (&Arc<StagedFile>, &Composition),
        range: ByteRange,
    ) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(range.len() as usize);
        for segment in composition.segments() {
            let place = segment.place().intersect(range);
            if place.is_empty() {
                continue;
            }
            let piece = match staged.missing(place).is_empty() {
                true => staged.read_at(place.start, place.len() as usize)?,
                false => {
                    let reader = self.transfer.reader(segment.key.clone(), segment.version.clone());
                    match reader.read(&Cursor::default(), segment.source_of(place)).await {
                        Err(Error::Stale | Error::NotFound | Error::PreconditionFailed) => {
                            // Its source is gone: it is in the parts alone.
                            self.end_composition(inode, staged).await?;
                            return Err(Error::Stale);
                        }
                        read => read?,
                    }
                }
            };
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }
}
