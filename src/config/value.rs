//! Values of options: text in, checked value out, or a sentence that names the option, the value and the rule.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use super::UsageError;
use super::table::{Kind, OptionSpec, size_text};

/// A value that passed its option's rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Flag(bool),
    Text(String),
    Path(PathBuf),
    Choice(&'static str),
    Number(u64),
    Seconds(Duration),
}

/// Reads `text` as a value of `spec`; `None` is an option without `=`.
pub(super) fn parse(spec: &OptionSpec, text: Option<&str>) -> Result<Value, UsageError> {
    let name = spec.name;
    let text = match (spec.kind, text) {
        (Kind::Flag, None) => return Ok(Value::Flag(true)),
        (Kind::Flag, Some(text)) => return flag(name, text).map(Value::Flag),
        (_, None | Some("")) => {
            return Err(refused(name, format!("needs a value: {name}={}", spec.kind.placeholder())));
        }
        (_, Some(text)) => text,
    };
    match spec.kind {
        Kind::Flag => flag(name, text).map(Value::Flag),
        Kind::Text => plain(name, text).map(Value::Text),
        Kind::Path => absolute(name, text).map(Value::Path),
        Kind::Url => url(name, text).map(Value::Text),
        Kind::Choice(words) => words
            .iter()
            .find(|word| word.eq_ignore_ascii_case(text))
            .map(|word| Value::Choice(word))
            .ok_or_else(|| refused(name, format!("is one of {}, not '{text}'", words.join(", ")))),
        Kind::Count { min, max } => match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
            _ => Err(refused(name, format!("is a whole number from {min} to {max}, not '{text}'"))),
        },
        Kind::Size { min, max } => match size(text) {
            Some(bytes) if (min..=max).contains(&bytes) => Ok(Value::Number(bytes)),
            Some(_) => Err(refused(name, format!("is from {} to {}, not '{text}'", size_text(min), size_text(max)))),
            None => Err(refused(name, format!("is a size such as 8MiB, 64M or 1048576, not '{text}'"))),
        },
        Kind::Seconds { max } => match seconds(text) {
            Some(time) if time <= Duration::from_secs(max) => Ok(Value::Seconds(time)),
            _ => Err(refused(name, format!("is a number of seconds from 0 to {max}, not '{text}'"))),
        },
        Kind::Octal => octal(text)
            .map(|bits| Value::Number(bits.into()))
            .ok_or_else(|| refused(name, format!("is octal permission bits from 0 to 777, not '{text}'"))),
        Kind::User => user(text)
            .map(|id| Value::Number(id.into()))
            .ok_or_else(|| refused(name, format!("is a user's name or number, and '{text}' is neither here"))),
        Kind::Group => group(text)
            .map(|id| Value::Number(id.into()))
            .ok_or_else(|| refused(name, format!("is a group's name or number, and '{text}' is neither here"))),
        Kind::LogFilter => log_filter(name, text).map(Value::Text),
    }
}

fn refused(name: &str, rest: String) -> UsageError {
    UsageError::new(format!("option {name} {rest}"))
}

fn flag(name: &str, text: &str) -> Result<bool, UsageError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(refused(name, format!("is true or false, not '{text}'"))),
    }
}

fn plain(name: &str, text: &str) -> Result<String, UsageError> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refused(name, "holds a space or a control character; leave it out".to_owned()));
    }
    Ok(text.to_owned())
}

fn absolute(name: &str, text: &str) -> Result<PathBuf, UsageError> {
    // The daemon changes its directory to /: a relative path would mean another file there.
    std::path::absolute(text).map_err(|e| refused(name, format!("'{text}' can't be made an absolute path: {e}")))
}

fn url(name: &str, text: &str) -> Result<String, UsageError> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .ok_or_else(|| refused(name, "begins with http:// or https://, such as http://127.0.0.1:9000".to_owned()))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let sentence = "must hold no user and password; put the keys into the environment or ~/.aws/credentials";
        return Err(refused(name, sentence.to_owned()));
    }
    if rest.contains(['?', '#']) || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refused(name, format!("is a plain URL without ?, # and spaces, not '{text}'")));
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of a bare IPv6 address stand between brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(refused(name, format!("names no host and port: '{text}'")));
    }
    Ok(text.to_owned())
}

/// Bytes: a whole number, alone or with K, M, G, T (or KiB, MiB, GiB, TiB: powers of 1024; KB, MB, GB, TB: of 1000).
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

pub(super) fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s').unwrap_or(text);
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(number.parse().ok()?).ok()
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok().filter(|bits| *bits <= 0o777)
}

/// Largest id: the one above it means "no change" to chown(2).
fn id(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<u32>().ok().filter(|id| *id != u32::MAX)
}

fn user(text: &str) -> Option<u32> {
    id(text).or_else(|| {
        let name = CString::new(text).ok()?;
        super::defaults::user_entry(|entry, buffer, length, found| {
            // SAFETY: all pointers are live and `length` is that of `buffer`.
            unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, length, found) }
        })
        .map(|entry| entry.uid)
    })
}

