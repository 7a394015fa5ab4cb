//! `pailfs demo` as a user runs it: something to look at and to change, and nothing left behind.
#![cfg(feature = "demo")]

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the demonstration may take for anything before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A demonstration that runs. Dropped, it is killed and unmounted, whatever happened; it is killed as well when it
/// hangs, so that a test that waits for a file gets an error.
struct Demo {
    child: Child,
    home: tempfile::TempDir,
    watchdog: Option<mpsc::Sender<()>>,
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: takes two numbers; the process is a child of this one that was not waited for.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

impl Demo {
    /// Starts it with these arguments, `@` standing for its home, and waits until it says how to use it.
    fn start(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let home = tempfile::tempdir().expect("a home");
        prepare(home.path());
        let file = |name: &str| fs::File::create(home.path().join(name)).expect("a file");
        let place = home.path().to_str().expect("UTF-8").to_owned();
        let child = Command::new(env!("CARGO_BIN_EXE_pailfs"))
            .arg("demo")
            .args(arguments.iter().map(|argument| argument.replace('@', &place)))
            .env("HOME", home.path())
            .env("AWS_PROFILE", "not-there")
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("the program runs");
        let pid = child.id();
        let (watchdog, called_off) = mpsc::channel();
        std::thread::spawn(move || {
            if called_off.recv_timeout(2 * PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                signal(pid, libc::SIGKILL);
            }
        });
        let mut demo = Self { child, home, watchdog: Some(watchdog) };
        eventually("it says how to use it", || {
            let ended = demo.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended with {ended:?}: {}", demo.text("err"));
            demo.text("out").contains("Ctrl-C")
        });
        demo
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The word behind this one in what it printed.
    fn printed(&self, before: &str) -> String {
        let text = self.text("out");
        let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}")).1;
        rest.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// An S3 client that knows what was printed and nothing else.
    fn client(&self) -> Client {
        let keys = (self.printed("AWS_ACCESS_KEY_ID="), self.printed("AWS_SECRET_ACCESS_KEY="));
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.printed("AWS_REGION=")))
            .endpoint_url(self.printed("--endpoint-url "))
            .credentials_provider(Credentials::new(keys.0, keys.1, None, None, "printed"))
            .force_path_style(true);
        Client::from_conf(config.build())
    }

    fn end(&mut self, how: libc::c_int) -> ExitStatus {
        signal(self.child.id(), how);
        let mut status = None;
        eventually("it has ended", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.watchdog = None;
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = Command::new("fusermount3").arg("-uz").arg(self.path("pail")).output();
        }
    }
}

fn mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

async fn object(client: &Client, bucket: &str, key: &str) -> Vec<u8> {
    let got = client.get_object().bucket(bucket).key(key).send().await.expect("get");
    got.body.collect().await.expect("a body").to_vec()
}

#[tokio::test]
async fn a_demonstration_is_a_mount_of_the_bucket_it_names_and_cleans_up_after_itself() {
    let mut demo = Demo::start(&["@/pail"], |_| ());
    let pail = demo.path("pail");
    assert!(mounted(&pail));
    let mut names: Vec<_> = fs::read_dir(&pail).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["README.txt", "data", "notes", "photos"]);

    let client = demo.client();
    let readme = fs::read(pail.join("README.txt")).expect("read");
    assert_eq!(readme, object(&client, "demo", "README.txt").await);
    let large = fs::read(pail.join("data/measurements.csv")).expect("read");
    assert!(large.len() > 3_000_000, "{} bytes", large.len());
    assert_eq!(large, object(&client, "demo", "data/measurements.csv").await);

    fs::create_dir(pail.join("new")).expect("mkdir");
    fs::write(pail.join("new/file"), "through the mount").expect("write");
    assert_eq!(object(&client, "demo", "new/file").await, b"through the mount");
    client.put_object().bucket("demo").key("new/object").body(b"through S3".to_vec().into()).send().await.expect("put");
    eventually("the mount shows it", || fs::read(pail.join("new/object")).is_ok_and(|text| text == b"through S3"));

    let status = demo.end(libc::SIGINT);
    assert!(status.success(), "{status}: {}", demo.text("err"));
    assert!(!mounted(&pail));
    assert!(!pail.exists(), "it made the directory, and takes it away");
    assert!(client.list_buckets().send().await.is_err(), "the server is gone");
}

#[test]
fn a_directory_that_was_there_stays() {
    let mut demo = Demo::start(&["@/pail", "-o", "ro"], |home| fs::create_dir(home.join("pail")).expect("mkdir"));
    let pail = demo.path("pail");
    assert!(fs::write(pail.join("new"), "x").is_err(), "options reach the mount");
    let status = demo.end(libc::SIGTERM);
    assert!(status.success(), "{status}: {}", demo.text("err"));
    assert!(!mounted(&pail));
    assert_eq!(fs::read_dir(&pail).expect("the directory").count(), 0);
}

#[tokio::test]
async fn the_server_alone_has_the_bucket_and_the_keys_it_was_asked_for() {
    let keys = ["--bucket", "my-bucket", "--access-key", "me", "--secret-key", "hush"];
    let line = [&["--serve", "--listen", "127.0.0.1:0", "--first-byte-delay", "50ms"], &keys[..]].concat();
    let mut demo = Demo::start(&line, |_| ());
    assert_eq!(demo.printed("AWS_ACCESS_KEY_ID="), "me");
    let client = demo.client();
    let start = Instant::now();
    assert!(!object(&client, "my-bucket", "README.txt").await.is_empty());
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(demo.end(libc::SIGTERM).success());
}

#[test]
fn a_taken_port_is_said_in_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_pailfs")).args(["demo", "--serve", "--listen", &address]).output();
    let output = output.expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains(&address) && said.trim_end().lines().count() == 1, "{said}");
}
