//! The source: which bucket, and which prefix of it.
//!
//! Forms: `s3://bucket[/prefix]`, `bucket:[/prefix]`, `bucket`, access point ARNs, and each of them behind `pailfs#`
//! (as fstab lines have it). A source shows up in the mount table, so that one with a secret in it is refused.

use crate::types::{DirPrefix, KEY_MAX};

use super::UsageError;

/// A checked source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    typed: String,
    bucket: String,
    prefix: DirPrefix,
    region: Option<String>,
}

impl Source {
    /// Reads what was typed.
    ///
    /// # Errors
    /// A sentence with the rule that was broken.
    pub fn parse(typed: &str) -> Result<Self, UsageError> {
        if typed.is_empty() {
            return Err(UsageError::new("the source is empty; give s3://BUCKET or s3://BUCKET/PREFIX"));
        }
        if typed.chars().any(char::is_control) {
            return Err(UsageError::new("the source holds a control character; give s3://BUCKET/PREFIX"));
        }
        let plain = typed.strip_prefix("pailfs#").unwrap_or(typed);
        let after_scheme = plain.strip_prefix("s3://");
        let rest = after_scheme.unwrap_or(plain);
        refuse_secrets(rest)?;
        let (bucket, prefix, region) = if rest.starts_with("arn:") {
            arn(rest)?
        } else if let Some(rest) = after_scheme {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            (bucket.to_owned(), prefix, None)
        } else {
            let (bucket, prefix) = without_scheme(rest)?;
            (bucket.to_owned(), prefix, None)
        };
        if !bucket.starts_with("arn:") {
            check_bucket(&bucket)?;
        }
        let prefix = DirPrefix::normalize(prefix);
        if prefix.as_str().len() >= KEY_MAX {
            return Err(UsageError::new(format!(
                "the prefix has {} bytes, and a key of S3 has at most {KEY_MAX}; give a shorter one",
                prefix.as_str().len()
            )));
        }
        Ok(Source { typed: typed.to_owned(), bucket, prefix, region })
    }

    /// The rules that only AWS has.
    ///
    /// # Errors
    /// A sentence with the rule that was broken.
    pub(super) fn check_at_aws(&self) -> Result<(), UsageError> {
        if self.bucket.starts_with("arn:") { Ok(()) } else { check_reserved(&self.bucket) }
    }

    /// As typed: what the mount table shows, and what mount(8) compares with fstab.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// Name of the bucket, or ARN of the access point.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What every key begins with.
    pub fn prefix(&self) -> &DirPrefix {
        &self.prefix
    }

    /// The region that an ARN names.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }
}

/// `KEY:SECRET@bucket` is how some tools take keys. The sentence does not repeat it.
fn refuse_secrets(rest: &str) -> Result<(), UsageError> {
    if rest.split('/').next().is_some_and(|head| head.contains('@')) {
        return Err(UsageError::new(
            "the source holds an '@'; keys and secrets don't belong there (everyone can read the mount table), \
             put them into the environment or ~/.aws/credentials",
        ));
    }
    Ok(())
}

fn without_scheme(rest: &str) -> Result<(&str, &str), UsageError> {
    if let Some((scheme, _)) = rest.split_once("://") {
        return Err(UsageError::new(format!(
            "the source begins with {scheme}://; give s3://BUCKET/PREFIX, and another S3 service as endpoint_url"
        )));
    }
    match rest.split_once(':') {
        Some(parts) => Ok(parts),
        None if rest.contains('/') => Err(UsageError::new(format!(
            "'{rest}' is neither a bucket nor a source with a prefix; write s3://{}",
            rest.trim_start_matches('/')
        ))),
        None => Ok((rest, "")),
    }
}

