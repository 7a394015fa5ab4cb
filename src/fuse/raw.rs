//! A directory's names with types of which some are not known (`DT_UNKNOWN`), which fuser can't send: what it takes as a type is
//! one of seven. A wrong one would be believed by find(1) and others; with an unknown one they look.
//!
//! Owns that one answer as it stands in `fuse_kernel.h` (`fuse_out_header`, `fuse_dirent`), and knows that all workers share one
//! device.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use fuser::{ReplyDirectory, RequestId};

use crate::fs::DirEntry;
use crate::inode::{FileType, Kind};

/// The kernel asks for a page at least, and does not tell fuser's users how much it asked for.
const SIZE: usize = 4096;

/// `sizeof(struct fuse_out_header)`
const HEADER: usize = 16;

/// Where to send the answer to one request.
#[derive(Debug)]
pub(super) struct Raw {
    device: Arc<File>,
    unique: RequestId,
}

impl Raw {
    pub fn new(device: &Arc<File>, unique: RequestId) -> Self {
        Raw { device: device.clone(), unique }
    }

    /// As many entries as fit, in place of `reply`.
    pub fn directory(self, reply: ReplyDirectory, entries: &[DirEntry]) {
        let answer = answer(self.unique.0, entries);
        match self.device.as_ref().write_all(&answer) {
            // The kernel takes all of it or nothing, and the request is answered: what this does not drop is one count of those
            // who hold the device, which ends with the process.
            Ok(()) => std::mem::forget(reply),
            Err(error) => {
                tracing::debug!(%error, "a directory's names could not be told");
                drop(reply);
            }
        }
    }
}

fn answer(unique: u64, entries: &[DirEntry]) -> Vec<u8> {
    let mut answer = Vec::with_capacity(HEADER + SIZE);
    answer.extend([0; 8]);
    answer.extend(unique.to_ne_bytes());
    for entry in entries {
        let name = entry.name.as_str().as_bytes();
        let len = (24 + name.len()).next_multiple_of(8);
        if answer.len() + len > HEADER + SIZE {
            break;
        }
        let end = answer.len() + len;
        answer.extend(entry.ino.get().to_ne_bytes());
        answer.extend(entry.next.to_ne_bytes());
        answer.extend((name.len() as u32).to_ne_bytes());
        answer.extend(d_type(entry).to_ne_bytes());
        answer.extend(name);
        answer.resize(end, 0);
    }
    let len = answer.len() as u32;
    if let Some(place) = answer.get_mut(..4) {
        place.copy_from_slice(&len.to_ne_bytes());
    }
    answer
}

/// `DT_*` of readdir(3).
fn d_type(entry: &DirEntry) -> u32 {
    let known = match (entry.kind, entry.file_type) {
        (_, None) => libc::DT_UNKNOWN,
        (Kind::Dir, _) => libc::DT_DIR,
        (Kind::File, Some(FileType::Regular)) => libc::DT_REG,
        (Kind::File, Some(FileType::Symlink)) => libc::DT_LNK,
        (Kind::File, Some(FileType::Fifo)) => libc::DT_FIFO,
        (Kind::File, Some(FileType::Socket)) => libc::DT_SOCK,
        (Kind::File, Some(FileType::CharDevice(_))) => libc::DT_CHR,
        (Kind::File, Some(FileType::BlockDevice(_))) => libc::DT_BLK,
    };
    known.into()
}
