//! CopyObject and RenameObject.

use aws_sdk_s3::types::MetadataDirective;

use super::encryption::{told_of, with_key, with_source_key};
use super::write::{metadata, storage_class};
use super::{S3Store, conditions, encoding, seconds, written};
use crate::error::{Error, Result};
use crate::store::{Attributes, CopyAttributes, CopyRequest, errors};
use crate::types::{ETag, Expect, ObjectKey, Version};

impl S3Store {
    pub(super) async fn copy_object(&self, request: CopyRequest) -> Result<Version> {
        let (if_match, if_none_match) = conditions(&request.expect);
        let (directive, attributes) = match request.attributes {
            CopyAttributes::Keep { storage_class, encryption } => {
                (None, Attributes { storage_class, encryption, ..Attributes::default() })
            }
            CopyAttributes::Replace(attributes) => (Some(MetadataDirective::Replace), attributes),
        };
        let encryption = self.encryption(attributes.encryption.as_ref());
        let call = self
            .client
            .copy_object()
            .bucket(&self.bucket)
            .key(request.target.as_str())
            .set_request_payer(self.payer())
            .copy_source(encoding::copy_source(&self.bucket, request.source.as_str()))
            .copy_source_if_match(request.source_etag.quoted())
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_metadata_directive(directive)
            .set_metadata(metadata(&attributes.metadata))
            .set_storage_class(storage_class(&attributes))
            .set_server_side_encryption(encryption.algorithm)
            .set_ssekms_key_id(encryption.key)
            .set_bucket_key_enabled(encryption.bucket_key)
            .set_content_type(attributes.content_type)
            .set_cache_control(attributes.cache_control)
            .set_content_disposition(attributes.content_disposition)
            .set_content_encoding(attributes.content_encoding)
            .set_content_language(attributes.content_language);
        let call = with_source_key!(with_key!(call, self), self);
        let answer = call.customize().config_override(self.working()).send().await;
        let answer = answer.map_err(|error| self.of_reading(errors::read("CopyObject", error)))?;
        self.check_encryption("CopyObject", &told_of!(answer))?;
        let copied = answer.copy_object_result();
        let version = written("CopyObject", copied.and_then(|copied| copied.e_tag()), 0)?;
        match copied.and_then(|copied| copied.last_modified()) {
            Some(modified) => Ok(Version { modified: seconds(Some(modified)), ..version }),
            None => Ok(version),
        }
    }

    pub(super) async fn rename_object(
        &self,
        source: &ObjectKey,
        source_etag: &ETag,
        target: &ObjectKey,
        expect: &Expect,
    ) -> Result<()> {
        // Any other bucket takes the request for a PUT of no bytes, and so empties the target.
        if !self.is_directory_bucket() {
            return Err(Error::Unsupported("RenameObject"));
        }
        let (if_match, if_none_match) = conditions(expect);
        let call = self
            .client
            .rename_object()
            .bucket(&self.bucket)
            .key(target.as_str())
            .rename_source(encoding::rename_source(source.as_str()))
            .source_if_match(source_etag.quoted())
            .set_destination_if_match(if_match)
            .set_destination_if_none_match(if_none_match);
        call.send().await.map(drop).map_err(|error| errors::read("RenameObject", error))
    }
}
