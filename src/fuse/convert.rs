//! Between the kernel's structures and our own. Nothing is decided here.

use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, INodeNo, TimeOrNow};

use crate::error::{Error, Result};
use crate::fs::{Refused, WireAnswer};
use crate::inode::{Attr, Device, FileType, Kind};
use crate::types::{Access, Ino, OpenIntent};

/// How long the kernel believes names and attributes without asking: short, since other machines change them too, and
/// since an answer from memory costs little.
pub(super) const TTL: Duration = Duration::from_secs(1);

/// `st_blksize`: what programs read and write at once. The kernel's own requests are larger.
const BLOCK: u32 = 128 << 10;

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino::new(number.0)
}

pub(super) fn kind(kind: Kind, file_type: FileType) -> fuser::FileType {
    match (kind, file_type) {
        (Kind::Dir, _) => fuser::FileType::Directory,
        (Kind::File, FileType::Regular) => fuser::FileType::RegularFile,
        (Kind::File, FileType::Symlink) => fuser::FileType::Symlink,
        (Kind::File, FileType::Fifo) => fuser::FileType::NamedPipe,
        (Kind::File, FileType::Socket) => fuser::FileType::Socket,
        (Kind::File, FileType::CharDevice(_)) => fuser::FileType::CharDevice,
        (Kind::File, FileType::BlockDevice(_)) => fuser::FileType::BlockDevice,
    }
}

pub(super) fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

/// What goes over the wire for a refused call.
pub(super) fn refusal(refused: Refused) -> Errno {
    match refused.wire() {
        WireAnswer::NeverAgain => Errno::ENOSYS,
        WireAnswer::ThisTime => errno(&refused.error()),
        WireAnswer::Fallback if refused == Refused::Ioctl => Errno::ENOTTY,
        WireAnswer::Fallback => errno(&refused.error()),
    }
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.get()),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: attr.ownership.atime,
        mtime: attr.ownership.mtime,
        ctime: attr.ownership.ctime,
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(attr.kind, attr.ownership.file_type),
        perm: (attr.ownership.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.ownership.uid,
        gid: attr.ownership.gid,
        rdev: attr.ownership.file_type.device().map_or(0, |device| device.0),
        blksize: BLOCK,
        flags: 0,
    }
}

/// What mknod(2) is to make.
pub(super) fn node_type(mode: u32, rdev: u32) -> Result<FileType> {
    let known = FileType::from_mode(mode, Device(rdev)).filter(|file_type| *file_type != FileType::Symlink);
    known.ok_or_else(|| Refused::SpecialFile.error())
}

pub(super) fn intent(flags: i32) -> OpenIntent {
    let access = match flags & libc::O_ACCMODE {
        libc::O_WRONLY => Access::Write,
        libc::O_RDWR => Access::ReadWrite,
        _ => Access::Read,
    };
    OpenIntent {
        access,
        truncate: flags & libc::O_TRUNC != 0,
        append: flags & libc::O_APPEND != 0,
        exclusive: flags & (libc::O_EXCL | libc::O_CREAT) == (libc::O_EXCL | libc::O_CREAT),
    }
}

pub(super) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => mended(time),
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// fuser takes the nanoseconds of a time before 1970 away from its seconds. They count from there on (utimensat(2)).
fn mended(time: SystemTime) -> SystemTime {
    let Err(before) = time.duration_since(SystemTime::UNIX_EPOCH) else { return time };
    time.checked_add(Duration::from_nanos(u64::from(before.duration().subsec_nanos()) * 2)).unwrap_or(time)
}
