//! What a user is told when a command fails: one plain sentence with the way out, and an exit code of mount(8).

use std::process::ExitCode;

use super::control::Trouble;
use crate::config::{Config, UsageError};
use crate::error::Error;
use crate::fuse::mount::MountError;

/// Exit codes, as mount(8) documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Wrong call, or missing permissions.
    Usage = 1,
    /// The machine lacks something, or a system call failed.
    System = 2,
    /// The mount failed.
    Mount = 32,
}

impl Status {
    /// As a process ends with it.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// A command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    sentence: String,
    status: Status,
}

impl Failure {
    /// Takes a sentence without its full stop; line breaks are taken out.
    pub fn new(status: Status, sentence: impl AsRef<str>) -> Self {
        Failure { sentence: one_line(sentence.as_ref()), status }
    }

    /// For a system call or thread that failed.
    pub fn system(what: &str, error: &std::io::Error) -> Self {
        Failure::new(Status::System, format!("{what} failed: {error}"))
    }

    /// The stage can't be used.
    pub fn of_stage(error: &Error, config: &Config) -> Self {
        let dir = config.stage.dir.display();
        Failure::new(
            Status::System,
            format!("the stage directory {dir} can't be used: {error}; name another with -o stage_dir=PATH"),
        )
    }

    /// The directory of the disk cache can't be used.
    pub fn of_cache(error: &Error, dir: &std::path::Path) -> Self {
        let dir = dir.display();
        let sentence = format!("the cache directory {dir} can't be used: {error}; name another with -o cache_dir=PATH");
        Failure::new(Status::System, sentence)
    }

    /// The bucket did not answer as it should.
    pub fn of_store(error: &Error, config: &Config, region: Option<&str>) -> Self {
        Failure::new(Status::Mount, store_sentence(error, config, region))
    }

    /// The sentence.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// The exit code.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Says it on standard error, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        super::say(&self.sentence);
        ExitCode::from(self.status.code())
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Failure::new(Status::Usage, error.to_string())
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let status = match &trouble {
            Trouble::NotMounted(_) | Trouble::NoSocket(_) => Status::Usage,
            Trouble::NoTable(_) | Trouble::Silent(..) => Status::System,
        };
        Failure::new(status, trouble.to_string())
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let status = match &error {
            MountError::DeviceDenied | MountError::AllowOtherForbidden => Status::Usage,
            MountError::NoDevice | MountError::NoFusermount => Status::System,
            MountError::Missing(_)
            | MountError::NotDirectory(_)
            | MountError::NotEmpty(_)
            | MountError::AlreadyMounted { .. }
            | MountError::Dead { .. }
            | MountError::NotOurs(_)
            | MountError::Busy(_)
            | MountError::Fusermount(_)
            | MountError::System { .. } => Status::Mount,
        };
        Failure::new(status, error.to_string())
    }
}

fn store_sentence(error: &Error, config: &Config, region: Option<&str>) -> String {
    let bucket = config.source.bucket();
    let endpoint = config.store.endpoint_url.as_deref();
    let service = endpoint.unwrap_or("AWS");
    match &brief(error) {
        Error::NoSuchBucket | Error::NotFound => {
            format!("there is no bucket '{bucket}' at {service}; check its name, or create it first")
        }
        Error::WrongRegion(Some(right)) => format!(
            "the bucket '{bucket}' is in the region {right}{}; mount it with -o region={right}",
            region.filter(|asked| asked != right).map(|asked| format!(", not in {asked}")).unwrap_or_default()
        ),
        Error::WrongRegion(None) => format!(
            "the bucket '{bucket}' is not in the region {}; name its region with -o region=NAME",
            region.unwrap_or("that was asked")
        ),
        Error::AccessDenied(_) => format!(
            "access to the bucket '{bucket}' was denied (403); the credentials need s3:ListBucket on it{}",
            if config.source.prefix().as_str().is_empty() {
                String::new()
            } else {
                format!(" for the prefix '{}'", config.source.prefix())
            }
        ),
        Error::Credentials(detail) => format!(
            "no usable credentials were found ({detail}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a \
             profile with -o profile=NAME, or use -o no_sign_request for a public bucket"
        ),
        Error::BadCredentials(detail) => format!(
            "{service} refused the credentials ({detail}); check the access key, the secret key and the session token"
        ),
        Error::Unreachable(detail) => {
            format!("{service} can't be reached ({detail}); check {} and the network", endpoint_word(endpoint))
        }
        Error::UnknownHost(detail) => format!(
            "the host name of {service} is unknown ({detail}); check {} and the name service",
            endpoint_word(endpoint)
        ),
        Error::Tls(detail) => format!(
            "no secure connection to {service} ({detail}); check that it speaks TLS with a certificate that this \
             machine trusts (AWS_CA_BUNDLE names further ones)"
        ),
        Error::ClockSkew => format!(
            "the clock of this machine is too far from that of {service}; set it right, for example with: \
             timedatectl set-ntp true"
        ),
        Error::Timeout(detail) => {
            format!("{service} gave no answer in time ({detail}); check the network, and try again")
        }
        Error::Unavailable(detail) => format!("{service} is overloaded or failing ({detail}); try again later"),
        Error::CustomerKey(sentence) => sentence.clone(),
        other => format!("the bucket '{bucket}' at {service} can't be used: {other}; check the source and the options"),
    }
}

