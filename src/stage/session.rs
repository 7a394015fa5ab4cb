//! The stage directory: who owns it, and the sessions in it. What dead ones left is told in [`super::leftover`].
//!
//! Layout: `ROOT/SOURCE/SESSION/{lock, N.data, N.json, N.moves, room.spare}`, where SOURCE is a hash of the source's identity (written
//! out in `ROOT/SOURCE/source`) and `lock` is locked with flock(2) for the life of the session. A session whose lock
//! is free is dead. Whoever makes, scans or removes sessions holds a lock on SOURCE meanwhile, so that nobody takes
//! one that is just being made for a dead one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::file::StagedFile;
use super::leftover::{self, Leftover};
use super::moves::{EXTENSION, LeftMoves, Moves, MovesFile};
use super::space::{Space, UnderWay};
use crate::config::StageSettings;
use crate::error::{Error, Result};

/// A file of a session that only takes room.
const SPARE: &str = "room.spare";
/// Its bytes: a journal record that names as many parts as a file of some hundred GB has.
const SPARE_BYTES: usize = 1 << 20;

/// The stage of one mount.
#[derive(Debug)]
pub struct Stage {
    session: Arc<Session>,
    /// What dead sessions left of renames, until somebody takes it.
    renames: Mutex<Vec<LeftMoves>>,
}

impl Stage {
    /// Opens the stage below `root` (made with mode 0700 when it is missing) for one source, in a session of its own,
    /// and tells what dead sessions of that source left. Dead sessions that left nothing are removed. Without limits.
    ///
    /// # Errors
    /// `AccessDenied` when the directory is a link, somebody else's, or open to others' writing; else what the
    /// local file system gives.
    pub fn open(root: &Path, source_identity: &str) -> Result<(Stage, Vec<Leftover>)> {
        let none = StageSettings { dir: root.to_owned(), limit: None, min_free: Some(0) };
        Self::open_within(&none, source_identity)
    }

    /// As [`Stage::open`], where and within the limits that the settings say. The leftovers count from when they are opened.
    ///
    /// # Errors
    /// As there.
    pub fn open_within(settings: &StageSettings, source_identity: &str) -> Result<(Stage, Vec<Leftover>)> {
        let root = settings.dir.as_path();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|err| Error::local("making the stage directory", err))?;
        check_owned(root)?;
        let source = source_dir(root, source_identity);
        make_dir(&source).map_err(|err| Error::local("making the stage directory", err))?;
        check_owned(&source)?;
        let guard = lock_dir(&source)?;
        check_identity(&source, source_identity)?;
        let found = leftover::scan(&source)?;
        let space = Arc::new(Space::within(settings, &source)?);
        let session = Session::make(&source, space.clone())?;
        drop(guard);
        let (leftovers, renames) = leftover::take(found.dead, &space);
        Ok((Stage { session: Arc::new(session), renames: Mutex::new(renames) }, leftovers))
    }

    /// What dead sessions left of renames of directories when the stage was opened: handed out once.
    pub fn take_renames(&self) -> Vec<LeftMoves> {
        std::mem::take(&mut *self.renames.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down that these moves begin, and brings that to the disk.
    ///
    /// # Errors
    /// `StageFull` and what the local file system gives: then nothing is left of it.
    pub fn begin_moves(&self, moves: &Moves) -> Result<MovesFile> {
        MovesFile::create(self.session.clone(), moves)
    }

    /// An empty file.
    ///
    /// # Errors
    /// `StageFull` and what the local file system gives.
    pub fn new_file(&self) -> Result<StagedFile> {
        self.over(0)
    }

    /// A file over a base of `base_size` bytes, all of them missing. Takes no disk space yet.
    ///
    /// # Errors
    /// As [`Stage::new_file`].
    pub fn over(&self, base_size: u64) -> Result<StagedFile> {
        StagedFile::create(self.session.clone(), base_size)
    }

    /// Bytes that the file system of the stage still has for this user.
    ///
    /// # Errors
    /// What statvfs(3) gives.
    pub fn free_space(&self) -> Result<u64> {
        let told = rustix::fs::fstatvfs(&self.session.lock);
        let told = told.map_err(|err| Error::local("asking for free space in the stage", err.into()))?;
        Ok(told.f_bavail.saturating_mul(told.f_frsize))
    }

    /// Bytes that staged files take on the disk.
    pub fn taken(&self) -> u64 {
        self.session.space.taken()
    }

    /// Something begins that gives bytes back in the end. To be dropped after what holds them.
    pub fn under_way(&self) -> UnderWay {
        self.session.space.under_way()
    }

    /// What [`Stage::room_made`] compares with. To be asked before a write.
    pub fn changes(&self) -> u64 {
        self.session.space.changes()
    }

    /// Waits until bytes were given back since `seen`: true. False when nothing is under way that could do that.
    pub async fn room_made(&self, seen: u64) -> bool {
        self.session.space.changed(seen).await
    }

    /// Directory of this session.
    pub fn dir(&self) -> &Path {
        &self.session.dir
    }

    /// Removes the session's directory when nothing is in it that must be kept; true when it is gone.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn finish(&self) -> Result<bool> {
        self.session.remove_if_empty().map_err(|err| Error::local("removing the stage's session", err))
    }
}

