//! Faults and denials that a test asks for, and which request they hit.
//!
//! Owns the choice, which depends on nothing but the order of the requests and the seed. How a fault is brought about
//! is the business of the service and of the reply body.

use super::operation::{Address, Operation};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The request is answered with this error and has no effect.
    Answer {
        /// HTTP status.
        status: u16,
        /// S3 error code, such as `SlowDown`.
        code: String,
    },
    /// The connection is closed before the request has any effect.
    DropBeforeApply,
    /// The request takes effect, then the connection is closed: its reply is lost.
    ApplyThenDrop,
    /// The request takes effect, then it is answered with this error.
    ApplyThenAnswer {
        /// HTTP status.
        status: u16,
        /// S3 error code.
        code: String,
    },
    /// No reply comes for so long, and then the connection is closed.
    Silence {
        /// Whether the request takes effect, before that.
        applied: bool,
        /// How long the client waits.
        pause: Duration,
    },
    /// The connection is closed after so many bytes of the reply's body.
    CutBody {
        /// Bytes that are still sent.
        after: u64,
    },
    /// The reply's body pauses.
    StallBody {
        /// Bytes that are sent before the pause.
        after: u64,
        /// How long nothing is sent.
        pause: Duration,
    },
    /// A GET answers another range than it was asked for, and says so in Content-Range.
    WrongRange,
    /// One byte of the reply's body is another one.
    CorruptBody {
        /// Its place in the body.
        at: u64,
    },
}

/// A fault and the requests it hits.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Only this operation; any when None.
    pub operation: Option<Operation>,
    /// Only keys (of a listing: prefixes) that contain this; any when None.
    pub key: Option<String>,
    /// So many matching requests go well first.
    pub skip: u64,
    /// It happens at most so often; for ever when None.
    pub times: Option<u64>,
    /// The share of the matching requests it hits, from 0 to 1.
    pub probability: f64,
    /// What goes wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// This fault on every request.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { operation: None, key: None, skip: 0, times: None, probability: 1.0, kind }
    }

    /// Only on this operation.
    #[must_use]
    pub fn on(self, operation: Operation) -> Self {
        Self { operation: Some(operation), ..self }
    }

    /// Only on keys that contain this.
    #[must_use]
    pub fn key(self, part: impl Into<String>) -> Self {
        Self { key: Some(part.into()), ..self }
    }

    /// Only once.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// At most so often.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times: Some(times), ..self }
    }

    /// After so many matching requests went well.
    #[must_use]
    pub fn skip(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// On this share of the matching requests.
    #[must_use]
    pub fn probability(self, probability: f64) -> Self {
        Self { probability, ..self }
    }

    fn hits(&self, address: &Address) -> bool {
        self.operation.is_none_or(|operation| operation == address.operation)
            && self.key.as_ref().is_none_or(|part| address.key.contains(part))
    }
}

/// The faults and denials in force.
#[derive(Debug)]
pub(super) struct Faults(Mutex<Plan>);

#[derive(Debug)]
struct Plan {
    faults: Vec<Fault>,
    denials: Vec<(Option<Operation>, String)>,
    fired: u64,
    random: u64,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(Plan { faults: Vec::new(), denials: Vec::new(), fired: 0, random: seed }))
    }

    pub(super) fn add(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    pub(super) fn clear(&self) {
        self.lock().faults.clear();
    }

    pub(super) fn fired(&self) -> u64 {
        self.lock().fired
    }

    pub(super) fn deny(&self, operation: Option<Operation>, key_prefix: &str) {
        self.lock().denials.push((operation, key_prefix.to_owned()));
    }

    pub(super) fn allow_all(&self) {
        self.lock().denials.clear();
    }

    pub(super) fn is_denied(&self, operation: Operation, key: &str) -> bool {
        let denied = |(what, prefix): &(Option<Operation>, String)| {
            what.is_none_or(|what| what == operation) && key.starts_with(prefix.as_str())
        };
        self.lock().denials.iter().any(denied)
    }

    /// The fault that hits this request: the first one that matches, is due and is drawn.
    pub(super) fn strike(&self, address: &Address) -> Option<FaultKind> {
        let mut plan = self.lock();
        let Plan { faults, random, .. } = &mut *plan;
        let struck = faults.iter_mut().find_map(|fault| {
            if !fault.hits(address) || fault.times == Some(0) {
                return None;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                return None;
            }
            if fault.probability < 1.0 && draw(random) >= fault.probability {
                return None;
            }
            fault.times = fault.times.map(|times| times - 1);
            Some(fault.kind.clone())
        })?;
        plan.fired += 1;
        Some(struck)
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next number from 0 to 1 (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: &str) -> Address {
        Address { operation: Operation::GetObject, key: key.to_owned() }
    }

    #[test]
    fn a_fault_waits_hits_and_is_used_up() {
        let faults = Faults::new(1);
        faults.add(Fault::new(FaultKind::DropBeforeApply).key("x").skip(1).times(2));
        let hits: Vec<_> = ["ax", "a", "ax", "xb", "x"].iter().map(|key| faults.strike(&get(key)).is_some()).collect();
        assert_eq!(hits, [false, false, true, true, false]);
        assert_eq!(faults.fired(), 2);
    }

    #[test]
    fn the_same_seed_draws_the_same_requests() {
        let draws = |seed| {
            let faults = Faults::new(seed);
            faults.add(Fault::new(FaultKind::DropBeforeApply).probability(0.5));
            (0..64).map(|_| faults.strike(&get("k")).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let hits = draws(7).iter().filter(|hit| **hit).count();
        assert!((16..48).contains(&hits), "{hits} of 64");
    }

    #[test]
    fn a_denial_is_for_an_operation_and_a_prefix() {
        let faults = Faults::new(1);
        faults.deny(Some(Operation::GetObject), "secret/");
        assert!(faults.is_denied(Operation::GetObject, "secret/a"));
        assert!(!faults.is_denied(Operation::HeadObject, "secret/a"));
        assert!(!faults.is_denied(Operation::GetObject, "open/secret/a"));
    }
}
