//! Making an object of a draft: what goes with it, what of it goes up, and how one's own work is known again.
//!
//! Owns which bytes and attributes are sent, and the memory of uploads that got no answer. When a draft is committed, and what
//! its success or failure does to the file, is `commit`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::Filesystem;
use crate::config::CommitMode;
use crate::error::{Error, Result};
use crate::inode::{Attempt, Draft, Inode, Kind, Origin, Owned, Prior};
use crate::stage::{Record, RecordAttributes, RecordState, StagedFile};
use crate::store::Attributes;
use crate::transfer::Piece;
use crate::types::{ByteRange, Expect, ObjectKey, Version};

/// Uploads without an answer that are remembered for one file.
const ATTEMPTS_MAX: usize = 4;

impl Filesystem {
    /// Makes the object. A failure comes with the attributes that it would have got, if they were known.
    pub(super) async fn published(
        &self,
        owned: &Owned,
        draft: &Draft,
    ) -> Result<(Version, Attributes), (Error, Option<Attributes>)> {
        let inode = owned.inode();
        let place = async {
            let key = self.table.key_of(inode.ino())?;
            let attributes = self.attributes_to_commit(inode, &key, draft).await?;
            Ok((key, attributes))
        };
        let (key, attributes) = place.await.map_err(|error| (error, None))?;
        match self.publish(owned, draft, &key, &attributes).await {
            Ok(version) => Ok((version, attributes)),
            Err(error) => Err((error, Some(attributes))),
        }
    }

    async fn publish(&self, owned: &Owned, draft: &Draft, key: &ObjectKey, attributes: &Attributes) -> Result<Version> {
        // Of a composed file there is nothing here that another run could store.
        let is_sealed =
            !self.transfer.is_composed(&draft.staged) && self.note_sealed_if_room(draft, key, attributes)?;
        if is_sealed && self.settings.commit == CommitMode::Async && self.takes_all_along(owned.inode(), attributes) {
            // Its closer goes on, and nothing that ends this process may take it away.
            draft.staged.keep();
            owned.settled().seal();
        }
        let base = match &draft.origin {
            Origin::Changed(base) => Some(base),
            Origin::Created { .. } | Origin::Replaced(_) => None,
        };
        match self.send(draft, key, attributes, base, &draft.origin.expect()).await {
            Err(Error::PreconditionFailed) => {
                let ours = self.made_before(owned.inode(), draft, key).await?.ok_or(Error::PreconditionFailed)?;
                // What was not changed is there as it was in the base.
                self.send(draft, key, attributes, base.and(Some(&ours)), &Expect::Is(ours.etag.clone())).await
            }
            done => done,
        }
    }

    /// Of a change of a large object only what was changed goes up; else all of it.
    async fn send(
        &self,
        draft: &Draft,
        key: &ObjectKey,
        attributes: &Attributes,
        base: Option<&Version>,
        expect: &Expect,
    ) -> Result<Version> {
        let staged = &draft.staged;
        if let Some(version) = self.publish_composed(draft, key, expect).await? {
            return Ok(version);
        }
        if let Some(base) = base {
            if let Some(pieces) = self.transfer.plan_update(base, staged) {
                for piece in &pieces {
                    if let Piece::Send(range) = piece {
                        self.fill(key, base, staged, *range).await?;
                    }
                }
                match self.transfer.update(key, base, staged, attributes, pieces).await {
                    Err(Error::Unsupported(_)) => {}
                    done => return done,
                }
            }
            if !staged.is_complete() {
                self.fill(key, base, staged, ByteRange::new(0, base.size)).await?;
                // The base may be gone when the file is found again: what is here now is noted as being here.
                self.note_sealed_if_room(draft, key, attributes)?;
            }
        }
        self.transfer.upload(key, staged, attributes, expect).await
    }

    async fn fill(&self, key: &ObjectKey, base: &Version, staged: &Arc<StagedFile>, range: ByteRange) -> Result<()> {
        match self.bring((key, base), staged, range.intersect(ByteRange::new(0, base.size))).await {
            Err(Error::Stale) => Err(Error::PreconditionFailed),
            done => done,
        }
    }

