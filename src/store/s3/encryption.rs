//! The encryption that requests ask for, and whether the store did what it was asked.
//!
//! Owns the headers of both kinds of encryption, and the judgement of answers: an object that is encrypted otherwise than asked
//! for is no success, whatever the status says.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::types::ServerSideEncryption;

use super::S3Store;
use crate::error::{Error, Result};
use crate::store::{CustomerKey, Encryption, Requested};

/// The one algorithm of encryption with a customer's key.
pub(super) const CUSTOMER_ALGORITHM: &str = "AES256";

/// What a store asks for in all its requests.
#[derive(Debug, Default)]
pub(in crate::store) struct Sealing {
    pub(in crate::store) requested: Option<Requested>,
    pub(in crate::store) customer_key: Option<CustomerKey>,
    /// It was said that the store encrypts otherwise: once is enough.
    told: AtomicBool,
}

impl Sealing {
    /// These, of which one at most is given.
    pub(in crate::store) fn new(requested: Option<Requested>, customer_key: Option<CustomerKey>) -> Self {
        Sealing { requested, customer_key, told: AtomicBool::new(false) }
    }

    /// Whether what stands in the store is what is asked for; always, where nothing is.
    pub(in crate::store) fn holds(&self, told: Option<&Encryption>) -> bool {
        self.requested.as_ref().is_none_or(|requested| told.is_some_and(|told| requested.is_met_by(told)))
    }
}

/// The headers that name an encryption.
#[derive(Default)]
pub(super) struct EncryptionHeaders {
    pub(super) algorithm: Option<ServerSideEncryption>,
    pub(super) key: Option<String>,
    pub(super) bucket_key: Option<bool>,
}

/// What an answer says of the encryption.
pub(super) struct Told<'a> {
    pub(super) algorithm: Option<&'a ServerSideEncryption>,
    pub(super) key: Option<&'a str>,
    /// MD5 of the customer's key; `None` also where answers of this kind do not tell.
    pub(super) customer_md5: Option<&'a str>,
}

impl S3Store {
    /// What `kept` says if that is as asked, else what is asked for. A directory bucket has one encryption, which its session
    /// names: a request must not.
    pub(super) fn encryption(&self, kept: Option<&Encryption>) -> EncryptionHeaders {
        if self.is_directory_bucket() || self.sealing.customer_key.is_some() {
            return EncryptionHeaders::default();
        }
        match (kept, &self.sealing.requested) {
            (Some(kept), requested) if requested.as_ref().is_none_or(|requested| requested.is_met_by(kept)) => {
                let algorithm = ServerSideEncryption::from(kept.algorithm.as_str());
                // The other kinds know no bucket keys, and S3 refuses the word.
                let bucket_key = (algorithm == ServerSideEncryption::AwsKms).then_some(kept.bucket_key);
                EncryptionHeaders { algorithm: Some(algorithm), key: kept.key.clone(), bucket_key }
            }
            (_, Some(requested)) => EncryptionHeaders {
                algorithm: Some(ServerSideEncryption::from(requested.algorithm.as_str())),
                key: requested.key.clone(),
                bucket_key: None,
            },
            (_, None) => EncryptionHeaders::default(),
        }
    }

    /// Compares what the store says that it did with what it was asked.
    pub(super) fn check_encryption(&self, call: &str, told: &Told<'_>) -> Result<()> {
        let (asked, got) = match (&self.sealing.requested, &self.sealing.customer_key) {
            (None, None) => return Ok(()),
            (_, Some(key)) if told.customer_md5 == Some(key.md5()) => return Ok(()),
            (_, Some(_)) => ("with the key of sse_c_key_file".to_owned(), "otherwise".to_owned()),
            (Some(requested), None) => {
                let told = told.algorithm.map(|algorithm| Encryption {
                    algorithm: algorithm.as_str().to_owned(),
                    key: told.key.map(str::to_owned),
                    bucket_key: false,
                });
                if told.as_ref().is_some_and(|told| requested.is_met_by(told)) {
                    return Ok(());
                }
                (requested.to_string(), told.map_or_else(|| "none".to_owned(), |told| told.to_string()))
            }
        };
        if !self.sealing.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "this store does not encrypt as it is asked: {asked} was asked for, and {call} told of {got}"
            );
        }
        Err(Error::Encryption(format!("{asked} was asked for, and {call} told of {got}")))
    }

    /// The same for what CompleteMultipartUpload told. It tells of no customer's key, and some stores tell nothing: then the word
    /// of the answer that began the upload stands.
    pub(super) fn check_completed(&self, algorithm: Option<&ServerSideEncryption>, key: Option<&str>) -> Result<()> {
        if algorithm.is_none() || self.sealing.requested.is_none() {
            return Ok(());
        }
        self.check_encryption("CompleteMultipartUpload", &Told { algorithm, key, customer_md5: None })
    }

    /// A refusal to read what may have another key. HEAD has no body that would tell why.
    pub(super) fn of_reading(&self, error: Error) -> Error {
        match error {
            error if self.sealing.customer_key.is_none() => error,
            Error::Server { status: 400, .. } => {
                Error::CustomerKey("the object is not encrypted with the key of sse_c_key_file".to_owned())
            }
            Error::AccessDenied(text) => {
                Error::AccessDenied(format!("{text}; or its key is another than that of sse_c_key_file"))
            }
            error => error,
        }
    }
}

/// Adds the customer's key, where there is one, to a request.
macro_rules! with_key {
    ($request:expr, $store:expr) => {{
        let key = $store.sealing.customer_key.as_ref();
        $request
            .set_sse_customer_algorithm(key.map(|_| $crate::store::s3::encryption::CUSTOMER_ALGORITHM.to_owned()))
            .set_sse_customer_key(key.map(|key| key.base64().to_owned()))
            .set_sse_customer_key_md5(key.map(|key| key.md5().to_owned()))
    }};
}
pub(super) use with_key;

/// Adds the key of what is copied from: that of this store too.
macro_rules! with_source_key {
    ($request:expr, $store:expr) => {{
        let key = $store.sealing.customer_key.as_ref();
        $request
            .set_copy_source_sse_customer_algorithm(
                key.map(|_| $crate::store::s3::encryption::CUSTOMER_ALGORITHM.to_owned()),
            )
            .set_copy_source_sse_customer_key(key.map(|key| key.base64().to_owned()))
            .set_copy_source_sse_customer_key_md5(key.map(|key| key.md5().to_owned()))
    }};
}
pub(super) use with_source_key;

/// What an answer that knows both kinds says.
macro_rules! told_of {
    ($answer:expr) => {
        $crate::store::s3::encryption::Told {
            algorithm: $answer.server_side_encryption(),
            key: $answer.ssekms_key_id(),
            customer_md5: $answer.sse_customer_key_md5(),
        }
    };
}
pub(super) use told_of;
