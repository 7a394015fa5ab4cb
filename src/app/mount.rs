//! `pailfs mount`: the order in which a mount starts.
//!
//! What can go wrong goes wrong before anything is mounted: mountpoint, stage, credentials and bucket are looked at
//! first. What was done before a failure is undone by `Drop`. How a mount ends is told in [`super::ending`].

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::control::{Control, Subject};
use super::daemon::{self, Readiness};
use super::ending::{Ending, MountGuard};
use super::logging;
use super::metrics::{self, Metrics, Stats};
use super::notify::Notifier;
use super::process::{complete_environment, raise_file_limit};
use super::requests::Requests;
use super::say;
use super::sentence::{Failure, Status};
use super::signals::{HangUp, RequestSignals, Signals, ignore_requests};
use crate::cache::disk::DiskCache;
use crate::config::{Audience, ChecksumPolicy, Config, EncryptionPolicy};
use crate::fs::{Filesystem, Kept, Recovery};
use crate::fuse::mount::{MountRequest, Mounted, check_machine, mount};
use crate::fuse::mountinfo::DeviceNumber;
use crate::fuse::{self, SessionOptions, mountpoint};
use crate::stage::{Leftover, Stage};
use crate::store::{Checksums, Counted, Limited, Requested, S3Store, StoreOptions, connect};

/// Requests in flight for all files together. A few sequential readers and writers with `concurrency` parts each
/// fit in; a connection each is what a small machine still bears.
const MAX_REQUESTS: usize = 64;

/// Longest wait for what is good to know, and not needed.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Mounts, in the background unless asked otherwise.
pub fn run(config: &Config) -> ExitCode {
    complete_environment();
    if let Err(error) = ignore_requests(hang_up(config)) {
        return Failure::system("ignoring signals", &error).report();
    }
    if config.foreground {
        match serve(config, &mut Readiness::foreground()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        }
    } else {
        daemon::detach(|readiness| serve(config, readiness))
    }
}

/// Mounts, tells `readiness`, and serves in this process until a signal or an unmount ends it.
pub fn serve(config: &Config, readiness: &mut Readiness) -> Result<(), Failure> {
    let runtime =
        Builder::new_multi_thread().enable_all().build().map_err(|e| Failure::system("starting threads", &e))?;
    // Before the log: of a log file that is moved from now on somebody hears.
    let asked = {
        let _inside = runtime.enter();
        RequestSignals::listen(hang_up(config)).map_err(|e| Failure::system("listening for signals", &e))?
    };
    let log = logging::start(&config.log, config.foreground)?;
    let requests = Requests::answer(asked, log, runtime.handle());
    raise_file_limit();
    check_machine(config.audience)?;
    let place = mountpoint::prepare(&config.mountpoint, config.nonempty)?;
    if place.cleared {
        notice(&format!("a dead mount was cleared away from {}", place.path.display()));
    }
    let metrics = config.metrics.as_deref().map(metrics::bind).transpose()?;
    let stage = Stage::open_within(&config.stage, &config.identity()).map_err(|e| Failure::of_stage(&e, config))?;
    let cache = open_cache(config)?;
    let store = runtime.block_on(reach_bucket(config))?;
    let conditional_writes =
        if config.fs.read_only { None } else { runtime.block_on(tell_of_conditions(&store, config)) };
    let signals = {
        let _inside = runtime.enter();
        Signals::listen(hang_up(config)).map_err(|e| Failure::system("listening for signals", &e))?
    };
    let (kept, bucket, signals) = ((stage, cache), (store, conditional_writes), (signals, requests, metrics));
    let ended = serve_bucket(config, &place.path, kept, bucket, signals, &runtime, readiness);
    // Whoever still waits for S3 is not waited for: what counts was committed or is kept in the stage.
    runtime.shutdown_background();
    ended
}

/// Who has a log file wants to move it; others have a terminal that goes, or had one.
fn hang_up(config: &Config) -> HangUp {
    if config.log.file.is_some() { HangUp::ReopensLog } else { HangUp::Ends }
}

