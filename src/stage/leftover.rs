//! What dead sessions left: found, taken by one process at a time, and opened again or thrown away.
//!
//! A session whose `lock` can be locked is dead; who finds it so keeps the lock for as long as it works on what is in there,
//! so that two mounts, or a mount and `pailfs recover`, never take the same file. Nothing is removed here but what was clean, and
//! what somebody asks to be discarded.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::away::AwayPart;
use super::file::StagedFile;
use super::journal::NotedUpload;
use super::moves::{self, LeftMoves, Moves};
use super::record::{self, Noted, Record, RecordFault, RecordState};
use super::session::{Session, check_owned, lock_dir, remove_session, source_dir};
use super::space::Space;
use crate::error::{Error, Result};
use crate::types::{ByteRange, Expect, ObjectKey, Version};

/// How long a session of a process that has ended may keep its lock: the system takes its descriptors a moment later.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// A staged file of a session that died. While it, or the file opened from it, is held nobody else takes that session.
#[derive(Clone, Debug)]
pub struct Leftover {
    session: Arc<Session>,
    /// Directory of the dead session.
    pub dir: PathBuf,
    /// The data.
    pub file: PathBuf,
    /// Where it belongs, when the record can be read.
    pub key: Option<ObjectKey>,
    /// Size of the data in bytes.
    pub size: u64,
    /// True for a whole file that was only not committed yet.
    pub sealed: bool,
    /// True when the data is what it was when the record was written, also after a loss of power.
    pub durable: bool,
    /// When the record was written.
    pub recorded: SystemTime,
    /// The record, or why there is none.
    pub record: Result<Record, RecordFault>,
    /// The bytes that were here when the record was written.
    pub present: Vec<ByteRange>,
}

/// Why a leftover is not a whole file that can be stored as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The record can't be read.
    #[error("{0}")]
    Record(#[from] RecordFault),
    /// It was never closed or synced.
    #[error("it was still open, and not synced")]
    Open,
    /// The machine was restarted before the data was synced.
    #[error("the machine was restarted before its bytes were safe on the disk")]
    Restarted,
    /// Data and record don't fit.
    #[error("its data has {found} bytes, and its record says {recorded}")]
    Size {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be.
        recorded: u64,
    },
    /// Parts of it were only in an upload that is gone.
    #[error("parts of it were only in an unfinished upload that is gone from the bucket")]
    Lost,
    /// Bytes are missing, and nothing says where they are to come from.
    #[error("bytes are missing in it")]
    Holes,
}

/// What is in the stage for one source.
#[derive(Debug)]
pub struct Remaining {
    /// The source's identity, as it was given to [`super::Stage::open`].
    pub identity: String,
    /// What dead sessions left.
    pub leftovers: Vec<Leftover>,
    /// Renames of directories that they had begun.
    pub renames: Vec<LeftMoves>,
    /// Directories of sessions in use, which are left alone.
    pub live: Vec<PathBuf>,
}

impl Leftover {
    /// Session and number: what tells two leftovers of one source apart.
    pub fn id(&self) -> String {
        id_of(&self.file)
    }

