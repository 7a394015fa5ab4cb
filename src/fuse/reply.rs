//! What operations answer, as the kernel wants it.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use fuser::{
    FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
};

use super::convert::{self, TTL, errno};
use super::raw::Raw;
use crate::error::Result;
use crate::fs::{DirEntry, Entry, Filesystem, Opened, Statistics};
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

pub(super) fn data(reply: ReplyData, outcome: Result<Bytes>) {
    match outcome {
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn handle(opened: &Opened) -> (FileHandle, FopenFlags) {
    let flags = if opened.keep_cache { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
    (FileHandle(opened.fh.get()), flags)
}

/// An open file: one that the kernel reads by itself where it takes it, else one that it asks for.
pub(super) fn opened(fs: &Filesystem, reply: ReplyOpen, outcome: Result<Opened>) {
    let opened = match outcome {
        Ok(opened) => opened,
        Err(error) => return reply.error(errno(&error)),
    };
    let register = |file: &File| match reply.open_backing(file) {
        Ok(id) => Some(id),
        Err(error) => {
            // No right to (it takes CAP_SYS_ADMIN), or a file system on top of another one: then never.
            tracing::debug!(%error, "the kernel does not read the disk cache by itself");
            fs.set_passthrough(false);
            None
        }
    };
    let (fh, flags) = handle(&opened);
    match opened.backing.as_ref().and_then(|backing| backing.known_by(register)) {
        // Of the other flags the kernel takes none with it.
        Some(id) => reply.opened_passthrough(fh, FopenFlags::empty(), id),
        None => reply.opened(fh, flags),
    }
}

pub(super) fn written(reply: ReplyWrite, outcome: Result<u32>) {
    match outcome {
        Ok(bytes) => reply.written(bytes),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn statistics(reply: ReplyStatfs, outcome: Result<Statistics>) {
    match outcome {
        Ok(all) => {
            let (blocks, files, size) = (all.blocks, all.files, all.block_size);
            reply.statfs(blocks, blocks, blocks, files, files, size, all.name_max, size);
        }
        Err(error) => reply.error(errno(&error)),
    }
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
pub(super) fn directory(raw: Raw, mut reply: ReplyDirectory, outcome: Result<Vec<DirEntry>>) {
    match outcome {
        Ok(entries) if entries.iter().any(|entry| entry.file_type.is_none()) => raw.directory(reply, &entries),
        Ok(entries) => {
            for entry in &entries {
                let file_type = entry.file_type.unwrap_or_default();
                let (ino, kind) = (INodeNo(entry.ino.get()), convert::kind(entry.kind, file_type));
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
