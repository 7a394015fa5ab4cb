//! The bucket does not answer, or answers no: S3 is one scripted answer here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Place, Said, run, skip};

/// A server on a free port that gives every request the same answer, until the process ends.
fn answering(status: &'static str, headers: &'static str, code: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, status, headers, code));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, status: &str, headers: &str, code: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    // A TLS handshake begins with 22 and never with a letter: like any HTTP server, this one answers at once then.
    while !head.ends_with(b"\r\n\r\n") && head.first() != Some(&22) && stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    let body = if head.starts_with(b"HEAD") {
        String::new()
    } else {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>scripted</Message></Error>")
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn start_at(endpoint: &str) -> Said {
    let place = Place::new();
    run(place.pailfs("s3://bucket/p").args(["--endpoint-url", endpoint]))
}

#[test]
fn no_such_bucket() {
    let endpoint = answering("404 Not Found", "", "NoSuchBucket");
    start_at(&endpoint).is(32, &["there is no bucket 'bucket' at http://127.0.0.1", "check its name"]);
}

#[test]
fn access_denied() {
    let endpoint = answering("403 Forbidden", "", "AccessDenied");
    start_at(&endpoint).is(32, &["denied (403)", "s3:ListBucket", "prefix 'p/'"]);
}

#[test]
fn a_wrong_access_key() {
    let endpoint = answering("403 Forbidden", "", "InvalidAccessKeyId");
    start_at(&endpoint).is(32, &["refused the credentials", "check the access key"]);
}

#[test]
fn a_wrong_secret_key() {
    let endpoint = answering("403 Forbidden", "", "SignatureDoesNotMatch");
    start_at(&endpoint).is(32, &["refused the credentials", "the secret key"]);
}

#[test]
fn an_expired_token() {
    let endpoint = answering("400 Bad Request", "", "ExpiredToken");
    start_at(&endpoint).is(32, &["refused the credentials", "the session token"]);
}

#[test]
fn a_wrong_region_that_the_server_corrects() {
    let endpoint = answering("301 Moved Permanently", "x-amz-bucket-region: eu-west-1\r\n", "PermanentRedirect");
    start_at(&endpoint).is(32, &["'bucket' is in the region eu-west-1", "-o region=eu-west-1"]);
}

#[test]
fn a_wrong_region_that_the_server_does_not_name() {
    let endpoint = answering("301 Moved Permanently", "", "PermanentRedirect");
    start_at(&endpoint).is(32, &["'bucket' is not in the region us-east-1", "-o region=NAME"]);
}

#[test]
fn a_clock_that_is_too_far_off() {
    let endpoint = answering("403 Forbidden", "", "RequestTimeTooSkewed");
    start_at(&endpoint).is(32, &["the clock of this machine", "timedatectl set-ntp true"]);
}

#[test]
fn no_credentials() {
    let place = Place::new();
    let endpoint = answering("500 Internal Server Error", "", "InternalError");
    let mut command = place.pailfs("s3://bucket");
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").args(["--endpoint-url", &endpoint]);
    run(&mut command).is(32, &["no usable credentials", "AWS_ACCESS_KEY_ID", "-o no_sign_request"]);
}

#[test]
fn a_profile_that_does_not_exist() {
    let place = Place::new();
    let mut command = place.pailfs("s3://bucket");
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let said = run(command.args(["--profile", "nobody-has-this", "--endpoint-url", "http://127.0.0.1:1"]));
    said.is(32, &["no usable credentials"]);
}

/// A port that was free a moment ago, and that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

#[test]
fn an_endpoint_that_nobody_listens_on() {
    let said = start_at(&format!("http://127.0.0.1:{}", closed_port()));
    said.is(32, &["can't be reached", "check endpoint_url and the network"]);
}

#[test]
fn an_endpoint_that_hangs_up_is_called_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    std::thread::spawn(move || listener.incoming().for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst)));
    start_at(&endpoint).is(32, &["can't be reached", "check endpoint_url and the network"]);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn a_host_name_that_nobody_has() {
    // RFC 6761: the top-level domain "invalid" never resolves.
    start_at("http://s3.pailfs.invalid")
        .is(32, &["host name of http://s3.pailfs.invalid is unknown", "check endpoint_url"]);
}

#[test]
fn a_server_that_does_not_speak_tls() {
    let endpoint = answering("200 OK", "", "None").replace("http://", "https://");
    start_at(&endpoint).is(32, &["no secure connection to https://127.0.0.1", "AWS_CA_BUNDLE"]);
}

/// `openssl s_server` with a certificate that it made itself. Dropped, it ends.
struct SelfSigned(std::process::Child, String);

