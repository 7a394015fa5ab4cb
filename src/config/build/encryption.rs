//! How objects are to be encrypted: `sse`, `sse_kms_key_id`, `sse_c_key_file`, and what they contradict.

use super::Given;
use crate::config::{EncryptionPolicy, UsageError};

/// The encryption with keys that the KMS keeps, in its two kinds.
const KMS: [&str; 2] = ["aws:kms", "aws:kms:dsse"];

impl Given {
    /// What is asked of all that the mount writes.
    pub(super) fn encryption(&self) -> Result<EncryptionPolicy, UsageError> {
        let (algorithm, key, file) = (self.choice("sse"), self.text("sse_kms_key_id"), self.path("sse_c_key_file"));
        if let Some(file) = file {
            if self.given("sse") || key.is_some() {
                return Err(UsageError::new(
                    "sse_c_key_file contradicts sse and sse_kms_key_id: a key of one's own is another encryption",
                ));
            }
            return Ok(EncryptionPolicy::CustomerKey(file));
        }
        match (algorithm, key) {
            ("bucket", None) => Ok(EncryptionPolicy::Bucket),
            (algorithm, None) => Ok(EncryptionPolicy::Managed { algorithm, key: None }),
            (algorithm, key) if KMS.contains(&algorithm) => Ok(EncryptionPolicy::Managed { algorithm, key }),
            _ => Err(UsageError::new("sse_kms_key_id needs sse=aws:kms or sse=aws:kms:dsse, which encrypt with it")),
        }
    }
}
