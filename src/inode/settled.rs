//! What others wait for while one task owns a file: that the journal knows of what is being stored, and the end.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{Error, Result};

/// Tells those who wait that an upload or a move has ended, and how.
#[derive(Clone, Debug)]
pub struct Settled(Arc<watch::Sender<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    sealed: bool,
    outcome: Option<Result<()>>,
}

impl Settled {
    /// A new one, not settled yet.
    pub fn new() -> Self {
        Settled(Arc::new(watch::Sender::new(Progress::default())))
    }

    /// The journal knows of all that is being stored: it will be, whatever becomes of this process.
    pub fn seal(&self) {
        self.0.send_modify(|progress| progress.sealed = true);
    }

    /// Ends it. The state must have been changed before, so that who wakes up sees the new one.
    pub fn settle(&self, outcome: Result<()>) {
        self.0.send_modify(|progress| progress.outcome = Some(outcome));
    }

    /// Waits for the end and returns how it ended.
    pub async fn wait(&self) -> Result<()> {
        self.wait_for(|progress| progress.outcome.is_some()).await.map(drop)
    }

    /// Waits until it is sealed: true. False when it has ended well without that.
    pub async fn wait_for_seal(&self) -> Result<bool> {
        self.wait_for(|progress| progress.sealed || progress.outcome.is_some()).await
    }

    async fn wait_for(&self, reached: impl FnMut(&Progress) -> bool) -> Result<bool> {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(reached).await {
            Ok(progress) => progress.outcome.clone().unwrap_or(Ok(())).map(|()| progress.sealed),
            Err(_) => Err(Error::Internal("an owner of a file went away without a word")),
        }
    }
}

impl Default for Settled {
    fn default() -> Self {
        Self::new()
    }
}
