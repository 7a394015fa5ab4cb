//! The life of a mount as a process: it starts in the background, says what it found, and ends by signals or by an
//! unmount, without ever touching what others mounted.

#![cfg(feature = "demo")]

mod machine;
mod manager;
mod signals;

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use machine::{Machine, eventually, holds_within, is_root, kill, skipped, unprivileged};
use pailfs::demo::{Fault, FaultKind, Operation, Shape};

#[test]
fn the_command_returns_when_the_mount_can_be_used_and_its_daemon_has_left_the_terminal() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    assert_eq!(fs::read_to_string(machine.mountpoint().join("hello")).expect("it can be used"), "hello from S3");
    let of = |name: &str| fs::read_link(format!("/proc/{}/{name}", mount.pid())).expect("a process of ours");
    assert_eq!(of("cwd"), std::path::Path::new("/"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(of(stream), std::path::Path::new("/dev/null"), "{stream}");
    }
    assert_eq!(mount.said(), "", "nothing was wrong");
}

#[test]
fn a_mountpoint_in_use_is_refused_whatever_the_source() {
    let machine = Machine::new();
    let _mount = machine.mount(&[]);
    for source in ["s3://bucket/p", "s3://bucket/another"] {
        let output = machine.command(source, &[]).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(32), "{said}");
        assert!(said.starts_with("pailfs: s3://bucket/p is already mounted on") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn sigterm_commits_unmounts_and_ends() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    let mut file = File::create(machine.mountpoint().join("new")).expect("a new file");
    file.write_all(b"written").expect("it takes bytes");
    drop(file);
    kill(mount.pid(), libc::SIGTERM);
    mount.await_end();
    assert_eq!(machine.table(), None);
    assert_eq!(machine.object("p/new").as_deref(), Some(&b"written"[..]));
}

#[test]
fn sigterm_and_sigint_commit_what_no_close_could_store() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let machine = Machine::new();
        let mount = machine.mount(&[]);
        let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
        machine.server().add_fault(Fault::new(denied).on(Operation::PutObject));
        let mut file = File::create(machine.mountpoint().join("new")).expect("a new file");
        file.write_all(b"written").expect("it takes bytes");
        // The flush of this close is refused, as fsync would be.
        assert!(file.sync_all().is_err(), "the program is told");
        drop(file);
        assert_eq!(machine.object("p/new"), None);
        machine.server().clear_faults();
        kill(mount.pid(), signal);
        mount.await_end();
        assert_eq!(machine.table(), None);
        assert_eq!(machine.object("p/new").as_deref(), Some(&b"written"[..]));
    }
}

/// In the background nobody reads standard error: files that could not be stored must not be named in vain.
#[test]
fn the_log_of_a_mount_in_the_background_goes_to_syslog() {
    let place = std::path::Path::new("/dev/log");
    if !is_root() || fs::symlink_metadata(place).is_ok() {
        return skipped("only root makes a /dev/log, where there is none");
    }
    let socket = std::os::unix::net::UnixDatagram::bind(place).expect("a socket");
    let _removed = RemovedAtEnd(place);
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    // Whoever logs waits while nobody reads.
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count) = socket.recv(&mut bytes)
            && sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).is_ok()
        {}
    });
    let machine = Machine::new();
    let _mount = machine.mount(&[]);
    loop {
        let line = lines.recv().expect("the daemon logs");
        // Other tests mount too.
        if line.contains("is mounted on") && line.contains(&machine.mountpoint().display().to_string()) {
            assert!(line.starts_with("<29>") && line.contains("pailfs["), "{line}");
            break;
        }
    }
}

struct RemovedAtEnd(&'static std::path::Path);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[test]
fn sigterm_ends_though_a_program_has_a_file_open() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    let open = machine.half_written("half");
    kill(mount.pid(), libc::SIGTERM);
    mount.await_end();
    assert_eq!(machine.table(), None, "it is detached");
    assert_eq!(machine.object("p/half"), None, "half a file is never published");
    drop(open);
    // The bytes are not lost: they wait in the stage, and the next mount says so.
    let again = machine.mount(&[]);
    assert!(again.said().contains("1 file(s) from an earlier run"), "{}", again.said());
}

