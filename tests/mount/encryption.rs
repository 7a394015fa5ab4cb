//! The encryption that a mount asks for: every object that it writes has it, and a store that does otherwise is no success.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, eventually, noise, signal, undisturbed};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER_KEY: &[u8] = b"0123456789abcdef0123456789abcdeX";
const KEY_IN_BASE64: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const MD5_OF_KEY: &str = "hRasmdxgYDKV3nvbahU1MA==";

type Told = Option<(String, Option<String>)>;

fn of(server: &TestServer, name: &str) -> Told {
    server.direct().get(&server.key(name)).unwrap_or_else(|| panic!("no object {name}")).encryption
}

/// All objects of the test, with their encryption.
fn all(server: &TestServer) -> Vec<(String, Told)> {
    server.objects().list().into_iter().map(|name| (name.clone(), of(server, &name))).collect()
}

/// A key file that its owner alone can read.
fn key_file(dir: &Path, name: &str, key: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, key).expect("a key file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("a mode");
    path
}

/// Makes new objects of all sizes, and changes, copies and moves what is there: `old` and `tree/leaf` are small, `large` has 20 MiB.
fn work(mount: &Mount) {
    mount.sh("echo new > new; mkdir d; head -c 12000000 /dev/zero > parts; echo more >> old; echo more >> large
         chmod 600 new; cp old copied; mv copied moved; cp large copied; mv tree wood; ln -s old link; mv large larger
         cat old | grep -x 'xxxxxmore'; test \"$(stat -c %s larger)\" = 20971525; tail -c 5 copied | grep -x more");
}

#[test]
fn all_that_is_written_gets_the_encryption_that_was_asked_for() {
    for (options, algorithm, key) in [
        (&["sse=AES256"][..], "AES256", None),
        (
            &["sse=aws:kms", "sse_kms_key_id=arn:aws:kms:us-east-1:1:key/k"],
            "aws:kms",
            Some("arn:aws:kms:us-east-1:1:key/k"),
        ),
        (&["sse=aws:kms:dsse"], "aws:kms:dsse", None),
    ] {
        let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
        for (name, size) in [("old", 5), ("tree/leaf", 5), ("large", 20 << 20)] {
            server.objects().put(name, vec![b'x'; size]);
        }
        server.objects().put_encrypted("old", "xxxxx", "another-key");
        let mount = server.mount_with(&[options, &["part_size=5MiB"]].concat());
        work(&mount);
        let wanted = Some((algorithm.to_owned(), key.map(str::to_owned)));
        for (name, told) in all(&server) {
            assert_eq!(told, wanted, "{options:?}: {name}");
        }
        assert!(server.objects().exists("wood/leaf") && server.objects().exists("d/"));
    }
}

#[test]
fn an_encryption_that_is_as_asked_keeps_its_key() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    server.objects().put_encrypted("f", "x", "a-key");
    let mount = server.mount_with(&["sse=aws:kms"]);
    mount.sh("echo more >> f; mv f g; chmod 600 g");
    assert_eq!(of(&server, "g"), Some(("aws:kms".to_owned(), Some("a-key".to_owned()))));
}

#[test]
fn a_store_that_encrypts_otherwise_is_no_success() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    server.direct().ignore_encryption(true);
    server.objects().put("large", "old");
    let mut mount = server.mount_with(&["sse=aws:kms", "part_size=5MiB"]);
    let bytes = noise(7, 12_000_000);
    let errno = |name: &str, bytes: &[u8]| {
        let _undisturbed = undisturbed();
        let mut file = File::create(mount.path(name)).expect("a file");
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| e.raw_os_error())
    };
    assert_eq!(errno("large", &bytes), Err(Some(libc::EIO)));
    assert_eq!(errno("small", b"small"), Err(Some(libc::EIO)));
    assert_eq!(server.objects().text("large"), "old");
    assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
    let said = "aws:kms was asked for, and CreateMultipartUpload told of none";
    let loud =
        |log: String| log.lines().filter(|line| line.contains("this store does not encrypt as it is asked")).count();
    assert!(mount.log().contains(said), "{}", mount.log());
    assert_eq!(loud(mount.log()), 1, "{}", mount.log());
    mount.unmount();
    // What is there without it is not taken for the file that was refused.
    let (code, told) = mount.recover(&["--upload"]);
    assert!(code != Some(0) && told.contains("encrypt"), "{told}");
    server.direct().ignore_encryption(false);
    let (_, told) = mount.recover(&["--upload", "--force"]);
    for (name, bytes) in [("large", &bytes[..]), ("small", b"small")] {
        assert_same_bytes(&told, &server.objects().get(name).expect("an object"), bytes);
        assert_eq!(of(&server, name), Some(("aws:kms".to_owned(), None)), "{told}");
    }
    assert_eq!(mount.recover(&[]).1, "nothing is left\n");
}

