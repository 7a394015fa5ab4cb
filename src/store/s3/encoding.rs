//! How keys and metadata are written in headers and listings.
//!
//! Owns: URL encoding of copy sources and listings, RFC 2047 words in metadata values, and the
//! `aws-chunked` token that some stores leave in `Content-Encoding`. Pure functions.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, Result};

/// What a copy source leaves as it is: unreserved characters (RFC 3986, section 2.3) and slashes.
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Value of `x-amz-copy-source` for a key of this bucket. An access point's ARN takes its own form
/// (API reference, CopyObject).
pub(super) fn copy_source(bucket: &str, key: &str) -> String {
    let source = if bucket.starts_with("arn:") { format!("{bucket}/object/{key}") } else { format!("{bucket}/{key}") };
    utf8_percent_encode(&source, COPY_SOURCE).to_string()
}

/// Value of `x-amz-rename-source`.
pub(super) fn rename_source(key: &str) -> String {
    utf8_percent_encode(key, COPY_SOURCE).to_string()
}

/// Value of `x-amz-tagging`: a query string. `None` for no tags.
pub(super) fn tagging(tags: &[(String, String)]) -> Option<String> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = tags.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

/// A key or prefix of a listing with `encoding-type=url`, where `+` is a space, as in an HTML form.
pub(super) fn listed(text: &str) -> Result<String> {
    let spaced: Cow<str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| Error::Corrupt("a listed key is not UTF-8".into()))
}

/// A metadata value as a header can carry it. What HTTP would lose or S3 would rewrite becomes an RFC 2047
/// word, the form in which S3 itself returns such values (S3 User Guide, "User-defined object metadata").
pub(super) fn metadata_to_header(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && value.trim_matches([' ', '\t']).len() == value.len()
        && !value.starts_with("=?");
    if plain { value.into() } else { format!("=?UTF-8?B?{}?=", aws_smithy_types::base64::encode(value)).into() }
}

/// The value of a metadata header: RFC 2047 words in UTF-8 are decoded, anything else stays as it is.
pub(super) fn metadata_from_header(value: &str) -> String {
    if !value.starts_with("=?") {
        return value.to_owned();
    }
    // A character may be cut between two words, so the bytes are joined first.
    let words: Option<Vec<Vec<u8>>> = value.split_ascii_whitespace().map(decode_word).collect();
    words.and_then(|words| String::from_utf8(words.concat()).ok()).unwrap_or_else(|| value.to_owned())
}

fn decode_word(word: &str) -> Option<Vec<u8>> {
    let mut fields = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("us-ascii") {
        return None;
    }
    match encoding {
        "B" | "b" => aws_smithy_types::base64::decode(text).ok(),
        "Q" | "q" => decode_q(text.as_bytes()),
        _ => None,
    }
}

fn decode_q(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'_' => out.push(b' '),
            b'=' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            byte => out.push(byte),
        }
    }
    Some(out)
}

/// `Content-Encoding` without the token that belongs to the transfer and not to the object.
pub(super) fn content_encoding(value: &str) -> Option<String> {
    let kept: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty() && !token.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    if kept.is_empty() { None } else { Some(kept.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_source_keeps_slashes_alone() {
        assert_eq!(copy_source("b", "a b/+%?#é~"), "b/a%20b/%2B%25%3F%23%C3%A9~");
        assert_eq!(
            copy_source("arn:aws:s3:eu-west-1:1:accesspoint/ap", "k"),
            "arn%3Aaws%3As3%3Aeu-west-1%3A1%3Aaccesspoint/ap/object/k"
        );
    }

    #[test]
    fn a_listed_plus_is_a_space() {
        assert_eq!(listed("a+b%2Bc%25%C3%A9").unwrap(), "a b+c%é");
        assert!(listed("%ff").is_err());
    }

    #[test]
    fn metadata_survives_its_header() {
        for value in ["", "plain", "grün", " led", "trailed ", "=?x", "line\nbreak", "tab\tin", "日本"] {
            let header = metadata_to_header(value);
            assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{header}");
            assert_eq!(metadata_from_header(&header), value);
        }
        assert_eq!(metadata_to_header("plain"), "plain");
    }

    #[test]
    fn words_of_other_writers_are_read() {
        assert_eq!(metadata_from_header("=?UTF-8?Q?gr=C3=BCn_x?="), "grün x");
        assert_eq!(metadata_from_header("=?utf-8?B?Z3LD?= =?UTF-8?b?vG4=?="), "grün");
        assert_eq!(metadata_from_header("=?ISO-8859-1?Q?gr=FCn?="), "=?ISO-8859-1?Q?gr=FCn?=");
        assert_eq!(metadata_from_header("=?UTF-8?Q?=C?="), "=?UTF-8?Q?=C?=");
    }

    #[test]
    fn the_transfer_token_is_no_content_encoding() {
        assert_eq!(content_encoding("aws-chunked"), None);
        assert_eq!(content_encoding("gzip, aws-chunked"), Some("gzip".into()));
        assert_eq!(content_encoding(""), None);
    }
}
