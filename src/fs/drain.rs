//! The end of a mount: what is closed is committed, what is open is kept, and nothing is lost.
//!
//! Owns which drafts may be published at the end. A file that a program still has open for writing is not: half a file under its
//! final key is worse than a file that waits in the stage.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};

use super::Filesystem;
use super::commit::Scope;
use crate::error::{Error, Result};
use crate::inode::{Draft, FileState, Inode, Kind};

/// Longest wait for uploads that are taken back at the end.
const UPLOADS_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait for clean bytes that are still being written to the disk cache.
const KEPT_LIMIT: Duration = Duration::from_secs(5);

/// How the end went.
#[derive(Debug, Default)]
pub struct Drained {
    /// Files that were dirty and are in S3 now.
    pub committed: usize,
    /// Files that could not be committed, with their paths below the mountpoint; they stay in the stage.
    pub left: Vec<(String, Error)>,
    /// Files that programs had open and had not closed or synced; they stay in the stage.
    pub open: Vec<String>,
}

impl Drained {
    fn add(&mut self, path: String, outcome: Result<bool>) {
        match outcome {
            Ok(true) => self.committed += 1,
            Ok(false) => self.open.push(path),
            Err(error) => self.left.push((path, error)),
        }
    }
}

/// Whether programs may still hold files open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    /// As far as is known here.
    Possible,
    /// None can: the mount is gone, which it could not be while a file was open. The kernel does not always tell of the last
    /// close of such a file.
    None,
}

impl Filesystem {
    /// Commits everything that is closed, for at most `limit`. No more retries are begun after this.
    pub async fn drain(self: &Arc<Self>, limit: Duration, holders: Holders) -> Drained {
        self.stopping.store(true, Ordering::Relaxed);
        let mut outcome = Drained::default();
        let mut closed = Vec::new();
        // Before anything is waited for: whoever gives up waiting drops it all.
        for inode in self.table.all() {
            if let Ok(FileState::Dirty(draft) | FileState::Uploading(draft, _)) = inode.lock().file() {
                draft.staged.keep();
            }
        }
        for inode in self.table.all() {
            match dirtiness(&inode, holders) {
                Dirtiness::Clean => {}
                Dirtiness::Closed => closed.push(inode),
                Dirtiness::Open => {
                    let path = self.table.path_of(inode.ino());
                    self.keep(&inode).await;
                    outcome.open.push(path);
                }
            }
        }
        let mut results = pin!(self.commit_each(closed, limit, holders));
        while let Some((inode, path, result)) = results.next().await {
            if !matches!(result, Ok(true)) {
                self.keep(&inode).await;
            }
            outcome.add(path, result);
        }
        self.transfer.uploads_gone(UPLOADS_LIMIT.min(limit)).await;
        self.transfer.kept(KEPT_LIMIT.min(limit)).await;
        outcome
    }

    /// Commits everything that is closed, for at most `limit`, while the mount goes on being used: what is closed later is not
    /// waited for. Files that are open for writing are named, and left as they are.
    pub async fn sync(self: &Arc<Self>, limit: Duration) -> Drained {
        let mut outcome = Drained::default();
        let mut closed = Vec::new();
        for inode in self.table.all() {
            match dirtiness(&inode, Holders::Possible) {
                Dirtiness::Clean => {}
                Dirtiness::Closed => closed.push(inode),
                Dirtiness::Open => outcome.open.push(self.table.path_of(inode.ino())),
            }
        }
        let mut results = pin!(self.commit_each(closed, limit, Holders::Possible));
        while let Some((_, path, result)) = results.next().await {
            outcome.add(path, result);
        }
        outcome
    }

    /// Commits files, several at once; false for one that is open for writing by then.
    fn commit_each(
        self: &Arc<Self>,
        files: Vec<Arc<Inode>>,
        limit: Duration,
        holders: Holders,
    ) -> impl Stream<Item = (Arc<Inode>, String, Result<bool>)> {
        let deadline = tokio::time::Instant::now() + limit;
        let work = files.into_iter().map(move |inode| async move {
            let path = self.table.path_of(inode.ino());
            let done = tokio::time::timeout_at(deadline, self.commit_afresh(&inode, holders)).await;
            (inode, path, done.unwrap_or_else(|_| Err(Error::Timeout("the commit took too long".into()))))
        });
        stream::iter(work).buffer_unordered(self.settings.transfer.concurrency.max(1))
    }

    /// A commit that is under way was begun when things may have been worse: its failure is not the last word. False for a file
    /// that is being written again after it.
    async fn commit_afresh(self: &Arc<Self>, inode: &Arc<Inode>, holders: Holders) -> Result<bool> {
        let owner = inode.lock().file()?.owner().cloned();
        if let Some(settled) = owner {
            // How it ended shows in the state.
            drop(settled.wait().await);
        }
        if matches!(dirtiness(inode, holders), Dirtiness::Open) {
            return Ok(false);
        }
        self.commit(inode, Scope::Everything).await.map(|()| true)
    }

    /// The staged bytes outlive this process, and a loss of power after it.
    async fn keep(&self, inode: &Arc<Inode>) {
        let staged = match inode.lock().file() {
            Ok(FileState::Dirty(draft) | FileState::Uploading(draft, _)) => draft.staged.clone(),
            _ => return,
        };
        self.transfer.leave(&staged);
        self.transfer.give_up_composition(&staged);
        staged.keep();
        self.persist(&staged).await;
    }

    /// Lets the stage's directory go if nothing is kept in it. False when something is.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn finish_stage(&self) -> crate::error::Result<bool> {
        self.stage.finish()
    }
}

enum Dirtiness {
    Clean,
    Closed,
    Open,
}

fn dirtiness(inode: &Arc<Inode>, holders: Holders) -> Dirtiness {
    if inode.kind() == Kind::Dir {
        return Dirtiness::Clean;
    }
    let data = inode.lock();
    match data.file() {
        Ok(FileState::Dirty(Draft { .. })) if data.opens.writing > 0 && holders == Holders::Possible => Dirtiness::Open,
        Ok(FileState::Dirty(_) | FileState::Uploading(..)) => Dirtiness::Closed,
        _ => Dirtiness::Clean,
    }
}