/// One session's directory. Dropped with the stage and the last file; goes away then unless files were kept.
#[derive(Debug)]
pub(super) struct Session {
    dir: PathBuf,
    /// Locked as long as it is open.
    lock: File,
    next: AtomicU64,
    /// True while there is a spare file. Locked while that changes.
    spare: Mutex<bool>,
    /// What its files take of the disk, with those of the other sessions that the mount took over.
    pub(super) space: Arc<Space>,
}

impl Session {
    fn make(source: &Path, space: Arc<Space>) -> Result<Self> {
        let failed = |err| Error::local("making a stage session", err);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let pid = std::process::id();
        for attempt in 0..1000 {
            let dir = source.join(format!("{pid}-{:x}", since.wrapping_add(attempt)));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(err) if err.kind() == ErrorKind::AlreadyExists => continue,
                other => other.map_err(failed)?,
            }
            let lock = new_file(&dir.join("lock")).map_err(failed)?;
            lock.try_lock().map_err(|err| failed(err.into()))?;
            return Ok(Session { dir, lock, next: AtomicU64::new(0), spare: Mutex::default(), space });
        }
        Err(failed(ErrorKind::AlreadyExists.into()))
    }

    /// A session that died, whose `lock` the caller has taken. Must not be dropped under the lock of its source.
    pub(super) fn of_dead(dir: PathBuf, lock: File, space: Arc<Space>) -> Self {
        Session { dir, lock, next: AtomicU64::new(0), spare: Mutex::default(), space }
    }

    /// Its directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new data file, and where its record goes.
    pub(super) fn new_data_file(&self) -> Result<(File, PathBuf, PathBuf)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let data = self.dir.join(format!("{number}.data"));
        let file = new_file(&data).map_err(|err| Error::local("making a staged file", err))?;
        Ok((file, data, self.dir.join(format!("{number}.json"))))
    }

    /// Keeps some room of the disk for [`Session::with_spare`]. Where there is none left, that has to do without.
    pub(super) fn keep_spare(&self) {
        let mut has_one = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if !*has_one {
            let path = self.dir.join(SPARE);
            let made = new_file(&path).and_then(|mut file| file.write_all(&vec![0; SPARE_BYTES]));
            *has_one = made.is_ok();
            if let Err(err) = made {
                tracing::debug!(%err, "the stage has no room to spare");
                _ = std::fs::remove_file(&path);
            }
        }
    }

    /// Does a small thing again that had no room, with the room that was kept for that: one that makes much more.
    ///
    /// # Errors
    /// `StageFull` when that is gone too; what it gives.
    pub(super) fn with_spare<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        match work() {
            Err(Error::StageFull) => {
                let mut has_one = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
                if std::mem::take(&mut *has_one) {
                    self.remove(&self.dir.join(SPARE));
                }
                drop(has_one);
                work()
            }
            done => done,
        }
    }

    /// Where another record goes.
    pub(super) fn new_moves_path(&self) -> PathBuf {
        self.dir.join(format!("{}.{EXTENSION}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// The record goes first: data without one is never committed, a record without data would puzzle.
    pub(super) fn remove_data_file(&self, data: &Path, record: &Path) {
        self.remove(record);
        self.remove(data);
    }

    /// Removes one file, if it is there.
    pub(super) fn remove(&self, path: &Path) {
        match std::fs::remove_file(path) {
            Err(err) if err.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %err, "a staged file can't be removed");
            }
            _ => {}
        }
    }

    fn remove_if_empty(&self) -> std::io::Result<bool> {
        let Some(source) = self.dir.parent() else { return Ok(false) };
        let _guard = match lock_dir(source) {
            Ok(guard) => guard,
            Err(_) => return Ok(false),
        };
        remove_session_if_empty(&self.dir)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(err) = self.remove_if_empty() {
            tracing::debug!(dir = %self.dir.display(), %err, "the stage's session stays");
        }
    }
}

