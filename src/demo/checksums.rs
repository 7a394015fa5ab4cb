//! Sums over bodies: MD5 for ETags and the five checksums of S3, verified, stored and repeated in replies.
//!
//! Owns which algorithms there are, how a sum is computed while a body streams in, and how the sums of parts become
//! the sum of an object. When a sum is demanded is the business of uploads and of multipart.
//! The rules are those of the S3 User Guide, "Checking object integrity".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use hyper::HeaderMap;
use s3s::crypto::{Checksum as _, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, ChecksumAlgorithm, ChecksumType};
use s3s::{S3Result, s3_error};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A checksum algorithm of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(super) const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// The name S3 uses in XML and in `x-amz-checksum-algorithm`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => ChecksumAlgorithm::CRC32,
            Self::Crc32c => ChecksumAlgorithm::CRC32C,
            Self::Crc64Nvme => ChecksumAlgorithm::CRC64NVME,
            Self::Sha1 => ChecksumAlgorithm::SHA1,
            Self::Sha256 => ChecksumAlgorithm::SHA256,
        }
    }

    fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// Reads the name S3 uses; an unknown one is refused.
    pub(super) fn parse(name: &str) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))
    }

    /// What a multipart upload of this algorithm computes when it names no type.
    pub(super) fn default_kind(self) -> Kind {
        if self == Self::Crc64Nvme { Kind::FullObject } else { Kind::Composite }
    }

    /// Whether S3 allows this kind of sum for this algorithm.
    pub(super) fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Crc32 | Self::Crc32c => true,
            Self::Crc64Nvme => kind == Kind::FullObject,
            Self::Sha1 | Self::Sha256 => kind == Kind::Composite,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// Bytes of one sum.
    fn width(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// Whether a sum covers the object's bytes or the sums of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    FullObject,
    Composite,
}

impl Kind {
    pub(super) fn parse(kind: &ChecksumType) -> S3Result<Self> {
        match kind.as_str() {
            ChecksumType::FULL_OBJECT => Ok(Self::FullObject),
            ChecksumType::COMPOSITE => Ok(Self::Composite),
            _ => Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-type header is invalid.")),
        }
    }

    pub(super) fn dto(self) -> ChecksumType {
        ChecksumType::from_static(match self {
            Self::FullObject => ChecksumType::FULL_OBJECT,
            Self::Composite => ChecksumType::COMPOSITE,
        })
    }
}

/// Raw sums by algorithm.
pub(super) type Sums = BTreeMap<Algorithm, Vec<u8>>;

/// The one sum an object keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) algorithm: Algorithm,
    pub(super) kind: Kind,
    /// Base64, with `-N` for a composite sum of N parts.
    pub(super) text: String,
}

impl Stored {
    pub(super) fn full(algorithm: Algorithm, sum: &[u8]) -> Self {
        Self { algorithm, kind: Kind::FullObject, text: STANDARD.encode(sum) }
    }

    /// The reply fields of this sum.
    pub(super) fn dto(&self) -> Checksum {
        let mut reply = Checksum::default();
        *field_mut(&mut reply, self.algorithm) = Some(self.text.clone());
        reply.checksum_type = Some(self.kind.dto());
        reply
    }
}

fn field_mut(checksum: &mut Checksum, algorithm: Algorithm) -> &mut Option<String> {
    match algorithm {
        Algorithm::Crc32 => &mut checksum.checksum_crc32,
        Algorithm::Crc32c => &mut checksum.checksum_crc32c,
        Algorithm::Crc64Nvme => &mut checksum.checksum_crc64nvme,
        Algorithm::Sha1 => &mut checksum.checksum_sha1,
        Algorithm::Sha256 => &mut checksum.checksum_sha256,
    }
}

/// The base64 form S3 uses for a raw sum.
pub(super) fn encode(sum: &[u8]) -> String {
    STANDARD.encode(sum)
}

/// What the caller said about the sums of the body it sends: header values, or algorithms that follow in a trailer.
#[derive(Debug, Default)]
pub(super) struct Declared {
    given: Option<(Algorithm, String)>,
    trailer: Option<Algorithm>,
    md5: Option<Vec<u8>>,
}

