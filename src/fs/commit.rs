//! flush, fsync, and the commit behind them: dirty bytes become an object, or the caller learns why not.
//!
//! Owns what is committed when, what a failure does, and the retries. A commit runs in a task of its own: a caller that
//! gives up waiting does not stop it half-way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::Filesystem;
use super::change::touch;
use super::conflict::Resolved;
use super::send_ahead::take_stored_time;
use crate::backoff::Backoff;
use crate::config::CommitMode;
use crate::error::{Error, Result};
use crate::inode::{
    Clean, Draft, FileState, Inode, Kind, Listed, NodeData, Origin, Owned, Passage, Phase, Prior, Settled, XattrChanges,
};
use crate::stage::StagedFile;
use crate::store::Attributes;
use crate::types::{Fh, ObjectKey, Version};

/// Pauses before a commit that failed is tried again, also one of an earlier run.
pub(super) const RETRY: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// Which drafts a commit takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those that were written: what a flush means.
    Written,
    /// Also new files that were never written: fsync, and the last close.
    Everything,
}

/// How far a commit is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// S3 has the object.
    Stored,
    /// The journal knows of it: the next mount stores it if this one can't.
    Sealed,
}

/// Files that were closed and are not stored, at most: each keeps a descriptor. Who closes another one waits for it.
pub(super) const MEANWHILE: usize = 256;

impl Filesystem {
    /// close(2) of one descriptor: returns only after S3 has what was written (with `commit=async` after the local disk has it),
    /// and returns its error. A handle that can't write is told nothing of another's failure.
    ///
    /// # Errors
    /// `BadHandle`, `Stale` for a conflict, `AlreadyExists` for the loser of an exclusive create, and what S3 answers.
    pub async fn flush(self: &Arc<Self>, fh: Fh) -> Result<()> {
        let handle = self.file_handle(fh)?;
        if !handle.intent.writes() {
            return Ok(());
        }
        self.commit_closed(handle.pin.inode(), Scope::Written).await
    }

    /// fsync(2), also of a new file that was never written.
    ///
    /// # Errors
    /// As [`Filesystem::flush`].
    pub async fn fsync(self: &Arc<Self>, fh: Fh) -> Result<()> {
        let handle = self.file_handle(fh)?;
        self.commit(handle.pin.inode(), Scope::Everything).await
    }

    /// Commits a file if it is dirty, or waits for the commit that is under way.
    pub(super) async fn commit(self: &Arc<Self>, inode: &Arc<Inode>, scope: Scope) -> Result<()> {
        self.commit_until(inode, scope, Until::Stored).await
    }

    /// As [`Filesystem::commit`], as far as a close waits for it.
    pub(super) async fn commit_closed(self: &Arc<Self>, inode: &Arc<Inode>, scope: Scope) -> Result<()> {
        let until = match self.settings.commit {
            CommitMode::Close => Until::Stored,
            CommitMode::Async => Until::Sealed,
        };
        self.commit_until(inode, scope, until).await
    }

    async fn commit_until(self: &Arc<Self>, inode: &Arc<Inode>, scope: Scope, mut until: Until) -> Result<()> {
        loop {
            let owner = {
                let data = inode.lock();
                let state = data.file()?;
                if let FileState::Dirty(draft) | FileState::Uploading(draft, _) = state
                    && wants_the_end(&data, draft)
                {
                    until = Until::Stored;
                }
                match state {
                    FileState::Unlinked(_) | FileState::Removed if data.lost => return Err(Error::AlreadyExists),
                    FileState::Clean(_) | FileState::Unlinked(_) | FileState::Removed => return Ok(()),
                    FileState::Dirty(Draft { phase: Phase::Born, .. }) if scope == Scope::Written => return Ok(()),
                    FileState::Dirty(_) => None,
                    FileState::Uploading(_, settled) | FileState::Moving(_, settled) => Some(settled.clone()),
                }
            };
            // Nobody writes while a file is owned: what this caller wrote is in it. Go round, for it may have been a move.
            match (owner, until) {
                (Some(settled), Until::Stored) => settled.wait().await?,
                (Some(settled), Until::Sealed) => {
                    if settled.wait_for_seal().await? {
                        return Ok(());
                    }
                }
                (None, Until::Stored) => return self.commit_in_task(inode).await,
                (None, Until::Sealed) => return self.commit_meanwhile(inode).await,
            }
        }
    }

