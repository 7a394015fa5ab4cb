//! Encryption with a key of the caller's own (SSE-C), which goes with each request and which the store forgets.
//!
//! Owns how the key is read from its file, and how it is written in headers. It never leaves through Debug, errors or the log.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use md5::{Digest, Md5};

use super::base64::{from_base64, to_base64};
use crate::error::{Error, Result};

/// Bytes of a key: AES-256 is the only algorithm that S3 has for it.
const KEY_LEN: usize = 32;

/// Longest file worth reading: a key in base64 is 44 characters, and a line end may follow.
const LONGEST: u64 = 256;

/// A key as requests carry it. Debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct CustomerKey {
    base64: String,
    md5: String,
}

impl std::fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CustomerKey").finish_non_exhaustive()
    }
}

impl CustomerKey {
    /// Reads a key out of a file that is of no use to other users: 32 bytes, or base64 of them.
    ///
    /// # Errors
    /// `CustomerKey` with the reason: the file can't be read, others can read or write it, or it holds no key.
    pub fn read(path: &Path) -> Result<Self> {
        let refused = |why: &str| Error::CustomerKey(format!("the key file {} {why}", path.display()));
        let unread = |error: std::io::Error| refused(&format!("can't be read: {error}"));
        let file = File::open(path).map_err(unread)?;
        let meta = file.metadata().map_err(unread)?;
        if !meta.is_file() {
            return Err(refused("is not a file"));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(refused("is open to other users (chmod 600 mends that)"));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(unread)?;
        Self::of(&bytes).ok_or_else(|| refused("holds no key: 32 bytes, or base64 of 32 bytes"))
    }

    /// The key that these bytes are, or are base64 of.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let decoded = || from_base64(std::str::from_utf8(bytes).ok()?.trim_ascii());
        let key = if bytes.len() == KEY_LEN { bytes.to_vec() } else { decoded()? };
        (key.len() == KEY_LEN).then(|| CustomerKey { base64: to_base64(&key), md5: to_base64(&Md5::digest(&key)) })
    }

    /// `x-amz-server-side-encryption-customer-key`
    pub(super) fn base64(&self) -> &str {
        &self.base64
    }

    /// `x-amz-server-side-encryption-customer-key-MD5`
    pub(super) fn md5(&self) -> &str {
        &self.md5
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn a_key_is_its_bytes_or_base64_of_them() {
        let key = CustomerKey::of(KEY).expect("raw");
        assert_eq!(key.md5(), "hRasmdxgYDKV3nvbahU1MA==");
        for text in [to_base64(KEY), format!("{}\n", to_base64(KEY))] {
            assert_eq!(CustomerKey::of(text.as_bytes()), Some(key.clone()));
        }
        for bad in [&KEY[..31], b"", b"\n", b"not base64 at all", to_base64(&KEY[..31]).as_bytes()] {
            assert_eq!(CustomerKey::of(bad), None);
        }
        let shown = format!("{key:?}");
        assert!(!shown.contains(key.base64()) && !shown.contains(key.md5()), "{shown}");
    }

    #[test]
    fn a_key_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let told = || CustomerKey::read(&path).expect_err("refused").to_string();
        assert!(told().contains("can't be read"), "{}", told());
        std::fs::write(&path, KEY).expect("a key");
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
            assert_eq!(CustomerKey::read(&path).is_ok(), good, "{mode:o}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("a mode");
        std::fs::write(&path, &KEY[1..]).expect("no key");
        assert!(told().ends_with("holds no key: 32 bytes, or base64 of 32 bytes"), "{}", told());
    }
}
