//! Extended attributes in object metadata: how they are read and written. Pure.
//!
//! Written as s3fs writes them (its option `use_xattr`), since AWS tools keep none: all of an object's under the key `xattr`,
//! as URL-encoded JSON of names and base64 values. Other plain metadata, which is what rclone makes of extended attributes, is
//! read as `user.NAME`, and changed where it stands. Which of these is stored when is not decided here.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::posix;
use crate::error::{Error, Result};
use crate::store::{UserMetadata, from_base64, to_base64};

/// The key of all that s3fs and this program keep.
const KEY: &str = "xattr";

/// rclone's sum of the bytes, which is of the object rather than of the file.
const RCLONE_SUM: &str = "md5chksum";

/// The namespace that is kept (xattr(7)).
const NAMESPACE: &str = "user.";

/// What comes behind that in the names of [`ObjectFact`]s.
const FACTS: &str = "s3.";

/// Bytes of names and values that S3 takes, each name with `x-amz-meta-` before it as MinIO counts (S3 User Guide, "Working with
/// object metadata").
const METADATA_MAX: usize = 2048;
const HEADER_PREFIX: usize = "x-amz-meta-".len();

/// What s3fs leaves as it is in a URL, but for `*`.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrName {
    /// One that is kept: its whole name.
    User(String),
    /// Something to tell of the object, or `None` for a name of that kind that nothing has.
    Object(Option<ObjectFact>),
}

/// What `user.s3.*` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectFact {
    /// `etag`
    ETag,
    /// `version-id`
    VersionId,
    /// `storage-class`
    StorageClass,
    /// `state`
    State,
    /// `last-error`
    LastError,
}

impl XattrName {
    /// Reads a name as system calls carry it.
    ///
    /// # Errors
    /// `Unsupported` for another namespace, `InvalidName` for one with nothing behind it, `NotUtf8`.
    pub fn parse(name: &[u8]) -> Result<Self> {
        let rest = name.strip_prefix(NAMESPACE.as_bytes());
        let rest = rest.ok_or(Error::Unsupported("an extended attribute of another namespace than user"))?;
        let rest = std::str::from_utf8(rest).map_err(|_| Error::NotUtf8)?;
        Ok(match (rest, rest.strip_prefix(FACTS)) {
            ("", _) => return Err(Error::InvalidName),
            (_, Some(fact)) => XattrName::Object(ObjectFact::named(fact)),
            (_, None) => XattrName::User(format!("{NAMESPACE}{rest}")),
        })
    }
}

impl ObjectFact {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "etag" => ObjectFact::ETag,
            "version-id" => ObjectFact::VersionId,
            "storage-class" => ObjectFact::StorageClass,
            "state" => ObjectFact::State,
            "last-error" => ObjectFact::LastError,
            _ => return None,
        })
    }
}

/// What must stand under a name before it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Anything.
    Any,
    /// Nothing (`XATTR_CREATE`).
    Absent,
    /// A value (`XATTR_REPLACE`, removexattr(2)).
    Present,
}

/// One change that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrChange {
    /// Whole name.
    pub name: String,
    /// `None` removes it.
    pub value: Option<Vec<u8>>,
    /// What must stand there.
    pub presence: Presence,
}

impl XattrChange {
    /// Makes the change. True when something is different now.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoAttribute`, `AttributeTooLarge`, `MetadataFull`: nothing is changed then.
    pub fn apply(&self, metadata: &mut UserMetadata) -> Result<bool> {
        let before = xattr_value(metadata, &self.name);
        match (self.presence, &before) {
            (Presence::Absent, Some(_)) => return Err(Error::AlreadyExists),
            (Presence::Present, None) => return Err(Error::NoAttribute),
            _ if before == self.value => return Ok(false),
            _ => {}
        }
        let mut after = metadata.clone();
        write(&mut after, &self.name, self.value.as_deref());
        if self.value.is_some() && counted(&after) > METADATA_MAX {
            let mut alone = UserMetadata::new();
            write(&mut alone, &self.name, self.value.as_deref());
            let too_large = counted(&alone) > METADATA_MAX;
            return Err(if too_large { Error::AttributeTooLarge } else { Error::MetadataFull });
        }
        *metadata = after;
        Ok(true)
    }
}

