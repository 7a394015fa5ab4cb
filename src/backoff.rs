//! Pauses before something is tried again: they double, up to the longest, and no two clients keep step.

use std::time::Duration;

/// How the pauses grow.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Backoff {
    /// The pause before try number `attempt`, counted from 1: between half and all of what it has grown to. Clients that were
    /// refused together would else come back together.
    pub fn pause(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(16);
        let grown = self.first.saturating_mul(1 << doublings).min(self.longest);
        grown.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (attempt, grown) in [(0, 1), (1, 1), (2, 2), (4, 8), (7, 60), (u32::MAX, 60)] {
            for _ in 0..100 {
                let (pause, grown) = (BACKOFF.pause(attempt), Duration::from_secs(grown));
                assert!(pause >= grown / 2 && pause <= grown, "{pause:?} before try {attempt}");
            }
        }
        assert_eq!(Backoff { first: Duration::ZERO, ..BACKOFF }.pause(9), Duration::ZERO);
    }

    #[test]
    fn no_two_clients_keep_step() {
        let pauses: std::collections::BTreeSet<_> = (0..100).map(|_| BACKOFF.pause(3)).collect();
        assert!(pauses.len() > 50, "{} different pauses of 100", pauses.len());
    }
}
