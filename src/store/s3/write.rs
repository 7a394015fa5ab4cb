//! PUT.

use std::collections::HashMap;

use aws_sdk_s3::types::StorageClass;

use super::{S3Store, body, conditions, encoding, written};
use crate::error::{Error, Result};
use crate::store::{Attributes, UploadBody, UserMetadata, errors};
use crate::types::{Expect, ObjectKey, Version};

impl S3Store {
    pub(super) async fn put_object(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        let size = body.len();
        let body = body::prepare(body, self.sums_bodies()).await?;
        let (if_match, if_none_match) = conditions(expect);
        let request = self
            .client
            .put_object()
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
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_checksum_crc64_nvme(body.checksum)
            .content_length(body.len)
            .body(body.stream);
        let answer = request.customize().config_override(self.sending(size)).send().await;
        let answer = answer.map_err(|error| unmet(errors::read("PutObject", error), expect))?;
        written("PutObject", answer.e_tag(), size)
    }
}

/// A version that must be replaced and is not there: S3 answers 404, which here would read as a missing name.
pub(super) fn unmet(error: Error, expect: &Expect) -> Error {
    match (error, expect) {
        (Error::NotFound, Expect::Is(_)) => Error::PreconditionFailed,
        (error, _) => error,
    }
}

/// User metadata as headers carry it.
pub(super) fn metadata(metadata: &UserMetadata) -> Option<HashMap<String, String>> {
    if metadata.is_empty() {
        return None;
    }
    let header = |(name, value): (&String, &String)| {
        (name.to_ascii_lowercase(), encoding::metadata_to_header(value).into_owned())
    };
    Some(metadata.iter().map(header).collect())
}

/// The storage class as it was given: a class that this version of the SDK does not know passes through.
pub(super) fn storage_class(attributes: &Attributes) -> Option<StorageClass> {
    attributes.storage_class.as_deref().map(StorageClass::from)
}
