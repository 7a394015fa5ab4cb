//! Attributes as stat(2) shows them, and changes asked of them.
//!
//! Owns plain values only; where they come from is `posix` (object metadata) and `fs` (policy).

use std::time::SystemTime;

use super::posix::{StoredAttributes, nearest_stored};
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

/// Longest target of a symbolic link in bytes: `PATH_MAX` without its NUL (symlink(2)).
pub const TARGET_MAX: u64 = libc::PATH_MAX as u64 - 1;

/// What a file is: an object is a regular file unless its metadata says something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileType {
    /// Bytes.
    #[default]
    Regular,
    /// A symbolic link; its target is the object's body.
    Symlink,
    /// A named pipe: the object has no bytes, here and below.
    Fifo,
    /// A socket of the local machine.
    Socket,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
}

impl FileType {
    /// What an object of `size` bytes can be: one that is too large for a target, or has bytes where there are none, is a regular
    /// file, so that its bytes can be read, and a listing tells large ones from all others.
    pub fn of_size(self, size: u64) -> FileType {
        match self {
            FileType::Regular | FileType::Symlink if size <= TARGET_MAX => self,
            _ if size == 0 => self,
            _ => FileType::Regular,
        }
    }

    /// The number of a device.
    pub fn device(self) -> Option<Device> {
        match self {
            FileType::CharDevice(device) | FileType::BlockDevice(device) => Some(device),
            _ => None,
        }
    }

    /// File type bits of `st_mode`.
    pub fn type_bits(self) -> u32 {
        match self {
            FileType::Regular => libc::S_IFREG,
            FileType::Symlink => libc::S_IFLNK,
            FileType::Fifo => libc::S_IFIFO,
            FileType::Socket => libc::S_IFSOCK,
            FileType::CharDevice(_) => libc::S_IFCHR,
            FileType::BlockDevice(_) => libc::S_IFBLK,
        }
    }

    /// The type that these bits of `st_mode` mean, of a device with this number. `None` for a directory, and for bits that mean
    /// nothing.
    pub fn from_mode(mode: u32, device: Device) -> Option<FileType> {
        match mode & libc::S_IFMT {
            0 | libc::S_IFREG => Some(FileType::Regular),
            libc::S_IFLNK => Some(FileType::Symlink),
            libc::S_IFIFO => Some(FileType::Fifo),
            libc::S_IFSOCK => Some(FileType::Socket),
            libc::S_IFCHR => Some(FileType::CharDevice(device)),
            libc::S_IFBLK => Some(FileType::BlockDevice(device)),
            _ => None,
        }
    }
}

/// Number of a device, as the kernel gives it to file systems (`new_encode_dev` in `linux/kdev_t.h`): 12 bits of major and
/// 20 of minor number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device(pub u32);

impl Device {
    /// `None` for numbers that are too large.
    pub fn new(major: u32, minor: u32) -> Option<Device> {
        let fits = major < 1 << 12 && minor < 1 << 20;
        fits.then_some(Device(minor & 0xff | major << 8 | (minor & !0xff) << 12))
    }

    /// Major number.
    pub fn major(self) -> u32 {
        self.0 >> 8 & 0xfff
    }

    /// Minor number.
    pub fn minor(self) -> u32 {
        self.0 & 0xff | self.0 >> 12 & 0xfff00
    }
}

/// Permissions, owner and times of an inode as they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// What a file is; means nothing for a directory.
    pub file_type: FileType,
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
            file_type: stored.file_type,
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
            file_type: self.file_type,
            mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
            mtime: Some(self.mtime),
            atime: (self.atime != self.mtime).then_some(self.atime),
        }
    }

    /// Applies what was asked, times as near as they can be stored. True when something is different now.
    pub fn change(&mut self, change: &OwnershipChange, now: SystemTime) -> bool {
        let before = *self;
        self.mode = change.mode.unwrap_or(self.mode);
        self.uid = change.uid.unwrap_or(self.uid);
        self.gid = change.gid.unwrap_or(self.gid);
        self.mtime = change.mtime.map_or(self.mtime, nearest_stored);
        self.atime = change.atime.map_or(self.atime, nearest_stored);
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
