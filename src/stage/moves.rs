//! The journal record of a directory's rename: what is to be moved, and how far that has come.
//!
//! Owns its format (as that of [`super::record`], with another number), its writing and its removal, each of which is on the
//! disk when it returns: it is written before anything is moved, and one that came back after a loss of power would have files
//! deleted that were made since. What the moves are moves of, it does not know.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::StagedFile;
use super::leftover::id_of;
use super::record::{BaseLine, RecordFault, encode, unsealed};
use super::session::Session;
use crate::error::{Error, Result};
use crate::types::{ETag, Version};

/// What such a record's name ends in.
pub(super) const EXTENSION: &str = "moves";

/// Number of the format below; another one is not read.
const FORMAT: u32 = 1;

/// A directory's rename.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// Prefix of the keys before; ends in `/`.
    pub old: String,
    /// Prefix of the keys after; ends in `/`.
    pub new: String,
    /// How far it has come.
    pub phase: MovePhase,
    /// Every object.
    pub moves: Vec<OneMove>,
    /// The staged files that move too, as [`StagedFile::id`] and [`super::Leftover::id`] name them.
    pub files: Vec<String>,
}

/// How far a rename has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MovePhase {
    /// Copies may be missing. No source has been deleted.
    Copying,
    /// All copies are made. Sources are being deleted.
    Deleting,
}

/// One object on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneMove {
    /// What follows the prefix in both keys.
    pub rest: String,
    /// What is moved.
    pub version: Version,
    /// The copy, when it is known. In the phase of deleting a source without one stays.
    pub copy: Option<ETag>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    pailfs_moves: u32,
    kind: String,
    old: String,
    new: String,
    phase: MovePhase,
    moves: Vec<MoveLine>,
    files: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct MoveLine {
    rest: String,
    version: BaseLine,
    copy: Option<String>,
}

/// The one kind of moves that there is.
const RENAME: &str = "rename";

impl Line {
    fn new(moves: &Moves) -> Self {
        let line = |one: &OneMove| MoveLine {
            rest: one.rest.clone(),
            version: BaseLine::new(&one.version),
            copy: one.copy.as_ref().map(|etag| etag.as_str().to_owned()),
        };
        Line {
            pailfs_moves: FORMAT,
            kind: RENAME.to_owned(),
            old: moves.old.clone(),
            new: moves.new.clone(),
            phase: moves.phase,
            moves: moves.moves.iter().map(line).collect(),
            files: moves.files.clone(),
        }
    }

    fn into_moves(self) -> Option<Moves> {
        let known = self.pailfs_moves == FORMAT && self.kind == RENAME;
        if !known || !self.old.ends_with('/') || !self.new.ends_with('/') {
            return None;
        }
        let one = |line: MoveLine| {
            let version = line.version.into_version()?;
            Some(OneMove { rest: line.rest, version, copy: line.copy.as_deref().map(ETag::parse) })
        };
        let moves = self.moves.into_iter().map(one).collect::<Option<Vec<OneMove>>>()?;
        Some(Moves { old: self.old, new: self.new, phase: self.phase, moves, files: self.files })
    }
}

/// Where the record of a rename stands. It stays there when this is dropped.
#[derive(Clone, Debug)]
pub struct MovesFile {
    session: Arc<Session>,
    path: PathBuf,
}

/// What a dead session left of a rename. While it is held nobody else takes that session.
#[derive(Clone, Debug)]
pub struct LeftMoves {
    /// The record's place.
    pub file: MovesFile,
    /// The record, or why it can't be read.
    pub moves: Result<Moves, RecordFault>,
}

impl LeftMoves {
    pub(super) fn new(session: Arc<Session>, path: PathBuf, moves: Result<Moves, RecordFault>) -> Self {
        LeftMoves { file: MovesFile { session, path }, moves }
    }
}

impl MovesFile {
    pub(super) fn create(session: Arc<Session>, moves: &Moves) -> Result<Self> {
        let path = session.new_moves_path();
        let file = MovesFile { session, path };
        file.save(moves).inspect_err(|_| {
            // The name may stand already, where only its directory could not be brought to the disk.
            if let Err(error) = file.remove() {
                tracing::error!(path = %file.path.display(), %error, "the record of a rename that was refused stays");
            }
        })?;
        Ok(file)
    }

