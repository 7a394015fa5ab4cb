//! The log: one subscriber, to a file or to standard error, and panics in it.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use syslog_tracing::{Facility, Options, Syslog};
use tracing_subscriber::EnvFilter;

use super::sentence::{Failure, Status};
use crate::config::LogSettings;

/// What is logged when nothing was said: what happens to the mount.
const DEFAULT_LEVEL: &str = "info";

/// Starts the log: to the file, else in the foreground to standard error, else to syslog(3). In the background standard
/// error leads nowhere once the command has ended; where nobody listens on `/dev/log` there is no log.
///
/// # Errors
/// The file can't be opened.
pub fn start(settings: &LogSettings, foreground: bool) -> Result<(), Failure> {
    let filter = EnvFilter::new(directives(settings.filter.as_deref().unwrap_or(DEFAULT_LEVEL)));
    // It would say on standard error that a line could not be written, and panic where that is gone too.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    if let Some(path) = &settings.file {
        // Names of objects are in it: for the owner's eyes.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|error| {
            let path = path.display();
            Failure::new(Status::System, format!("the log file {path} can't be opened: {error}; name another"))
        })?;
        let _ = builder.with_ansi(false).with_writer(Mutex::new(file)).try_init();
    } else if !foreground && let Some(syslog) = syslog() {
        // It knows the time, and does without colours.
        let _ = builder.with_ansi(false).without_time().with_level(false).with_writer(syslog).try_init();
    } else if foreground || settings.filter.is_some() {
        let colours = std::io::stderr().is_terminal();
        let _ = builder.with_ansi(colours).with_writer(std::io::stderr).try_init();
    } else {
        return Ok(());
    }
    log_panics();
    Ok(())
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
}
