//! The journal of a directory's rename while it runs: written before the first copy, and gone when the caller gets his answer.
//!
//! Owns what is noted when. A rename that has failed is over as much as one that is done: whoever was told of the failure goes
//! on from what is there, and nothing may be finished behind his back by a later mount. What that does after a kill is told in
//! [`super::rename_recover`].

use std::collections::HashMap;

use super::Filesystem;
use super::rename_dir::Move;
use crate::error::{Error, Result};
use crate::inode::{Owned, Prior};
use crate::stage::{MovePhase, Moves, MovesFile, OneMove};
use crate::types::{DirPrefix, ObjectKey, Version};

/// The rename of a directory that is under way, and on the disk.
#[derive(Debug)]
pub(super) struct Begun {
    file: MovesFile,
    moves: Moves,
}

impl Filesystem {
    /// Notes what is going to be moved, with the drafts among the files below, which have records of their own.
    ///
    /// # Errors
    /// `StageFull` and what the local file system gives: nothing may be touched then.
    pub(super) async fn begin_rename(
        &self,
        (old, new): (&DirPrefix, &DirPrefix),
        moves: &[Move],
        owned: &[Owned],
    ) -> Result<Begun> {
        let one = |step: &Move| {
            let rest = step.from.as_str().strip_prefix(old.as_str()).unwrap_or_default().to_owned();
            OneMove { rest, version: step.version.clone(), copy: None }
        };
        let mut files = Vec::new();
        for owned in owned {
            if let Prior::Dirty(draft) = owned.prior()? {
                files.push(draft.staged.id());
            }
        }
        let moves = Moves {
            old: old.as_str().to_owned(),
            new: new.as_str().to_owned(),
            phase: MovePhase::Copying,
            moves: moves.iter().map(one).collect(),
            files,
        };
        let stage = self.stage.clone();
        let work = move || stage.begin_moves(&moves).map(|file| Begun { file, moves });
        self.runtime.spawn_blocking(work).await.unwrap_or(Err(ENDED))
    }

    /// Notes that every copy is made, and which it is: from here on sources may be missing.
    ///
    /// # Errors
    /// As [`Filesystem::begin_rename`]: no source may be deleted then.
    pub(super) async fn note_copied(&self, begun: &mut Begun, copies: &HashMap<ObjectKey, Version>) -> Result<()> {
        let Moves { old, moves, phase, .. } = &mut begun.moves;
        for one in moves {
            let from = ObjectKey::from_store(format!("{old}{}", one.rest));
            one.copy = copies.get(&from).map(|copy| copy.etag.clone());
        }
        *phase = MovePhase::Deleting;
        self.save_moves(&begun.file, &begun.moves).await
    }

    /// The rename is done, or undone, or has failed: nobody is to go on with it.
    pub(super) async fn end_rename(&self, begun: Begun) {
        let Begun { file, moves } = begun;
        if let Err(error) = self.remove_moves(&file).await {
            let (old, new, path) = (&moves.old, &moves.new, file.path().display());
            tracing::error!(%error, "the record of the rename of {old} to {new} stays in {path}: the next mount would take it up");
        }
    }

    pub(super) async fn save_moves(&self, file: &MovesFile, moves: &Moves) -> Result<()> {
        let (file, moves) = (file.clone(), moves.clone());
        self.runtime.spawn_blocking(move || file.save(&moves)).await.unwrap_or(Err(ENDED))
    }

    pub(super) async fn remove_moves(&self, file: &MovesFile) -> Result<()> {
        let file = file.clone();
        self.runtime.spawn_blocking(move || file.remove()).await.unwrap_or(Err(ENDED))
    }
}

/// The runtime goes: so does this process.
const ENDED: Error = Error::Internal("the journal of a rename was left alone");
