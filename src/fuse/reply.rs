//! What operations answer, as the kernel wants it.

use std::sync::Arc;

use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
};

use super::convert::{self, TTL, errno};
use crate::error::Result;
use crate::fs::{DirEntry, Entry, Filesystem, Opened};
use crate::inode::Attr;
use crate::types::Fh;

pub(super) fn entry(reply: ReplyEntry, outcome: Result<Entry>) {
    match outcome {
        Ok(entry) => reply.entry(&TTL, &convert::attr(&entry.attr), Generation(0)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn empty(reply: ReplyEmpty, outcome: Result<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn handle(opened: &Opened) -> (FileHandle, FopenFlags) {
    let flags = if opened.keep_cache { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
    (FileHandle(opened.fh.get()), flags)
}

pub(super) fn fh(number: FileHandle) -> Fh {
    Fh::new(number.0)
}

pub(super) fn attr(reply: ReplyAttr, outcome: Result<Attr>) {
    match outcome {
        Ok(attr) => reply.attr(&TTL, &convert::attr(&attr)),
        Err(error) => reply.error(errno(&error)),
    }
}

/// As many entries as fit; the rest is asked for again.
pub(super) fn directory(mut reply: ReplyDirectory, outcome: Result<Vec<DirEntry>>) {
    match outcome {
        Ok(entries) => {
            for entry in &entries {
                let (ino, kind) = (INodeNo(entry.ino.get()), convert::kind(entry.kind));
                if reply.add(ino, entry.next, kind, entry.name.as_str()) {
                    break;
                }
            }
            reply.ok();
        }
        Err(error) => reply.error(errno(&error)),
    }
}

/// As [`directory`], with attributes. The kernel counts a lookup for each name but `.` and `..`.
pub(super) fn directory_plus(fs: &Arc<Filesystem>, mut reply: ReplyDirectoryPlus, outcome: Result<Vec<DirEntry>>) {
    match outcome {
        Ok(entries) => {
            for entry in &entries {
                let Some((attr, pin)) = &entry.attr else { continue };
                let (ino, attr) = (INodeNo(entry.ino.get()), convert::attr(attr));
                if reply.add(ino, entry.next, entry.name.as_str(), &TTL, &attr, Generation(0)) {
                    break;
                }
                if pin.is_some() {
                    fs.told(entry.ino);
                }
            }
            reply.ok();
        }
        Err(error) => reply.error(errno(&error)),
    }
}
