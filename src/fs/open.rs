//! open and release: close-to-open, and the last chance of a draft.
//!
//! Owns what an open asks of S3: nothing within a second of the last answer, else one request, which for a reader already
//! brings the first bytes.

use std::sync::Arc;
use std::time::Instant;

use super::Filesystem;
use super::commit::Scope;
use super::handle::FileHandle;
use super::reply::Opened;
use crate::error::{Error, Result};
use crate::inode::{FileState, Kind, Pin, Remains, Settled};
use crate::transfer::{ObjectReader, WHOLE_MAX, whole_or};
use crate::types::{Access, ByteRange, Fh, Ino, ObjectKey, OpenIntent, Version};

/// Of a file that does not come whole only this much comes with the open, in case it is read at random.
const FIRST_BYTES: u64 = 256 << 10;

/// Storage classes whose objects must be restored before they can be read (S3 User Guide, "Understanding and managing
/// Amazon S3 storage classes").
const ARCHIVED: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// True for the storage class of an object that must be restored first.
pub(super) fn is_archived(storage_class: Option<&str>) -> bool {
    storage_class.is_some_and(|class| ARCHIVED.contains(&class))
}

/// What an open asks S3.
enum Question {
    Nothing,
    /// Somebody moves or removes the object: what is there shows when that is done.
    Later(Settled),
    Head,
    /// The version is what is known here: where its bytes are on the local disk, only whether it is still right is asked.
    FirstBytes(ObjectKey, Option<Version>, u64),
}

/// What has the first bytes of a file already, and its key.
pub(super) type First = Option<(ObjectKey, Arc<ObjectReader>)>;

impl Filesystem {
    /// Opens a file.
    ///
    /// # Errors
    /// `IsDirectory`, `ReadOnly`, `NotFound` when it is gone, `Archived`, and what S3 answers.
    pub async fn open(self: &Arc<Self>, ino: Ino, intent: OpenIntent) -> Result<Opened> {
        let pin = self.table.get(ino)?;
        if pin.inode().kind() == Kind::Dir {
            return Err(Error::IsDirectory);
        }
        if intent.writes() || intent.truncate {
            self.refuse_read_only()?;
        }
        let first = self.check_open(&pin, intent).await?;
        // The kernel says where the end is that a read stops at and that O_APPEND writes to. When it does not know of the bytes
        // found just now, this makes it look the name up again, and then open it, before anybody learns of it (open(2)
        // handles ESTALE so).
        if !intent.truncate && !pin.inode().kernel_knows_size() {
            return Err(Error::Stale);
        }
        self.finish_open(pin, intent, first).await
    }

    pub(super) async fn open_pinned(self: &Arc<Self>, pin: Pin, intent: OpenIntent) -> Result<Opened> {
        let first = self.check_open(&pin, intent).await?;
        self.finish_open(pin, intent, first).await
    }

    async fn finish_open(self: &Arc<Self>, pin: Pin, intent: OpenIntent, first: First) -> Result<Opened> {
        if intent.truncate {
            self.begin_replace(&pin).await?;
        }
        let found = self.find_backing(&pin, intent).await;
        let (fh, handle, keep_cache) = self.add_file_handle(pin, intent, found).await?;
        if let Some((key, reader)) = first {
            handle.keep_reader(key, reader.version().clone(), reader);
        }
        Ok(Opened { fh, keep_cache, backing: handle.backing.clone() })
    }

    fn question(&self, pin: &Pin, intent: OpenIntent) -> Result<Question> {
        // The key first: the table's lock comes before an inode's.
        let key = self.table.key_of(pin.ino());
        let data = pin.inode().lock();
        let state = data.file()?;
        if let FileState::Moving(_, settled) = state {
            return Ok(Question::Later(settled.clone()));
        }
        let nameless = data.parted || (matches!(state, FileState::Clean(_)) && matches!(key, Err(Error::Stale)));
        if nameless || (matches!(state, FileState::Unlinked(_) | FileState::Removed) && data.opens.all == 0) {
            // Its bytes were kept for nobody, or its name is another file's. The kernel looks the name up again.
            return Err(Error::Stale);
        }
        let archived =
            data.attributes.as_ref().is_some_and(|attributes| is_archived(attributes.storage_class.as_deref()));
        // A change must be based on what is there now, or its commit is a conflict: even a second is too long to believe.
        let changes = intent.writes() && !intent.truncate && data.opens.all == 0;
        let believed = data.belief.is_fresh_for_open(Instant::now(), self.file_span()) && !archived && !changes;
        if state.is_local() || believed {
            return Ok(Question::Nothing);
        }
        let key = key?;
        let size = state.size();
        // Where the kernel may keep its pages, bytes are not wanted again.
        let has_pages = data.kernel_pages == Some(data.lineage);
        if intent.access == Access::Write || intent.truncate || size == 0 || has_pages {
            return Ok(Question::Head);
        }
        let known = state.object().filter(|_| !archived && self.transfer.keeps()).cloned();
        Ok(Question::FirstBytes(key, known, size))
    }