    /// Notes that it belongs elsewhere now, in its record and here.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn moved(&mut self, key: &ObjectKey, base: Option<&Version>, expect: &Expect) -> Result<()> {
        let change = |record: &mut Record| {
            record.key = key.clone();
            record.base = base.cloned();
            record.expect = expect.clone();
        };
        record::change(&self.file.with_extension("json"), change)?;
        if let Ok(record) = &mut self.record {
            change(record);
            self.key = Some(key.clone());
        }
        Ok(())
    }

    /// The record of a whole file.
    ///
    /// # Errors
    /// Why it is not one.
    pub fn whole(&self) -> Result<&Record, Doubt> {
        let record = self.record.as_ref().map_err(|fault| Doubt::Record(fault.clone()))?;
        match () {
            () if !self.sealed => Err(Doubt::Open),
            () if !self.durable => Err(Doubt::Restarted),
            () if record.size != self.size => Err(Doubt::Size { found: self.size, recorded: record.size }),
            () if record.upload_id.is_none() && !self.away().is_empty() => Err(Doubt::Lost),
            () if !self.missing().is_empty() && self.base().is_none() => Err(Doubt::Holes),
            () => Ok(record),
        }
    }

    /// The version that missing bytes come from.
    pub fn base(&self) -> Option<&Version> {
        let record = self.record.as_ref().ok()?;
        // A file that replaces what is there takes no byte of it over.
        record.base.as_ref().filter(|base| record.expect == Expect::Is(base.etag.clone()))
    }

    /// The bytes that are to come from the base version.
    pub fn missing(&self) -> Vec<ByteRange> {
        let mut map = self.here();
        self.away().iter().for_each(|part| map.insert(part.range));
        map.missing(ByteRange::new(0, self.size))
    }

    /// The parts whose bytes are only in the upload that the record names, or in none. What was cut off is not among them.
    pub fn away(&self) -> Vec<AwayPart> {
        let parts = self.record.as_ref().map(|record| record.away.clone()).unwrap_or_default();
        parts.into_iter().filter(|part| part.range.end <= self.size).collect()
    }

    /// What is here. Of a file that was still open the record knows only what was here when that began: there, all of a new
    /// file is, and of a changed one nobody knows.
    fn here(&self) -> super::RangeMap {
        let whole_anyway = !self.sealed && self.base().is_none();
        let ranges = if whole_anyway { vec![ByteRange::new(0, self.size)] } else { self.present.clone() };
        let mut map: super::RangeMap = ranges.into_iter().collect();
        self.away().iter().for_each(|part| map.remove(part.range));
        map
    }

    /// The file, to be read, completed and committed. It stays on the disk until it is clean.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn open(&self) -> Result<StagedFile> {
        let upload = self
            .record
            .as_ref()
            .ok()
            .and_then(|record| record.upload_id.clone().map(|id| NotedUpload { id, mark: record.upload_mark }));
        let here: Vec<ByteRange> = self.here().iter().collect();
        StagedFile::adopt(self.session.clone(), &self.file, &here, upload, &self.away())
    }

    /// Notes that the multipart upload that the record names is gone.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn forget_upload(&self) -> Result<()> {
        record::change(&self.file.with_extension("json"), |record| {
            (record.upload_id, record.upload_mark) = (None, None)
        })
    }

    /// Removes data and record for good.
    pub fn discard(self) {
        self.session.remove_data_file(&self.file, &self.file.with_extension("json"));
    }
}

/// What is left below `root`, of one source or of all. Makes nothing; a stage that is not there has nothing.
///
/// # Errors
/// As [`super::Stage::open`].
pub fn remaining(root: &Path, identity: Option<&str>) -> Result<Vec<Remaining>> {
    let failed = |err| Error::local("looking through the stage", err);
    match std::fs::symlink_metadata(root) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        _ => check_owned(root)?,
    }
    let mut sources = Vec::new();
    match identity {
        Some(identity) => sources.push(source_dir(root, identity)),
        None => {
            for entry in std::fs::read_dir(root).map_err(failed)? {
                sources.push(entry.map_err(failed)?.path());
            }
        }
    }
    sources.sort();
    let mut all = Vec::new();
    for source in sources {
        // Whatever has no such file is no source's directory, or one that was just being made.
        let Ok(found_identity) = std::fs::read_to_string(source.join("source")) else { continue };
        if identity.is_some_and(|asked| asked != found_identity) {
            continue;
        }
        check_owned(&source)?;
        let guard = lock_dir(&source)?;
        let found = scan(&source)?;
        drop(guard);
        let (leftovers, renames) = take(found.dead, &Arc::new(Space::unlimited()));
        all.push(Remaining { identity: found_identity, live: found.live, leftovers, renames });
    }
    Ok(all)
}

/// The sessions of a source. Plain descriptors: a [`Session`] must not be dropped under the source's lock.
pub(super) struct Found {
    pub dead: Vec<Dead>,
    pub live: Vec<PathBuf>,
}

/// A dead session, locked.
pub(super) struct Dead {
    dir: PathBuf,
    lock: File,
    files: Vec<Left>,
    renames: Vec<(PathBuf, Result<Moves, RecordFault>)>,
}

struct Left {
    file: PathBuf,
    size: u64,
    noted: Result<Noted, RecordFault>,
}

