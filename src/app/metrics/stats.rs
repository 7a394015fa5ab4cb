//! The line of the log that tells what was counted since the mount.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::app::control::Subject;
use crate::fuse::{Operation, Status};

/// Logs until this is dropped.
#[derive(Debug)]
pub struct Stats(AbortHandle);

impl Stats {
    /// Logs a line at the end of each interval.
    pub fn log(subject: Arc<Subject>, interval: Duration, runtime: &Handle) -> Self {
        let task = runtime.spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            // Where one took longer, the next is not made up for.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first one is at once, when there is nothing to tell.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let subject = subject.clone();
                // With many names it takes a while.
                let _ = tokio::task::spawn_blocking(move || line(&subject)).await;
            }
        });
        Stats(task.abort_handle())
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn line(subject: &Subject) {
    let (meter, s3, backlog) = (&subject.meter, subject.counted.counts().total(), subject.filesystem.backlog());
    let answers = |status| Operation::ALL.iter().map(|operation| meter.answers(*operation, status)).sum::<u64>();
    tracing::info!(
        calls = Status::ALL.map(answers).iter().sum::<u64>(),
        failed = answers(Status::Failed),
        waiting = meter.waiting(),
        read_bytes = meter.bytes_read(),
        written_bytes = meter.bytes_written(),
        s3_requests = s3.requests,
        s3_failures = s3.failures,
        s3_retries = subject.store.retries(),
        s3_received_bytes = s3.bytes_in,
        s3_sent_bytes = s3.bytes_out,
        dirty_files = backlog.files,
        dirty_bytes = backlog.bytes,
        failed_files = backlog.failed,
        oldest_seconds = backlog.oldest.unwrap_or_default().as_secs(),
        read_buffer_bytes = subject.filesystem.taken().memory,
        "statistics"
    );
}
