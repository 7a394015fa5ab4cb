//! What was asked: command line, `-o` options and source, turned into one validated configuration.
//!
//! Owns every option's name, default, range and help ([`OPTIONS`]), the forms a source may have and the argv of
//! the mount(8) helper. Whatever leaves this folder is checked: nothing below asks again. Knows nothing of S3
//! requests, files or the kernel.

mod build;
mod check;
mod command;
mod completion;
mod defaults;
mod definition;
mod demo;
mod kernel;
mod listen;
mod option_list;
mod recover;
mod settings;
mod source;
mod status;
mod table;
mod unit;
mod value;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use check::{CheckRequest, PolicyKind};
pub use command::{Request, UmountRequest, help_text, parse};
pub use defaults::{home_directory, memory_limit_of};
pub use demo::{DemoRequest, DemoServer};
pub use kernel::{KernelOptions, MOUNT_FLAGS, MountFlag, OWNED_BY_MOUNT};
pub use recover::{RecoverAction, RecoverRequest};
pub use settings::{
    CacheSettings, ChecksumAlgorithm, ChecksumPolicy, CommitMode, ConflictPolicy, EncryptionPolicy, Freshness,
    FsSettings, MetadataMode, SetattrPolicy, StageSettings, TransferSettings,
};
pub use source::Source;
pub use status::{StatusRequest, SyncRequest};
pub use table::{Fallback, Group, Kind, OPTIONS, OptionSpec, find as find_option, nearest as nearest_option};
pub use unit::UnitRequest;

/// What was asked makes no sense: one sentence that names what was wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl UsageError {
    /// Takes a sentence. It must not repeat a secret.
    pub fn new(sentence: impl Into<String>) -> Self {
        UsageError(sentence.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Who may use the mount beside the user who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Nobody else, not even root.
    Owner,
    /// `allow_root`
    OwnerAndRoot,
    /// `allow_other`
    Everyone,
}

/// How the bucket is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `region`, or that of an access point ARN; `None` is found out.
    pub region: Option<String>,
    /// `endpoint_url`: http or https, without user and password.
    pub endpoint_url: Option<String>,
    /// `profile` of the AWS configuration files.
    pub profile: Option<String>,
    /// `path_style`; `None` is auto: on with `endpoint_url`.
    pub path_style: Option<bool>,
    /// `payload_signing`; `None` is auto.
    pub payload_signing: Option<bool>,
    /// `no_sign_request`
    pub no_sign_request: bool,
    /// `requester_pays`
    pub requester_pays: bool,
    /// `sse`, `sse_kms_key_id`, `sse_c_key_file`
    pub encryption: EncryptionPolicy,
    /// `checksum`
    pub checksum: ChecksumPolicy,
}

/// What is logged, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `log_level`: a level or a filter of `target=level` pairs, known to parse. `None` was not given.
    pub filter: Option<String>,
    /// `log_file`, absolute; appended to.
    pub file: Option<PathBuf>,
}

/// Everything a mount needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bucket and prefix.
    pub source: Source,
    /// Where to, absolute but otherwise as typed: the mount command looks at what is there.
    pub mountpoint: PathBuf,
    /// `nonempty`: a directory with entries may be covered.
    pub nonempty: bool,
    /// `allow_other`, `allow_root`
    pub audience: Audience,
    /// Flags for the kernel.
    pub kernel: KernelOptions,
    /// For the operations.
    pub fs: FsSettings,
    /// For the local disk.
    pub stage: StageSettings,
    /// For what is kept of clean bytes; `None` without `cache_dir`.
    pub cache: Option<CacheSettings>,
    /// For S3.
    pub store: StoreSettings,
    /// `drain_timeout`: how long the end of the mount waits for commits.
    pub drain_timeout: Duration,
    /// `metrics_addr`: where Prometheus may ask, as `HOST:PORT`; `None` is nowhere.
    pub metrics: Option<String>,
    /// `stats_interval`: how often the log tells what was counted, if it does.
    pub stats_interval: Option<Duration>,
    /// `slow_op`: what takes so long is logged, if anything is.
    pub slow_op: Option<Duration>,
    /// For the log.
    pub log: LogSettings,
    /// `foreground`: stay attached to the terminal.
    pub foreground: bool,
}

impl Config {
    /// What tells one source from another on this machine: the stage keeps each one's files apart.
    pub fn identity(&self) -> String {
        format!("{}/{}", self.bucket_identity(), self.source.prefix())
    }

    /// What tells one bucket from another on this machine: whoever mounts any part of it shares the cache of its objects.
    pub fn bucket_identity(&self) -> String {
        let endpoint = self.store.endpoint_url.as_deref().unwrap_or("aws");
        format!("{} s3://{}", endpoint.trim_end_matches('/'), self.source.bucket())
    }
}