fn group(text: &str) -> Option<u32> {
    id(text).or_else(|| super::defaults::group_id(&CString::new(text).ok()?))
}

fn log_filter(name: &str, text: &str) -> Result<String, UsageError> {
    // The parser panics at some texts of other letters, and no target has them.
    let plain = text.is_ascii();
    match plain.then(|| tracing_subscriber::EnvFilter::builder().parse(text)) {
        // A misspelt level parses as a target, which would log nothing at all.
        Some(Ok(_)) if text.split(',').all(known_directive) => Ok(text.to_owned()),
        _ => Err(refused(name, format!("is error, warn, info, debug, trace or target=level pairs, not '{text}'"))),
    }
}

fn known_directive(directive: &str) -> bool {
    let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
    ["off", "error", "warn", "info", "debug", "trace"].iter().any(|known| known.eq_ignore_ascii_case(level.trim()))
}

/// `auto` is for the store to find out.
pub(super) fn or_auto(choice: &str) -> Option<bool> {
    match choice {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::find;
    use super::*;

    fn read(name: &str, text: &str) -> Result<Value, UsageError> {
        parse(find(name).expect("an option of the table"), Some(text))
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("8MiB", Some(8 << 20)),
            ("64M", Some(64 << 20)),
            ("64m", Some(64 << 20)),
            ("1G", Some(1 << 30)),
            ("2 GiB", Some(2 << 30)),
            ("5MB", Some(5_000_000)),
            ("", None),
            ("M", None),
            ("-1", None),
            ("1.5M", None),
            ("8Mb/s", None),
            ("99999999999999999999", None),
            ("99999999999G", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn masks_are_octal_and_within_the_permission_bits() {
        assert_eq!(read("umask", "022"), Ok(Value::Number(0o22)));
        assert_eq!(read("fmask", "0o137"), Ok(Value::Number(0o137)));
        for bad in ["8", "1777", "-1", "0x1f", "u=rwx"] {
            assert!(read("dmask", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(read("acregmin", "0.25"), Ok(Value::Seconds(Duration::from_millis(250))));
        assert_eq!(read("actimeo", "30s"), Ok(Value::Seconds(Duration::from_secs(30))));
        for bad in ["-1", "inf", "NaN", "1e9", "3m", ".", "99999999999"] {
            assert!(read("acregmin", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        assert_eq!(read("uid", "root"), Ok(Value::Number(0)));
        assert_eq!(read("gid", "root"), Ok(Value::Number(0)));
        assert_eq!(read("uid", "12345"), Ok(Value::Number(12345)));
        assert!(read("uid", "4294967295").is_err());
        assert!(read("uid", "no such user").is_err());
    }

    #[test]
    fn an_endpoint_is_a_url_without_secrets() {
        for good in ["http://127.0.0.1:9000", "https://s3.example.net", "http://[::1]:9000/", "https://h/path"] {
            assert!(read("endpoint_url", good).is_ok(), "{good}");
        }
        for bad in
            ["127.0.0.1:9000", "ftp://h", "http://", "http://:9000", "http://h:99999", "http://h?x=1", "http://a b"]
        {
            assert!(read("endpoint_url", bad).is_err(), "{bad}");
        }
        let error = read("endpoint_url", "http://KEY:SECRET@h:9000").expect_err("secrets are refused");
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }

    #[test]
    fn a_log_level_is_a_level_or_a_filter() {
        for good in ["info", "WARN", "pailfs=debug", "pailfs::fs=trace,warn", "off"] {
            assert!(read("log_level", good).is_ok(), "{good}");
        }
        for bad in ["loud", "pailfs=loud", "info,,", "a=b=c"] {
            assert!(read("log_level", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_told_the_range() {
        let error = read("part_size", "1MiB").expect_err("below the least part size of S3");
        assert_eq!(error.to_string(), "option part_size is from 5MiB to 5GiB, not '1MiB'");
        let error = read("concurrency", "0").expect_err("no parts would move");
        assert_eq!(error.to_string(), "option concurrency is a whole number from 1 to 256, not '0'");
    }

    #[test]
    fn a_log_level_in_other_letters_is_refused_and_does_not_panic() {
        // EnvFilter cuts this one within a letter.
        for text in ["%i`&\u{1f574}=debug", "a\u{1ee4e}=%", "[{$_q\u{a5}}]=info"] {
            assert!(read("log_level", text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_any_option_panic(text in "\\PC{0,40}") {
            for spec in super::super::OPTIONS {
                let _ = parse(spec, Some(&text));
            }
        }

        #[test]
        fn a_size_that_is_written_is_read_back(bytes in 0u64..1 << 50) {
            prop_assert_eq!(size(&size_text(bytes)), Some(bytes));
        }
    }
}
