//! Encryption as far as callers can see it: what they ask for is kept and told, and nothing is encrypted.
//!
//! Owns the rules of keys that are the caller's own (S3 User Guide, "Using server-side encryption with customer-provided keys"):
//! they come with each request, and whoever has not the key of an object gets nothing of it.

use super::checksums::ETags;
use super::objects::custom;
use super::state::Encryption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use s3s::crypto::{Checksum as _, Md5};
use s3s::{S3Result, s3_error};

/// The three headers of a customer's key: algorithm, key, MD5 of the key, both in base64.
pub(super) type KeyHeaders<'a> = (Option<&'a String>, Option<&'a String>, Option<&'a String>);

impl Encryption {
    /// For the direct access.
    pub(super) fn told(&self) -> Option<(String, Option<String>)> {
        let customer = self.customer_md5.as_ref().map(|md5| ("customer".to_owned(), Some(md5.clone())));
        customer.or_else(|| Some((self.algorithm.as_ref()?.as_str().to_owned(), self.key.clone())))
    }

    /// How ETags of what is encrypted so are made.
    pub(super) fn etags(&self, usual: ETags) -> ETags {
        if self.customer_md5.is_some() { ETags::Opaque } else { usual }
    }

    /// Refuses a caller who has not the key, or brings one where none is needed.
    pub(super) fn check_key(&self, given: KeyHeaders<'_>) -> S3Result {
        match (&self.customer_md5, customer_md5(given)?) {
            (None, None) => Ok(()),
            (Some(own), Some(given)) if *own == given => Ok(()),
            (Some(_), Some(_)) => Err(s3_error!(AccessDenied, "Access Denied")),
            (Some(_), None) => Err(s3_error!(
                InvalidRequest,
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided \
                 to retrieve the object."
            )),
            (None, Some(_)) => {
                Err(s3_error!(InvalidRequest, "The encryption parameters are not applicable to this object."))
            }
        }
    }
}

/// The MD5 of the key in a request, once that is known to be whole.
pub(super) fn customer_md5((algorithm, key, md5): KeyHeaders<'_>) -> S3Result<Option<String>> {
    let (algorithm, key, md5) = match (algorithm, key, md5) {
        (None, None, None) => return Ok(None),
        (Some(algorithm), Some(key), Some(md5)) => (algorithm, key, md5),
        _ => {
            let text = "Requests specifying Server Side Encryption with Customer provided keys must provide an \
                        appropriate secret key.";
            return Err(s3_error!(InvalidArgument, "{text}"));
        }
    };
    if algorithm != "AES256" {
        let text = "The requested encryption algorithm is not valid, must be AES256.";
        return Err(custom("InvalidEncryptionAlgorithmError", StatusCode::BAD_REQUEST, text));
    }
    let key = STANDARD.decode(key).ok().filter(|key| key.len() == 32);
    let key =
        key.ok_or_else(|| s3_error!(InvalidArgument, "The secret key was invalid for the specified algorithm."))?;
    if STANDARD.encode(Md5::checksum(&key)) != *md5 {
        return Err(s3_error!(InvalidArgument, "The calculated MD5 hash of the key did not match the hash given."));
    }
    Ok(Some(md5.clone()))
}

/// The key headers of an input, whatever operation it belongs to.
macro_rules! key_of {
    ($input:expr) => {
        ($input.sse_customer_algorithm.as_ref(), $input.sse_customer_key.as_ref(), $input.sse_customer_key_md5.as_ref())
    };
}
pub(super) use key_of;

/// Those of the source of a copy.
macro_rules! source_key_of {
    ($input:expr) => {
        (
            $input.copy_source_sse_customer_algorithm.as_ref(),
            $input.copy_source_sse_customer_key.as_ref(),
            $input.copy_source_sse_customer_key_md5.as_ref(),
        )
    };
}
pub(super) use source_key_of;

/// Reads the encryption out of an input, whatever operation it belongs to.
macro_rules! encryption_of {
    ($input:expr) => {
        $crate::demo::state::Encryption {
            customer_md5: $crate::demo::encryption::customer_md5($crate::demo::encryption::key_of!($input))?,
            algorithm: $input.server_side_encryption.take(),
            key: $input.ssekms_key_id.take(),
            bucket_key: $input.bucket_key_enabled.take(),
        }
    };
}
pub(super) use encryption_of;

/// Tells the encryption in a reply to a write.
macro_rules! tell_encryption {
    ($output:expr, $encryption:expr) => {{
        let encryption: &$crate::demo::state::Encryption = $encryption;
        $output.server_side_encryption = encryption.algorithm.clone();
        $output.ssekms_key_id = encryption.key.clone();
        $output.bucket_key_enabled = encryption.bucket_key;
        $output.sse_customer_algorithm = encryption.customer_md5.as_ref().map(|_| "AES256".to_owned());
        $output.sse_customer_key_md5 = encryption.customer_md5.clone();
    }};
}
pub(super) use tell_encryption;
