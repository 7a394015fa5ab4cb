//! PUT.

use std::collections::HashMap;

use aws_sdk_s3::types::StorageClass;

use super::checksum::{compare, told_sum, with_sum};
use super::encryption::{told_of, with_key};
use super::{S3Store, body, conditions, encoding, written};
use crate::error::{Error, Result};
use crate::store::{Attributes, Tags, UploadBody, UserMetadata, errors};
use crate::types::{Expect, ObjectKey, Version};

impl S3Store {
    pub(super) async fn put_object(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        let refusal = match self.send_put(key, body.clone(), attributes, expect).await {
            Err(error) => error,
            done => return done,
        };
        let Some(untagged) = untagged(attributes, &refusal) else { return Err(refusal) };
        let again = self.send_put(key, body, &untagged, expect).await;
        told(refusal, again).inspect(|_| warn_untagged(key))
    }

    async fn send_put(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        let size = body.len();
        let encryption = self.encryption(attributes.encryption.as_ref());
        let body = body::prepare(body, self.algorithm()).await?;
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
            .set_server_side_encryption(encryption.algorithm)
            .set_ssekms_key_id(encryption.key)
            .set_bucket_key_enabled(encryption.bucket_key)
            .set_tagging(encoding::tagging(attributes.tags.known()))
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .content_length(body.len)
            .body(body.stream);
        let request = with_key!(with_sum!(request, body.checksum.as_ref()), self);
        let request = request.customize().config_override(self.sending(size));
        let request = match self.body_signing.leaves_out(body.checksum.is_some()) {
            true => request.disable_payload_signing(),
            false => request,
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| unmet(errors::read("PutObject", error), expect))?;
        self.check_encryption("PutObject", &told_of!(answer))?;
        compare("PutObject", body.checksum.as_ref(), told_sum!(answer, self.algorithm()).as_ref())?;
        written("PutObject", answer.e_tag(), size)
    }
}

/// The same without tags, if it may be those that were refused: setting them takes a permission of its own, and some stores
/// know none. The bytes are worth more.
pub(super) fn untagged(attributes: &Attributes, error: &Error) -> Option<Attributes> {
    let refused = matches!(error, Error::AccessDenied(_) | Error::Unsupported(_));
    let tagged = !attributes.tags.known().is_empty();
    (refused && tagged).then(|| Attributes { tags: Tags::None, ..attributes.clone() })
}

/// What comes of a refused request that was sent again without tags. A second refusal means that it was not they, and the
/// caller is told of the first; any other answer is what happened to the object.
pub(super) fn told<T>(refusal: Error, again: Result<T>) -> Result<T> {
    match again {
        Err(Error::AccessDenied(_) | Error::Unsupported(_)) => Err(refusal),
        done => done,
    }
}

pub(super) fn warn_untagged(key: &ObjectKey) {
    tracing::warn!(%key, "the store refused to set the tags of an object that is written anew; it has none now");
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
