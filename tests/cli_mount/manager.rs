//! A mount as a service: what systemd is told, and the unit that is printed for it.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pailfs::demo::{Fault, FaultKind, Operation};

use super::machine::{Machine, kill, skipped};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn new(machine: &Machine) -> Self {
        let path = machine.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        Manager { socket, path }
    }

    /// What is told next that has a line that begins so.
    #[track_caller]
    fn told(&self, wanted: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let mut message = [0; 4096];
            let Ok(len) = self.socket.recv(&mut message) else { panic!("{wanted} was not told, but {seen:?}") };
            let text = String::from_utf8_lossy(&message[..len]).into_owned();
            if let Some(line) = text.lines().find(|line| line.starts_with(wanted)) {
                return line.to_owned();
            }
            seen.push(text);
        }
    }

    fn start(&self, machine: &Machine) -> Service {
        let mut command = machine.command("s3://bucket/p", &["--foreground"]);
        // A second and a half, in microseconds.
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", "1500000").stderr(Stdio::null());
        Service(command.spawn().expect("the program starts"))
    }
}

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_manager_is_told_that_a_mount_is_ready_alive_and_ending_and_what_is_not_stored() {
    let machine = Machine::new();
    let manager = Manager::new(&machine);
    let mut service = manager.start(&machine);
    manager.told("READY=1");
    assert!(machine.mountpoint().join("hello").exists(), "it can be used");
    manager.told("WATCHDOG=1");
    assert_eq!(manager.told("STATUS=mounted; e"), "STATUS=mounted; everything is stored");
    let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    machine.server().add_fault(Fault::new(denied).on(Operation::PutObject));
    // The error of this close is not told.
    std::fs::write(machine.mountpoint().join("new"), "bytes").ok();
    let told = manager.told("STATUS=mounted; 1");
    assert!(told.starts_with("STATUS=mounted; 1 file(s), 5 bytes not stored yet"), "{told}");
    machine.server().clear_faults();
    kill(service.0.id() as i32, libc::SIGTERM);
    manager.told("STOPPING=1");
    assert!(service.0.wait().expect("it ends").success());
    assert_eq!(machine.object("p/new").as_deref(), Some(&b"bytes"[..]));
}

#[test]
fn the_unit_that_is_printed_is_one_that_systemd_understands() {
    let machine = Machine::new();
    let program = env!("CARGO_BIN_EXE_pailfs");
    let print = |args: &[&str]| Command::new(program).arg("unit").args(args).output().expect("the program starts");
    let output = print(&["s3://bucket/p", "/mnt/my files", "-o", "ro,drain_timeout=100", "-o", "region=us-east-1"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success());
    for line in [
        "Type=notify".to_owned(),
        format!(
            "ExecStart={program} mount --foreground -o ro,drain_timeout=100 -o region=us-east-1 s3://bucket/p \"/mnt/my files\""
        ),
        format!("ExecStop={program} umount \"/mnt/my files\""),
        "TimeoutStopSec=130s".to_owned(),
        "EnvironmentFile=-/etc/pailfs/credentials".to_owned(),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    let reloads = |text: &str| text.contains("\nExecReload=/bin/kill -HUP $MAINPID\n");
    let logged = print(&["s3://bucket/p", "/mnt", "-o", "log_file=/var/log/pailfs.log"]);
    assert!(reloads(&String::from_utf8_lossy(&logged.stdout)) && !reloads(&text), "{logged:?}");
    let refused = print(&["s3://bucket/p", "/mnt", "-o", "reigon=x"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("did you mean"), "checked");
    let file = machine.path("pailfs-test.service");
    std::fs::write(&file, text).expect("written");
    match Command::new("systemd-analyze").arg("verify").arg(&file).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && !said.contains("pailfs-test.service"), "{said}");
        }
        Err(_) => skipped("systemd-analyze is not installed"),
    }
}