/// Bucket (or the ARN without prefix), prefix and region of an ARN.
fn arn(text: &str) -> Result<(String, &str, Option<String>), UsageError> {
    let wrong = |what: &str| {
        UsageError::new(format!(
            "the ARN {what}; pailfs takes arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME, with /PREFIX behind it if wanted"
        ))
    };
    let fields: Vec<&str> = text.splitn(6, ':').collect();
    let [_, partition, service, region, account, resource] = fields[..] else {
        return Err(wrong("has fewer than six fields"));
    };
    if partition != "aws" && !partition.starts_with("aws-") {
        return Err(wrong("is not of an AWS partition"));
    }
    if service != "s3" {
        return Err(wrong("is not of the service s3"));
    }
    if region.is_empty() && account.is_empty() {
        // arn:aws:s3:::bucket/prefix, as policies name a bucket.
        let (bucket, prefix) = resource.split_once('/').unwrap_or((resource, ""));
        return Ok((bucket.to_owned(), prefix, None));
    }
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong("has no account of 12 digits"));
    }
    let Some(rest) = resource.strip_prefix("accesspoint/").or_else(|| resource.strip_prefix("accesspoint:")) else {
        return Err(wrong("names no access point"));
    };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=50).contains(&name.len()) || !name.bytes().all(valid) {
        return Err(wrong("has no access point name of 3 to 50 lower-case letters, digits and hyphens"));
    }
    let bucket = &text[..text.len() - rest.len() + name.len()];
    Ok((bucket.to_owned(), prefix, (!region.is_empty()).then(|| region.to_owned())))
}

/// The naming rules of the S3 User Guide, "General purpose bucket naming rules", that hold for other services too. Names with
/// upper-case letters and underscores, as AWS gave out before 2018 and some services do now, are refused everywhere: a host name
/// can't carry them.
fn check_bucket(name: &str) -> Result<(), UsageError> {
    let wrong = |rule: &str| Err(UsageError::new(format!("'{name}' is not a bucket's name: {rule}")));
    if name.is_empty() {
        return Err(UsageError::new("the source names no bucket; give s3://BUCKET or s3://BUCKET/PREFIX"));
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return wrong("it has upper-case letters, and bucket names are lower-case");
    }
    if let Some(bad) = name.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(*c))) {
        return wrong(&format!("it holds '{bad}', and only letters, digits, '-' and '.' are allowed"));
    }
    if !(3..=63).contains(&name.len()) {
        return wrong(&format!("it is {} long, and 3 to 63 characters are allowed", name.len()));
    }
    let ends = [name.bytes().next(), name.bytes().next_back()];
    if ends.into_iter().flatten().any(|b| !b.is_ascii_alphanumeric()) {
        return wrong("it must begin and end with a letter or a digit");
    }
    if name.contains("..") {
        return wrong("it has two dots side by side");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return wrong("it looks like an IP address; a server's address goes into endpoint_url");
    }
    Ok(())
}

/// Beginnings of names that AWS gives nobody (same page).
const RESERVED_BEGINNINGS: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];

/// Endings of what is no bucket, and has no S3 API under such a name. Aliases of access points (`-s3alias`, `--ol-s3`) and
/// directory buckets (`--x-s3`) end in others, and are sources like any other.
const RESERVED_ENDINGS: [(&str, &str); 2] = [
    (".mrap", "is of multi-region access points, which are named by their ARN"),
    ("--table-s3", "is of table buckets, which hold no files"),
];

