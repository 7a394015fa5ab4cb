//! Room in the stage for who changes a file: what is stored goes first, then what is being stored is waited for, then ENOSPC.
//!
//! Owns that order, and how long is waited. How much the stage takes is the stage's; what a write does is `io`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Filesystem;
use super::open::is_archived;
use crate::error::{Error, Result};
use crate::inode::{Event, FileState, NodeData};
use crate::stage::StagedFile;
use crate::transfer::Need;
use crate::types::{ByteRange, ObjectKey, Version};

/// Longest that one call waits for room. An upload may take hours, and a program that is told of a full disk can do something
/// about it; in five minutes even a slow line stores some files.
const LONGEST: Duration = Duration::from_secs(300);

/// One call's attempts to get room. Made before the first of them, so that no news is missed.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) until: Instant,
    seen: u64,
}

impl Filesystem {
    pub(super) fn patience(&self) -> Patience {
        Patience { until: Instant::now() + LONGEST, seen: self.stage.changes() }
    }

    /// Returns when it is worth to try again what has failed with `StageFull`. The caller holds no ticket, no lock and no passage:
    /// what is waited for may need them.
    ///
    /// # Errors
    /// `StageFull` when no room is to be expected, or none came in time.
    pub(super) async fn make_room(&self, patience: &mut Patience) -> Result<()> {
        if Instant::now() >= patience.until {
            return Err(Error::StageFull);
        }
        if !self.let_go_of_stored() {
            let news = tokio::time::timeout_at(patience.until, self.stage.room_made(patience.seen)).await;
            if news != Ok(true) {
                return Err(Error::StageFull);
            }
        }
        patience.seen = self.stage.changes();
        Ok(())
    }

    /// Brings bytes to the local disk without which a file could not be stored, or would be lost to who has it open. The limits of
    /// the stage don't keep them out; where the disk itself is full, local copies make room once. What is being stored is not
    /// waited for: the caller holds what that may need.
    pub(super) async fn bring(
        &self,
        (key, version): (&ObjectKey, &Version),
        staged: &Arc<StagedFile>,
        range: ByteRange,
    ) -> Result<()> {
        match self.transfer.hydrate(key, version, staged, range, Need::Must).await {
            Err(Error::StageFull) if self.let_go_of_stored() => {
                self.transfer.hydrate(key, version, staged, range, Need::Must).await
            }
            done => done,
        }
    }

    /// Tries once more when the disk is full and local copies could go. For callers that hold what others may wait for.
    pub(super) fn or_let_go<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        match attempt() {
            Err(Error::StageFull) if self.let_go_of_stored() => attempt(),
            done => done,
        }
    }

    /// The local copies of files that S3 has go; who has them open reads them from there from now on. False when there was none.
    fn let_go_of_stored(&self) -> bool {
        let handles = self.files_open();
        let mut some = false;
        for handle in handles {
            // The key first: the table's lock comes before an inode's.
            let has_name = self.table.place(handle.pin.ino()).is_some();
            // Dropped after the lock: removing a file of the local disk takes its time.
            let local = {
                let mut data = handle.pin.inode().lock();
                let local = if has_name { stored_copy(&data) } else { None };
                local.filter(|_| data.apply(Event::LetGo).is_ok())
            };
            if let Some(local) = local {
                local.leave();
                some = true;
            }
        }
        some
    }
}

/// The local copy of what can be read in S3 under the file's name. One whose name is another file's has its bytes nowhere else,
/// and an archived object can't be read before it is restored.
fn stored_copy(data: &NodeData) -> Option<Arc<StagedFile>> {
    if data.attributes.as_ref().is_some_and(|attributes| is_archived(attributes.storage_class.as_deref())) {
        return None;
    }
    match data.file() {
        Ok(FileState::Clean(clean)) if !data.parted => clean.local.clone().filter(|local| local.size() > 0),
        _ => None,
    }
}
