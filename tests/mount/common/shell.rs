//! Real programs, watched so that a hung one fails its test instead of the whole run. Long is not hung: a script may take
//! any time as long as it goes on printing.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::mount::Lifeline;
use super::{skipped, starting, test_name};

/// Longest that a script may print nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

/// Most bytes of a script's output that a failure shows.
const SHOWN: usize = 8000;

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
    lifeline: Lifeline,
}

/// How a script ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Shell {
    /// In `dir`; `$LOCAL` and `$HOME` are `local`. A script that goes on keeps `lifeline`'s mount alive.
    pub fn new(dir: &Path, local: &Path, lifeline: Lifeline) -> Self {
        Shell { dir: dir.to_owned(), local: local.to_owned(), lifeline }
    }

    /// Runs a script that must succeed, and returns its standard output without the last newline.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let finished = self.attempt(script);
        assert!(
            finished.status.success(),
            "{script}\nended with {}\n{}{}",
            finished.status,
            end_of(&finished.stdout),
            end_of(&finished.stderr)
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
        let length = |file: &tempfile::NamedTempFile| file.as_file().metadata().map_or(0, |metadata| metadata.len());
        let status = self.wait(&mut child, || length(&output) + length(&errors));
        let read = |file: &tempfile::NamedTempFile| {
            String::from_utf8_lossy(&std::fs::read(file.path()).unwrap_or_default()).into_owned()
        };
        let status =
            status.unwrap_or_else(|| panic!("{script}\nhung\n{}{}", end_of(&read(&output)), end_of(&read(&errors))));
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

    /// Waits for a child as long as `printed` grows; when it has not for [`SILENCE_LIMIT`], its whole process group is
    /// killed.
    fn wait(&self, child: &mut Child, printed: impl Fn() -> u64) -> Option<ExitStatus> {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(status);
            }
            let now = printed();
            if now != before {
                (before, since) = (now, Instant::now());
                self.lifeline.renew();
            }
            if since.elapsed() > SILENCE_LIMIT {
                super::signal(-(child.id() as i32), libc::SIGKILL);
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn end_of(text: &str) -> &str {
    let mut from = text.len().saturating_sub(SHOWN);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
