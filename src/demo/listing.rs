//! Listings: objects (both versions), and open uploads.
//!
//! Owns the walk over the keys. A page seeks to where the last one ended and jumps over everything behind a common
//! prefix, so that its cost depends on the page and not on the bucket. The walk knows nothing of XML.

use super::service::Shared;
use super::state::{BucketState, Object};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{Object as ListedObject, *};
use s3s::{S3Result, s3_error};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// The most entries of one page.
const MAX_KEYS: i32 = 1000;

/// What a page shows.
#[derive(Debug, PartialEq, Eq)]
enum Entry<'a, T> {
    Key(&'a str, &'a T),
    Prefix(String),
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// At the first key.
    First,
    /// Behind this key.
    Behind(String),
    /// Behind all keys with this prefix.
    BehindPrefix(String),
}

impl Start {
    fn bound(&self) -> Option<Bound<String>> {
        match self {
            Self::First => Some(Bound::Unbounded),
            Self::Behind(key) => Some(Bound::Excluded(key.clone())),
            Self::BehindPrefix(prefix) => after_prefix(prefix).map(Bound::Included),
        }
    }

    /// As a continuation token, opaque to the caller.
    fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(match self {
            Self::First => String::new(),
            Self::Behind(key) => format!("k{key}"),
            Self::BehindPrefix(prefix) => format!("p{prefix}"),
        })
    }

    fn parse(token: &str) -> S3Result<Self> {
        let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_at_checked(1)) {
            Some(("k", key)) => Ok(Self::Behind(key.to_owned())),
            Some(("p", prefix)) => Ok(Self::BehindPrefix(prefix.to_owned())),
            _ => Err(s3_error!(InvalidArgument, "The continuation token provided is incorrect")),
        }
    }
}

/// The least string that is greater than all strings with this prefix; None when there is none.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let mut next = (last..=char::MAX).skip(1);
        if let Some(next) = next.next() {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// A page of entries, and where the next one begins if there are more.
struct Page<'a, T> {
    entries: Vec<Entry<'a, T>>,
    next: Option<Start>,
}

/// Walks the keys with this prefix from `start`; keys that share a prefix up to the delimiter are one entry.
fn walk<'a, T>(
    map: &'a BTreeMap<String, T>,
    prefix: &str,
    delimiter: Option<&str>,
    start: &Start,
    max: usize,
) -> Page<'a, T> {
    let mut entries = Vec::new();
    let mut at = start.clone();
    if max == 0 {
        return Page { entries, next: None };
    }
    while let Some(bound) = at.bound() {
        let from = if below(&bound, prefix) { Bound::Included(prefix.to_owned()) } else { bound };
        let keys = map.range((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let mut jump = None;
        for (key, value) in keys {
            if entries.len() == max {
                return Page { entries, next: Some(at) };
            }
            let rolled = delimiter.and_then(|d| key[prefix.len()..].find(d).map(|i| prefix.len() + i + d.len()));
            if let Some(end) = rolled {
                entries.push(Entry::Prefix(key[..end].to_owned()));
                jump = Some(Start::BehindPrefix(key[..end].to_owned()));
                break;
            }
            entries.push(Entry::Key(key, value));
            at = Start::Behind(key.clone());
        }
        match jump {
            Some(jump) => at = jump,
            None => break,
        }
    }
    Page { entries, next: None }
}

fn below(bound: &Bound<String>, prefix: &str) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(key) => key.as_str() < prefix,
        Bound::Excluded(key) => key.as_str() < prefix,
    }
}

/// What S3 leaves as it is when a listing is URL-encoded.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');

/// How names are written in a listing.
#[derive(Clone, Copy)]
struct Encoding(bool);

impl Encoding {
    fn of(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self(false)),
            Some(EncodingType::URL) => Ok(Self(true)),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    /// S3 writes a space as `+`, as in a form.
    fn text(self, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        utf8_percent_encode(text, PLAIN).to_string().replace("%20", "+")
    }

    fn optional(self, text: Option<&str>) -> Option<String> {
        text.map(|text| self.text(text))
    }
}

fn page_size(asked: Option<i32>) -> S3Result<usize> {
    usize::try_from(asked.unwrap_or(MAX_KEYS).min(MAX_KEYS))
        .map_err(|_| s3_error!(InvalidArgument, "Argument maxKeys must be an integer between 0 and 2147483647"))
}

