//! Bytes between the store and the local side: prefetching reads, hydration, uploads, server-side copies.
//!
//! Owns: when and in which pieces bytes move, and what is tried again. Policy is pure (`window` for read-ahead,
//! `plan` for parts); the rest is thin. Every transfer runs in tasks of the runtime it was made with, so that it may
//! be asked for from any thread; dropping the future or the last cursor stops it, and leaves no upload behind. Knows
//! nothing of names, handles or the state of files.

mod away;
mod compose;
mod copy;
mod cursor;
mod fetch;
mod hydrate;
mod journal;
mod keep;
mod multipart;
mod plan;
mod reader;
mod resume;
mod stream;
mod strides;
mod sums;
mod tags;
mod tasks;
mod update;
mod upload;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::cache::disk::DiskCache;
use crate::cache::{Budget, Reservation};
use crate::config::TransferSettings;
use crate::error::{Error, Result};
use crate::inode::Attempt;
use crate::stage::StagedFile;
use crate::store::{Attributes, CopyAttributes, GetReply, ObjectInfo, ObjectStore};
use crate::types::{ByteRange, ETag, Expect, ObjectKey, Version};

pub use away::Pressed;
pub use compose::{Composition, Segment};
pub use cursor::Cursor;
pub use fetch::{WHOLE_MAX, whole_or};
pub use hydrate::Need;
pub use plan::{Grid, Piece, Plan, plan_copy, plan_upload};
pub use reader::ObjectReader;
pub use stream::{Opening, Target};
pub use window::{Advice, Pattern};

/// All transfers of one mount.
#[derive(Debug)]
pub struct Transfer {
    shared: Arc<Shared>,
    /// Readers that somebody holds.
    readers: Mutex<HashMap<(ObjectKey, ETag), Weak<ObjectReader>>>,
}

/// What every transfer needs.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    budget: Budget,
    /// The cache on the local disk, where there is one.
    keeping: Option<keep::Keeping>,
    settings: TransferSettings,
    patience: Patience,
    gates: hydrate::Gates,
    cursors: cursor::Cursors,
    heard: sums::Heard,
    /// Multipart uploads of ours that may exist in the store.
    uploads: watch::Sender<usize>,
}

/// How long a transfer waits, and how often it tries again.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// A body that brings nothing for so long is given up and resumed. S3 advises to retry slow requests within seconds;
    /// ten spare a store that is only busy.
    stall: Duration,
    /// First pause before a try; doubles up to `longest_pause`.
    pause: Duration,
    longest_pause: Duration,
    /// Tries in a row that bring no byte.
    fruitless: u32,
    /// Tries of one piece in all.
    tries: u32,
    /// Times that an upload begins anew after a concurrent write.
    redo: u32,
    /// A cursor that has not moved for so long gives its parts up when others need the memory.
    idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            stall: Duration::from_secs(10),
            pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
            fruitless: 5,
            tries: 32,
            redo: 4,
            idle: Duration::from_secs(3),
        }
    }
}

impl Patience {
    /// The pause before an upload is aborted again.
    fn before_abort(&self, attempt: u32) -> Duration {
        Backoff { first: self.longest_pause, longest: self.longest_pause.saturating_mul(30) }.pause(attempt)
    }

    /// The pause before try number `attempt`, counted from 1.
    fn before(&self, attempt: u32) -> Duration {
        Backoff { first: self.pause, longest: self.longest_pause }.pause(attempt)
    }
}

impl Transfer {
    /// Transfers through `store`, in tasks of `runtime`.
    pub fn new(store: Arc<dyn ObjectStore>, settings: TransferSettings, runtime: Handle) -> Arc<Transfer> {
        Self::with_patience(store, settings, runtime, Patience::default(), None)
    }

    /// As [`Transfer::new`]; what is read is kept in `cache`, and served from there.
    pub fn with_cache(
        store: Arc<dyn ObjectStore>,
        settings: TransferSettings,
        runtime: Handle,
        cache: Option<DiskCache>,
    ) -> Arc<Transfer> {
        Self::with_patience(store, settings, runtime, Patience::default(), cache)
    }

