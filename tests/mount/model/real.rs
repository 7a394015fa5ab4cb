//! The same operations through system calls.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::operation::{Flags, LARGE, Operation, SLOTS, Way, bytes_of};
use super::reference::{Answer, Entry, Time};

/// A directory in a file system.
pub struct Real {
    root: PathBuf,
    handles: [Option<File>; SLOTS],
}

impl Real {
    pub fn new(root: PathBuf) -> Self {
        Real { root, handles: Default::default() }
    }

    pub fn close_all(&mut self) {
        self.handles = Default::default();
    }

    pub fn apply(&mut self, operation: &Operation) -> Answer {
        let answer = self.attempt(operation);
        answer.unwrap_or_else(|error| Answer::Errno(error.raw_os_error().unwrap_or_default()))
    }

    /// Everything below the directory.
    pub fn tree(&self) -> Result<BTreeMap<String, Entry>, String> {
        let mut tree = BTreeMap::new();
        self.collect("", &mut tree).map_err(|error| format!("walking the tree: {error}"))?;
        Ok(tree)
    }

    fn collect(&self, dir: &str, tree: &mut BTreeMap<String, Entry>) -> io::Result<()> {
        for name in names(&self.path(dir))? {
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let entry = stat(&self.path(&path), true)?;
            let is_dir = matches!(entry, Entry::Dir { .. });
            tree.insert(path.clone(), entry);
            if is_dir {
                self.collect(&path, tree)?;
            }
        }
        Ok(())
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn attempt(&mut self, operation: &Operation) -> io::Result<Answer> {
        use Operation::*;
        match operation {
            Open { slot, path, flags, mode } => {
                self.handles[*slot] = None;
                self.handles[*slot] = Some(open(&self.path(path), *flags, *mode)?);
            }
            Put { path, len, seed } => std::fs::write(self.path(path), bytes_of(*seed, 0, *len))?,
            Write { slot, at, len, seed } => {
                return self.with(*slot, |file| file.write_all_at(&bytes_of(*seed, *at, *len), *at));
            }
            Read { slot, at, len } => {
                let Some(file) = &self.handles[*slot] else { return Ok(Answer::NoFile) };
                return read(file, *at, *len).map(Answer::Bytes);
            }
            Resize { slot, size } => return self.with(*slot, |file| file.set_len(*size)),
            Allocate { slot, at, len, keep_size } => {
                let mode = if *keep_size { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
                return self.with(*slot, |file| fallocate(file, mode, *at, *len));
            }
            Punch { slot, at, len } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                return self.with(*slot, |file| fallocate(file, mode, *at, *len));
            }
            Copy { from, to, from_at, to_at, len } => {
                let (Some(from), Some(to)) = (&self.handles[*from], &self.handles[*to]) else {
                    return Ok(Answer::NoFile);
                };
                return copy(from, to, *from_at as i64, *to_at as i64, *len).map(Answer::Copied);
            }
            CopyOn { from, to, along, len } => {
                let (Some(from), Some(to)) = (&self.handles[*from], &self.handles[*to]) else {
                    return Ok(Answer::NoFile);
                };
                let end = to.metadata()?.len();
                if end > LARGE {
                    return Ok(Answer::NoFile);
                }
                let (from_at, end) = (if *along { end as i64 } else { 0 }, end as i64);
                return copy(from, to, from_at, end, *len).map(Answer::Copied);
            }
            CopyFile { from, to, piece } => copy_file(&self.path(from), &self.path(to), *piece)?,
            Sync { slot } => return self.with(*slot, File::sync_all),
            Close { slot } => return Ok(self.handles[*slot].take().map_or(Answer::NoFile, |_| Answer::Done)),
            Truncate { path, size } => truncate(&self.path(path), *size)?,
            MakeDir { path, mode } => std::fs::DirBuilder::new().mode(*mode).create(self.path(path))?,
            RemoveDir { path } => std::fs::remove_dir(self.path(path))?,
            Unlink { path } => std::fs::remove_file(self.path(path))?,
            Rename { from, to, replace } => rename(&self.path(from), &self.path(to), *replace)?,
            SetMode { path, mode } => std::fs::set_permissions(self.path(path), PermissionsExt::from_mode(*mode))?,
            MakeLink { target, path } => std::os::unix::fs::symlink(target, self.path(path))?,
            ReadLink { path } => return target_of(&self.path(path)).map(Answer::Target),
            SetOwner { path, uid, gid } => std::os::unix::fs::chown(self.path(path), Some(*uid), Some(*gid))?,
            SetTime { path, seconds, nanoseconds } => set_time(&self.path(path), *seconds, *nanoseconds)?,
            Stat { path } => return stat(&self.path(path), false).map(Answer::Stat),
            List { path } => return names(&self.path(path)).map(Answer::Names),
            ReadWhole { path } => return std::fs::read(self.path(path)).map(Answer::Bytes),
            Restart | WriteUnstored { .. } => {}
        }
        Ok(Answer::Done)
    }

    /// Syncs an open file that was just written, while the store of a mount refuses that.
    pub fn sync_in_vain(&self, slot: usize, refused: bool) -> Answer {
        let Some(file) = &self.handles[slot] else { return Answer::NoFile };
        let has_name = file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        match file.sync_all() {
            // One without a name is not stored anywhere.
            Ok(()) if !has_name => Answer::Done,
            Ok(()) if refused => Answer::Stored,
            Ok(()) | Err(_) => Answer::Unstored,
        }
    }

    fn with(&self, slot: usize, change: impl FnOnce(&File) -> io::Result<()>) -> io::Result<Answer> {
        let Some(file) = &self.handles[slot] else { return Ok(Answer::NoFile) };
        change(file).map(|()| Answer::Done)
    }
}

fn open(path: &Path, flags: Flags, mode: u32) -> io::Result<File> {
    let mut options = File::options();
    options.read(flags.way != Way::Write).write(flags.way != Way::Read).mode(mode);
    // By hand: the standard library refuses some combinations that open(2) takes.
    let mut extra = 0;
    for (set, flag) in [
        (flags.create, libc::O_CREAT),
        (flags.exclusive, libc::O_EXCL),
        (flags.truncate, libc::O_TRUNC),
        (flags.append, libc::O_APPEND),
    ] {
        extra |= if set { flag } else { 0 };
    }
    let file = options.custom_flags(extra).open(path)?;
    // A directory may be opened for reading; here that is no file.
    if file.metadata()?.is_dir() { Err(io::Error::from_raw_os_error(libc::EISDIR)) } else { Ok(file) }
}

fn read(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut filled) = (vec![0; len], 0);
    while filled < len {
        match file.read_at(&mut bytes[filled..], at + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn fallocate(file: &File, mode: i32, at: u64, len: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open; the rest are numbers.
    result(unsafe { libc::fallocate(file.as_raw_fd(), mode, at as i64, len as i64) })
}

fn copy(from: &File, to: &File, mut from_at: i64, mut to_at: i64, len: usize) -> io::Result<usize> {
    // SAFETY: the descriptors are open, and the offsets live through the call.
    let copied = unsafe { libc::copy_file_range(from.as_raw_fd(), &mut from_at, to.as_raw_fd(), &mut to_at, len, 0) };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

fn copy_file(from: &Path, to: &Path, piece: usize) -> io::Result<()> {
    let flags = Flags { way: Way::Read, create: false, exclusive: false, truncate: false, append: false };
    let from = open(from, flags, 0)?;
    let to = open(to, Flags { way: Way::Write, create: true, truncate: true, ..flags }, 0o644)?;
    let mut at = 0;
    loop {
        match copy(&from, &to, at, at, piece)? {
            0 => return Ok(()),
            count => at += count as i64,
        }
    }
}

fn truncate(path: &Path, size: u64) -> io::Result<()> {
    // SAFETY: the path is a terminated string that lives through the call.
    result(unsafe { libc::truncate(text(path).as_ptr(), size as i64) })
}

fn rename(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    let flags = if replace { 0 } else { libc::RENAME_NOREPLACE };
    let (from, to) = (text(from), text(to));
    // SAFETY: the paths are terminated strings that live through the call.
    result(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    // SAFETY: the path and the two times live through the call.
    result(unsafe { libc::utimensat(libc::AT_FDCWD, text(path).as_ptr(), [time, time].as_ptr(), 0) })
}

fn target_of(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_link(path)?.to_string_lossy().into_owned())
}

fn stat(path: &Path, with_bytes: bool) -> io::Result<Entry> {
    let metadata = std::fs::symlink_metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    let owner = (metadata.uid(), metadata.gid());
    if metadata.is_symlink() {
        return Ok(Entry::Link { target: target_of(path)?, size: metadata.len() });
    }
    if metadata.is_dir() {
        return Ok(Entry::Dir { mode, owner });
    }
    let bytes = if with_bytes { Some(std::fs::read(path)?) } else { None };
    let time = Time(Some((metadata.mtime(), metadata.mtime_nsec())));
    Ok(Entry::File { mode, owner, time, size: metadata.len(), bytes })
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn text(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn result(answer: i32) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