/// Looks through a source's sessions, and removes dead ones that left nothing. The caller holds the lock of `source`.
pub(super) fn scan(source: &Path) -> Result<Found> {
    let failed = |err| Error::local("looking through the stage", err);
    let mut found = Found { dead: Vec::new(), live: Vec::new() };
    let until = Instant::now() + LAST_BREATH;
    for entry in std::fs::read_dir(source).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        let dir = entry.path();
        let Some(lock) = lock_dead(&dir, until).map_err(failed)? else {
            found.live.push(dir);
            continue;
        };
        let files = files_of(&dir).map_err(failed)?;
        let renames = moves::all_in(&dir).map_err(failed)?;
        if files.is_empty() && renames.is_empty() {
            if let Err(err) = remove_session(&dir) {
                tracing::warn!(dir = %dir.display(), %err, "an empty dead session can't be removed");
            }
        } else {
            found.dead.push(Dead { dir, lock, files, renames });
        }
    }
    found.dead.sort_by(|a, b| a.dir.cmp(&b.dir));
    found.live.sort();
    Ok(found)
}

/// The leftovers of sessions that [`scan`] found, each holding its session. Those that are opened count in `space`.
pub(super) fn take(dead: Vec<Dead>, space: &Arc<Space>) -> (Vec<Leftover>, Vec<LeftMoves>) {
    let (mut all, mut begun) = (Vec::new(), Vec::new());
    for Dead { dir, lock, files, renames } in dead {
        let session = Arc::new(Session::of_dead(dir, lock, space.clone()));
        all.extend(files.into_iter().map(|left| left.of(&session)));
        begun.extend(renames.into_iter().map(|(path, moves)| LeftMoves::new(session.clone(), path, moves)));
    }
    (all, begun)
}

/// Session and number of a file in a session.
pub(super) fn id_of(file: &Path) -> String {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    format!("{}/{}", name(file.parent().unwrap_or(file)), name(file))
}

impl Left {
    fn of(self, session: &Arc<Session>) -> Leftover {
        let Left { file, size, noted } = self;
        let (record, present, durable, recorded) = match noted {
            Ok(noted) => (Ok(noted.record), noted.present, noted.durable, noted.written),
            Err(fault) => (Err(fault), Vec::new(), false, SystemTime::UNIX_EPOCH),
        };
        Leftover {
            session: session.clone(),
            dir: session.dir().to_owned(),
            file,
            key: record.as_ref().ok().map(|record| record.key.clone()),
            size,
            sealed: record.as_ref().is_ok_and(|record| record.state == RecordState::Sealed),
            durable,
            recorded,
            record,
            present,
        }
    }
}

/// The lock of a dead session; `None` for one in use.
fn lock_dead(session: &Path, until: Instant) -> std::io::Result<Option<File>> {
    // Made where it is missing: a session that died in its first moment.
    let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(session.join("lock"))?;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::Error(err)) => return Err(err),
            Err(TryLockError::WouldBlock) if has_ended(session) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
        }
    }
}

/// True when the process that made a session ran here and has ended. One of another container is not seen here at all.
fn has_ended(session: &Path) -> bool {
    let name = session.file_name().unwrap_or_default().to_string_lossy();
    let pid = name.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
    let stat = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    // The state follows the command's name, which stands in parentheses and may hold anything.
    let state = stat.as_deref().and_then(|stat| stat.rsplit(')').next()?.split_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// The data files of a session that are worth keeping: all but empty ones that nobody closed. Those without a record were
/// clean, and are removed.
fn files_of(session: &Path) -> std::io::Result<Vec<Left>> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(session)? {
        let file = entry?.path();
        if file.extension().is_none_or(|extension| extension != "data") {
            continue;
        }
        let path = file.with_extension("json");
        let size = std::fs::symlink_metadata(&file)?.len();
        let noted = record::load(&path);
        if noted == Err(RecordFault::Missing) {
            std::fs::remove_file(&file)?;
            continue;
        }
        let sealed = noted.as_ref().is_ok_and(|noted| noted.record.state == RecordState::Sealed);
        if size == 0 && !sealed && noted.as_ref().is_ok_and(|noted| noted.record.upload_id.is_none()) {
            continue;
        }
        left.push(Left { file, size, noted });
    }
    left.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(left)
}
