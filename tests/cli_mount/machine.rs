//! A server, a mountpoint and mounts of the program under test, all gone when the test ends.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pailfs::demo::{Server, ServerOptions};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pailfs");

/// Nothing here takes longer on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A server with one object and a place to mount it at.
pub struct Machine {
    server: Server,
    dir: TempDir,
}

impl Machine {
    pub fn new() -> Self {
        assert!(Path::new("/dev/fuse").exists(), "there is no /dev/fuse: this test needs FUSE (modprobe fuse)");
        let server = Server::start(ServerOptions::default()).expect("a free port");
        server.bucket("bucket").put("p/hello", "hello from S3");
        let dir = tempfile::Builder::new().prefix("pailfs-life-").tempdir().expect("a temporary directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        std::fs::create_dir(dir.path().join("mnt")).expect("a mountpoint");
        Machine { server, dir }
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.server.bucket("bucket").get(key).map(|stored| stored.body.to_vec())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that another process writes, and has open as long as this lives: a test that starts a process meanwhile would
    /// close a copy of a descriptor of this one, and so store the file.
    pub fn half_written(&self, name: &str) -> HalfWritten {
        let path = self.mountpoint().join(name);
        let mut command = Command::new("dd");
        command.arg(format!("of={}", path.display())).args(["bs=1", "status=none"]);
        let mut writer = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("dd");
        writer.stdin.as_mut().expect("a pipe").write_all(b"half of it").expect("it takes bytes");
        eventually("half of it is written", || std::fs::metadata(&path).is_ok_and(|found| found.len() == 10));
        HalfWritten(writer)
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    /// `pailfs SOURCE MOUNTPOINT`, with the server's keys.
    pub fn command(&self, source: &str, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg(source).arg(self.mountpoint());
        self.surroundings(&mut command);
        command.args(args).stdin(Stdio::null());
        command
    }

    fn surroundings(&self, command: &mut Command) {
        command
            .args(["--endpoint-url", &self.server.endpoint(), "--region", "us-east-1", "--stage-dir"])
            .arg(self.path("stage"))
            .env("HOME", self.dir.path())
            .env("AWS_ACCESS_KEY_ID", self.server.access_key())
            .env("AWS_SECRET_ACCESS_KEY", self.server.secret_key())
            .env("AWS_EC2_METADATA_DISABLED", "true");
    }

    /// Mounts in the background. The command's own end says that it can be used.
    #[track_caller]
    pub fn mount(&self, args: &[&str]) -> Mount<'_> {
        self.mount_by(&mut self.command("s3://bucket/p", args))
    }

    /// As [`mount`](Self::mount), in a mount namespace of its own that `setup`, a shell script, has changed. `None` where that
    /// can't be made.
    #[track_caller]
    pub fn mount_apart(&self, setup: &str) -> Option<Mount<'_>> {
        if !is_root() || !works("unshare", &["-m", "true"]) {
            skipped("a mount namespace needs root and unshare(1)");
            return None;
        }
        let script = format!("{LET_GO}; {setup}; exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-ec", &script, "sh", PROGRAM, "s3://bucket/p"]);
        self.surroundings(command.arg(self.mountpoint()));
        Some(self.mount_by(&mut command))
    }

    #[track_caller]
    fn mount_by(&self, command: &mut Command) -> Mount<'_> {
        let before = self.daemons();
        let output = command.stdin(Stdio::null()).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", output.status);
        let mut new = self.daemons();
        new.retain(|pid| !before.contains(pid));
        assert_eq!(new.len(), 1, "one daemon serves the mount: {new:?}");
        Mount { machine: self, pid: new[0], said }
    }

    /// What the daemon that somebody else started serves.
    #[track_caller]
    pub fn mounted(&self) -> Mount<'_> {
        let daemons = self.daemons();
        assert_eq!(daemons.len(), 1, "one daemon serves the mount: {daemons:?}");
        Mount { machine: self, pid: daemons[0], said: String::new() }
    }

    /// Processes that were started for our mountpoint, and are not dead already.
    pub fn daemons(&self) -> Vec<i32> {
        let mountpoint = self.mountpoint();
        let wanted = mountpoint.to_str().expect("UTF-8").as_bytes();
        let pids = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program.file_name() == Path::new(PROGRAM).file_name()
                && line.split(|byte| *byte == 0).any(|word| word == wanted)
        })
        .collect()
    }

    /// Type and source of what is on top at the mountpoint.
    pub fn table(&self) -> Option<String> {
        let top = pailfs::fuse::mountinfo::top_at(&self.mountpoint()).expect("proc is mounted");
        top.map(|entry| format!("{} {}", entry.filesystem, entry.source))
    }

    /// True if `program ARGS MOUNTPOINT` succeeds.
    pub fn run(&self, program: &str, args: &[&str]) -> bool {
        let output = Command::new(program).args(args).arg(self.mountpoint()).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// As a user does. The last close may still be on its way to the daemon and keep it busy for a moment.
    #[track_caller]
    pub fn unmount(&self) {
        eventually("the mount is free", || self.run(PROGRAM, &["umount"]));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.daemons() {
            kill(pid, libc::SIGKILL);
        }
        while self.table().is_some() && self.run(PROGRAM, &["umount", "-l"]) {}
    }
}

