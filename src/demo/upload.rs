//! Receiving a body: read to its end, summed and verified before anybody may publish it.
//!
//! Owns the way of the bytes of PutObject and UploadPart from the stream into memory. A body that is cut, too short or
//! of another sum than declared ends in an error here, so that nothing of it is ever seen.

use super::checksums::{Algorithm, Declared, ETags, Hasher, Sums};
use super::state::{Body, Headers};
use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::HeaderMap;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};

/// The largest body of one PUT or part (S3 User Guide, "Amazon S3 multipart upload limits").
pub(super) const MAX_PUT: u64 = 5 << 30;

/// All user metadata of an object, names and values (S3 User Guide, "Working with object metadata").
const MAX_METADATA: usize = 2048;

/// How bodies are cut in memory: pieces of the network's buffers would keep those buffers alive.
const SEGMENT: usize = 1 << 20;

/// A body that arrived whole and is what was declared.
pub(super) struct Received {
    pub(super) body: Body,
    /// What its ETag is made of.
    pub(super) md5: [u8; 16],
    pub(super) sums: Sums,
    /// The algorithm the caller used.
    pub(super) algorithm: Option<Algorithm>,
}

/// Reads a request body to its end and verifies it.
pub(super) async fn receive(
    stream: Option<StreamingBlob>,
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
    also: Option<Algorithm>,
    etags: ETags,
) -> S3Result<Received> {
    let declared = Declared::read(headers)?;
    let expected = declared_length(headers)?;
    let wanted: Vec<_> = declared.algorithm().into_iter().chain(also).collect();
    let mut hasher = Hasher::new(&wanted, declared.needs(etags));
    let mut segments = Segments::new(expected);
    if let Some(mut stream) = stream {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| broken_body(headers, segments.len < expected))?;
            hasher.update(&chunk);
            segments.push(&chunk);
        }
    }
    if segments.len != expected {
        return Err(broken_body(headers, true));
    }
    let (md5, sums) = hasher.finish();
    let trailers = trailers.and_then(TrailingHeaders::take);
    declared.verify(&sums, &md5, trailers.as_ref())?;
    Ok(Received { body: segments.finish(), md5, sums, algorithm: declared.algorithm() })
}

fn declared_length(headers: &HeaderMap) -> S3Result<u64> {
    let number = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let length = number("x-amz-decoded-content-length")
        .or_else(|| number("content-length"))
        .ok_or_else(|| s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header."))?;
    if length > MAX_PUT {
        return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"));
    }
    Ok(length)
}

/// Why a body did not come through: cut short, or not what was signed.
fn broken_body(headers: &HeaderMap, short: bool) -> S3Error {
    let signed = headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if signed.starts_with("STREAMING-AWS4") {
        s3_error!(SignatureDoesNotMatch, "A chunk of the body is missing or its signature does not match.")
    } else if short {
        s3_error!(IncompleteBody, "You did not provide the number of bytes specified by the Content-Length header.")
    } else {
        let code = s3s::S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
        let mut error = S3Error::with_message(code, "The provided x-amz-content-sha256 header does not match.");
        error.set_status_code(hyper::StatusCode::BAD_REQUEST);
        error
    }
}

struct Segments {
    done: Vec<Bytes>,
    open: Vec<u8>,
    len: u64,
    expected: u64,
}

impl Segments {
    fn new(expected: u64) -> Self {
        Self { done: Vec::new(), open: Vec::new(), len: 0, expected }
    }

    fn push(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            if self.open.capacity() == 0 {
                let left = usize::try_from(self.expected.saturating_sub(self.len)).unwrap_or(SEGMENT);
                self.open.reserve_exact(left.clamp(1, SEGMENT));
            }
            let room = self.open.capacity() - self.open.len();
            let (now, rest) = chunk.split_at(room.min(chunk.len()));
            self.open.extend_from_slice(now);
            self.len += now.len() as u64;
            chunk = rest;
            if self.open.len() == self.open.capacity() {
                self.done.push(std::mem::take(&mut self.open).into());
            }
        }
    }

    fn finish(mut self) -> Body {
        if !self.open.is_empty() {
            self.done.push(self.open.into());
        }
        Body::new(self.done)
    }
}

impl Headers {
    /// Refuses more user metadata than S3 keeps.
    pub(super) fn check(self) -> S3Result<Self> {
        let size: usize = self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > MAX_METADATA {
            return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size"));
        }
        Ok(self)
    }
}

/// Content-Encoding without the framing of the upload, which is none of the object's.
pub(super) fn stored_encoding(encoding: Option<String>) -> Option<String> {
    let kept: Vec<_> = encoding.as_deref()?.split(',').map(str::trim).filter(|token| *token != "aws-chunked").collect();
    (!kept.is_empty()).then(|| kept.join(", "))
}

/// Tags as they come in the `x-amz-tagging` header: a query string.
pub(super) fn tags_of(header: Option<&str>) -> Vec<(String, String)> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = header.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

/// Reads the stored headers out of an input, whatever operation it belongs to.
macro_rules! headers_of {
    ($input:expr) => {
        $crate::demo::state::Headers {
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $crate::demo::upload::stored_encoding($input.content_encoding.take()),
            content_language: $input.content_language.take(),
            content_type: $input.content_type.take(),
            expires: $input.expires.take(),
            metadata: $input.metadata.take().unwrap_or_default(),
            encryption: $crate::demo::encryption::encryption_of!($input),
        }
        .check()
    };
}
pub(super) use headers_of;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_framing_of_an_upload_is_not_stored() {
        assert_eq!(stored_encoding(Some("aws-chunked".into())), None);
        assert_eq!(stored_encoding(Some("gzip,aws-chunked".into())), Some("gzip".into()));
        assert_eq!(stored_encoding(Some("gzip".into())), Some("gzip".into()));
    }

    #[test]
    fn a_body_is_cut_into_segments_and_joined_again() {
        let bytes: Vec<u8> = (0..3 * SEGMENT + 5).map(|i| i as u8).collect();
        let mut segments = Segments::new(bytes.len() as u64);
        bytes.chunks(100_003).for_each(|chunk| segments.push(chunk));
        let body = segments.finish();
        assert_eq!(body.segments().len(), 4);
        assert_eq!(body.to_bytes(), bytes);
        let range = SEGMENT as u64 - 3..2 * SEGMENT as u64 + 7;
        assert_eq!(body.slice(range.clone()).to_bytes(), bytes[range.start as usize..range.end as usize]);
    }
}