/// The disk cache, where one is asked for.
fn open_cache(config: &Config) -> Result<Option<DiskCache>, Failure> {
    let Some(settings) = config.cache.clone() else { return Ok(None) };
    let dir = settings.dir.clone();
    let cache = DiskCache::open(settings, config.bucket_identity());
    cache.map(Some).map_err(|error| Failure::of_cache(&error, &dir))
}

/// A store for the bucket, which has answered.
pub(super) async fn reach_bucket(config: &Config) -> Result<S3Store, Failure> {
    let options = store_options(config);
    let asked = options.region.as_deref();
    let store = connect(&options).await.map_err(|error| Failure::of_store(&error, config, asked))?;
    let checked = store.check(config.source.prefix()).await;
    checked.map_err(|error| Failure::of_store(&error, config, Some(store.region())))?;
    tracing::info!(bucket = config.source.bucket(), region = store.region(), "the bucket answers");
    Ok(store)
}

/// Where writers can't be told of each other, that is said before anybody relies on it.
async fn tell_of_conditions(store: &S3Store, config: &Config) -> Option<bool> {
    match tokio::time::timeout(PROBE_LIMIT, store.heeds_conditions(config.source.prefix())).await {
        Ok(Ok(heeds)) => {
            if !heeds {
                notice(
                    "this store ignores the conditions of writes: what another client writes to a file that is changed \
                     here is overwritten without an error, and an exclusive create can succeed twice",
                );
            }
            Some(heeds)
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "whether this store looks at conditions is not known");
            None
        }
        Err(_) => {
            tracing::debug!("whether this store looks at conditions was not answered in time");
            None
        }
    }
}

/// What to connect with.
pub(super) fn store_options(config: &Config) -> StoreOptions {
    let (encryption, customer_key_file) = match &config.store.encryption {
        EncryptionPolicy::Bucket => (None, None),
        EncryptionPolicy::Managed { algorithm, key } => {
            (Some(Requested { algorithm: (*algorithm).to_owned(), key: key.clone() }), None)
        }
        EncryptionPolicy::CustomerKey(file) => (None, Some(file.clone())),
    };
    StoreOptions {
        encryption,
        customer_key_file,
        bucket: config.source.bucket().to_owned(),
        region: config.store.region.clone(),
        endpoint_url: config.store.endpoint_url.clone(),
        profile: config.store.profile.clone(),
        path_style: config.store.path_style,
        payload_signing: config.store.payload_signing,
        no_sign_request: config.store.no_sign_request,
        requester_pays: config.store.requester_pays,
        checksums: match config.store.checksum {
            ChecksumPolicy::Auto => None,
            ChecksumPolicy::Named(algorithm) => Some(Checksums::Named(algorithm)),
            ChecksumPolicy::Off => Some(Checksums::Off),
        },
        max_requests: MAX_REQUESTS.max(config.fs.transfer.concurrency),
        ..StoreOptions::default()
    }
}

