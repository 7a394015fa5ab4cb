//! Attributes as stat(2) shows them, and changes asked of them.
//!
//! Owns plain values only; where they come from is `posix` (object metadata) and `fs` (policy).

use std::time::SystemTime;

use super::posix::StoredAttributes;
use crate::types::Ino;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file: one object.
    File,
    /// A directory: a common prefix of keys.
    Dir,
}

impl Kind {
    /// File type bits of `st_mode`.
    pub fn type_bits(self) -> u32 {
        match self {
            Kind::File => libc::S_IFREG,
            Kind::Dir => libc::S_IFDIR,
        }
    }
}

/// Permissions, owner and times of an inode as they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits, at most 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification of the bytes.
    pub mtime: SystemTime,
    /// Last access as it was last set; reads do not change it.
    pub atime: SystemTime,
    /// Last change of anything.
    pub ctime: SystemTime,
}

impl Ownership {
    /// What `stored` says, with `default` for what it does not, and `modified` for a missing time.
    pub fn from_stored(stored: &StoredAttributes, default: Ownership, modified: SystemTime) -> Self {
        let mtime = stored.mtime.unwrap_or(modified);
        Ownership {
            mode: stored.mode.unwrap_or(default.mode),
            uid: stored.uid.unwrap_or(default.uid),
            gid: stored.gid.unwrap_or(default.gid),
            mtime,
            atime: stored.atime.unwrap_or(mtime),
            ctime: modified,
        }
    }

    /// As it goes into object metadata.
    pub fn to_stored(&self) -> StoredAttributes {
        StoredAttributes {
            mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
            mtime: Some(self.mtime),
            atime: (self.atime != self.mtime).then_some(self.atime),
        }
    }

    /// Applies what was asked. True when something is different now.
    pub fn change(&mut self, change: &OwnershipChange, now: SystemTime) -> bool {
        let before = *self;
        self.mode = change.mode.unwrap_or(self.mode);
        self.uid = change.uid.unwrap_or(self.uid);
        self.gid = change.gid.unwrap_or(self.gid);
        self.mtime = change.mtime.unwrap_or(self.mtime);
        self.atime = change.atime.unwrap_or(self.atime);
        let changed = *self != before;
        if changed {
            self.ctime = now;
        }
        changed
    }
}

/// What chmod, chown and utimens ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnershipChange {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Modification time.
    pub mtime: Option<SystemTime>,
    /// Access time.
    pub atime: Option<SystemTime>,
}

impl OwnershipChange {
    /// True when nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == OwnershipChange::default()
    }
}

/// One answer of stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// File or directory.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Links: 1, also for directories (unknown number of subdirectories), 0 for what was removed.
    pub nlink: u32,
    /// The rest.
    pub ownership: Ownership,
}
