//! Multipart uploads that an earlier run had begun: those of files that are stored now go on, all others are aborted.
//!
//! Owns when an upload may be gone on with: the record of its file says that it makes this very file, with these attributes, and
//! nobody has touched the file since. What of it is up counts only as `transfer` says. Only ids in our own records are touched.

use std::sync::Arc;

use super::Filesystem;
use super::recover::{TakenIn, is_same};
use crate::error::{Error, Result};
use crate::inode::FileState;
use crate::stage::{Leftover, StagedFile};
use crate::store::Attributes;
use crate::transfer::{Opening, Target};
use crate::types::ByteRange;

/// So often a store that does not answer is asked what is up: over some minutes.
const ASKED: u32 = 8;

/// What becomes of the upload that an earlier run had begun of a file.
#[derive(Debug)]
pub(super) enum EarlierUpload {
    /// The store was asked so often, and did not answer.
    Undecided { asked: u32 },
    /// This run goes on with it, or has done with it.
    Decided,
}

impl Default for EarlierUpload {
    fn default() -> Self {
        EarlierUpload::Undecided { asked: 0 }
    }
}

impl Filesystem {
    /// Goes on with the upload that the earlier run had begun of a file, or aborts it.
    ///
    /// # Errors
    /// What the store says, if asking again may help.
    pub(super) async fn resume_or_abort(&self, taken: &TakenIn, earlier: &mut EarlierUpload) -> Result<()> {
        let EarlierUpload::Undecided { asked } = earlier else { return Ok(()) };
        *asked += 1;
        let gives_up = *asked >= ASKED;
        match self.resume(taken).await {
            Ok(parts) if parts > 0 => tracing::info!(path = taken.path, parts, "an upload of an earlier run goes on"),
            // An answer that makes no sense makes none the next time.
            Err(error) if error.is_transient() && !matches!(error, Error::Corrupt(_)) && !gives_up => {
                return Err(error);
            }
            outcome => {
                if let Err(error) = outcome {
                    let key = taken.leftover.key.as_ref().map(|key| key.as_str());
                    tracing::debug!(key, %error, "what is up of a file can't be told; what is here goes up anew");
                }
                self.abort_upload_of(&taken.leftover, Some(&taken.staged)).await;
            }
        }
        *earlier = EarlierUpload::Decided;
        Ok(())
    }

    /// How many parts are worth a look; with none there is nothing to go on with.
    async fn resume(&self, taken: &TakenIn) -> Result<usize> {
        let Ok(record) = &taken.leftover.record else { return Ok(0) };
        let is_this_file = record.upload_mark.is_some() && record.upload_mark == record.attributes.mark(&record.key);
        match &record.upload_id {
            Some(id) if is_this_file => {
                let Some(opening) = self.resuming(taken) else { return Ok(0) };
                let target = Target { key: record.key.clone(), attributes: Attributes::from(&record.attributes) };
                opening.resume(target, id).await
            }
            _ => Ok(0),
        }
    }

    /// Under the lock of the file: who owns it later finds the upload beside it, and who owns it now goes before.
    fn resuming(&self, taken: &TakenIn) -> Option<Opening> {
        let data = taken.pin.inode().lock();
        match data.file() {
            Ok(FileState::Dirty(draft)) if is_same(draft, &taken.staged) && is_all_there(&taken.staged) => {
                self.transfer.resuming(&taken.staged)
            }
            _ => None,
        }
    }

    /// Aborts the upload that a record names.
    pub(super) async fn abort_upload_of(&self, left: &Leftover, staged: Option<&Arc<StagedFile>>) {
        let Ok(record) = &left.record else { return };
        let Some(id) = &record.upload_id else { return };
        if !left.away().is_empty() {
            // Bytes of the file are only there.
            return;
        }
        if let Err(error) = self.store.abort_upload(&record.key, id).await {
            tracing::warn!(key = %record.key, %error, "an upload of an earlier run is still in the bucket");
            return;
        }
        let noted = match staged {
            // Through the file where there is one: others write its record, too, perhaps with an upload of their own.
            Some(staged) if staged.upload().as_ref() == Some(id) => staged.note_upload(None),
            Some(_) => Ok(()),
            None => left.forget_upload(),
        };
        if let Err(error) = noted {
            tracing::debug!(%error, "an aborted upload stays in a record");
        }
    }
}

/// True when no byte has to come from another version.
fn is_all_there(staged: &StagedFile) -> bool {
    staged.missing(ByteRange::new(0, staged.size())).is_empty()
}