impl Declared {
    /// Reads the request headers. Two sums at once, or an algorithm announced and never given, are refused as in S3.
    pub(super) fn read(headers: &HeaderMap) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let first = whole_sum(headers)?;
        let trailer = text("x-amz-trailer")
            .and_then(|names| Algorithm::ALL.into_iter().find(|a| names.split(',').any(|n| n.trim() == a.header())));
        if text("x-amz-sdk-checksum-algorithm").is_some() && first.is_none() && trailer.is_none() {
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
            ));
        }
        if let Some((algorithm, value)) = &first
            && STANDARD.decode(value).map(|sum| sum.len()) != Ok(algorithm.width())
        {
            return Err(s3_error!(InvalidRequest, "Value for {} header is invalid.", algorithm.header()));
        }
        let md5 = match text("content-md5") {
            None => None,
            Some(value) => {
                Some(STANDARD.decode(value).ok().filter(|sum| sum.len() == 16).ok_or(s3_error!(InvalidDigest))?)
            }
        };
        Ok(Self { given: first, trailer, md5 })
    }

    /// The algorithm the caller uses, if any.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.given.as_ref().map(|(algorithm, _)| *algorithm).or(self.trailer)
    }

    /// What has to be computed so that [`Declared::verify`] can compare, where ETags are of this kind.
    pub(super) fn needs(&self, etags: ETags) -> ETags {
        if self.md5.is_some() { ETags::Md5 } else { etags }
    }

    /// Compares what was declared with what was received; `trailers` are there once the body was read to its end.
    pub(super) fn verify(&self, sums: &Sums, md5: &[u8], trailers: Option<&HeaderMap>) -> S3Result {
        if self.md5.as_ref().is_some_and(|expected| expected != md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        let expected = match (&self.given, self.trailer) {
            (Some((algorithm, value)), _) => Some((*algorithm, value.clone())),
            (None, Some(algorithm)) => {
                let value = trailers.and_then(|t| t.get(algorithm.header())).and_then(|v| v.to_str().ok());
                let value = value.ok_or_else(|| s3_error!(MalformedXML, "The announced trailer is missing."))?;
                Some((algorithm, value.trim().to_owned()))
            }
            (None, None) => None,
        };
        match expected {
            Some((algorithm, value)) if sums.get(&algorithm).map(|sum| encode(sum)).as_deref() != Some(&value) => Err(
                s3_error!(BadDigest, "The {} you specified did not match the calculated checksum.", algorithm.name()),
            ),
            _ => Ok(()),
        }
    }
}

/// The one sum in the headers, if any.
pub(super) fn whole_sum(headers: &HeaderMap) -> S3Result<Option<(Algorithm, String)>> {
    let text = |a: Algorithm| headers.get(a.header()).and_then(|value| value.to_str().ok());
    let mut given = Algorithm::ALL.into_iter().filter_map(|a| text(a).map(|value| (a, value.to_owned())));
    let first = given.next();
    if given.next().is_some() {
        return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header"));
    }
    Ok(first)
}

/// What an ETag says of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ETags {
    /// Their MD5, as in S3 for an object that came in one piece.
    Md5,
    /// Nothing, as in S3 for objects that a KMS key encrypts: only that two versions are not the same.
    Opaque,
}

/// Computes MD5, CRC64NVME and one more sum over a body, chunk by chunk.
pub(super) struct Hasher {
    md5: Option<Md5>,
    crcs: Vec<(Algorithm, crc_fast::Digest)>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
}

