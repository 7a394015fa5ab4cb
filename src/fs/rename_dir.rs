//! rename of a directory: every object below it is copied, then deleted, while nothing below it may change.
//!
//! Owns what is refused before anything is touched (too many objects, keys that can't be shown, names that get too long), the
//! undoing of copies when one of them fails, and what inodes below stand for afterwards. What a kill in between leaves is noted in
//! [`super::rename_journal`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};

use super::Filesystem;
use super::create::empty;
use super::remove::object_of;
use super::rename::{At, note_place, refuse_away, settle_moved};
use super::rename_journal::Begun;
use crate::error::{Error, Result};
use crate::inode::{Kind, Listed, Owned, Pin, Prior};
use crate::store::{Attributes, ListRequest, ListedObject};
use crate::types::{DirPrefix, Expect, Ino, KEY_MAX, Name, ObjectKey, Version};

/// One object on its way.
#[derive(Clone)]
pub(super) struct Move {
    pub from: ObjectKey,
    pub to: ObjectKey,
    pub version: Version,
}

impl Move {
    /// The object is only there for its directory.
    pub fn is_marker(&self) -> bool {
        self.from.as_str().ends_with('/') && self.version.size == 0
    }
}

impl Filesystem {
    pub(super) async fn rename_dir(
        self: &Arc<Self>,
        source: &Pin,
        target: Option<&Pin>,
        from: At<'_>,
        to: At<'_>,
    ) -> Result<()> {
        if self.table.is_at_or_below(to.parent, source.ino()) {
            return Err(Error::IntoItself);
        }
        if let Some(target) = target {
            let prefix = self.table.prefix_of(target.ino())?;
            self.refuse_full(target, &prefix).await?;
            let waiting = target.inode().lock().dir()?.names.all_hidden();
            self.bring_waiting(&waiting).await?;
        }
        let waiting = self.table.get_plain(to.parent)?.lock().dir()?.names.hidden(to.name);
        self.bring_waiting(waiting.as_slice()).await?;
        let closed = self.table.close_below(source.ino()).await;
        // Else their objects would be all that is left of the old directory, and show it.
        self.bring_waiting(&self.waiting_below(source)).await?;
        let old = self.table.prefix_of(source.ino())?;
        let new = self.table.prefix_of(to.parent)?.dir(to.name)?;
        let moves = self.plan_moves(&old, &new).await?;
        let owned = self.own_below(source).await?;
        for owned in &owned {
            refuse_away(owned).await?;
        }
        self.refuse_long_names(source, &old, &new)?;
        let mut begun = self.begin_rename((&old, &new), &moves, &owned).await?;
        let moved = match self.copy_all_noted(&mut begun, &moves, &new, target.is_some()).await {
            Ok(moved) => moved,
            Err(error) => {
                self.end_rename(begun).await;
                return Err(error);
            }
        };
        let deleted = self.delete_all(&moves).await;
        self.forget_listings(source);
        // The listing first: a lookup that finds no inode believes what it says.
        self.note_moved(from, to, Some(Listed { kind: Kind::Dir, version: None }))?;
        self.table.rename_dir(&closed, to.parent, to.name)?;
        let moved =
            moves.iter().filter_map(|step| Some((&step.from, (&step.version, moved.get(&step.from)?)))).collect();
        for owned in owned {
            self.settle_below(owned, &moved, (&old, &new))?;
        }
        // Only now: a draft that a kill keeps from being told its new place is told by the next mount.
        self.end_rename(begun).await;
        deleted
    }

    /// Copies all and says so in the journal, or leaves no copy.
    async fn copy_all_noted(
        &self,
        begun: &mut Begun,
        moves: &[Move],
        new: &DirPrefix,
        replaces: bool,
    ) -> Result<HashMap<ObjectKey, Version>> {
        // The marker of an empty directory that was there before.
        let stays = new.marker().filter(|_| replaces);
        let moved = self.copy_all(moves, stays.as_ref()).await?;
        if moves.is_empty() {
            if let Some(marker) = new.marker() {
                self.store.put(&marker, empty(), &Attributes::default(), &Expect::Any).await?;
            }
            return Ok(moved);
        }
        if let Err(error) = self.note_copied(begun, &moved).await {
            let made = moves.iter().filter_map(|step| Some((step.clone(), moved.get(&step.from)?.clone())));
            self.undo_copies(made, stays.as_ref()).await;
            return Err(error);
        }
        Ok(moved)
    }

