//! The metrics of a mount, as a scraper gets them: they agree with what happened, and nobody gets more than them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pailfs::demo::{Fault, FaultKind, Operation, Shape};

use crate::common::{Capability, Mount, PATIENCE, TestServer, eventually, noise};
use crate::disk_cache::World;
use crate::status::{Writer, report};

/// Connections that are answered at a time.
const CONNECTIONS: usize = 16;

/// Where the metrics of a mount are, as `pailfs status --json` tells.
#[track_caller]
fn address(mount: &Mount) -> String {
    report(mount)["options"]["metrics_addr"].as_str().expect("an address").to_owned()
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// Sends these bytes, and reads to the end. Empty when the connection was closed without an answer.
fn asked(address: &str, request: &str) -> String {
    let (mut stream, mut answer) = (connect(address), Vec::new());
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("UTF-8")
}

fn get(address: &str) -> String {
    asked(address, &format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

/// The text of the metrics.
#[track_caller]
fn page(address: &str) -> String {
    let answer = get(address);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

/// Samples by name and labels, as they are written.
#[derive(Debug)]
struct Samples(BTreeMap<String, f64>);

impl Samples {
    #[track_caller]
    fn of(mount: &Mount) -> Self {
        parse(&page(&address(mount)))
    }

    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("there is no {series}"))
    }

    /// All series of a counter with this label, together.
    fn sum(&self, name: &str, label: &str) -> f64 {
        let of = |series: &str| series.starts_with(&format!("{name}{{")) && series.contains(label);
        self.0.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
    }
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads the text format, version 0.0.4, and fails where it does not keep to it.
#[track_caller]
fn parse(page: &str) -> Samples {
    assert!(page.ends_with('\n'), "the last line has no end");
    let (mut helped, mut kinds, mut samples) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let mut bucket = (String::new(), 0.0);
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").map(|rest| rest.split_once(' ').expect(line)) {
            assert!(is_name(name) && !help.is_empty() && helped.insert(name), "{line}");
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").map(|rest| rest.split_once(' ').expect(line)) {
            assert!(helped.contains(name) && kinds.insert(name, kind).is_none(), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
            None => (series, ""),
        };
        let value: f64 = value.parse().expect(line);
        assert!(is_name(name) && value >= 0.0, "{line}");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').expect(line);
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(line);
            assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
        }
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let kind = kinds.get(name).or_else(|| of_histogram.and_then(|family| kinds.get(family))).expect(line);
        assert!(*kind == "histogram" || kinds.contains_key(name), "{line}");
        if let Some((before, end)) = series.split_once("le=\"") {
            // Each counts those before it too, and the last one all.
            assert!(bucket.0 != before || value >= bucket.1, "{line}");
            bucket = (before.to_owned(), value);
            if end == "+Inf\"}" {
                let count = before.replace("_bucket{", "_count{").trim_end_matches(',').to_owned() + "}";
                assert!(page.contains(&format!("\n{count} {value}\n")), "{count} is not {value}");
            }
        }
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    Samples(samples)
}

#[test]
fn metrics_agree_with_what_the_server_counted() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount_with(&["metrics_addr=0"]);
    server.objects().put("there", noise(1, 100_000));
    let before = Samples::of(&mount);
    server.demo().reset_counters();
    std::fs::write(mount.path("f"), noise(2, 70_000)).expect("stored");
    assert_eq!(std::fs::read(mount.path("there")).expect("read"), noise(1, 100_000));
    assert!(std::fs::metadata(mount.path("absent")).is_err());
    let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(denied).on(Operation::PutObject).times(1));
    std::fs::write(mount.path("refused"), "x").expect("the close that fails says nothing here");
    eventually("it is stored all the same", || server.objects().exists("refused"));
    eventually("nothing is under way", || Samples::of(&mount).get("pailfs_s3_requests_waiting") == 0.0);
    let counters = server.demo().counters();
    let after = Samples::of(&mount);
    let grew = |name: &str, label: &str| after.sum(name, label) - before.sum(name, label);
    for (operation, label) in [
        (Operation::PutObject, "PutObject"),
        (Operation::GetObject, "GetObject"),
        (Operation::ListObjectsV2, "ListObjectsV2"),
    ] {
        let label = format!("operation=\"{label}\"");
        assert_eq!(grew("pailfs_s3_requests_total", &label), counters.requests(operation) as f64, "{label}");
        let took = format!("pailfs_s3_request_duration_seconds_count{{{label}}}");
        assert_eq!(after.get(&took) - before.get(&took), counters.requests(operation) as f64, "{took}");
    }
    let more = |series: &str| after.get(series) - before.get(series);
    assert_eq!(more("pailfs_s3_requests_total{operation=\"PutObject\",status=\"denied\"}"), 1.0);
    assert_eq!(more("pailfs_s3_requests_total{operation=\"PutObject\",status=\"ok\"}"), 2.0);
    assert_eq!(more("pailfs_s3_sent_bytes_total"), 70_001.0);
    assert_eq!(more("pailfs_s3_received_bytes_total"), 100_000.0);
    assert_eq!(more("pailfs_written_bytes_total"), 70_001.0);
    assert_eq!(more("pailfs_read_bytes_total"), 100_000.0);
}

