//! Running transfers as tasks that end with the future that wants them.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// Runs `work` on the runtime, wherever this future is polled. Dropping the future stops the work.
pub(super) async fn run<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn_on(work, runtime);
    tasks.join_next().await.map_or(Err(ended_early()), |done| done.unwrap_or_else(|_| Err(ended_early())))
}

/// Runs `jobs`, at most `limit` at once; the first error stops the rest. Results come in no order.
pub(super) async fn run_all<T, J>(runtime: &Handle, limit: usize, jobs: impl Iterator<Item = J>) -> Result<Vec<T>>
where
    T: Send + 'static,
    J: Future<Output = Result<T>> + Send + 'static,
{
    let (mut tasks, mut results) = (JoinSet::new(), Vec::new());
    for job in jobs {
        if tasks.len() >= limit.max(1)
            && let Some(done) = tasks.join_next().await
        {
            results.push(done.unwrap_or_else(|_| Err(ended_early()))?);
        }
        tasks.spawn_on(job, runtime);
    }
    while let Some(done) = tasks.join_next().await {
        results.push(done.unwrap_or_else(|_| Err(ended_early()))?);
    }
    Ok(results)
}

/// Runs `work`, which reads the local disk, on a thread that may block.
pub(super) async fn run_blocking<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    runtime.spawn_blocking(work).await.unwrap_or_else(|_| Err(ended_early()))
}

fn ended_early() -> Error {
    Error::Internal("a transfer task ended early")
}
