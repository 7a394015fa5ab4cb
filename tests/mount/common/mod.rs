//! What every mount test stands on: a server, the object side of it, a mount, and programs run on that mount.
//!
//! Owns setting up and giving back: each guard cleans up when it is dropped, also when a test panics.
//! Knows nothing of what is tested. The server is the in-process one, unless `PAILFS_TEST_BUCKET` (and, for other
//! stores than AWS, `PAILFS_TEST_ENDPOINT`) name another; `PAILFS_TEST_SERVER` then says which kind it is.
//! With `PAILFS_TEST_CACHE` set every mount has a disk cache of its own.

mod capability;
mod mount;
mod objects;
mod process;
mod server;
mod shell;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

pub use capability::Capability;
pub use mount::{Mount, MountOptions};
pub use objects::{Metadata, Objects};
pub use process::{alive, signal};
pub use server::TestServer;
pub use shell::has_program;

/// How long a test waits for something that happens on its own before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls `condition` until it holds; after [`PATIENCE`] the test fails and says what it waited for.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited {PATIENCE:?} in vain until {what}");
}

/// True as soon as `condition` holds, false when it has not within `limit`.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes that look random and are the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*: plain, fast, and without a pattern that a mixed-up block could hide in.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Programs start under the shared side of this lock; see [`undisturbed`].
static STARTING: RwLock<()> = RwLock::new(());

/// While this is held no test starts a program: until a child's exec(2) it holds copies of all descriptors, and their
/// closes look to a mount like the closes of the test that opened them.
pub fn undisturbed() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().unwrap_or_else(PoisonError::into_inner)
}

/// To be held while a program is started.
fn starting() -> RwLockReadGuard<'static, ()> {
    STARTING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Compares bytes and, when they differ, says where instead of printing them all.
#[track_caller]
pub fn assert_same_bytes(what: &str, found: &[u8], wanted: &[u8]) {
    if found == wanted {
        return;
    }
    let at = found.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(found.len().min(wanted.len()));
    let window = |bytes: &[u8]| bytes[at.min(bytes.len())..(at + 16).min(bytes.len())].to_vec();
    panic!(
        "{what}: {} bytes instead of {}, first difference at {at}: found {:?}, wanted {:?}",
        found.len(),
        wanted.len(),
        window(found),
        window(wanted)
    );
}

/// Says on standard error, past the capture of the test harness, that a test was not run and why.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Name of the running test: the harness names its thread after it.
pub fn test_name() -> String {
    std::thread::current().name().unwrap_or("test").to_owned()
}
