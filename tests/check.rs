//! `pailfs check` as a user runs it: what it says of credentials, clock, bucket and rights, and that it leaves nothing behind.
#![cfg(feature = "demo")]

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pailfs::demo::{Bucket, Fault, FaultKind, Operation, Server, ServerOptions};
use serde_json::Value;

const ACCESS_KEY: &str = "AKIDEXAMPLE00001234";
const SECRET: &str = "hush-hush";

/// Longest wait for the program.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a bucket, and the environment of a user who has its keys.
struct World {
    server: Server,
    bucket: Bucket,
    home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        World::in_region("us-east-1")
    }

    fn in_region(region: &str) -> Self {
        let (access_key, secret_key) = (ACCESS_KEY.to_owned(), SECRET.to_owned());
        let options = ServerOptions { access_key, secret_key, region: region.to_owned(), ..ServerOptions::default() };
        let server = Server::start(options).expect("a free port");
        let bucket = server.bucket("bucket");
        World { server, bucket, home: tempfile::tempdir().expect("a home") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pailfs"));
        command.arg("check").args(arguments).env_clear().env("HOME", self.home.path());
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.env("AWS_REGION", self.server.region()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ENDPOINT_URL", self.server.endpoint());
        command
    }

    /// The report of a check, which must end with `code`.
    #[track_caller]
    fn report(&self, code: i32, arguments: &[&str]) -> Value {
        report(code, self.command(arguments).arg("--json"))
    }

    /// Nothing of the check's own is in the bucket.
    #[track_caller]
    fn is_clean(&self) {
        let own: Vec<_> = self.bucket.keys().into_iter().filter(|key| key.contains(".pailfs")).collect();
        assert!(own.is_empty() && self.bucket.uploads().is_empty(), "{own:?} {:?}", self.bucket.uploads());
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the program runs");
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all);
    assert!(!all.contains(SECRET) && !all.contains(ACCESS_KEY), "a secret: {all}");
    output
}

#[track_caller]
fn report(code: i32, command: &mut Command) -> Value {
    let output = run(command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(report["ok"], code == 0, "{report}");
    report
}

/// State and detail of one check.
#[track_caller]
fn of<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = report["checks"].as_array().expect("an array");
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"));
    (check["state"].as_str().expect("a word"), check["detail"].as_str().expect("a text"))
}

const RIGHTS: [&str; 9] =
    ["list", "get", "put", "multipart", "abort", "delete", "copy", "conditional_write", "checksum"];

#[test]
fn it_only_reads_unless_it_is_asked_to_write() {
    let world = World::new();
    world.bucket.put("p/object", "content");
    let report = world.report(0, &["s3://bucket/p"]);
    assert_eq!((of(&report, "list").0, of(&report, "get").0), ("works", "works"));
    for right in &RIGHTS[2..] {
        assert_eq!(of(&report, right), ("not_tried", "use --write"), "{right}");
    }
    let counters = world.server.counters();
    let asked: Vec<_> = counters.iter().map(|(operation, _)| operation).collect();
    assert_eq!(asked, [Operation::ListObjectsV2, Operation::GetObject]);
    assert_eq!(counters.total().requests, 2);
}

#[test]
fn with_write_every_right_is_tried_and_nothing_is_left() {
    let world = World::new();
    world.bucket.put("other", "content");
    let report = world.report(0, &["s3://bucket/p", "--write"]);
    for right in RIGHTS {
        assert_eq!(of(&report, right).0, "works", "{report}");
    }
    assert!(of(&report, "prefix").1.contains("nothing is below it yet"), "{report}");
    assert_eq!(world.bucket.keys(), ["other"]);
    world.is_clean();
}

#[test]
fn the_json_has_the_shape_of_the_manual() {
    let world = World::new();
    let report = world.report(0, &["s3://bucket/p"]);
    let keys: Vec<_> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut told = [
        "ok",
        "source",
        "endpoint",
        "region",
        "region_from",
        "credentials_from",
        "access_key_ends_in",
        "clock_ahead_seconds",
        "checks",
        "not_removed",
    ];
    let mut keys = keys;
    keys.sort_unstable();
    told.sort_unstable();
    assert_eq!(keys, told);
    let names: Vec<_> = report["checks"].as_array().expect("an array").iter().map(|check| &check["name"]).collect();
    assert_eq!(names, [&["credentials", "clock", "bucket", "prefix"][..], &RIGHTS].concat());
    assert_eq!(report["credentials_from"], "the environment");
    assert_eq!(report["access_key_ends_in"], "1234");
    assert_eq!((&report["region"], &report["region_from"]), (&"us-east-1".into(), &"the environment".into()));
    assert_eq!(report["endpoint"], world.server.endpoint());
}

#[test]
fn each_right_that_is_denied_is_told_with_what_fails_without_it_and_nothing_is_left() {
    for (operation, right, loss) in [
        (Operation::GetObject, "get", "no file can be read"),
        (Operation::PutObject, "put", "no file can be stored"),
        (Operation::CreateMultipartUpload, "multipart", "no large file"),
        (Operation::UploadPart, "multipart", "no large file"),
        (Operation::ListParts, "multipart", "no large file"),
        (Operation::CompleteMultipartUpload, "multipart", "no large file"),
        (Operation::CopyObject, "copy", "renamed"),
        (Operation::HeadObject, "checksum", "damage"),
    ] {
        let world = World::new();
        world.server.deny(Some(operation), "p/");
        let report = world.report(1, &["s3://bucket/p", "--write"]);
        let (state, detail) = of(&report, right);
        assert!(
            state == "fails" && detail.contains("denied (403)") && detail.contains(loss),
            "{operation:?}: {report}"
        );
        world.is_clean();
    }
}

#[test]
fn a_step_that_breaks_in_the_middle_leaves_nothing() {
    for operation in [Operation::PutObject, Operation::CopyObject, Operation::CompleteMultipartUpload] {
        let world = World::new();
        let broken = FaultKind::ApplyThenAnswer { status: 400, code: "InvalidRequest".to_owned() };
        world.server.add_fault(Fault::new(broken).on(operation).key(".pailfs-check-"));
        world.report(1, &["s3://bucket/p", "--write"]);
        world.is_clean();
    }
}

#[test]
fn what_may_not_be_removed_is_named() {
    let world = World::new();
    world.server.deny(Some(Operation::DeleteObject), "p/");
    let report = world.report(1, &["s3://bucket/p", "--write"]);
    assert!(of(&report, "delete").1.contains("nothing can be removed"), "{report}");
    let left = report["not_removed"].as_array().expect("an array");
    let keys = world.bucket.keys();
    assert_eq!((left.len(), keys.len()), (3, 3), "{report} {keys:?}");
    for key in keys {
        assert!(
            left.iter().any(|told| told.as_str().is_some_and(|told| told.starts_with(&format!("{key}: ")))),
            "{key}"
        );
    }
}

#[test]
fn an_upload_that_may_not_be_aborted_is_named() {
    let world = World::new();
    world.server.deny(Some(Operation::AbortMultipartUpload), "p/");
    let report = world.report(1, &["s3://bucket/p", "--write"]);
    assert!(of(&report, "abort").1.contains("are paid for"), "{report}");
    assert_eq!(report["not_removed"].as_array().map(Vec::len), Some(1), "{report}");
    assert!(world.bucket.keys().is_empty());
}

#[test]
fn a_store_without_conditions_is_told_of() {
    let world = World::new();
    world.bucket.ignore_conditions();
    let report = world.report(1, &["s3://bucket/p", "--write"]);
    assert!(of(&report, "conditional_write").1.contains("ignores conditions"), "{report}");
    world.is_clean();
}

#[test]
fn a_listing_that_is_denied_does_not_hide_the_other_rights() {
    let world = World::new();
    world.server.deny(Some(Operation::ListObjectsV2), "p/");
    let report = world.report(1, &["s3://bucket/p", "--write"]);
    assert!(of(&report, "list").1.contains("can't be mounted"), "{report}");
    assert_eq!((of(&report, "bucket").0, of(&report, "put").0, of(&report, "get").0), ("works", "works", "works"));
}

#[test]
fn the_profile_that_won_is_named() {
    let world = World::new();
    let dir = world.home.path().join(".aws");
    std::fs::create_dir(&dir).expect("a directory");
    let keys = format!("aws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET}\n");
    std::fs::write(dir.join("credentials"), format!("[work]\n{keys}")).expect("a file");
    std::fs::write(dir.join("config"), "[profile work]\nregion=eu-west-1\n").expect("a file");
    let mut command = world.command(&["s3://bucket", "--json", "-o", "profile=work"]);
    let report =
        report(0, command.env_remove("AWS_REGION").env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    assert_eq!(report["credentials_from"], "the profile work of the shared files, by its keys");
    assert_eq!((&report["region"], &report["region_from"]), (&"eu-west-1".into(), &"the profile".into()));
}

#[test]
fn missing_and_wrong_credentials_are_told() {
    let world = World::new();
    let mut command = world.command(&["s3://bucket", "--json"]);
    let none = report(1, command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY"));
    assert!(of(&none, "credentials").1.contains("no usable credentials"), "{none}");
    assert_eq!(world.server.counters().total().requests, 0);
    let wrong = report(1, world.command(&["s3://bucket", "--json"]).env("AWS_SECRET_ACCESS_KEY", "another"));
    assert!(of(&wrong, "credentials").1.contains("refused the credentials"), "{wrong}");
    assert_eq!(of(&wrong, "put").0, "not_tried");
}

#[test]
fn a_clock_that_is_off_is_told_before_and_after_s3_refuses_it() {
    let world = World::new();
    world.server.set_clock_ahead(600);
    let report = world.report(0, &["s3://bucket"]);
    assert!(report["clock_ahead_seconds"].as_i64().is_some_and(|ahead| (590..=601).contains(&ahead)), "{report}");
    assert!(of(&report, "clock").1.contains("seconds behind that of the store"), "{report}");
    world.server.set_clock_ahead(-3600);
    let report = world.report(1, &["s3://bucket"]);
    let (state, detail) = of(&report, "clock");
    assert!(state == "fails" && detail.contains("ahead of") && detail.contains("15 minutes"), "{report}");
}

#[test]
fn a_bucket_of_another_region_is_told_with_its_region() {
    let world = World::in_region("eu-west-3");
    world.server.add_fault(Fault::new(FaultKind::Answer { status: 301, code: "PermanentRedirect".to_owned() }));
    let report = report(1, world.command(&["s3://bucket", "--json"]).env("AWS_REGION", "us-east-1"));
    assert!(of(&report, "bucket").1.contains("is in the region eu-west-3, not in us-east-1"), "{report}");
}

#[test]
fn a_bucket_that_is_missing_is_told_and_can_be_created() {
    for region in ["us-east-1", "eu-west-3"] {
        let world = World::in_region(region);
        let missing = world.report(1, &["s3://fresh"]);
        assert!(of(&missing, "bucket").1.contains("there is no bucket 'fresh'"), "{missing}");
        let made = world.report(0, &["s3://fresh", "--create"]);
        assert_eq!(of(&made, "create"), ("works", "the bucket was created"));
        let again = world.report(0, &["s3://fresh", "--create"]);
        assert_eq!(of(&again, "create").1, "the bucket is there already, and yours");
    }
}

#[test]
fn a_bucket_of_another_account_is_not_taken() {
    let world = World::new();
    let taken = FaultKind::Answer { status: 409, code: "BucketAlreadyExists".to_owned() };
    world.server.add_fault(Fault::new(taken).on(Operation::CreateBucket));
    let report = world.report(1, &["s3://taken", "--create"]);
    assert!(of(&report, "create").1.contains("belongs to a bucket of another account"), "{report}");
    assert_eq!(world.server.counters().total().requests, 1);
}

#[test]
fn a_policy_is_printed_without_a_request() {
    let world = World::new();
    let policy = |arguments: &[&str]| -> Value {
        let output = run(&mut world.command(arguments));
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let reading = policy(&["s3://bucket/p", "--policy", "ro"]);
    assert_eq!(reading["Statement"][0]["Condition"]["StringLike"]["s3:prefix"][0], "p/*");
    assert_eq!(reading["Statement"][1]["Resource"], "arn:aws:s3:::bucket/p/*");
    assert!(!reading.to_string().contains("s3:PutObject"), "{reading}");
    let writing = policy(&["s3://bucket", "--policy", "rw", "-o", "region=cn-north-1"]);
    assert_eq!(writing["Statement"][1]["Resource"], "arn:aws-cn:s3:::bucket/*");
    assert!(writing["Statement"][0].get("Condition").is_none(), "{writing}");
    for action in ["PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts"] {
        assert!(writing.to_string().contains(&format!("s3:{action}")), "{action}: {writing}");
    }
    assert_eq!(world.server.counters().total().requests, 0);
}

#[test]
fn a_wrong_call_has_an_exit_code_of_its_own() {
    let world = World::new();
    for (arguments, part) in [
        (&[][..], "missing <SOURCE>"),
        (&["s3://Bucket"], "lower-case"),
        (&["s3://bucket", "--policy", "all"], "no value of --policy"),
        (&["s3://bucket", "--policy", "ro", "--write"], "cannot be used with"),
        (&["s3://bucket", "--write", "-o", "ro"], "never writes"),
        (&["s3://fast--euc1-az1--x-s3", "--create"], "general purpose buckets"),
        (&["s3://mine-abc-s3alias", "--policy", "ro"], "the ARN of the access point"),
    ] {
        let output = run(&mut world.command(arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(part), "{arguments:?}: {said}");
    }
    let reserved = run(world.command(&["s3://sthree-bucket"]).env_remove("AWS_ENDPOINT_URL"));
    assert_eq!(reserved.status.code(), Some(2), "{reserved:?}");
}

#[test]
fn the_text_has_a_line_for_each() {
    let world = World::new();
    let output = run(&mut world.command(&["s3://bucket/p"]));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for part in ["credentials        works: from the environment", "conditional write  not tried: use --write"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_interrupted_check_leaves_nothing() {
    let world = World::new();
    let silence = FaultKind::Silence { applied: true, pause: Duration::from_secs(600) };
    world.server.add_fault(Fault::new(silence).on(Operation::UploadPart).once());
    let mut command = world.command(&["s3://bucket/p", "--write"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let start = Instant::now();
    while world.server.counters().requests(Operation::UploadPart) == 0 {
        assert!(start.elapsed() < PATIENCE, "no part is uploaded");
        std::thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: takes two numbers; the process is a child of this one that was not waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let output = child.wait_with_output().expect("a child of ours");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("SIGINT came before"), "{said}");
    world.is_clean();
}

/// Where the suite runs on another server, the check of it agrees with what the suite relies on.
#[test]
fn another_server_passes() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(endpoint), Some(bucket)) = (variable("PAILFS_TEST_ENDPOINT"), variable("PAILFS_TEST_BUCKET")) else {
        let _ = writeln!(std::io::stderr(), "skipped: another_server_passes: PAILFS_TEST_ENDPOINT is not set");
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pailfs"));
    command.args(["check", &format!("s3://{bucket}/check-{}", std::process::id()), "--write", "--json"]);
    let report = report(0, command.args(["--endpoint-url", &endpoint]));
    for right in RIGHTS {
        assert_eq!(of(&report, right).0, "works", "{report}");
    }
    assert_eq!(report["not_removed"].as_array().map(Vec::len), Some(0), "{report}");
}
