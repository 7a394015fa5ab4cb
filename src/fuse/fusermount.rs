//! fusermount3, the set-user-id helper of libfuse: it mounts for users who may not, and hands the opened device back
//! over a socket. Everything that is said to it and heard from it is here.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::mount::{DEVICE, MountError, MountRequest, common_options};
use crate::config::Audience;

/// Where it may be beside `PATH`, which mount(8) takes away from its helpers.
const PLACES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// The program, when everything is there that it needs.
pub(super) fn check(audience: Audience) -> Result<PathBuf, MountError> {
    let program = find(std::env::var_os("PATH").as_deref()).ok_or(MountError::NoFusermount)?;
    // It opens the device with the user's rights, and would report a refusal less clearly.
    if !may_use_device() {
        return Err(MountError::DeviceDenied);
    }
    if audience != Audience::Owner {
        // What can't be read is left to fusermount3, whose own sentence is passed on.
        let allowed = std::fs::read_to_string("/etc/fuse.conf").map_or(true, |text| allows_others(&text));
        if !allowed && !is_root() {
            return Err(MountError::AllowOtherForbidden);
        }
    }
    Ok(program)
}

pub(super) fn mount(request: &MountRequest<'_>) -> Result<OwnedFd, MountError> {
    let program = check(request.audience)?;
    let (ours, theirs) = UnixStream::pair().map_err(|e| MountError::system("making a socket pair", e))?;
    let mut options = kernel_options(request);
    options.extend(common_options(request.audience));
    options.push(format!("subtype=pailfs,fsname={}", escape(request.source)));
    // The socket is its standard input: no fd needs to be made inheritable by hand.
    let child = Command::new(program)
        .arg("-o")
        .arg(options.join(","))
        .arg("--")
        .arg(request.mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| MountError::system("starting fusermount3", e))?;
    let device = receive_fd(&ours);
    let output = child.wait_with_output().map_err(|e| MountError::system("waiting for fusermount3", e))?;
    match device {
        Ok(Some(device)) if output.status.success() => Ok(device),
        Ok(_) => Err(refusal(&output.stderr)),
        Err(error) => Err(MountError::system("receiving the device from fusermount3", error)),
    }
}

/// The kernel's options as far as it knows them: it refuses the finer ones about access times, which FUSE, whose
/// kernel side never updates those times, has no use for.
fn kernel_options(request: &MountRequest<'_>) -> Vec<String> {
    const REFUSED: [&str; 4] = ["relatime", "strictatime", "nodiratime", "lazytime"];
    let names = request.kernel.names().into_iter();
    names.filter(|name| !REFUSED.contains(name)).map(str::to_owned).collect()
}

pub(super) fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let program = find(std::env::var_os("PATH").as_deref()).ok_or(MountError::NoFusermount)?;
    let output = Command::new(program)
        .arg(if lazy { "-uz" } else { "-u" })
        .arg("--")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| MountError::system("starting fusermount3", e))?;
    if output.status.success() {
        return Ok(());
    }
    // It has one exit code for everything; whether files are open is what a lazy unmount would change.
    match refusal(&output.stderr) {
        MountError::Fusermount(text) if text.ends_with("Device or resource busy") => Err(MountError::Busy(path.into())),
        other => Err(other),
    }
}

/// The program, in `PATH` or where distributions put it.
fn find(path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let listed = path.map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let places = listed.into_iter().chain(PLACES.map(PathBuf::from));
    places.filter(|dir| dir.is_absolute()).map(|dir| dir.join("fusermount3")).find(|program| program.is_file())
}

fn may_use_device() -> bool {
    let device = c"/dev/fuse";
    debug_assert_eq!(device.to_bytes(), DEVICE.as_bytes());
    // SAFETY: a terminated string that lives for ever.
    unsafe { libc::access(device.as_ptr(), libc::R_OK | libc::W_OK) == 0 }
}

fn is_root() -> bool {
    // SAFETY: takes nothing and can't fail.
    unsafe { libc::getuid() == 0 }
}

/// `user_allow_other` must stand on a line by itself.
fn allows_others(conf: &str) -> bool {
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

/// fusermount3 splits its options at commas and takes backslashes for escapes.
fn escape(source: &str) -> String {
    source.replace('\\', r"\\").replace(',', r"\,")
}

fn refusal(stderr: &[u8]) -> MountError {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
    // It names itself in front, with or without its directory.
    let line = line.split_once("fusermount3: ").map_or(line, |(_, rest)| rest);
    MountError::Fusermount(line.trim().to_owned())
}

/// One byte with the device's fd beside it (SCM_RIGHTS, unix(7)); `None` when the socket was closed without.
fn receive_fd(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    #[repr(align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut byte = [0u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: msghdr is a plain C struct; all zeroes is a valid value of it.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    loop {
        // SAFETY: the message points to live buffers of the lengths it names.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
        match got {
            0 => return Ok(None),
            1.. => break,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    // SAFETY: the kernel filled the control buffer and its length; the first header is within it or null. With the
    // right level and type its data is at least one fd, which is ours from now on.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null() || (*header).cmsg_level != libc::SOL_SOCKET || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Ok(None);
        }
        let fd = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>());
        Ok(Some(OwnedFd::from_raw_fd(fd)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_backslashes_in_the_source_are_escaped() {
        assert_eq!(escape(r"s3://b/a,b\c"), r"s3://b/a\,b\\c");
    }

    #[test]
    fn others_are_allowed_by_a_line_of_their_own() {
        assert!(allows_others("# x\nuser_allow_other\n"));
        for conf in ["", "#user_allow_other\n", "user_allow_other=1\n"] {
            assert!(!allows_others(conf), "{conf:?}");
        }
    }

    #[test]
    fn the_first_line_of_its_complaint_is_passed_on_without_its_name() {
        let error = refusal(b"\nfusermount3: user has no write access to mountpoint /x\nmore\n");
        assert_eq!(error.to_string(), "fusermount3 refused: user has no write access to mountpoint /x");
        let error = refusal(b"/usr/bin/fusermount3: unknown option 'x'\n");
        assert_eq!(error.to_string(), "fusermount3 refused: unknown option 'x'");
    }

    #[test]
    fn the_program_is_looked_for_in_path_first_and_never_in_relative_places() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("fusermount3");
        std::fs::write(&program, "").expect("a file");
        assert_eq!(find(Some(dir.path().as_os_str())), Some(program));
        assert_ne!(find(Some("relative".as_ref())), Some(PathBuf::from("relative/fusermount3")));
    }

    #[test]
    fn a_socket_that_closes_without_a_device_is_no_device() {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        drop(theirs);
        assert!(receive_fd(&ours).expect("an end of file").is_none());
    }
}
