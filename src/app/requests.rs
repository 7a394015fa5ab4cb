//! What a running mount is asked for by signals: to drop what it keeps, to say more in its log, to open its log file again.
//!
//! Owns who does it, and that nobody waits for it. None of these ends the process, from its start to its end.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;

use super::logging::Log;
use super::signals::{Asked, RequestSignals};
use crate::fs::Filesystem;
use crate::fuse::KernelCaches;

/// Answers the signals of a process, as long as its runtime works.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// There once the mount is.
    dropper: Arc<OnceLock<CacheDropper>>,
}

impl Requests {
    /// Answers from now on.
    pub fn answer(mut signals: RequestSignals, mut log: Log, runtime: &Handle) -> Self {
        let requests = Requests::default();
        let dropper = requests.dropper.clone();
        runtime.spawn(async move {
            loop {
                match signals.next().await {
                    Asked::DropCaches => match dropper.get() {
                        Some(dropper) => dropper.ask(),
                        None => tracing::info!("SIGUSR1: nothing is mounted yet, and nothing is kept"),
                    },
                    Asked::CycleLevel => log.cycle_level(),
                    Asked::ReopenLog => {
                        // The disk of a log file may be slow to answer.
                        let reopened = tokio::task::spawn_blocking(move || {
                            log.reopen();
                            log
                        });
                        match reopened.await {
                            Ok(same) => log = same,
                            // The hook has logged it: there is no log to change any more.
                            Err(_) => return,
                        }
                    }
                }
            }
        });
        requests
    }

    /// The mount is there, and can be asked to drop what it keeps.
    pub fn mounted(&self, filesystem: Arc<Filesystem>, kernel: KernelCaches) {
        match CacheDropper::start(filesystem, kernel) {
            Ok(dropper) => _ = self.dropper.set(dropper),
            Err(error) => tracing::warn!("SIGUSR1 will drop nothing: {error}"),
        }
    }
}

/// A thread that drops what is kept: what is said to the kernel may wait for a request that is under way.
#[derive(Debug)]
struct CacheDropper(SyncSender<()>);

impl CacheDropper {
    fn start(filesystem: Arc<Filesystem>, kernel: KernelCaches) -> io::Result<Self> {
        // Who asks while somebody else's wish waits is served by that.
        let (sender, asked) = sync_channel(1);
        std::thread::Builder::new().name("drop-caches".to_owned()).spawn(move || {
            for () in asked {
                let inodes = filesystem.drop_caches();
                let told = kernel.drop_clean(&filesystem, &inodes);
                tracing::info!(inodes = inodes.len(), told, "SIGUSR1: what was kept of clean files is dropped");
            }
        })?;
        Ok(CacheDropper(sender))
    }

    fn ask(&self) {
        // Full: it is going to happen.
        let _ = self.0.try_send(());
    }
}
