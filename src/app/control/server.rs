//! The daemon's end: answers one question per connection.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::client::{Ask, Reply};
use super::place;
use super::report::{Counted as Sums, FileReport, Limited, OperationReport, Report, Synced, UnstoredFile};
use crate::cache::disk::DiskCache;
use crate::config::Config;
use crate::fs::{Filesystem, Standing};
use crate::fuse::Meter;
use crate::fuse::mountinfo::{self, DeviceNumber};
use crate::store::{Counted, Operation, S3Store};

/// Longest wait for a question, and for somebody who reads the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest question.
const LONGEST: u64 = 16 << 10;

/// So many files are told of one by one.
const FILES: usize = 100;

/// Dollars for a thousand requests that write, copy or list, and for a thousand of the others but deletes, which are free.
const PRICES: (f64, f64) = (0.005, 0.0004);

/// What is asked about.
#[derive(Debug)]
pub struct Subject {
    /// What is served.
    pub filesystem: Arc<Filesystem>,
    /// What was asked for.
    pub config: Config,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Counts.
    pub counted: Arc<Counted>,
    /// Counts what is sent again.
    pub store: Arc<S3Store>,
    /// The disk cache.
    pub cache: Option<DiskCache>,
    /// Counts what the kernel asks.
    pub meter: Arc<Meter>,
    /// Where Prometheus may ask.
    pub metrics: Option<SocketAddr>,
    /// Whether the store heeds conditions of writes, if that is known.
    pub conditional_writes: Option<bool>,
    /// When it was mounted.
    pub since: Instant,
}

/// A socket that is listened at; removed when this is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    identity: Option<(u64, u64)>,
    task: AbortHandle,
}

