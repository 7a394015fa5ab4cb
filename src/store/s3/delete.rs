//! DeleteObject and DeleteObjects.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::S3Store;
use crate::error::{Error, Result};
use crate::store::errors;
use crate::types::{ETag, ObjectKey};

impl S3Store {
    pub(super) async fn delete_object(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        let request = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(key.as_str())
            .set_request_payer(self.payer())
            .set_if_match(if_match.map(ETag::quoted));
        match request.send().await.map_err(|error| errors::read("DeleteObject", error)) {
            // Gone is what was asked for, unless it had to be one version of it.
            Ok(_) => Ok(()),
            Err(Error::NotFound) if if_match.is_none() => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn delete_objects(&self, keys: &[ObjectKey]) -> Result<Vec<(ObjectKey, Error)>> {
        let (together, apart): (Vec<&ObjectKey>, Vec<&ObjectKey>) = keys.iter().partition(|key| fits_xml(key.as_str()));
        let mut failed = Vec::new();
        for key in apart {
            if let Err(error) = self.delete_object(key, None).await {
                failed.push((key.clone(), error));
            }
        }
        if together.is_empty() {
            return Ok(failed);
        }
        let built: std::result::Result<Vec<_>, _> =
            together.iter().map(|key| ObjectIdentifier::builder().key(key.as_str()).build()).collect();
        let delete = built.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let delete = delete.map_err(|_| Error::Internal("DeleteObjects could not be built"))?;
        let request = self.client.delete_objects().bucket(&self.bucket).set_request_payer(self.payer()).delete(delete);
        let answer = request.send().await.map_err(|error| errors::read("DeleteObjects", error))?;
        for refusal in answer.errors() {
            let error = errors::read_code(
                "DeleteObjects",
                refusal.code().unwrap_or_default(),
                refusal.message().unwrap_or_default(),
            );
            match refusal.key() {
                _ if matches!(error, Error::NotFound) => {}
                Some(key) => failed.push((ObjectKey::from_store(key), error)),
                None => return Err(error),
            }
        }
        Ok(failed)
    }
}

/// XML 1.0 has no way to write most control characters, so such keys can't stand in a DeleteObjects request.
fn fits_xml(key: &str) -> bool {
    key.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_fit_xml() {
        assert!(fits_xml("a b+c%/é日\t🦀"));
        assert!(!fits_xml("bell\u{7}"));
        assert!(!fits_xml("\u{ffff}"));
    }
}
