//! What there is to tell of a filesystem that is being served: which files S3 does not have as they are here, and why; and how
//! much is taken of what is limited. Asks S3 only for a path of which nothing fresh is known.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Filesystem;
use super::xattr::storage_class;
use crate::error::Result;
use crate::inode::{FileState, Kind, NodeData, Phase, Pin};
use crate::types::{Ino, Name};

/// Longest wait for what is asked of S3 beside what is known.
const PATIENCE: Duration = Duration::from_secs(3);

/// How far the bytes of a file are on their way to S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// S3 has them.
    Stored,
    /// A program has the file open for writing.
    Open,
    /// Closed, and waiting for its turn.
    Waiting,
    /// On their way.
    Uploading,
    /// A commit failed; it is tried again.
    Failed,
}

impl Standing {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Stored => "stored",
            Standing::Open => "open",
            Standing::Waiting => "waiting",
            Standing::Uploading => "uploading",
            Standing::Failed => "failed",
        }
    }
}

/// A file whose bytes S3 does not have.
#[derive(Clone, Debug)]
pub struct Unstored {
    /// Below the mountpoint.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// How far they are.
    pub standing: Standing,
    /// Why the last commit failed, and how many did in a row.
    pub failure: Option<(String, u32)>,
}

/// The files whose bytes S3 does not have, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many.
    pub files: usize,
    /// Of these, those whose last commit failed.
    pub failed: usize,
    /// Their sizes.
    pub bytes: u64,
    /// For how long the oldest of them has waited here; `None` without any.
    pub oldest: Option<Duration>,
}

/// What is taken of what is limited.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Bytes of read buffers.
    pub memory: u64,
    /// Most of them.
    pub memory_limit: u64,
    /// Bytes of the stage.
    pub stage: u64,
    /// Names that are known.
    pub inodes: usize,
    /// Files that programs have open.
    pub open_files: usize,
}

/// One file or directory.
#[derive(Clone, Debug)]
pub struct Description {
    /// The key of the object; that of a directory ends in `/`.
    pub key: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Bytes, as a program sees them.
    pub size: u64,
    /// The version in S3, as last seen: its ETag without quotes, and when it was made.
    pub version: Option<(String, SystemTime)>,
    /// Storage class, where it is known.
    pub storage_class: Option<String>,
    /// What S3 calls the version of the object that is there, where the bucket keeps versions and S3 answers soon.
    pub version_id: Option<String>,
    /// How far its bytes are.
    pub standing: Standing,
    /// Why the last commit failed, and how many did in a row.
    pub failure: Option<(String, u32)>,
}

impl Filesystem {
    /// The files whose bytes S3 does not have, by path.
    pub fn unstored(&self) -> Vec<Unstored> {
        let files = self.table.all().into_iter().filter(|inode| inode.kind() == Kind::File);
        let mut unstored: Vec<_> = files
            .filter_map(|inode| {
                let (size, standing, failure) = {
                    let data = inode.lock();
                    let (standing, failure) = standing(&data);
                    (data.file().ok()?.size(), standing, failure)
                };
                let path = || self.table.path_of(inode.ino());
                (standing != Standing::Stored).then(|| Unstored { path: path(), size, standing, failure })
            })
            .collect();
        unstored.sort_by(|a, b| a.path.cmp(&b.path));
        unstored
    }

    /// The same in figures. Looks at all names.
    pub fn backlog(&self) -> Backlog {
        let mut all = Backlog::default();
        for inode in self.table.all().into_iter().filter(|inode| inode.kind() == Kind::File) {
            let data = inode.lock();
            let (Ok(state), (standing, _)) = (data.file(), standing(&data)) else { continue };
            if standing == Standing::Stored {
                continue;
            }
            all.files += 1;
            all.failed += usize::from(standing == Standing::Failed);
            all.bytes = all.bytes.saturating_add(state.size());
            all.oldest = all.oldest.max(state.staged().map(|staged| staged.age()));
        }
        all
    }

    /// What is taken now.
    pub fn taken(&self) -> Taken {
        let budget = self.transfer.budget();
        Taken {
            memory: budget.used(),
            memory_limit: budget.limit(),
            stage: self.stage.taken(),
            inodes: self.table.len(),
            open_files: self.files_open().len(),
        }
    }

    /// What stands at a path below the mountpoint, with `/` between names.
    ///
    /// # Errors
    /// As a lookup.
    pub async fn describe(self: &Arc<Self>, path: &str) -> Result<Description> {
        let mut pin = self.table.get(Ino::ROOT)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let name = Name::parse(name.as_bytes())?;
            let _passage = self.table.pass(&[pin.ino()]).await;
            pin = self.resolve(pin.ino(), &name).await?;
        }
        let mut told = self.description(&pin)?;
        if !told.is_dir && told.version.is_some() {
            // Where S3 does not answer, the rest is told all the same.
            let asked = tokio::time::timeout(PATIENCE, self.version_id(&pin)).await;
            told.version_id = asked.ok().and_then(Result::ok).flatten();
        }
        Ok(told)
    }

    pub(super) fn description(&self, pin: &Pin) -> Result<Description> {
        let is_dir = pin.inode().kind() == Kind::Dir;
        let key = match is_dir {
            true => self.table.prefix_of(pin.ino())?.as_str().to_owned(),
            false => self.table.key_of(pin.ino())?.as_str().to_owned(),
        };
        let data = pin.inode().lock();
        let (standing, failure) = standing(&data);
        let state = data.file().ok();
        let version = state.and_then(FileState::object).map(|seen| (seen.etag.as_str().to_owned(), seen.modified));
        Ok(Description {
            key,
            is_dir,
            size: state.map_or(0, FileState::size),
            storage_class: version.as_ref().and_then(|_| storage_class(&data)),
            version,
            version_id: None,
            standing,
            failure,
        })
    }
}

fn standing(data: &NodeData) -> (Standing, Option<(String, u32)>) {
    let failure = |phase: &Phase| match phase {
        Phase::Failed { error, attempts } => Some((error.to_string(), *attempts)),
        Phase::Born | Phase::Changed => None,
    };
    match data.file() {
        Ok(FileState::Uploading(draft, _)) => (Standing::Uploading, failure(&draft.phase)),
        Ok(FileState::Dirty(draft)) => match failure(&draft.phase) {
            None if data.opens.writing > 0 => (Standing::Open, None),
            None => (Standing::Waiting, None),
            failed => (Standing::Failed, failed),
        },
        _ => (Standing::Stored, None),
    }
}