    fn with_patience(
        store: Arc<dyn ObjectStore>,
        settings: TransferSettings,
        runtime: Handle,
        patience: Patience,
        cache: Option<DiskCache>,
    ) -> Arc<Transfer> {
        let keeping = cache.map(|cache| keep::Keeping::new(cache, runtime.clone()));
        let budget = Budget::new(settings.memory_limit);
        let shared = Arc::new(Shared {
            store,
            runtime,
            budget,
            keeping,
            settings,
            patience,
            gates: hydrate::Gates::default(),
            cursors: cursor::Cursors::default(),
            heard: sums::Heard::default(),
            uploads: watch::Sender::new(0),
        });
        Arc::new(Transfer { shared, readers: Mutex::default() })
    }

    /// The budget of all buffers of this mount.
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// Lets go of the bytes that handles hold to be read, and of those that are on their way ahead of them. Who waits for some gets them.
    pub fn drop_read(&self) {
        self.shared.cursors.reclaim(Duration::ZERO);
    }

    /// True when there is a cache on the local disk.
    pub fn keeps(&self) -> bool {
        self.shared.keeping.is_some()
    }

    /// Keeps the bytes of a staged file that was committed as `version` and is closed: nobody changes it any more.
    pub fn keep_written(&self, key: &ObjectKey, version: &Version, staged: Arc<StagedFile>) {
        let Some(keeping) = &self.shared.keeping else { return };
        let same = !staged.dirty() && staged.is_complete() && staged.size() == version.size;
        if let Some(kept) = keeping.entry(key, version).filter(|_| same) {
            kept.take_over(staged);
        }
    }

    /// Waits until what is to be kept on the local disk is there, for at most `limit`.
    pub async fn kept(&self, limit: Duration) {
        if let Some(keeping) = &self.shared.keeping {
            keeping.settled(limit).await;
        }
    }

    /// Takes note of what HEAD said of an object, for whoever reads it next: it need not be asked for its checksum.
    pub fn note_head(&self, key: &ObjectKey, info: &ObjectInfo) {
        self.shared.heard.note(key, info);
    }

