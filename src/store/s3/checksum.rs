//! Checksums of what is sent, by algorithm.
//!
//! Owns how bytes are summed, how a sum is written, and how the sums of parts become that of the object. Which requests
//! carry a sum is decided in the parent. Of whole objects made of parts S3 knows CRCs alone, since they can be combined;
//! a SHA-256 is then one of the parts' sums (S3 User Guide, "Checking object integrity for data uploads").

use aws_sdk_s3::types::{ChecksumAlgorithm as Name, ChecksumType};
use aws_smithy_types::base64;
use crc_fast::CrcAlgorithm;
use sha2::{Digest as _, Sha256};

use crate::config::ChecksumAlgorithm;
use crate::error::{Error, Result};
use crate::store::UploadedPart;

const CRC64: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;
const CRC32C: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// A sum as headers carry it: base64 of the big-endian bytes, and `-N` behind one of the sums of N parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// As it is sent.
    pub text: String,
}

impl Sum {
    /// The sum of these bytes.
    pub fn of(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Self {
        let mut digest = Digest::new(algorithm);
        digest.update(bytes);
        digest.finish()
    }

    fn new(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Self {
        Sum { algorithm, text: base64::encode(bytes) }
    }

    pub(super) fn crc64nvme(crc: u64) -> Self {
        Sum::new(ChecksumAlgorithm::Crc64Nvme, &crc.to_be_bytes())
    }

    fn crc32c(crc: u64) -> Self {
        // The upper half of what the library gives is empty.
        Sum::new(ChecksumAlgorithm::Crc32c, &(crc as u32).to_be_bytes())
    }

    /// The sum of the object that `parts` become, of which a CRC-64/NVME is known already or not at all. `None` as well when
    /// the sum of a part is no such sum.
    pub(super) fn of_parts(
        algorithm: ChecksumAlgorithm,
        parts: &[UploadedPart],
        crc64nvme: Option<u64>,
    ) -> Option<Self> {
        let sums = || parts.iter().map(|part| Some((part.size, base64::decode(part.checksum.as_deref()?).ok()?)));
        match algorithm {
            ChecksumAlgorithm::Crc64Nvme => crc64nvme.map(Sum::crc64nvme),
            ChecksumAlgorithm::Crc32c => {
                let mut sums = sums();
                // The sum of no bytes is 0.
                let combined = sums.try_fold(0, |crc, part| {
                    let (size, sum) = part?;
                    let next = u64::from(u32::from_be_bytes(sum.try_into().ok()?));
                    Some(crc_fast::checksum_combine(CRC32C, crc, next, size))
                });
                combined.map(Sum::crc32c)
            }
            ChecksumAlgorithm::Sha256 => {
                let joined: Option<Vec<_>> = sums().map(|part| part.map(|(_, sum)| sum)).collect();
                let Sum { text, .. } = Sum::of(algorithm, &joined?.concat());
                Some(Sum { algorithm, text: format!("{text}-{}", parts.len()) })
            }
        }
    }

    /// It can be one: some stores tell other things in its place.
    pub(super) fn is_well_formed(&self) -> bool {
        let len = match self.algorithm {
            ChecksumAlgorithm::Crc64Nvme => 8,
            ChecksumAlgorithm::Crc32c => 4,
            ChecksumAlgorithm::Sha256 => 32,
        };
        base64::decode(&self.text).is_ok_and(|sum| sum.len() == len)
    }

    fn is_of_parts(&self) -> bool {
        // No letter of base64.
        self.text.contains('-')
    }

    /// In a request: S3 compares sums of parts with the parts themselves.
    pub(super) fn of_all_bytes(&self) -> Option<&Self> {
        Some(self).filter(|sum| !sum.is_of_parts())
    }
}

/// Compares the sum of what was sent with the one that `call` was answered with, where there are both. A sum of parts and
/// one of all bytes tell nothing of each other.
pub(super) fn compare(call: &str, sent: Option<&Sum>, told: Option<&Sum>) -> Result<()> {
    match (sent, told) {
        (Some(sent), Some(told)) if sent.is_of_parts() == told.is_of_parts() && sent != told => {
            let (sent, told) = (&sent.text, &told.text);
            Err(Error::Corrupt(format!("{call} was sent bytes of the checksum {sent}, and the store has {told}")))
        }
        _ => Ok(()),
    }
}

/// A CRC-64/NVME out of a header; `None` for one that is not of a whole object (`…-3`).
pub(super) fn decode_crc64nvme(text: &str) -> Option<u64> {
    Some(u64::from_be_bytes(base64::decode(text).ok()?.try_into().ok()?))
}

/// What CreateMultipartUpload says of the algorithm: its name and the kind of sum.
pub(super) fn names(algorithm: ChecksumAlgorithm) -> (Name, ChecksumType) {
    match algorithm {
        ChecksumAlgorithm::Crc64Nvme => (Name::Crc64Nvme, ChecksumType::FullObject),
        ChecksumAlgorithm::Crc32c => (Name::Crc32C, ChecksumType::FullObject),
        ChecksumAlgorithm::Sha256 => (Name::Sha256, ChecksumType::Composite),
    }
}

/// A sum that is being computed.
pub struct Digest(State);

enum State {
    Crc64(crc_fast::Digest),
    Crc32c(crc_fast::Digest),
    Sha256(Sha256),
}

impl Digest {
    /// Of no bytes yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Digest(match algorithm {
            ChecksumAlgorithm::Crc64Nvme => State::Crc64(crc_fast::Digest::new(CRC64)),
            ChecksumAlgorithm::Crc32c => State::Crc32c(crc_fast::Digest::new(CRC32C)),
            ChecksumAlgorithm::Sha256 => State::Sha256(Sha256::new()),
        })
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc64(crc) | State::Crc32c(crc) => crc.update(bytes),
            State::Sha256(sha) => sha.update(bytes),
        }
    }

    /// The sum of all of them.
    pub fn finish(self) -> Sum {
        match self.0 {
            State::Crc64(crc) => Sum::crc64nvme(crc.finalize()),
            State::Crc32c(crc) => Sum::crc32c(crc.finalize()),
            State::Sha256(sha) => Sum::new(ChecksumAlgorithm::Sha256, &sha.finalize()),
        }
    }
}

