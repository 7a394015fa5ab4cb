//! Clean bytes on the local disk: kept for the next mount, and for other mounts of this machine.
//!
//! One entry for each version of an object: `DIR/xx/NAME.data`, sparse and as long as the object, and `DIR/xx/NAME.record`, which
//! names the version and has a checksum for each block that is here. Checksums decide: data is written before them, nothing is
//! synced, and what does not fit its checksum is dropped, whoever or whatever spoilt it. Entries can be removed at any time, also
//! under a reader. Errors of the disk never reach a caller: what can't be had from here is not here. All calls block on the
//! disk. Knows nothing of stores, nor of who reads.

mod adopt;
mod entry;
mod name;
mod room;
mod tally;
#[cfg(test)]
mod tests;
mod whole;

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use entry::{Entry, Found};
pub use tally::Looks;
pub use whole::Whole;

use self::room::Room;
use crate::config::CacheSettings;
use crate::error::{Error, Result};
use crate::types::{ObjectKey, Version};

/// Bytes that are here or not as one: what random reads are rounded to.
pub const BLOCK: u64 = 128 << 10;
/// Most blocks that are read at once.
const READ_MOST: u64 = 8;

/// The disk cache of one mount. Clones share it.
#[derive(Clone, Debug)]
pub struct DiskCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    room: Room,
    verified: whole::Verified,
    /// Endpoint and bucket.
    source: String,
    dir: String,
    /// The disk failed: it is done without.
    off: AtomicBool,
    /// A full disk was told of.
    told_full: AtomicBool,
    tally: tally::Tally,
}

impl DiskCache {
    /// Opens the cache in a directory (made with mode 0700 when it is missing) for the objects of `source`, which names
    /// endpoint and bucket. Does not look through it.
    ///
    /// # Errors
    /// `AccessDenied` when the directory is a link, somebody else's, or open to others; else what the local file system gives.
    pub fn open(settings: CacheSettings, source: String) -> Result<DiskCache> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&settings.dir);
        match made {
            // A file, or a link to nowhere.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.map_err(|error| failed("making it", error))?,
        }
        check_owned(&settings.dir)?;
        let dir = settings.dir.display().to_string();
        let room = Room::new(settings);
        room.check().map_err(|error| failed("writing into it", error))?;
        let (off, told_full) = (AtomicBool::new(false), AtomicBool::new(false));
        let (verified, tally) = (whole::Verified::default(), tally::Tally::default());
        Ok(DiskCache { shared: Arc::new(Shared { room, verified, source, dir, off, told_full, tally }) })
    }

    /// The entry of a version, be there something or not. `None` when its bytes can't be known again: an ETag that is weak, or
    /// missing, may be that of other bytes.
    pub fn entry(&self, key: &ObjectKey, version: &Version) -> Option<Arc<Entry>> {
        let etag = version.etag.as_str();
        let strong = !etag.is_empty() && !etag.starts_with("W/");
        (strong && version.size > 0).then(|| Arc::new(Entry::new(self.shared.clone(), key, version)))
    }

    /// Bytes on the disk, of all mounts that share the directory, as last counted.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn used(&self) -> io::Result<u64> {
        self.shared.room.turn()?.used()
    }

    /// What this mount has found there so far.
    pub fn looks(&self) -> Looks {
        self.shared.tally.read()
    }

    /// Counts what is there, for the limits. May take long: for a thread of its own.
    pub fn survey(&self) {
        if let Err(error) = self.shared.room.survey() {
            self.shared.note(&error);
        }
    }
}

impl Shared {
    fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Tells of an error once, and decides whether it is worth going on.
    fn note(&self, error: &io::Error) {
        let dir = &self.dir;
        match error.kind() {
            ErrorKind::Interrupted => {}
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                if !self.told_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(dir, %error, "the disk cache is full; what does not fit is not kept");
                }
            }
            // Somebody tidies up, or there are too many open files: that passes.
            _ if error.kind() == ErrorKind::NotFound || is_out_of_files(error) => {
                tracing::debug!(dir, %error, "the disk cache is done without for now");
            }
            _ => {
                if !self.off.swap(true, Ordering::Relaxed) {
                    tracing::warn!(dir, %error, "the disk cache fails and is done without");
                }
            }
        }
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

fn failed(what: &'static str, source: io::Error) -> Error {
    Error::Local { what, source: Arc::new(source) }
}

fn check_owned(dir: &Path) -> Result<()> {
    // SAFETY: geteuid(2) has no preconditions and can't fail.
    let me = unsafe { libc::geteuid() };
    let meta = std::fs::symlink_metadata(dir).map_err(|error| failed("looking at it", error))?;
    let refused = |why: &str| Err(Error::AccessDenied(why.to_owned()));
    match () {
        () if !meta.is_dir() => refused("it is not a directory (or is a link)"),
        () if meta.uid() != me => refused("it belongs to another user"),
        () if meta.mode() & 0o077 != 0 => refused("other users can look into it (chmod 700 mends that)"),
        () => Ok(()),
    }
}
