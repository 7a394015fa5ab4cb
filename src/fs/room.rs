//! Room in the stage for who changes a file: what is stored goes first, then parts that are up of files that are being written, then
//! what is being stored is waited for, then ENOSPC.
//!
//! Owns that order, and how long is waited. How much the stage takes is the stage's; what a write does is `io`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Filesystem;
use super::open::is_archived;
use super::send_ahead::whole_draft;
use crate::error::{Error, Result};
use crate::inode::{Draft, Event, FileState, Inode, NodeData, Origin, Phase, WriteTicket, WriteTurn};
use crate::stage::StagedFile;
use crate::transfer::{Need, Pressed};
use crate::types::{ByteRange, ObjectKey, Version};

/// Longest that one call waits for room. An upload may take hours, and a program that is told of a full disk can do something
/// about it; in five minutes even a slow line stores some files.
const LONGEST: Duration = Duration::from_secs(300);

/// Between two tries of parts that fail.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// what is waited for may need them. For who writes to a file, parts of files that are being written leave the stage, its own
    /// first.
    ///
    /// # Errors
    /// `StageFull` when no room is to be expected, or none came in time.
    pub(super) async fn make_room(
        self: &Arc<Self>,
        patience: &mut Patience,
        writer: Option<&Arc<Inode>>,
    ) -> Result<()> {
        if Instant::now() >= patience.until {
            return Err(Error::StageFull);
        }
        if !self.let_go_of_stored() && !self.let_go_of_a_part(writer).await {
            if self.press_writers(writer) {
                tokio::time::sleep(PAUSE).await;
            }
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

    /// One part that is up leaves the stage, or what S3 has of a file that is changed: of the writer's file, or of another that is
    /// being written. False when none can.
    async fn let_go_of_a_part(self: &Arc<Self>, writer: Option<&Arc<Inode>>) -> bool {
        for inode in writer.into_iter().flat_map(|writer| self.writers(writer)) {
            let Ok(key) = self.table.key_of(inode.ino()) else { continue };
            // As long as it is held no commit begins, and no rename ends.
            let Ok(WriteTurn::Ready(ticket)) = inode.write_turn() else { continue };
            let is_whole = whole_draft(&inode, ticket.staged());
            let base = if is_whole { None } else { readable_base(&inode, ticket.staged()) };
            let transfer = self.transfer.clone();
            let work = move || match base {
                None if is_whole => transfer.let_go_of_part(ticket.staged(), &key),
                Some(base) if !transfer.is_composed(ticket.staged()) => ticket.staged().let_go_of_unchanged(base.size),
                None | Some(_) => Ok(0),
            };
            match self.runtime.spawn_blocking(work).await {
                Ok(Ok(bytes)) if bytes > 0 => return true,
                Ok(Err(error)) => tracing::debug!(%error, "a part can't leave the stage"),
                _ => {}
            }
        }
        false
    }

    /// What can go up of the files that are being written is on its way now. True when that had failed a moment ago.
    fn press_writers(self: &Arc<Self>, writer: Option<&Arc<Inode>>) -> bool {
        let mut had_failed = false;
        for inode in writer.into_iter().flat_map(|writer| self.writers(writer)) {
            let Some(ticket) = ticket_of_draft(&inode) else { continue };
            match self.transfer.press(ticket.staged()) {
                Pressed::Nothing | Pressed::Sending => {}
                Pressed::SendingAgain => had_failed = true,
                Pressed::Begin(opening) => self.begin_upload_early(&inode, ticket.staged(), opening),
                Pressed::BeginAgain(opening) => {
                    had_failed = true;
                    self.begin_upload_early(&inode, ticket.staged(), opening);
                }
            }
        }
        had_failed
    }

    /// The files that programs have open for writing, this one first.
    fn writers(&self, first: &Arc<Inode>) -> Vec<Arc<Inode>> {
        let mut inodes = vec![first.clone()];
        for handle in self.files_open().iter().filter(|handle| handle.intent.writes()) {
            if inodes.iter().all(|known| !Arc::ptr_eq(known, handle.pin.inode())) {
                inodes.push(handle.pin.inode().clone());
            }
        }
        inodes
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

/// A ticket for a draft whose parts may go up before it is whole.
fn ticket_of_draft(inode: &Arc<Inode>) -> Option<WriteTicket> {
    match inode.write_turn() {
        Ok(WriteTurn::Ready(ticket)) if whole_draft(inode, ticket.staged()) => Some(ticket),
        _ => None,
    }
}

/// The version that a file is a change of, if what is missing here can be read there.
fn readable_base(inode: &Arc<Inode>, staged: &Arc<StagedFile>) -> Option<Version> {
    let data = inode.lock();
    if data.parted || data.attributes.as_ref().is_some_and(|known| is_archived(known.storage_class.as_deref())) {
        return None;
    }
    match data.file() {
        // One whose commit has failed may be a change of what is not there any more.
        Ok(FileState::Dirty(Draft { origin: Origin::Changed(version), staged: own, phase: Phase::Changed })) => {
            Arc::ptr_eq(own, staged).then(|| version.clone())
        }
        _ => None,
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