impl Control {
    /// Listens for questions about a mount.
    ///
    /// # Errors
    /// The directory or the socket can't be made.
    pub fn listen(subject: Arc<Subject>, device: DeviceNumber, runtime: &Handle) -> io::Result<Self> {
        // SAFETY: geteuid(2) has no preconditions and can't fail.
        let dir = place::prepare(unsafe { libc::geteuid() })?;
        if let Ok(mounted) = mountinfo::read() {
            place::tidy(&dir, &mounted);
        }
        let path = dir.join(place::name(device));
        let _inside = runtime.enter();
        let listener = place::listen(&path)?;
        let identity = place::identity(&path);
        let task = runtime.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(answer(stream, subject.clone()))),
                    Err(error) => {
                        // Too many open files, perhaps: that passes.
                        tracing::debug!(%error, "a question could not be taken");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Control { path, identity, task: task.abort_handle() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        // The number of a mount that is gone may be that of a new one.
        if place::identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn answer(mut stream: UnixStream, subject: Arc<Subject>) {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    if !matches!(tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await, Ok(Ok(_))) {
        return;
    }
    let reply = match serde_json::from_str(&line) {
        Ok(ask) => {
            tokio::select! {
                reply = subject.reply(ask) => reply,
                // Who asked has gone.
                _ = reader.read_u8() => return,
            }
        }
        Err(_) => Reply::Refused("this mount is of another version, which does not know the question".to_owned()),
    };
    let Ok(mut text) = serde_json::to_vec(&reply) else { return };
    text.push(b'\n');
    // Who does not read it does not get it.
    let _ = tokio::time::timeout(PATIENCE, writer.write_all(&text)).await;
}

impl Subject {
    async fn reply(self: &Arc<Self>, ask: Ask) -> Reply {
        match ask {
            Ask::Status => {
                let subject = self.clone();
                // With many names it takes a while, and the disk is asked too.
                match tokio::task::spawn_blocking(move || subject.report()).await {
                    Ok(report) => Reply::Status(Box::new(report)),
                    Err(_) => Reply::Refused("it could not be told".to_owned()),
                }
            }
            Ask::Sync(seconds) => {
                let limit = match seconds.map(Duration::try_from_secs_f64) {
                    Some(Ok(limit)) => limit,
                    Some(Err(error)) => return Reply::Refused(error.to_string()),
                    None => self.config.drain_timeout,
                };
                let done = self.filesystem.sync(limit).await;
                let left = done.left.into_iter().map(|(path, error)| (path, error.to_string())).collect();
                Reply::Synced(Synced { committed: done.committed, left, open: done.open })
            }
            Ask::File(path) => match self.filesystem.describe(&path).await {
                Ok(told) => Reply::File(FileReport {
                    key: told.key,
                    is_dir: told.is_dir,
                    size: told.size,
                    etag: told.version.as_ref().map(|(etag, _)| etag.clone()),
                    modified: told.version.and_then(|(_, at)| Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())),
                    storage_class: told.storage_class,
                    version_id: told.version_id,
                    standing: told.standing.into(),
                    error: told.failure.map(|(error, _)| error),
                }),
                Err(error) => Reply::Refused(error.to_string()),
            },
        }
    }

    fn report(&self) -> Report {
        let (config, taken) = (&self.config, self.filesystem.taken());
        let mut unstored = self.filesystem.unstored();
        let (files, bytes) = (unstored.len(), unstored.iter().map(|file| file.size).fold(0, u64::saturating_add));
        let failed_files = unstored.iter().filter(|file| file.standing == Standing::Failed).count();
        unstored.sort_by_key(|file| file.standing != Standing::Failed);
        unstored.truncate(FILES);
        let dir = |dir: &std::path::Path| Some(dir.display().to_string());
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            source: config.source.typed().to_owned(),
            mountpoint: self.mountpoint.display().to_string(),
            options: options(config, self.store.region(), self.metrics),
            uptime_seconds: self.since.elapsed().as_secs(),
            conditional_writes: self.conditional_writes,
            unstored_files: files,
            unstored_bytes: bytes,
            failed_files,
            unstored: unstored
                .into_iter()
                .map(|file| {
                    let (error, failures) = file.failure.unzip();
                    UnstoredFile {
                        path: file.path,
                        size: file.size,
                        standing: file.standing.into(),
                        error,
                        failures: failures.unwrap_or_default(),
                    }
                })
                .collect(),
            hidden_keys: self.filesystem.hidden_keys(),
            inodes: taken.inodes,
            open_files: taken.open_files,
            memory: Limited { dir: None, bytes: taken.memory, limit: Some(taken.memory_limit) },
            stage: Limited { dir: dir(&config.stage.dir), bytes: taken.stage, limit: config.stage.limit },
            cache: self.cache.as_ref().zip(config.cache.as_ref()).map(|(cache, settings)| Limited {
                dir: dir(&settings.dir),
                bytes: cache.used().unwrap_or_default(),
                limit: Some(settings.limit),
            }),
            requests: self.requests(),
            retries: self.store.retries(),
            estimated_cost_usd: self.cost(),
        }
    }

    fn requests(&self) -> Vec<OperationReport> {
        let counts = self.counted.counts();
        let asked = Operation::ALL.into_iter().filter(|operation| counts.of(*operation).requests > 0);
        asked
            .map(|operation| {
                let count = counts.of(operation);
                let within = |share| {
                    let time = self.counted.answered_within(operation, share).unwrap_or_default();
                    (time.as_secs_f64() * 1e5).round() / 100.0
                };
                OperationReport {
                    operation: operation.s3_name().to_owned(),
                    counted: Sums {
                        requests: count.requests,
                        failures: count.failures,
                        bytes_in: count.bytes_in,
                        bytes_out: count.bytes_out,
                    },
                    half_within_ms: within(0.5),
                    nearly_all_within_ms: within(0.99),
                }
            })
            .collect()
    }

    fn cost(&self) -> f64 {
        let counts = self.counted.counts();
        let each = |operation: Operation| {
            let thousand = match operation {
                Operation::Head | Operation::Tags | Operation::Get | Operation::ListParts => PRICES.1,
                Operation::Delete | Operation::DeleteMany | Operation::AbortUpload => 0.0,
                Operation::List
                | Operation::Put
                | Operation::CreateUpload
                | Operation::UploadPart
                | Operation::UploadPartCopy
                | Operation::CompleteUpload
                | Operation::Copy
                | Operation::Rename => PRICES.0,
            };
            counts.of(operation).requests as f64 / 1000.0 * thousand
        };
        Operation::ALL.into_iter().map(each).sum()
    }
}

/// What is in force, by the names of the options.
fn options(config: &Config, region: &str, metrics: Option<SocketAddr>) -> BTreeMap<String, String> {
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let mut options = BTreeMap::new();
    let mut add = |name: &str, value: String| _ = options.insert(name.to_owned(), value);
    add("region", region.to_owned());
    if let Some(url) = &config.store.endpoint_url {
        add("endpoint_url", url.clone());
    }
    if let Some(profile) = &config.store.profile {
        add("profile", profile.clone());
    }
    add("ro", config.fs.read_only.to_string());
    add("metadata", word(&config.fs.metadata));
    add("xattr", config.fs.xattr.to_string());
    add("commit", word(&config.fs.commit));
    add(
        "conflict",
        match config.fs.conflict {
            crate::config::ConflictPolicy::KeepBoth => "keep-both".to_owned(),
            other => word(&other),
        },
    );
    add("drain_timeout", config.drain_timeout.as_secs_f64().to_string());
    add("part_size", config.fs.transfer.part_size.to_string());
    add("concurrency", config.fs.transfer.concurrency.to_string());
    add("read_ahead", config.fs.transfer.read_ahead.to_string());
    if let Some(address) = metrics {
        add("metrics_addr", address.to_string());
    }
    options
}
