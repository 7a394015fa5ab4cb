//! `pailfs demo` as it was asked for: its arguments, and what they mean once they are checked.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::UsageError;
use super::value;

/// `pailfs demo`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoRequest {
    /// Where to mount; absolute. `None` only with `serve`.
    pub directory: Option<PathBuf>,
    /// The server alone, without a mount.
    pub serve: bool,
    /// The server.
    pub server: DemoServer,
    /// More options for the mount, as given with `-o`.
    pub options: Vec<String>,
}

/// The S3 server of the demonstration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoServer {
    /// Where it listens; any free port of this machine when not given.
    pub listen: Option<SocketAddr>,
    /// The bucket it has.
    pub bucket: String,
    /// The keys it knows.
    pub access_key: String,
    /// The secret of these.
    pub secret_key: String,
    /// From the end of a request to the first byte of its reply.
    pub first_byte_delay: Duration,
    /// Bytes a second on one connection, each way.
    pub bandwidth: Option<u64>,
}

/// Its definition.
pub(super) fn command() -> Command {
    // A value that begins with a hyphen is still a value, and refused by its own rule.
    let option =
        |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value).allow_hyphen_values(true);
    Command::new("demo")
        .about("Mount a bucket from an S3 server within this process, to try it")
        .arg(
            Arg::new("DIR")
                .value_parser(value_parser!(OsString))
                .required(false)
                .value_hint(ValueHint::DirPath)
                .help("Where to mount; made if missing"),
        )
        .arg(Arg::new("serve").long("serve").action(ArgAction::SetTrue).help("Only serve S3, mount nothing"))
        .arg(option("listen", "ADDRESS:PORT").help("Where the server listens"))
        .arg(option("bucket", "NAME").default_value("demo").help("The bucket it has"))
        .arg(option("access-key", "KEY").default_value("demo").help("The access key it knows"))
        .arg(option("secret-key", "SECRET").default_value("demo-secret").help("The secret of that key"))
        .arg(option("first-byte-delay", "TIME").help("How long each reply waits, such as 20ms"))
        .arg(option("bandwidth", "SIZE").help("Bytes a second on one connection, such as 10MiB"))
        .arg(
            Arg::new("options")
                .short('o')
                .value_name("NAME=VALUE,...")
                .action(ArgAction::Append)
                .help("Options as of 'pailfs mount'"),
        )
}

/// Its arguments, checked.
pub(super) fn request(matches: &ArgMatches) -> Result<DemoRequest, UsageError> {
    let serve = matches.get_flag("serve");
    let directory = matches.get_one::<OsString>("DIR").map(std::path::absolute).transpose();
    let directory = directory.map_err(|_| UsageError::new("the directory is empty; name one"))?;
    if directory.is_none() && !serve {
        return Err(UsageError::new("demo needs a directory to mount at (it is made if missing), or --serve"));
    }
    if directory.is_some() && serve {
        return Err(UsageError::new("demo --serve mounts nothing; leave out the directory or --serve"));
    }
    let options = matches.get_many::<String>("options").map(|lists| lists.cloned().collect()).unwrap_or_default();
    Ok(DemoRequest { directory, serve, server: server(matches)?, options })
}

fn server(matches: &ArgMatches) -> Result<DemoServer, UsageError> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let refused = |name: &str, rule: &str, text: &str| UsageError::new(format!("option {name} {rule}, not '{text}'"));
    let listen = text("listen")
        .map(|text| text.parse().map_err(|_| refused("listen", "is an address and port such as 127.0.0.1:9000", text)));
    let delay = text("first-byte-delay")
        .map(|text| time(text).ok_or_else(|| refused("first-byte-delay", "is a time such as 20ms or 1.5s", text)));
    let bandwidth = text("bandwidth").map(|text| {
        let bytes = value::size(text).filter(|bytes| *bytes > 0);
        bytes.ok_or_else(|| refused("bandwidth", "is a size such as 10MiB, which passes in a second", text))
    });
    let bucket = text("bucket").unwrap_or_default();
    if !is_bucket_name(bucket) {
        return Err(refused("bucket", "is 3 to 63 lower-case letters, digits, '-' and '.'", bucket));
    }
    Ok(DemoServer {
        listen: listen.transpose()?,
        bucket: bucket.to_owned(),
        access_key: text("access-key").unwrap_or_default().to_owned(),
        secret_key: text("secret-key").unwrap_or_default().to_owned(),
        first_byte_delay: delay.transpose()?.unwrap_or_default(),
        bandwidth: bandwidth.transpose()?,
    })
}

/// `20ms`, `1.5s`, or seconds without a unit; at most an hour.
fn time(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1000.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok()? / unit;
    (0.0..=3600.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// The rules of S3 as far as the server asks for them (S3 User Guide, "Bucket naming rules").
fn is_bucket_name(name: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-' || *byte == b'.')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && !name.contains("..")
        && !name.starts_with("xn--")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Result<DemoRequest, String> {
        let matches = command().try_get_matches_from([&["demo"], line].concat()).map_err(|error| error.to_string())?;
        request(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_is_described_in_full() {
        let line = ["--serve", "--listen", "127.0.0.1:9000", "--bucket", "b-1", "--bandwidth=10MiB"];
        let server = read(&[&line[..], &["--first-byte-delay", "20ms"]].concat()).map(|request| request.server);
        let server = server.expect("a good line");
        assert_eq!(server.listen, "127.0.0.1:9000".parse().ok());
        assert_eq!(server.bucket, "b-1");
        assert_eq!(server.bandwidth, Some(10 << 20));
        assert_eq!(server.first_byte_delay, Duration::from_millis(20));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (line, part) in [
            (&["--serve", "--listen", "here"][..], "address and port"),
            (&["--serve", "--bandwidth", "fast"], "such as 10MiB"),
            (&["--serve", "--bandwidth", "0"], "such as 10MiB"),
            (&["--serve", "--first-byte-delay", "-1s"], "such as 20ms"),
            (&["--serve", "--bucket", "No"], "lower-case"),
            (&["--serve", "/mnt"], "mounts nothing"),
            (&[], "needs a directory"),
        ] {
            let refused = read(line).expect_err("refused");
            assert!(refused.contains(part), "{line:?}: {refused}");
        }
    }

    #[test]
    fn a_time_has_a_unit_or_is_seconds() {
        assert_eq!(time("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(time("2"), Some(Duration::from_secs(2)));
        assert_eq!([time("inf"), time("NaN"), time("1h"), time("")], [None; 4]);
    }
}
