//! What a store does that only trying shows.

use bytes::Bytes;

use super::S3Store;
use crate::error::{Error, Result};
use crate::store::{Attributes, ObjectStore, UploadBody};
use crate::types::{DirPrefix, ETag, Expect, ObjectKey};

/// The ETag of no object: an MD5 of zeros is not known to exist.
const NO_ETAG: &str = "00000000000000000000000000000000";

impl S3Store {
    /// Whether a write is refused whose condition does not hold: without that, writers can't be told of each other. AWS is not
    /// asked. Others get a PUT of an empty object under a name below `prefix` that nobody has, on condition that it replaces an
    /// ETag that nothing has; where that makes an object, it is removed.
    ///
    /// # Errors
    /// What the store says else, as to somebody who may not write.
    pub async fn heeds_conditions(&self, prefix: &DirPrefix) -> Result<bool> {
        if self.is_aws {
            return Ok(true);
        }
        let key = ObjectKey::from_store(format!("{}.pailfs-probe-{:016x}", prefix.as_str(), fastrand::u64(..)));
        let nothing = Expect::Is(ETag::parse(NO_ETAG));
        let body = UploadBody::Memory(Bytes::new());
        match self.put_object(&key, body, &Attributes::default(), &nothing).await {
            Ok(_) => self.delete(&key, None).await.map(|()| false),
            Err(Error::PreconditionFailed) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
