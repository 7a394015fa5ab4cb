//! unlink and rmdir: names that go.
//!
//! Owns what becomes of a file that is still open: its bytes are brought here first if they are few, else its object waits,
//! hidden, for the last handle. A directory that is emptied here stays until rmdir.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::MutexGuard;

use super::Filesystem;
use crate::error::{Error, Result};
use crate::inode::{Clean, Event, FileState, Inode, Kind, Located, Owned, Pin, Prior, Remains};
use crate::store::ListRequest;
use crate::types::{DirPrefix, Ino, Name, ObjectKey};

/// An open file up to this size is brought to the local disk when its name goes: its object can then go at once.
const PRESERVE_MAX: u64 = 64 << 20;

const NO_ROOM: &str =
    "no room in the stage for a file that is still open: it can't be read any more once it is replaced";

impl Filesystem {
    /// Removes a file's name. Open handles go on working.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `ReadOnly`, and what S3 answers: then nothing was changed.
    pub async fn unlink(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Result<()> {
        self.refuse_read_only()?;
        let name = Name::parse(name)?;
        self.end_compositions_at(parent, &name).await;
        let _passage = self.table.pass(&[parent]).await;
        let pin = self.resolve(parent, &name).await?;
        if pin.inode().kind() == Kind::Dir {
            return Err(Error::IsDirectory);
        }
        let owned = pin.inode().own_by_name().await?;
        let key = self.table.key_of(pin.ino())?;
        let version = self.object_of(owned.inode(), owned.prior()?, &key).await?;
        let object = version.map(|version| Located { key, version });
        let remains = self.preserve(owned.inode(), owned.prior()?, object.as_ref(), PRESERVE_MAX).await?;
        let waits = matches!(remains, Remains::Object(_));
        if let Some(object) = &object
            && !waits
        {
            self.store.delete(&object.key, None).await?;
        }
        self.finish_unlink(owned, &pin, remains, (parent, &name))
    }

    fn finish_unlink(&self, owned: Owned, pin: &Pin, remains: Remains, at: (Ino, &Name)) -> Result<()> {
        let (parent, name) = at;
        self.disown(&remains);
        // The listing first: a lookup that finds no inode believes what it says.
        self.note_name(parent, name, None);
        {
            let dir = self.table.get(parent)?;
            let mut data = dir.inode().lock();
            let body = data.dir()?;
            body.held = true;
            if matches!(remains, Remains::Object(_)) {
                body.names.hide(name, pin.ino());
            }
        }
        owned.unlinked(remains)?;
        self.table.detach(pin.ino());
        Ok(())
    }

    /// A killed run's file that had no name any more is not to be found by the next one, and nothing is to become of its upload.
    pub(super) fn disown(&self, remains: &Remains) {
        if let Remains::Staged { staged, .. } = remains {
            staged.disown();
            self.transfer.give_up(staged);
        }
    }

    /// As [`Filesystem::preserve`], for a file that another one takes the place of: its object can't wait. Where the disk has
    /// no room for it, whoever has it open is told that it went (ESTALE), as if another client had replaced it.
    pub(super) async fn preserve_replaced(
        &self,
        inode: &Arc<Inode>,
        prior: &Prior,
        object: Option<&Located>,
    ) -> Result<Remains> {
        match self.preserve(inode, prior, object, u64::MAX).await {
            Err(Error::StageFull) => {
                tracing::warn!(path = self.table.path_of(inode.ino()), NO_ROOM);
                self.preserve(inode, prior, object, PRESERVE_MAX).await
            }
            done => done,
        }
    }

    /// What open handles go on reading once the name is gone: bytes on the local disk, or the object of a file of more
    /// than `bring_max` bytes.
    async fn preserve(
        &self,
        inode: &Arc<Inode>,
        prior: &Prior,
        object: Option<&Located>,
        bring_max: u64,
    ) -> Result<Remains> {
        let is_open = inode.lock().opens.all > 0;
        if let Prior::Dirty(draft) = prior {
            // What goes up of it has no name to go to any more. What is only there is needed if this fails.
            self.transfer.call_back(&draft.staged);
            if is_open {
                self.bring_composed(&draft.staged).await?;
            }
            self.transfer.give_up_composition(&draft.staged);
        }
        let (staged, version) = match prior {
            Prior::Dirty(draft) => (Some(draft.staged.clone()), None),
            Prior::Clean(Clean { local, version }) => (local.clone(), Some(version)),
        };
        match (staged, version) {
            (Some(staged), _) => {
                if let (Some(object), true) = (object, is_open && !staged.is_complete()) {
                    self.hydrate_all(object, &staged).await?;
                }
                Ok(Remains::Staged { staged, base: None })
            }
            (None, Some(version)) if is_open && version.size > bring_max => {
                object.cloned().map(Remains::Object).ok_or(Error::Internal("a clean file has no object"))
            }
            (None, Some(version)) => {
                let staged = Arc::new(self.stage.over(version.size)?);
                if let (Some(object), true) = (object, is_open) {
                    // Replaced by another client: who tries again finds that out first.
                    let replaced = |error: &Error| matches!(error, Error::Stale).then(|| inode.lock().belief.forget());
                    self.hydrate_all(object, &staged).await.inspect_err(|error| _ = replaced(error))?;
                }
                Ok(Remains::Staged { staged, base: None })
            }
            (None, None) => Err(Error::Internal("a file has neither bytes nor an object")),
        }
    }

    /// Deletes the object that an unlinked file was still read from, unless the name is in use again. What the caller holds
    /// keeps everybody else from it.
    async fn remove_remains(&self, _alone: &MutexGuard<'_, ()>, ino: Ino, object: &Located) -> Result<()> {
        let Some((parent, name)) = self.hidden_place(ino, &object.key) else { return Ok(()) };
        let deleted = match self.store.delete(&object.key, Some(&object.version.etag)).await {
            // Replaced by somebody else meanwhile: theirs stays.
            Err(Error::PreconditionFailed | Error::NotFound) => Ok(()),
            Err(error) => {
                tracing::error!(key = %object.key, %error, "an unlinked file's object could not be deleted");
                Err(error)
            }
            done => done,
        };
        if let Ok(dir) = self.table.get(parent)
            && let Ok(body) = dir.inode().lock().dir()
        {
            body.names.unhide(&name, ino);
        }
        deleted
    }

    /// The last handle of an unlinked file is gone: so goes its object. A failure has no reader.
    pub(super) async fn let_remains_go(&self, ino: Ino, object: &Located) {
        let alone = self.remains.lock().await;
        let _ = self.remove_remains(&alone, ino, object).await;
    }

    /// Where the inode's name is hidden, if it still is: a name that was made anew is not.
    fn hidden_place(&self, ino: Ino, key: &ObjectKey) -> Option<(Ino, Name)> {
        let name = Name::from_key_segment(key.as_str().rsplit('/').next()?)?;
        self.table.all().into_iter().filter(|inode| inode.kind() == Kind::Dir).find_map(|dir| {
            let mut data = dir.lock();
            let hidden = data.dir().ok()?.names.hidden(&name);
            (hidden == Some(ino)).then(|| (dir.ino(), name.clone()))
        })
    }

    /// Brings the bytes that open handles of a nameless file still read to the local disk, so that they can be written.
    pub(super) async fn preserve_unlinked(&self, inode: &Arc<Inode>, object: &Located) -> Result<()> {
        let alone = self.remains.lock().await;
        self.bring_unlinked(&alone, inode, object).await?;
        // The bytes are safe whatever becomes of the object.
        let _ = self.remove_remains(&alone, inode.ino(), object).await;
        Ok(())
    }

    async fn bring_unlinked(&self, _alone: &MutexGuard<'_, ()>, inode: &Arc<Inode>, object: &Located) -> Result<()> {
        let waits = |inode: &Inode| Ok(matches!(inode.lock().file()?, FileState::Unlinked(Remains::Object(_))));
        if !waits(inode)? {
            return Ok(());
        }
        let staged = Arc::new(self.stage.over(object.version.size)?);
        self.hydrate_all(object, &staged).await?;
        inode.lock().apply(Event::Unlink(Remains::Staged { staged, base: None }))
    }

    /// Unlinked files whose objects wait for their last handle are brought to the local disk, and their objects go: the
    /// directory that hides them, or their name, is about to be something else.
    ///
    /// # Errors
    /// `StageFull`, and what S3 answers: an object that could not be deleted shows under its name again.
    pub(super) async fn bring_waiting(&self, waiting: &[Ino]) -> Result<()> {
        for ino in waiting {
            let Ok(pin) = self.table.get(*ino) else { continue };
            let object = match pin.inode().lock().file()? {
                FileState::Unlinked(Remains::Object(object)) => object.clone(),
                _ => continue,
            };
            let alone = self.remains.lock().await;
            if self.hidden_place(*ino, &object.key).is_some() {
                self.bring_unlinked(&alone, pin.inode(), &object).await?;
                self.remove_remains(&alone, *ino, &object).await?;
            }
        }
        Ok(())
    }

    /// Before a file takes a name: an unlinked one whose object waits under it makes room. Where the disk is too full for
    /// that, see [`Filesystem::preserve_replaced`].
    pub(super) async fn free_name(&self, parent: Ino, name: &Name) -> Result<()> {
        let waiting = self.table.get_plain(parent)?.lock().dir()?.names.hidden(name);
        match self.bring_waiting(waiting.as_slice()).await {
            Err(Error::StageFull) => {
                tracing::warn!(name = name.as_str(), NO_ROOM);
                Ok(())
            }
            done => done,
        }
    }

    /// Removes an empty directory and its marker.
    ///
    /// # Errors
    /// `NotEmpty`, `HiddenKeys`, `NotDirectory`, `NotFound`, `ReadOnly`, and what S3 answers.
    pub async fn rmdir(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Result<()> {
        self.refuse_read_only()?;
        let name = Name::parse(name)?;
        let _passage = self.table.pass(&[parent]).await;
        let pin = self.resolve(parent, &name).await?;
        if pin.inode().kind() != Kind::Dir {
            return Err(Error::NotDirectory);
        }
        let _closed = self.table.close_below(pin.ino()).await;
        let prefix = self.table.prefix_of(pin.ino())?;
        let has_marker = self.refuse_full(&pin, &prefix).await?;
        let waiting = pin.inode().lock().dir()?.names.all_hidden();
        self.bring_waiting(&waiting).await?;
        if let (true, Some(marker)) = (has_marker, prefix.marker()) {
            self.store.delete(&marker, None).await?;
        }
        self.note_name(parent, &name, None);
        self.table.get(parent)?.inode().lock().dir()?.held = true;
        pin.inode().lock().dir()?.held = false;
        self.table.detach(pin.ino());
        note_removed(pin.inode());
        Ok(())
    }

    /// `NotEmpty` unless nothing stands in the directory, neither here nor in S3. True when it has a marker.
    pub(super) async fn refuse_full(self: &Arc<Self>, pin: &Pin, prefix: &DirPrefix) -> Result<bool> {
        if self.table.children(pin.ino()).iter().any(|(_, child)| child.lock().is_local()) {
            return Err(Error::NotEmpty);
        }
        let began = Instant::now();
        let marker = prefix.marker();
        let mut request = ListRequest { prefix: prefix.as_str().to_owned(), max_keys: 3, ..ListRequest::default() };
        let mut has_marker = false;
        loop {
            let page = self.store.list(request.clone()).await?;
            for object in &page.objects {
                let rest = &object.key.as_str()[prefix.as_str().len()..];
                let first = rest.split('/').next().unwrap_or_default();
                if marker.as_ref() == Some(&object.key) {
                    has_marker = true;
                } else if let Some(name) = Name::from_key_segment(first) {
                    if rest.contains('/') || !pin.inode().lock().dir()?.names.is_gone_since(&name, began) {
                        return Err(Error::NotEmpty);
                    }
                } else {
                    return Err(Error::HiddenKeys(prefix.as_str().to_owned()));
                }
            }
            match page.next {
                Some(token) => request.continuation = Some(token),
                None => return Ok(has_marker),
            }
        }
    }
}

/// A directory without a name, if it is one, is still there for who has it open.
pub(super) fn note_removed(inode: &Arc<Inode>) {
    let mut data = inode.lock();
    let now = SystemTime::now();
    if let Ok(dir) = data.dir() {
        dir.removed = true;
        data.ownership.ctime = now;
    }
}

/// The object that stands in S3 for a file.
pub(super) fn object_of(prior: &Prior) -> Option<crate::types::Version> {
    match prior {
        Prior::Clean(clean) => Some(clean.version.clone()),
        Prior::Dirty(draft) => draft.origin.object().cloned(),
    }
}
