//! mount(8) and fstab: `mount -t pailfs`, `mount -t fuse.pailfs` and fstab lines find pailfs, and hand its exit code on.
//!
//! mount(8) looks for helpers in /sbin alone: for the time of a test, links to the program under test stand there.

#![cfg(feature = "demo")]

mod install;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use install::Installed;
use pailfs::demo::{Server, ServerOptions};
use tempfile::TempDir;

/// A server with one object, the helper in place, and a mountpoint that is free again afterwards.
struct Machine {
    server: Server,
    dir: TempDir,
    _installed: Installed,
}

impl Machine {
    /// `None` where it can't be made; the reason was printed.
    fn new() -> Option<Self> {
        let installed = Installed::new()?;
        let server = Server::start(ServerOptions::default()).expect("a free port");
        server.bucket("bucket").put("p/hello", "hello from S3");
        let dir = tempfile::Builder::new().prefix("pailfs-helper-").tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("mnt")).expect("a mountpoint");
        Some(Machine { server, dir, _installed: installed })
    }

    fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn options(&self) -> String {
        let stage = self.dir.path().join("stage");
        format!("endpoint_url={},region=us-east-1,stage_dir={}", self.server.endpoint(), stage.display())
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("AWS_ACCESS_KEY_ID", self.server.access_key());
        command.env("AWS_SECRET_ACCESS_KEY", self.server.secret_key());
        command.output().unwrap_or_else(|e| panic!("{program} does not start: {e}"))
    }

    #[track_caller]
    fn succeed(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {} {said}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Type and source as the mount table has them; empty when nothing is mounted.
    fn table(&self) -> String {
        let output = self.run("findmnt", &["-rno", "FSTYPE,SOURCE", "-M", &text(&self.mountpoint())]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Mounted with this source, readable, and free again after umount(8).
    #[track_caller]
    fn works_and_goes(&self, source: &str) {
        assert_eq!(self.table(), format!("fuse.pailfs {source}"));
        let content = std::fs::read_to_string(self.mountpoint().join("hello")).expect("the object is a file");
        assert_eq!(content, "hello from S3");
        self.unmount();
    }

    #[track_caller]
    fn unmount(&self) {
        // The last close may still be on its way to the daemon, and keeps the mount busy for a moment.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let output = self.run("umount", &[&text(&self.mountpoint())]);
            if output.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("busy") && Instant::now() < deadline, "{said}");
            std::thread::yield_now();
        }
        assert_eq!(self.table(), "");
    }

    fn fstab(&self, lines: &[String]) -> String {
        let file = self.dir.path().join("fstab");
        std::fs::write(&file, format!("{}\n", lines.join("\n"))).expect("a file");
        text(&file)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A test that failed may have left it mounted.
        while !self.table().is_empty() {
            if !self.run("umount", &["-l", &text(&self.mountpoint())]).status.success() {
                break;
            }
        }
    }
}

fn text(path: &std::path::Path) -> String {
    path.to_str().expect("a temporary directory in UTF-8").to_owned()
}

#[test]
fn mount_by_type_with_options_of_mount_itself() {
    let Some(machine) = Machine::new() else { return };
    let options = format!("{},_netdev,nofail,noatime,x-systemd.automount,comment=mine", machine.options());
    machine.succeed("mount", &["-t", "pailfs", "s3://bucket/p", &text(&machine.mountpoint()), "-o", &options]);
    machine.works_and_goes("s3://bucket/p");
}

#[test]
fn mount_by_the_type_that_the_mount_table_shows() {
    let Some(machine) = Machine::new() else { return };
    let (mountpoint, options) = (text(&machine.mountpoint()), machine.options());
    machine.succeed("mount", &["-t", "fuse.pailfs", "bucket:/p", &mountpoint, "-o", &options]);
    machine.works_and_goes("bucket:/p");
}

#[test]
fn mount_through_the_helper_of_libfuse() {
    let Some(machine) = Machine::new() else { return };
    let Some(helper) = ["/sbin/mount.fuse3", "/usr/sbin/mount.fuse3"].into_iter().find(|p| PathBuf::from(p).exists())
    else {
        return install::skipped("mount.fuse3 is not installed");
    };
    let (mountpoint, options) = (text(&machine.mountpoint()), format!("rw,{}", machine.options()));
    machine.succeed(helper, &["pailfs#s3://bucket/p", &mountpoint, "-o", &options]);
    // That helper takes the program's name off before it calls the program.
    machine.works_and_goes("s3://bucket/p");
}

#[test]
fn an_fstab_line_mounts_by_its_mountpoint_and_with_all() {
    let Some(machine) = Machine::new() else { return };
    let mountpoint = text(&machine.mountpoint());
    for kind in ["pailfs", "fuse.pailfs"] {
        let line = format!("s3://bucket/p {mountpoint} {kind} {},_netdev,nofail,ro 0 0", machine.options());
        let fstab = machine.fstab(&[line]);
        machine.succeed("mount", &["-T", &fstab, &mountpoint]);
        machine.works_and_goes("s3://bucket/p");
        machine.succeed("mount", &["-a", "-T", &fstab]);
        // What is mounted is left alone the second time.
        machine.succeed("mount", &["-a", "-T", &fstab]);
        machine.works_and_goes("s3://bucket/p");
    }
}

#[test]
fn an_fstab_line_with_the_program_before_the_source() {
    let Some(machine) = Machine::new() else { return };
    let mountpoint = text(&machine.mountpoint());
    let fstab = machine.fstab(&[format!("pailfs#s3://bucket/p {mountpoint} pailfs {} 0 0", machine.options())]);
    machine.succeed("mount", &["-T", &fstab, &mountpoint]);
    machine.works_and_goes("pailfs#s3://bucket/p");
}

#[test]
fn a_fake_mount_checks_and_mounts_nothing() {
    let Some(machine) = Machine::new() else { return };
    let (mountpoint, options) = (text(&machine.mountpoint()), machine.options());
    machine.succeed("mount", &["-f", "-v", "-n", "-t", "pailfs", "s3://bucket/p", &mountpoint, "-o", &options]);
    assert_eq!(machine.table(), "");
}

#[test]
fn a_mountpoint_in_use_is_refused_with_the_code_of_a_failed_mount() {
    let Some(machine) = Machine::new() else { return };
    let (mountpoint, options) = (text(&machine.mountpoint()), machine.options());
    let args = ["-t", "pailfs", "s3://bucket/p", &mountpoint, "-o", &options];
    machine.succeed("mount", &args);
    let again = machine.run("mount", &args);
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(32), "{said}");
    assert!(said.contains("s3://bucket/p is already mounted on"), "{said}");
    let remount = machine.run("mount", &["-o", "remount,ro", &mountpoint]);
    assert!(!remount.status.success(), "remount is not there yet and must not claim to be");
    machine.works_and_goes("s3://bucket/p");
}

#[test]
fn a_bad_option_is_wrong_usage_and_sloppy_ignores_it() {
    let Some(machine) = Machine::new() else { return };
    let (mountpoint, options) = (text(&machine.mountpoint()), format!("{},reigon=x", machine.options()));
    let output = machine.run("mount", &["-t", "pailfs", "s3://bucket/p", &mountpoint, "-o", &options]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("did you mean 'region'?"), "{said}");
    machine.succeed("mount", &["-s", "-t", "pailfs", "s3://bucket/p", &mountpoint, "-o", &options]);
    machine.works_and_goes("s3://bucket/p");
}
