//! Multipart uploads.
//!
//! Either the checksum algorithm is named at the start and each part's sum is repeated at the end, or neither:
//! MinIO refuses a completion that lacks the sums after a start that named it, versitygw one that has them after
//! a start that did not.

use std::fmt::Display;
use std::sync::atomic::Ordering;

use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload, CompletedPart, Part};

use super::checksum::{self, Sum, compare, told_sum, with_sum};
use super::encryption::{told_of, with_key, with_source_key};
use super::write::{metadata, storage_class, told, unmet, untagged, warn_untagged};
use super::{S3Store, body, conditions, encoding, written};
use crate::config::ChecksumAlgorithm;
use crate::error::{Error, Result};
use crate::store::{Attributes, ListedPart, PartSource, PartsPage, UploadBody, UploadedPart, errors};
use crate::types::{ByteRange, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

impl S3Store {
    pub(super) async fn create_multipart(
        &self,
        key: &ObjectKey,
        attributes: &Attributes,
        parts: PartSource,
    ) -> Result<UploadId> {
        let refusal = match self.create_summed(key, attributes, parts).await {
            Err(error) => error,
            done => return done,
        };
        let Some(untagged) = untagged(attributes, &refusal) else { return Err(refusal) };
        let again = self.create_summed(key, &untagged, parts).await;
        told(refusal, again).inspect(|_| warn_untagged(key))
    }

    async fn create_summed(&self, key: &ObjectKey, attributes: &Attributes, parts: PartSource) -> Result<UploadId> {
        let algorithm = self.algorithm_of_upload(parts);
        let optional = algorithm.is_some() && !self.is_named();
        match self.send_create(key, attributes, algorithm).await {
            // Garage, for one, knows no sums of whole uploads.
            Err(error @ (Error::Server { status: 400, .. } | Error::Unsupported(_))) if optional => {
                let id = self.send_create(key, attributes, None).await.map_err(|_| error)?;
                if !self.refuses_sums.swap(true, Ordering::Relaxed) {
                    tracing::warn!("this store keeps no checksums of multipart uploads");
                }
                Ok(id)
            }
            done => done,
        }
    }

    async fn send_create(
        &self,
        key: &ObjectKey,
        attributes: &Attributes,
        algorithm: Option<ChecksumAlgorithm>,
    ) -> Result<UploadId> {
        let (algorithm, kind) = algorithm.map(checksum::names).unzip();
        let encryption = self.encryption(attributes.encryption.as_ref());
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key.as_str())
            .set_request_payer(self.payer())
            .set_metadata(metadata(&attributes.metadata))
            .set_content_type(attributes.content_type.clone())
            .set_cache_control(attributes.cache_control.clone())
            .set_content_disposition(attributes.content_disposition.clone())
            .set_content_encoding(attributes.content_encoding.clone())
            .set_content_language(attributes.content_language.clone())
            .set_storage_class(storage_class(attributes))
            .set_server_side_encryption(encryption.algorithm)
            .set_ssekms_key_id(encryption.key)
            .set_bucket_key_enabled(encryption.bucket_key)
            .set_tagging(encoding::tagging(attributes.tags.known()))
            .set_checksum_algorithm(algorithm)
            .set_checksum_type(kind);
        let request = with_key!(request, self);
        let answer = request.send().await.map_err(|error| errors::read("CreateMultipartUpload", error))?;
        let id = answer.upload_id().filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Error::Corrupt("CreateMultipartUpload was answered without an id".into()))?;
        let id = UploadId::new(id);
        if let Err(error) = self.check_encryption("CreateMultipartUpload", &told_of!(answer)) {
            if let Err(left) = self.abort_multipart(key, &id).await {
                tracing::warn!(%key, %left, "an upload that would be encrypted otherwise could not be aborted");
            }
            return Err(error);
        }
        Ok(id)
    }

    pub(super) async fn send_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        body: UploadBody,
    ) -> Result<UploadedPart> {
        let size = body.len();
        let body = body::prepare(body, self.algorithm()).await?;
        let request = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .part_number(number.get())
            .set_request_payer(self.payer())
            .content_length(body.len)
            .body(body.stream);
        let request = with_key!(with_sum!(request, body.checksum.as_ref()), self);
        let request = request.customize().config_override(self.sending(size));
        let request = match self.body_signing.leaves_out(body.checksum.is_some()) {
            true => request.disable_payload_signing(),
            false => request,
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| errors::read("UploadPart", error))?;
        let told = told_sum!(answer, self.algorithm());
        compare("UploadPart", body.checksum.as_ref(), told.as_ref())?;
        let checksum = match self.is_named() {
            true => body.checksum,
            false => told.filter(|_| self.algorithm_of_upload(PartSource::Bodies).is_some()),
        };
        part("UploadPart", (number, size), answer.e_tag(), checksum)
    }

    pub(super) async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        source: &ObjectKey,
        source_etag: &ETag,
        range: Option<ByteRange>,
    ) -> Result<UploadedPart> {
        if range.is_some_and(|range| range.is_empty()) {
            return Err(Error::InvalidArgument("an empty range can't be copied"));
        }
        let request = self
            .client
            .upload_part_copy()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .part_number(number.get())
            .set_request_payer(self.payer())
            .copy_source(encoding::copy_source(&self.bucket, source.as_str()))
            .copy_source_if_match(source_etag.quoted())
            .set_copy_source_range(range.map(|range| range.header()));
        let request = with_source_key!(with_key!(request, self), self);
        let answer = request.customize().config_override(self.working()).send().await;
        let answer = match answer.map_err(|error| errors::read("UploadPartCopy", error)) {
            Err(error @ Error::Server { status: 400, .. }) if self.is_named() => return Err(self.no_copies(&error)),
            other => other?,
        };
        let copied = answer.copy_part_result();
        let algorithm = self.algorithm_of_upload(PartSource::Copies);
        let checksum = copied.and_then(|copied| told_sum!(copied, algorithm));
        if self.is_named() && !checksum.as_ref().is_some_and(Sum::is_well_formed) {
            // The whole object would go without, which nobody would notice.
            return Err(self.no_copies(&format!("UploadPartCopy was answered with {checksum:?} in its place")));
        }
        // A copy of all of an object is the only part: its size is not needed to combine sums.
        let size = range.map_or(0, |range| range.len());
        part("UploadPartCopy", (number, size), copied.and_then(|copied| copied.e_tag()), checksum)
    }

    /// A store that can't copy parts into an upload with the checksum that was asked for gets the bytes instead.
    fn no_copies(&self, why: &dyn Display) -> Error {
        if !self.told_of_copies.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "this store copies no parts into uploads with the checksum asked for, so all bytes go up: {why}"
            );
        }
        Error::Unsupported("copying parts into an upload with the checksum that was asked for")
    }

    pub(super) async fn list_parts_page(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage> {
        let request = self
            .client
            .list_parts()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .set_request_payer(self.payer())
            .set_part_number_marker(after.map(|part| part.get().to_string()))
            .set_max_parts((most > 0).then_some(i32::from(most)));
        let request = with_key!(request, self);
        let answer = request.send().await.map_err(|error| errors::read("ListParts", error))?;
        let parts = answer.parts().iter().map(|part| self.listed(part)).collect::<Result<Vec<_>>>()?;
        if let Some(after) = after
            && parts.iter().any(|part| part.number <= after)
        {
            return Err(Error::Corrupt("ListParts was answered with parts that were told before".into()));
        }
        // The last part is where the next page begins, whatever marker the store names.
        let next = parts.last().map(|part| part.number).filter(|_| answer.is_truncated() == Some(true));
        Ok(PartsPage { parts, next })
    }

    fn listed(&self, part: &Part) -> Result<ListedPart> {
        let odd = || Error::Corrupt("ListParts was answered with a part that lacks its number, size or ETag".into());
        let index = part.part_number().and_then(|number| u64::try_from(number).ok()?.checked_sub(1)).ok_or_else(odd)?;
        Ok(ListedPart {
            number: PartNumber::from_index(index)?,
            etag: ETag::parse(part.e_tag().ok_or_else(odd)?),
            size: part.size().and_then(|size| u64::try_from(size).ok()).ok_or_else(odd)?,
            sum: told_sum!(part, self.algorithm()).filter(Sum::is_well_formed),
        })
    }

    pub(super) async fn complete_multipart(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[UploadedPart],
        size: u64,
        crc64nvme: Option<u64>,
        expect: &Expect,
    ) -> Result<Version> {
        // An upload that named no algorithm takes no sums back, and one without any sum has a part without.
        let summed = parts.iter().all(|part| part.checksum.is_some());
        let algorithm = self.algorithm().filter(|_| summed);
        let listed = parts.iter().map(|part| completed(part, algorithm)).collect();
        let (if_match, if_none_match) = conditions(expect);
        let whole = algorithm.and_then(|algorithm| Sum::of_parts(algorithm, parts, crc64nvme));
        let full_object = whole.as_ref().and_then(Sum::of_all_bytes);
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .set_request_payer(self.payer())
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(listed)).build())
            .set_mpu_object_size(i64::try_from(size).ok())
            .set_checksum_type(full_object.map(|_| ChecksumType::FullObject))
            .set_if_match(if_match)
            .set_if_none_match(if_none_match);
        let request = with_key!(with_sum!(request, full_object), self);
        let answer = request.customize().config_override(self.working()).send().await;
        let answer = answer.map_err(|error| unmet(errors::read("CompleteMultipartUpload", error), expect))?;
        self.check_completed(answer.server_side_encryption(), answer.ssekms_key_id())?;
        compare("CompleteMultipartUpload", whole.as_ref(), told_sum!(answer, algorithm).as_ref())?;
        written("CompleteMultipartUpload", answer.e_tag(), size)
    }

    pub(super) async fn abort_multipart(&self, key: &ObjectKey, upload: &UploadId) -> Result<()> {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(key.as_str())
            .upload_id(upload.as_str())
            .set_request_payer(self.payer());
        match request.send().await.map_err(|error| errors::read("AbortMultipartUpload", error)) {
            Ok(_) | Err(Error::UploadGone | Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn part(
    call: &str,
    (number, size): (PartNumber, u64),
    etag: Option<&str>,
    checksum: Option<Sum>,
) -> Result<UploadedPart> {
    let etag = etag.ok_or_else(|| Error::Corrupt(format!("{call} was answered without an ETag")))?;
    Ok(UploadedPart { number, etag: ETag::parse(etag), size, checksum: checksum.map(|sum| sum.text) })
}

fn completed(part: &UploadedPart, algorithm: Option<ChecksumAlgorithm>) -> CompletedPart {
    let sum = algorithm.zip(part.checksum.clone()).map(|(algorithm, text)| Sum { algorithm, text });
    let named = CompletedPart::builder().part_number(part.number.get()).e_tag(part.etag.quoted());
    with_sum!(named, sum.as_ref()).build()
}
