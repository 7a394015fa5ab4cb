//! What was asked of the mount: how often each call came, what it was answered, how long that took, and the bytes that programs
//! read and wrote.
//!
//! Owns the counting only, with atomics alone: each call passes here. Calls that are refused without looking, and forgets, which
//! have no answer, are not counted; nor is what the kernel answers by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Result;
use crate::latency::{Distribution, Histogram};

macro_rules! operations {
    ($($operation:ident $name:literal,)*) => {
        /// One call of the kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "their names are those of the calls")]
        pub enum Operation {
            $($operation,)*
        }

        impl Operation {
            /// All of them, in the order of their declaration.
            pub const ALL: &[Operation] = &[$(Operation::$operation,)*];

            /// What programs and the log call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$operation => $name,)*
                }
            }
        }
    };
}

operations! {
    Lookup "lookup",
    Getattr "getattr",
    Setattr "setattr",
    Readlink "readlink",
    Mknod "mknod",
    Mkdir "mkdir",
    Unlink "unlink",
    Rmdir "rmdir",
    Symlink "symlink",
    Rename "rename",
    Open "open",
    Create "create",
    Read "read",
    Write "write",
    Close "close",
    Release "release",
    Fsync "fsync",
    Fallocate "fallocate",
    CopyFileRange "copy_file_range",
    Opendir "opendir",
    Readdir "readdir",
    Readdirplus "readdirplus",
    Releasedir "releasedir",
    Fsyncdir "fsyncdir",
    Statfs "statfs",
    Setxattr "setxattr",
    Getxattr "getxattr",
    Listxattr "listxattr",
    Removexattr "removexattr",
}

/// What a call was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was done.
    Ok,
    /// As on any filesystem: there is no such file, say, or it is there already.
    Refused,
    /// Something went wrong, which the log tells of.
    Failed,
}

impl Status {
    /// All of them, in the order of their declaration.
    pub const ALL: [Status; 3] = [Status::Ok, Status::Refused, Status::Failed];

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Refused => "refused",
            Status::Failed => "failed",
        }
    }

    fn of<T>(outcome: &Result<T>) -> Self {
        match outcome {
            Ok(_) => Status::Ok,
            Err(error) if error.level() == tracing::Level::DEBUG => Status::Refused,
            Err(_) => Status::Failed,
        }
    }
}

/// Counts of one operation.
#[derive(Debug, Default)]
struct Counters {
    answers: [AtomicU64; Status::ALL.len()],
    took: Histogram,
}

/// Counts what is asked of one mount.
#[derive(Debug)]
pub struct Meter {
    counters: Box<[Counters]>,
    /// What takes so long is logged.
    slow: Option<Duration>,
    waiting: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Meter::new(None)
    }
}

impl Meter {
    /// Starts at zero. Calls that take as long as `slow` are logged.
    pub(super) fn new(slow: Option<Duration>) -> Self {
        let counters = Operation::ALL.iter().map(|_| Counters::default()).collect();
        let [waiting, read, written] = [const { AtomicU64::new(0) }; 3];
        Meter { counters, slow, waiting, read, written }
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow.is_some_and(|slow| took >= slow)
    }

    /// How often an operation was answered so.
    pub fn answers(&self, operation: Operation, status: Status) -> u64 {
        self.counters[operation as usize].answers[status as usize].load(Ordering::Relaxed)
    }

    /// How long the answers took.
    pub fn latencies(&self, operation: Operation) -> Distribution {
        self.counters[operation as usize].took.distribution()
    }

    /// Calls that could not be answered at once, and are not yet.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes that programs, and the kernel's read-ahead for them, were given.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes that programs wrote.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn answered<T>(&self, operation: Operation, outcome: &Result<T>, took: Duration) {
        let counters = &self.counters[operation as usize];
        counters.answers[Status::of(outcome) as usize].fetch_add(1, Ordering::Relaxed);
        counters.took.add(took);
    }

    pub(super) fn gave(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn took(&self, bytes: u32) {
        self.written.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// Counts a call among those that wait, until this is dropped.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self.clone())
    }
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Meter>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn answers_are_counted_by_what_they_say() {
        let meter = Arc::new(Meter::default());
        let time = Duration::from_millis(1);
        meter.answered(Operation::Open, &Ok(()), time);
        meter.answered::<()>(Operation::Open, &Err(Error::NotFound), time);
        meter.answered::<()>(Operation::Open, &Err(Error::StageFull), time);
        assert_eq!(Status::ALL.map(|status| meter.answers(Operation::Open, status)), [1, 1, 1]);
        assert_eq!(Status::ALL.map(|status| meter.answers(Operation::Close, status)), [0, 0, 0]);
        assert_eq!((meter.latencies(Operation::Open).count, meter.latencies(Operation::Open).sum), (3, time * 3));
        let waiting = meter.wait();
        assert_eq!(meter.waiting(), 1);
        drop(waiting);
        assert_eq!(meter.waiting(), 0);
    }

    #[test]
    fn operations_are_numbered_in_order_and_have_names_of_their_own() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index);
            assert!(Operation::ALL[..index].iter().all(|other| other.name() != operation.name()), "{operation:?}");
        }
    }
}
