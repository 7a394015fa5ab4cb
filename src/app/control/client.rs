//! The other end: finds a mount's socket, asks one question, and reads the answer.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place;
use super::report::{FileReport, Report, Synced};
use crate::fuse::mountinfo::{self, Entry};

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// What the mount is doing.
    Status,
    /// That everything closed be stored, within so many seconds; `None` leaves that to the mount.
    Sync(Option<f64>),
    /// How a path below the mountpoint stands.
    File(String),
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// To [`Ask::Status`].
    Status(Box<Report>),
    /// To [`Ask::Sync`].
    Synced(Synced),
    /// To [`Ask::File`].
    File(FileReport),
    /// There is no answer, and this is why.
    Refused(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence says it")]
pub enum Trouble {
    #[error("{0} is not on a pailfs mount; 'pailfs status' lists the mounts")]
    NotMounted(PathBuf),
    #[error("the mount table can't be read: {0}")]
    NoTable(io::Error),
    #[error(
        "the mount on {0} has no control socket that this user may use; ask as the user who mounted it, or as root"
    )]
    NoSocket(PathBuf),
    #[error("the mount on {0} does not answer: {1}")]
    Silent(PathBuf, io::Error),
}

/// A mount, and what below it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The mount.
    pub entry: Entry,
    /// Path below the mountpoint; empty for the mount itself.
    pub below: PathBuf,
}

/// The pailfs mount that `path`, absolute, is or lies on. A mount that hangs is found by its mountpoint all the same: that is not
/// touched.
///
/// # Errors
/// `NotMounted`, `NoTable`.
pub fn find(path: &Path) -> Result<Found, Trouble> {
    let table = mountinfo::read().map_err(Trouble::NoTable)?;
    if let Some(found) = found_at(&table, path).filter(|found| found.below.as_os_str().is_empty()) {
        return Ok(found);
    }
    // The last name may be that of a symbolic link on the mount, which is meant itself.
    let resolved = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map(|parent| parent.join(name)),
        _ => path.canonicalize(),
    };
    let not_mounted = || Trouble::NotMounted(path.to_owned());
    let resolved = resolved.map_err(|_| not_mounted())?;
    if let Some(found) = found_at(&table, &resolved) {
        return Ok(found);
    }
    let whole = resolved.canonicalize().map_err(|_| not_mounted())?;
    found_at(&table, &whole).ok_or_else(not_mounted)
}

/// The same among these entries, if the top one over the path is a pailfs mount.
pub fn found_at(table: &[Entry], path: &Path) -> Option<Found> {
    let depth = |entry: &Entry| entry.mountpoint.components().count();
    // Of equal ones the last is on top.
    let entry = table.iter().filter(|entry| path.starts_with(&entry.mountpoint)).max_by_key(|entry| depth(entry))?;
    let below = path.strip_prefix(&entry.mountpoint).ok()?.to_owned();
    entry.is_pailfs().then(|| Found { entry: entry.clone(), below })
}

/// Asks a mount. `patience` bounds the wait for the answer; `None` waits for as long as the mount takes.
///
/// # Errors
/// `NoSocket`, `Silent`.
pub fn ask(entry: &Entry, ask: &Ask, patience: Option<Duration>) -> Result<Reply, Trouble> {
    let silent = |error| Trouble::Silent(entry.mountpoint.clone(), error);
    let mut stream = connect(entry)?;
    let mut line = serde_json::to_vec(ask).map_err(|error| silent(error.into()))?;
    line.push(b'\n');
    stream.set_read_timeout(patience).and_then(|()| stream.write_all(&line)).map_err(silent)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => silent(io::Error::new(io::ErrorKind::TimedOut, "no answer came in time")),
        _ => silent(error),
    })?;
    if reply.is_empty() {
        return Err(silent(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended")));
    }
    serde_json::from_str(&reply).map_err(|error| silent(error.into()))
}

fn connect(entry: &Entry) -> Result<UnixStream, Trouble> {
    let name = place::name(entry.device);
    let mut outcome = Err(Trouble::NoSocket(entry.mountpoint.clone()));
    let places = |uid: u32| place::directories(uid).into_iter().filter(move |dir| place::check(dir, uid).is_ok());
    for dir in users(entry).into_iter().flat_map(places) {
        match UnixStream::connect(dir.join(&name)) {
            Ok(stream) => return Ok(stream),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            // It was killed.
            Err(error) => outcome = Err(Trouble::Silent(entry.mountpoint.clone(), error)),
        }
    }
    outcome
}

/// Who may serve it: who mounted it, and root, who may have mounted it for somebody.
fn users(entry: &Entry) -> Vec<u32> {
    let mut users = vec![entry.user];
    if entry.user != 0 {
        users.push(0);
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::mountinfo::DeviceNumber;

    fn entry(mountpoint: &str, filesystem: &str) -> Entry {
        Entry {
            device: DeviceNumber { major: 0, minor: 1 },
            mountpoint: mountpoint.into(),
            filesystem: filesystem.into(),
            source: "s3://b".into(),
            user: 0,
        }
    }

    #[test]
    fn the_deepest_mount_over_a_path_counts_and_of_stacked_ones_the_last() {
        let table = [
            entry("/", "ext4"),
            entry("/mnt/a", "fuse.pailfs"),
            entry("/mnt/a/tmp", "tmpfs"),
            entry("/mnt/b", "fuse.pailfs"),
            entry("/mnt/b", "tmpfs"),
            entry("/mnt/c", "tmpfs"),
            entry("/mnt/c", "fuse.pailfs"),
        ];
        for (path, below) in [
            ("/mnt/a", Some("")),
            ("/mnt/a/x/y", Some("x/y")),
            ("/mnt/ab", None),
            ("/mnt/a/tmp/x", None),
            ("/mnt/b/x", None),
            ("/mnt/c/x", Some("x")),
            ("/etc", None),
        ] {
            let found = found_at(&table, Path::new(path));
            assert_eq!(found.map(|found| found.below), below.map(PathBuf::from), "{path}");
        }
    }
}