    async fn commit_in_task(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let (fs, inode) = (self.clone(), inode.clone());
        let task = self.runtime.spawn(async move { fs.commit_now(&inode, None).await });
        task.await.unwrap_or(Err(Error::Internal("a commit ended in a panic")))
    }

    /// Returns when the journal knows of it, or with what ended the commit before. When too many files are behind this one is
    /// waited for.
    async fn commit_meanwhile(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let Ok(place) = self.meanwhile.clone().try_acquire_owned() else { return self.commit_in_task(inode).await };
        let (tell, told) = oneshot::channel();
        let (fs, inode) = (self.clone(), inode.clone());
        let task = self.runtime.spawn(async move {
            let outcome = fs.commit_now(&inode, Some(tell)).await;
            let mut data = inode.lock();
            if data.commit_failed && matches!(data.file(), Ok(FileState::Dirty(_) | FileState::Uploading(..))) {
                // Still behind, until it is stored or goes.
                data.behind = Some(place);
            }
            drop(data);
            outcome
        });
        if let Ok(settled) = told.await
            && settled.wait_for_seal().await?
        {
            return Ok(());
        }
        task.await.unwrap_or(Err(Error::Internal("a commit ended in a panic")))
    }

    /// Passes the gate of the file's directory. The place may change while waiting, so it is looked at again.
    pub(super) async fn pass_to(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<Passage> {
        loop {
            let place = self.table.place(inode.ino()).ok_or(Error::NotFound)?;
            let passage = self.table.pass(&[place.parent]).await;
            if self.table.place(inode.ino()).is_some_and(|now| now.parent == place.parent) {
                return Ok(passage);
            }
        }
    }

    /// Takes a file within a passage of the directory that it is in by then: it may be moved while it is waited for.
    ///
    /// # Errors
    /// `NotFound` for a file without a name.
    pub(super) async fn own_in_place(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<(Passage, Owned)> {
        loop {
            let passage = self.pass_to(inode).await?;
            let owned = inode.own().await?;
            if self.table.place(inode.ino()).is_some_and(|place| passage.is_through(place.parent)) {
                return Ok((passage, owned));
            }
        }
    }

    /// `tell` gets what to wait for, once the file is taken.
    async fn commit_now(self: &Arc<Self>, inode: &Arc<Inode>, tell: Option<oneshot::Sender<Settled>>) -> Result<()> {
        // Before all that holds the draft, so that it is dropped after that: whoever waits for room waits for this.
        let _under_way = self.stage.under_way();
        let (passage, owned) = match self.own_in_place(inode).await {
            Ok(both) => both,
            Err(Error::NotFound) => return keep_nameless(inode),
            Err(error) => return Err(error),
        };
        if let Some(tell) = tell {
            // Who is not there any more needs no word.
            _ = tell.send(owned.settled().clone());
        }
        let outcome = self.commit_owned(owned, &passage).await;
        drop(passage);
        let outcome = match outcome {
            Ok(()) => self.store_late_changes(inode).await,
            failed => failed,
        };
        self.table.forget_if_unused(inode.ino());
        outcome
    }

    /// Commits a file that the caller owns, within a passage that the caller holds.
    async fn commit_owned(self: &Arc<Self>, owned: Owned, _passage: &Passage) -> Result<()> {
        let draft = match owned.prior()? {
            Prior::Dirty(draft) => draft.clone(),
            Prior::Clean(_) => return Ok(()),
        };
        owned.writers_gone().await;
        let inode = owned.inode().clone();
        let began = SystemTime::now();
        match self.published(&owned, &draft).await {
            Ok((version, attributes)) => self.settle_published(owned, &draft, version, attributes),
            Err((error, attributes)) => {
                self.note_attempt(&inode, &draft, &error, attributes, began).await;
                self.settle_unpublished(owned, &draft, error).await
            }
        }
    }

    pub(super) fn settle_published(
        &self,
        owned: Owned,
        draft: &Draft,
        version: Version,
        attributes: Attributes,
    ) -> Result<()> {
        let inode = owned.inode().clone();
        // A file that is larger than the stage does not go on filling it.
        let fits = !draft.staged.has_away();
        draft.staged.clean();
        let key = self.table.key_of(inode.ino());
        let local = (fits && inode.lock().opens.all > 0).then(|| draft.staged.clone());
        if local.is_none() {
            draft.staged.leave();
        }
        if let (None, Ok(key)) = (&local, key) {
            // Its last close was before; else that one does this.
            self.transfer.keep_written(&key, &version, draft.staged.clone());
        }
        let settled = self.settle_stored(owned, Clean { version, local }, attributes);
        // Only now: until the state said so its bytes were not to be read from the object.
        self.transfer.give_up_composition(&draft.staged);
        settled
    }

    /// The file is this object, which was made here just now.
    pub(super) fn settle_stored(&self, owned: Owned, clean: Clean, attributes: Attributes) -> Result<()> {
        let listed = Listed { kind: Kind::File, version: Some(clean.version.clone()) };
        let keeps = self.keeps_metadata();
        let span = self.file_span();
        let modified = clean.version.modified;
        // While the file can't be moved: its name is then the one that was committed.
        self.note_name_changed(owned.inode(), Some(listed));
        owned.settle_clean(clean, |data| {
            if data.xattr_changes.are_in(&attributes.metadata) {
                data.xattr_changes = XattrChanges::default();
            }
            data.attributes = Some(Arc::new(attributes));
            data.committed = Some(Instant::now());
            data.belief.checked(Instant::now(), true, span);
            data.attempts.clear();
            if keeps {
                take_stored_time(data);
            } else {
                data.ownership.mtime = modified;
            }
        })
    }

    async fn settle_unpublished(self: &Arc<Self>, owned: Owned, draft: &Draft, error: Error) -> Result<()> {
        let inode = owned.inode().clone();
        let path = self.table.path_of(inode.ino());
        let conflict = matches!(error, Error::PreconditionFailed | Error::Stale);
        if conflict && let Err(error) = self.bring_composed(&draft.staged).await {
            tracing::warn!(path, %error, "a file was copied within S3 and can't be stored; its bytes could not be kept here");
        }
        if conflict && matches!(draft.origin, Origin::Created { exclusive: true }) {
            return self.lose_exclusive(owned, draft, &path).await;
        }
        let error = if conflict {
            match self.resolve_conflict(&inode, draft, &path).await {
                Ok(Resolved::Replaced(version, attributes)) => {
                    return self.settle_published(owned, draft, version, *attributes);
                }
                Ok(Resolved::Beside(theirs)) => return self.settle_beside(owned, draft, theirs),
                Err(error) => error,
            }
        } else {
            error
        };
        let conflict = matches!(error, Error::PreconditionFailed | Error::Stale);
        let told = if conflict { Error::Stale } else { error };
        tracing::warn!(path, error = %told, "a commit failed; the bytes are kept");
        self.persist(&draft.staged).await;
        owned.settle_failed(told.clone())?;
        if !conflict {
            self.retry_later(&inode);
        }
        Err(told)
    }

    /// Another writer made the name first: `O_EXCL` means that its file is the one, and ours never was, also when theirs is gone
    /// by now. A lock that nobody holds would be the end of who waits for it.
    async fn lose_exclusive(&self, owned: Owned, draft: &Draft, path: &str) -> Result<()> {
        let key = self.table.key_of(owned.inode().ino())?;
        self.keep_loser(draft, &key, path).await;
        let theirs = self.store.head(&key).await.ok().map(|info| info.version);
        self.give_name_away(owned, theirs, Err(Error::AlreadyExists))?;
        Err(Error::AlreadyExists)
    }

    /// For `recover`, and not for the next mount to store: the program was told that it has no such file.
    async fn keep_loser(&self, draft: &Draft, key: &ObjectKey, path: &str) {
        let staged = &draft.staged;
        let noted = match staged.size() == 0 || !staged.is_complete() {
            true => Err(None),
            false => self.note_open(staged, key, None, &draft.origin.expect()).map_err(Some),
        };
        match noted {
            Ok(()) => {
                staged.keep();
                self.persist(staged).await;
                tracing::warn!(path, kept = %staged.path().display(), "another writer created the file first");
            }
            Err(error) => {
                staged.disown();
                if let Some(error) = error {
                    tracing::warn!(path, %error, "another writer created the file first; these bytes could not be kept");
                }
            }
        }
    }

    /// Staged bytes that have nowhere else to be survive a loss of power too. Those on their way to S3 need not: that would
    /// cost each small file more than its upload.
    pub(super) async fn persist(&self, staged: &Arc<StagedFile>) {
        let file = staged.clone();
        let synced = self.runtime.spawn_blocking(move || file.fsync()).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(file = %staged.path().display(), %error, "staged bytes may not survive a loss of power");
        }
    }

    /// The directory learns that a name in it stands for something else now. The caller owns the file. That is no change of the
    /// directory: its time stays.
    pub(super) fn note_name_changed(&self, inode: &Arc<Inode>, listed: Option<Listed>) {
        let Some(place) = self.table.place(inode.ino()) else { return };
        let Ok(dir) = self.table.get(place.parent) else { return };
        if let Ok(body) = dir.inode().lock().dir() {
            body.names.note_change(&place.name, listed);
        }
    }

    /// A name came or went, by place. The directory's own time is now.
    pub(super) fn note_name(&self, parent: crate::types::Ino, name: &crate::types::Name, listed: Option<Listed>) {
        let Ok(dir) = self.table.get(parent) else { return };
        let mut data = dir.inode().lock();
        touch(&mut data.ownership);
        if let Ok(body) = data.dir() {
            body.names.note_change(name, listed);
        }
    }

    /// A file whose commit failed is tried again, after a pause that grows. Where a close waits for S3, one that is open for writing
    /// is left to its writer's close.
    fn retry_later(self: &Arc<Self>, inode: &Arc<Inode>) {
        if self.stopping.load(Ordering::Relaxed) || std::mem::replace(&mut inode.lock().retrying, true) {
            return;
        }
        let fs = Arc::downgrade(self);
        let inode = Arc::downgrade(inode);
        self.runtime.spawn(async move {
            let mut pause = RETRY.pause(1);
            loop {
                {
                    let Some(inode) = inode.upgrade() else { return };
                    if let Some(attempts) = failures(&inode) {
                        pause = RETRY.pause(attempts);
                    }
                }
                tokio::time::sleep(pause).await;
                let (Some(fs), Some(inode)) = (fs.upgrade(), inode.upgrade()) else { return };
                let is_its_turn = {
                    let mut data = inode.lock();
                    // Somebody moves it, perhaps, and it is as it was after that.
                    data.retrying = matches!(data.file(), Ok(FileState::Uploading(..)));
                    match data.file() {
                        Ok(FileState::Uploading(..)) => continue,
                        Ok(FileState::Dirty(Draft { phase: Phase::Failed { .. }, .. })) => {
                            data.opens.writing == 0 || fs.settings.commit == CommitMode::Async
                        }
                        _ => false,
                    }
                };
                // A failure begins this anew.
                if is_its_turn && fs.commit(&inode, Scope::Everything).await.is_ok() {
                    tracing::info!(path = fs.table.path_of(inode.ino()), "a commit that had failed is done");
                }
                return;
            }
        });
    }
}

/// How often in a row a draft could not be stored.
fn failures(inode: &Arc<Inode>) -> Option<u32> {
    match inode.lock().file() {
        Ok(FileState::Dirty(Draft { phase: Phase::Failed { attempts, .. }, .. })) => Some(*attempts),
        _ => None,
    }
}

/// Of an exclusive create the caller wants to know whether it has won, and of what failed before whether it is stored now. The
/// journal does not know either what an upload without an answer may have made.
fn wants_the_end(data: &NodeData, draft: &Draft) -> bool {
    matches!(draft.origin, Origin::Created { exclusive: true }) || data.commit_failed || !data.attempts.is_empty()
}

/// An unlinked file has nothing to commit. A draft whose name went in another way does, and nowhere to put it.
fn keep_nameless(inode: &Arc<Inode>) -> Result<()> {
    let data = inode.lock();
    match data.file()? {
        FileState::Dirty(draft) => {
            draft.staged.keep();
            Err(Error::Stale)
        }
        _ if data.lost => Err(Error::AlreadyExists),
        _ => Ok(()),
    }
}
