//! One run of the program with an environment of its own, and what it said.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pailfs");

/// No bad start may take longer; a hanging one must not hang the tests.
const LIMIT: Duration = Duration::from_secs(90);

/// A directory with an empty mountpoint and a stage of its own.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// A fresh one, which other users may look into.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("pailfs-test-").tempdir().expect("a temporary directory");
        open_to_all(dir.path());
        std::fs::create_dir(dir.path().join("mnt")).expect("a mountpoint");
        Place { dir }
    }

    /// The mountpoint: an empty directory.
    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    /// Anything else below.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `pailfs SOURCE MOUNTPOINT` with valid-looking keys, ready for more arguments.
    pub fn pailfs(&self, source: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg(source).arg(self.mountpoint());
        self.surroundings(&mut command);
        command
    }

    /// The environment of a user who has keys and nothing else.
    pub fn surroundings(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.dir.path())
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "hush-hush")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .arg("--stage-dir")
            .arg(self.path("stage"));
    }
}

/// Mode 0755: a temporary directory is for its owner alone.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// What a run said.
#[derive(Debug)]
pub struct Said {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard error.
    pub text: String,
}

impl Said {
    /// Asserts the code and the sentence: one line, with all `parts` in it, and without secrets.
    #[track_caller]
    pub fn is(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        assert_eq!(self.text.lines().count(), 1, "one sentence: {}", self.text);
        self.has(parts);
    }

    /// Asserts the `parts` anywhere.
    #[track_caller]
    pub fn has(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text.contains(part), "'{part}' is missing: {}", self.text);
        }
        assert!(!self.text.contains("hush-hush"), "a secret: {}", self.text);
    }
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Said {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let reader = child.stderr.take().map(|stderr| std::thread::spawn(move || std::io::read_to_string(stderr)));
    let code = wait(&mut child).code();
    let text = reader.and_then(|thread| thread.join().ok()).and_then(Result::ok).unwrap_or_default();
    Said { code, text }
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        match child.try_wait().expect("a child of ours") {
            Some(status) => return status,
            None if Instant::now() > deadline => {
                child.kill().expect("a child of ours");
                panic!("no answer within {LIMIT:?}");
            }
            None => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
}

/// True as root, which several tests need to build their surroundings.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and can't fail.
    unsafe { libc::geteuid() == 0 }
}

/// Says why a test can't run here, past the capture of the test harness.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