fn serve_bucket(
    config: &Config,
    path: &std::path::Path,
    ((stage, leftovers), cache): ((Stage, Vec<Leftover>), Option<DiskCache>),
    (s3, conditional_writes): (S3Store, Option<bool>),
    (mut signals, requests, metrics): (Signals, Requests, Option<TcpListener>),
    runtime: &Runtime,
    readiness: &mut Readiness,
) -> Result<(), Failure> {
    let options = store_options(config);
    let s3 = Arc::new(s3);
    // Counted below the limit: the time until an answer is S3's, without the wait for a turn.
    let counted = Arc::new(Counted::new(s3.clone()).telling(config.slow_op));
    let store = Arc::new(Limited::new(counted.clone(), options.max_requests));
    let handle = runtime.handle().clone();
    if let Some(cache) = cache.clone() {
        // Mounting does not wait for it, nor does the end of the mount.
        handle.spawn_blocking(move || cache.survey());
    }
    let (settings, prefix) = (config.fs.clone(), config.source.prefix().clone());
    let filesystem = Filesystem::with_cache(settings, prefix, store, (stage, cache.clone()), handle.clone());
    let recovery = runtime.block_on(recovery(config, &filesystem, leftovers, &mut signals))?;
    let source = config.source.typed();
    let request = MountRequest { source, mountpoint: path, kernel: config.kernel, audience: config.audience };
    let Mounted { device, handle: mounted } = mount(&request)?;
    let guard = MountGuard(mounted.clone());
    let session = SessionOptions { allow_root: config.audience == Audience::OwnerAndRoot, slow_op: config.slow_op };
    let served = fuse::serve(filesystem.clone(), device, session, handle)
        .map_err(|e| Failure::system("the handshake with the kernel", &e))?;
    requests.mounted(filesystem.clone(), served.kernel_caches());
    if let Err(error) = mounted.raise_read_ahead() {
        tracing::debug!("the kernel's read-ahead stays as it is: {error}");
    }
    tracing::info!("{source} is mounted on {}", path.display());
    tell_recovery(&recovery, config);
    filesystem.recover(recovery);
    let subject = Arc::new(Subject {
        filesystem: filesystem.clone(),
        config: config.clone(),
        mountpoint: path.to_owned(),
        counted,
        store: s3,
        cache,
        meter: served.meter(),
        metrics: metrics.as_ref().and_then(|listener| listener.local_addr().ok()),
        conditional_writes,
        since: Instant::now(),
    });
    let metrics = metrics.map(|listener| Metrics::serve(listener, subject.clone(), runtime.handle())).transpose();
    let _metrics = metrics.map_err(|e| Failure::system("watching the address for metrics", &e))?;
    if let Some(address) = subject.metrics {
        tracing::info!("metrics are at http://{address}/metrics");
    }
    let _stats = config.stats_interval.map(|interval| Stats::log(subject.clone(), interval, runtime.handle()));
    let _control = listen(subject, mounted.device(), runtime);
    readiness.announce()?;
    let notifier = Notifier::ready(filesystem.clone(), runtime.handle());
    runtime.block_on(Ending { config, filesystem, guard, signals, notifier }.wait(served))
}

/// A mount works without answering questions.
fn listen(subject: Arc<Subject>, device: DeviceNumber, runtime: &Runtime) -> Option<Control> {
    match Control::listen(subject, device, runtime.handle()) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!("there is no control socket, so that status and sync won't work: {error}");
            None
        }
    }
}

/// What is done about files and renames of earlier runs, before the first operation can come. A rename of many objects takes its
/// time: a signal ends it, and the next mount goes on.
async fn recovery(
    config: &Config,
    filesystem: &Arc<Filesystem>,
    leftovers: Vec<Leftover>,
    signals: &mut Signals,
) -> Result<Recovery, Failure> {
    if config.fs.read_only {
        return Ok(filesystem.leave_leftovers(leftovers));
    }
    tokio::select! {
        recovery = filesystem.take_in_leftovers(leftovers) => Ok(recovery),
        name = signals.next() => Err(Failure::new(Status::System, format!("{name} came before anything was mounted"))),
    }
}

/// What an earlier run left is never deleted: what is not stored by itself is told, so that somebody looks after it.
fn tell_recovery(recovery: &Recovery, config: &Config) {
    match recovery.pending() {
        0 => {}
        count => notice(&format!("{count} file(s) that an earlier run had not yet stored are being stored now")),
    }
    for Kept { name, size, file, why } in recovery.kept() {
        tracing::warn!(size, "kept from an earlier run, not stored: {name}: {why} ({})", file.display());
    }
    for sentence in recovery.unfinished() {
        notice(&format!("{sentence}; 'pailfs recover {}' lists it", config.source.typed()));
    }
    let count = recovery.kept().len();
    if count > 0 {
        let (dir, source) = (config.stage.dir.display(), config.source.typed());
        notice(&format!(
            "{count} file(s) from an earlier run that was killed are kept in {dir} and not stored; \
             'pailfs recover {source}' lists them"
        ));
    }
}

/// For the log and for the terminal.
fn notice(text: &str) {
    tracing::warn!("{text}");
    say(text);
}
