//! The log: one subscriber, to a file or to standard error, and panics in it.
//!
//! Owns what changes of it while the process runs: its file is opened again when it was moved, and its level goes up and back.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syslog_tracing::{Facility, Options, Syslog};
use tracing::Metadata;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::sentence::{Failure, Status};
use crate::config::LogSettings;

/// What is logged when nothing was said: what happens to the mount.
const DEFAULT_LEVEL: &str = "info";

/// What follows the configured level, one after the other, when more is to be seen.
const MORE: [&str; 2] = ["debug", "trace"];

type Filter = reload::Layer<EnvFilter, Registry>;
type Writer = Box<dyn Layer<Layered<Filter, Registry>> + Send + Sync>;

/// The log of this process.
#[derive(Debug)]
pub struct Log {
    file: Option<Arc<LogFile>>,
    level: Option<Level>,
}

/// Which level it is at.
#[derive(Debug)]
struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The configured one first.
    steps: Vec<String>,
    at: usize,
}

/// Starts the log: to the file, else in the foreground to standard error, else to syslog(3). In the background standard
/// error leads nowhere once the command has ended; where nobody listens on `/dev/log` there is no log.
///
/// # Errors
/// The file can't be opened.
pub fn start(settings: &LogSettings, foreground: bool) -> Result<Log, Failure> {
    // It would say on standard error that a line could not be written, and panic where that is gone too.
    let layer = fmt::layer().log_internal_errors(false);
    let mut file = None;
    let writer: Writer = if let Some(path) = &settings.file {
        let opened = LogFile::open(path).map_err(|error| {
            let path = path.display();
            Failure::new(Status::System, format!("the log file {path} can't be opened: {error}; name another"))
        })?;
        let opened = Arc::new(opened);
        file = Some(opened.clone());
        layer.with_ansi(false).with_writer(opened).boxed()
    } else if !foreground && let Some(syslog) = syslog() {
        // It knows the time, and does without colours.
        layer.with_ansi(false).without_time().with_level(false).with_writer(syslog).boxed()
    } else if foreground || settings.filter.is_some() {
        layer.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).boxed()
    } else {
        return Ok(Log { file: None, level: None });
    };
    let configured = settings.filter.as_deref().unwrap_or(DEFAULT_LEVEL);
    let (filter, handle) = reload::Layer::new(EnvFilter::new(directives(configured)));
    let started = tracing_subscriber::registry().with(filter).with(writer.with_filter(filter_fn(is_shown))).try_init();
    log_panics();
    let level = started.is_ok().then(|| Level { filter: handle, steps: steps(configured), at: 0 });
    Ok(Log { file, level })
}

impl Log {
    /// Opens the file again, which may have been moved away. Where that does not work, the one that is open is used on, and says so.
    pub fn reopen(&self) {
        let Some(file) = &self.file else { return };
        let path = file.path.display();
        match file.reopen() {
            Ok(()) => tracing::info!("SIGHUP: the log file {path} was opened again"),
            Err(error) => tracing::error!("SIGHUP: the log file {path} can't be opened again, this one stays: {error}"),
        }
    }

    /// Goes on to the next level, and from the last one back to the configured one. Where there is no log, nothing happens.
    pub fn cycle_level(&mut self) {
        let Some(Level { filter, steps, at }) = &mut self.level else { return };
        let next = (*at + 1) % steps.len();
        let Some(name) = steps.get(next) else { return };
        let say = || tracing::info!("SIGUSR2: the log level is now {name}");
        // The configured level may not show this line: it comes before that is back.
        if next == 0 {
            say();
        }
        if let Err(error) = filter.reload(EnvFilter::new(directives(name))) {
            tracing::error!("SIGUSR2: the log level stays: {error}");
            return;
        }
        if next != 0 {
            say();
        }
        *at = next;
    }
}

/// The levels of the cycle. One that is configured comes once.
fn steps(configured: &str) -> Vec<String> {
    let more = MORE.into_iter().filter(|level| !level.eq_ignore_ascii_case(configured));
    std::iter::once(configured).chain(more).map(str::to_owned).collect()
}

/// A file to whose end is written.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(LogFile { path: path.to_owned(), file: Mutex::new(open(path)?) })
    }

    fn reopen(&self) -> io::Result<()> {
        let new = open(&self.path)?;
        let old = std::mem::replace(&mut *self.lock(), new);
        // Closed when lines can be written again.
        drop(old);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Names of objects are in it: for the owner's eyes.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lock().write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn syslog() -> Option<Syslog> {
    if !Path::new("/dev/log").exists() {
        return None;
    }
    Syslog::new(c"pailfs", Options::LOG_PID, Facility::Daemon)
}

/// A lone level is meant for pailfs: the libraries below would bury its lines, and warn of what is usual (a machine
/// without instance metadata, say). What they fail at comes back as our own error anyway.
fn directives(asked: &str) -> String {
    if asked.contains(['=', ',']) || ["error", "off", "warn", "trace"].contains(&asked.to_ascii_lowercase().as_str()) {
        asked.to_owned()
    } else {
        format!("error,pailfs={asked}")
    }
}

/// What the SDK tells at its lowest level are whole requests with their headers, and so keys: never, whatever is asked for.
fn is_shown(line: &Metadata<'_>) -> bool {
    *line.level() != tracing::Level::TRACE || !line.target().starts_with("aws_")
}

/// A panic in a task answers its one call with EIO and leaves the mount running: it must be seen in the log.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, "panicked: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_level_is_for_pailfs_alone() {
        for (asked, directives_of) in [
            ("info", "error,pailfs=info"),
            ("debug", "error,pailfs=debug"),
            ("error", "error"),
            ("trace", "trace"),
            ("warn,pailfs::fs=debug", "warn,pailfs::fs=debug"),
        ] {
            assert_eq!(directives(asked), directives_of);
        }
    }

    #[test]
    fn a_level_that_is_configured_comes_once_in_the_cycle() {
        for (configured, expected) in [
            ("info", &["info", "debug", "trace"][..]),
            ("debug", &["debug", "trace"]),
            ("TRACE", &["TRACE", "debug"]),
            ("warn,pailfs::fs=debug", &["warn,pailfs::fs=debug", "debug", "trace"]),
        ] {
            assert_eq!(steps(configured), expected);
        }
    }
}