    /// Writes the record in one step: a reader finds the old one or the new one. It is on the disk then.
    ///
    /// # Errors
    /// `StageFull` and what the local file system gives.
    pub fn save(&self, moves: &Moves) -> Result<()> {
        let text = encode(&Line::new(moves))?;
        let beside = self.path.with_extension("moves.new");
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            sync_dir(self.session.dir())
        };
        write()
            .inspect_err(|_| _ = std::fs::remove_file(&beside))
            .map_err(|err| Error::local("writing the journal record of a rename", err))
    }

    /// Removes the record: the rename is done, or undone. The disk knows of it then.
    ///
    /// # Errors
    /// What the local file system gives.
    pub fn remove(&self) -> Result<()> {
        let removed = match std::fs::remove_file(&self.path) {
            Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
            _ => sync_dir(self.session.dir()),
        };
        removed.map_err(|err| Error::local("removing the journal record of a rename", err))
    }

    /// Session and number, as [`super::Leftover::id`].
    pub fn id(&self) -> String {
        id_of(&self.path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl StagedFile {
    /// Session and number: what a later [`super::Leftover::id`] of this file will be.
    pub fn id(&self) -> String {
        id_of(self.path())
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The records of a session.
pub(super) fn all_in(session: &Path) -> std::io::Result<Vec<(PathBuf, Result<Moves, RecordFault>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(session)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            let moves = load(&path);
            found.push((path, moves));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn load(path: &Path) -> Result<Moves, RecordFault> {
    let text = std::fs::read(path).map_err(|err| RecordFault::Unreadable(err.to_string()))?;
    unsealed::<Line>(&text)?.into_moves().ok_or(RecordFault::Foreign)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::stage::Stage;

    fn some_moves() -> Moves {
        let version = Version { etag: ETag::parse("\"abc\""), size: 7, modified: UNIX_EPOCH + Duration::from_secs(9) };
        let one = |rest: &str, copy| OneMove { rest: rest.to_owned(), version: version.clone(), copy };
        Moves {
            old: "p/d/".into(),
            new: "p/ä\n/".into(),
            phase: MovePhase::Copying,
            moves: vec![one("", None), one("a/b", Some(ETag::parse("x")))],
            files: vec!["1-2/0".into()],
        }
    }

    /// Sessions that die, and what the next one finds of renames.
    fn found(root: &tempfile::TempDir) -> Vec<LeftMoves> {
        Stage::open(&root.path().join("stage"), "s").expect("a stage").0.take_renames()
    }

    #[test]
    fn a_rename_that_was_begun_is_found_as_it_was_written_last_until_it_is_removed() {
        let root = tempfile::tempdir().expect("a folder");
        let (stage, _) = Stage::open(&root.path().join("stage"), "s").expect("a stage");
        let file = stage.begin_moves(&some_moves()).expect("written");
        assert!(found(&root).is_empty(), "the rename of a live session was taken");
        drop((stage, file));
        let left = found(&root).pop().expect("found");
        assert_eq!(left.moves, Ok(some_moves()));
        let deleting = Moves { phase: MovePhase::Deleting, ..some_moves() };
        left.file.save(&deleting).expect("written");
        drop(left);
        let left = found(&root).pop().expect("found");
        assert_eq!(left.moves, Ok(deleting));
        left.file.remove().expect("removed");
        drop(left);
        assert!(found(&root).is_empty());
        let sessions = std::fs::read_dir(root.path().join("stage")).expect("readable").flatten();
        let entries = sessions.flat_map(|source| std::fs::read_dir(source.path()).expect("readable").flatten());
        assert_eq!(entries.filter(|entry| entry.path().is_dir()).count(), 0, "an empty session stays");
    }

    #[test]
    fn a_record_of_a_rename_that_is_torn_or_of_another_format_is_told_and_stays() {
        let whole = encode(&Line::new(&some_moves())).expect("encoded");
        let foreign = encode(&Line { pailfs_moves: FORMAT + 1, ..Line::new(&some_moves()) }).expect("encoded");
        let unknown = encode(&Line { kind: "swap".into(), ..Line::new(&some_moves()) }).expect("encoded");
        let outside = encode(&Line { old: "p".into(), ..Line::new(&some_moves()) }).expect("encoded");
        let torn = whole[..whole.len() / 2].to_vec();
        let faults = [
            (torn, RecordFault::Torn),
            (Vec::new(), RecordFault::Torn),
            (foreign, RecordFault::Foreign),
            (unknown, RecordFault::Foreign),
            (outside, RecordFault::Foreign),
        ];
        for (text, fault) in faults {
            let root = tempfile::tempdir().expect("a folder");
            let (stage, _) = Stage::open(&root.path().join("stage"), "s").expect("a stage");
            let file = stage.begin_moves(&some_moves()).expect("written");
            std::fs::write(file.path(), &text).expect("written");
            drop((stage, file));
            for _ in 0..2 {
                assert_eq!(found(&root).pop().expect("it stays").moves, Err(fault.clone()));
            }
        }
    }

    #[test]
    fn a_record_that_can_not_be_written_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        let (stage, _) = Stage::open(&root.path().join("stage"), "s").expect("a stage");
        // The name of the file beside it is taken by a directory.
        std::fs::create_dir(stage.dir().join("0.moves.new")).expect("made");
        assert!(stage.begin_moves(&some_moves()).is_err());
        assert!(!stage.dir().join("0.moves").exists());
    }
}
