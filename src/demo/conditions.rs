//! Conditional requests: pure decisions about ETags and times.
//!
//! Owns the order in which the conditions of a request are judged (RFC 9110, section 13.2.2) and the codes S3 gives.
//! The caller holds the lock under which the answer is used.

use super::state::Object;
use hyper::{HeaderMap, StatusCode};
use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

/// The conditions of a read, or those on the source of a copy.
#[derive(Debug, Default)]
pub(super) struct ReadConditions<'a> {
    pub(super) if_match: Option<&'a ETagCondition>,
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_modified_since: Option<&'a Timestamp>,
    pub(super) if_unmodified_since: Option<&'a Timestamp>,
}

fn matches(condition: &ETagCondition, etag: &str) -> bool {
    condition.is_any() || condition.as_etag().is_some_and(|wanted| wanted.value() == etag)
}

impl ReadConditions<'_> {
    /// Whether the read may go on: 412 or 304 otherwise.
    pub(super) fn check_read(&self, object: &Object) -> S3Result {
        self.check(object, || not_modified(object))
    }

    /// As a read; but a copy has no 304, so everything that does not hold is 412.
    pub(super) fn check_source(&self, object: &Object) -> S3Result {
        self.check(object, precondition_failed)
    }

    fn check(&self, object: &Object, unchanged: impl Fn() -> S3Error) -> S3Result {
        let modified = Timestamp::from(object.modified);
        match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !matches(condition, &object.etag) => return Err(precondition_failed()),
            (None, Some(time)) if modified > *time => return Err(precondition_failed()),
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if matches(condition, &object.etag) => Err(unchanged()),
            (None, Some(time)) if modified <= *time => Err(unchanged()),
            _ => Ok(()),
        }
    }
}

/// The conditions on what a write replaces.
#[derive(Debug, Default)]
pub(super) struct WriteConditions {
    if_match: Option<ETagCondition>,
    if_none_match: bool,
}

impl WriteConditions {
    /// S3 takes only an ETag in If-Match and only `*` in If-None-Match, and not both.
    pub(super) fn new(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> S3Result<Self> {
        let none_match = if_none_match.is_some();
        if if_none_match.is_some_and(|condition| !condition.is_any())
            || if_match.as_ref().is_some_and(ETagCondition::is_any)
            || (none_match && if_match.is_some())
        {
            return Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            ));
        }
        Ok(Self { if_match, if_none_match: none_match })
    }

    /// Reads them from the headers, where the modelled input has no field for them.
    pub(super) fn from_headers(headers: &HeaderMap) -> S3Result<Self> {
        let read = |name| {
            headers
                .get(name)
                .map(|value| ETagCondition::parse_http_header(value.as_bytes()))
                .transpose()
                .map_err(|_| s3_error!(InvalidArgument, "An entity tag can't be read."))
        };
        Self::new(read("if-match")?, read("if-none-match")?)
    }

    /// Whether the write may replace what is there now.
    pub(super) fn check(&self, existing: Option<&Object>) -> S3Result {
        match (&self.if_match, existing) {
            (Some(_), None) => return Err(s3_error!(NoSuchKey)),
            (Some(condition), Some(object)) if !matches(condition, &object.etag) => return Err(precondition_failed()),
            _ => {}
        }
        if self.if_none_match && existing.is_some() { Err(precondition_failed()) } else { Ok(()) }
    }
}

/// Whether a delete with `If-Match` may remove what is there now.
pub(super) fn check_delete(if_match: Option<&ETagCondition>, existing: Option<&Object>) -> S3Result {
    match (if_match, existing) {
        (Some(_), None) => Err(s3_error!(NoSuchKey)),
        (Some(condition), Some(object)) if !matches(condition, &object.etag) => Err(precondition_failed()),
        _ => Ok(()),
    }
}

fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

fn not_modified(object: &Object) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_status_code(StatusCode::NOT_MODIFIED);
    let mut headers = HeaderMap::new();
    if let Ok(etag) = ETag::Strong(object.etag.clone()).to_http_header() {
        headers.insert(hyper::header::ETAG, etag);
    }
    error.set_headers(headers);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(etag: &str) -> Object {
        Object { etag: etag.to_owned(), ..Object::default() }
    }

    fn is(etag: &str) -> ETagCondition {
        ETagCondition::ETag(ETag::Strong(etag.to_owned()))
    }

    fn code(result: S3Result) -> Option<S3ErrorCode> {
        result.err().map(|error| error.code().clone())
    }

    #[test]
    fn a_write_that_demands_absence_finds_something() {
        let absent = WriteConditions { if_match: None, if_none_match: true };
        assert_eq!(code(absent.check(None)), None);
        assert_eq!(code(absent.check(Some(&tagged("a")))), Some(S3ErrorCode::PreconditionFailed));
    }

    #[test]
    fn a_write_over_a_version_finds_another_or_none() {
        let over = WriteConditions { if_match: Some(is("a")), if_none_match: false };
        assert_eq!(code(over.check(Some(&tagged("a")))), None);
        assert_eq!(code(over.check(Some(&tagged("b")))), Some(S3ErrorCode::PreconditionFailed));
        assert_eq!(code(over.check(None)), Some(S3ErrorCode::NoSuchKey));
    }

    #[test]
    fn an_unchanged_read_is_304_and_an_unchanged_source_412() {
        let same = is("a");
        let conditions = ReadConditions { if_none_match: Some(&same), ..ReadConditions::default() };
        assert_eq!(code(conditions.check_read(&tagged("a"))), Some(S3ErrorCode::NotModified));
        assert_eq!(code(conditions.check_source(&tagged("a"))), Some(S3ErrorCode::PreconditionFailed));
        assert_eq!(code(conditions.check_read(&tagged("b"))), None);
    }
}