impl SelfSigned {
    fn start(place: &Place) -> Option<Self> {
        let (key, certificate) = (place.path("key.pem"), place.path("cert.pem"));
        let mut request = Command::new("openssl");
        request.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]);
        // The default settings would make it an authority, which no server may be.
        let settings = "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\nsubjectAltName=IP:127.0.0.1\n\
                        basicConstraints=critical,CA:FALSE\n";
        std::fs::write(place.path("openssl.cnf"), settings).expect("a file");
        request.arg("-config").arg(place.path("openssl.cnf"));
        request.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        let Ok(made) = request.output() else {
            assert!(std::env::var_os("PAILFS_TEST_ALL_PROGRAMS").is_none(), "openssl is not installed");
            skip("openssl is not installed");
            return None;
        };
        assert!(made.status.success(), "{made:?}");
        let port = closed_port();
        let mut server = Command::new("openssl");
        server.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}"), "-key"]).arg(&key);
        server.arg("-cert").arg(&certificate).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = SelfSigned(server.spawn().expect("openssl runs"), format!("https://127.0.0.1:{port}"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "openssl does not listen");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(server)
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for() {
    let place = Place::new();
    let Some(server) = SelfSigned::start(&place) else { return };
    let start = |environment: &[(&str, PathBuf)]| {
        let mut command = place.pailfs("s3://bucket/p");
        run(command.args(["--endpoint-url", &server.1]).envs(environment.iter().cloned()))
    };
    let bundle = |name: &str| ("AWS_CA_BUNDLE", place.path(name));
    for environment in [&[][..], &[("AWS_CA_BUNDLE", PathBuf::new())]] {
        let said = start(environment);
        said.is(32, &["no secure connection to https://127.0.0.1", "certificate", "AWS_CA_BUNDLE"]);
    }
    start(&[bundle("missing.pem")]).is(32, &["missing.pem", "can't be read"]);
    start(&[bundle("key.pem")]).is(32, &["key.pem", "holds no certificates"]);
    // Trusted now: what is wrong with it is that it is no S3.
    let trusted =
        |said: Said| assert!(said.code == Some(32) && !said.text.contains("no secure connection"), "{said:?}");
    trusted(start(&[bundle("cert.pem")]));
    // The bundle is trusted beside what the system trusts, not in its place.
    let other = Place::new();
    if SelfSigned::start(&other).is_some() {
        trusted(start(&[("SSL_CERT_FILE", place.path("cert.pem")), ("AWS_CA_BUNDLE", other.path("cert.pem"))]));
    }
}

#[test]
fn a_server_that_fails_all_the_time() {
    let endpoint = answering("503 Service Unavailable", "", "SlowDown");
    start_at(&endpoint).is(32, &["overloaded or failing", "try again later"]);
}

#[test]
fn in_the_foreground_the_sentence_and_the_code_are_the_same() {
    let endpoint = answering("404 Not Found", "", "NoSuchBucket");
    let place = Place::new();
    let mut command: Command = place.pailfs("s3://bucket");
    let said = run(command.args(["--foreground", "--log-level", "off", "--endpoint-url", &endpoint]));
    said.is(32, &["there is no bucket 'bucket'"]);
}

#[test]
fn a_stage_directory_that_cannot_be_made() {
    let place = Place::new();
    std::fs::write(place.path("file"), "").expect("a file");
    let mut command = place.pailfs("s3://bucket");
    let said = run(command.arg("--stage-dir").arg(place.path("file/stage")));
    said.is(2, &["the stage directory", "can't be used", "-o stage_dir=PATH"]);
}

#[test]
fn a_log_file_that_cannot_be_made() {
    let place = Place::new();
    let said = run(place.pailfs("s3://bucket").arg("--log-file").arg(place.path("missing/log")));
    said.is(2, &["the log file", "can't be opened"]);
}

#[test]
fn a_cache_directory_that_cannot_be_used() {
    let place = Place::new();
    std::fs::write(place.path("file"), "").expect("a file");
    std::fs::create_dir(place.path("seen")).expect("a directory");
    let seen = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path("seen"), seen).expect("it is ours");
    for (name, why) in [("file", "not a directory"), ("file/cache", "Not a directory"), ("seen", "chmod 700")] {
        let said = run(place.pailfs("s3://bucket").arg("--cache-dir").arg(place.path(name)));
        said.is(2, &["the cache directory", "can't be used", why, "-o cache_dir=PATH"]);
    }
    let said = run(place.pailfs("s3://bucket").args(["--cache-limit", "1G"]));
    said.is(1, &["cache_limit needs cache_dir"]);
}

#[test]
fn an_address_for_metrics_that_cannot_be_had() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for (address, told, why) in [
        (port.as_str(), format!("127.0.0.1:{port}"), "in use"),
        ("192.0.2.1:9400", "192.0.2.1:9400".to_owned(), "assign"),
        ("no-such-host.invalid:9400", "no-such-host.invalid:9400".to_owned(), ""),
    ] {
        let place = Place::new();
        let said = run(place.pailfs("s3://bucket").arg("--metrics-addr").arg(address));
        said.is(2, &[&format!("no metrics at {told}: "), why, "-o metrics_addr=HOST:PORT"]);
        assert!(!place.path("stage").exists(), "the stage was made before");
    }
    for address in ["nonsense", "70000", "::1", "http://127.0.0.1:9400"] {
        let said = run(Place::new().pailfs("s3://bucket").arg("--metrics-addr").arg(address));
        said.is(1, &["option metrics_addr is HOST:PORT", address]);
    }
}
