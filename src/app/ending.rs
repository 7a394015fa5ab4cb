//! How a mount ends: a signal, or an unmount from outside. What is closed is committed, what is not stays in the
//! stage, and the process ends even when programs hold files open or S3 is gone.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::notify::Notifier;
use super::sentence::{Failure, Status};
use super::signals::Signals;
use crate::config::Config;
use crate::fs::{Drained, Filesystem, Holders};
use crate::fuse::Served;
use crate::fuse::mount::{MountError, MountHandle, Unmounted};

/// Longest wait for commits of what programs closed while the mount was taken away.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// Signals that come so soon after each other are one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Unmounts when it is dropped, if that was not done before.
#[derive(Debug)]
pub struct MountGuard(pub MountHandle);

impl Drop for MountGuard {
    fn drop(&mut self) {
        match self.0.unmount(true) {
            Ok(Unmounted::Done) => tracing::info!("unmounted {}", self.0.mountpoint().display()),
            Ok(Unmounted::AlreadyGone) => {}
            Err(error) => tracing::error!("{error}"),
        }
    }
}

/// A mount that is being served.
pub struct Ending<'a> {
    /// For its paths.
    pub config: &'a Config,
    /// What is served.
    pub filesystem: Arc<Filesystem>,
    /// Unmounts.
    pub guard: MountGuard,
    /// What ends it.
    pub signals: Signals,
    /// Is told of the end.
    pub notifier: Option<Notifier>,
}

impl Ending<'_> {
    /// Waits until it ends, and ends it well.
    pub async fn wait(mut self, served: Served) -> Result<(), Failure> {
        let mut session = watch(served)?;
        let mut broken = None;
        let drained = tokio::select! {
            name = self.signals.next() => {
                tracing::info!("{name}: committing what is written, then unmounting");
                self.notifier.iter().for_each(Notifier::ending);
                self.stop().await
            }
            ended = &mut session => {
                match ended {
                    Ok(Err(error)) => {
                        tracing::error!("the session with the kernel broke: {error}");
                        broken = Some(Failure::system("serving the kernel", &error));
                    }
                    _ => tracing::info!("unmounted from outside"),
                }
                // A connection that was cut leaves its mount behind, and programs with open files.
                self.notifier.iter().for_each(Notifier::ending);
                let holders = if self.guard.0.is_current() { Holders::Possible } else { Holders::None };
                self.drain(self.config.drain_timeout, holders).await
            }
        };
        if let Err(error) = self.filesystem.finish_stage() {
            tracing::debug!("{error}");
        }
        self.verdict(drained).and(broken.map_or(Ok(()), Err))
    }

    /// Commits while the mount is still there, takes it away, and commits what was closed meanwhile.
    async fn stop(&mut self) -> Option<Drained> {
        let first = self.drain(self.config.drain_timeout, Holders::Possible).await;
        let hurried = first.is_none();
        let handle = self.guard.0.clone();
        let taken = tokio::task::spawn_blocking(move || match handle.unmount(hurried) {
            Err(MountError::Busy(_)) => {
                tracing::warn!("programs still use the mount; it is detached");
                (handle.unmount(true), Holders::Possible)
            }
            other => (other, if hurried { Holders::Possible } else { Holders::None }),
        });
        let holders = match taken.await {
            Ok((Ok(_), holders)) => holders,
            Ok((Err(error), _)) => {
                tracing::error!("{error}");
                Holders::Possible
            }
            Err(_) => Holders::Possible,
        };
        if hurried { None } else { self.drain(LAST_LIMIT.min(self.config.drain_timeout), holders).await }
    }

    /// `None` when a signal cut it short.
    async fn drain(&mut self, limit: Duration, holders: Holders) -> Option<Drained> {
        let filesystem = self.filesystem.clone();
        tokio::select! {
            drained = filesystem.drain(limit, holders) => Some(drained),
            name = self.hurry() => {
                tracing::warn!("{name}: ending without waiting for commits");
                None
            }
        }
    }

    /// A signal that says that the end is wanted at once. A terminal that hangs up sends more than one, and a shell may add
    /// its own: what comes with the first one is no second.
    async fn hurry(&mut self) -> &'static str {
        let began = Instant::now();
        loop {
            let name = self.signals.next().await;
            if name != Signals::HANG_UP && began.elapsed() >= SAME_SIGNAL {
                return name;
            }
        }
    }

    fn verdict(&self, drained: Option<Drained>) -> Result<(), Failure> {
        let dir = self.config.stage.dir.display();
        let Some(drained) = drained else {
            let sentence = format!("ended before everything was committed; what was not is kept in {dir}");
            return Err(Failure::new(Status::System, sentence));
        };
        tracing::info!(
            committed = drained.committed,
            open = drained.open.len(),
            left = drained.left.len(),
            "committed"
        );
        for (path, error) in &drained.left {
            tracing::error!("{path} is not committed, and is kept in {dir}: {error}");
        }
        for path in &drained.open {
            tracing::warn!("{path} was still open; what was not synced is kept in {dir}");
        }
        match (drained.left.first(), drained.open.first()) {
            (None, None) => Ok(()),
            (None, Some(path)) => Err(Failure::new(
                Status::System,
                format!(
                    "{} file(s) were still open; what was not synced is kept in {dir}, first {path}",
                    drained.open.len()
                ),
            )),
            (Some((path, error)), _) => Err(Failure::new(
                Status::System,
                format!(
                    "{} file(s) could not be committed and are kept in {dir}, first {path}: {error}",
                    drained.left.len()
                ),
            )),
        }
    }
}

/// The session blocks the thread that waits for it: it gets one of its own, which nobody waits for at the end.
fn watch(served: Served) -> Result<oneshot::Receiver<io::Result<()>>, Failure> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("session-end".to_owned())
        .spawn(move || {
            let _ = sender.send(served.wait());
        })
        .map_err(|e| Failure::system("starting a thread", &e))?;
    Ok(receiver)
}
