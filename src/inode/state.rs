//! The state machine of a file: one enum that carries its data, and every transition.
//!
//! ```text
//!                write, truncate, create                 seal
//!       Clean(v) ─────────────────────▶ Dirty(draft) ─────────────▶ Uploading(draft, settled)
//!         ▲  ▲                             ▲   ▲                          │        │
//!         │  └── refresh(v')               │   └── reopen, settle(Err) ───┘        │
//!         │                                └ the failure is kept, the data stays   │
//!         ├────────────────────────── settle(Ok(v')) ──────────────────────────────┘
//!         └── own ──▶ Moving(v, settled) ──▶ Clean(v')      Uploading, Moving ── unlink ──▶ Unlinked ── last pin ──▶ Removed
//! ```
//!
//! `Uploading` and `Moving` are the two states in which one task owns the file: nobody else may change it, and whoever
//! must wait does so on [`Settled`]. Owns no lock and does no I/O: an inode holds a state behind its own lock.

use std::sync::Arc;

use super::settled::Settled;
use crate::error::{Error, Result};
use crate::stage::StagedFile;
use crate::types::{ETag, Expect, ObjectKey, Version};

/// A file whose bytes are those of an object in S3.
#[derive(Clone, Debug)]
pub struct Clean {
    /// The object's version.
    pub version: Version,
    /// The same bytes on the local disk, left from the commit that wrote them; kept while the file is open.
    pub local: Option<Arc<StagedFile>>,
}

/// What a draft is based on, and so what must stand in S3 when it is committed.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The name was absent. `exclusive` is `O_EXCL`: the loser of a race gets EEXIST.
    Created {
        /// `O_EXCL`
        exclusive: bool,
    },
    /// Whatever is there is replaced (truncating open, rename over it): the last writer wins.
    /// Holds the version seen there, if any.
    Replaced(Option<Version>),
    /// A change of this version.
    Changed(Version),
}

impl Origin {
    /// The precondition of the commit.
    pub fn expect(&self) -> Expect {
        match self {
            Origin::Created { .. } => Expect::Absent,
            Origin::Replaced(_) => Expect::Any,
            Origin::Changed(version) => Expect::Is(version.etag.clone()),
        }
    }

    /// The object that stands in S3 under this name, as far as is known here.
    pub fn object(&self) -> Option<&Version> {
        match self {
            Origin::Created { .. } | Origin::Replaced(None) => None,
            Origin::Replaced(Some(version)) | Origin::Changed(version) => Some(version),
        }
    }

    /// The same origin after the object itself was moved and so got a new version.
    fn moved(self, version: Version) -> Self {
        match self {
            Origin::Created { exclusive } => Origin::Created { exclusive },
            Origin::Replaced(_) => Origin::Replaced(Some(version)),
            Origin::Changed(_) => Origin::Changed(version),
        }
    }
}

/// How far a draft has come.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Created, or emptied by a truncating open, and not written since: committed when the last writer lets go, or by fsync.
    /// Shells flush between such an open and the first write, and an empty file is not what they mean.
    Born,
    /// Written, truncated or given attributes: the next flush commits it.
    Changed,
    /// A commit failed; the bytes are kept, and it is tried again.
    Failed {
        /// Why.
        error: Error,
        /// How often in a row.
        attempts: u32,
    },
}

/// Bytes that S3 does not have yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The bytes, on the local disk.
    pub staged: Arc<StagedFile>,
    /// What they are based on.
    pub origin: Origin,
    /// How far it has come.
    pub phase: Phase,
}

/// An object and where it is.
#[derive(Clone, Debug)]
pub struct Located {
    /// Its key.
    pub key: ObjectKey,
    /// Its version.
    pub version: Version,
}