#[test]
fn sigterm_in_the_middle_of_a_copy_publishes_nothing() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    let target = machine.mountpoint().join("large");
    let mut command = Command::new("dd");
    command.args(["if=/dev/zero", "bs=1M", "count=100000", "status=none"]);
    let mut copy =
        command.arg(format!("of={}", target.display())).stderr(std::process::Stdio::null()).spawn().expect("dd");
    eventually("some of it is written", || fs::metadata(&target).is_ok_and(|found| found.len() > 64 << 20));
    kill(mount.pid(), libc::SIGTERM);
    mount.await_end();
    assert!(!copy.wait().expect("a child of ours").success(), "its writes fail when the daemon is gone");
    assert_eq!(machine.table(), None);
    assert_eq!(machine.object("p/large"), None);
    assert!(machine.server().bucket("bucket").uploads().is_empty());
}

/// Nothing reads what a mount in the foreground says when its terminal has gone.
#[test]
fn a_mount_whose_terminal_has_gone_ends_as_it_should() {
    let machine = Machine::new();
    let mut command = machine.command("s3://bucket/p", &["--foreground"]);
    let mut daemon = command.stderr(std::process::Stdio::piped()).spawn().expect("the program starts");
    eventually("it is mounted", || machine.table().is_some());
    drop(daemon.stderr.take());
    fs::write(machine.mountpoint().join("new"), "written").expect("it works");
    kill(daemon.id() as i32, libc::SIGHUP);
    kill(daemon.id() as i32, libc::SIGHUP);
    let status = daemon.wait().expect("a child of ours");
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(machine.table(), None, "a dead mount is left");
    assert_eq!(machine.object("p/new").as_deref(), Some(&b"written"[..]));
}

#[test]
fn the_exit_status_tells_of_files_that_were_still_open() {
    let machine = Machine::new();
    let mut command = machine.command("s3://bucket/p", &["--foreground"]);
    let daemon = command.stderr(std::process::Stdio::piped()).spawn().expect("the program starts");
    eventually("it is mounted", || machine.table().is_some());
    let open = machine.half_written("half");
    kill(daemon.id() as i32, libc::SIGTERM);
    let output = daemon.wait_with_output().expect("a child of ours");
    drop(open);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 file(s) were still open"), "{output:?}");
}

#[test]
fn a_second_signal_does_not_wait_for_s3() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    machine.server().add_fault(Fault::new(FaultKind::DropBeforeApply).on(Operation::PutObject));
    let mut file = File::create(machine.mountpoint().join("stuck")).expect("a new file");
    file.write_all(b"kept").expect("it takes bytes");
    // Whoever closes it waits for S3, so that is left to a thread.
    let closing = std::thread::spawn(move || drop(file));
    eventually("the upload was tried", || machine.server().faults_fired() > 0);
    kill(mount.pid(), libc::SIGTERM);
    // Until it ends: a signal that comes too early would be the first one.
    eventually("the daemon has ended", || {
        mount.has_ended() || {
            kill(mount.pid(), libc::SIGTERM);
            false
        }
    });
    closing.join().expect("the close was answered");
    assert_eq!(machine.table(), None);
    machine.server().clear_faults();
    let again = machine.mount(&[]);
    assert!(again.said().contains("an earlier run had not yet stored are being stored now"), "{}", again.said());
    eventually("the next mount has stored it", || machine.object("p/stuck").as_deref() == Some(&b"kept"[..]));
}

#[test]
fn a_caller_who_gives_up_leaves_no_mount() {
    let machine = Machine::new();
    machine.server().set_shape(Shape { first_byte: Duration::from_secs(1), ..Shape::default() });
    let mut caller = machine.command("s3://bucket/p", &[]).spawn().expect("the program starts");
    eventually("caller and daemon run", || machine.daemons().len() == 2);
    caller.kill().expect("a child of ours");
    caller.wait().expect("a child of ours");
    eventually("the daemon has ended", || machine.daemons().is_empty());
    assert_eq!(machine.table(), None);
}

