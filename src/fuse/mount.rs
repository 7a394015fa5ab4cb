//! Mounting and unmounting, by mount(2) where we may, else through fusermount3.
//!
//! Owns: the fd of /dev/fuse until the session takes it, the options that the kernel gets, and the rule that only a
//! mount which the mount table still shows as ours is ever unmounted (the path may carry another one by now).
//! Knows nothing of what is served through the fd.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::fusermount;
use super::mountinfo::{self, DeviceNumber, FILESYSTEM_TYPE};
use crate::config::{Audience, KernelOptions};

/// The device through which the kernel talks to us.
pub(super) const DEVICE: &str = "/dev/fuse";

/// Most bytes of one read request. The kernel stops at 256 pages by itself (`fs.fuse.max_pages_limit`); saying so keeps
/// a reply within one buffer also where an administrator raised that limit.
const MAX_READ: u32 = 1 << 20;

/// The kernel's own read-ahead. Its default of 128 KiB cuts sequential reads into requests of that size; from 1 MiB on
/// they reach the 1 MiB cap, which measured a third faster. More gained nothing, and a page fault of mmap reads
/// around itself by as much.
const READ_AHEAD_KIB: u32 = 1024;

/// Why a mount can't be made or removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence says it")]
pub enum MountError {
    #[error("{0} does not exist; create the directory first")]
    Missing(PathBuf),
    #[error("{0} is not a directory; name an existing empty directory")]
    NotDirectory(PathBuf),
    #[error("{0} is not empty; empty it, or mount over its entries with -o nonempty")]
    NotEmpty(PathBuf),
    #[error("{source_name} is already mounted on {path}; unmount it first with: umount {path}")]
    AlreadyMounted { path: PathBuf, source_name: String },
    #[error("{path} holds a dead mount, whose process is gone; clear it with: {command}")]
    Dead { path: PathBuf, command: String },
    #[error("/dev/fuse is missing; load the module with 'modprobe fuse', or give the container that device")]
    NoDevice,
    #[error("/dev/fuse may not be opened by this user; run as root, or give the user read and write access to it")]
    DeviceDenied,
    #[error("mounting without root needs fusermount3, which is not installed; install the package fuse3")]
    NoFusermount,
    #[error(
        "allow_other needs the line 'user_allow_other' in /etc/fuse.conf when it is not root who mounts; add it, or leave allow_other and allow_root out"
    )]
    AllowOtherForbidden,
    #[error("{0} is not a pailfs mount; nothing was unmounted")]
    NotOurs(PathBuf),
    #[error(
        "{0} is busy: programs have files open or their working directory there; close them, or detach it with: pailfs umount -l {0}"
    )]
    Busy(PathBuf),
    #[error("fusermount3 refused: {0}")]
    Fusermount(String),
    #[error("{what} failed: {source}")]
    System { what: &'static str, source: io::Error },
}

impl MountError {
    pub(super) fn system(what: &'static str, source: io::Error) -> Self {
        MountError::System { what, source }
    }
}

/// What is to be mounted.
#[derive(Clone, Debug)]
pub struct MountRequest<'a> {
    /// Shown in the mount table; holds no secret.
    pub source: &'a str,
    /// Resolved and checked (see [`super::mountpoint`]).
    pub mountpoint: &'a Path,
    /// Flags for the kernel.
    pub kernel: KernelOptions,
    /// Who may use it.
    pub audience: Audience,
}

/// A mount that was made: the device for the session, and the handle that unmounts it.
#[derive(Debug)]
pub struct Mounted {
    /// For [`super::serve`].
    pub device: OwnedFd,
    /// For later.
    pub handle: MountHandle,
}

/// Unmounts what was mounted, as long as it is ours.
#[derive(Clone, Debug)]
pub struct MountHandle {
    mountpoint: PathBuf,
    device: DeviceNumber,
}

/// What [`MountHandle::unmount`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It was mounted, and is not any more.
    Done,
    /// Someone else unmounted it before; what is at the path now is not touched.
    AlreadyGone,
}

/// Looks whether this machine and this user can mount at all, before anything else is asked for.
///
/// # Errors
/// `NoDevice`, `DeviceDenied`, `NoFusermount`, `AllowOtherForbidden`.
pub fn check_machine(audience: Audience) -> Result<(), MountError> {
    if !Path::new(DEVICE).exists() {
        Err(MountError::NoDevice)
    } else if may_mount() {
        open_device().map(drop)
    } else {
        fusermount::check(audience).map(drop)
    }
}

