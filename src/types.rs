//! The small types that every layer shares, parsed once at the border and trusted from there on.
//!
//! Owns: newtypes with private fields for inode numbers, handles, names, keys, versions, ranges and
//! preconditions. Knows nothing of files' state, of S3 requests or of the kernel.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Error;

/// Longest name of one path component in bytes (`NAME_MAX` of Linux).
pub const NAME_MAX: usize = 255;

/// Longest object key in bytes of UTF-8 (S3 User Guide, "Naming Amazon S3 objects").
pub const KEY_MAX: usize = 1024;

/// Most parts of one multipart upload (S3 User Guide, "Amazon S3 multipart upload limits").
pub const PARTS_MAX: u16 = 10_000;

/// Inode number as the kernel sees it. 1 is the root of the mount; 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(u64);

impl Ino {
    /// The root directory of the mount (`FUSE_ROOT_ID`).
    pub const ROOT: Ino = Ino(1);

    /// Wraps a number that came from the kernel or from the inode table.
    pub const fn new(number: u64) -> Self {
        Ino(number)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// File or directory handle number, unique within one mount for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fh(u64);

impl Fh {
    /// Wraps a number that came from the kernel or from the handle table.
    pub const fn new(number: u64) -> Self {
        Fh(number)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// One path component: UTF-8, 1 to 255 bytes, without `/` and NUL, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Parses a component of a key. `None` is a name that can't be shown as a path component.
    pub fn from_key_segment(segment: &str) -> Option<Self> {
        Self::parse(segment.as_bytes()).ok()
    }

    /// Parses a name that a program gave.
    ///
    /// # Errors
    /// `NotUtf8`, `NameTooLong` over 255 bytes, `InvalidName` for an empty name, `.`, `..`, `/` or NUL.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8)?;
        if text.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
            return Err(Error::InvalidName);
        }
        Ok(Name(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Key of one object: the whole key, with the mount's prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// Takes a key as S3 gave it in a listing.
    pub fn from_store(key: impl Into<Arc<str>>) -> Self {
        ObjectKey(key.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prefix of the keys of one directory: empty (the bucket's root) or ending in `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirPrefix(Arc<str>);

impl DirPrefix {
    /// Makes a prefix of what a user typed: leading slashes go, one trailing slash is added.
    ///
    /// ```
    /// use pailfs::types::DirPrefix;
    /// assert_eq!(DirPrefix::normalize("a/b").as_str(), "a/b/");
    /// assert_eq!(DirPrefix::normalize("/a/").as_str(), "a/");
    /// assert_eq!(DirPrefix::normalize("").as_str(), "");
    /// ```
    pub fn normalize(typed: &str) -> Self {
        let trimmed = typed.trim_matches('/');
        if trimmed.is_empty() { DirPrefix("".into()) } else { DirPrefix(format!("{trimmed}/").into()) }
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Key of the file `name` in this directory.
    ///
    /// # Errors
    /// `NameTooLong` if the key were over 1024 bytes.
    pub fn file(&self, name: &Name) -> Result<ObjectKey, Error> {
        let key = format!("{}{}", self.0, name.as_str());
        if key.len() > KEY_MAX { Err(Error::NameTooLong) } else { Ok(ObjectKey(key.into())) }
    }

    /// Prefix of the directory `name` in this directory.
    ///
    /// # Errors
    /// `NameTooLong` if the marker's key were over 1024 bytes.
    pub fn dir(&self, name: &Name) -> Result<DirPrefix, Error> {
        let key = format!("{}{}/", self.0, name.as_str());
        if key.len() > KEY_MAX { Err(Error::NameTooLong) } else { Ok(DirPrefix(key.into())) }
    }

    /// Key of the zero-byte object that marks this directory; `None` for the root of a bucket.
    pub fn marker(&self) -> Option<ObjectKey> {
        if self.0.is_empty() { None } else { Some(ObjectKey(self.0.clone())) }
    }
}

impl fmt::Display for DirPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Entity tag of an object, with its quotes removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(Arc<str>);

impl ETag {
    /// Takes an ETag as a header or listing carries it, quoted or not.
    pub fn parse(text: &str) -> Self {
        ETag(text.trim().trim_matches('"').into())
    }

    /// Without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// With quotes, as `If-Match` wants it.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

/// What identifies one state of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Entity tag of the whole object.
    pub etag: ETag,
    /// Bytes.
    pub size: u64,
    /// `Last-Modified`, whole seconds; the local clock's time for an object just written here.
    pub modified: SystemTime,
}

impl Version {
    /// True when both have the same bytes: the time plays no part, since a copy onto itself changes it.
    pub fn same_bytes(&self, other: &Version) -> bool {
        self.etag == other.etag && self.size == other.size
    }
}

/// Bytes `start..end` of a file or object; never empty when it goes into a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// `start..end`; an end before the start makes an empty range.
    pub const fn new(start: u64, end: u64) -> Self {
        ByteRange { start, end: if end < start { start } else { end } }
    }

    /// `len` bytes from `start`.
    pub const fn at(start: u64, len: u64) -> Self {
        ByteRange { start, end: start.saturating_add(len) }
    }

    /// Number of bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True for no bytes.
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The bytes that are in both.
    pub fn intersect(&self, other: ByteRange) -> ByteRange {
        let start = self.start.max(other.start);
        ByteRange::new(start, self.end.min(other.end))
    }

    /// Value of a `Range` header. The range must not be empty.
    pub fn header(&self) -> String {
        format!("bytes={}-{}", self.start, self.end - 1)
    }
}

/// Number of a part in a multipart upload, 1 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartNumber(u16);

impl PartNumber {
    /// The part with this index, counted from 0.
    ///
    /// # Errors
    /// `FileTooLarge` past the 10,000th part.
    pub fn from_index(index: u64) -> Result<Self, Error> {
        if index < u64::from(PARTS_MAX) { Ok(PartNumber(index as u16 + 1)) } else { Err(Error::FileTooLarge) }
    }

    /// Its index, counted from 0.
    pub fn index(self) -> u64 {
        u64::from(self.0).saturating_sub(1)
    }

    /// As the API wants it.
    pub fn get(self) -> i32 {
        i32::from(self.0)
    }
}

/// Id of a multipart upload, opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(Arc<str>);

impl UploadId {
    /// Takes an id as S3 gave it.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        UploadId(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What must stand under a key for a write to it to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything: the last writer wins.
    Any,
    /// No object (`If-None-Match: *`).
    Absent,
    /// The object with this ETag (`If-Match`).
    Is(ETag),
}

/// Which directions an open file is used in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `O_RDONLY`
    Read,
    /// `O_WRONLY`
    Write,
    /// `O_RDWR`
    ReadWrite,
}

/// What an open(2) asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// Directions.
    pub access: Access,
    /// `O_TRUNC`
    pub truncate: bool,
    /// `O_APPEND`
    pub append: bool,
    /// `O_EXCL` together with `O_CREAT`
    pub exclusive: bool,
}

impl OpenIntent {
    /// True when bytes may be written through this handle.
    pub fn writes(&self) -> bool {
        self.access != Access::Read
    }
}
