//! What came of a request, in a word: few enough words to keep a count of each.

use crate::error::Error;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// There is no such object or upload.
    NotFound,
    /// A condition did not hold (412), or another write came in between (409).
    Conflict,
    /// The credentials, or what they allow.
    Denied,
    /// The store is overloaded or failing (429, 500, 503).
    Unavailable,
    /// No answer in time.
    Timeout,
    /// No connection.
    Unreachable,
    /// Anything else.
    Error,
    /// Nobody waited for the answer any more.
    Cancelled,
}

impl Outcome {
    /// All of them, in the order of their declaration.
    pub const ALL: [Outcome; 9] = [
        Outcome::Ok,
        Outcome::NotFound,
        Outcome::Conflict,
        Outcome::Denied,
        Outcome::Unavailable,
        Outcome::Timeout,
        Outcome::Unreachable,
        Outcome::Error,
        Outcome::Cancelled,
    ];

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::NotFound => "not_found",
            Outcome::Conflict => "conflict",
            Outcome::Denied => "denied",
            Outcome::Unavailable => "unavailable",
            Outcome::Timeout => "timeout",
            Outcome::Unreachable => "unreachable",
            Outcome::Error => "error",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// True for what the caller asked for and did not get.
    pub fn is_failure(self) -> bool {
        !matches!(self, Outcome::Ok | Outcome::Cancelled)
    }

    pub(super) fn of<T>(answer: &Result<T, Error>) -> Self {
        match answer {
            Ok(_) => Outcome::Ok,
            Err(Error::NotFound | Error::UploadGone) => Outcome::NotFound,
            Err(Error::PreconditionFailed | Error::ConcurrentWrite) => Outcome::Conflict,
            Err(Error::AccessDenied(_) | Error::BadCredentials(_) | Error::Credentials(_)) => Outcome::Denied,
            Err(Error::Unavailable(_)) => Outcome::Unavailable,
            Err(Error::Timeout(_)) => Outcome::Timeout,
            Err(Error::Unreachable(_) | Error::UnknownHost(_) | Error::Tls(_)) => Outcome::Unreachable,
            Err(Error::Unconfirmed(reason)) => Self::of::<()>(&Err((**reason).clone())),
            Err(_) => Outcome::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_numbered_in_order_and_have_words_of_their_own() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
            assert!(Outcome::ALL[..index].iter().all(|other| other.word() != outcome.word()), "{outcome:?}");
        }
    }
}
