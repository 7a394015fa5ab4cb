//! HEAD and GET.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use bytes::Bytes;
use futures_util::stream;

use super::encryption::with_key;
use super::{S3Store, checksum, encoding, seconds};
use crate::error::{Error, Result};
use crate::store::{Attributes, BodyStream, Encryption, GetReply, ObjectInfo, Tags, errors};
use crate::types::{ByteRange, ETag, ObjectKey, Version};

impl S3Store {
    pub(super) async fn head_object(&self, key: &ObjectKey) -> Result<ObjectInfo> {
        let request = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .set_request_payer(self.payer())
            .set_checksum_mode(self.algorithm().is_some().then_some(ChecksumMode::Enabled));
        let answer = with_key!(request, self).send().await;
        let answer = answer.map_err(|error| self.of_reading(errors::read("HeadObject", error)))?;
        let info = head_info(&answer)?;
        Ok(ObjectInfo { otherwise_encrypted: !self.sealing.holds(info.attributes.encryption.as_ref()), ..info })
    }

    pub(super) async fn get_tags(&self, key: &ObjectKey) -> Result<Vec<(String, String)>> {
        let request =
            self.client.get_object_tagging().bucket(&self.bucket).key(key.as_str()).set_request_payer(self.payer());
        let answer = request.send().await.map_err(|error| errors::read("GetObjectTagging", error))?;
        Ok(answer.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
    }

    pub(super) async fn get_object(
        &self,
        key: &ObjectKey,
        range: Option<ByteRange>,
        if_match: Option<&ETag>,
    ) -> Result<GetReply> {
        if range.is_some_and(|range| range.is_empty()) {
            return Err(Error::InvalidArgument("an empty range can't be asked for"));
        }
        // The SDK compares the body with the checksum of the whole object, so a range must not ask for it.
        let checksum = (range.is_none() && self.algorithm().is_some()).then_some(ChecksumMode::Enabled);
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .set_request_payer(self.payer())
            .set_range(range.map(|range| range.header()))
            .set_if_match(if_match.map(ETag::quoted))
            .set_checksum_mode(checksum);
        let answer = with_key!(request, self).send().await;
        let answer = answer.map_err(|error| self.of_reading(errors::read("GetObject", error)))?;
        let (sent, size) = extent(&answer)?;
        let asked = range.unwrap_or(ByteRange::new(0, size)).intersect(ByteRange::new(0, size));
        if sent != asked {
            return Err(Error::Corrupt(format!("bytes {asked:?} were asked for, and {sent:?} came")));
        }
        let info = get_info(&answer, size)?;
        Ok(GetReply { info, range: sent, body: stream_of(answer.body, sent.len()) })
    }
}

/// Which bytes the answer carries, and how many the whole object has.
fn extent(answer: &GetObjectOutput) -> Result<(ByteRange, u64)> {
    let unclear = || Error::Corrupt("GetObject was answered without a usable length".into());
    if let Some(text) = answer.content_range() {
        return content_range(text).ok_or_else(unclear);
    }
    let size = answer.content_length().and_then(|len| u64::try_from(len).ok()).ok_or_else(unclear)?;
    Ok((ByteRange::new(0, size), size))
}

/// Reads `bytes FIRST-LAST/SIZE` (RFC 9110, section 14.4).
fn content_range(text: &str) -> Option<(ByteRange, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then(|| (ByteRange::new(first, last + 1), size))
}

/// The body as chunks; it must be exactly as long as the headers said.
fn stream_of(body: ByteStream, len: u64) -> BodyStream {
    Box::pin(stream::unfold(Some((body, len)), |state| async {
        let (mut body, left) = state?;
        match body.next().await {
            Some(Ok(chunk)) => match left.checked_sub(chunk.len() as u64) {
                Some(left) => Some((Ok(chunk), Some((body, left)))),
                None => Some((too_long(), None)),
            },
            Some(Err(error)) => Some((Err(errors::read_body(error)), None)),
            None if left > 0 => Some((Err(Error::Unreachable("the answer ended early".into())), None)),
            None => None,
        }
    }))
}

fn too_long() -> Result<Bytes> {
    Err(Error::Corrupt("more bytes came than the answer's headers said".into()))
}

/// The parts of [`ObjectInfo`] that HEAD and GET name alike. The two outputs share no trait.
macro_rules! info {
    ($answer:expr, $size:expr, $call:literal) => {{
        let answer = $answer;
        let etag =
            answer.e_tag().ok_or_else(|| Error::Corrupt(concat!($call, " was answered without an ETag").into()))?;
        let version = Version { etag: ETag::parse(etag), size: $size, modified: seconds(answer.last_modified()) };
        let metadata = answer.metadata().into_iter().flatten();
        let attributes = Attributes {
            metadata: metadata
                .map(|(name, value)| (name.to_ascii_lowercase(), encoding::metadata_from_header(value)))
                .collect(),
            content_type: answer.content_type().map(str::to_owned),
            cache_control: answer.cache_control().map(str::to_owned),
            content_disposition: answer.content_disposition().map(str::to_owned),
            content_encoding: answer.content_encoding().and_then(encoding::content_encoding),
            content_language: answer.content_language().map(str::to_owned),
            storage_class: answer.storage_class().map(|class| class.as_str().to_owned()),
            encryption: answer.server_side_encryption().map(|algorithm| Encryption {
                algorithm: algorithm.as_str().to_owned(),
                key: answer.ssekms_key_id().map(str::to_owned),
                bucket_key: answer.bucket_key_enabled().unwrap_or(false),
            }),
            tags: Tags::counted(answer.tag_count()),
        };
        // One of the parts' sums says nothing of the bytes.
        let whole = answer.checksum_type() != Some(&ChecksumType::Composite);
        let crc64nvme = answer.checksum_crc64_nvme().filter(|_| whole).and_then(checksum::decode_crc64nvme);
        ObjectInfo {
            version,
            attributes,
            crc64nvme,
            version_id: answer.version_id().map(str::to_owned),
            otherwise_encrypted: false,
        }
    }};
}

fn head_info(answer: &HeadObjectOutput) -> Result<ObjectInfo> {
    let size = answer.content_length().and_then(|len| u64::try_from(len).ok());
    let size = size.ok_or_else(|| Error::Corrupt("HeadObject was answered without a length".into()))?;
    Ok(info!(answer, size, "HeadObject"))
}

fn get_info(answer: &GetObjectOutput, size: u64) -> Result<ObjectInfo> {
    Ok(info!(answer, size, "GetObject"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 2-5/10"), Some((ByteRange::new(2, 6), 10)));
        for bad in ["bytes */10", "bytes 5-2/10", "bytes 0-10/10", "bytes 0-1/*", "0-1/2", ""] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