/// A mount in the background.
pub struct Mount<'a> {
    machine: &'a Machine,
    pid: i32,
    said: String,
}

impl Mount<'_> {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What the mount command wrote on standard error.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// `pailfs COMMAND MOUNTPOINT` by this user, in the mount namespace of the daemon.
    #[track_caller]
    pub fn ask(&self, command: &str) -> Output {
        let mut ask = Command::new("nsenter");
        ask.args(["-m", "-t", &self.pid.to_string(), PROGRAM, command]).arg(self.machine.mountpoint());
        ask.output().expect("nsenter starts")
    }

    /// A path below the mountpoint, also where that is in another mount namespace. Only root gets there.
    pub fn path(&self, name: &str) -> PathBuf {
        let mountpoint = self.machine.mountpoint();
        let below = mountpoint.strip_prefix("/").expect("it is absolute");
        Path::new("/proc").join(self.pid.to_string()).join("root").join(below).join(name)
    }

    /// The daemon is gone (or only waits for whoever inherits it to read its exit code).
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    #[track_caller]
    pub fn await_end(&self) {
        eventually("the daemon has ended", || self.has_ended());
    }

    /// Unmounts and waits for the end.
    #[track_caller]
    pub fn end(&self) {
        self.machine.unmount();
        self.await_end();
    }
}

/// Sends a signal to a process of ours.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid, signal) };
}

/// Polls until it holds.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(holds_within(holds), "not within {LIMIT:?}: {what}");
}

/// True as soon as it holds.
pub fn holds_within(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    true
}

/// True as root.
pub fn is_root() -> bool {
    // SAFETY: takes nothing and can't fail.
    unsafe { libc::geteuid() == 0 }
}

/// A copy of another test's mount in a new namespace would keep its daemon, and all waiting for that.
const LET_GO: &str = "umount -l -a -t fuse.pailfs || true";

fn works(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// Runs a shell script as a user without rights, in a mount namespace whose /dev/fuse everyone may open: `$0` is the
/// program, `$@` the whole mount command, `$MNT` the mountpoint. `None` where that can't be made.
pub fn unprivileged(machine: &Machine, script: &str) -> Option<Output> {
    let tools = works("unshare", &["-m", "true"]) && works("setpriv", &["--reuid=65534", "--clear-groups", "true"]);
    if !is_root() || !tools || !works("fusermount3", &["-V"]) {
        skipped("becoming another user needs root, unshare(1), setpriv(1) and fusermount3");
        return None;
    }
    for dir in ["mnt", "stage"] {
        let dir = machine.path(dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        std::os::unix::fs::chown(dir, Some(65534), Some(65534)).expect("root may");
    }
    let program = machine.path("pailfs");
    std::fs::hard_link(PROGRAM, &program).or_else(|_| std::fs::copy(PROGRAM, &program).map(drop)).expect("a copy");
    let setup = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 \
                 && mknod -m 666 /dev/fuse c 10 229 \
                 && exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \"$SCRIPT\" \"$0\" \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-ec", &format!("{LET_GO}; {setup}")]).arg(&program);
    command.arg("s3://bucket/p").arg(machine.mountpoint());
    machine.surroundings(&mut command);
    command.env("SCRIPT", script).env("MNT", machine.mountpoint());
    Some(command.output().expect("unshare starts"))
}

/// Says why a test can't run here, past the capture of the test harness.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Ends its writer when it is dropped.
pub struct HalfWritten(std::process::Child);

impl HalfWritten {
    /// Writes the rest, and closes the file.
    pub fn finish(mut self, rest: &str) {
        let mut input = self.0.stdin.take().expect("a pipe");
        input.write_all(rest.as_bytes()).expect("it takes bytes");
        drop(input);
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for HalfWritten {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
