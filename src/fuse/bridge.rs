//! The callbacks: each converts its arguments, calls one operation, and converts what it answers.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::answer::{Call, answer, contained};
use super::convert::{self, TTL, errno, refusal};
use super::raw::Raw;
use super::reply::{attr, data, directory, directory_plus, empty, entry, fh, handle, opened};
use super::xattr;
use crate::error::Result;
use crate::fs::{Allocation, CopyRange, Creation, Filesystem, Refused, RenameMode, SetAttributes};
use crate::inode::OwnershipChange;
use crate::types::ByteRange;

/// Largest write request: 1 MiB halves the time of 128 KiB, and larger ones need a host-wide sysctl.
const MAX_WRITE: u32 = 1 << 20;

/// Requests of the kernel's own read-ahead under way; with 16, a window of 4 MiB is not filled.
const MAX_BACKGROUND: u16 = 64;

/// Files that the kernel reads by itself are on file systems that are on no other one. Two would allow an overlay, but then the
/// mount could not be one's lower layer.
const BACKING_DEPTH: u32 = 1;

/// The kernel's view of a filesystem.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) fs: Arc<Filesystem>,
    runtime: Handle,
    device: Arc<File>,
}

impl Bridge {
    /// `device` is the one that the session is served on.
    pub fn new(fs: Arc<Filesystem>, runtime: Handle, device: OwnedFd) -> Self {
        Bridge { fs, runtime, device: Arc::new(device.into()) }
    }

    pub(super) fn serve<T, F>(&self, call: Call, operation: F, reply: impl FnOnce(Result<T>) + Send + 'static)
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        answer(&self.runtime, call, operation, reply);
    }
}

