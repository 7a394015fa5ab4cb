//! The callbacks: each converts its arguments, calls one operation, and converts what it answers.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Generation, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::answer::{Call, answer, contained};
use super::convert::{self, TTL, errno, refusal};
use super::handshake::settle;
use super::meter::{Meter, Operation};
use super::raw::Raw;
use super::reply::{attr, data, directory, directory_plus, empty, entry, fh, handle, opened, statistics, written};
use super::xattr;
use crate::error::Result;
use crate::fs::{Allocation, CopyRange, Creation, Filesystem, Refused, RenameMode, SetAttributes};
use crate::inode::OwnershipChange;
use crate::types::ByteRange;

/// The kernel's view of a filesystem.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) fs: Arc<Filesystem>,
    runtime: Handle,
    device: Arc<File>,
    meter: Arc<Meter>,
}

impl Bridge {
    /// `device` is the one that the session is served on; `meter` counts what is asked.
    pub fn new(fs: Arc<Filesystem>, runtime: Handle, device: OwnedFd, meter: Arc<Meter>) -> Self {
        Bridge { fs, runtime, device: Arc::new(device.into()), meter }
    }

    pub(super) fn serve<T, F>(&self, call: Call, operation: F, reply: impl FnOnce(Result<T>) + Send + 'static)
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        answer(&self.runtime, &self.meter, call, operation, reply);
    }
}

impl fuser::Filesystem for Bridge {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        settle(&self.fs, config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let call = Call::quick(Operation::Lookup, parent);
        self.serve(call, async move { fs.lookup(parent, &name).await }, |outcome| entry(reply, outcome));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, count: u64) {
        contained(|| self.fs.forget(convert::ino(ino), count));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let (fs, ino) = (self.fs.clone(), convert::ino(ino));
        self.serve(Call::quick(Operation::Getattr, ino), async move { fs.getattr(ino).await }, |outcome| {
            attr(reply, outcome)
        });
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
        self.serve(Call::transfer(Operation::Setattr, ino), operation, |outcome| attr(reply, outcome));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let (fs, ino) = (self.fs.clone(), convert::ino(ino));
        self.serve(Call::quick(Operation::Readlink, ino), async move { fs.readlink(ino).await }, |outcome| {
            data(reply, outcome)
        });
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
        self.serve(Call::transfer(Operation::Mknod, parent), operation, |outcome| entry(reply, outcome));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let creation = Creation { mode, uid: req.uid(), gid: req.gid() };
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.mkdir(parent, &name, creation).await };
        self.serve(Call::transfer(Operation::Mkdir, parent), operation, |outcome| entry(reply, outcome));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.unlink(parent, &name).await };
        self.serve(Call::transfer(Operation::Unlink, parent), operation, |outcome| empty(reply, outcome));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.rmdir(parent, &name).await };
        self.serve(Call::transfer(Operation::Rmdir, parent), operation, |outcome| empty(reply, outcome));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (uid, gid, target) = (req.uid(), req.gid(), target.as_os_str().as_bytes().to_vec());
        let (fs, parent, name) = (self.fs.clone(), convert::ino(parent), name.as_bytes().to_vec());
        let operation = async move { fs.symlink(parent, &name, &target, (uid, gid)).await };
        self.serve(Call::transfer(Operation::Symlink, parent), operation, |outcome| entry(reply, outcome));
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
        self.serve(Call::transfer(Operation::Rename, parent), operation, |outcome| empty(reply, outcome));
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(refusal(Refused::Link));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, ino, intent) = (self.fs.clone(), convert::ino(ino), convert::intent(flags.0));
        let told = fs.clone();
        let operation = async move { fs.open(ino, intent).await };
        self.serve(Call::transfer(Operation::Open, ino), operation, move |outcome| opened(&told, reply, outcome));
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
        let meter = self.meter.clone();
        let operation = async move { fs.read(fh, offset, size).await.inspect(|bytes| meter.gave(bytes.len())) };
        self.serve(Call::quick(Operation::Read, convert::ino(ino)), operation, |outcome| data(reply, outcome));
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
        let call = Call::transfer(Operation::Write, convert::ino(ino));
        let meter = self.meter.clone();
        let answered = move |outcome: Result<u32>| written(reply, outcome.inspect(|bytes| meter.took(*bytes)));
        match fs.write_now(fh, offset, data) {
            Some(outcome) => answered(call.end(&self.meter, outcome)),
            None => {
                let data = data.to_vec();
                self.serve(call, async move { fs.write(fh, offset, &data).await }, answered);
            }
        }
    }

    fn flush(&self, _req: &Request, ino: INodeNo, handle: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        let (fs, fh) = (self.fs.clone(), fh(handle));
        let operation = async move { fs.flush(fh).await };
        self.serve(Call::transfer(Operation::Close, convert::ino(ino)), operation, |outcome| empty(reply, outcome));
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
        self.serve(Call::transfer(Operation::Release, convert::ino(ino)), operation, |outcome| empty(reply, outcome));
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let (fs, fh) = (self.fs.clone(), fh(handle));
        let operation = async move { fs.fsync(fh).await };
        self.serve(Call::transfer(Operation::Fsync, convert::ino(ino)), operation, |outcome| empty(reply, outcome));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (fs, told, ino) = (self.fs.clone(), self.fs.clone(), convert::ino(ino));
        let operation = async move { fs.opendir(ino) };
        self.serve(Call::quick(Operation::Opendir, ino), operation, move |outcome| opened(&told, reply, outcome));
    }

    fn readdir(&self, req: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let (fs, fh, raw) = (self.fs.clone(), fh(handle), Raw::new(&self.device, req.unique()));
        let operation = async move { fs.readdir(fh, offset, false).await };
        let filled = move |outcome| directory(raw, reply, outcome);
        self.serve(Call::quick(Operation::Readdir, convert::ino(ino)), operation, filled);
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let (fs, told, fh) = (self.fs.clone(), self.fs.clone(), fh(handle));
        let operation = async move { fs.readdir(fh, offset, true).await };
        let filled = move |outcome| directory_plus(&told, reply, outcome);
        self.serve(Call::quick(Operation::Readdirplus, convert::ino(ino)), operation, filled);
    }

    fn releasedir(&self, _req: &Request, ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        let (fs, call) = (self.fs.clone(), Call::quick(Operation::Releasedir, convert::ino(ino)));
        self.serve(
            call,
            async move {
                fs.releasedir(fh(handle));
                Ok(())
            },
            |outcome| empty(reply, outcome),
        );
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let (fs, call) = (self.fs.clone(), Call::quick(Operation::Fsyncdir, convert::ino(ino)));
        self.serve(
            call,
            async move {
                fs.fsyncdir();
                Ok(())
            },
            |outcome| empty(reply, outcome),
        );
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let (fs, call) = (self.fs.clone(), Call::quick(Operation::Statfs, convert::ino(ino)));
        self.serve(call, async move { Ok(fs.statfs()) }, |outcome| statistics(reply, outcome));
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
        self.serve(Call::transfer(Operation::Create, parent), operation, |outcome| match outcome {
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
        self.serve(Call::transfer(Operation::Fallocate, convert::ino(ino)), operation, |outcome| empty(reply, outcome));
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
        self.serve(
            Call::transfer(Operation::CopyFileRange, convert::ino(ino_out)),
            operation,
            |outcome| match outcome {
                Ok(copied) => reply.written(copied),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }
}
