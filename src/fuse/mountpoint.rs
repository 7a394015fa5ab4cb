//! What is at a mountpoint before anything is mounted there: nothing, entries, another pailfs, a dead one.
//!
//! A dead mount (its process was killed) answers ENOTCONN to every call; it is cleared here when we may do so and it
//! is one of ours by its type.

use std::io;
use std::path::{Path, PathBuf};

use super::mount::{MountError, may_mount, unmount_top};
use super::mountinfo;

/// A mountpoint that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Absolute and without symbolic links: as the mount table will show it.
    pub path: PathBuf,
    /// A dead mount was cleared away.
    pub cleared: bool,
}

/// Looks at `typed`, and clears dead mounts away if we may.
///
/// # Errors
/// `Missing`, `NotDirectory`, `NotEmpty` (unless `nonempty`), `AlreadyMounted`, `Dead`.
pub fn prepare(typed: &Path, nonempty: bool) -> Result<Place, MountError> {
    let path = resolve(typed)?;
    let mut cleared = false;
    // Mounts may be stacked: one look per dead one, with an end for the case that clearing does not help.
    for _ in 0..16 {
        let top = mountinfo::top_at(&path).map_err(|e| MountError::system("reading the mount table", e))?;
        // Listing an automount point from the very mount that it waits for would wait for itself.
        let automounted = top.as_ref().is_some_and(|entry| entry.filesystem == "autofs");
        let ours = top.filter(mountinfo::Entry::is_pailfs);
        match std::fs::metadata(&path) {
            Err(error) if is_dead(&error) => {
                if ours.is_none() || !may_mount() {
                    return Err(dead(path));
                }
                unmount_top(&path, true)?;
                cleared = true;
            }
            Err(error) => return Err(unusable(path, error)),
            Ok(found) if !found.is_dir() => return Err(MountError::NotDirectory(path)),
            Ok(_) => match ours {
                Some(entry) => return Err(MountError::AlreadyMounted { path, source_name: entry.source }),
                None if nonempty || automounted || is_empty(&path)? => return Ok(Place { path, cleared }),
                None => return Err(MountError::NotEmpty(path)),
            },
        }
    }
    Err(dead(path))
}

/// Unmounts the pailfs mount at `typed`, alive or dead.
///
/// # Errors
/// `NotOurs` where none is, `Busy` unless `lazy`.
pub fn unmount(typed: &Path, lazy: bool) -> Result<PathBuf, MountError> {
    let path = resolve(typed)?;
    let top = mountinfo::top_at(&path).map_err(|e| MountError::system("reading the mount table", e))?;
    if !top.is_some_and(|entry| entry.is_pailfs()) {
        return Err(MountError::NotOurs(path));
    }
    unmount_top(&path, lazy).map(|()| path)
}

/// The path as the mount table has it. Resolving touches the mountpoint itself, which fails on a dead mount: then
/// its parent is resolved, and the name kept.
fn resolve(typed: &Path) -> Result<PathBuf, MountError> {
    match std::fs::canonicalize(typed) {
        Ok(path) => Ok(path),
        Err(error) if is_dead(&error) => match (typed.parent(), typed.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = std::fs::canonicalize(parent).map_err(|e| unusable(typed.to_owned(), e))?;
                Ok(parent.join(name))
            }
            _ => Err(dead(typed.to_owned())),
        },
        Err(error) => Err(unusable(typed.to_owned(), error)),
    }
}

/// ENOTCONN: the process is gone; ECONNABORTED: the connection was cut.
fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

fn dead(path: PathBuf) -> MountError {
    let command = if may_mount() {
        format!("umount -l {}", path.display())
    } else {
        format!("fusermount3 -uz {}", path.display())
    };
    MountError::Dead { path, command }
}

fn unusable(path: PathBuf, error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing(path),
        io::ErrorKind::NotADirectory => MountError::NotDirectory(path),
        _ => MountError::system("looking at the mountpoint", error),
    }
}

fn is_empty(path: &Path) -> Result<bool, MountError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        // Whoever mounts for a user may be unable to list what is below; the kernel decides about the mount.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(MountError::system("listing the mountpoint", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_will_do_unless_told_otherwise() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().canonicalize().expect("it exists");
        assert_eq!(prepare(&path, false).expect("empty"), Place { path: path.clone(), cleared: false });
        let file = path.join("file");
        std::fs::write(&file, "").expect("a file");
        assert!(matches!(prepare(&path, false), Err(MountError::NotEmpty(_))));
        assert!(prepare(&path, true).is_ok());
        assert!(matches!(prepare(&file, false), Err(MountError::NotDirectory(_))));
        assert!(matches!(prepare(&file.join("below"), false), Err(MountError::NotDirectory(_))));
        assert!(matches!(prepare(&path.join("missing"), false), Err(MountError::Missing(_))));
    }

    #[test]
    fn symbolic_links_are_resolved_as_the_mount_table_has_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().canonicalize().expect("it exists");
        std::fs::create_dir(root.join("real")).expect("a directory");
        std::os::unix::fs::symlink("real", root.join("link")).expect("a link");
        assert_eq!(prepare(&root.join("link"), false).expect("empty").path, root.join("real"));
    }

    #[test]
    fn what_is_no_pailfs_mount_is_never_unmounted() {
        assert!(matches!(unmount(Path::new("/proc"), false), Err(MountError::NotOurs(_))));
    }
}
