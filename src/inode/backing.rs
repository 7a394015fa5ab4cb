//! A file of the local disk that the kernel reads in place of this process.
//!
//! Owns what all handles of an inode share while it is read so: the kernel wants every open of it to name the same file.

use std::any::Any;
use std::fs::File;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::types::Version;

/// All bytes of one version, on the local disk. Lives as long as a handle is open that reads them so.
#[derive(Debug)]
pub struct Backing {
    version: Version,
    /// Until the kernel has it.
    file: Mutex<Option<File>>,
    kernels: OnceLock<Option<Box<dyn Any + Send + Sync>>>,
}

impl Backing {
    /// A file with the bytes of `version`.
    pub fn new(version: Version, file: File) -> Self {
        Backing { version, file: Mutex::new(Some(file)), kernels: OnceLock::new() }
    }

    /// True when it has the bytes of `version`.
    pub fn is_of(&self, version: &Version) -> bool {
        self.version.same_bytes(version)
    }

    /// What the kernel knows the file by: `register` tells it of the file, once. `None` when that failed: then no open of the
    /// inode names it.
    pub fn known_by<T: Any + Send + Sync>(&self, register: impl FnOnce(&File) -> Option<T>) -> Option<&T> {
        let known = self.kernels.get_or_init(|| {
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            register(&file).map(|id| Box::new(id) as Box<dyn Any + Send + Sync>)
        });
        known.as_ref()?.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::types::ETag;

    fn backing() -> Backing {
        let version = Version { etag: ETag::parse("a"), size: 3, modified: SystemTime::UNIX_EPOCH };
        Backing::new(version, tempfile::tempfile().expect("a file"))
    }

    #[test]
    fn the_kernel_is_told_once_and_every_open_gets_the_same() {
        let backing = backing();
        assert_eq!(backing.known_by(|_| Some(7)), Some(&7));
        assert_eq!(backing.known_by(|_| Some(8)), Some(&7));
    }

    #[test]
    fn what_the_kernel_refused_is_not_tried_again() {
        let backing = backing();
        assert_eq!(backing.known_by(|_| None::<i32>), None);
        assert_eq!(backing.known_by(|_| Some(8)), None, "two opens of one inode would go two ways");
    }
}