/// Changes that the object does not have yet: by name a value, or none for one that is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XattrChanges(BTreeMap<String, Option<Vec<u8>>>);

impl XattrChanges {
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one that was applied.
    pub fn add(&mut self, change: XattrChange) {
        self.0.insert(change.name, change.value);
    }

    /// Makes them.
    pub fn write(&self, metadata: &mut UserMetadata) {
        for (name, value) in &self.0 {
            write(metadata, name, value.as_deref());
        }
    }

    /// True when `metadata` has them all.
    pub fn are_in(&self, metadata: &UserMetadata) -> bool {
        self.0.iter().all(|(name, value)| xattr_value(metadata, name) == *value)
    }
}

/// The value under a whole name.
pub fn xattr_value(metadata: &UserMetadata, name: &str) -> Option<Vec<u8>> {
    let kept = kept(metadata).get(name).and_then(|text| from_base64(text));
    kept.or_else(|| metadata.get(plain_key(name)?).map(|value| value.clone().into_bytes()))
}

/// All names. Those of [`ObjectFact`]s are not among them: programs that copy attributes would try to set them elsewhere.
pub fn xattr_names(metadata: &UserMetadata) -> Vec<String> {
    let kept = kept(metadata);
    let kept = kept.into_iter().filter(|(_, text)| from_base64(text).is_some()).map(|(name, _)| name);
    let plain = metadata.keys().map(|key| format!("{NAMESPACE}{key}")).filter(|name| plain_key(name).is_some());
    let mut names: Vec<_> = kept.chain(plain).filter(|name| is_shown(name)).collect();
    names.sort();
    names.dedup();
    names
}

fn is_shown(name: &str) -> bool {
    name.strip_prefix(NAMESPACE).is_some_and(|rest| !rest.is_empty() && !rest.starts_with(FACTS))
}

/// The key under which plain metadata is an extended attribute of this name.
fn plain_key(name: &str) -> Option<&str> {
    name.strip_prefix(NAMESPACE).filter(|key| !posix::is_posix(key) && *key != KEY && *key != RCLONE_SUM)
}

/// All that stands under the one key, in base64: also names of other namespaces, which s3fs keeps.
fn kept(metadata: &UserMetadata) -> BTreeMap<String, String> {
    let Some(text) = metadata.get(KEY) else { return BTreeMap::new() };
    let Ok(json) = percent_decode_str(text.trim()).decode_utf8() else { return BTreeMap::new() };
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap_or_default();
    object.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}

fn write(metadata: &mut UserMetadata, name: &str, value: Option<&[u8]>) {
    let mut all = kept(metadata);
    let plain = plain_key(name).filter(|key| metadata.contains_key(*key)).map(str::to_owned);
    all.remove(name);
    match (plain, value) {
        (Some(key), Some(value)) if is_header_text(value) => {
            metadata.insert(key, String::from_utf8_lossy(value).into_owned());
        }
        (plain, value) => {
            if let Some(key) = plain {
                metadata.remove(&key);
            }
            if let Some(value) = value {
                all.insert(name.to_owned(), to_base64(value));
            }
        }
    }
    if all.is_empty() {
        metadata.remove(KEY);
    } else {
        metadata.insert(KEY.into(), encoded(&all));
    }
}

/// s3fs takes such a text apart at commas and colons, so that names have none.
fn encoded(all: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = all
        .iter()
        .map(|(name, value)| {
            let name = serde_json::Value::from(name.as_str()).to_string();
            format!("{}:\"{value}\"", name.replace(',', "\\u002c").replace(':', "\\u003a"))
        })
        .collect();
    utf8_percent_encode(&format!("{{{}}}", pairs.join(",")), PLAIN).to_string()
}