    /// Every object to move, or why none is.
    async fn plan_moves(&self, old: &DirPrefix, new: &DirPrefix) -> Result<Vec<Move>> {
        let mut moves = Vec::new();
        let mut request = ListRequest { prefix: old.as_str().to_owned(), ..ListRequest::default() };
        loop {
            let page = self.store.list(request.clone()).await?;
            for ListedObject { key, version, .. } in page.objects {
                let rest = &key.as_str()[old.as_str().len()..];
                if !is_a_path(rest) {
                    return Err(Error::HiddenKeys(old.as_str().to_owned()));
                }
                let to = format!("{}{rest}", new.as_str());
                if to.len() > KEY_MAX {
                    return Err(Error::NameTooLong);
                }
                moves.push(Move { to: ObjectKey::from_store(to), from: key, version });
            }
            if moves.len() as u64 > self.settings.rename_dir_limit {
                return Err(Error::CrossDevice);
            }
            match page.next {
                Some(token) => request.continuation = Some(token),
                None => return Ok(moves),
            }
        }
    }

    /// `NameTooLong` where the key of something that S3 has never seen would be.
    fn refuse_long_names(&self, source: &Pin, old: &DirPrefix, new: &DirPrefix) -> Result<()> {
        let grows = new.as_str().len().saturating_sub(old.as_str().len());
        for inode in self.table.below(source.ino()) {
            let length = match inode.kind() {
                Kind::File => self.table.key_of(inode.ino())?.as_str().len(),
                Kind::Dir => self.table.prefix_of(inode.ino())?.as_str().len(),
            };
            if length + grows > KEY_MAX {
                return Err(Error::NameTooLong);
            }
        }
        Ok(())
    }

    /// Unlinked files at and below a directory whose objects wait for their last handle.
    fn waiting_below(&self, top: &Pin) -> Vec<Ino> {
        let mut waiting = Vec::new();
        for inode in self.table.below(top.ino()).iter().chain([top.inode()]) {
            if let Ok(dir) = inode.lock().dir() {
                waiting.extend(dir.names.all_hidden());
            }
        }
        waiting
    }

