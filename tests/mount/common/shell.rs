//! Real programs, run with a deadline so that a hung one fails its test instead of the whole run.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{holds_within, skipped, starting, test_name};

/// Longest that one script may take.
const SCRIPT_LIMIT: Duration = Duration::from_secs(600);

/// True if the program can be run here; else a line says that the test is skipped. Where all programs must be there
/// (`PAILFS_TEST_ALL_PROGRAMS`, as in CI) a missing one is a failure.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if !found {
        assert!(std::env::var_os("PAILFS_TEST_ALL_PROGRAMS").is_none(), "{name} is not installed");
        skipped(&test_name(), &format!("{name} is not installed"));
    }
    found
}

/// Runs bash scripts in one directory.
pub struct Shell {
    dir: PathBuf,
    local: PathBuf,
}

/// How a script ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Shell {
    /// In `dir`; `$LOCAL` and `$HOME` are `local`.
    pub fn new(dir: &Path, local: &Path) -> Self {
        Shell { dir: dir.to_owned(), local: local.to_owned() }
    }

    /// Runs a script that must succeed, and returns its standard output without the last newline.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let finished = self.attempt(script);
        assert!(
            finished.status.success(),
            "{script}\nended with {}\n{}{}",
            finished.status,
            finished.stdout,
            finished.stderr
        );
        finished.stdout.trim_end_matches('\n').to_owned()
    }

    /// Runs a script that may fail.
    #[track_caller]
    pub fn attempt(&self, script: &str) -> Finished {
        let output = tempfile::NamedTempFile::new().expect("a file for output");
        let errors = tempfile::NamedTempFile::new().expect("a file for errors");
        let reopen = |file: &tempfile::NamedTempFile| file.reopen().expect("a second handle");
        let mut child = self.start_with(script, reopen(&output), reopen(&errors));
        let status = wait(&mut child, SCRIPT_LIMIT);
        let read = |file: &tempfile::NamedTempFile| {
            String::from_utf8_lossy(&std::fs::read(file.path()).unwrap_or_default()).into_owned()
        };
        let status = status.unwrap_or_else(|| panic!("{script}\nhung\n{}{}", read(&output), read(&errors)));
        Finished { status, stdout: read(&output), stderr: read(&errors) }
    }

    /// Starts a script in the background.
    pub fn start(&self, script: &str) -> Child {
        let null = || File::options().write(true).open("/dev/null").expect("/dev/null");
        self.start_with(script, null(), null())
    }

    fn start_with(&self, script: &str, output: File, errors: File) -> Child {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(&self.dir).process_group(0);
        command.env("LOCAL", &self.local).env("HOME", &self.local).env("LC_ALL", "C.UTF-8");
        command.env("GIT_CONFIG_NOSYSTEM", "1");
        let _starting = starting();
        command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("bash runs")
    }
}

/// Waits for a child; at the limit its whole process group is killed.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    holds_within(limit, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if status.is_none() {
        super::signal(-(child.id() as i32), libc::SIGKILL);
    }
    status
}
