//! How long what is known is believed: pure policy, as nfs(5) describes it.
//!
//! Owns the doubling between the least and the most time. Reads no clock: callers give the time.

use std::time::{Duration, Instant};

/// An open believes what is younger than this, and asks S3 otherwise (close-to-open).
const OPEN_BELIEVES: Duration = Duration::from_secs(1);

/// When something was last compared with S3, and how long that is good for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Belief {
    checked: Option<Instant>,
    /// When the request began whose answer that was: what S3 answers may be as old as that.
    asked: Option<Instant>,
    good_for: Duration,
}

/// The least and the most time (`acregmin` and `acregmax`, or `acdirmin` and `acdirmax`).
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// After a change.
    pub least: Duration,
    /// After many checks without a change.
    pub most: Duration,
}

impl Belief {
    /// Notes a comparison with S3: unchanged doubles the time, changed starts again.
    pub fn checked(&mut self, now: Instant, unchanged: bool, span: Span) {
        self.answered(now, now, unchanged, span);
    }

    /// As [`Belief::checked`], by an answer to what was `asked` then.
    pub fn answered(&mut self, now: Instant, asked: Instant, unchanged: bool, span: Span) {
        self.good_for = match self.checked {
            Some(_) if unchanged => (self.good_for * 2).clamp(span.least, span.most.max(span.least)),
            _ => span.least,
        };
        self.checked = Some(now);
        self.asked = Some(asked);
    }

    /// True while no request is needed.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.checked.is_some_and(|checked| now.saturating_duration_since(checked) < self.good_for)
    }

    /// True when even an open needs no request. Its second counts from the question, not from the answer.
    pub fn is_fresh_for_open(&self, now: Instant, span: Span) -> bool {
        let asked = self.checked.and(self.asked);
        asked.is_some_and(|asked| now.saturating_duration_since(asked) < Self::open_believes(span))
    }

    /// How old an answer an open may believe.
    pub fn open_believes(span: Span) -> Duration {
        OPEN_BELIEVES.min(span.least)
    }

    /// The next question goes to S3.
    pub fn forget(&mut self) {
        self.checked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { least: Duration::from_secs(3), most: Duration::from_secs(60) };

    #[test]
    fn trust_doubles_up_to_the_most_and_starts_again_after_a_change() {
        let start = Instant::now();
        let mut belief = Belief::default();
        assert!(!belief.is_fresh(start));
        for seconds in [3, 6, 12, 24, 48, 60, 60] {
            belief.checked(start, true, SPAN);
            assert!(belief.is_fresh(start + Duration::from_secs(seconds) - Duration::from_millis(1)));
            assert!(!belief.is_fresh(start + Duration::from_secs(seconds)));
        }
        belief.checked(start, false, SPAN);
        assert!(!belief.is_fresh(start + Duration::from_secs(3)));
    }

    #[test]
    fn the_second_of_an_open_counts_from_the_question() {
        let start = Instant::now();
        let mut belief = Belief::default();
        belief.answered(start + Duration::from_millis(800), start, true, SPAN);
        assert!(belief.is_fresh_for_open(start + Duration::from_millis(900), SPAN));
        assert!(!belief.is_fresh_for_open(start + Duration::from_secs(1), SPAN));
        assert!(belief.is_fresh(start + Duration::from_secs(3)), "attributes are as old as the answer");
    }

    #[test]
    fn an_open_asks_after_one_second_and_always_with_actimeo_0() {
        let start = Instant::now();
        let mut belief = Belief::default();
        belief.checked(start, true, SPAN);
        assert!(belief.is_fresh_for_open(start + Duration::from_millis(999), SPAN));
        assert!(!belief.is_fresh_for_open(start + Duration::from_secs(1), SPAN));
        let none = Span { least: Duration::ZERO, most: Duration::ZERO };
        belief.checked(start, true, none);
        assert!(!belief.is_fresh_for_open(start, none) && !belief.is_fresh(start));
    }
}
