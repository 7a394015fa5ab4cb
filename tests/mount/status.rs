//! `pailfs status`, `sync` and `umount`: what a mount tells of itself, and waiting for it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pailfs::demo::{Fault, FaultKind, Operation, Shape};
use serde_json::Value;

use crate::common::{Capability, Mount, TestServer, eventually, noise, signal, skipped, test_name};

/// What `pailfs status DIR --json` prints.
#[track_caller]
pub fn report(mount: &Mount) -> Value {
    let (code, printed, said) = mount.pailfs(&["status", "--json", &root(mount)]);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&printed).expect("JSON")
}

fn root(mount: &Mount) -> String {
    mount.path("").display().to_string()
}

fn denied(server: &TestServer) {
    let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(denied).on(Operation::PutObject));
}

fn user() -> u32 {
    // SAFETY: geteuid(2) has no preconditions and can't fail.
    unsafe { libc::geteuid() }
}

/// A program that has written four bytes of a new file and has it open. This process must not: each program that it starts
/// closes a copy of all that it has open, and the file would be stored.
pub struct Writer(Child);

impl Writer {
    pub fn start(mount: &Mount, name: &str) -> Self {
        let script = "import os, sys\n\
                      file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n\
                      os.write(file, b'half')\n\
                      print('ready', flush=True)\n\
                      sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(mount.path(name)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says something");
        assert_eq!(line, "ready\n");
        Writer(child)
    }

    /// Closes the file.
    pub fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The socket of a mount, by the number of its device.
fn socket(mount: &Mount) -> PathBuf {
    let device = std::fs::metadata(mount.path("")).expect("the mount answers").dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let uid = user();
    let dirs = match uid {
        0 => vec!["/run/pailfs".to_owned(), "/tmp/pailfs-0".to_owned()],
        _ => vec![format!("/run/user/{uid}/pailfs"), format!("/tmp/pailfs-{uid}")],
    };
    let paths = dirs.iter().map(|dir| PathBuf::from(dir).join(format!("{major}-{minor}.socket")));
    paths
        .clone()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is none of {:?}", paths.collect::<Vec<_>>()))
}