/// What AWS reserves, and other services do not.
fn check_reserved(name: &str) -> Result<(), UsageError> {
    let wrong = |rule: String| Err(UsageError::new(format!("'{name}' is not a bucket's name at AWS: {rule}")));
    if let Some(beginning) = RESERVED_BEGINNINGS.iter().find(|beginning| name.starts_with(**beginning)) {
        return wrong(format!("names that begin with '{beginning}' are reserved"));
    }
    match RESERVED_ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)) {
        Some((ending, what)) => wrong(format!("the ending '{ending}' {what}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_a_source_is_understood() {
        let arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/mine";
        for (typed, bucket, prefix) in [
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/", "bucket", ""),
            ("s3://bucket/a/b", "bucket", "a/b/"),
            ("s3://bucket/a/b/", "bucket", "a/b/"),
            ("s3://bucket/with space/ü", "bucket", "with space/ü/"),
            ("s3://bucket/a:b@c", "bucket", "a:b@c/"),
            ("bucket", "bucket", ""),
            ("bucket:", "bucket", ""),
            ("bucket:/", "bucket", ""),
            ("bucket:/a/b", "bucket", "a/b/"),
            ("bucket:a", "bucket", "a/"),
            ("my.bucket-1", "my.bucket-1", ""),
            ("pailfs#s3://bucket/a", "bucket", "a/"),
            ("pailfs#bucket:/a", "bucket", "a/"),
            ("mine-abc123-s3alias", "mine-abc123-s3alias", ""),
            ("s3://fast--euc1-az1--x-s3/p", "fast--euc1-az1--x-s3", "p/"),
            (arn, arn, ""),
            ("arn:aws:s3:::bucket/p", "bucket", "p/"),
        ] {
            let source = Source::parse(typed).unwrap_or_else(|e| panic!("{typed}: {e}"));
            assert_eq!((source.bucket(), source.prefix().as_str(), source.typed()), (bucket, prefix, typed));
        }
    }

    #[test]
    fn an_access_point_arn_gives_its_region_and_may_carry_a_prefix() {
        let typed = "s3://arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/mine/a/b";
        let source = Source::parse(typed).expect("an ARN behind s3://");
        assert_eq!(source.bucket(), "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/mine");
        assert_eq!((source.prefix().as_str(), source.region()), ("a/b/", Some("cn-north-1")));
        let global = Source::parse("arn:aws:s3::123456789012:accesspoint/abc123.mrap").expect("a multi-region one");
        assert_eq!(global.region(), None);
    }

    #[test]
    fn a_bad_source_is_told_the_rule_that_it_breaks() {
        for (typed, rule) in [
            ("", "is empty"),
            ("s3://", "names no bucket"),
            ("s3:///prefix", "names no bucket"),
            ("s3://Bucket", "lower-case"),
            ("s3://my_bucket", "holds '_'"),
            ("s3://ab", "2 long"),
            ("s3://abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-abcdefghij", "64 long"),
            ("-bucket", "begin and end"),
            ("bucket.", "begin and end"),
            ("my..bucket", "two dots"),
            ("s3://127.0.0.1/x", "IP address"),
            ("http://127.0.0.1:9000/bucket", "endpoint_url"),
            ("gs://bucket", "begins with gs://"),
            ("bucket/prefix", "write s3://bucket/prefix"),
            ("/mnt/data", "write s3://mnt/data"),
            ("arn:aws:s3:eu:123:accesspoint/mine", "12 digits"),
            ("arn:aws:iam::123456789012:role/x", "service s3"),
            ("arn:aws:s3:eu-west-1:123456789012:bucket/x", "no access point"),
            ("arn:aws:s3", "six fields"),
        ] {
            let error = Source::parse(typed).expect_err(typed).to_string();
            assert!(error.contains(rule), "{typed}: {error}");
        }
        assert!(Source::parse(&format!("s3://bucket/{}", "x".repeat(1100))).is_err());
    }

    #[test]
    fn what_aws_reserves_is_told_of_and_aliases_are_not() {
        for (name, rule) in [
            ("xn--bucket", "begin with 'xn--'"),
            ("sthree-bucket", "begin with 'sthree-'"),
            ("amzn-s3-demo-bucket", "begin with 'amzn-s3-demo-'"),
            ("abc.mrap", "named by their ARN"),
            ("data--table-s3", "table buckets"),
        ] {
            let source = Source::parse(name).expect("another service may have it");
            let error = source.check_at_aws().expect_err(name).to_string();
            assert!(error.contains(rule), "{name}: {error}");
        }
        for name in ["mine-abc-s3alias", "mine-abc--ol-s3", "fast--euc1-az1--x-s3", "bucket"] {
            Source::parse(name).expect(name).check_at_aws().expect(name);
        }
    }

    #[test]
    fn a_secret_in_the_source_is_refused_and_not_repeated() {
        for typed in ["s3://AKIA:hush@bucket/p", "AKIA:hush@bucket", "pailfs#AKIA:hush@bucket:/p"] {
            let error = Source::parse(typed).expect_err(typed).to_string();
            assert!(!error.contains("hush") && !error.contains("AKIA"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = Source::parse(&text);
            let _ = Source::parse(&format!("s3://{text}"));
            let _ = Source::parse(&format!("arn:aws:s3:{text}"));
        }

        #[test]
        fn the_prefix_is_empty_or_ends_in_one_slash(prefix in "[a-z/]{0,20}") {
            let source = Source::parse(&format!("s3://bucket/{prefix}")).expect("any such prefix");
            let prefix = source.prefix().as_str();
            prop_assert!(prefix.is_empty() || prefix.ends_with('/') && !prefix.starts_with('/'));
        }
    }
}
