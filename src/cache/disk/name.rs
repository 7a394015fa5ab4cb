//! What an entry is called, and what its record must begin with.

use sha2::{Digest, Sha256};

use super::BLOCK;
use crate::types::{ObjectKey, Version};

/// First bytes of every record. The number is that of the format: another one is dropped like a damaged record.
const MAGIC: &[u8; 8] = b"pailfs\0\x01";

/// Name of an entry: 64 hexadecimal digits, the SHA-256 of what it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EntryName(String);

impl EntryName {
    /// The name in a file's, which must have one of the two endings; `None` for a file that is not of a cache.
    pub fn of_file(file: &str) -> Option<(Self, bool)> {
        let (hex, ending) = file.split_once('.')?;
        let is_name = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let is_record = match ending {
            "record" => true,
            "data" => false,
            _ => return None,
        };
        is_name.then(|| (EntryName(hex.to_owned()), is_record))
    }

    /// Which of the 256 folders it is in.
    pub fn shard(&self) -> u8 {
        self.0.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or_default()
    }

    /// The name of the file of the bytes.
    pub fn data(&self) -> String {
        format!("{}.data", self.0)
    }

    /// The name of the file of the checksums.
    pub fn record(&self) -> String {
        format!("{}.record", self.0)
    }
}

/// Name of a version's entry, and the bytes that its record begins with: they name the version in full, so that nothing of
/// another one is taken for it.
pub(super) fn identify(source: &str, key: &ObjectKey, version: &Version) -> (EntryName, Vec<u8>) {
    let mut header = MAGIC.to_vec();
    header.extend(BLOCK.to_le_bytes());
    header.extend(version.size.to_le_bytes());
    for text in [source, key.as_str(), version.etag.as_str()] {
        header.extend((text.len() as u64).to_le_bytes());
        header.extend(text.as_bytes());
    }
    let digest = Sha256::digest(&header);
    let name = digest.iter().fold(String::with_capacity(64), |name, byte| name + &format!("{byte:02x}"));
    header.extend(crc_fast::crc64_nvme(&header).to_le_bytes());
    header.resize(header.len().next_multiple_of(8), 0);
    (EntryName(name), header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ETag;

    fn name(source: &str, key: &str, etag: &str, size: u64) -> EntryName {
        let version = Version { etag: ETag::parse(etag), size, modified: std::time::UNIX_EPOCH };
        identify(source, &ObjectKey::from_store(key), &version).0
    }

    #[test]
    fn each_of_source_key_etag_and_size_makes_another_name() {
        let names = [
            name("a", "k", "e", 1),
            name("b", "k", "e", 1),
            name("a", "ke", "", 1),
            name("a", "k", "f", 1),
            name("a", "k", "e", 2),
        ];
        for (index, one) in names.iter().enumerate() {
            assert!(names[..index].iter().all(|other| other != one), "{one:?} stands twice");
        }
        assert_eq!(names[0], name("a", "k", "\"e\"", 1));
    }

    #[test]
    fn a_name_is_read_back_from_its_files_alone() {
        let one = name("a", "k", "e", 1);
        assert_eq!(EntryName::of_file(&one.data()), Some((one.clone(), false)));
        assert_eq!(EntryName::of_file(&one.record()), Some((one.clone(), true)));
        for foreign in ["usage", "x.data", &format!("{}.txt", "a".repeat(64)), &format!("{}.data", "A".repeat(64))] {
            assert_eq!(EntryName::of_file(foreign), None, "{foreign}");
        }
    }
}
