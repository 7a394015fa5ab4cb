//! Certificates that are trusted beside the system's: those of the file that `AWS_CA_BUNDLE` names.
//!
//! The HTTP client panics at what is no certificate, so the file is looked through before.

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result};

/// What the environment asks to be trusted too; `None` for nothing.
///
/// # Errors
/// `Tls`, naming the file that can't be read or holds no certificates.
pub(super) fn of_environment() -> Result<Option<TlsContext>> {
    let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) else { return Ok(None) };
    let shown = std::path::Path::new(&path).display();
    let told = |why: String| Error::Tls(format!("the file {shown} of AWS_CA_BUNDLE {why}"));
    let pem = std::fs::read(&path).map_err(|error| told(format!("can't be read: {error}")))?;
    if !all_certificates(&pem) {
        return Err(told("holds no certificates, or broken ones".to_owned()));
    }
    let trust = TrustStore::default().with_pem_certificate(pem);
    TlsContext::builder().with_trust_store(trust).build().map(Some).map_err(|error| told(error.to_string()))
}

fn all_certificates(pem: &[u8]) -> bool {
    let mut roots = RootCertStore::empty();
    let good = CertificateDer::pem_slice_iter(pem)
        .all(|certificate| certificate.is_ok_and(|certificate| roots.add(certificate).is_ok()));
    good && !roots.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_and_does_not_panic() {
        let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        for pem in ["", "text", &block("AAAA"), &block("?"), "-----BEGIN CERTIFICATE-----\nAAAA"] {
            assert!(!all_certificates(pem.as_bytes()), "{pem}");
        }
    }
}
