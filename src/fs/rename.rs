//! rename of files, and the way into the rename of directories.
//!
//! Owns the order of the two steps that S3 needs: a copy guarded by the source's ETag, and by the target's absence where nothing may
//! be replaced, then a delete guarded by the source's ETag; a draft that S3 has never seen is renamed here alone.

use std::sync::Arc;
use std::time::SystemTime;

use super::Filesystem;
use super::remove::{note_removed, object_of};
use crate::error::{Error, Result};
use crate::inode::{Clean, Draft, Inode, Kind, Listed, Located, Origin, Owned, Pin, Prior};
use crate::store::CopyAttributes;
use crate::types::{Expect, Ino, Name, ObjectKey, Version};

/// What to do about a target that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// rename(2): it is replaced.
    Replace,
    /// `RENAME_NOREPLACE`: `AlreadyExists`.
    NoReplace,
}

/// What a rename has done.
enum Moved {
    /// S3 has never seen the draft: it goes on, with this origin.
    Here(Origin),
    /// The object is this version now.
    Object(Prior, Version),
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub parent: Ino,
    pub name: &'a Name,
}

impl Filesystem {
    /// Moves a name.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists` with `NoReplace`, `IsDirectory`, `NotDirectory`, `NotEmpty`, `IntoItself`, `CrossDevice` for a
    /// directory of too many objects, `NotMovableYet`, `Stale` when the source was replaced in S3 meanwhile, and what S3 answers.
    pub async fn rename(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.refuse_read_only()?;
        let (name, new_name) = (Name::parse(name)?, Name::parse(new_name)?);
        let (from, to) = (At { parent, name: &name }, At { parent: new_parent, name: &new_name });
        self.end_compositions_at(parent, &name).await;
        self.end_compositions_at(new_parent, &new_name).await;
        let _passage = self.table.pass(&[parent, new_parent]).await;
        // Copies of a rename that fails are there for a while.
        let _changing = self.table.changes().changing();
        let source = self.resolve(parent, &name).await?;
        let target = match self.resolve(new_parent, &new_name).await {
            Ok(target) => Some(target),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        match &target {
            Some(target) if target.ino() == source.ino() => return Ok(()),
            Some(_) if mode == RenameMode::NoReplace => return Err(Error::AlreadyExists),
            _ => {}
        }
        match (source.inode().kind(), target.as_ref().map(|target| target.inode().kind())) {
            (Kind::Dir, Some(Kind::File)) => return Err(Error::NotDirectory),
            (Kind::File, Some(Kind::Dir)) => return Err(Error::IsDirectory),
            (Kind::Dir, _) => self.rename_dir(&source, target.as_ref(), from, to).await?,
            (Kind::File, None) => {
                self.free_name(new_parent, &new_name).await?;
                self.rename_file(&source, None, from, to, mode).await?;
            }
            (Kind::File, _) => self.rename_file(&source, target.as_ref(), from, to, mode).await?,
        }
        source.inode().lock().ownership.ctime = SystemTime::now();
        if let Some(target) = &target {
            note_removed(target.inode());
        }
        Ok(())
    }

    async fn rename_file(
        self: &Arc<Self>,
        source: &Pin,
        target: Option<&Pin>,
        from: At<'_>,
        to: At<'_>,
        mode: RenameMode,
    ) -> Result<()> {
        let (owned, replaced) = own_both(source.inode(), target.map(Pin::inode)).await?;
        refuse_away(&owned).await?;
        let from_key = self.table.key_of(source.ino())?;
        let to_key = self.table.prefix_of(to.parent)?.file(to.name)?;
        let there = replaced.as_ref().map(Owned::prior).transpose()?.and_then(object_of);
        let remains = match &replaced {
            Some(replaced) => {
                let object = there.clone().map(|version| Located { key: to_key.clone(), version });
                Some(self.preserve_replaced(replaced.inode(), replaced.prior()?, object.as_ref()).await?)
            }
            None => None,
        };
        let object = self.object_of(source.inode(), owned.prior()?, &from_key).await?;
        let moved = match owned.prior()?.clone() {
            Prior::Dirty(draft) if object.is_none() => {
                // Parts of it went up for the old name.
                self.transfer.call_back(&draft.staged);
                let origin = match (mode, there) {
                    (RenameMode::NoReplace, None) => Origin::Created { exclusive: false },
                    (_, there) => Origin::Replaced(there),
                };
                draft.staged.moved(&to_key, origin.object(), &origin.expect())?;
                Moved::Here(origin)
            }
            prior => {
                let version = object.ok_or(Error::Internal("a file to be moved has no object"))?;
                let known = source.inode().lock().attributes.clone();
                let kept = known.map(|known| CopyAttributes::keep(&known));
                let moved = self.move_object((&from_key, &version, kept), &to_key, mode, there.is_some()).await;
                match moved {
                    Ok(moved) => Moved::Object(prior, moved),
                    Err(error) => {
                        self.doubt_both(&owned, replaced.as_ref(), to)?;
                        return Err(error);
                    }
                }
            }
        };
        if let (Some(replaced), Some(remains)) = (replaced, remains) {
            self.disown(&remains);
            replaced.unlinked(remains)?;
        }
        let listed = match &moved {
            Moved::Here(_) => None,
            Moved::Object(_, version) => Some(Listed { kind: Kind::File, version: Some(version.clone()) }),
        };
        // The listing first: a lookup that finds no inode believes what it says.
        self.note_moved(from, to, listed)?;
        // Given back only at its new place: a commit that waits for it asks for the key next.
        self.table.rename_file(&owned, to.parent, to.name)?;
        match moved {
            Moved::Here(origin) => owned.reopen(origin),
            Moved::Object(prior, version) => settle_moved(owned, prior, version, &to_key),
        }
    }

    /// The names on both sides are known to have changed.
    pub(super) fn note_moved(&self, from: At<'_>, to: At<'_>, listed: Option<Listed>) -> Result<()> {
        self.note_name(from.parent, from.name, None);
        self.note_name(to.parent, to.name, listed);
        let left = self.table.get_plain(from.parent)?;
        left.lock().dir()?.held = true;
        Ok(())
    }

    /// Copies and deletes, or asks the bucket to rename where it can. The source comes with what is known of its attributes.
    async fn move_object(
        &self,
        (from, version, kept): (&ObjectKey, &Version, Option<CopyAttributes>),
        to: &ObjectKey,
        mode: RenameMode,
        replaces: bool,
    ) -> Result<Version> {
        let expect = match mode {
            RenameMode::Replace => Expect::Any,
            RenameMode::NoReplace => Expect::Absent,
        };
        let renames = self.store.capabilities().rename;
        let moved = match renames {
            true => self.store.rename(from, &version.etag, to, &expect).await.map(|()| version.clone()),
            false => self.transfer.copy(from, version, to, kept, &expect).await,
        };
        let moved = match moved {
            Ok(moved) if renames => return Ok(moved),
            Ok(moved) => moved,
            Err(Error::PreconditionFailed) if mode == RenameMode::NoReplace && self.store.head(to).await.is_ok() => {
                return Err(Error::AlreadyExists);
            }
            Err(Error::PreconditionFailed) => return Err(Error::Stale),
            Err(error) => return Err(error),
        };
        match self.store.delete(from, Some(&version.etag)).await {
            Ok(()) | Err(Error::NotFound) => Ok(moved),
            Err(Error::PreconditionFailed) => {
                tracing::warn!(%from, %to, "the source of a rename was replaced by another writer; the new one stays");
                Ok(moved)
            }
            Err(error) => self.source_stays((from, version), (to, moved), replaces, error).await,
        }
    }

    /// The delete of a move failed. One without an answer may have been done, or be done yet: the copy is then perhaps all
    /// that is left, and is never taken back.
    async fn source_stays(
        &self,
        (from, version): (&ObjectKey, &Version),
        (to, moved): (&ObjectKey, Version),
        replaces: bool,
        error: Error,
    ) -> Result<Version> {
        if error.is_transient() {
            return match self.store.head(from).await {
                Err(Error::NotFound) => Ok(moved),
                Ok(info) if info.version.etag != version.etag => Ok(moved),
                _ => Err(error),
            };
        }
        if !replaces && let Err(undo) = self.store.delete(to, Some(&moved.etag)).await {
            tracing::error!(%to, error = %undo, "the copy of a rename that failed could not be removed");
        }
        Err(error)
    }

    /// A move that failed may have been done in part: what is there is asked of S3 again.
    fn doubt_both(&self, source: &Owned, replaced: Option<&Owned>, to: At<'_>) -> Result<()> {
        for owned in [Some(source), replaced].into_iter().flatten() {
            owned.inode().lock().belief.forget();
        }
        let dir = self.table.get_plain(to.parent)?;
        let mut data = dir.lock();
        let names = &mut data.dir()?.names;
        names.forget_listing();
        names.note_found(to.name);
        Ok(())
    }
}

/// The file stands for its object at the new place.
pub(super) fn settle_moved(owned: Owned, prior: Prior, moved: Version, key: &ObjectKey) -> Result<()> {
    match prior {
        Prior::Clean(Clean { local, .. }) => owned.settle_clean(Clean { version: moved, local }, |_| {}),
        Prior::Dirty(draft) => {
            let origin = draft.moved_origin(moved);
            note_place(&draft, key, &origin);
            owned.reopen(origin)
        }
    }
}

/// The journal follows a draft whose object S3 has moved already. Where that can't be noted a killed run's file is a conflict for
/// the next one, and kept.
pub(super) fn note_place(draft: &Draft, key: &ObjectKey, origin: &Origin) {
    if let Err(error) = draft.staged.moved(key, origin.object(), &origin.expect()) {
        tracing::warn!(%key, %error, "the journal does not know where a file was moved to");
    }
}

/// An upload that has the only bytes of some part can't become an object under another name.
pub(super) async fn refuse_away(owned: &Owned) -> Result<()> {
    let Prior::Dirty(draft) = owned.prior()? else { return Ok(()) };
    // Who had a ticket may have sent a part away.
    owned.writers_gone().await;
    if draft.staged.has_away() { Err(Error::NotMovableYet) } else { Ok(()) }
}

/// Two files at once, in the order of their numbers, so that two renames can't wait for each other.
async fn own_both(source: &Arc<Inode>, target: Option<&Arc<Inode>>) -> Result<(Owned, Option<Owned>)> {
    match target {
        None => Ok((source.own_by_name().await?, None)),
        Some(target) if target.ino() < source.ino() => {
            let target = target.own_by_name().await?;
            Ok((source.own_by_name().await?, Some(target)))
        }
        Some(target) => {
            let source = source.own_by_name().await?;
            Ok((source, Some(target.own_by_name().await?)))
        }
    }
}
