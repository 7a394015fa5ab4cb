//! The tags that an object keeps when it is written anew: S3 takes them with the first request, and tells them in one of their own.

use crate::error::{Error, Result};
use crate::store::{Attributes, ObjectStore, Tags};
use crate::types::ObjectKey;

/// The attributes, with the tags that stand under `key` now if there were any: others may have changed them, and the object's
/// version does not say so. Tags that can't be read are lost rather than the bytes.
pub(super) async fn with_tags(store: &dyn ObjectStore, key: &ObjectKey, attributes: Attributes) -> Result<Attributes> {
    if attributes.tags == Tags::None {
        return Ok(attributes);
    }
    let tags = match store.tags(key).await {
        Ok(tags) => Tags::of(tags),
        Err(Error::NotFound) => Tags::of(attributes.tags.known().to_vec()),
        Err(error @ (Error::AccessDenied(_) | Error::Unsupported(_) | Error::Server { .. })) => {
            tracing::warn!(%key, %error, "the tags of an object that is written anew can't be read; it will have none");
            Tags::None
        }
        Err(error) => return Err(error),
    };
    Ok(Attributes { tags, ..attributes })
}
