//! A file that one task has taken: to commit, move or remove it.
//!
//! Owns how it is taken and in which ways it is given back, with the word to those who wait. What that makes of the file's state is
//! `state`'s to say.

use std::sync::Arc;
use std::time::SystemTime;

use super::node::{Inode, NodeData};
use super::settled::Settled;
use super::state::{Clean, Draft, Event, FileState, Origin, Remains};
use crate::error::{Error, Result};

/// A file taken for a while by one task. Dropped without a word, the file is as it was before.
#[derive(Debug)]
pub struct Owned {
    inode: Arc<Inode>,
    prior: Option<Prior>,
    settled: Settled,
}

/// What the file was when it was taken.
#[derive(Clone, Debug)]
pub enum Prior {
    /// As in S3.
    Clean(Clean),
    /// A draft.
    Dirty(Draft),
}

impl Owned {
    /// What the file was when it was taken.
    ///
    /// # Errors
    /// `Internal` after it was given back.
    pub fn prior(&self) -> Result<&Prior> {
        self.prior.as_ref().ok_or(Error::Internal("a file was used after it was given back"))
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// What others wait for.
    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Waits until nobody writes. New writers wait for the owner.
    pub async fn writers_gone(&self) {
        let mut writers = self.inode.writers.subscribe();
        // The sender lives in the inode, which this holds: the wait can't fail.
        let _ = writers.wait_for(|count| *count == 0).await;
    }

    /// The file is this object now.
    ///
    /// # Errors
    /// `Internal`
    pub fn settle_clean(mut self, clean: Clean, change: impl FnOnce(&mut NodeData)) -> Result<()> {
        self.end(Ok(()), |data| {
            data.apply(Event::SettleOk(clean))?;
            data.commit_failed = false;
            data.behind = None;
            change(data);
            Ok(())
        })
    }

    /// It failed: what was there before stays, and who waits is told.
    ///
    /// # Errors
    /// `Internal`
    pub fn settle_failed(mut self, error: Error) -> Result<()> {
        self.end(Err(error.clone()), |data| {
            data.commit_failed = true;
            data.apply(Event::SettleErr(error))
        })
    }

    /// The draft goes on, with this origin.
    ///
    /// # Errors
    /// `Internal`
    pub fn reopen(mut self, origin: Origin) -> Result<()> {
        self.end(Ok(()), |data| data.apply(Event::Reopen(origin)))
    }

    /// The name is gone.
    ///
    /// # Errors
    /// `Internal`
    pub fn unlinked(mut self, remains: Remains) -> Result<()> {
        self.end(Ok(()), |data| {
            data.behind = None;
            data.ownership.ctime = SystemTime::now();
            data.apply(Event::Unlink(remains))
        })
    }

    /// The name is another file's from now on, and this is what open handles go on reading. Nothing that they would write has a
    /// place any more. Who waits gets the outcome: that of a lost exclusive create is told to later closers, too.
    ///
    /// # Errors
    /// `Internal`
    pub fn parted(mut self, remains: Remains, outcome: Result<()>) -> Result<()> {
        let lost = outcome.is_err();
        self.end(outcome, |data| {
            data.behind = None;
            data.parted = true;
            data.lost = lost;
            data.apply(Event::Unlink(remains))
        })
    }

    fn end(&mut self, outcome: Result<()>, change: impl FnOnce(&mut NodeData) -> Result<()>) -> Result<()> {
        self.prior = None;
        let (done, _unused) = {
            let mut data = self.inode.lock();
            (change(&mut data), data.let_go())
        };
        self.settled.settle(outcome);
        done
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let event = match self.prior.take() {
            None => return,
            Some(Prior::Clean(clean)) => Event::SettleOk(clean),
            Some(Prior::Dirty(draft)) => Event::Reopen(draft.origin),
        };
        let _ = self.end(Ok(()), |data| data.apply(event));
    }
}

impl Inode {
    /// Takes the file, or says whom to wait for.
    ///
    /// # Errors
    /// `NotFound` for a file that has no name any more.
    pub fn try_own(self: &Arc<Self>) -> Result<std::result::Result<Owned, Settled>> {
        let mut data = self.lock();
        let (prior, event, settled) = match data.file()? {
            FileState::Uploading(_, settled) | FileState::Moving(_, settled) => return Ok(Err(settled.clone())),
            FileState::Unlinked(_) | FileState::Removed => return Err(Error::NotFound),
            FileState::Clean(clean) => {
                let settled = Settled::new();
                (Prior::Clean(clean.clone()), Event::Own(settled.clone()), settled)
            }
            FileState::Dirty(draft) => {
                let settled = Settled::new();
                (Prior::Dirty(draft.clone()), Event::Seal(settled.clone()), settled)
            }
        };
        data.apply(event)?;
        Ok(Ok(Owned { inode: self.clone(), prior: Some(prior), settled }))
    }

    /// Takes the file as soon as nobody else has it.
    ///
    /// # Errors
    /// As [`Inode::try_own`].
    pub async fn own(self: &Arc<Self>) -> Result<Owned> {
        loop {
            match self.try_own()? {
                Ok(owned) => return Ok(owned),
                // How the other one's work ended is not our business: the state says what is there now.
                Err(settled) => drop(settled.wait().await),
            }
        }
    }

    /// As [`Inode::own`], of a file that was found by its name a moment ago.
    ///
    /// # Errors
    /// `Stale` when the name is another file's by now: the kernel looks it up again. Else as [`Inode::own`].
    pub async fn own_by_name(self: &Arc<Self>) -> Result<Owned> {
        match self.own().await {
            Err(Error::NotFound) if self.lock().parted => Err(Error::Stale),
            done => done,
        }
    }
}