    /// The reader of one version of an object, shared by all who read it. One whose bytes were wrong gets no more users.
    pub fn reader(&self, key: ObjectKey, version: Version) -> Arc<ObjectReader> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (key, version.etag.clone());
        let known = readers.get(&name).and_then(Weak::upgrade);
        if let Some(reader) = known.filter(|reader| reader.version().same_bytes(&version) && !reader.is_wrong()) {
            return reader;
        }
        if readers.len() >= 64 && readers.len().is_power_of_two() {
            readers.retain(|_, reader| reader.strong_count() > 0);
        }
        let reader = Arc::new(ObjectReader::new(self.shared.clone(), name.0.clone(), version));
        readers.insert(name, Arc::downgrade(&reader));
        reader
    }

    /// The reader of the version that `reply` is of, which has the reply's bytes for whoever reads first. `paid` is the memory
    /// for them.
    pub fn reader_with(&self, key: ObjectKey, reply: GetReply, paid: Reservation) -> Arc<ObjectReader> {
        let reader = self.reader(key, reply.info.version.clone());
        reader.adopt_paid(reply, Some(paid));
        reader
    }

    /// Fetches what is missing of `range` in a staged file over `version`, and a little more where it is read in order.
    ///
    /// # Errors
    /// `Stale` when the object is not that version any more; `StageFull`; what the store says.
    pub async fn hydrate(
        &self,
        key: &ObjectKey,
        version: &Version,
        file: &Arc<StagedFile>,
        range: ByteRange,
        need: Need,
    ) -> Result<()> {
        hydrate::hydrate(&self.shared, (key, version), file, range, need).await
    }

    /// A program has written `run`, one byte after the other, of a file that replaces or begins an object. The parts that it has
    /// passed go up while it writes on. `Some` when there is an upload to be begun first.
    pub fn written(&self, file: &Arc<StagedFile>, run: ByteRange) -> Option<Opening> {
        if let Some(stream) = stream::Stream::of(file) {
            stream.passed(file, run);
            return None;
        }
        let grid = Grid::new(self.shared.settings.part_size);
        if run.end <= grid.uncut() {
            return None;
        }
        let opening = stream::Stream::open(&self.shared, grid, file)?;
        if let Some(stream) = stream::Stream::of(file) {
            stream.passed(file, run);
        }
        Some(opening)
    }

    /// Makes place beside a staged file for the upload that an earlier run had begun of it ([`Opening::resume`]). A commit waits
    /// until that is decided. `None` when another upload was begun.
    pub fn resuming(&self, file: &Arc<StagedFile>) -> Option<Opening> {
        stream::Stream::open(&self.shared, Grid::new(self.shared.settings.part_size), file)
    }

    /// Whether the last of `run`, a write of `len` bytes, has passed the end of a part.
    pub fn passes_part(&self, run: ByteRange, len: usize) -> bool {
        let part = self.shared.settings.part_size.max(1);
        run.end / part != run.end.saturating_sub(len as u64) / part
    }

    /// What the parts of a file that went up already are for; `None` when none did.
    pub async fn target(&self, file: &Arc<StagedFile>) -> Option<Target> {
        if let Some(composition) = self.composition(file) {
            return Some(composition.target().clone());
        }
        match stream::Stream::of(file) {
            Some(stream) => stream.target().await,
            None => None,
        }
    }

    /// Nothing of a file goes up before its commit any more, and what did is dropped. False when bytes of it are only there:
    /// then nothing is changed.
    pub fn call_back(&self, file: &Arc<StagedFile>) -> bool {
        away::call_back(file, false)
    }

    /// As [`Transfer::call_back`], also of a file of which bytes are only there: nobody wants them any more.
    pub fn give_up(&self, file: &Arc<StagedFile>) {
        away::call_back(file, true);
    }

    /// The file stays in the stage for another run: nothing of it goes up any more, and an upload that has bytes that are nowhere else
    /// stays in the store.
    pub fn leave(&self, file: &Arc<StagedFile>) {
        if !self.call_back(file) {
            away::leave(file);
        }
    }

    /// Room is wanted: frees the place of one part of a file that is up for `key`, and gives its bytes. Blocks on the local disk. No
    /// commit of the file may begin meanwhile.
    ///
    /// # Errors
    /// `StageFull` and what the local file system gives.
    pub fn let_go_of_part(&self, file: &Arc<StagedFile>, key: &ObjectKey) -> Result<u64> {
        away::let_go_of_part(file, key)
    }

    /// Room is wanted: what a sequential writer has passed goes up now, also where that had failed in a way that may pass. No commit
    /// of the file may begin meanwhile.
    pub fn press(&self, file: &Arc<StagedFile>) -> Pressed {
        away::press(&self.shared, file)
    }

    /// Waits until no multipart upload of ours is left in the store, as far as the store lets them go, for at most `limit`.
    pub async fn uploads_gone(&self, limit: Duration) {
        let mut uploads = self.shared.uploads.subscribe();
        // The sender lives in what this shares: the wait ends by itself or at the limit.
        let _ = tokio::time::timeout(limit, uploads.wait_for(|count| *count == 0)).await;
    }

    /// The attributes of an object that is about to be written anew, with its tags. Asks for them only if there are some; where
    /// the store refuses to tell them it says so in the log, and they are left out.
    ///
    /// # Errors
    /// What the store says, if asking again may help.
    pub async fn with_tags(&self, key: &ObjectKey, attributes: Attributes) -> Result<Attributes> {
        tags::with_tags(self.shared.store.as_ref(), key, attributes).await
    }

    /// Makes the object `key` of a complete staged file: one PUT or parallel parts. Nothing must write to the file
    /// meanwhile. Parts that went up before are not sent again: they must be for this key and these attributes
    /// ([`Transfer::target`]). On failure, and when the future is dropped, nothing is left in the store.
    ///
    /// # Errors
    /// `PreconditionFailed` when something else than `expect` stands there, and it is not what this very upload made
    /// before its answer got lost; `FileTooLarge`; what the store says.
    pub async fn upload(
        &self,
        key: &ObjectKey,
        file: &Arc<StagedFile>,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        upload::upload(&self.shared, key, file, attributes, expect).await
    }

    /// What stands under `key`, if it is what an earlier upload of the file made that got no answer.
    ///
    /// # Errors
    /// What the store says.
    pub async fn made_before(
        &self,
        key: &ObjectKey,
        file: &Arc<StagedFile>,
        attempt: &Attempt,
        expect: &Expect,
    ) -> Result<Option<Version>> {
        upload::made_before(&self.shared, key, file, attempt, expect).await
    }

    /// How the change of a large object would be stored with the least bytes: `None` when the file had better go up whole.
    pub fn plan_update(&self, base: &Version, file: &StagedFile) -> Option<Vec<Piece>> {
        // S3 copies no range of a smaller object.
        if base.size <= plan::PART_MIN {
            return None;
        }
        plan::plan_update(file.size(), &file.unchanged(base.size), self.shared.settings.part_size)
    }

    /// Makes a new version of the object `key`, of what a staged file has changed and of the rest of `base`. Nothing must write
    /// to the file meanwhile, and what is to be sent must be there. On failure, and when the future is dropped, nothing is left
    /// in the store.
    ///
    /// # Errors
    /// `PreconditionFailed` when the object is not `base` any more, and not what this very upload made before its answer got
    /// lost; what the store says.
    pub async fn update(
        &self,
        key: &ObjectKey,
        base: &Version,
        file: &Arc<StagedFile>,
        attributes: &Attributes,
        pieces: Vec<Piece>,
    ) -> Result<Version> {
        update::update(&self.shared, key, base, file, attributes, pieces).await
    }

    /// CRC-64/NVME of a staged file that nobody writes to: of all of it, or of each range that was changed if some is missing.
    ///
    /// # Errors
    /// What the local file system gives.
    pub async fn sums(&self, file: &Arc<StagedFile>) -> Result<Vec<(ByteRange, u64)>> {
        upload::sums(&self.shared, file).await
    }

    /// Copies an object within the store, by parts above 5 GiB, and never over an object that is not expected: also by parts
    /// where CopyObject does not look at its target. `None` keeps the source's attributes, and asks for its storage class
    /// first: a caller that knows it saves a request.
    ///
    /// # Errors
    /// `PreconditionFailed` when the source is not `source_version` any more or the target is not as expected;
    /// what the store says.
    pub async fn copy(
        &self,
        source: &ObjectKey,
        source_version: &Version,
        target: &ObjectKey,
        attributes: Option<CopyAttributes>,
        expect: &Expect,
    ) -> Result<Version> {
        let copy = copy::Copy {
            shared: self.shared.clone(),
            source: source.clone(),
            version: source_version.clone(),
            target: target.clone(),
            attributes,
            expect: expect.clone(),
        };
        copy.start().await
    }

    /// As [`Transfer::copy`], with other attributes, where that takes fewer requests than reading and writing the bytes.
    ///
    /// # Errors
    /// As [`Transfer::copy`]; `Unsupported` for a small file that would have to be copied by parts.
    pub async fn copy_if_cheaper(
        &self,
        source: (&ObjectKey, &Version),
        target: &ObjectKey,
        attributes: Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        if source.1.size <= plan::PART_MIN && !copy::is_guarded(&self.shared, expect) {
            return Err(Error::Unsupported("copying a small file by parts"));
        }
        self.copy(source.0, source.1, target, Some(CopyAttributes::Replace(attributes)), expect).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