impl Hasher {
    /// CRC64NVME is always among the sums: it can be combined over parts, and S3 keeps it when the caller names none.
    pub(super) fn new(wanted: &[Algorithm], etags: ETags) -> Self {
        let crcs = Algorithm::ALL
            .into_iter()
            .filter(|a| *a == Algorithm::Crc64Nvme || wanted.contains(a))
            .filter_map(|a| a.crc().map(|crc| (a, crc_fast::Digest::new(crc))))
            .collect();
        Self {
            md5: (etags == ETags::Md5).then(Md5::new),
            crcs,
            sha1: wanted.contains(&Algorithm::Sha1).then(Sha1::new),
            sha256: wanted.contains(&Algorithm::Sha256).then(Sha256::new),
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(data);
        }
        for (_, crc) in &mut self.crcs {
            crc.update(data);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(data);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
    }

    /// The MD5, or 16 bytes that no other body has, and the other sums.
    pub(super) fn finish(self) -> ([u8; 16], Sums) {
        let mut sums: Sums =
            self.crcs.into_iter().map(|(algorithm, crc)| (algorithm, crc_bytes(algorithm, crc.finalize()))).collect();
        if let Some(sha1) = self.sha1 {
            sums.insert(Algorithm::Sha1, sha1.finalize().to_vec());
        }
        if let Some(sha256) = self.sha256 {
            sums.insert(Algorithm::Sha256, sha256.finalize().to_vec());
        }
        (self.md5.map_or_else(unlike_any_other, Md5::finalize), sums)
    }
}

/// 16 bytes that are given once: a number, made to look like a sum.
fn unlike_any_other() -> [u8; 16] {
    static GIVEN: AtomicU64 = AtomicU64::new(1);
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn crc_bytes(algorithm: Algorithm, sum: u64) -> Vec<u8> {
    sum.to_be_bytes()[8 - algorithm.width()..].to_vec()
}

fn crc_value(sum: &[u8]) -> u64 {
    sum.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The sum of an object made of parts, given the length and the raw sum of each, in order.
/// None when a full-object sum is asked for in an algorithm whose sums can't be combined.
pub(super) fn of_parts(algorithm: Algorithm, kind: Kind, parts: &[(u64, &[u8])]) -> Option<Stored> {
    match kind {
        Kind::Composite => {
            let mut hasher = Hasher::new(&[algorithm], ETags::Opaque);
            parts.iter().for_each(|(_, sum)| hasher.update(sum));
            let (_, sums) = hasher.finish();
            let text = format!("{}-{}", encode(sums.get(&algorithm)?), parts.len());
            Some(Stored { algorithm, kind, text })
        }
        Kind::FullObject => {
            let crc = algorithm.crc()?;
            let mut parts = parts.iter();
            let first = parts.next().map_or(0, |(_, sum)| crc_value(sum));
            let sum = parts.fold(first, |sum, (len, next)| crc_fast::checksum_combine(crc, sum, crc_value(next), *len));
            Some(Stored::full(algorithm, &crc_bytes(algorithm, sum)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums_of(data: &[u8], algorithm: Algorithm) -> Vec<u8> {
        let mut hasher = Hasher::new(&[algorithm], ETags::Opaque);
        hasher.update(data);
        hasher.finish().1.remove(&algorithm).unwrap_or_default()
    }

    #[test]
    fn crc64nvme_of_the_check_string_is_the_published_value() {
        assert_eq!(sums_of(b"123456789", Algorithm::Crc64Nvme), 0xae8b_1486_0a79_9888_u64.to_be_bytes());
    }

    #[test]
    fn crc32_and_crc32c_of_the_check_string_are_the_published_values() {
        assert_eq!(sums_of(b"123456789", Algorithm::Crc32), 0xcbf4_3926_u32.to_be_bytes());
        assert_eq!(sums_of(b"123456789", Algorithm::Crc32c), 0xe306_9283_u32.to_be_bytes());
    }

    #[test]
    fn a_full_object_sum_of_parts_is_the_sum_of_the_joined_bytes() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let (a, b, c) = (&b"first part "[..], &b"second"[..], &b" and the third"[..]);
            let sums = [a, b, c].map(|part| (part.len() as u64, sums_of(part, algorithm)));
            let parts: Vec<_> = sums.iter().map(|(len, sum)| (*len, sum.as_slice())).collect();
            let joined = sums_of(&[a, b, c].concat(), algorithm);
            assert_eq!(of_parts(algorithm, Kind::FullObject, &parts), Some(Stored::full(algorithm, &joined)));
        }
    }
}