#[test]
fn status_tells_what_is_mounted_and_what_was_asked_of_s3() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    server.demo().reset_counters();
    let before = report(&mount);
    let bytes = noise(1, 100_000);
    std::fs::write(mount.path("f"), &bytes).expect("stored");
    let told = report(&mount);
    assert_eq!(told["mountpoint"], root(&mount));
    assert_eq!(told["source"], server.source());
    assert_eq!(told["pid"], mount.pid());
    assert_eq!((&told["unstored_files"], &told["failed_files"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(told["conditional_writes"], Value::Bool(true));
    let of = |report: &Value, operation: &str, what: &str| {
        let requests = report["requests"].as_array().expect("a list").clone();
        requests.iter().find(|row| row["operation"] == operation).map_or(0, |row| row[what].as_u64().expect("a number"))
    };
    for (operation, counted) in [
        ("PutObject", Operation::PutObject),
        ("HeadObject", Operation::HeadObject),
        ("ListObjectsV2", Operation::ListObjectsV2),
    ] {
        let asked = of(&told, operation, "requests") - of(&before, operation, "requests");
        assert_eq!(asked, server.demo().counters().requests(counted), "{operation}: {told}");
    }
    assert_eq!(of(&told, "PutObject", "bytes_out") - of(&before, "PutObject", "bytes_out"), 100_000);
    let put = told["requests"].as_array().and_then(|rows| rows.iter().find(|row| row["operation"] == "PutObject"));
    assert!(put.and_then(|row| row["half_within_ms"].as_f64()).is_some_and(|time| time > 0.0), "{told}");
    assert!(told["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{told}");

    // The same for people, also of all mounts, and from a path below the mount with --check.
    let (code, printed, said) = mount.pailfs(&["status"]);
    assert!(printed.contains(&format!("on {}, up", root(&mount))), "{code:?}: {printed}{said}");
    let (code, printed, said) = mount.pailfs(&["status", &root(&mount)]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    for part in ["not stored   nothing", "PutObject", "commit=close", "sent again"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(
        mount.pailfs(&["status", "--check", &mount.path("f").display().to_string()]),
        (Some(0), String::new(), String::new())
    );
}

#[test]
fn requests_that_are_sent_again_are_counted() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    let before = report(&mount)["retries"].as_u64().expect("a number");
    let busy = FaultKind::Answer { status: 503, code: "SlowDown".to_owned() };
    server.demo().add_fault(Fault::new(busy).on(Operation::PutObject).times(2));
    std::fs::write(mount.path("f"), "x").expect("stored in the end");
    assert_eq!(report(&mount)["retries"], before + 2);
}

#[test]
fn status_names_the_files_that_can_not_be_stored_and_sync_and_umount_say_so() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount();
    denied(&server);
    let mut file = File::create(mount.path("kept")).expect("a new file");
    file.write_all(b"bytes").expect("written");
    assert!(file.sync_all().is_err(), "the program is told");
    drop(file);
    // Its close tries once more.
    eventually("the commit has failed", || report(&mount)["failed_files"] == 1);
    let told = report(&mount);
    assert_eq!((&told["unstored_files"], &told["unstored_bytes"]), (&Value::from(1), &Value::from(5)));
    let file = &told["unstored"][0];
    assert_eq!((&file["path"], &file["standing"]), (&Value::from("kept"), &Value::from("failed")));
    assert!(file["error"].as_str().is_some_and(|error| error.contains("denied")), "{told}");
    let (code, printed, said) = mount.pailfs(&["status", "--check", &root(&mount)]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(said.contains("1 file(s) can't be stored"), "{said}");
    for command in [&["sync", "--timeout", "60", &root(&mount)][..], &["umount", &root(&mount)]] {
        let (code, _, said) = mount.pailfs(command);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("1 file(s) are not stored yet") && said.contains("kept: "), "{said}");
    }
    assert_eq!(mount.sh("cat kept"), "bytes", "it is still mounted");
    server.demo().clear_faults();
    assert_eq!(mount.pailfs(&["sync", &root(&mount)]), (Some(0), String::new(), String::new()));
    assert_eq!(server.objects().get("kept").as_deref(), Some(&b"bytes"[..]));
    assert_eq!(mount.pailfs(&["status", "--check", &root(&mount)]).0, Some(0));
    assert_eq!(mount.pailfs(&["umount", &root(&mount)]).0, Some(0));
    mount.await_end();
}

#[test]
fn sync_and_umount_wait_for_what_was_closed_and_name_what_is_open() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount_with(&["commit=async"]);
    server.demo().set_shape(Shape { first_byte: Duration::from_millis(700), ..Shape::default() });
    let write =
        |from: u32| (from..from + 30).for_each(|n| std::fs::write(mount.path(&format!("f{n}")), "x").expect("closed"));
    let open = Writer::start(&mount, "open");
    write(0);
    let (code, _, said) = mount.pailfs(&["sync", &root(&mount)]);
    assert_eq!((code, said.as_str()), (Some(0), "pailfs: open is open for writing, and was left as it is\n"));
    // The server has a file before it answers: the mount knows what was answered.
    assert_eq!(report(&mount)["unstored_files"], 1);
    assert_eq!(server.objects().files().len(), 30);
    open.end();
    // The last file is stored when it is sent for the second time.
    let silence = FaultKind::Silence { applied: false, pause: Duration::from_secs(2) };
    server.demo().add_fault(Fault::new(silence).on(Operation::PutObject).key("f59").once());
    write(30);
    assert_eq!(mount.pailfs(&["umount", &root(&mount)]), (Some(0), String::new(), String::new()));
    assert_eq!(server.objects().files().len(), 61, "before the command returns");
    mount.await_end();
}

#[test]
fn status_of_a_file_tells_its_object_and_how_far_it_is() {
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("mkdir d && printf bytes > d/f");
    let of = |name: &str| {
        let (code, printed, said) = mount.pailfs(&["status", "--json", &mount.path(name).display().to_string()]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<Value>(&printed).expect("JSON")
    };
    let file = of("d/f");
    assert_eq!((&file["key"], &file["size"]), (&Value::from(server.key("d/f")), &Value::from(5)));
    assert_eq!(file["standing"], "stored");
    assert!(file["etag"].as_str().is_some_and(|etag| !etag.is_empty()), "{file}");
    assert_eq!(of("d")["is_dir"], true);
    let open = Writer::start(&mount, "d/new");
    assert_eq!((&of("d/new")["standing"], &of("d/new")["size"]), (&Value::from("open"), &Value::from(4)));
    open.end();
    assert_eq!(of("d/new")["standing"], "stored");
    let (code, _, said) = mount.pailfs(&["status", &mount.path("d/none").display().to_string()]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("pailfs: d/none: "), "{said}");
}

#[test]
fn a_mount_that_is_not_there_or_was_killed_is_told_as_such() {
    let server = TestServer::start();
    let mut mount = server.mount();
    let elsewhere = mount.local().display().to_string();
    let (code, _, said) = mount.pailfs(&["status", &elsewhere]);
    assert_eq!(code, Some(1));
    assert!(said.contains("is not on a pailfs mount"), "{said}");
    assert_eq!(mount.pailfs(&["status", "--check", &elsewhere]).0, Some(32));
    signal(mount.pid(), libc::SIGKILL);
    mount.await_end();
    // Which tidies up behind the killed ones.
    let _another = server.mount();
    let (code, _, said) = mount.pailfs(&["status", "--check", &root(&mount)]);
    assert_eq!(code, Some(32), "{said}");
    assert!(said.contains("does not answer"), "{said}");
    assert_eq!(mount.pailfs(&["status", &root(&mount)]).0, Some(2));
    mount.clear();
}

#[test]
fn the_control_socket_is_this_users_alone_names_no_secret_and_goes_with_the_mount() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount();
    let socket = socket(&mount);
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().expect("a directory"))), (0o600, 0o700));
    let (_, printed, _) = mount.pailfs(&["status", "--json", &root(&mount)]);
    assert!(!printed.contains(server.demo().secret_key()), "{printed}");
    if user() == 0 {
        let mut other = Command::new("setpriv");
        other.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_pailfs"),
            "status",
            &root(&mount),
        ]);
        let output = other.output().expect("setpriv runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("ask as the user who mounted it, or as root"), "{said}");
    } else {
        skipped(&test_name(), "another user can only be played by root");
    }
    mount.unmount();
    assert!(!socket.exists());
}
