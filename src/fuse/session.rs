//! Serving the kernel's requests on a device that `mount` gave.
//!
//! Owns the worker threads and the end of a session. It never unmounts by itself: fuser's own way of finding out whether a mount
//! is still there is wrong, and could take down somebody else's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use tokio::runtime::Handle;

use super::bridge::Bridge;
use super::kernel_caches::KernelCaches;
use super::meter::Meter;
use crate::fs::Filesystem;

/// Worker threads that read requests. Two: one alone is fastest for one client, but a long copy into a reply would make all
/// others wait; more gain nothing, since whatever waits is moved into a task. They share one descriptor: with four threads and a
/// cloned one for each, reads of one client took nearly three times as long, and those of four clients as long.
const WORKERS: usize = 2;

/// How a session is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionOptions {
    /// `allow_root`: requests of others than root and the mounting user are refused here, since the kernel only knows `allow_other`.
    pub allow_root: bool,
    /// `slow_op`: calls that take so long are logged.
    pub slow_op: Option<Duration>,
}

/// A session being served.
#[derive(Debug)]
pub struct Served {
    caches: KernelCaches,
    thread: JoinHandle<io::Result<()>>,
    meter: Arc<Meter>,
}

impl Served {
    /// Waits for the end: an unmount, or the end of the connection.
    ///
    /// # Errors
    /// What the last read from the device gave.
    pub fn wait(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker thread panicked")))
    }

    /// What the kernel keeps of the mount.
    pub fn kernel_caches(&self) -> KernelCaches {
        self.caches.clone()
    }

    /// What was asked so far.
    pub fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// True when the session has ended.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Serves the kernel from now on. The handshake is done when this returns: the mount can be used.
///
/// # Errors
/// A handshake that failed, or no threads.
pub fn serve(fs: Arc<Filesystem>, device: OwnedFd, options: SessionOptions, runtime: Handle) -> io::Result<Served> {
    let mut config = Config::default();
    config.n_threads = Some(WORKERS);
    config.acl = if options.allow_root { SessionACL::RootAndOwner } else { SessionACL::All };
    let acl = config.acl;
    let meter = Arc::new(Meter::new(options.slow_op));
    let bridge = Bridge::new(fs, runtime, device.try_clone()?, meter.clone());
    let session = Session::from_fd(bridge, device, acl, config)?;
    let caches = KernelCaches::new(session.notifier());
    let thread = std::thread::Builder::new().name("pailfs-session".into()).spawn(move || session.run())?;
    Ok(Served { caches, thread, meter })
}