/// What open handles of an unlinked file still read.
#[derive(Clone, Debug)]
pub enum Remains {
    /// Bytes on the local disk; the holes in them, if any, come from `base`, whose object is still there.
    Staged {
        /// The bytes.
        staged: Arc<StagedFile>,
        /// Where missing bytes come from.
        base: Option<Located>,
    },
    /// The object, which is deleted at the last close.
    Object(Located),
}

/// State of one file.
#[derive(Clone, Debug)]
pub enum FileState {
    /// As in S3.
    Clean(Clean),
    /// Changed here.
    Dirty(Draft),
    /// Owned by the task that commits, moves or removes this draft.
    Uploading(Draft, Settled),
    /// Owned by the task that copies, moves or removes this object.
    Moving(Clean, Settled),
    /// Without a name, while handles are open.
    Unlinked(Remains),
    /// Gone.
    Removed,
}

/// What can happen to a file.
#[derive(Clone, Debug)]
pub enum Event {
    /// A change begins: from now on the bytes are those of the draft.
    Change(Draft),
    /// The draft was written, truncated or given attributes.
    Written,
    /// A truncating open: whatever is there is replaced.
    Replace,
    /// Somebody takes the draft in order to commit, move or remove it.
    Seal(Settled),
    /// The draft stays a draft, with this origin (it was moved, or its commit was called off).
    Reopen(Origin),
    /// Somebody takes the object in order to copy, move or remove it.
    Own(Settled),
    /// The commit, copy or move is done: this is the object now.
    SettleOk(Clean),
    /// It failed; what was there before stays.
    SettleErr(Error),
    /// No handle is open any more: the local copy of committed bytes goes.
    LetGo,
    /// S3 has another version than the one known here.
    Refresh(Version),
    /// The name is gone, and this is what open handles go on reading.
    Unlink(Remains),
    /// The last handle is gone too.
    LastPin,
}

impl FileState {
    /// A file as in S3, with no bytes here.
    pub fn clean(version: Version) -> Self {
        FileState::Clean(Clean { version, local: None })
    }

    /// The only place where a state changes.
    ///
    /// # Errors
    /// A combination that can't be: the state is as it was, and the error is `Internal` (EIO). It is a bug, never repaired silently.
    pub fn apply(&mut self, event: Event) -> Result<()> {
        let before = std::mem::replace(self, FileState::Removed);
        match before.next(event) {
            Ok(after) => {
                *self = after;
                Ok(())
            }
            Err(before) => {
                *self = *before;
                Err(Error::Internal("a file was asked for a change that its state does not allow"))
            }
        }
    }

    fn next(self, event: Event) -> std::result::Result<FileState, Box<FileState>> {
        use FileState::{Clean as C, Dirty, Moving, Removed, Unlinked, Uploading};
        Ok(match (self, event) {
            (C(_), Event::Change(draft)) => Dirty(draft),
            (C(clean), Event::Own(settled)) => Moving(clean, settled),
            (C(clean), Event::LetGo) => C(Clean { local: None, ..clean }),
            (C(clean), Event::Refresh(version)) => {
                let local = clean.local.filter(|_| clean.version.same_bytes(&version));
                C(Clean { version, local })
            }
            (Dirty(draft), Event::Written) => Dirty(Draft { phase: Phase::Changed, ..draft }),
            // A writer had its ticket before: who owns the file waits for it.
            (Uploading(draft, settled), Event::Written) => Uploading(Draft { phase: Phase::Changed, ..draft }, settled),
            (Dirty(draft), Event::Replace) => {
                let origin = Origin::Replaced(draft.origin.object().cloned());
                // Another handle may have written since it was cut.
                let phase = if draft.staged.size() == 0 { Phase::Born } else { Phase::Changed };
                Dirty(Draft { origin, phase, ..draft })
            }
            (Dirty(draft), Event::Seal(settled)) => Uploading(draft, settled),
            (Uploading(_, _) | Moving(_, _), Event::SettleOk(clean)) => C(clean),
            (Uploading(draft, _), Event::SettleErr(error)) => Dirty(draft.failed(error)),
            (Uploading(draft, _), Event::Reopen(origin)) => Dirty(Draft { origin, ..draft }),
            (Moving(clean, _), Event::SettleErr(_)) => C(clean),
            (Uploading(_, _) | Moving(_, _), Event::Unlink(remains)) => Unlinked(remains),
            (Unlinked(_), Event::Unlink(remains)) => Unlinked(remains),
            (Unlinked(_), Event::LastPin) => Removed,
            (state, _) => return Err(Box::new(state)),
        })
    }

