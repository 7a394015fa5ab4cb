//! `pailfs sync DIR`: waits until everything that was closed is in S3, and tells how much is left meanwhile.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::control::{Ask, Reply, Synced, Trouble, ask, find};
use super::sentence::{Failure, Status};
use super::status::bytes;
use crate::config::SyncRequest;
use crate::fuse::mountinfo::Entry;

/// Between two looks at how much is left.
const PACE: Duration = Duration::from_millis(500);

/// Longest wait for such a look.
const LOOK: Duration = Duration::from_secs(10);

/// What a mount may take beyond the time it was given, before it is taken for hung.
const GRACE: Duration = Duration::from_secs(30);

/// Does it.
pub fn run(request: &SyncRequest) -> ExitCode {
    match carry_out(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn carry_out(request: &SyncRequest) -> Result<(), Failure> {
    let found = find(&request.path)?;
    let synced = sync(&found.entry, request.timeout)?;
    for path in &synced.open {
        super::say(&format!("{path} is open for writing, and was left as it is"));
    }
    unstored(&synced).map_or(Ok(()), Err)
}

/// What could not be stored, in one sentence.
pub fn unstored(synced: &Synced) -> Option<Failure> {
    let (path, error) = synced.left.first()?;
    let count = synced.left.len();
    let sentence = format!("{count} file(s) are not stored yet and are tried again, first {path}: {error}");
    Some(Failure::new(Status::System, sentence))
}

/// Has a mount store everything that is closed, and shows on a terminal how far that is.
///
/// # Errors
/// There is no answer.
pub fn sync(entry: &Entry, timeout: Option<Duration>) -> Result<Synced, Failure> {
    let patience = timeout.or_else(|| drain_timeout(entry)).map(|time| time.saturating_add(GRACE));
    let question = Ask::Sync(timeout.map(|time| time.as_secs_f64()));
    let (done, end) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Nobody else sends: a channel that is closed has its one message.
            let _ = done.send(ask(entry, &question, patience.or(Some(GRACE))));
        });
        let shows = io::stderr().is_terminal();
        let mut shown = false;
        let reply = loop {
            match end.recv_timeout(PACE) {
                Ok(reply) => break reply,
                Err(RecvTimeoutError::Disconnected) => break Ok(Reply::Refused("it was not asked".to_owned())),
                Err(RecvTimeoutError::Timeout) if shows => shown |= show_progress(entry),
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        if shown {
            clear_line();
        }
        read(entry, reply)
    })
}

/// How long the mount itself waits, if it says so.
fn drain_timeout(entry: &Entry) -> Option<Duration> {
    let Ok(Reply::Status(report)) = ask(entry, &Ask::Status, Some(LOOK)) else { return None };
    Duration::try_from_secs_f64(report.options.get("drain_timeout")?.parse().ok()?).ok()
}

fn read(entry: &Entry, reply: Result<Reply, Trouble>) -> Result<Synced, Failure> {
    match reply? {
        Reply::Synced(synced) => Ok(synced),
        Reply::Refused(why) => {
            Err(Failure::new(Status::System, format!("the mount on {} refused: {why}", entry.mountpoint.display())))
        }
        Reply::Status(_) | Reply::File(_) => {
            Err(Failure::new(Status::System, "the mount answered another question; it is of another version"))
        }
    }
}

fn show_progress(entry: &Entry) -> bool {
    let Ok(Reply::Status(report)) = ask(entry, &Ask::Status, Some(LOOK)) else { return false };
    let (files, left) = (report.unstored_files, bytes(report.unstored_bytes));
    clear_line();
    // A terminal that went away is no reason to stop.
    let _ = write!(io::stderr(), "{files} file(s), {left} not stored yet");
    true
}

fn clear_line() {
    let _ = write!(io::stderr(), "\r\x1b[K");
}
