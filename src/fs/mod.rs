//! The operations: what each call on the mount does, one file for each family.
//!
//! Owns policy: which request answers what, when a file is committed, what is refused. Knows nothing of the kernel's
//! structures (the bridge translates) and never names the SDK. Every operation is an `async fn` that may be polled once on
//! a kernel worker thread: answers from memory or from a staged file never wait.
//!
//! The order of the three ways to wait: pass the gate, then own the file, then wait for its writers.

mod ahead;
mod attributes;
mod backing;
mod caches;
mod change;
mod commit;
mod compose;
mod conflict;
mod copy_range;
mod create;
mod dir_stream;
mod directory;
mod drain;
mod handle;
mod io;
mod links;
mod lookup;
mod misses;
mod open;
mod parting;
mod publish;
mod readdir;
mod readdir_ahead;
mod recover;
mod refused;
mod remove;
mod rename;
mod rename_dir;
mod rename_journal;
mod rename_recover;
mod reply;
mod resume;
mod room;
mod send_ahead;
mod status;
mod walk;
mod xattr;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::cache::disk::DiskCache;
use crate::config::{FsSettings, MetadataMode};
use crate::inode::{FileType, InodeTable, Ownership, Span};
use crate::stage::Stage;
use crate::store::ObjectStore;
use crate::transfer::Transfer;
use crate::types::DirPrefix;

pub use attributes::SetAttributes;
pub use copy_range::CopyRange;
pub use create::Creation;
pub use drain::{Drained, Holders};
pub use io::Allocation;
pub use recover::{Kept, Recovery};
pub use refused::{Refused, WireAnswer};
pub use rename::RenameMode;
pub use reply::{Created, DirEntry, Entry, EntryName, Opened, Statistics};
pub use status::{Backlog, Description, Standing, Taken, Unstored};

/// One mounted filesystem.
#[derive(Debug)]
pub struct Filesystem {
    settings: FsSettings,
    store: Arc<dyn ObjectStore>,
    transfer: Arc<Transfer>,
    stage: Arc<Stage>,
    runtime: tokio::runtime::Handle,
    started: SystemTime,

    table: Arc<InodeTable>,
    handles: Mutex<handle::Handles>,
    walks: Mutex<walk::Walks>,
    ahead: Arc<ahead::Ahead>,
    hidden_keys: AtomicU64,
    /// Held by who brings or deletes the object of an unlinked file. Who comes second finds it done, and no delete is under
    /// way any more when the name is used again: an equal file has an equal ETag.
    remains: tokio::sync::Mutex<()>,
    stopping: AtomicBool,
    /// Places for commits that nobody waits for.
    meanwhile: Arc<tokio::sync::Semaphore>,
    /// The kernel takes files to read by itself.
    passthrough: AtomicBool,
    /// Whoever changes a file takes its set-user-ID bit away here, since the kernel does not.
    takes_set_id: AtomicBool,
}

impl Filesystem {
    /// A filesystem over `prefix` of the store's bucket. Sends no request.
    pub fn new(
        settings: FsSettings,
        prefix: DirPrefix,
        store: Arc<dyn ObjectStore>,
        stage: Stage,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        Self::with_cache(settings, prefix, store, (stage, None), runtime)
    }

    /// As [`Filesystem::new`], with what there is on the local disk.
    pub fn with_cache(
        settings: FsSettings,
        prefix: DirPrefix,
        store: Arc<dyn ObjectStore>,
        (stage, cache): (Stage, Option<DiskCache>),
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let started = SystemTime::now();
        let root = default_ownership(&settings, settings.dmask, 0o777, started);
        let transfer = Transfer::with_cache(store.clone(), settings.transfer, runtime.clone(), cache);
        Arc::new(Filesystem {
            store,
            transfer,
            stage: Arc::new(stage),
            runtime,
            started,
            table: InodeTable::new(prefix, root),
            handles: Mutex::default(),
            walks: Mutex::default(),
            ahead: Arc::default(),
            hidden_keys: AtomicU64::new(0),
            remains: tokio::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            meanwhile: Arc::new(tokio::sync::Semaphore::new(commit::MEANWHILE)),
            passthrough: AtomicBool::new(false),
            takes_set_id: AtomicBool::new(false),
            settings,
        })
    }

    /// How many keys under the prefix were met that can't be shown as paths.
    pub fn hidden_keys(&self) -> u64 {
        self.hidden_keys.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn handles(&self) -> MutexGuard<'_, handle::Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_default(&self, modified: SystemTime) -> Ownership {
        default_ownership(&self.settings, self.settings.fmask, 0o666, modified)
    }

    fn dir_default(&self) -> Ownership {
        default_ownership(&self.settings, self.settings.dmask, 0o777, self.started)
    }

    fn keeps_metadata(&self) -> bool {
        self.settings.metadata == MetadataMode::Posix
    }

    fn file_span(&self) -> Span {
        Span { least: self.settings.freshness.file_min, most: self.settings.freshness.file_max }
    }

    fn dir_span(&self) -> Span {
        Span { least: self.settings.freshness.dir_min, most: self.settings.freshness.dir_max }
    }
}

fn default_ownership(settings: &FsSettings, mask: u32, all: u32, time: SystemTime) -> Ownership {
    let (file_type, mode) = (FileType::Regular, all & !mask);
    Ownership { file_type, mode, uid: settings.uid, gid: settings.gid, mtime: time, atime: time, ctime: time }
}

#[cfg(test)]
mod tests;