#[test]
fn metrics_count_the_calls_of_programs_by_what_they_were_answered() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metrics_addr=127.0.0.1:0"]);
    let before = Samples::of(&mount);
    std::fs::write(mount.path("f"), "x").expect("stored");
    assert!(std::fs::remove_file(mount.path("absent")).is_err());
    let after = Samples::of(&mount);
    let more = |series: &str| after.get(series) - before.get(series);
    let answers = |operation: &str, status: &str| {
        more(&format!("pailfs_operations_total{{operation=\"{operation}\",status=\"{status}\"}}"))
    };
    assert_eq!((answers("create", "ok"), answers("create", "refused")), (1.0, 0.0));
    assert_eq!((answers("write", "ok"), answers("close", "ok")), (1.0, 1.0));
    assert!(answers("lookup", "refused") >= 1.0);
    assert_eq!(more("pailfs_operation_duration_seconds_count{operation=\"close\"}"), 1.0);
    assert!(more("pailfs_operation_duration_seconds_sum{operation=\"close\"}") > 0.0);
    assert!(after.get("process_resident_memory_bytes") > 1e6);
    assert!(after.get("pailfs_read_buffer_limit_bytes") > 0.0);
}

#[test]
fn metrics_tell_of_files_that_are_not_stored_and_of_the_oldest() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metrics_addr=0"]);
    let dirty = |samples: &Samples| (samples.get("pailfs_dirty_files"), samples.get("pailfs_dirty_bytes"));
    let none = Samples::of(&mount);
    assert_eq!((dirty(&none), none.get("pailfs_dirty_oldest_age_seconds")), ((0.0, 0.0), 0.0));
    let first = Writer::start(&mount, "first");
    let one = Samples::of(&mount);
    assert_eq!(dirty(&one), (1.0, 4.0));
    let second = Writer::start(&mount, "second");
    let two = Samples::of(&mount);
    assert_eq!(dirty(&two), (2.0, 8.0));
    let age = |samples: &Samples| samples.get("pailfs_dirty_oldest_age_seconds");
    assert!(age(&one) > 0.0 && age(&two) > age(&one), "{} and {}", age(&one), age(&two));
    first.end();
    second.end();
    let end = Samples::of(&mount);
    assert_eq!((dirty(&end), age(&end)), ((0.0, 0.0), 0.0));
}

#[test]
fn metrics_count_what_the_disk_cache_saved() {
    let Some(world) = World::new() else { return };
    world.put("f", &noise(1, 500_000));
    let mut mount = world.mount_with(&["cache_min_free=0", "metrics_addr=0"]);
    assert_eq!(std::fs::read(mount.path("f")).expect("read"), noise(1, 500_000));
    assert_eq!(Samples::of(&mount).get("pailfs_cache_read_bytes_total"), 0.0);
    mount.remount();
    assert_eq!(std::fs::read(mount.path("f")).expect("read"), noise(1, 500_000));
    let samples = Samples::of(&mount);
    assert_eq!(samples.get("pailfs_cache_read_bytes_total"), 500_000.0);
    assert!(samples.get("pailfs_cache_reads_total{result=\"hit\"}") >= 1.0);
    assert!(samples.get("pailfs_cache_bytes") >= 500_000.0);
}