    /// Close-to-open: compares the file with S3, for a reader together with its first bytes.
    async fn check_open(self: &Arc<Self>, pin: &Pin, intent: OpenIntent) -> Result<First> {
        if intent.writes() || intent.truncate {
            self.opened_for_change(pin);
        } else if let Some(first) = self.fetched_ahead(pin).await {
            return Ok(first);
        }
        let (asked, (key, known, size)) = loop {
            // Before the name is looked at: it may be another file's when the answer comes.
            let asked = Instant::now();
            match self.question(pin, intent)? {
                Question::Nothing => return Ok(None),
                Question::Later(settled) => drop(settled.wait().await),
                Question::Head => {
                    self.revalidate(pin).await?;
                    return Ok(None);
                }
                Question::FirstBytes(key, known, size) => break (asked, (key, known, size)),
            }
        };
        let range = ByteRange::at(0, if size <= WHOLE_MAX { size } else { FIRST_BYTES });
        if let Some(reader) = self.kept_reader(&key, known, range).await {
            self.revalidate(pin).await?;
            // If it is another version by now, nobody reads through this one.
            return Ok(Some((key, reader)));
        }
        match self.store.get(&key, whole_or(range, size), None).await {
            Ok(reply) => {
                let version = reply.info.version.clone();
                let attributes = Some(Arc::new(reply.info.attributes.clone()));
                self.part_from_readers(pin, (&version, attributes.as_deref()), asked)?;
                self.note_version(&mut pin.inode().lock(), (version.clone(), attributes), asked)?;
                let reader = self.transfer.reader(key.clone(), version);
                reader.adopt(reply);
                Ok(Some((key, reader)))
            }
            // It shrank to nothing, or went: HEAD tells. What came wrong is fetched again when it is read.
            Err(Error::RangeNotSatisfiable | Error::NotFound | Error::Corrupt(_)) => {
                self.revalidate(pin).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The reader of a version, if `range` of it is on the local disk.
    pub(super) async fn kept_reader(
        &self,
        key: &ObjectKey,
        version: Option<Version>,
        range: ByteRange,
    ) -> Option<Arc<ObjectReader>> {
        let reader = self.transfer.reader(key.clone(), version?);
        reader.is_kept(range).await.then_some(reader)
    }

    /// The last handle's way out commits what no flush has committed. Its error has no reader: it is logged, and the draft is kept.
    ///
    /// # Errors
    /// `BadHandle`; what a commit gives, for the log.
    pub async fn release(self: &Arc<Self>, fh: Fh) -> Result<()> {
        let handle = self.take_file_handle(fh)?;
        let outcome = match Self::count_out(&handle) {
            true => self.commit_closed(handle.pin.inode(), Scope::Everything).await,
            false => Ok(()),
        };
        self.close_out(&handle)?;
        self.finish_unlinked(&handle).await;
        outcome
    }

    /// The object of an unlinked file goes with its last handle. Others may have been opened since this one was counted out,
    /// and none is any more once the file is seen to be both unlinked and not open.
    pub(super) async fn finish_unlinked(&self, handle: &FileHandle) {
        let object = {
            let data = handle.pin.inode().lock();
            match data.file() {
                Ok(FileState::Unlinked(Remains::Object(object))) if data.opens.all == 0 => Some(object.clone()),
                _ => None,
            }
        };
        if let Some(object) = object {
            self.let_remains_go(handle.pin.ino(), &object).await;
        }
    }
}