#[test]
fn an_unmount_from_outside_ends_the_daemon() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    machine.unmount();
    mount.await_end();
}

#[test]
fn the_umount_command_unmounts() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    let busy = File::open(machine.mountpoint().join("hello")).expect("the object is a file");
    let umount = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pailfs"));
        command.arg("umount").args(args).arg(machine.mountpoint()).output().expect("the program starts")
    };
    let refused = umount(&[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(32), "{said}");
    assert!(said.contains("is busy") && said.contains("pailfs umount -l"), "{said}");
    assert!(umount(&["-l"]).status.success());
    assert_eq!(machine.table(), None);
    drop(busy);
    mount.await_end();
}

#[test]
fn the_old_daemon_leaves_alone_what_was_mounted_after_it() {
    let machine = Machine::new();
    let old = machine.mount(&[]);
    let open = File::open(machine.mountpoint().join("hello")).expect("the object is a file");
    assert!(machine.run("umount", &["-l"]) || machine.run("fusermount3", &["-uz"]));
    let new = machine.mount(&[]);
    // With its last file closed the old session ends; the mount that stands there now is another one.
    drop(open);
    old.await_end();
    assert_eq!(machine.table().as_deref(), Some("fuse.pailfs s3://bucket/p"));
    assert!(fs::read(machine.mountpoint().join("hello")).is_ok());
    assert!(!new.has_ended());
}

#[test]
fn a_dead_mount_is_cleared_by_root_and_mounted_anew() {
    if !is_root() {
        return skipped("only root clears a dead mount");
    }
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    kill(mount.pid(), libc::SIGKILL);
    mount.await_end();
    let again = machine.mount(&[]);
    assert!(again.said().contains("a dead mount was cleared away from"), "{}", again.said());
    assert!(fs::read(machine.mountpoint().join("hello")).is_ok());
    again.end();
    assert_eq!(machine.table(), None, "no dead mount is below");
}

#[test]
fn in_the_foreground_sigint_ends_it() {
    let machine = Machine::new();
    let mut command = machine.command("s3://bucket/p", &["--foreground", "--log-level", "off"]);
    let mut child = command.spawn().expect("the program starts");
    let pid = i32::try_from(child.id()).expect("a process id");
    eventually("it is mounted", || machine.table().is_some());
    assert!(fs::read(machine.mountpoint().join("hello")).is_ok());
    kill(pid, libc::SIGINT);
    let status = child.wait().expect("a child of ours");
    assert!(status.success(), "{status}");
    assert_eq!(machine.table(), None);
}

#[test]
fn no_secret_is_in_the_log_or_the_mount_table() {
    let machine = Machine::new();
    let log = machine.path("log");
    let mount = machine.mount(&["--log-level", "trace", "--log-file", log.to_str().expect("UTF-8")]);
    assert!(fs::read(machine.mountpoint().join("hello")).is_ok());
    mount.end();
    let log = fs::read_to_string(log).expect("a log");
    assert!(log.contains("is mounted on"), "{log}");
    let secret = machine.server().secret_key();
    for line in log.lines() {
        assert!(!line.contains(secret), "{line}");
    }
}

#[test]
fn root_gets_a_larger_read_ahead_of_the_kernel() {
    if !is_root() {
        return skipped("only root may change it");
    }
    let machine = Machine::new();
    let _mount = machine.mount(&[]);
    let top = pailfs::fuse::mountinfo::top_at(&machine.mountpoint()).expect("proc is mounted").expect("it is mounted");
    let told = fs::read_to_string(format!("/sys/class/bdi/{}/read_ahead_kb", top.device));
    match told {
        Ok(told) => assert_eq!(told.trim(), "1024"),
        Err(error) => skipped(&format!("/sys does not tell it here: {error}")),
    }
}

