//! A mount of the program under test, as a user makes it: in the background, ready when the command returns.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

use super::process::{alive, children_matching, peak_memory, signal, still_there};
use super::server::TestServer;
use super::shell::Shell;
use super::{PATIENCE, eventually, holds_within, starting};

/// A mount that lives longer than this without a program on it printing anything hangs: its daemon is killed, so that
/// whoever waits on it gets an error.
const LIFE: Duration = Duration::from_secs(900);

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    options: Vec<String>,
    stage: Option<PathBuf>,
}

impl MountOptions {
    /// With these `-o` options.
    pub fn new(options: &[&str]) -> Self {
        MountOptions { options: options.iter().map(|option| (*option).to_owned()).collect(), stage: None }
    }

    /// With this stage directory, which outlives the mount.
    pub fn stage(mut self, dir: &Path) -> Self {
        self.stage = Some(dir.to_owned());
        self
    }
}

/// A mounted prefix. Dropped, it is unmounted and its daemon ended, whatever happened.
pub struct Mount {
    home: tempfile::TempDir,
    root: PathBuf,
    pid: i32,
    mounted: bool,
    command: MountCommand,
    lifeline: Lifeline,
}

/// The command line, kept for a remount.
#[derive(Clone, Debug)]
struct MountCommand {
    source: String,
    options: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Mount {
    /// Mounts `server`'s prefix and fails the test if that does not work.
    #[track_caller]
    pub fn start(server: &TestServer, options: MountOptions) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "there is no /dev/fuse: the mount tests need FUSE (modprobe fuse; in a container: --device /dev/fuse \
             --cap-add SYS_ADMIN)"
        );
        let home = tempfile::tempdir().expect("a directory for the mount");
        let root = home.path().join("mnt");
        std::fs::create_dir(&root).expect("a mountpoint");
        let stage = options.stage.unwrap_or_else(|| home.path().join("stage"));
        let mut all = server.endpoint_options();
        all.push(format!("stage_dir={}", stage.display()));
        all.push(format!("log_file={}", home.path().join("log").display()));
        if std::env::var_os("PAILFS_TEST_CACHE").is_some() && !has_cache(&options.options) {
            all.push(format!("cache_dir={}", home.path().join("cache").display()));
            all.push("cache_min_free=0".to_owned());
        }
        all.extend(options.options);
        let command = MountCommand { source: server.source(), options: all, environment: server.environment() };
        let mut mount = Mount { home, root, pid: 0, mounted: false, command, lifeline: Lifeline::default() };
        mount.mount_again();
        mount
    }

    /// Mounts after [`unmount`](Self::unmount), with the same options and stage.
    #[track_caller]
    pub fn mount_again(&mut self) {
        let output = self.try_mount();
        assert!(
            output.status.success(),
            "pailfs {} did not mount ({}): {}{}",
            self.command.source,
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        self.mounted = true;
        let mut pids = Vec::new();
        eventually("one daemon serves the mount", || {
            pids = children_matching(&self.root);
            pids.len() == 1
        });
        self.pid = pids[0];
        self.lifeline = Lifeline(Some(watch(self.pid)));
    }

    /// Runs the mount command and returns what it said.
    pub fn try_mount(&self) -> Output {
        let errors = self.home.path().join("errors");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pailfs"));
        command.arg(&self.command.source).arg(&self.root).arg("-o").arg(self.command.options.join(","));
        command.env("HOME", self.home.path()).envs(self.command.environment.iter().cloned());
        // A file, since a pipe would stay open in a daemon that keeps its standard error.
        let file = std::fs::File::create(&errors).expect("a file for errors");
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(file);
        let child = {
            let _starting = starting();
            command.spawn()
        };
        let status = child.and_then(|mut child| child.wait()).expect("the program runs");
        Output { status, stdout: Vec::new(), stderr: std::fs::read(&errors).unwrap_or_default() }
    }

    /// Runs `pailfs recover` for this source and stage, and returns how it ended and all that it said.
    pub fn recover(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pailfs"));
        command.args(["recover", &self.command.source, "-o", &self.command.options.join(",")]).args(arguments);
        command.env("HOME", self.home.path()).envs(self.command.environment.iter().cloned());
        let child = {
            let _starting = starting();
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn()
        };
        let output = child.and_then(std::process::Child::wait_with_output).expect("the program runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs another pailfs command about this mount, and returns its exit code, what it printed and what it said.
    pub fn pailfs(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pailfs"));
        command.args(arguments).current_dir(self.local()).env("HOME", self.home.path());
        let child = {
            let _starting = starting();
            let command = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped()).spawn()
        };
        let output = child.and_then(std::process::Child::wait_with_output).expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Unmounts as a user does and waits until the daemon has ended.
    #[track_caller]
    pub fn unmount(&mut self) {
        // A release is asynchronous: the mount may be busy for a moment after the last close.
        eventually("the mount is free", || self.fusermount("-u"));
        self.mounted = false;
        self.await_end();
    }

    /// Waits until the daemon has ended by itself.
    #[track_caller]
    pub fn await_end(&mut self) {
        let pid = self.pid;
        let ended = holds_within(PATIENCE, || !alive(pid));
        assert!(ended, "the daemon {pid} has not ended after {PATIENCE:?}; {}", still_there(pid, &self.root));
        self.lifeline = Lifeline::default();
    }

    /// Unmounts and mounts again.
    #[track_caller]
    pub fn remount(&mut self) {
        self.unmount();
        self.mount_again();
    }

    /// Kills the daemon as the system would, and clears the dead mount away.
    pub fn kill(&mut self) {
        signal(self.pid, libc::SIGKILL);
        eventually("the daemon is dead", || !alive(self.pid));
        self.clear();
    }

    /// Takes a mount away whose daemon has ended or hangs.
    pub fn clear(&mut self) {
        self.fusermount("-uz");
        self.mounted = false;
    }

    fn fusermount(&self, flag: &str) -> bool {
        let mut command = Command::new("fusermount3");
        command.arg(flag).arg(&self.root).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let child = {
            let _starting = starting();
            command.spawn()
        };
        child.and_then(|mut child| child.wait()).is_ok_and(|status| status.success())
    }

    /// A path below the mountpoint; `""` is the mountpoint itself.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    /// A directory of this test on the local disk, outside the mount.
    pub fn local(&self) -> &Path {
        self.home.path()
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Most memory the daemon had at once, in bytes.
    #[track_caller]
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.pid).expect("the daemon runs")
    }

    /// What the daemon logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// A shell in the mountpoint; `$LOCAL` is [`local`](Self::local).
    pub fn shell(&self) -> Shell {
        Shell::new(&self.root, self.local(), self.lifeline.clone())
    }

    /// Runs a bash script in the mountpoint, which must succeed, and returns its standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.shell().run(script)
    }
}

