//! The page of metrics: their names, what they mean, and where each number comes from.
//!
//! Names follow Prometheus's rules: base units, `_total` behind what only grows. Each line is there from the beginning, so that a
//! zero and a mount that tells nothing are two things; what does not exist (a disk cache, a limit) has no line.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use crate::app::control::Subject;
use crate::fuse::{Operation, Status};
use crate::latency::Distribution;
use crate::store::{Operation as Request, Outcome};

/// Makes the page.
#[derive(Debug)]
pub struct Page {
    registry: Arc<Registry>,
    /// Held by who makes one: with many names it takes a while, and who gives up and asks again must not pile up work.
    turn: Arc<Mutex<()>>,
}

impl Page {
    /// Of one mount.
    pub fn of(subject: Arc<Subject>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Told(subject)));
        Page { registry: Arc::new(registry), turn: Arc::default() }
    }

    /// What is counted now.
    pub async fn text(&self) -> Option<String> {
        let (registry, turn) = (self.registry.clone(), self.turn.clone().lock_owned().await);
        let told = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            let told = prometheus_text::encode(&mut text, &registry).map(|()| text);
            drop(turn);
            told
        });
        told.await.ok()?.ok()
    }
}

/// A mount, as metrics.
#[derive(Debug)]
struct Told(Arc<Subject>);

impl Collector for Told {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.process(&mut writer)?;
        self.operations(&mut writer)?;
        self.requests(&mut writer)?;
        self.files(&mut writer)?;
        self.space(&mut writer)
    }
}

impl Told {
    fn process(&self, to: &mut Writer<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        to.0.encode_descriptor("pailfs_build", "What is running", None, MetricType::Info)?.encode_info(&version)?;
        to.seconds("pailfs_uptime_seconds", "Time since the mount", self.0.since.elapsed())?;
        match resident() {
            Some(bytes) => to.gauge("process_resident_memory_bytes", "Memory that the process takes", bytes),
            None => Ok(()),
        }
    }

    fn operations(&self, to: &mut Writer<'_>) -> fmt::Result {
        let meter = &self.0.meter;
        let all = || Operation::ALL.iter().copied();
        let answers = all().flat_map(|operation| {
            let labels = move |status: Status| [("operation", operation.name()), ("status", status.word())];
            Status::ALL.map(|status| (labels(status), meter.answers(operation, status)))
        });
        to.counters(
            "pailfs_operations",
            "Calls of the kernel that were answered, by what they were answered",
            answers,
        )?;
        let took = all().map(|operation| ([("operation", operation.name())], meter.latencies(operation)));
        to.histograms("pailfs_operation_duration_seconds", "Time until a call was answered", took)?;
        to.gauge("pailfs_operations_waiting", "Calls that wait for something, S3 mostly", meter.waiting())?;
        to.counter("pailfs_read_bytes", "Bytes that were given to the kernel's reads", meter.bytes_read())?;
        to.counter("pailfs_written_bytes", "Bytes that programs wrote", meter.bytes_written())
    }

    fn requests(&self, to: &mut Writer<'_>) -> fmt::Result {
        let counted = &self.0.counted;
        let all = || Request::ALL.into_iter();
        let outcomes = all().flat_map(|request| {
            let labels = move |outcome: Outcome| [("operation", request.s3_name()), ("status", outcome.word())];
            counted.outcomes(request).map(|(outcome, count)| (labels(outcome), count))
        });
        to.counters("pailfs_s3_requests", "Requests to S3 that are over, by what came of them", outcomes)?;
        let took = all().map(|request| ([("operation", request.s3_name())], counted.latencies(request)));
        to.histograms("pailfs_s3_request_duration_seconds", "Time until S3 answered, with the retries", took)?;
        // In this order none is missed.
        let over: u64 = all().flat_map(|request| counted.outcomes(request)).map(|(_, count)| count).sum();
        let total = counted.counts().total();
        let waiting = total.requests.saturating_sub(over);
        to.gauge("pailfs_s3_requests_waiting", "Requests that S3 has not answered yet", waiting)?;
        to.counter("pailfs_s3_retries", "How often a request was sent again", self.0.store.retries())?;
        let broken = counted.broken_bodies();
        to.counter("pailfs_s3_broken_bodies", "Answers to GetObject that ended before their end", broken)?;
        to.counter("pailfs_s3_received_bytes", "Bytes of objects that came from S3", total.bytes_in)?;
        to.counter("pailfs_s3_sent_bytes", "Bytes of objects that S3 took", total.bytes_out)
    }

    fn files(&self, to: &mut Writer<'_>) -> fmt::Result {
        let (backlog, taken) = (self.0.filesystem.backlog(), self.0.filesystem.taken());
        to.gauge("pailfs_dirty_files", "Files that S3 does not have as they are here", backlog.files as u64)?;
        to.gauge("pailfs_dirty_bytes", "Their sizes together", backlog.bytes)?;
        to.gauge("pailfs_failed_files", "Those of them whose last commit failed", backlog.failed as u64)?;
        let oldest = backlog.oldest.unwrap_or_default();
        to.seconds("pailfs_dirty_oldest_age_seconds", "For how long the oldest of them waits; 0 without any", oldest)?;
        to.gauge("pailfs_open_files", "Open files", taken.open_files as u64)?;
        to.gauge("pailfs_known_names", "Files and directories that are known", taken.inodes as u64)?;
        let hidden = self.0.filesystem.hidden_keys();
        to.gauge("pailfs_hidden_keys", "Keys that can't be shown as paths, as far as they were met", hidden)
    }

    fn space(&self, to: &mut Writer<'_>) -> fmt::Result {
        let taken = self.0.filesystem.taken();
        to.gauge("pailfs_read_buffer_bytes", "Bytes of read buffers", taken.memory)?;
        to.gauge("pailfs_read_buffer_limit_bytes", "Most of them", taken.memory_limit)?;
        to.gauge("pailfs_stage_bytes", "Bytes of this mount in the stage", taken.stage)?;
        if let Some(limit) = self.0.config.stage.limit {
            to.gauge("pailfs_stage_limit_bytes", "Most of them", limit)?;
        }
        let Some((cache, settings)) = self.0.cache.as_ref().zip(self.0.config.cache.as_ref()) else { return Ok(()) };
        let looks = cache.looks();
        let results = [([("result", "hit")], looks.hits), ([("result", "miss")], looks.misses)];
        to.counters("pailfs_cache_reads", "Looks into the disk cache, by whether bytes were there", results)?;
        to.counter("pailfs_cache_read_bytes", "Bytes that were found there", looks.bytes)?;
        if let Ok(used) = cache.used() {
            to.gauge("pailfs_cache_bytes", "Bytes in the disk cache, of all mounts that share it", used)?;
        }
        to.gauge("pailfs_cache_limit_bytes", "Most of them", settings.limit)
    }
}

/// Memory of this process, as proc(5) tells it in pages.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: sysconf(3) has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.checked_mul(u64::try_from(size).ok()?)
}

/// Writes one metric after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn seconds(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        let gauge = ConstGauge::new(value.as_secs_f64());
        gauge.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    /// `name` gets its `_total`.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, &'static str); 1], Distribution)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, told) in rows {
            let buckets: Vec<_> = told.buckets.iter().map(|(end, count)| (end.as_secs_f64(), *count)).collect();
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(told.sum.as_secs_f64(), told.count, &buckets, None)?;
        }
        Ok(())
    }
}
