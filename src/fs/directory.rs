//! opendir, releasedir, fsyncdir and statfs.
//!
//! Names are in S3 as soon as the call that made them returns, so syncing a directory has nothing to do.

use std::sync::Arc;

use super::Filesystem;
use super::reply::{Opened, Statistics};
use crate::error::{Error, Result};
use crate::inode::Kind;
use crate::types::{Fh, Ino};

impl Filesystem {
    /// Opens a directory. The listing begins with the first readdir.
    ///
    /// # Errors
    /// `NotDirectory`, `Stale`.
    pub fn opendir(self: &Arc<Self>, ino: Ino) -> Result<Opened> {
        let pin = self.table.get(ino)?;
        if pin.inode().kind() != Kind::Dir {
            return Err(Error::NotDirectory);
        }
        Ok(Opened { fh: self.add_dir_handle(pin), keep_cache: false, backing: None })
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: Fh) {
        self.take_dir_handle(fh);
    }

    /// fsync(2) of a directory: names are in S3 already.
    pub fn fsyncdir(&self) {}

    /// statfs(2).
    pub fn statfs(&self) -> Statistics {
        Statistics::BUCKET
    }
}
