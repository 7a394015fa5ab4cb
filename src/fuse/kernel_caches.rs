//! What the kernel keeps of a mount, and how it is asked to let go of it.
//!
//! Only what the kernel does at once is asked for. To drop a name it takes the lock of the directory, which whoever looks a name up
//! there holds until he is answered; to drop a page that is being read it waits for the bytes. A process that is killed while it
//! waits so does not end, and those whom it does not answer neither. Names are believed for a second without being asked for
//! ([`super::convert::TTL`]).

use std::io;

use fuser::{INodeNo, Notifier};

use crate::fs::Filesystem;
use crate::types::Ino;

/// Attributes only.
const NO_PAGES: i64 = -1;

/// The kernel's caches of one mount.
#[derive(Clone, Debug)]
pub struct KernelCaches(Notifier);

impl KernelCaches {
    pub(super) fn new(notifier: Notifier) -> Self {
        KernelCaches(notifier)
    }

    /// Has the attributes of these inodes dropped, and the pages of files that nobody has open. Returns how many inodes the kernel was told
    /// of. Must not be called where a request is answered.
    pub fn drop_clean(&self, fs: &Filesystem, inodes: &[Ino]) -> usize {
        let tell = |ino: &&Ino| {
            let from = if fs.is_closed(**ino) { 0 } else { NO_PAGES };
            self.tell(**ino, from).inspect_err(|error| tracing::debug!(%error, "the kernel keeps what it has")).is_ok()
        };
        // Nothing is mounted any more once it refuses.
        inodes.iter().take_while(tell).count()
    }

    fn tell(&self, ino: Ino, from: i64) -> io::Result<()> {
        self.0.inval_inode(INodeNo(ino.get()), from, 0)
    }
}