fn listed(encoding: Encoding, key: &str, object: &Object) -> ListedObject {
    let sum = object.sum.as_ref();
    ListedObject {
        key: Some(encoding.text(key)),
        e_tag: Some(object.etag()),
        size: Some(object.body.len() as i64),
        last_modified: Some(object.modified.into()),
        storage_class: Some(ObjectStorageClass::from(object.storage_class.clone())),
        checksum_algorithm: sum.map(|sum| vec![ChecksumAlgorithm::from_static(sum.algorithm.name())]),
        checksum_type: sum.map(|sum| sum.kind.dto()),
        ..ListedObject::default()
    }
}

fn split(encoding: Encoding, page: &Page<'_, Arc<Object>>) -> (Vec<ListedObject>, Vec<CommonPrefix>) {
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    for entry in &page.entries {
        match entry {
            Entry::Key(key, object) => keys.push(listed(encoding, key, object)),
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoding.text(prefix)) }),
        }
    }
    (keys, prefixes)
}

fn delimiter_of(delimiter: Option<&String>) -> Option<&str> {
    delimiter.map(String::as_str).filter(|delimiter| !delimiter.is_empty())
}

pub(super) fn list_v2(shared: &Shared, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let max = page_size(input.max_keys)?;
    let start = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => Start::parse(token)?,
        (None, Some(key)) if !key.is_empty() => Start::Behind(key.clone()),
        _ => Start::First,
    };
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let mut buckets = shared.state.lock();
    let bucket: &BucketState = buckets.bucket(&input.bucket)?;
    let page = walk(&bucket.objects, prefix, delimiter_of(input.delimiter.as_ref()), &start, max);
    let (keys, prefixes) = split(encoding, &page);
    Ok(ListObjectsV2Output {
        prefix: Some(encoding.text(prefix)),
        delimiter: encoding.optional(input.delimiter.as_deref()),
        start_after: encoding.optional(input.start_after.as_deref()),
        max_keys: i32::try_from(max).ok(),
        key_count: i32::try_from(page.entries.len()).ok(),
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_ref().map(Start::token),
        contents: Some(keys),
        common_prefixes: Some(prefixes),
        name: Some(input.bucket),
        continuation_token: input.continuation_token,
        encoding_type: input.encoding_type,
        request_charged: None,
    })
}

/// The first version: the marker is a key, or a common prefix that the last page ended with.
pub(super) fn list_v1(shared: &Shared, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let max = page_size(input.max_keys)?;
    let delimiter = delimiter_of(input.delimiter.as_ref());
    let start = match (input.marker.as_deref().unwrap_or_default(), delimiter) {
        ("", _) => Start::First,
        (marker, Some(delimiter)) if marker.ends_with(delimiter) => Start::BehindPrefix(marker.to_owned()),
        (marker, _) => Start::Behind(marker.to_owned()),
    };
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let mut buckets = shared.state.lock();
    let bucket: &BucketState = buckets.bucket(&input.bucket)?;
    let page = walk(&bucket.objects, prefix, delimiter, &start, max);
    let (keys, prefixes) = split(encoding, &page);
    let next_marker = match (&page.next, delimiter) {
        (Some(Start::Behind(key) | Start::BehindPrefix(key)), Some(_)) => Some(encoding.text(key)),
        _ => None,
    };
    Ok(ListObjectsOutput {
        prefix: Some(encoding.text(prefix)),
        delimiter: encoding.optional(input.delimiter.as_deref()),
        marker: Some(encoding.text(input.marker.as_deref().unwrap_or_default())),
        max_keys: i32::try_from(max).ok(),
        is_truncated: Some(page.next.is_some()),
        next_marker,
        contents: Some(keys),
        common_prefixes: Some(prefixes),
        name: Some(input.bucket),
        encoding_type: input.encoding_type,
        request_charged: None,
    })
}

/// Between the key and the id of an upload in the order of the listing; no key has it in S3's order before.
const BETWEEN: char = '\0';

