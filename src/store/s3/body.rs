//! Bodies of uploads and their checksums.
//!
//! Owns: how an [`UploadBody`] becomes what the SDK sends, so that it can be read again for a retry, and the
//! CRC-64/NVME that goes into a header before it. A header rather than a trailer, since a trailer needs the
//! `aws-chunked` encoding, which several stores refuse or leave in `Content-Encoding`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::UploadBody;
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
    /// Base64 of the CRC-64/NVME, when it was asked for.
    pub checksum: Option<String>,
}

/// Makes `body` ready, with its checksum when `checksum` says so.
pub(super) async fn prepare(body: UploadBody, checksum: bool) -> Result<Prepared> {
    let len = i64::try_from(body.len()).map_err(|_| Error::FileTooLarge)?;
    match body {
        UploadBody::Memory(bytes) => Ok(from_memory(bytes, len, checksum)),
        UploadBody::File { file, range } if range.len() <= READ_WHOLE => {
            let bytes = blocking(move || read_exact(&file, range)).await?;
            Ok(from_memory(bytes, len, checksum))
        }
        UploadBody::File { file, range } => {
            let checksum = if checksum {
                let file = file.clone();
                Some(blocking(move || crc_of(&file, range)).await?)
            } else {
                None
            };
            let again = move || SdkBody::from_body_1_x(FileBody::new(file.clone(), range));
            Ok(Prepared { stream: ByteStream::new(SdkBody::retryable(again)), len, checksum: checksum.map(encode) })
        }
    }
}

fn from_memory(bytes: Bytes, len: i64, checksum: bool) -> Prepared {
    let checksum = checksum.then(|| encode(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes)));
    Prepared { stream: ByteStream::from(bytes), len, checksum }
}

/// As the headers carry it: base64 of the big-endian bytes.
pub(super) fn encode(crc: u64) -> String {
    aws_smithy_types::base64::encode(crc.to_be_bytes())
}

/// The checksum of a header; `None` for one that is not of a whole object (`…-3`).
pub(super) fn decode(text: &str) -> Option<u64> {
    let bytes = aws_smithy_types::base64::decode(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn crc_of(file: &File, range: ByteRange) -> io::Result<u64> {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut buffer = vec![0; CHUNK as usize];
    let mut offset = range.start;
    while offset < range.end {
        let chunk = &mut buffer[..(range.end - offset).min(CHUNK) as usize];
        file.read_exact_at(chunk, offset)?;
        digest.update(chunk);
        offset += chunk.len() as u64;
    }
    Ok(digest.finalize())
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
    fn a_checksum_survives_its_header() {
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, b"123456789");
        assert_eq!(crc, 0xae8b_1486_0a79_9888);
        assert_eq!(decode(&encode(crc)), Some(crc));
        assert_eq!(decode("rosUhgp5mIg=-3"), None);
    }

    #[test]
    fn a_file_is_summed_as_its_bytes_are() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..700_001u32).map(|i| (i * 31 % 251) as u8).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        let expected = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes[1000..]);
        assert_eq!(crc_of(&file, ByteRange::new(1000, 700_001)).unwrap(), expected);
        assert!(crc_of(&file, ByteRange::new(0, 700_002)).is_err());
    }
}
