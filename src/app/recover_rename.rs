//! `pailfs recover` and the renames of directories that killed mounts had begun.
//!
//! Owns what is said of them. They are finished by the next mount, not here: it alone keeps everybody from the files meanwhile.

use super::recover::print;
use super::say;
use super::sentence::{Failure, Status};
use crate::stage::{LeftMoves, MovePhase};

/// A line of the list.
pub(super) fn line(rename: &LeftMoves, prefix: &str) -> String {
    let state = match &rename.moves {
        Err(fault) => fault.to_string(),
        Ok(moves) => {
            let far = match moves.phase {
                MovePhase::Copying => "not all of them copied",
                MovePhase::Deleting => "all of them copied, not all removed under the old name",
            };
            format!("{} object(s), {far}; the next mount finishes it", moves.moves.len())
        }
    };
    format!("{}  {}: {state}", rename.file.id(), name(rename, prefix))
}

fn name(rename: &LeftMoves, prefix: &str) -> String {
    let path = |key: &str| key.strip_prefix(prefix).unwrap_or(key).trim_end_matches('/').to_owned();
    match &rename.moves {
        Ok(moves) => format!("rename of {} to {}", path(&moves.old), path(&moves.new)),
        Err(_) => "rename of a directory".to_owned(),
    }
}

/// Discards their records, and nothing else; or says that there is nothing to store or to export of them.
pub(super) fn each(renames: &[LeftMoves], discard: bool, prefix: &str) -> Result<(), Failure> {
    let mut failed = 0;
    for rename in renames {
        let name = name(rename, prefix);
        if !discard {
            print(&format!("{name}: there is nothing to store or to export; the next mount finishes it\n"));
        } else if let Err(error) = rename.file.remove() {
            failed += 1;
            say(&format!("{name}: its record can't be removed: {error}"));
        } else {
            print(&format!("{name}: discarded; objects may stand under both names\n"));
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(Status::System, format!("{failed} rename(s) are still in the stage, as they were"))),
    }
}
