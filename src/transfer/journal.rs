//! Attributes of objects as the journal of the stage keeps them: the stage knows nothing of S3's.

use crate::stage::RecordAttributes;
use crate::store::Attributes;

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
        } = attributes.clone();
        RecordAttributes {
            metadata,
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            storage_class,
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
        } = attributes.clone();
        Attributes {
            metadata,
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            storage_class,
        }
    }
}