fn has_cache(options: &[String]) -> bool {
    options.iter().any(|option| option.starts_with("cache_dir="))
}

/// Keeps the daemon of a mount from being taken for hung.
#[derive(Clone, Debug, Default)]
pub struct Lifeline(Option<mpsc::Sender<()>>);

impl Lifeline {
    /// The mount is at work: it may live for another [`LIFE`].
    pub fn renew(&self) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(());
        }
    }
}

/// Kills `pid` when nobody has renewed its life within [`LIFE`]. It ends when all lifelines are gone.
fn watch(pid: i32) -> mpsc::Sender<()> {
    let (renew, renewed) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        loop {
            match renewed.recv_timeout(LIFE) {
                Ok(()) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => break,
            }
        }
        eprintln!("the mount served by {pid} hangs: killed");
        signal(pid, libc::SIGKILL);
    });
    renew
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            eprintln!("--- the daemon's log ends so:\n{}", &log[from..]);
        }
        if self.mounted && !holds_within(Duration::from_secs(5), || self.fusermount("-u")) {
            self.clear();
        }
        if self.pid != 0 && alive(self.pid) && !holds_within(Duration::from_secs(20), || !alive(self.pid)) {
            signal(self.pid, libc::SIGKILL);
            holds_within(Duration::from_secs(5), || !alive(self.pid));
            self.clear();
        }
    }
}
