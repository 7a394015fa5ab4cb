//! Operations through `fs`, without kernel and network, over a store in memory that counts and breaks on demand.
//!
//! Owns the rig that every test sets up in one line. What is tested is what a caller sees, what stands in the store
//! afterwards, and how many requests that took.

mod ahead;
mod attributes;
mod backing;
mod caches;
mod compose;
mod conflicts;
mod copy_range;
mod kept;
mod large;
mod links;
mod looked_up;
mod meanwhile;
mod moves;
mod names;
mod noreplace;
mod parting;
mod races;
mod recover;
mod requests;
mod room;
mod send_ahead;
mod sequences;
mod tags;
mod unlinked;
mod updates;
mod walked;
mod writes;
mod xattrs;

use std::sync::Arc;
use std::time::Duration;

use super::{Creation, Filesystem};
use crate::cache::disk::DiskCache;
use crate::config::{
    CommitMode, ConflictPolicy, Freshness, FsSettings, MetadataMode, SetattrPolicy, StageSettings, TransferSettings,
};
use crate::error::Result;
use crate::stage::Stage;
use crate::transfer::tests::fake::Fake;
use crate::types::{Access, DirPrefix, Fh, Ino, OpenIntent};

const READ: OpenIntent = OpenIntent { access: Access::Read, truncate: false, append: false, exclusive: false };
const WRITE: OpenIntent = OpenIntent { access: Access::ReadWrite, truncate: false, append: false, exclusive: false };
const TRUNCATE: OpenIntent = OpenIntent { truncate: true, ..WRITE };
const EXCLUSIVE: OpenIntent = OpenIntent { exclusive: true, ..WRITE };
const CREATION: Creation = Creation { mode: 0o640, uid: 7, gid: 8 };

/// A filesystem over `p/` of a store in memory.
struct Rig {
    fs: Arc<Filesystem>,
    store: Arc<Fake>,
    _root: tempfile::TempDir,
}

fn settings() -> FsSettings {
    FsSettings {
        read_only: false,
        uid: 1,
        gid: 2,
        fmask: 0o022,
        dmask: 0o022,
        metadata: MetadataMode::Posix,
        xattr: true,
        setattr: SetattrPolicy::Refuse,
        commit: CommitMode::Close,
        conflict: ConflictPolicy::Fail,
        host: "here".to_owned(),
        freshness: Freshness::default(),
        rename_dir_limit: 100,
        storage_class: None,
        transfer: TransferSettings::default(),
    }
}

/// Everything is asked of S3 each time.
fn no_cache() -> FsSettings {
    let none = Duration::ZERO;
    let freshness = Freshness { file_min: none, file_max: none, dir_min: none, dir_max: none, negative: none };
    FsSettings { freshness, ..settings() }
}

impl Rig {
    async fn new() -> Rig {
        Rig::with(settings()).await
    }

    async fn with(settings: FsSettings) -> Rig {
        Rig::over(Arc::new(Fake::new(false)), settings)
    }

    /// A mount of a store that others may use too.
    fn over(store: Arc<Fake>, settings: FsSettings) -> Rig {
        Rig::keeping(store, settings, None)
    }

    /// As above, with a disk cache.
    fn keeping(store: Arc<Fake>, settings: FsSettings, cache: Option<DiskCache>) -> Rig {
        Rig::within(None, store, settings, cache)
    }

    /// As above, with a limit of the stage in bytes.
    fn within(limit: Option<u64>, store: Arc<Fake>, settings: FsSettings, cache: Option<DiskCache>) -> Rig {
        let root = tempfile::tempdir().expect("a folder");
        let limits = StageSettings { dir: root.path().to_owned(), limit, min_free: Some(0) };
        let (stage, _) = Stage::open_within(&limits, "test").expect("a stage");
        let runtime = tokio::runtime::Handle::current();
        let prefix = DirPrefix::normalize("p");
        let fs = Filesystem::with_cache(settings, prefix, store.clone(), (stage, cache), runtime);
        Rig { fs, store, _root: root }
    }

    /// Makes a file, writes it, closes it.
    async fn put(&self, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
        let (ino, fh) = self.create(parent, name).await;
        self.fs.write(fh, 0, bytes).await.expect("a write");
        self.close(fh).await.expect("a close");
        ino
    }

    async fn create(&self, parent: Ino, name: &str) -> (Ino, Fh) {
        let made = self.fs.create(parent, name.as_bytes(), CREATION, WRITE).await.expect("a new file");
        (made.entry.attr.ino, made.opened.fh)
    }

    async fn open(&self, ino: Ino, intent: OpenIntent) -> Fh {
        self.fs.open(ino, intent).await.expect("an open").fh
    }

    /// close(2): a flush, whose error is the caller's, and the release that follows.
    async fn close(&self, fh: Fh) -> Result<()> {
        let outcome = self.fs.flush(fh).await;
        let _ = self.fs.release(fh).await;
        outcome
    }

    async fn ino(&self, parent: Ino, name: &str) -> Result<Ino> {
        self.fs.lookup(parent, name.as_bytes()).await.map(|entry| entry.attr.ino)
    }

    async fn mkdir(&self, parent: Ino, name: &str) -> Ino {
        self.fs.mkdir(parent, name.as_bytes(), CREATION).await.expect("a directory").attr.ino
    }

    async fn read(&self, ino: Ino) -> Result<Vec<u8>> {
        let fh = self.fs.open(ino, READ).await?.fh;
        let bytes = self.fs.read(fh, 0, 1 << 20).await.map(|bytes| bytes.to_vec());
        self.fs.release(fh).await?;
        bytes
    }

    /// Names in a directory, in order.
    async fn names(&self, dir: Ino) -> Vec<String> {
        let fh = self.fs.opendir(dir).expect("an opendir").fh;
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let entries = self.fs.readdir(fh, offset, false).await.expect("a readdir");
            let Some(last) = entries.last() else { break };
            offset = last.next;
            names.extend(entries.iter().map(|entry| entry.name.as_str().to_owned()));
        }
        self.fs.releasedir(fh);
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.store.bytes(key).map(|bytes| bytes.to_vec())
    }
}
