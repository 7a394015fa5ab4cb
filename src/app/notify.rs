//! What a service manager is told (sd_notify(3)): that the mount can be used, what is not stored yet, that the process is alive,
//! and that it ends. Where none asked for it, with `NOTIFY_SOCKET`, nothing happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::status::bytes;
use crate::fs::Filesystem;

/// Between two looks at what is not stored.
const PACE: Duration = Duration::from_secs(5);

/// Looking takes longer with many names: it may take this share of the time at most.
const SHARE: u32 = 50;

/// While the mount ends, the manager is asked again and again to wait for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the manager, until it is dropped.
#[derive(Debug)]
pub struct Notifier {
    ending: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Notifier {
    /// Says that the mount can be used, and from then on how it is. `None` where nobody wants to know.
    pub fn ready(filesystem: Arc<Filesystem>, runtime: &Handle) -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET")?;
        tell(&[NotifyState::Ready, NotifyState::Status("mounted")]);
        let ending = Arc::new(AtomicBool::new(false));
        let watchdog = sd_notify::watchdog_enabled();
        let task = runtime.spawn(keep_telling(filesystem, ending.clone(), watchdog));
        Some(Notifier { ending, task: task.abort_handle() })
    }

    /// Says that the mount ends, which takes as long as files have to be stored.
    pub fn ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
        tell(&[NotifyState::Stopping, longer()]);
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_telling(filesystem: Arc<Filesystem>, ending: Arc<AtomicBool>, watchdog: Option<Duration>) {
    let pace = watchdog.map_or(PACE, |limit| PACE.min(limit / 3));
    let mut told = String::new();
    let mut rest = Instant::now();
    loop {
        tokio::time::sleep(pace).await;
        if watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        if ending.load(Ordering::Relaxed) {
            tell(&[longer()]);
        }
        if Instant::now() < rest {
            continue;
        }
        let (began, filesystem) = (Instant::now(), filesystem.clone());
        let Ok(sentence) = tokio::task::spawn_blocking(move || sentence(&filesystem)).await else { return };
        rest = Instant::now() + began.elapsed() * SHARE;
        if sentence != told {
            tell(&[NotifyState::Status(&sentence)]);
            told = sentence;
        }
    }
}

fn longer() -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(PATIENCE.as_micros() as u32)
}

fn sentence(filesystem: &Filesystem) -> String {
    let unstored = filesystem.unstored();
    match unstored.len() {
        0 => "mounted; everything is stored".to_owned(),
        count => {
            let size = unstored.iter().map(|file| file.size).fold(0, u64::saturating_add);
            let failed = unstored.iter().filter(|file| file.failure.is_some()).count();
            format!("mounted; {count} file(s), {} not stored yet, of which {failed} failed", bytes(size))
        }
    }
}

/// A manager that does not listen is not a reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
