//! Which bodies are covered by the signature of their request.
//!
//! Owns that rule. A signature over a body needs the SHA-256 of all of it, here and again in the store: far more work than the CRC
//! that goes along anyway. As the AWS CLI does (`payload_signing_enabled`), a body that has a checksum and a protected way goes
//! without: its integrity is the checksum's, its authenticity that of the connection. The checksum's header is signed in any case.

use std::net::IpAddr;

/// When bodies are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodySigning {
    /// All of them.
    Always,
    /// Those without a checksum.
    Unsummed,
    /// None.
    Never,
}

impl BodySigning {
    /// By what was asked for, and by the address of another store than AWS: AWS itself is reached by https.
    pub fn of(asked: Option<bool>, endpoint: Option<&str>) -> Self {
        match asked {
            Some(true) => BodySigning::Always,
            Some(false) => BodySigning::Never,
            None if endpoint.is_none_or(is_protected) => BodySigning::Unsummed,
            None => BodySigning::Always,
        }
    }

    /// Whether a body is left out of the signature.
    pub fn leaves_out(self, has_sum: bool) -> bool {
        match self {
            BodySigning::Always => false,
            BodySigning::Unsummed => has_sum,
            BodySigning::Never => true,
        }
    }
}

/// Nobody on the way can put other bytes in: https, or a way that never leaves this machine.
pub(super) fn is_protected(endpoint: &str) -> bool {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let local = || host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    scheme.eq_ignore_ascii_case("https") || (scheme.eq_ignore_ascii_case("http") && local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_others_can_get_at_needs_signed_bodies() {
        for protected in [
            "https://s3.example.com",
            "HTTPS://a:9000/x",
            "http://127.0.0.1:9000",
            "http://[::1]:80/",
            "http://LocalHost",
        ] {
            assert_eq!(BodySigning::of(None, Some(protected)), BodySigning::Unsummed, "{protected}");
        }
        for open in [
            "http://s3.example.com",
            "http://10.0.0.1:9000",
            "http://127.0.0.1.example.com",
            "http://localhost.example",
            "",
            "x",
        ] {
            assert_eq!(BodySigning::of(None, Some(open)), BodySigning::Always, "{open}");
        }
        assert_eq!(BodySigning::of(None, None), BodySigning::Unsummed);
    }

    #[test]
    fn what_is_asked_for_is_done() {
        let kinds = [Some(true), None, Some(false)].map(|asked| BodySigning::of(asked, None));
        assert_eq!(kinds.map(|kind| kind.leaves_out(true)), [false, true, true]);
        assert_eq!(kinds.map(|kind| kind.leaves_out(false)), [false, false, true]);
    }
}