pub(super) fn source_dir(root: &Path, identity: &str) -> PathBuf {
    root.join(format!("{:016x}", crc_fast::crc64_nvme(identity.as_bytes())))
}

fn new_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn make_dir(path: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub(super) fn check_owned(dir: &Path) -> Result<()> {
    let meta = std::fs::symlink_metadata(dir).map_err(|err| Error::local("looking at the stage directory", err))?;
    // SAFETY: geteuid(2) has no preconditions and can't fail.
    let me = unsafe { libc::geteuid() };
    let refused = |why| Err(Error::AccessDenied(format!("the stage directory {} {why}", dir.display())));
    match () {
        () if !meta.is_dir() => refused("is not a directory (or is a link)"),
        () if meta.uid() != me => refused("belongs to another user"),
        () if meta.mode() & 0o022 != 0 => refused("can be written by other users"),
        () => Ok(()),
    }
}

pub(super) fn lock_dir(dir: &Path) -> Result<File> {
    let failed = |err| Error::local("locking the stage directory", err);
    let file = File::open(dir).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// Writes the identity out, for people, and so that two sources with one hash are not taken for each other.
fn check_identity(source: &Path, identity: &str) -> Result<()> {
    let failed = |err| Error::local("writing into the stage directory", err);
    let path = source.join("source");
    match std::fs::read(&path) {
        Ok(text) if text == identity.as_bytes() => Ok(()),
        Ok(text) if !text.is_empty() => Err(failed(ErrorKind::AlreadyExists.into())),
        Err(err) if err.kind() != ErrorKind::NotFound => Err(failed(err)),
        _ => {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
            file.as_mut().map_err(|err| failed(err.kind().into()))?.write_all(identity.as_bytes()).map_err(failed)
        }
    }
}

fn remove_session_if_empty(session: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(session) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(true),
        entries => {
            for entry in entries? {
                if entry?.path().extension().is_some_and(|extension| extension == "data" || extension == EXTENSION) {
                    return Ok(false);
                }
            }
        }
    }
    remove_session(session)?;
    Ok(true)
}

/// Removes a session's files, the lock last, and its directory. Only files that a session makes are touched.
pub(super) fn remove_session(session: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(session)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| ["data", "json", "new", "spare"].iter().any(|one| extension == *one))
        {
            std::fs::remove_file(&path)?;
        }
    }
    match std::fs::remove_file(session.join("lock")) {
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    std::fs::remove_dir(session)
}
