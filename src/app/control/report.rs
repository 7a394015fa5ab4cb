//! What a mount tells of itself, as it goes over the control socket and as `pailfs status --json` prints it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fs::Standing;

/// A mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Of the program that serves it.
    pub version: String,
    /// Process that serves it.
    pub pid: u32,
    /// As in the mount table.
    pub source: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// What is in force.
    pub options: BTreeMap<String, String>,
    /// Since it was mounted.
    pub uptime_seconds: u64,
    /// False when the store was seen to ignore conditions of writes; absent where that is not known.
    pub conditional_writes: Option<bool>,
    /// Files whose bytes S3 does not have: how many, and of how many bytes together.
    pub unstored_files: usize,
    /// Their bytes.
    pub unstored_bytes: u64,
    /// Their commits failed, and are tried again.
    pub failed_files: usize,
    /// The first of them by path, failed ones before others.
    pub unstored: Vec<UnstoredFile>,
    /// Keys under the prefix that can't be shown as paths, as far as they were met.
    pub hidden_keys: u64,
    /// Names that are known.
    pub inodes: usize,
    /// Files that programs have open.
    pub open_files: usize,
    /// Bytes of read buffers.
    pub memory: Limited,
    /// Bytes of the stage.
    pub stage: Limited,
    /// Bytes of the disk cache, of all mounts that share it.
    pub cache: Option<Limited>,
    /// What was asked of S3, by operation.
    pub requests: Vec<OperationReport>,
    /// How often the same request was sent again.
    pub retries: u64,
    /// At the list prices of S3 Standard in us-east-1 on the day this version was made, without what leaves AWS.
    pub estimated_cost_usd: f64,
}

/// Something that is limited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limited {
    /// Where, if it is on the disk.
    pub dir: Option<String>,
    /// Bytes that are taken.
    pub bytes: u64,
    /// Most of them; absent without a limit.
    pub limit: Option<u64>,
}

/// A file that S3 does not have as it is here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnstoredFile {
    /// Below the mountpoint.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// How far they are.
    pub standing: StandingWord,
    /// Why the last commit failed.
    pub error: Option<String>,
    /// How many failed in a row.
    pub failures: u32,
}

/// How far the bytes of a file are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StandingWord {
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

impl From<Standing> for StandingWord {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Stored => StandingWord::Stored,
            Standing::Open => StandingWord::Open,
            Standing::Waiting => StandingWord::Waiting,
            Standing::Uploading => StandingWord::Uploading,
            Standing::Failed => StandingWord::Failed,
        }
    }
}

impl StandingWord {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            StandingWord::Stored => "stored",
            StandingWord::Open => "open for writing",
            StandingWord::Waiting => "waiting",
            StandingWord::Uploading => "uploading",
            StandingWord::Failed => "failed",
        }
    }
}

/// One operation of S3.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationReport {
    /// S3's name of it.
    pub operation: String,
    /// What was counted.
    #[serde(flatten)]
    pub counted: Counted,
    /// Half of the answers came within so long.
    pub half_within_ms: f64,
    /// 99 of 100 did.
    pub nearly_all_within_ms: f64,
}

/// What was counted of one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// Requests.
    pub requests: u64,
    /// Of these, those that failed.
    pub failures: u64,
    /// Bytes of objects that came.
    pub bytes_in: u64,
    /// Bytes of objects that went.
    pub bytes_out: u64,
}

/// One file or directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileReport {
    /// Key of the object; that of a directory ends in `/`.
    pub key: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Bytes, as programs see them.
    pub size: u64,
    /// ETag of the version in S3, as last seen.
    pub etag: Option<String>,
    /// When that was made, in seconds since 1970.
    pub modified: Option<u64>,
    /// Storage class, where it is known.
    pub storage_class: Option<String>,
    /// What S3 calls that version, where the bucket keeps versions.
    #[serde(default)]
    pub version_id: Option<String>,
    /// How far its bytes are.
    pub standing: StandingWord,
    /// Why the last commit failed.
    pub error: Option<String>,
}

/// How a `sync` went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Synced {
    /// Files that were stored meanwhile.
    pub committed: usize,
    /// Files that could not be, and why.
    pub left: Vec<(String, String)>,
    /// Files that programs have open for writing.
    pub open: Vec<String>,
}