    /// The bytes on the local disk that reads and writes use, if there are any.
    pub fn staged(&self) -> Option<&Arc<StagedFile>> {
        match self {
            FileState::Clean(clean) | FileState::Moving(clean, _) => clean.local.as_ref(),
            FileState::Dirty(draft) | FileState::Uploading(draft, _) => Some(&draft.staged),
            FileState::Unlinked(Remains::Staged { staged, .. }) => Some(staged),
            FileState::Unlinked(Remains::Object(_)) | FileState::Removed => None,
        }
    }

    /// The object in S3 that the bytes, or those missing from the staged file, come from.
    pub fn object(&self) -> Option<&Version> {
        match self {
            FileState::Clean(clean) | FileState::Moving(clean, _) => Some(&clean.version),
            FileState::Dirty(draft) | FileState::Uploading(draft, _) => match &draft.origin {
                Origin::Changed(version) => Some(version),
                Origin::Created { .. } | Origin::Replaced(_) => None,
            },
            FileState::Unlinked(Remains::Staged { base, .. }) => base.as_ref().map(|base| &base.version),
            FileState::Unlinked(Remains::Object(object)) => Some(&object.version),
            FileState::Removed => None,
        }
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        match self.staged() {
            Some(staged) => staged.size(),
            None => self.object().map_or(0, |version| version.size),
        }
    }

    /// True when S3 is not the authority: what is here must not be refreshed from there, nor forgotten.
    pub fn is_local(&self) -> bool {
        !matches!(self, FileState::Clean(_) | FileState::Removed)
    }

    /// What waits for the owner of the file, if there is one.
    pub fn owner(&self) -> Option<&Settled> {
        match self {
            FileState::Uploading(_, settled) | FileState::Moving(_, settled) => Some(settled),
            _ => None,
        }
    }
}

impl Draft {
    fn failed(self, error: Error) -> Draft {
        let attempts = match self.phase {
            Phase::Failed { attempts, .. } => attempts.saturating_add(1),
            Phase::Born | Phase::Changed => 1,
        };
        Draft { phase: Phase::Failed { error, attempts }, ..self }
    }

    /// The draft after the object that it is based on was moved and so got a new version.
    pub fn moved_origin(&self, version: Version) -> Origin {
        self.origin.clone().moved(version)
    }

