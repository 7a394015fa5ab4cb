//! Dropping what is kept in memory of what S3 has: who asks next asks S3.
//!
//! Owns what may go. Bytes and names that S3 does not have as they are here are not touched, nor is the cache on the local disk.

use std::sync::PoisonError;

use super::Filesystem;
use crate::inode::{Body, FileState, NodeData};
use crate::types::Ino;

impl Filesystem {
    /// Forgets listings, attributes and names that were not there, and the bytes that were read or fetched ahead. Returns the inodes
    /// of which the kernel may keep something that is clean.
    pub fn drop_caches(&self) -> Vec<Ino> {
        self.ahead.forget();
        drop(std::mem::take(&mut *self.walks.lock().unwrap_or_else(PoisonError::into_inner)));
        self.transfer.drop_read();
        self.table.forget_order_of_listings();
        let inodes = self.table.all().into_iter();
        inodes.filter(|inode| forget(&mut inode.lock())).map(|inode| inode.ino()).collect()
    }

    /// True for what nobody has open: no page of it is being read or written.
    pub fn is_closed(&self, ino: Ino) -> bool {
        self.table.get_plain(ino).is_ok_and(|inode| inode.lock().opens.all == 0)
    }
}

/// False for what is only here.
fn forget(data: &mut NodeData) -> bool {
    match &mut data.body {
        Body::File(FileState::Clean(_)) => {
            data.target = None;
            // The next open has the kernel drop those that it does not drop now, whatever handles of before read meanwhile.
            data.pages_dropped += 1;
            data.kernel_pages = None;
        }
        Body::File(_) => return false,
        Body::Dir(dir) => dir.names.forget_what_s3_said(),
    }
    data.belief.forget();
    true
}