#[test]
fn metrics_are_those_of_the_manual() {
    let manual = include_str!("../../man/pailfs.8");
    let items = manual.lines().filter_map(|line| line.strip_prefix(".It Li ")).flat_map(|line| line.split(" , "));
    let is_metric = |name: &&str| name.starts_with("pailfs_") || name.starts_with("process_");
    let told: BTreeSet<&str> = items.filter(is_metric).collect();
    let server = TestServer::start();
    let cache = tempfile::tempdir().expect("a directory");
    let cache = format!("cache_dir={}", cache.path().join("cache").display());
    let mount = server.mount_with(&["metrics_addr=0", "stage_limit=1GiB", &cache]);
    let page = page(&address(&mount));
    let there: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(there, told);
}

#[test]
fn what_was_slow_is_logged_with_the_requests_that_it_waited_for() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let (quick, slow) = (server.mount_with(&["slow_op=3600"]), server.mount_with(&["slow_op=0.2"]));
    std::fs::write(slow.path("before"), "x").expect("stored");
    server.demo().set_shape(Shape { first_byte: Duration::from_millis(300), ..Shape::default() });
    std::fs::write(quick.path("quick"), "x").expect("stored");
    std::fs::write(slow.path("f"), "x").expect("stored");
    eventually("the close is in the log", || slow.log().contains("slow call=\"close\""));
    let log = slow.log();
    let request = log.find("S3 was slow request=\"PutObject\"").expect("the request is in the log");
    assert!(log[request..].contains(&format!("key=\"{}\"", server.key("f"))), "{log}");
    assert!(log[request..].contains("slow call=\"close\""), "the request stands before the call: {log}");
    assert!(!quick.log().contains("slow"), "{}", quick.log());
}

#[test]
fn statistics_are_logged_at_their_interval() {
    let server = TestServer::start();
    let mount = server.mount_with(&["stats_interval=0.1"]);
    std::fs::write(mount.path("f"), noise(1, 7000)).expect("stored");
    let writer = Writer::start(&mount, "open");
    let line = |parts: &[&str]| {
        let log = mount.log();
        log.lines().any(|line| line.contains("statistics ") && parts.iter().all(|part| line.contains(part)))
    };
    eventually("it tells what is written", || line(&["written_bytes=7004", "s3_sent_bytes=7000", "dirty_files=1"]));
    writer.end();
    eventually("it tells that all is stored", || line(&["s3_sent_bytes=7004", "dirty_files=0"]));
}

#[test]
fn metrics_hold_no_secrets_and_no_names() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metrics_addr=0"]);
    std::fs::write(mount.path("a-name-of-a-file"), "x").expect("stored");
    let writer = Writer::start(&mount, "another-name");
    let (told, access) = (page(&address(&mount)), server.access());
    for secret in [&access.access_key, &access.secret_key, "a-name-of-a-file", "another-name", "tests/"] {
        assert!(!told.contains(secret), "{secret} is in {told}");
    }
    writer.end();
}

#[test]
fn a_scraper_gets_the_metrics_and_nothing_else() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metrics_addr=:0"]);
    let address = address(&mount);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(mount.log().contains(&format!("http://{address}/metrics")), "{}", mount.log());
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/../x HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nx=1", "405"),
        ("DELETE / HTTP/1.1\r\n\r\n", "405"),
        ("\u{1}\u{2}\r\n\r\n", "400"),
        (&format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000)), "431"),
        (&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)), "431"),
    ] {
        let answer = asked(&address, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:.60}: {answer}", request);
        assert!(!answer.contains("pailfs_"), "{answer}");
        assert_eq!(answer.contains("\r\nAllow: GET\r\n"), status == "405", "{answer}");
    }
    parse(&page(&address));
}

#[test]
fn scrapers_that_say_nothing_keep_no_other_one_waiting() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metrics_addr=0"]);
    let address = address(&mount);
    let stuck = |count: usize| -> Vec<TcpStream> {
        let half = |mut stream: TcpStream| stream.write_all(b"GET /metrics HTT").map(|()| stream);
        (0..count).map(|_| half(connect(&address)).expect("half a request")).collect()
    };
    let mut waiting = stuck(CONNECTIONS - 1);
    parse(&page(&address));
    // More than that are closed at once, and the mount goes on.
    waiting.extend(stuck(1));
    assert_eq!(get(&address), "");
    std::fs::write(mount.path("f"), "x").expect("stored");
    drop(waiting);
    eventually("there is room again", || get(&address).starts_with("HTTP/1.1 200 "));
}