impl fuser::Filesystem for Bridge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO;
        // An older kernel lacks some of them, and works without.
        if let Err(lacking) = config.add_capabilities(wanted) {
            let _ = config.add_capabilities(wanted & !lacking);
        }
        if self.fs.serves_xattrs() {
            // Else it asks for one before each write.
            let capable = config.add_capabilities(InitFlags::FUSE_HANDLE_KILLPRIV_V2);
            self.fs.set_takes_set_id(capable.is_ok());
        }
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        if self.fs.wants_passthrough() {
            let depth = config.set_max_stack_depth(BACKING_DEPTH);
            let capable = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH);
            self.fs.set_passthrough(depth.is_ok() && capable.is_ok());
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let call = Call::quick("lookup", parent);
        self.serve(call, async move { fs.lookup(parent, &name).await }, |outcome| entry(reply, outcome));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, count: u64) {
        contained(|| self.fs.forget(convert::ino(ino), count));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let (fs, ino) = (self.fs.clone(), convert::ino(ino));
        self.serve(Call::quick("getattr", ino), async move { fs.getattr(ino).await }, |outcome| attr(reply, outcome));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (mode, atime, mtime) = (mode.map(|mode| mode & 0o7777), atime.map(convert::time), mtime.map(convert::time));
        let ownership = OwnershipChange { mode, uid, gid, mtime, atime };
        let change = SetAttributes { size, ownership, handle: handle.map(fh) };
        let (fs, ino) = (self.fs.clone(), convert::ino(ino));
        let operation = async move { fs.setattr(ino, change).await };
        self.serve(Call::transfer("setattr", ino), operation, |outcome| attr(reply, outcome));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let (fs, ino) = (self.fs.clone(), convert::ino(ino));
        self.serve(Call::quick("readlink", ino), async move { fs.readlink(ino).await }, |outcome| data(reply, outcome));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let file_type = convert::node_type(mode, rdev);
        let creation = Creation { mode, uid: req.uid(), gid: req.gid() };
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.mknod(parent, &name, file_type?, creation).await };
        self.serve(Call::transfer("mknod", parent), operation, |outcome| entry(reply, outcome));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let creation = Creation { mode, uid: req.uid(), gid: req.gid() };
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.mkdir(parent, &name, creation).await };
        self.serve(Call::transfer("mkdir", parent), operation, |outcome| entry(reply, outcome));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.unlink(parent, &name).await };
        self.serve(Call::transfer("unlink", parent), operation, |outcome| empty(reply, outcome));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.rmdir(parent, &name).await };
        self.serve(Call::transfer("rmdir", parent), operation, |outcome| empty(reply, outcome));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (uid, gid, target) = (req.uid(), req.gid(), target.as_os_str().as_bytes().to_vec());
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.symlink(parent, &name, &target, (uid, gid)).await };
        self.serve(Call::transfer("symlink", parent), operation, |outcome| entry(reply, outcome));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            _ => return reply.error(refusal(Refused::RenameMode)),
        };
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let (to, new_name) = (convert::ino(new_parent), new_name.as_bytes().to_vec());
        let operation = async move { fs.rename(parent, &name, to, &new_name, mode).await };
        self.serve(Call::transfer("rename", parent), operation, |outcome| empty(reply, outcome));
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(refusal(Refused::Link));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, ino, intent) = (self.fs.clone(), convert::ino(ino), convert::intent(flags.0));
        let told = fs.clone();
        let operation = async move { fs.open(ino, intent).await };
        self.serve(Call::transfer("open", ino), operation, move |outcome| opened(&told, reply, outcome));
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (fs, fh) = (self.fs.clone(), fh(handle));
        let operation = async move { fs.read(fh, offset, size).await };
        self.serve(Call::quick("read", convert::ino(ino)), operation, |outcome| data(reply, outcome));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (fs, fh) = (self.fs.clone(), fh(handle));
        let call = Call::transfer("write", convert::ino(ino));
        let answered = |outcome: Result<u32>| match outcome {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(errno(&error)),
        };
        match fs.write_now(fh, offset, data) {
            Some(outcome) => answered(call.log(outcome)),
            None => {
                let data = data.to_vec();
                self.serve(call, async move { fs.write(fh, offset, &data).await }, answered);
            }
        }
    }

    fn flush(&self, _req: &Request, ino: INodeNo, handle: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        let (fs, fh) = (self.fs.clone(), fh(handle));
        let operation = async move { fs.flush(fh).await };
        self.serve(Call::transfer("close", convert::ino(ino)), operation, |outcome| empty(reply, outcome));
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let (fs, fh) = (self.fs.clone(), fh(handle));
        let operation = async move { fs.release(fh).await };
        self.serve(Call::transfer("release", convert::ino(ino)), operation, |outcome| empty(reply, outcome));
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let (fs, fh) = (self.fs.clone(), fh(handle));
        let operation = async move { fs.fsync(fh).await };
        self.serve(Call::transfer("fsync", convert::ino(ino)), operation, |outcome| empty(reply, outcome));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        contained(|| match self.fs.opendir(convert::ino(ino)) {
            Ok(dir) => {
                let (fh, flags) = handle(&dir);
                reply.opened(fh, flags);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readdir(&self, req: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let (fs, fh, raw) = (self.fs.clone(), fh(handle), Raw::new(&self.device, req.unique()));
        let operation = async move { fs.readdir(fh, offset, false).await };
        let filled = move |outcome| directory(raw, reply, outcome);
        self.serve(Call::quick("readdir", convert::ino(ino)), operation, filled);
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let (fs, told, fh) = (self.fs.clone(), self.fs.clone(), fh(handle));
        let operation = async move { fs.readdir(fh, offset, true).await };
        let filled = move |outcome| directory_plus(&told, reply, outcome);
        self.serve(Call::quick("readdirplus", convert::ino(ino)), operation, filled);
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        contained(|| {
            self.fs.releasedir(fh(handle));
            reply.ok();
        });
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.fs.fsyncdir();
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let all = self.fs.statfs();
        let (blocks, files, size) = (all.blocks, all.files, all.block_size);
        reply.statfs(blocks, blocks, blocks, files, files, size, all.name_max, size);
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], how: i32, _: u32, reply: ReplyEmpty) {
        xattr::set(self, convert::ino(ino), name, (value, how), reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr::get(self, convert::ino(ino), name, size, reply);
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr::list(self, convert::ino(ino), size, reply);
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        xattr::remove(self, convert::ino(ino), name, reply);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(refusal(Refused::Access));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let creation = Creation { mode, uid: req.uid(), gid: req.gid() };
        let intent = convert::intent(flags | libc::O_CREAT);
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.create(parent, &name, creation, intent).await };
        self.serve(Call::transfer("create", parent), operation, |outcome| match outcome {
            Ok(created) => {
                let (fh, flags) = handle(&created.opened);
                reply.created(&TTL, &convert::attr(&created.entry.attr), Generation(0), fh, flags);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(refusal(Refused::BlockMap));
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(refusal(Refused::Ioctl));
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(refusal(Refused::Poll));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let how = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => Allocation::Reserve { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE => Allocation::Punch,
            libc::FALLOC_FL_ZERO_RANGE => Allocation::Zero { keep_size },
            _ => return reply.error(refusal(Refused::FallocateMode)),
        };
        let (fs, fh, range) = (self.fs.clone(), fh(handle), ByteRange::at(offset, length));
        let operation = async move { fs.allocate(fh, range, how).await };
        self.serve(Call::transfer("fallocate", convert::ino(ino)), operation, |outcome| empty(reply, outcome));
    }

    fn lseek(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _offset: i64, _whence: i32, reply: ReplyLseek) {
        reply.error(refusal(Refused::SeekData));
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copy = CopyRange { from: (fh(fh_in), offset_in), to: (fh(fh_out), offset_out), len };
        let fs = self.fs.clone();
        let operation = async move { fs.copy_file_range(copy).await };
        self.serve(Call::transfer("copy_file_range", convert::ino(ino_out)), operation, |outcome| match outcome {
            Ok(copied) => reply.written(copied),
            Err(error) => reply.error(errno(&error)),
        });
    }
}
