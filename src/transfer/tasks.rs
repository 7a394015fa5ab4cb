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

/// Runs `jobs`, at most `limit` at once; the first error stops the rest, and comes back when they have stopped: what they held
/// is free then, and nothing of theirs is sent or written any more. Results come in no order.
pub(super) async fn run_all<T, J>(runtime: &Handle, limit: usize, jobs: impl Iterator<Item = J>) -> Result<Vec<T>>
where
    T: Send + 'static,
    J: Future<Output = Result<T>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let outcome = gather(&mut tasks, runtime, limit, jobs).await;
    tasks.shutdown().await;
    outcome
}

async fn gather<T, J>(
    tasks: &mut JoinSet<Result<T>>,
    runtime: &Handle,
    limit: usize,
    jobs: impl Iterator<Item = J>,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    J: Future<Output = Result<T>> + Send + 'static,
{
    let mut results = Vec::new();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn when_an_error_is_told_the_other_jobs_hold_nothing_any_more() {
        for _ in 0..200 {
            let held = Arc::new(());
            let jobs = (0..8).map(|number| {
                let held = held.clone();
                async move {
                    tokio::task::yield_now().await;
                    if number == 3 {
                        return Err(Error::StageFull);
                    }
                    std::future::pending::<()>().await;
                    drop(held);
                    Ok(())
                }
            });
            let outcome = run_all(&Handle::current(), 8, jobs).await;
            assert!(matches!(outcome, Err(Error::StageFull)));
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }
}