#[test]
fn a_key_of_ones_own_goes_with_every_request() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let keys = tempfile::tempdir().expect("a directory");
    let file = key_file(keys.path(), "key", KEY);
    let option = format!("sse_c_key_file={}", file.display());
    let mut mount = server.mount_with(&[&option, "part_size=5MiB", "log_level=trace"]);
    mount.sh("printf xxxxx > old; mkdir tree; echo leaf > tree/leaf; head -c 20971520 /dev/zero > large");
    work(&mount);
    let wanted = Some(("customer".to_owned(), Some(MD5_OF_KEY.to_owned())));
    for (name, told) in all(&server) {
        assert_eq!(told, wanted, "{name}");
    }
    mount.remount();
    mount.sh("cat old wood/leaf link; ls -lR . > $LOCAL/list; cmp larger copied; dd if=larger bs=1000 skip=9000 count=1 of=/dev/null");
    let (_, status, _) = mount.pailfs(&["status", "--json", &mount.path("").display().to_string()]);
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", mount.pid())).expect("a command line");
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    for (place, text) in [("log", mount.log()), ("status", status), ("command line", line), ("mount table", table)] {
        for key in [KEY_IN_BASE64, "0123456789abcdef0123456789abcdef"] {
            assert!(!text.contains(key), "the {place} tells the key");
        }
    }
}

#[test]
fn a_file_with_a_key_of_ones_own_survives_a_kill() {
    for fault in [
        Fault::new(FaultKind::DropBeforeApply).on(Operation::UploadPart).skip(1),
        Fault::new(FaultKind::ApplyThenDrop).on(Operation::CompleteMultipartUpload),
    ] {
        let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
        let keys = tempfile::tempdir().expect("a directory");
        let option = format!("sse_c_key_file={}", key_file(keys.path(), "key", KEY_IN_BASE64.as_bytes()).display());
        let mut mount = server.mount_with(&[&option, "part_size=5MiB"]);
        let bytes = noise(3, 12_000_000);
        server.demo().add_fault(fault);
        let undisturbed = undisturbed();
        let (path, content) = (mount.path("f"), bytes.clone());
        let writer = std::thread::spawn(move || std::fs::write(path, content));
        eventually("the point is reached", || server.demo().faults_fired() > 0);
        signal(mount.pid(), libc::SIGKILL);
        let _ = writer.join();
        drop(undisturbed);
        mount.kill();
        server.demo().clear_faults();
        mount.mount_again();
        eventually("it is stored", || mount.log().contains("f, left by an earlier run, is stored"));
        assert_same_bytes("the file", &std::fs::read(mount.path("f")).expect("a file"), &bytes);
        assert_eq!(of(&server, "f"), Some(("customer".to_owned(), Some(MD5_OF_KEY.to_owned()))));
        mount.unmount();
        assert_eq!(mount.recover(&[]).1, "nothing is left\n");
    }
}

#[test]
fn an_object_with_another_key_can_be_listed_and_not_read() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let keys = tempfile::tempdir().expect("a directory");
    let option = |name: &str, key: &[u8]| format!("sse_c_key_file={}", key_file(keys.path(), name, key).display());
    server.mount_with(&[&option("key", KEY)]).sh("echo mine > mine");
    server.objects().put("plain", "plain");
    let other = server.mount_with(&[&option("other", OTHER_KEY)]);
    assert_eq!(other.sh("ls"), "mine\nplain");
    for name in ["mine", "plain"] {
        let read = std::fs::read(other.path(name)).map_err(|e| e.raw_os_error());
        assert_eq!(read, Err(Some(libc::EACCES)), "{name}");
    }
    assert!(other.log().contains("another than that of sse_c_key_file"), "{}", other.log());
    assert!(other.log().contains("the object is not encrypted with the key of sse_c_key_file"), "{}", other.log());
    let without = server.mount();
    assert!(std::fs::read(without.path("mine")).is_err());
    assert_eq!(without.sh("cat plain"), "plain");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let keys = tempfile::tempdir().expect("a directory");
    let file = key_file(keys.path(), "key", KEY);
    let mut mount = server.mount_with(&[&format!("sse_c_key_file={}", file.display())]);
    mount.unmount();
    let refused = || {
        let output = mount.try_mount();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).expect("a mode");
    assert!(refused().contains("is open to other users (chmod 600 mends that)"), "{}", refused());
    key_file(keys.path(), "key", b"short");
    let told = refused();
    assert!(told.contains("holds no key") && !told.contains("short"), "{told}");
}