pub(super) fn list_uploads(shared: &Shared, input: ListMultipartUploadsInput) -> S3Result<ListMultipartUploadsOutput> {
    let encoding = Encoding::of(input.encoding_type.as_ref())?;
    let max = page_size(input.max_uploads)?;
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let start = match (input.key_marker.as_deref().unwrap_or_default(), input.upload_id_marker.as_deref()) {
        ("", _) => Start::First,
        (key, Some(id)) => Start::Behind(format!("{key}{BETWEEN}{id}")),
        (key, None) => Start::BehindPrefix(format!("{key}{BETWEEN}")),
    };
    let mut buckets = shared.state.lock();
    let bucket: &BucketState = buckets.bucket(&input.bucket)?;
    let ordered: BTreeMap<_, _> =
        bucket.uploads.iter().map(|(id, upload)| (format!("{}{BETWEEN}{id}", upload.key), (id, upload))).collect();
    let page = walk(&ordered, prefix, delimiter_of(input.delimiter.as_ref()), &start, max);
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for entry in &page.entries {
        match entry {
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(encoding.text(prefix)) }),
            Entry::Key(_, (id, upload)) => uploads.push(MultipartUpload {
                key: Some(encoding.text(&upload.key)),
                upload_id: Some((*id).clone()),
                initiated: Some(upload.initiated.into()),
                storage_class: Some(StorageClass::from(upload.storage_class.clone())),
                checksum_algorithm: upload.checksum.map(|(a, _)| ChecksumAlgorithm::from_static(a.name())),
                checksum_type: upload.checksum.map(|(_, kind)| kind.dto()),
                ..MultipartUpload::default()
            }),
        }
    }
    let (next_key_marker, next_upload_id_marker) = match &page.next {
        Some(Start::Behind(place)) => place.split_once(BETWEEN).map(|(key, id)| (key, id.to_owned())).unzip(),
        Some(Start::BehindPrefix(prefix)) => (Some(prefix.as_str()), None),
        _ => (None, None),
    };
    Ok(ListMultipartUploadsOutput {
        next_key_marker: encoding.optional(next_key_marker),
        next_upload_id_marker,
        is_truncated: Some(page.next.is_some()),
        max_uploads: i32::try_from(max).ok(),
        prefix: Some(encoding.text(prefix)),
        delimiter: encoding.optional(input.delimiter.as_deref()),
        uploads: Some(uploads),
        common_prefixes: Some(prefixes),
        bucket: Some(input.bucket),
        key_marker: input.key_marker,
        upload_id_marker: input.upload_id_marker,
        encoding_type: input.encoding_type,
        request_charged: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: &[&str]) -> BTreeMap<String, ()> {
        keys.iter().map(|key| ((*key).to_owned(), ())).collect()
    }

    /// All entries, page by page, each page of `max`.
    fn all(keys: &[&str], prefix: &str, delimiter: Option<&str>, max: usize) -> Vec<String> {
        let (map, mut found, mut start) = (map(keys), Vec::new(), Start::First);
        loop {
            let page = walk(&map, prefix, delimiter, &start, max);
            assert!(page.entries.len() <= max);
            found.extend(page.entries.iter().map(|entry| match entry {
                Entry::Key(key, ()) => (*key).to_owned(),
                Entry::Prefix(prefix) => format!("{prefix}>"),
            }));
            match page.next {
                Some(next) => start = Start::parse(&next.token()).unwrap_or(Start::First),
                None => return found,
            }
        }
    }

    #[test]
    fn a_key_beside_the_prefix_of_its_name_is_listed_with_it_at_any_page_size() {
        let keys = ["a", "a/b", "a/c", "a//d", "a0", "b/x", "\u{10ffff}/z", "\u{10ffff}/\u{10ffff}"];
        for max in 1..6 {
            assert_eq!(all(&keys, "", Some("/"), max), ["a", "a/>", "a0", "b/>", "\u{10ffff}/>"]);
            assert_eq!(all(&keys, "a/", Some("/"), max), ["a//>", "a/b", "a/c"]);
            assert_eq!(all(&keys, "a/", None, max), ["a//d", "a/b", "a/c"]);
        }
    }

    #[test]
    fn a_page_that_ends_with_the_last_entry_is_not_truncated() {
        let map = map(&["a/1", "a/2"]);
        assert!(walk(&map, "", Some("/"), &Start::First, 1).next.is_none());
        assert!(walk(&map, "", None, &Start::First, 2).next.is_none());
        assert!(walk(&map, "", None, &Start::First, 1).next.is_some());
    }

    #[test]
    fn the_string_behind_a_prefix_skips_surrogates_and_the_last_character() {
        assert_eq!(after_prefix("a/"), Some("a0".to_owned()));
        assert_eq!(after_prefix("a\u{d7ff}"), Some("a\u{e000}".to_owned()));
        assert_eq!(after_prefix("a\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }

    #[test]
    fn names_are_encoded_as_in_a_form() {
        assert_eq!(Encoding(true).text("a b+c/é%\n"), "a+b%2Bc/%C3%A9%25%0A");
        assert_eq!(Encoding(false).text("a b"), "a b");
    }
}
