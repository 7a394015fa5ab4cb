//! Where control sockets are.
//!
//! A directory for each user, which others can't look into, and in it a socket named by the device number of the mount: that is
//! in the mount table, and no other mount has it meanwhile.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::fuse::mountinfo::{DeviceNumber, Entry};

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

/// Removes the sockets of daemons that were killed and whose mounts are gone too. By the socket of one that is `mounted` still its
/// user is told that it was killed.
pub(super) fn tidy(dir: &Path, mounted: &[Entry]) {
    let names: Vec<_> = mounted.iter().filter(|entry| entry.is_pailfs()).map(|entry| name(entry.device)).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if path.extension().is_some_and(|suffix| suffix == "socket")
            && !names.iter().any(|name| entry.file_name() == name.as_str())
            && UnixStream::connect(&path).is_err_and(|e| refused(&e))
        {
            // Another mount that starts now may be as tidy.
            let _ = fs::remove_file(path);
        }
    }
}

/// Listens at `path`, in place of whoever did before: who looks finds one or the other, never a socket that nobody listens at yet.
/// The caller is in a runtime.
///
/// # Errors
/// The socket can't be made.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension("new");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&new)?;
    // Nobody else could look into the directory meanwhile.
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Which file is there, for as long as it is.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::fuse::mountinfo::FILESYSTEM_TYPE;

    fn mounted(minor: u32) -> Entry {
        Entry {
            device: DeviceNumber { major: 0, minor },
            mountpoint: PathBuf::from("/mnt"),
            filesystem: FILESYSTEM_TYPE.to_owned(),
            source: "s3://bucket".to_owned(),
            user: 0,
        }
    }

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
    fn only_sockets_that_nobody_listens_at_and_of_no_mount_are_removed() {
        let home = tempfile::tempdir().expect("a directory");
        let path = |name: &str| home.path().join(name);
        let _live = UnixListener::bind(path("0-1.socket")).expect("a socket");
        for killed in ["0-2.socket", "0-3.socket"] {
            drop(UnixListener::bind(path(killed)).expect("a socket"));
        }
        fs::write(path("other"), "").expect("a file");
        tidy(home.path(), &[mounted(3)]);
        assert!(path("0-1.socket").exists() && path("other").exists() && !path("0-2.socket").exists());
        assert!(path("0-3.socket").exists(), "it tells that the mount was killed");
    }

    #[tokio::test]
    async fn a_new_mount_listens_in_place_of_a_killed_one_of_the_same_number() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("0-1.socket");
        drop(UnixListener::bind(&path).expect("a socket"));
        fs::write(path.with_extension("new"), "of a daemon that was killed as it started").expect("a file");
        let before = identity(&path);
        let _listener = listen(&path).expect("it listens");
        assert!(UnixStream::connect(&path).is_ok());
        assert_ne!(identity(&path), before);
        assert!(!path.with_extension("new").exists());
        assert_eq!(fs::metadata(&path).expect("a socket").mode() & 0o777, 0o600);
    }
}