    /// ETag of the version that the draft is a change of.
    pub fn base_etag(&self) -> Option<&ETag> {
        match &self.origin {
            Origin::Changed(version) => Some(&version.etag),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::stage::Stage;

    fn version(tag: &str) -> Version {
        Version { etag: ETag::parse(tag), size: 3, modified: SystemTime::UNIX_EPOCH }
    }

    fn located() -> Located {
        Located { key: ObjectKey::from_store("k"), version: version("a") }
    }

    fn draft(stage: &Stage) -> Draft {
        let staged = Arc::new(stage.new_file().expect("a staged file"));
        Draft { staged, origin: Origin::Changed(version("base")), phase: Phase::Changed }
    }

    fn clean(tag: &str) -> Clean {
        Clean { version: version(tag), local: None }
    }

    fn label(state: &FileState) -> &'static str {
        match state {
            FileState::Clean(_) => "clean",
            FileState::Dirty(Draft { phase: Phase::Failed { .. }, .. }) => "dirty, failed",
            FileState::Dirty(_) => "dirty",
            FileState::Uploading(..) => "uploading",
            FileState::Moving(..) => "moving",
            FileState::Unlinked(_) => "unlinked",
            FileState::Removed => "removed",
        }
    }

    /// Every state × every event: what comes out, or "-" for what can't happen and must leave the state alone.
    #[test]
    fn every_pair_of_state_and_event_does_what_the_drawing_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let (stage, _) = Stage::open(folder.path(), "state-machine").expect("a stage");
        let states = || {
            [
                FileState::Clean(clean("a")),
                FileState::Dirty(draft(&stage)),
                FileState::Uploading(draft(&stage), Settled::new()),
                FileState::Moving(clean("a"), Settled::new()),
                FileState::Unlinked(Remains::Object(located())),
                FileState::Removed,
            ]
        };
        let events = || {
            [
                Event::Change(draft(&stage)),
                Event::Written,
                Event::Replace,
                Event::Seal(Settled::new()),
                Event::Reopen(Origin::Changed(version("b"))),
                Event::Own(Settled::new()),
                Event::SettleOk(clean("b")),
                Event::SettleErr(Error::Timeout("test".into())),
                Event::LetGo,
                Event::Refresh(version("b")),
                Event::Unlink(Remains::Object(located())),
                Event::LastPin,
            ]
        };
        #[rustfmt::skip]
        let table = [
            // change, written, replace, seal, reopen, own, settle ok, settle err, let go, refresh, unlink, last pin
            /* clean */  ["dirty", "-", "-", "-", "-", "moving", "-", "-", "clean", "clean", "-", "-"],
            /* dirty */  ["-", "dirty", "dirty", "uploading", "-", "-", "-", "-", "-", "-", "-", "-"],
            /* upload */ ["-", "uploading", "-", "-", "dirty", "-", "clean", "dirty, failed", "-", "-", "unlinked", "-"],
            /* moving */ ["-", "-", "-", "-", "-", "-", "clean", "clean", "-", "-", "unlinked", "-"],
            /* unlink */ ["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "unlinked", "removed"],
            /* removed */["-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"],
        ];
        for (row, expected) in table.iter().enumerate() {
            for (column, wanted) in expected.iter().enumerate() {
                let mut state = states()[row].clone();
                let event = events()[column].clone();
                let before = label(&state);
                let outcome = state.apply(event.clone());
                if *wanted == "-" {
                    assert!(outcome.is_err(), "{before} took {event:?}");
                    assert_eq!(label(&state), before, "{before} was changed by {event:?}");
                } else {
                    assert!(outcome.is_ok(), "{before} refused {event:?}");
                    assert_eq!(label(&state), *wanted, "{before} after {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_refresh_with_other_bytes_drops_the_local_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let (stage, _) = Stage::open(folder.path(), "refresh").expect("a stage");
        let local = Some(draft(&stage).staged);
        let mut state = FileState::Clean(Clean { version: version("a"), local: local.clone() });
        state.apply(Event::Refresh(version("a"))).expect("a refresh");
        assert!(state.staged().is_some(), "the same bytes were dropped");
        state.apply(Event::Refresh(version("b"))).expect("a refresh");
        assert!(state.staged().is_none(), "bytes of another version were kept");
    }

    #[test]
    fn failures_are_counted_until_a_commit_succeeds() {
        let folder = tempfile::tempdir().expect("a folder");
        let (stage, _) = Stage::open(folder.path(), "failures").expect("a stage");
        let mut state = FileState::Dirty(draft(&stage));
        for round in 1..=3 {
            state.apply(Event::Seal(Settled::new())).expect("a seal");
            state.apply(Event::SettleErr(Error::Timeout("test".into()))).expect("a failure");
            let FileState::Dirty(Draft { phase: Phase::Failed { attempts, .. }, .. }) = &state else {
                panic!("not a failed draft: {state:?}")
            };
            assert_eq!(*attempts, round);
        }
    }
}
