//! getattr, and setattr: truncate, chmod, chown, utimens.
//!
//! Owns where a change of attributes goes: with the commit of a dirty file, by a server-side copy of a clean one, into the marker
//! object of a directory; and what `metadata=basic` does instead.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Filesystem;
use super::commit::Scope;
use super::create::empty;
use super::parting::is_left_alone;
use crate::config::SetattrPolicy;
use crate::error::{Error, Result};
use crate::inode::{
    Attr, Clean, FileState, Inode, Kind, Listed, Origin, Owned, OwnershipChange, Pin, Prior, XattrChanges,
};
use crate::store::{CopyAttributes, UserMetadata};
use crate::types::{Expect, Fh, Ino};

/// What setattr asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttributes {
    /// truncate(2), ftruncate(2).
    pub size: Option<u64>,
    /// chmod, chown, utimens.
    pub ownership: OwnershipChange,
    /// The open handle it came through, if it did.
    pub handle: Option<Fh>,
}

impl Filesystem {
    /// Attributes of an inode.
    ///
    /// # Errors
    /// `Stale` when it is gone, and what S3 answers.
    pub async fn getattr(self: &Arc<Self>, ino: Ino) -> Result<Attr> {
        let pin = self.table.get(ino)?;
        self.refresh(&pin).await?;
        Ok(pin.inode().attr())
    }