    /// Nobody passes the gate now, so nobody else owns what is below.
    async fn own_below(&self, source: &Pin) -> Result<Vec<Owned>> {
        let mut files = self.table.below(source.ino());
        files.retain(|inode| inode.kind() == Kind::File);
        files.sort_by_key(|inode| inode.ino());
        let mut owned = Vec::new();
        for file in files {
            match file.own().await {
                Ok(file) => owned.push(file),
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(owned)
    }

    /// Copies all, or leaves no copy. After a failure no copy is begun, but those under way are waited for: one that was
    /// dropped could still be made. `stays` is never removed.
    async fn copy_all(&self, moves: &[Move], stays: Option<&ObjectKey>) -> Result<HashMap<ObjectKey, Version>> {
        let failed = AtomicBool::new(false);
        let stop = &failed;
        let work = moves.iter().cloned().map(|step| async move {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let copied = self.copy_one(&step).await;
            stop.fetch_or(copied.is_err(), Ordering::Relaxed);
            Some((step, copied))
        });
        let results: Vec<Option<(Move, Result<Version>)>> =
            stream::iter(work).buffer_unordered(self.settings.transfer.concurrency.max(1)).collect().await;
        let mut made = Vec::new();
        let mut failure = None;
        for (step, copied) in results.into_iter().flatten() {
            match copied {
                Ok(version) => made.push((step, version)),
                Err(error) => failure = Some(error),
            }
        }
        let Some(error) = failure else {
            return Ok(made.into_iter().map(|(step, version)| (step.from, version)).collect());
        };
        self.undo_copies(made.into_iter(), stays).await;
        Err(match error {
            Error::PreconditionFailed | Error::NotFound => Error::Stale,
            other => other,
        })
    }

    async fn undo_copies(&self, made: impl Iterator<Item = (Move, Version)>, stays: Option<&ObjectKey>) {
        for (Move { to, .. }, version) in made.filter(|(step, _)| Some(&step.to) != stays) {
            if let Err(undo) = self.store.delete(&to, Some(&version.etag)).await {
                tracing::error!(key = %to, error = %undo, "the copy of a rename that failed could not be removed");
            }
        }
    }

    /// A directory's marker is made anew: some stores keep markers as directories, and copy none. Others are copied.
    async fn copy_one(&self, step: &Move) -> Result<Version> {
        if step.is_marker() {
            let attributes = self.store.head(&step.from).await?.attributes;
            let attributes = self.transfer.with_tags(&step.from, attributes).await?;
            return self.store.put(&step.to, empty(), &attributes, &Expect::Any).await;
        }
        // A listing does not tell the encryption, and a copy that names none may get another: it is asked for.
        self.transfer.copy(&step.from, &step.version, &step.to, None, &Expect::Any).await
    }

    /// Deletes the sources, each only if it is what was copied.
    pub(super) async fn delete_all(&self, moves: &[Move]) -> Result<()> {
        let work = moves.iter().cloned().map(|step| async move {
            match self.store.delete(&step.from, Some(&step.version.etag)).await {
                Ok(()) | Err(Error::NotFound) => Ok(()),
                Err(Error::PreconditionFailed) => {
                    tracing::warn!(key = %step.from, "replaced by another writer during a rename; the new one stays");
                    Ok(())
                }
                Err(error) => {
                    tracing::error!(key = %step.from, %error, "the source of a rename could not be removed");
                    Err(error)
                }
            }
        });
        let results: Vec<Result<()>> =
            stream::iter(work).buffer_unordered(self.settings.transfer.concurrency.max(1)).collect().await;
        results.into_iter().collect()
    }

    /// What a file below, at its new place already, stands for now. `moved` has the version that was moved and its copy.
    fn settle_below(
        &self,
        owned: Owned,
        moved: &HashMap<&ObjectKey, (&Version, &Version)>,
        (old, new): (&DirPrefix, &DirPrefix),
    ) -> Result<()> {
        let prior = owned.prior()?.clone();
        let to = self.table.key_of(owned.inode().ino())?;
        let rest = to.as_str().strip_prefix(new.as_str()).unwrap_or_default();
        let from = ObjectKey::from_store(format!("{}{rest}", old.as_str()));
        match (object_of(&prior), moved.get(&from)) {
            (Some(known), Some((source, copy))) if source.same_bytes(&known) => {
                settle_moved(owned, prior, Version::clone(copy), &to)
            }
            // Never in S3, gone from there, or another client's by now: dropping gives it back as it was, so that a draft meets
            // what it is not based on, and the next question is asked of S3.
            _ => {
                if let Prior::Dirty(draft) = &prior {
                    // Parts of it went up for the old name.
                    self.transfer.call_back(&draft.staged);
                    note_place(draft, &to, &draft.origin);
                }
                owned.inode().lock().belief.forget();
                Ok(())
            }
        }
    }

    /// Versions below may have changed: a copy of a multipart object has another ETag.
    fn forget_listings(&self, source: &Pin) {
        let below = self.table.below(source.ino());
        for inode in below.iter().chain([source.inode()]) {
            if let Ok(dir) = inode.lock().dir() {
                dir.names.forget_listing();
            }
        }
    }
}

/// True when every segment of a key below a directory can be shown. The empty rest is the directory's own marker.
fn is_a_path(rest: &str) -> bool {
    let inner = rest.strip_suffix('/').unwrap_or(rest);
    rest.is_empty() || inner.split('/').all(|segment| Name::from_key_segment(segment).is_some())
}

#[cfg(test)]
mod tests {
    use super::is_a_path;

    #[test]
    fn only_keys_that_can_be_shown_may_move() {
        for good in ["", "a", "a/", "a/b", "a/b/"] {
            assert!(is_a_path(good), "{good:?}");
        }
        for bad in ["/", "/a", "a//b", "a//", ".", "a/../b", "a/\0"] {
            assert!(!is_a_path(bad), "{bad:?}");
        }
    }
}
