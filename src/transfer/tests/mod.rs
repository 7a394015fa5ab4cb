//! Transfers against a store in memory that breaks on demand.
//!
//! Owns the rig and the fake store: what it answers, what it counts, which call fails how. Real requests over a
//! real socket are the business of `tests/transfer.rs`.

pub(crate) mod fake;
mod read;
mod resume;
mod sums;
mod write;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;

use self::fake::Fake;
use super::{Patience, Transfer};
use crate::cache::disk::DiskCache;
use crate::config::TransferSettings;
use crate::stage::Stage;

const MIB: u64 = 1 << 20;

/// A store, transfers through it that lose patience soon, and a stage.
struct Rig {
    store: Arc<Fake>,
    transfer: Arc<Transfer>,
    stage: Stage,
    _root: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(Fake::default(), TransferSettings::default())
    }

    fn with(store: Fake, settings: TransferSettings) -> Self {
        Self::with_cache(store, settings, None)
    }

    fn with_cache(store: Fake, settings: TransferSettings, cache: Option<DiskCache>) -> Self {
        let patience = Patience {
            stall: Duration::from_millis(100),
            pause: Duration::from_millis(1),
            idle: Duration::from_millis(100),
            ..Patience::default()
        };
        let store = Arc::new(store);
        let transfer = Transfer::with_patience(store.clone(), settings, Handle::current(), patience, cache);
        let root = tempfile::tempdir().expect("a temporary directory");
        let (stage, _) = Stage::open(&root.path().join("stage"), "test").expect("the stage opens");
        Rig { store, transfer, stage, _root: root }
    }
}

/// Bytes of which no two stretches are alike.
fn content(len: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(len as usize + 8);
    for word in 0..len.div_ceil(8) {
        bytes.extend_from_slice(&word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes.into()
}

/// Waits until something is so; fails when it isn't within ten seconds.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Polls once. Whoever is told of progress is not this test: it asks again.
fn is_pending(future: &mut Pin<Box<impl Future>>) -> bool {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}