    /// An upload without an answer may have made the object: what it would have made is remembered, so that the next change
    /// does not take it for another writer's.
    pub(super) async fn note_attempt(
        &self,
        inode: &Arc<Inode>,
        draft: &Draft,
        error: &Error,
        attributes: Option<Attributes>,
        began: SystemTime,
    ) {
        let Some(attributes) = attributes.filter(|_| error.is_transient()) else { return };
        let Ok(sums) = self.transfer.sums(&draft.staged).await else { return };
        let (size, refuted) = (draft.staged.size(), AtomicBool::new(false));
        remember(inode, Arc::new(Attempt { size, sums, attributes, began, refuted }));
    }

    /// The object, if it is what an upload of this draft made that got no answer.
    pub(super) async fn made_before(
        &self,
        inode: &Arc<Inode>,
        draft: &Draft,
        key: &ObjectKey,
    ) -> Result<Option<Version>> {
        let attempts = inode.lock().attempts.clone();
        for attempt in attempts.iter().rev() {
            let made = self.transfer.made_before(key, &draft.staged, attempt, &draft.origin.expect()).await?;
            if made.is_some() {
                return Ok(made);
            }
        }
        Ok(None)
    }

    /// The object that stands in S3 for a file, as far as is known here.
    pub(super) async fn object_of(
        &self,
        inode: &Arc<Inode>,
        prior: &Prior,
        key: &ObjectKey,
    ) -> Result<Option<Version>> {
        match prior {
            Prior::Dirty(draft) => {
                let made = self.made_before(inode, draft, key).await?;
                Ok(made.or_else(|| draft.origin.object().cloned()))
            }
            Prior::Clean(clean) => Ok(Some(clean.version.clone())),
        }
    }

    /// What travels with the bytes: what the object had, with this file's own attributes.
    pub(super) async fn attributes_of(
        &self,
        inode: &Arc<Inode>,
        key: &ObjectKey,
        origin: &Origin,
    ) -> Result<Attributes> {
        let (known, ownership, xattrs) = {
            let data = inode.lock();
            (data.attributes.clone(), data.ownership, data.xattr_changes.clone())
        };
        let mut attributes = match (known, origin.object()) {
            (Some(known), _) => (*known).clone(),
            (None, None) => self.new_attributes(),
            (None, Some(_)) => match self.store.head(key).await {
                Ok(info) => info.attributes,
                Err(Error::NotFound) => self.new_attributes(),
                Err(error) => return Err(error),
            },
        };
        if self.keeps_metadata() {
            ownership.to_stored().write(Kind::File, &mut attributes.metadata);
            xattrs.write(&mut attributes.metadata);
        }
        Ok(attributes)
    }

    /// As above, with the tags: what the upload of an object begins with.
    pub(super) async fn attributes_to_send(
        &self,
        inode: &Arc<Inode>,
        key: &ObjectKey,
        origin: &Origin,
    ) -> Result<Attributes> {
        let attributes = self.attributes_of(inode, key, origin).await?;
        self.transfer.with_tags(key, attributes).await
    }

    pub(super) fn new_attributes(&self) -> Attributes {
        Attributes { storage_class: self.settings.storage_class.clone(), ..Attributes::default() }
    }

    /// A stage that is full keeps nobody from storing what is in it: false. If the daemon is killed before it is stored, the
    /// record says that the file was still open.
    fn note_sealed_if_room(&self, draft: &Draft, key: &ObjectKey, attributes: &Attributes) -> Result<bool> {
        match self.note_sealed(draft, key, attributes) {
            Err(Error::StageFull) => {
                tracing::warn!(%key, "the stage has no room for the journal record of a file that is being stored");
                Ok(false)
            }
            noted => noted.map(|()| true),
        }
    }

    fn note_sealed(&self, draft: &Draft, key: &ObjectKey, attributes: &Attributes) -> Result<()> {
        draft.staged.record(&Record {
            key: key.clone(),
            base: draft.origin.object().cloned(),
            expect: draft.origin.expect(),
            state: RecordState::Sealed,
            size: draft.staged.size(),
            attributes: RecordAttributes::from(attributes),
            upload_id: None,
            upload_mark: None,
            away: Vec::new(),
        })
    }
}

pub(super) fn remember(inode: &Arc<Inode>, attempt: Arc<Attempt>) {
    let mut data = inode.lock();
    if data.attempts.len() >= ATTEMPTS_MAX {
        data.attempts.remove(0);
    }
    data.attempts.push(attempt);
}