#[test]
fn a_user_mounts_through_fusermount3() {
    let machine = Machine::new();
    let Some(output) = unprivileged(
        &machine,
        "\"$@\" -o relatime,nodiratime,noexec && cat \"$MNT/hello\" && grep \" $MNT \" /proc/self/mountinfo && \"$0\" umount \"$MNT\" && ! cat \"$MNT/hello\"",
    ) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("hello from S3") && said.contains("fuse.pailfs s3://bucket/p"), "{said}");
    assert!(said.contains("user_id=65534") && said.contains("noexec"), "{said}");
    assert!(holds_within(|| machine.table().is_none()));
}

#[test]
fn root_may_ask_about_the_mount_of_another_user() {
    let machine = Machine::new();
    let Some(output) = unprivileged(&machine, "exec \"$@\"") else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mount = machine.mounted();
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).expect("a process");
    assert!(status.contains("Uid:\t65534\t65534"), "it is another user's: {status}");
    let asked = mount.ask("status");
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&asked.stdout).contains("not stored   nothing"), "{asked:?}");
    kill(mount.pid(), libc::SIGTERM);
    mount.await_end();
}

#[test]
fn a_mount_works_where_no_control_socket_can_be_made() {
    let machine = Machine::new();
    let open = machine.path("open");
    fs::create_dir(&open).expect("a directory that others can look into");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let setup = format!(
        "for dir in /run/pailfs /tmp/pailfs-0; do mkdir -p -m 700 $dir; mount --bind {} $dir; done",
        open.display()
    );
    let Some(mount) = machine.mount_apart(&setup) else { return };
    assert_eq!(fs::read_to_string(mount.path("hello")).expect("it can be read"), "hello from S3");
    fs::write(mount.path("new"), "written").expect("it can be written");
    assert_eq!(machine.object("p/new").as_deref(), Some(&b"written"[..]));
    let asked = mount.ask("status");
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(!asked.status.success() && said.contains("has no control socket"), "{asked:?}");
    kill(mount.pid(), libc::SIGTERM);
    mount.await_end();
}

/// Credentials that a server refuses as expired before their time are asked for anew, and what was refused is done.
#[test]
fn expired_credentials_are_renewed_in_the_middle_of_the_work() {
    let machine = Machine::new();
    let content: Vec<u8> = (0..9_000_000_u32).map(|number| (number % 251) as u8).collect();
    machine.server().bucket("bucket").put("p/large", content.clone());
    let (asked, process, config) = (machine.path("asked"), machine.path("process"), machine.path("config"));
    let keys = format!(
        r#"{{"Version": 1, "AccessKeyId": "{}", "SecretAccessKey": "{}"}}"#,
        machine.server().access_key(),
        machine.server().secret_key()
    );
    fs::write(&process, format!("echo once >> {}\necho '{keys}'\n", asked.display())).expect("a script");
    fs::write(&config, format!("[default]\ncredential_process = sh {}\n", process.display())).expect("a config");
    let mut command = machine.command("s3://bucket/p", &[]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env("AWS_CONFIG_FILE", &config);
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = || fs::read_to_string(&asked).unwrap_or_default().lines().count();
    let before = asked();
    assert_eq!(before, 1, "once for all requests");
    let expired = |operation| {
        let code = "ExpiredToken".to_owned();
        machine.server().add_fault(Fault::new(FaultKind::Answer { status: 400, code }).on(operation).once());
    };
    expired(Operation::GetObject);
    assert!(fs::read(machine.mountpoint().join("large")).expect("it is read") == content, "other bytes");
    assert_eq!(asked(), before + 1);
    expired(Operation::PutObject);
    fs::write(machine.mountpoint().join("new"), "written").expect("it is stored");
    eventually("it is stored", || machine.object("p/new").as_deref() == Some(&b"written"[..]));
    assert_eq!(asked(), before + 2);
    machine.unmount();
}
