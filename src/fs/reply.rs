//! What operations answer. Own types: the bridge turns them into the kernel's.

use std::sync::Arc;

use crate::inode::{Attr, Backing, FileType, Kind, Pin};
use crate::types::{Fh, Ino, Name};

/// A name and what stands there. Each one given to the kernel counts as one lookup.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its attributes.
    pub attr: Attr,
}

/// An open handle.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its number.
    pub fh: Fh,
    /// The kernel may keep the pages it has: they are those of this version.
    pub keep_cache: bool,
    /// The kernel may read this file of the local disk instead of asking here.
    pub backing: Option<Arc<Backing>>,
}

/// A file made and opened in one step.
#[derive(Clone, Debug)]
pub struct Created {
    /// The file.
    pub entry: Entry,
    /// The handle.
    pub opened: Opened,
}

/// One entry of a directory.
#[derive(Debug)]
pub struct DirEntry {
    /// Offset to ask for in order to go on after it.
    pub next: u64,
    /// Inode number that a lookup of it gives.
    pub ino: Ino,
    /// File or directory.
    pub kind: Kind,
    /// What a file is; `None` where that would take a request.
    pub file_type: Option<FileType>,
    /// Name; `None` for `.` and `..`.
    pub name: EntryName,
    /// With attributes, if they were asked for; the pin keeps the inode until the kernel was told.
    pub attr: Option<(Attr, Option<Pin>)>,
}

/// Name of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryName {
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// Any other.
    Name(Name),
}

impl EntryName {
    /// As text.
    pub fn as_str(&self) -> &str {
        match self {
            EntryName::Dot => ".",
            EntryName::DotDot => "..",
            EntryName::Name(name) => name.as_str(),
        }
    }
}

/// What statfs(2) tells. A bucket has no size and no quota: large and honest constants.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Blocks of `block_size`, all of them free.
    pub blocks: u64,
    /// Inodes, all of them free.
    pub files: u64,
    /// Bytes.
    pub block_size: u32,
    /// Longest name.
    pub name_max: u32,
}

impl Statistics {
    /// 1 EiB: what a bucket of objects of at most 50 TB each is in practice, and what all programs can print.
    pub const BUCKET: Statistics =
        Statistics { blocks: 1 << 48, files: 1 << 40, block_size: 4096, name_max: crate::types::NAME_MAX as u32 };
}
