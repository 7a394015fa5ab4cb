//! Where control sockets are.
//!
//! A directory for each user, which others can't look into, and in it a socket named by the device number of the mount: that is
//! in the mount table, and no other mount has it meanwhile.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::fuse::mountinfo::DeviceNumber;

/// Where the sockets of this user's mounts may be, the best first.
pub(super) fn directories(uid: u32) -> Vec<PathBuf> {
    let own = |parent: String| Path::new(&parent).join("pailfs");
    // Not the TMPDIR of whoever asks: it may be another one.
    let last = Path::new("/tmp").join(format!("pailfs-{uid}"));
    match uid {
        0 => vec![own("/run".to_owned()), last],
        _ => vec![own(format!("/run/user/{uid}")), last],
    }
}

/// The name of a mount's socket.
pub(super) fn name(device: DeviceNumber) -> String {
    format!("{}-{}.socket", device.major, device.minor)
}

/// Makes the first of the directories that can be made, or is there and the user's own.
///
/// # Errors
/// Why the last one could not be.
pub(super) fn prepare(uid: u32) -> io::Result<PathBuf> {
    let mut outcome = Err(io::Error::from(io::ErrorKind::NotFound));
    for dir in directories(uid) {
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => outcome = Err(error),
            _ => match check(&dir, uid) {
                Ok(()) => return Ok(dir),
                Err(error) => outcome = Err(error),
            },
        }
    }
    outcome
}

/// Somebody else may have made it before us, where everybody may make directories.
pub(super) fn check(dir: &Path, uid: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(dir)?;
    if meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not this user's alone", dir.display())))
    }
}

/// Removes the sockets of daemons that were killed.
pub(super) fn tidy(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if path.extension().is_some_and(|suffix| suffix == "socket")
            && UnixStream::connect(&path).is_err_and(|e| refused(&e))
        {
            // Another mount that starts now may be as tidy.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_directory_that_others_can_look_into_or_a_link_is_not_used() {
        let home = tempfile::tempdir().expect("a directory");
        let uid = fs::metadata(home.path()).expect("it exists").uid();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
        assert!(check(home.path(), uid).is_ok());
        assert!(check(home.path(), uid + 1).is_err());
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).expect("a link");
        assert!(check(&link, uid).is_err());
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o750)).expect("chmod");
        assert!(check(home.path(), uid).is_err());
    }

    #[test]
    fn only_sockets_that_nobody_listens_at_are_removed() {
        let home = tempfile::tempdir().expect("a directory");
        let path = |name: &str| home.path().join(name);
        let _live = UnixListener::bind(path("0-1.socket")).expect("a socket");
        drop(UnixListener::bind(path("0-2.socket")).expect("a socket"));
        fs::write(path("other"), "").expect("a file");
        tidy(home.path());
        assert!(path("0-1.socket").exists() && path("other").exists() && !path("0-2.socket").exists());
    }
}