    /// Asks S3 whether what is known of a file or a directory is still so, when that is too old to be believed.
    pub(super) async fn refresh(self: &Arc<Self>, pin: &Pin) -> Result<()> {
        if is_left_alone(&pin.inode().lock()) {
            return Err(Error::Stale);
        }
        if pin.inode().is_fresh(Instant::now()) {
            return Ok(());
        }
        match self.revalidate(pin).await {
            // The name is another file's, and who has this one open reads it all the same.
            Err(Error::Stale) if self.is_open_without_a_name(pin) => Ok(()),
            done => done,
        }
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// `ReadOnly`, `IsDirectory`, `Unsupported` in `metadata=basic`, `StageFull`, and what S3 answers.
    pub async fn setattr(self: &Arc<Self>, ino: Ino, change: SetAttributes) -> Result<Attr> {
        self.refuse_read_only()?;
        let pin = self.table.get(ino)?;
        let change = self.without_set_id(&pin, change);
        if let Some(size) = change.size {
            self.truncate(&pin, size, change.handle).await?;
        }
        if !change.ownership.is_empty() {
            match pin.inode().kind() {
                Kind::File => self.change_file(pin.inode(), &change.ownership).await?,
                Kind::Dir => self.change_dir(&pin, &change.ownership).await?,
            }
            // Also where nothing is another than it was, and nothing was stored.
            pin.inode().lock().ownership.ctime = SystemTime::now();
        }
        Ok(pin.inode().attr())
    }

    /// Who gets a file does not get the rights of its owner before (chown(2)).
    fn without_set_id(&self, pin: &Pin, change: SetAttributes) -> SetAttributes {
        let OwnershipChange { mode, uid, gid, .. } = change.ownership;
        if pin.inode().kind() == Kind::Dir || mode.is_some() || (uid.is_none() && gid.is_none()) {
            return change;
        }
        let before = pin.inode().lock().ownership;
        let after = self.mode_after_change(&before);
        let mode = (after != before.mode).then_some(after);
        SetAttributes { ownership: OwnershipChange { mode, ..change.ownership }, ..change }
    }

    async fn truncate(self: &Arc<Self>, pin: &Pin, size: u64, handle: Option<Fh>) -> Result<()> {
        if pin.inode().kind() == Kind::Dir {
            return Err(Error::IsDirectory);
        }
        if let Some(fh) = handle {
            self.writable(fh)?;
        } else if !pin.inode().is_fresh(Instant::now()) {
            self.revalidate(pin).await?;
        }
        self.resize(pin.inode(), size).await?;
        // By path, with nobody to close it: no flush will come.
        if handle.is_none() && pin.inode().lock().opens.writing == 0 {
            self.commit_closed(pin.inode(), Scope::Everything).await?;
        }
        Ok(())
    }

    /// New bytes take no room, but the journal record of a new draft does.
    async fn resize(self: &Arc<Self>, inode: &Arc<Inode>, size: u64) -> Result<()> {
        let mut patience = self.patience();
        loop {
            // The ticket is given back before anything is waited for.
            let outcome = match self.write_ticket(inode).await {
                Ok(ticket) => ticket.staged().set_size(size),
                Err(error) => Err(error),
            };
            match outcome {
                Err(Error::StageFull) => self.make_room(&mut patience, None).await?,
                done => return done,
            }
        }
    }

    async fn change_file(self: &Arc<Self>, inode: &Arc<Inode>, change: &OwnershipChange) -> Result<()> {
        if self.change_draft(inode, change)? || !self.must_store(inode, change)? {
            return Ok(());
        }
        let (_passage, owned) = match self.own_in_place(inode).await {
            Ok(both) => both,
            Err(Error::NotFound) => {
                let mut data = inode.lock();
                if data.parted {
                    // The name is another file's by now, which is the one that is meant.
                    return Err(Error::Stale);
                }
                // No name: nothing to store it in, and nobody to find it there.
                data.ownership.change(change, SystemTime::now());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match owned.prior()?.clone() {
            Prior::Clean(clean) => self.store_change(owned, clean, change, &XattrChanges::default()).await,
            Prior::Dirty(draft) => {
                {
                    let mut data = inode.lock();
                    data.ownership.change(change, SystemTime::now());
                    data.mtime_given |= change.mtime.is_some();
                }
                owned.reopen(draft.origin)
            }
        }
    }

    /// A draft takes the change along with its commit, at no request. In `basic` only what changes nothing, or is ignored, gets here.
    fn change_draft(&self, inode: &Arc<Inode>, change: &OwnershipChange) -> Result<bool> {
        let mut data = inode.lock();
        if data.parted {
            // The name is another file's by now, which is the one that is meant.
            return Err(Error::Stale);
        }
        let unnamed_or_draft = matches!(data.file()?, FileState::Dirty(_) | FileState::Unlinked(_));
        if !unnamed_or_draft || !self.keeps_metadata() {
            return Ok(false);
        }
        data.ownership.change(change, SystemTime::now());
        data.mtime_given |= change.mtime.is_some();
        Ok(true)
    }

    /// False when there is nothing to do: nothing would change, or `metadata=basic` ignores it.
    fn must_store(&self, inode: &Arc<Inode>, change: &OwnershipChange) -> Result<bool> {
        let before = inode.lock().ownership;
        let mut after = before;
        if !after.change(change, before.ctime) {
            return Ok(false);
        }
        if self.keeps_metadata() {
            return Ok(true);
        }
        // Times are S3's own in this mode, and programs that copy set them at every turn: only what was asked to be another
        // mode or owner is worth a refusal.
        let same_rights = (after.mode, after.uid, after.gid) == (before.mode, before.uid, before.gid);
        match self.settings.setattr {
            SetattrPolicy::Ignore => Ok(false),
            SetattrPolicy::Refuse if same_rights && is_draft(inode)? => {
                inode.lock().ownership.change(change, SystemTime::now());
                Ok(false)
            }
            SetattrPolicy::Refuse => Err(Error::Unsupported("changing modes, owners and times with metadata=basic")),
        }
    }

    /// A server-side copy of the object onto itself, with the new attributes.
    pub(super) async fn store_change(
        &self,
        owned: Owned,
        clean: Clean,
        change: &OwnershipChange,
        xattrs: &XattrChanges,
    ) -> Result<()> {
        let inode = owned.inode().clone();
        let key = self.table.key_of(inode.ino())?;
        let mut ownership = inode.lock().ownership;
        ownership.change(change, SystemTime::now());
        let origin = Origin::Changed(clean.version.clone());
        let mut attributes = self.attributes_of(&inode, &key, &origin).await?;
        ownership.to_stored().write(Kind::File, &mut attributes.metadata);
        xattrs.write(&mut attributes.metadata);
        let replace = Some(CopyAttributes::Replace(attributes.clone()));
        let copied = self.transfer.copy(&key, &clean.version, &key, replace, &Expect::Any).await;
        let version = match copied {
            Ok(version) => version,
            Err(Error::PreconditionFailed | Error::NotFound | Error::Stale) => {
                inode.lock().belief.forget();
                return Err(Error::Stale);
            }
            Err(error) => return Err(error),
        };
        let listed = Listed { kind: Kind::File, version: Some(version.clone()) };
        let span = self.file_span();
        self.note_name_changed(&inode, Some(listed));
        owned.settle_clean(Clean { version, local: clean.local }, |data| {
            data.ownership = ownership;
            data.attributes = Some(Arc::new(attributes));
            data.xattr_changes = XattrChanges::default();
            data.belief.checked(Instant::now(), true, span);
        })
    }

    async fn change_dir(self: &Arc<Self>, pin: &Pin, change: &OwnershipChange) -> Result<()> {
        let mut ownership = pin.inode().lock().ownership;
        if !ownership.change(change, SystemTime::now()) {
            return Ok(());
        }
        if !self.keeps_metadata() {
            return match self.settings.setattr {
                SetattrPolicy::Ignore => Ok(()),
                SetattrPolicy::Refuse => {
                    Err(Error::Unsupported("changing modes, owners and times with metadata=basic"))
                }
            };
        }
        self.rewrite_marker(pin, |metadata| {
            ownership.to_stored().write(Kind::Dir, metadata);
            Ok(true)
        })
        .await?;
        pin.inode().lock().ownership = ownership;
        Ok(())
    }

    /// Changes what the marker object of a directory keeps; one that is missing is made. False is no change.
    pub(super) async fn rewrite_marker(
        self: &Arc<Self>,
        pin: &Pin,
        change: impl FnOnce(&mut UserMetadata) -> Result<bool> + Send,
    ) -> Result<()> {
        let _passage = self.table.pass(&[pin.ino()]).await;
        // The root of a bucket has no key to keep them under: they last until the mount ends.
        let Some(marker) = self.table.prefix_of(pin.ino())?.marker() else {
            let mut data = pin.inode().lock();
            let mut attributes = data.attributes.as_deref().cloned().unwrap_or_default();
            change(&mut attributes.metadata)?;
            data.attributes = Some(Arc::new(attributes));
            data.as_of = Some(Instant::now());
            return Ok(());
        };
        let there = match self.store.head(&marker).await {
            Ok(info) => Some(info),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        let found = there.as_ref().map(|info| info.attributes.clone()).unwrap_or_default();
        let mut attributes = self.transfer.with_tags(&marker, found).await?;
        if !change(&mut attributes.metadata)? {
            return Ok(());
        }
        match &there {
            Some(info) if info.version.size > 0 => {
                let replace = Some(CopyAttributes::Replace(attributes.clone()));
                self.transfer.copy(&marker, &info.version, &marker, replace, &Expect::Any).await?;
            }
            // Made anew: a store that keeps markers as directories copies none.
            there => {
                let expect = there.as_ref().map_or(Expect::Any, |info| Expect::Is(info.version.etag.clone()));
                self.store.put(&marker, empty(), &attributes, &expect).await?;
            }
        }
        let mut data = pin.inode().lock();
        data.attributes = Some(Arc::new(attributes));
        data.as_of = Some(Instant::now());
        Ok(())
    }
}

fn is_draft(inode: &Arc<Inode>) -> Result<bool> {
    Ok(matches!(inode.lock().file()?, FileState::Dirty(_)))
}
