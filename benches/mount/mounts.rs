//! The programs that are compared, and a mount made with one of them.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pailfs::demo::Server;

use super::Failure;

/// Longest that mounting or unmounting may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Pailfs,
    S3fs,
    Rclone,
}

impl Program {
    /// pailfs, and with `peers` the others.
    pub fn all(peers: bool) -> Vec<Program> {
        if peers { vec![Program::Pailfs, Program::S3fs, Program::Rclone] } else { vec![Program::Pailfs] }
    }

    /// rclone's fsync and close return before anything is stored: how long its writing takes would say nothing.
    pub fn stores_at_close(self) -> bool {
        self != Program::Rclone
    }

    pub fn name(self) -> &'static str {
        match self {
            Program::Pailfs => "pailfs",
            Program::S3fs => "s3fs",
            Program::Rclone => "rclone",
        }
    }

    pub fn is_installed(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        self == Program::Pailfs || std::env::split_paths(&path).any(|dir| dir.join(self.name()).is_file())
    }

    /// The command that mounts the bucket `bench` at `root` and returns when it is mounted or soon will be.
    fn command(self, server: &Server, home: &Path, root: &Path, more: &str) -> Result<Command, Failure> {
        let endpoint = server.endpoint();
        let mut command = match self {
            Program::Pailfs => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_pailfs"));
                command.arg("s3://bench").arg(root).arg("-o");
                command
                    .arg(format!("endpoint_url={endpoint},region=us-east-1,stage_dir={}/stage{more}", home.display()));
                command
            }
            Program::S3fs => {
                let keys = home.join("passwd-s3fs");
                let mut file =
                    std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&keys)?;
                std::io::Write::write_all(
                    &mut file,
                    format!("{}:{}", server.access_key(), server.secret_key()).as_bytes(),
                )?;
                let mut command = Command::new("s3fs");
                command.arg("bench").arg(root).arg("-o").arg(format!(
                    "passwd_file={},url={endpoint},use_path_request_style,tmpdir={}",
                    keys.display(),
                    home.display()
                ));
                command
            }
            Program::Rclone => {
                let mut command = Command::new("rclone");
                command.arg("mount").arg(":s3:bench").arg(root).args(["--daemon", "--s3-provider", "Other"]);
                command.args(["--s3-env-auth", "--s3-force-path-style", "--s3-region", "us-east-1"]);
                command.args(["--s3-endpoint", &endpoint, "--config", ""]).env_remove("AWS_CA_BUNDLE");
                command
            }
        };
        command.env("AWS_ACCESS_KEY_ID", server.access_key()).env("AWS_SECRET_ACCESS_KEY", server.secret_key());
        command.env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
        Ok(command)
    }
}

/// A mount that is taken away when it is dropped.
pub struct Mounted {
    home: tempfile::TempDir,
    root: PathBuf,
}

impl Mounted {
    /// Mounts the server's bucket `bench`.
    pub fn start(program: Program, server: &Server) -> Result<Self, Failure> {
        Self::start_with(program, server, "")
    }

    /// As [`Mounted::start`], for pailfs with more options, each after a comma.
    pub fn start_with(program: Program, server: &Server, more: &str) -> Result<Self, Failure> {
        let home = tempfile::tempdir()?;
        let root = home.path().join("mnt");
        std::fs::create_dir(&root)?;
        let outside = std::fs::metadata(home.path())?.dev();
        let mounted = Mounted { home, root };
        let status = program.command(server, mounted.home.path(), &mounted.root, more)?.status()?;
        if !status.success() {
            return Err(format!("mounting ended with {status}").into());
        }
        let there = || std::fs::metadata(&mounted.root).is_ok_and(|stat| stat.dev() != outside);
        if within_limit(there) { Ok(mounted) } else { Err("the mount does not show up".into()) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Most memory that its daemon had at once, in bytes; 0 when that can't be told.
    pub fn peak_memory(&self) -> u64 {
        let wanted = self.root.to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let daemons = processes.map(|process| process.path()).filter(|process| {
            std::fs::read(process.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&wanted))
        });
        let peak = |process: PathBuf| {
            let status = std::fs::read_to_string(process.join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        daemons.filter_map(peak).max().unwrap_or_default() << 10
    }

    fn unmount(&self, flag: &str) -> bool {
        let output = Command::new("fusermount3").arg(flag).arg(&self.root).output();
        output.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !within_limit(|| self.unmount("-u")) {
            self.unmount("-uz");
        }
        // Until its daemon has ended the directory below may still be in use; others would take its time for theirs.
        let path = self.home.path().to_owned();
        within_limit(|| !names_on_a_command_line(&path));
    }
}

fn within_limit(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > LIMIT {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// True while some process has a path below `dir` among its arguments: the daemon of a mount there.
fn names_on_a_command_line(dir: &Path) -> bool {
    let wanted = dir.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(&wanted))
}
