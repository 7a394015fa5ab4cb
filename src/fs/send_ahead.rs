//! Parts that go up while a program still writes, and what must be known for that before the file is closed.
//!
//! Owns which files may, and what becomes of attributes that were not known yet when the upload began: S3 takes them only then.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Filesystem;
use crate::error::{Error, Result};
use crate::inode::{Draft, FileState, Inode, NodeData, Origin, OwnershipChange, Prior, StoredAttributes, XattrChanges};
use crate::stage::StagedFile;
use crate::store::Attributes;
use crate::transfer::{Opening, Target};
use crate::types::{ByteRange, ObjectKey};

impl Filesystem {
    /// A sequential writer has passed the end of a part: it goes up, if the file is a new object or replaces one.
    pub(super) fn send_ahead(self: &Arc<Self>, inode: &Arc<Inode>, staged: &Arc<StagedFile>, run: ByteRange) {
        if self.stopping.load(Ordering::Relaxed) || !whole_draft(inode, staged) {
            return;
        }
        if let Some(opening) = self.transfer.written(staged, run) {
            self.begin_upload_early(inode, staged, opening);
        }
    }

    pub(super) fn begin_upload_early(self: &Arc<Self>, inode: &Arc<Inode>, staged: &Arc<StagedFile>, opening: Opening) {
        let (fs, inode, staged) = (self.clone(), inode.clone(), staged.clone());
        self.runtime.spawn(async move {
            if let Err(error) = fs.begin_upload(&inode, &staged, opening).await {
                tracing::debug!(%error, "an upload could not begin early; the file goes up when it is closed");
            }
        });
    }

    async fn begin_upload(&self, inode: &Arc<Inode>, staged: &Arc<StagedFile>, opening: Opening) -> Result<()> {
        let origin = match inode.lock().file()? {
            FileState::Dirty(draft) if Arc::ptr_eq(&draft.staged, staged) => draft.origin.clone(),
            _ => return Ok(()),
        };
        let key = self.table.key_of(inode.ino())?;
        let attributes = self.attributes_to_send(inode, &key, &origin).await?;
        opening.begin(Target { key, attributes }).await
    }

    /// The attributes to commit a draft with: those that its upload was begun with, if it was.
    pub(super) async fn attributes_to_commit(
        &self,
        inode: &Arc<Inode>,
        key: &ObjectKey,
        draft: &Draft,
    ) -> Result<Attributes> {
        match self.transfer.target(&draft.staged).await {
            Some(target) if target.key == *key => Ok(target.attributes),
            Some(_) => {
                if !self.transfer.call_back(&draft.staged) {
                    return Err(Error::NotMovableYet);
                }
                self.attributes_to_send(inode, key, &draft.origin).await
            }
            None => self.attributes_to_send(inode, key, &draft.origin).await,
        }
    }

    /// False when something was changed that did not go up with `attributes`, and so is stored after the bytes are.
    pub(super) fn takes_all_along(&self, inode: &Arc<Inode>, attributes: &Attributes) -> bool {
        let data = inode.lock();
        let sent = StoredAttributes::read(&attributes.metadata);
        let mut wanted = data.ownership.to_stored();
        if !data.mtime_given {
            wanted.mtime = sent.mtime;
        }
        !self.keeps_metadata() || (sent == wanted && data.xattr_changes.are_in(&attributes.metadata))
    }

    /// What was changed while the upload was under way is stored now, by a server-side copy.
    pub(super) async fn store_late_changes(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        if !self.keeps_metadata() || !differs(&inode.lock()) {
            return Ok(());
        }
        let (_passage, owned) = match self.own_in_place(inode).await {
            Ok(both) => both,
            Err(Error::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        match owned.prior()?.clone() {
            Prior::Clean(clean) => {
                let (none, late) = (OwnershipChange::default(), XattrChanges::default());
                match self.store_change(owned, clean, &none, &late).await {
                    // Another writer's object is there by now, with attributes of its own.
                    Err(Error::Stale) => {
                        inode.lock().xattr_changes = late;
                        Ok(())
                    }
                    done => done,
                }
            }
            // It is being written again, and takes them along.
            Prior::Dirty(_) => Ok(()),
        }
    }
}

/// Only a file whose every byte is here: what it lacks would have to be copied from the object that it changes.
pub(super) fn whole_draft(inode: &Arc<Inode>, staged: &Arc<StagedFile>) -> bool {
    match inode.lock().file() {
        Ok(FileState::Dirty(draft)) => {
            Arc::ptr_eq(&draft.staged, staged) && matches!(draft.origin, Origin::Created { .. } | Origin::Replaced(_))
        }
        _ => false,
    }
}

/// The time of the last write is the one that went up with the upload, which may have begun before: so it is the same
/// whoever asks, here or elsewhere. A time that a program has set stays.
pub(super) fn take_stored_time(data: &mut NodeData) {
    let stored = data.attributes.as_ref().and_then(|attributes| StoredAttributes::read(&attributes.metadata).mtime);
    if let (Some(mtime), false) = (stored, data.mtime_given) {
        data.ownership.mtime = mtime;
    }
}

fn differs(data: &NodeData) -> bool {
    let stored = data.attributes.as_ref().map(|attributes| StoredAttributes::read(&attributes.metadata));
    let is_other = stored.is_some_and(|stored| stored != data.ownership.to_stored());
    matches!(data.file(), Ok(FileState::Clean(_))) && (is_other || !data.xattr_changes.is_empty())
}