/// True for a value that a header carries as it is.
fn is_header_text(value: &[u8]) -> bool {
    let ends = [value.first(), value.last()];
    let inner = value.iter().all(|byte| (0x20..0x7f).contains(byte)) && !value.starts_with(b"=?");
    inner && ends.iter().all(|end| end.is_some_and(|byte| *byte != b' '))
}

/// Bytes of metadata, with those that modes, owners and times may come to take.
fn counted(metadata: &UserMetadata) -> usize {
    let others = metadata.iter().filter(|(key, _)| !posix::is_written(key));
    posix::WRITTEN_MAX + others.map(|(key, value)| HEADER_PREFIX + key.len() + value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> UserMetadata {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    fn set(metadata: &mut UserMetadata, name: &str, value: &[u8]) -> Result<bool> {
        XattrChange { name: name.into(), value: Some(value.into()), presence: Presence::Any }.apply(metadata)
    }

    fn remove(metadata: &mut UserMetadata, name: &str) -> Result<bool> {
        XattrChange { name: name.into(), value: None, presence: Presence::Present }.apply(metadata)
    }

    #[test]
    fn names_are_kept_told_or_refused() {
        assert_eq!(XattrName::parse(b"user.a").ok(), Some(XattrName::User("user.a".into())));
        assert_eq!(XattrName::parse(b"user.s3.etag").ok(), Some(XattrName::Object(Some(ObjectFact::ETag))));
        assert_eq!(XattrName::parse(b"user.s3.else").ok(), Some(XattrName::Object(None)));
        assert!(matches!(XattrName::parse(b"user."), Err(Error::InvalidName)));
        assert!(matches!(XattrName::parse(b"user.\xff"), Err(Error::NotUtf8)));
        for other in ["security.capability", "system.posix_acl_access", "trusted.x", "user", "a", ""] {
            assert!(matches!(XattrName::parse(other.as_bytes()), Err(Error::Unsupported(_))), "{other}");
        }
    }

    #[test]
    fn the_text_is_the_one_that_s3fs_writes_and_reads() {
        // As s3fs 1.90 stored it for `setfattr -n user.a -v one` and `-n user.b -v 0x00ff`.
        let s3fs = "%7B%22user.a%22%3A%22b25l%22%2C%22user.b%22%3A%22AP8%3D%22%7D";
        let mut stored = UserMetadata::new();
        set(&mut stored, "user.b", b"\x00\xff").expect("room");
        set(&mut stored, "user.a", b"one").expect("room");
        assert_eq!(stored[KEY], s3fs);
        assert_eq!(xattr_names(&stored), ["user.a", "user.b"]);
        assert_eq!(xattr_value(&stored, "user.b"), Some(vec![0, 255]));
        remove(&mut stored, "user.a").expect("it is there");
        remove(&mut stored, "user.b").expect("it is there");
        assert_eq!(stored, UserMetadata::new());
    }

    #[test]
    fn names_of_other_namespaces_stay_and_are_not_shown() {
        let text = "{\"system.posix_acl_access\":\"AgAAAA==\",\"user.s3.etag\":\"eA==\",\"user.a\":\"eA==\"}";
        let mut stored = metadata(&[(KEY, text)]);
        assert_eq!(xattr_names(&stored), ["user.a"]);
        remove(&mut stored, "user.a").expect("it is there");
        assert_eq!(kept(&stored).keys().collect::<Vec<_>>(), ["system.posix_acl_access", "user.s3.etag"]);
    }

    #[test]
    fn plain_metadata_is_read_and_changed_where_it_stands() {
        let mut stored = metadata(&[("team", "blue"), ("mtime", "1.5"), ("file-owner", "0"), ("md5chksum", "x")]);
        assert_eq!(xattr_names(&stored), ["user.team"]);
        assert_eq!(xattr_value(&stored, "user.team"), Some(b"blue".to_vec()));
        assert_eq!(xattr_value(&stored, "user.mtime"), None);
        set(&mut stored, "user.team", b"green").expect("room");
        assert_eq!((stored["team"].as_str(), stored.get(KEY)), ("green", None));
        for odd in [b"".as_slice(), b"\x00", b" x", "ä".as_bytes(), b"=?x"] {
            let mut stored = stored.clone();
            set(&mut stored, "user.team", odd).expect("room");
            assert_eq!((xattr_value(&stored, "user.team"), stored.contains_key("team")), (Some(odd.to_vec()), false));
        }
        // An attribute of that name is no time of the file.
        set(&mut stored, "user.mtime", b"noon").expect("room");
        assert_eq!((stored["mtime"].as_str(), xattr_value(&stored, "user.mtime")), ("1.5", Some(b"noon".to_vec())));
        remove(&mut stored, "user.team").expect("it is there");
        assert!(!stored.contains_key("team"));
    }

    #[test]
    fn what_must_stand_there_is_looked_at() {
        let mut stored = metadata(&[("team", "blue")]);
        let change = |name: &str, presence| XattrChange { name: name.into(), value: Some(b"x".to_vec()), presence };
        assert!(matches!(change("user.team", Presence::Absent).apply(&mut stored), Err(Error::AlreadyExists)));
        assert!(matches!(change("user.new", Presence::Present).apply(&mut stored), Err(Error::NoAttribute)));
        assert!(matches!(remove(&mut stored, "user.new"), Err(Error::NoAttribute)));
        assert_eq!(change("user.new", Presence::Absent).apply(&mut stored).ok(), Some(true));
        assert_eq!(change("user.new", Presence::Present).apply(&mut stored).ok(), Some(false));
    }

    #[test]
    fn metadata_has_2048_bytes() {
        let mut stored = metadata(&[("team", "blue")]);
        assert!(matches!(set(&mut stored, "user.a", &[0; 2048]), Err(Error::AttributeTooLarge)));
        assert_eq!(set(&mut stored, "user.a", &[0; 1000]).ok(), Some(true));
        assert!(matches!(set(&mut stored, "user.b", &[0; 1000]), Err(Error::MetadataFull)));
        assert_eq!(xattr_names(&stored), ["user.a", "user.team"]);
        let size = |stored: &UserMetadata| stored.iter().map(|(k, v)| 11 + k.len() + v.len()).sum::<usize>();
        let mut len = 1;
        while set(&mut stored, "user.c", &vec![0; len]).is_ok() {
            len += 1;
        }
        assert!((1700..=2048 - 256).contains(&size(&stored)), "{}", size(&stored));
        // Less is always taken.
        let mut full = metadata(&[(KEY, &stored[KEY]), ("other", &"x".repeat(900))]);
        assert_eq!(remove(&mut full, "user.c").ok(), Some(true));
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in [
            "",
            "{",
            "%7B",
            "[]",
            "{\"user.a\":1}",
            "{\"user.a\":\"%\"}",
            "%ff",
            "{\"\":\"eA==\"}",
            "{\"user.\":\"eA==\"}",
        ] {
            assert_eq!(xattr_names(&metadata(&[(KEY, text)])), Vec::<String>::new(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::btree_map("[^\0]{1,20}", prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut stored = metadata(&[("team", "blue")]);
            let mut changes = XattrChanges::default();
            for (name, value) in &values {
                let change = XattrChange { name: format!("user.{name}"), value: Some(value.clone()), presence: Presence::Any };
                if change.apply(&mut stored).is_ok() {
                    changes.add(change);
                }
            }
            prop_assert!(changes.are_in(&stored));
            prop_assert!(stored.values().all(|value| value.is_ascii()));
            let mut again = metadata(&[("team", "blue")]);
            changes.write(&mut again);
            prop_assert_eq!(again, stored);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let mut stored = metadata(&[(KEY, &text)]);
            let _ = (xattr_names(&stored), set(&mut stored, "user.a", b"x"));
        }
    }
}
