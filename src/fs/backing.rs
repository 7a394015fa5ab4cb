//! Files that the kernel reads by itself: those that are whole on the local disk, on mounts where nothing is written.
//!
//! Owns which open gets such a file. The kernel wants every open of an inode to name the same one while any of them lasts
//! (fuse.rst, "FUSE passthrough"), and never asks here again. What is written through the mount would not be seen in it: that
//! is why mounts that can be written to do without.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Filesystem;
use crate::cache::disk::BLOCK;
use crate::error::{Error, Result};
use crate::inode::{Backing, FileState, NodeData, Pin};
use crate::types::OpenIntent;

/// Smaller files cost one request of the kernel to read, and naming a file to the kernel costs more.
const SMALLEST: u64 = BLOCK;

impl Filesystem {
    /// True when there may be files for the kernel to read by itself.
    pub fn wants_passthrough(&self) -> bool {
        self.settings.read_only && self.transfer.keeps()
    }

    /// Whether the kernel takes files to read by itself. It is not asked to until this says so.
    pub fn set_passthrough(&self, taken: bool) {
        self.passthrough.store(taken, Ordering::Relaxed);
    }

    /// The file with all bytes of what is opened, if the kernel may read it by itself.
    pub(super) async fn find_backing(&self, pin: &Pin, intent: OpenIntent) -> Option<Arc<Backing>> {
        if !self.passthrough.load(Ordering::Relaxed) || intent.writes() || intent.truncate {
            return None;
        }
        let version = {
            let data = pin.inode().lock();
            match data.file() {
                // Other opens have decided already.
                Ok(FileState::Clean(clean)) if data.opens.all == 0 && clean.version.size >= SMALLEST => {
                    clean.version.clone()
                }
                _ => return None,
            }
        };
        let key = self.table.key_of(pin.ino()).ok()?;
        let file = self.transfer.reader(key, version.clone()).whole_file().await?;
        Some(Arc::new(Backing::new(version, file)))
    }
}

/// What an open gives the kernel to read: what it reads already, or `found` where nothing of the inode is open.
///
/// # Errors
/// `Stale` when the kernel reads another version.
pub(super) fn choose(data: &mut NodeData, found: Option<Arc<Backing>>) -> Result<Option<Arc<Backing>>> {
    let version = match data.file()? {
        FileState::Clean(clean) => Some(clean.version.clone()),
        _ => None,
    };
    let fits = |backing: &Arc<Backing>| version.as_ref().is_some_and(|version| backing.is_of(version));
    if let Some(held) = data.backing.upgrade() {
        return if fits(&held) { Ok(Some(held)) } else { Err(Error::Stale) };
    }
    let chosen = found.filter(|found| data.opens.all == 0 && fits(found));
    if let Some(chosen) = &chosen {
        data.backing = Arc::downgrade(chosen);
    }
    Ok(chosen)
}
