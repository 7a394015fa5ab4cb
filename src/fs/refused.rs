//! The calls that pailfs refuses, and what goes over the wire for each so that the caller sees ENOTSUP: one table.
//!
//! Two answers mean different things to the kernel. `NeverAgain` (ENOSYS) is remembered for the life of the mount; what the kernel
//! then tells callers differs by call, and it is only used where that is the right thing. `ThisTime` (EOPNOTSUPP) reaches the
//! caller as it is. flush and fsync are not in the table: ENOSYS there would be taken for success, for ever.

use crate::error::Error;

/// What goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireAnswer {
    /// ENOSYS: the kernel never asks again.
    NeverAgain,
    /// EOPNOTSUPP: the caller sees it, and the next one is asked again.
    ThisTime,
    /// Another errno that callers know as "do it another way".
    Fallback,
}

/// A refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// link(2): the kernel would turn ENOSYS into EPERM.
    Link,
    /// symlink(2) in `metadata=basic`: ENOSYS would reach the caller as "Function not implemented".
    Symlink,
    /// mknod(2) of a fifo, socket or device in `metadata=basic`.
    SpecialFile,
    /// setxattr(2) and its like without the option `xattr`: the kernel tells ENOTSUP and stops asking, which also makes every write and `ls -l` cheaper.
    ExtendedAttribute,
    /// access(2): the kernel checks modes itself (`default_permissions`).
    Access,
    /// ioctl(2): programs expect ENOTTY from a file that has none.
    Ioctl,
    /// poll(2): the kernel then says that a file is always ready.
    Poll,
    /// lseek(2) with SEEK_DATA and SEEK_HOLE: the kernel then answers that the file is all data.
    SeekData,
    /// fallocate(2) modes beyond reserving, punching and zeroing.
    FallocateMode,
    /// renameat2(2) with RENAME_EXCHANGE or RENAME_WHITEOUT.
    RenameMode,
    /// copy_file_range(2) of anything but a whole file: EXDEV makes every caller, and the kernel itself, copy by reading and
    /// writing.
    CopyFileRange,
    /// Record locks: the kernel keeps them itself, within the mount.
    Lock,
    /// bmap: there are no blocks.
    BlockMap,
}

impl Refused {
    /// What goes over the wire.
    pub fn wire(self) -> WireAnswer {
        match self {
            Refused::ExtendedAttribute | Refused::Access | Refused::Poll | Refused::SeekData => WireAnswer::NeverAgain,
            Refused::CopyFileRange | Refused::Ioctl => WireAnswer::Fallback,
            Refused::Link
            | Refused::Symlink
            | Refused::SpecialFile
            | Refused::FallocateMode
            | Refused::RenameMode
            | Refused::Lock
            | Refused::BlockMap => WireAnswer::ThisTime,
        }
    }

    /// The error for the log, and for an answer that reaches the caller.
    pub fn error(self) -> Error {
        match self {
            Refused::CopyFileRange => Error::CrossDevice,
            other => Error::Unsupported(other.call()),
        }
    }

    /// The call's name.
    pub fn call(self) -> &'static str {
        match self {
            Refused::Link => "link",
            Refused::Symlink => "a symbolic link with metadata=basic",
            Refused::SpecialFile => "a special file with metadata=basic",
            Refused::ExtendedAttribute => "extended attributes",
            Refused::Access => "access",
            Refused::Ioctl => "ioctl",
            Refused::Poll => "poll",
            Refused::SeekData => "lseek for data and holes",
            Refused::FallocateMode => "this mode of fallocate",
            Refused::RenameMode => "this mode of rename",
            Refused::CopyFileRange => "copy_file_range",
            Refused::Lock => "record locks",
            Refused::BlockMap => "bmap",
        }
    }
}