/// Longest detail within a sentence: the credential chain tells a paragraph, and the way out stands behind it.
const LONGEST_DETAIL: usize = 160;

/// The same with its detail cut at a length that a reader bears.
fn brief(error: &Error) -> Error {
    let cut = |detail: &String| match detail.char_indices().nth(LONGEST_DETAIL) {
        None => detail.clone(),
        Some((end, _)) => format!("{} ...", detail[..end].trim_end()),
    };
    match error {
        Error::Credentials(detail) => Error::Credentials(cut(detail)),
        Error::BadCredentials(detail) => Error::BadCredentials(cut(detail)),
        Error::Unreachable(detail) => Error::Unreachable(cut(detail)),
        Error::UnknownHost(detail) => Error::UnknownHost(cut(detail)),
        Error::Tls(detail) => Error::Tls(cut(detail)),
        Error::Timeout(detail) => Error::Timeout(cut(detail)),
        Error::Unavailable(detail) => Error::Unavailable(cut(detail)),
        other => other.clone(),
    }
}

fn endpoint_word(endpoint: Option<&str>) -> &'static str {
    if endpoint.is_some() { "endpoint_url" } else { "the region" }
}

/// Longest sentence: details come from servers and libraries.
const LONGEST: usize = 600;

fn one_line(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_control()).map(str::trim).filter(|part| !part.is_empty()).collect();
    words.join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{Request, parse};

    fn config(line: &[&str]) -> Config {
        match parse(line.iter().map(OsString::from).collect()) {
            Ok(Request::Mount(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_error_of_the_store_is_a_sentence_with_a_way_out() {
        let config = config(&["pailfs", "s3://bucket/p", "/mnt", "--endpoint-url", "http://h:9"]);
        let text = || "detail".to_owned();
        for (error, part) in [
            (Error::NoSuchBucket, "there is no bucket 'bucket' at http://h:9"),
            (Error::WrongRegion(Some("eu-west-1".into())), "not in us-east-1; mount it with -o region=eu-west-1"),
            (Error::WrongRegion(None), "name its region with -o region=NAME"),
            (Error::AccessDenied(text()), "need s3:ListBucket on it for the prefix 'p/'"),
            (Error::Credentials(text()), "-o no_sign_request"),
            (Error::BadCredentials(text()), "refused the credentials (detail)"),
            (Error::Unreachable(text()), "can't be reached (detail); check endpoint_url"),
            (Error::UnknownHost(text()), "host name"),
            (Error::Tls(text()), "AWS_CA_BUNDLE"),
            (Error::ClockSkew, "clock"),
            (Error::Timeout(text()), "in time"),
            (Error::Unavailable(text()), "try again later"),
            (Error::Internal("x"), "can't be used"),
        ] {
            let failure = Failure::of_store(&error, &config, Some("us-east-1"));
            assert!(failure.sentence().contains(part), "{}", failure.sentence());
            assert_eq!(failure.status(), Status::Mount);
        }
    }

    #[test]
    fn a_detail_of_many_lines_becomes_one_bounded_line() {
        let failure = Failure::new(Status::System, format!("a\n\n b\t{}", "x".repeat(9999)));
        assert!(failure.sentence().starts_with("a b x") && failure.sentence().len() <= LONGEST);
    }
}
