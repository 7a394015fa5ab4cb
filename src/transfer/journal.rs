//! Attributes and uploads of objects as the journal of the stage keeps them: the stage knows nothing of S3's.

use crate::stage::{NotedUpload, RecordAttributes, RecordEncryption};
use crate::store::{Attributes, Encryption, Tags};
use crate::types::{ObjectKey, UploadId};

/// An upload whose parts are bytes of the file, and which another run may go on with.
pub(super) fn noted(id: &UploadId, key: &ObjectKey, attributes: &Attributes) -> NotedUpload {
    NotedUpload { id: id.clone(), mark: RecordAttributes::from(attributes).mark(key) }
}

impl From<&Attributes> for RecordAttributes {
    fn from(attributes: &Attributes) -> Self {
        let Attributes {
            metadata,
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            storage_class,
            encryption,
            tags,
        } = attributes.clone();
        RecordAttributes {
            metadata,
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            storage_class,
            encryption: encryption.map(|encryption| RecordEncryption {
                algorithm: encryption.algorithm,
                key: encryption.key,
                bucket_key: encryption.bucket_key,
            }),
            tags: tags.known().to_vec(),
        }
    }
}

impl From<&RecordAttributes> for Attributes {
    fn from(attributes: &RecordAttributes) -> Self {
        let RecordAttributes {
            metadata,
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            storage_class,
            encryption,
            tags,
        } = attributes.clone();
        Attributes {
            metadata,
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            storage_class,
            encryption: encryption.map(|encryption| Encryption {
                algorithm: encryption.algorithm,
                key: encryption.key,
                bucket_key: encryption.bucket_key,
            }),
            tags: Tags::of(tags),
        }
    }
}
