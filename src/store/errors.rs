//! The one place that reads what the SDK calls an error, by code, status and type; never by message text.
//!
//! Owns: the table of S3 error codes, and the walk through a transport error's sources. Knows nothing of
//! requests: a caller that knows more about a code (an upload that is gone is no failure of an abort) says so itself.

use std::error::Error as StdError;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;
use aws_smithy_runtime_api::client::dns::ResolveDnsError;

use crate::error::Error;

/// Header that names the region of a bucket, in redirects and refusals too.
pub(super) const REGION_HEADER: &str = "x-amz-bucket-region";

/// What the store answered, or why it did not. `call` names the operation, for `Unsupported`.
pub(super) fn read<E>(call: &'static str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            let region = region(service.raw());
            answered(
                call,
                service.raw().status().as_u16(),
                meta.code().unwrap_or_default(),
                meta.message().unwrap_or_default(),
                region,
            )
        }
        SdkError::ResponseError(response) if response.raw().status().as_u16() >= 300 => {
            answered(call, response.raw().status().as_u16(), "", "", region(response.raw()))
        }
        SdkError::ResponseError(_) => match transport(&error) {
            Error::Unreachable(text) => Error::Corrupt(text),
            other => other,
        },
        SdkError::TimeoutError(_) => Error::Timeout(format!("{call} took too long")),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => match transport(&error) {
            Error::Unreachable(text) => Error::Timeout(text),
            other => other,
        },
        _ => transport(&error),
    }
}

/// Why the body of a GET ended early.
pub(super) fn read_body(error: ByteStreamError) -> Error {
    match transport(&error) {
        Error::Unreachable(text) if find::<aws_smithy_checksums::body::validate::Error>(&error) => Error::Corrupt(text),
        // A connection that breaks says so by an `io::Error`. The SDK's watch over stalled bodies, whose error
        // type is private, is the only other one that ends a body.
        Error::Unreachable(text) if !find::<io::Error>(&error) => Error::Timeout(text),
        other => other,
    }
}

/// One key's answer in DeleteObjects, which carries a code and no status.
pub(super) fn read_code(call: &'static str, code: &str, message: &str) -> Error {
    answered(call, 0, code, message, None)
}

fn answered(call: &'static str, status: u16, code: &str, message: &str, region: Option<String>) -> Error {
    let told = || match (code, message) {
        ("", "") => format!("HTTP {status} to {call}"),
        ("", text) | (text, "") => text.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    match code {
        "NoSuchKey" | "NotFound" | "NoSuchVersion" => Error::NotFound,
        "NoSuchBucket" => Error::NoSuchBucket,
        "NoSuchUpload" => Error::UploadGone,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => Error::AccessDenied(told()),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "ExpiredToken"
        | "TokenRefreshRequired"
        | "NotSignedUp"
        // versitygw, for an access key that it does not know
        | "XAdminUserNotFound" => Error::BadCredentials(told()),
        "RequestTimeTooSkewed" => Error::ClockSkew,
        "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => Error::WrongRegion(region),
        "PreconditionFailed" => Error::PreconditionFailed,
        "ConditionalRequestConflict" | "OperationAborted" => Error::ConcurrentWrite,
        "InvalidRange" => Error::RangeNotSatisfiable,
        "InvalidObjectState" => Error::Archived,
        "SlowDown" | "ServiceUnavailable" | "InternalError" | "Busy" | "TooManyRequests" => Error::Unavailable(told()),
        "RequestTimeout" => Error::Timeout(told()),
        "EntityTooLarge" => Error::FileTooLarge,
        "KeyTooLongError" => Error::NameTooLong,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => Error::Corrupt(told()),
        "NotImplemented" => Error::Unsupported(call),
        _ => by_status(status, code, message, region, told),
    }
}

/// For answers without a code that says more: HEAD has no body to carry one.
fn by_status(status: u16, code: &str, message: &str, region: Option<String>, told: impl FnOnce() -> String) -> Error {
    match status {
        301 | 302 | 307 | 308 => Error::WrongRegion(region),
        401 => Error::BadCredentials(told()),
        403 => Error::AccessDenied(told()),
        404 => Error::NotFound,
        408 => Error::Timeout(told()),
        412 => Error::PreconditionFailed,
        416 => Error::RangeNotSatisfiable,
        429 | 500 | 502..=504 => Error::Unavailable(told()),
        // Which comes before the work is done: what came of it was lost.
        200..=299 if code.is_empty() => Error::Unavailable(told()),
        _ => Error::Server { status, code: code.to_owned(), message: message.to_owned() },
    }
}

/// The bucket's region as the answer names it: in a header, else in the `Region` element of the error.
fn region(response: &HttpResponse) -> Option<String> {
    if let Some(region) = response.headers().get(REGION_HEADER) {
        return Some(region.to_owned());
    }
    let body = std::str::from_utf8(response.body().bytes()?).ok()?;
    let (_, rest) = body.split_once("<Region>")?;
    let (region, _) = rest.split_once("</Region>")?;
    Some(region.to_owned())
}

/// Sorts a failure of the transport by the types in its chain of sources.
fn transport(error: &(dyn StdError + 'static)) -> Error {
    let text = innermost(error);
    let mut kind = None;
    for source in chain(error) {
        if let Some(credentials) = source.downcast_ref::<CredentialsError>() {
            return Error::Credentials(all(credentials));
        }
        if source.is::<ResolveDnsError>() {
            return Error::UnknownHost(text);
        }
        if source.is::<rustls::Error>() {
            return Error::Tls(text);
        }
        if let Some(failure) = source.downcast_ref::<aws_smithy_runtime_api::client::result::ConnectorError>()
            && failure.is_timeout()
        {
            kind = Some(io::ErrorKind::TimedOut);
        }
        if let Some(failure) = source.downcast_ref::<io::Error>() {
            kind = Some(failure.kind());
        }
    }
    match kind {
        Some(io::ErrorKind::TimedOut) => Error::Timeout(text),
        _ => Error::Unreachable(text),
    }
}

/// The error and all its sources. An `io::Error` that wraps another error does not name it as its source.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let current = next?;
        next = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => current.source(),
        };
        Some(current)
    })
}

fn find<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|source| source.is::<T>())
}

/// What the last source says: the layers above it only say that something below failed.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// What each source says, outermost first, on one line.
pub(super) fn all(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for source in chain(error) {
        let text = source.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
