//! The validated settings that the layers below the command line read.

use std::path::PathBuf;
use std::time::Duration;

/// What happens to modes, owners and times (`metadata=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataMode {
    /// Kept in object metadata under the keys that AWS tools use.
    Posix,
    /// Not kept: a change that changes nothing succeeds, another is refused (or ignored).
    Basic,
}

/// What a refused attribute change answers in `metadata=basic` (`setattr=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetattrPolicy {
    /// `ENOTSUP`.
    Refuse,
    /// Success, and nothing is changed.
    Ignore,
}

/// What the commit of a change does when another writer has replaced the version that it was based on (`conflict=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// `ESTALE`; the bytes are kept here.
    Fail,
    /// The bytes become an object of their own beside the other writer's.
    KeepBoth,
    /// The bytes replace what the other writer made.
    Overwrite,
}

/// What close(2) waits for (`commit=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// Until S3 has the object.
    Close,
    /// Until the bytes and the journal are on the local disk; fsync(2) waits for S3 all the same.
    Async,
}

/// How long attributes, directories and misses are believed, as in nfs(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// `acregmin`: least time a file's attributes are believed.
    pub file_min: Duration,
    /// `acregmax`: most time, reached by doubling while nothing changes.
    pub file_max: Duration,
    /// `acdirmin`: the same for directories.
    pub dir_min: Duration,
    /// `acdirmax`
    pub dir_max: Duration,
    /// `negative_ttl`: how long a name that was not there is believed absent.
    pub negative: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Freshness {
            file_min: Duration::from_secs(3),
            file_max: Duration::from_secs(60),
            dir_min: Duration::from_secs(3),
            dir_max: Duration::from_secs(60),
            negative: Duration::from_secs(3),
        }
    }
}

/// An algorithm of checksums that go with uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// `crc64nvme`
    Crc64Nvme,
    /// `crc32c`
    Crc32c,
    /// `sha256`
    Sha256,
}

/// Which checksums go with uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumPolicy {
    /// What the store takes.
    Auto,
    /// These, and a store that refuses them is not used without.
    Named(ChecksumAlgorithm),
    /// None.
    Off,
}

/// How all that the mount writes is to be encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncryptionPolicy {
    /// As the bucket has it, and what is rewritten as it was.
    Bucket,
    /// By the store, with a key that the store or its KMS keeps.
    Managed {
        /// `sse`: `AES256`, `aws:kms` or `aws:kms:dsse`.
        algorithm: &'static str,
        /// `sse_kms_key_id`: ARN, id or alias of the KMS key; `None` is the account's own.
        key: Option<String>,
    },
    /// `sse_c_key_file`, absolute: by the store, with the key in this file, which goes with each request.
    CustomerKey(PathBuf),
}

/// What the filesystem needs to know beside the store.
#[derive(Clone, Debug)]
pub struct FsSettings {
    /// `ro`
    pub read_only: bool,
    /// `uid`: owner of what carries no owner of its own.
    pub uid: u32,
    /// `gid`
    pub gid: u32,
    /// `fmask` (or `umask`): bits taken from 0666 for files that carry no mode.
    pub fmask: u32,
    /// `dmask` (or `umask`): bits taken from 0777 for directories that carry no mode.
    pub dmask: u32,
    /// `metadata`
    pub metadata: MetadataMode,
    /// `xattr`
    pub xattr: bool,
    /// `setattr`
    pub setattr: SetattrPolicy,
    /// `commit`
    pub commit: CommitMode,
    /// `conflict`
    pub conflict: ConflictPolicy,
    /// Name of this machine, for the names of conflict copies.
    pub host: String,
    /// Freshness options.
    pub freshness: Freshness,
    /// `rename_dir_limit`: most objects a directory rename moves; beyond it is `EXDEV`.
    pub rename_dir_limit: u64,
    /// `storage_class` of new objects.
    pub storage_class: Option<String>,
    /// Transfer sizes.
    pub transfer: TransferSettings,
}

/// Sizes and counts of transfers.
#[derive(Clone, Copy, Debug)]
pub struct TransferSettings {
    /// `part_size` in bytes (5 MiB to 5 GiB): least size of a multipart part; grows with the file.
    pub part_size: u64,
    /// `concurrency`: parts in flight per file, and requests of one sweep (copies, deletes, HEADs).
    pub concurrency: usize,
    /// `read_ahead` in bytes: the largest window of a sequential reader; 0 turns read-ahead off.
    pub read_ahead: u64,
    /// `memory_limit` in bytes: of all read buffers together.
    pub memory_limit: u64,
    /// What is read whole is compared with the store's checksums; not with `checksum=off`.
    pub compare: bool,
}

impl Default for TransferSettings {
    fn default() -> Self {
        TransferSettings {
            part_size: 8 << 20,
            concurrency: 8,
            read_ahead: 64 << 20,
            memory_limit: 256 << 20,
            compare: true,
        }
    }
}

/// Where staged bytes live, and how many.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// `stage_dir`: made 0700 when it is missing.
    pub dir: PathBuf,
    /// `stage_limit` in bytes, of one mount; `None` is no limit.
    pub limit: Option<u64>,
    /// `stage_min_free` in bytes: what the file system must still have for this user. `None` leaves that to the stage, which
    /// knows how large it is.
    pub min_free: Option<u64>,
}

/// Where clean bytes are kept on the local disk, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// `cache_dir`: made 0700 when it is missing.
    pub dir: PathBuf,
    /// `cache_limit` in bytes on the disk, of all mounts that share the directory.
    pub limit: u64,
    /// `cache_min_free` in bytes: what the file system must still have for this user.
    pub min_free: u64,
}
