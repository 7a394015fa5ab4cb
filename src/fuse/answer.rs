//! From an operation to its reply: polled once on the kernel's worker thread, then moved into a task if it must wait.
//!
//! Owns deadlines, the count and the log line of a call, and what a panic becomes: EIO for its caller, and a mount that lives on. fuser
//! catches none, and a worker thread that ends by one takes the mount with it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::meter::{Meter, Operation};
use crate::error::{Error, Result};
use crate::types::Ino;

/// A call that has not been answered after this is answered ETIMEDOUT: fuser can't be interrupted, and a reply that never
/// comes leaves its caller unkillable. Far above what the retries of one request take.
const DEADLINE: Duration = Duration::from_secs(180);

/// What a call is, for its deadline, its count and its log line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    operation: Operation,
    ino: Ino,
    deadline: Option<Duration>,
    began: Instant,
}

impl Call {
    /// A call that takes a few requests at most.
    pub fn quick(operation: Operation, ino: Ino) -> Self {
        Call { operation, ino, deadline: Some(DEADLINE), began: Instant::now() }
    }

    /// A call that moves a file's bytes: as long as the file needs. Each of its requests has a deadline of its own.
    pub fn transfer(operation: Operation, ino: Ino) -> Self {
        Call { operation, ino, deadline: None, began: Instant::now() }
    }

    /// Counts it before its caller knows, and says what went wrong, as loudly as the error asks.
    pub fn end<T>(&self, meter: &Meter, outcome: Result<T>) -> Result<T> {
        let took = self.began.elapsed();
        meter.answered(self.operation, &outcome, took);
        if meter.is_slow(took) {
            let (call, ino, seconds) = (self.operation.name(), self.ino.get(), took.as_secs_f64());
            tracing::warn!(call, ino, seconds, waiting = meter.waiting(), "slow");
        }
        if let Err(error) = &outcome {
            let (call, ino) = (self.operation.name(), self.ino.get());
            match error.level() {
                tracing::Level::ERROR => tracing::error!(call, ino, %error, "failed"),
                tracing::Level::WARN => tracing::warn!(call, ino, %error, "failed"),
                _ => tracing::debug!(call, ino, %error, "answered with an error"),
            }
        }
        outcome
    }
}

/// Runs `operation` and hands its outcome to `reply`, on this thread if it does not have to wait.
pub(super) fn answer<T, F>(
    runtime: &Handle,
    meter: &Arc<Meter>,
    call: Call,
    operation: F,
    reply: impl FnOnce(Result<T>) + Send + 'static,
) where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut operation = Box::pin(AssertUnwindSafe(operation).catch_unwind());
    let context = runtime.enter();
    match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => contained(|| reply(call.end(meter, unwound(outcome)))),
        Poll::Pending => {
            let (meter, waiting) = (meter.clone(), meter.wait());
            drop(runtime.spawn(async move {
                let outcome = match call.deadline {
                    Some(deadline) => tokio::time::timeout(deadline, operation).await.unwrap_or_else(|_| {
                        let (name, limit) = (call.operation.name(), deadline.as_secs());
                        Ok(Err(Error::Timeout(format!("{name} took more than {limit} s"))))
                    }),
                    None => operation.await,
                };
                drop(waiting);
                reply(call.end(&meter, unwound(outcome)));
            }));
        }
    }
    drop(context);
}

/// Runs what is done on this thread. A panic in it ends here: the reply that it drops answers EIO, and the hook has logged where
/// it was.
pub(super) fn contained(callback: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(callback));
}

/// A panic in one operation is EIO for its caller; the hook has logged where it was.
fn unwound<T>(outcome: std::result::Result<Result<T>, Box<dyn Any + Send>>) -> Result<T> {
    outcome.unwrap_or(Err(Error::Internal("an operation ended in a panic")))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn outcome_of<F>(operation: F) -> Result<u32>
    where
        F: Future<Output = Result<u32>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (sender, receiver) = mpsc::channel();
        answer(runtime.handle(), &Arc::default(), Call::quick(Operation::Read, Ino::ROOT), operation, move |outcome| {
            sender.send(outcome).expect("somebody listens");
        });
        receiver.recv().expect("an answer")
    }

    #[test]
    fn an_operation_that_is_ready_or_waits_is_answered() {
        assert_eq!(outcome_of(async { Ok(1) }).ok(), Some(1));
        let waiting = async {
            tokio::task::yield_now().await;
            Ok(2)
        };
        assert_eq!(outcome_of(waiting).ok(), Some(2));
    }

    #[test]
    fn a_panic_is_an_error_for_its_caller_before_and_after_a_wait() {
        assert!(outcome_of(async { panic!("expected in this test") }).is_err());
        let later = async {
            tokio::task::yield_now().await;
            panic!("expected in this test")
        };
        assert!(outcome_of(later).is_err());
    }

    #[test]
    fn a_panic_while_replying_ends_no_worker_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        answer(runtime.handle(), &Arc::default(), Call::quick(Operation::Read, Ino::ROOT), async { Ok(1) }, |_| {
            panic!("expected in this test")
        });
    }
}