/// Mounts. Until the session answers on the device, every call on the mountpoint waits.
///
/// # Errors
/// As [`MountError`] says; nothing is mounted then.
pub fn mount(request: &MountRequest<'_>) -> Result<Mounted, MountError> {
    let device = if may_mount() {
        let device = open_device()?;
        mount_directly(request, &device)?;
        OwnedFd::from(device)
    } else {
        fusermount::mount(request)?
    };
    // On top is what was mounted last, which is ours, unless someone mounts there in this very moment.
    let entry = mountinfo::top_at(request.mountpoint).map_err(|e| MountError::system("reading the mount table", e))?;
    match entry.filter(mountinfo::Entry::is_pailfs) {
        Some(entry) => {
            let handle = MountHandle { mountpoint: request.mountpoint.to_owned(), device: entry.device };
            Ok(Mounted { device, handle })
        }
        // Dropping the device ends the connection, so that no caller hangs on a mount that nobody serves.
        None => Err(MountError::NotOurs(request.mountpoint.to_owned())),
    }
}

/// True when mount(2) is open to us: as root, or with CAP_SYS_ADMIN (21, capabilities(7)) otherwise.
pub(super) fn may_mount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim);
    let effective = effective.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    effective & (1 << 21) != 0
}

fn open_device() -> Result<File, MountError> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => MountError::NoDevice,
        // A container's device rules say EPERM, the node's bits say EACCES.
        Some(libc::EACCES | libc::EPERM) => MountError::DeviceDenied,
        _ => MountError::system("opening /dev/fuse", error),
    })
}

fn mount_directly(request: &MountRequest<'_>, device: &File) -> Result<(), MountError> {
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|e| MountError::system("mounting", io::Error::new(io::ErrorKind::InvalidInput, e)))
    };
    let source = text(request.source.as_bytes())?;
    let target = text(request.mountpoint.as_os_str().as_bytes())?;
    let kind = text(FILESYSTEM_TYPE.as_bytes())?;
    // SAFETY: these calls take nothing and can't fail.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode=40000,user_id={user},group_id={group}");
    data.extend(common_options(request.audience).iter().map(|option| format!(",{option}")));
    let data = text(data.as_bytes())?;
    // SAFETY: all four strings are terminated and live until the call returns.
    let answer = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), request.kernel.flags(), data.as_ptr().cast())
    };
    if answer == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENODEV) => MountError::NoDevice,
        Some(libc::ENOENT) => MountError::Missing(request.mountpoint.to_owned()),
        Some(libc::ENOTDIR) => MountError::NotDirectory(request.mountpoint.to_owned()),
        _ => MountError::system("mount(2)", error),
    })
}

/// Options that both ways of mounting hand to the kernel: it checks permission bits itself, so that they hold for
/// cached entries too.
pub(super) fn common_options(audience: Audience) -> Vec<String> {
    let mut options = vec!["default_permissions".to_owned(), format!("max_read={MAX_READ}")];
    // The kernel knows no allow_root: others are refused by the session then.
    if audience != Audience::Owner {
        options.push("allow_other".to_owned());
    }
    options
}

impl MountHandle {
    /// Where it was mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Its device number.
    pub fn device(&self) -> DeviceNumber {
        self.device
    }

    /// True while the mount table shows our device on top at our path.
    pub fn is_current(&self) -> bool {
        matches!(mountinfo::top_at(&self.mountpoint), Ok(Some(entry)) if entry.is_pailfs() && entry.device == self.device)
    }

    /// Unmounts, if it is still ours. `lazy` takes it out of the tree at once though files are open.
    ///
    /// # Errors
    /// `Busy` without `lazy`; what the system says otherwise.
    pub fn unmount(&self, lazy: bool) -> Result<Unmounted, MountError> {
        if !self.is_current() {
            return Ok(Unmounted::AlreadyGone);
        }
        unmount_top(&self.mountpoint, lazy).map(|()| Unmounted::Done)
    }

    /// Raises the kernel's read-ahead for this mount. Needs root, and the handshake must be done, since the kernel
    /// sets its own value there.
    ///
    /// # Errors
    /// What writing below `/sys` answers; the mount works without it.
    pub fn raise_read_ahead(&self) -> io::Result<()> {
        std::fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", self.device), READ_AHEAD_KIB.to_string())
    }
}

/// Unmounts what is on top at `path`. The caller has looked that it is a pailfs mount.
pub(super) fn unmount_top(path: &Path, lazy: bool) -> Result<(), MountError> {
    if !may_mount() {
        return fusermount::unmount(path, lazy);
    }
    let target = CString::new(path.as_os_str().as_bytes())
        .map_err(|e| MountError::system("unmounting", io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: the path is terminated and lives until the call returns.
    if unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EBUSY) => MountError::Busy(path.to_owned()),
        _ => MountError::system("umount(2)", error),
    })
}