/// Puts a sum into the field of its algorithm. The requests of the SDK share no trait.
macro_rules! with_sum {
    ($request:expr, $sum:expr) => {{
        let sum: Option<&$crate::store::s3::checksum::Sum> = $sum;
        let text = |algorithm| sum.filter(|sum| sum.algorithm == algorithm).map(|sum| sum.text.clone());
        $request
            .set_checksum_crc64_nvme(text($crate::config::ChecksumAlgorithm::Crc64Nvme))
            .set_checksum_crc32_c(text($crate::config::ChecksumAlgorithm::Crc32c))
            .set_checksum_sha256(text($crate::config::ChecksumAlgorithm::Sha256))
    }};
}
pub(super) use with_sum;

/// The sum in an answer's field of the algorithm, if there is one. Nor do the answers.
macro_rules! told_sum {
    ($answer:expr, $algorithm:expr) => {{
        let algorithm: Option<$crate::config::ChecksumAlgorithm> = $algorithm;
        algorithm.and_then(|algorithm| {
            let text = match algorithm {
                $crate::config::ChecksumAlgorithm::Crc64Nvme => $answer.checksum_crc64_nvme(),
                $crate::config::ChecksumAlgorithm::Crc32c => $answer.checksum_crc32_c(),
                $crate::config::ChecksumAlgorithm::Sha256 => $answer.checksum_sha256(),
            };
            text.map(|text| $crate::store::s3::checksum::Sum { algorithm, text: text.to_owned() })
        })
    }};
}
pub(super) use told_sum;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, PartNumber};

    const ALL: [ChecksumAlgorithm; 3] =
        [ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Sha256];

    /// Sums of `123456789`, from the catalogue of CRC algorithms and from sha256sum(1).
    #[test]
    fn the_check_string_has_its_published_sums() {
        let sums = ALL.map(|algorithm| base64::decode(Sum::of(algorithm, b"123456789").text).unwrap());
        assert_eq!(sums[0], 0xae8b_1486_0a79_9888_u64.to_be_bytes());
        assert_eq!(sums[1], 0xe306_9283_u32.to_be_bytes());
        assert_eq!(sums[2][..4], [0x15, 0xe2, 0xb0, 0xd3]);
        assert_eq!(sums[2].len(), 32);
    }

    #[test]
    fn what_can_not_be_a_sum_is_known_as_such() {
        for algorithm in ALL {
            let sum = Sum::of(algorithm, b"123456789");
            assert!(sum.is_well_formed());
            // versitygw tells another kind of sum of a copied part than the upload's.
            for text in ["", "?", "AAAA", &sum.text[4..], &format!("{}-2", sum.text)] {
                assert!(!Sum { algorithm, text: text.to_owned() }.is_well_formed(), "{text}");
            }
        }
    }

    #[test]
    fn a_crc64nvme_survives_its_header() {
        let crc = crc_fast::checksum(CRC64, b"123456789");
        assert_eq!(decode_crc64nvme(&Sum::crc64nvme(crc).text), Some(crc));
        assert_eq!(decode_crc64nvme("rosUhgp5mIg=-3"), None);
    }

    fn parts(algorithm: ChecksumAlgorithm, pieces: &[&[u8]]) -> Vec<UploadedPart> {
        let part = |(index, bytes): (u64, &&[u8])| UploadedPart {
            number: PartNumber::from_index(index).unwrap(),
            etag: ETag::parse("x"),
            size: bytes.len() as u64,
            checksum: Some(Sum::of(algorithm, bytes).text),
        };
        (0..).zip(pieces).map(part).collect()
    }

    #[test]
    fn a_crc_of_parts_is_that_of_their_bytes_and_a_sha256_that_of_their_sums() {
        let pieces: [&[u8]; 3] = [b"first part ", b"second", b" and the third"];
        let crcs = parts(ChecksumAlgorithm::Crc32c, &pieces);
        let joined = Sum::of(ChecksumAlgorithm::Crc32c, &pieces.concat());
        assert_eq!(Sum::of_parts(ChecksumAlgorithm::Crc32c, &crcs, None), Some(joined));
        let shas = parts(ChecksumAlgorithm::Sha256, &pieces);
        let whole = Sum::of_parts(ChecksumAlgorithm::Sha256, &shas, None).unwrap();
        let sums = pieces.map(Sha256::digest).concat();
        assert_eq!(whole.text, format!("{}-3", base64::encode(Sha256::digest(sums))));
        assert_eq!(whole.of_all_bytes(), None);
        let unsummed = [UploadedPart { checksum: None, ..crcs[0].clone() }, crcs[1].clone()];
        assert_eq!(Sum::of_parts(ChecksumAlgorithm::Crc32c, &unsummed, None), None);
        assert_eq!(Sum::of_parts(ChecksumAlgorithm::Sha256, &unsummed, None), None);
    }

    #[test]
    fn sums_of_one_kind_are_compared() {
        for algorithm in ALL {
            let (sent, other) = (Sum::of(algorithm, b"a"), Sum::of(algorithm, b"b"));
            assert!(compare("PutObject", Some(&sent), Some(&sent.clone())).is_ok());
            assert!(matches!(compare("PutObject", Some(&sent), Some(&other)), Err(Error::Corrupt(_))));
            assert!(compare("PutObject", Some(&sent), None).is_ok());
            assert!(compare("PutObject", None, Some(&other)).is_ok());
            let of_parts = Sum { text: format!("{}-2", other.text), ..other };
            assert!(compare("PutObject", Some(&sent), Some(&of_parts)).is_ok());
        }
    }
}
