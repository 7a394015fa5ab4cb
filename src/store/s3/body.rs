//! Bodies of uploads and their checksums.
//!
//! Owns: how an [`UploadBody`] becomes what the SDK sends, so that it can be read again for a retry, and the
//! checksum that goes into a header before it. A header rather than a trailer, since a trailer needs the
//! `aws-chunked` encoding, which several stores refuse or leave in `Content-Encoding`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::UploadBody;
use super::checksum::{Digest, Sum};
use crate::config::ChecksumAlgorithm;
use crate::error::{Error, Result};
use crate::types::ByteRange;

/// Bytes of one read(2) of a file body: large enough that the hop to a blocking thread is small beside it,
/// small enough that many bodies at once take little memory.
const CHUNK: u64 = 256 << 10;

/// Files up to this are read once and sent from memory.
const READ_WHOLE: u64 = 1 << 20;

/// A body that is ready to be sent.
pub(super) struct Prepared {
    pub stream: ByteStream,
    pub len: i64,
    /// When it was asked for.
    pub checksum: Option<Sum>,
}

/// Makes `body` ready, with its checksum when an algorithm is named.
pub(super) async fn prepare(body: UploadBody, algorithm: Option<ChecksumAlgorithm>) -> Result<Prepared> {
    let len = i64::try_from(body.len()).map_err(|_| Error::FileTooLarge)?;
    match body {
        UploadBody::Summed { bytes, crc64nvme } if algorithm == Some(ChecksumAlgorithm::Crc64Nvme) => {
            Ok(Prepared { stream: ByteStream::from(bytes), len, checksum: Some(Sum::crc64nvme(crc64nvme)) })
        }
        // Too slow for a thread that other requests wait for.
        UploadBody::Memory(bytes) | UploadBody::Summed { bytes, .. }
            if algorithm == Some(ChecksumAlgorithm::Sha256) && bytes.len() as u64 > READ_WHOLE =>
        {
            blocking(move || Ok(from_memory(bytes, len, algorithm))).await
        }
        UploadBody::Memory(bytes) | UploadBody::Summed { bytes, .. } => Ok(from_memory(bytes, len, algorithm)),
        UploadBody::File { file, range } if range.len() <= READ_WHOLE => {
            let bytes = blocking(move || read_exact(&file, range)).await?;
            Ok(from_memory(bytes, len, algorithm))
        }
        UploadBody::File { file, range } => {
            let checksum = match algorithm {
                Some(algorithm) => {
                    let file = file.clone();
                    Some(blocking(move || sum_of(algorithm, &file, range)).await?)
                }
                None => None,
            };
            let again = move || SdkBody::from_body_1_x(FileBody::new(file.clone(), range));
            Ok(Prepared { stream: ByteStream::new(SdkBody::retryable(again)), len, checksum })
        }
    }
}

fn from_memory(bytes: Bytes, len: i64, algorithm: Option<ChecksumAlgorithm>) -> Prepared {
    let checksum = algorithm.map(|algorithm| Sum::of(algorithm, &bytes));
    Prepared { stream: ByteStream::from(bytes), len, checksum }
}

fn sum_of(algorithm: ChecksumAlgorithm, file: &File, range: ByteRange) -> io::Result<Sum> {
    let mut digest = Digest::new(algorithm);
    let mut buffer = vec![0; CHUNK as usize];
    let mut offset = range.start;
    while offset < range.end {
        let chunk = &mut buffer[..(range.end - offset).min(CHUNK) as usize];
        file.read_exact_at(chunk, offset)?;
        digest.update(chunk);
        offset += chunk.len() as u64;
    }
    Ok(digest.finish())
}

fn read_exact(file: &File, range: ByteRange) -> io::Result<Bytes> {
    let mut buffer = vec![0; range.len() as usize];
    file.read_exact_at(&mut buffer, range.start)?;
    Ok(Bytes::from(buffer))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Error::local("reading the bytes to upload", error)),
        Err(_) => Err(Error::Internal("reading the bytes to upload was interrupted")),
    }
}

/// Streams a range of a file; a blocking thread does the reading, so that a slow disk holds up no worker.
struct FileBody {
    file: Arc<File>,
    left: ByteRange,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    fn new(file: Arc<File>, range: ByteRange) -> Self {
        FileBody { file, left: range, reading: None }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            return Poll::Ready(None);
        }
        let chunk = this.left.intersect(ByteRange::at(this.left.start, CHUNK));
        let file = &this.file;
        let reading = this.reading.get_or_insert_with(|| {
            let file = file.clone();
            tokio::task::spawn_blocking(move || read_exact(&file, chunk))
        });
        let bytes = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other).flatten();
        this.reading = None;
        if bytes.is_ok() {
            this.left.start = chunk.end;
        }
        Poll::Ready(Some(bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_summed_as_its_bytes_are() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..700_001u32).map(|i| (i * 31 % 251) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        for algorithm in [ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Sha256] {
            let expected = Sum::of(algorithm, &bytes[1000..]);
            assert_eq!(sum_of(algorithm, &file, ByteRange::new(1000, 700_001)).unwrap(), expected);
            assert!(sum_of(algorithm, &file, ByteRange::new(0, 700_002)).is_err());
        }
    }
}
