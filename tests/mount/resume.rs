//! Uploads that a killed daemon had begun go on where they stopped: what is up is not sent again, and no byte is another one.

use std::path::Path;

use pailfs::demo::{Operation, Shape};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, eventually, noise, signal, undisturbed};

const SIZE: usize = 64 << 20;
/// Of 5 MiB.
const PARTS: u64 = 13;

/// True when the journal has a file that was closed.
fn is_sealed(stage: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(stage) else { return false };
    entries.flatten().any(|entry| match entry.path() {
        path if path.is_dir() => is_sealed(&path),
        path => {
            path.extension().is_some_and(|extension| extension == "json")
                && std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"state\":\"sealed\""))
        }
    })
}

/// A mount that was killed while a large file was being stored, and how many of its parts were up. Only the in-process server
/// is slow enough to be sure of some.
fn killed_in_the_middle(server: &TestServer, commit: &str, bytes: &[u8]) -> (Mount, u64) {
    let is_slow = server.kind() == "demo";
    if is_slow {
        server.demo().set_shape(Shape { total: Some(12 << 20), ..Shape::default() });
    }
    let mut mount = server.mount_with(&["part_size=5MiB", commit]);
    let undisturbed = undisturbed();
    let (path, content) = (mount.path("large"), bytes.to_vec());
    let writer = std::thread::spawn(move || std::fs::write(path, content));
    let stage = mount.local().join("stage");
    let wanted = if is_slow { 4 } else { 1 };
    eventually("the file is closed, and parts are up", || {
        (is_sealed(&stage) && server.objects().parts_up("large") >= wanted) || server.objects().exists("large")
    });
    signal(mount.pid(), libc::SIGKILL);
    let _ = writer.join();
    drop(undisturbed);
    mount.kill();
    if is_slow {
        server.demo().set_shape(Shape::default());
        assert!(!server.objects().exists("large"), "it was stored before it was killed");
    }
    let up = server.objects().parts_up("large");
    (mount, up)
}

#[track_caller]
fn is_stored(server: &TestServer, mount: &mut Mount, bytes: &[u8]) {
    assert_same_bytes("the file", &std::fs::read(mount.path("large")).expect("a file"), bytes);
    eventually("nothing is left of the upload", || {
        server.objects().exists("large") && server.objects().parts_up("large") == 0
    });
    assert_same_bytes("the object", &server.objects().get("large").expect("an object"), bytes);
    mount.unmount();
    assert_eq!(mount.recover(&[]).1, "nothing is left\n");
}

#[test]
fn an_upload_goes_on_after_a_kill_where_it_stopped() {
    for commit in ["commit=close", "commit=async"] {
        let server = TestServer::start();
        let bytes = noise(31, SIZE);
        let (mut mount, up) = killed_in_the_middle(&server, commit, &bytes);
        if server.kind() == "demo" {
            server.demo().reset_counters();
        }
        mount.mount_again();
        eventually("it is stored", || server.objects().exists("large"));
        if server.kind() == "demo" {
            let counters = server.demo().counters();
            let [begun, lists, parts] = [Operation::CreateMultipartUpload, Operation::ListParts, Operation::UploadPart]
                .map(|operation| counters.requests(operation));
            assert!((4..PARTS).contains(&up), "{up}");
            // One more may have been on its way to the server when it was killed.
            assert_eq!((begun, lists), (0, 1));
            assert!(parts <= PARTS - up && parts > 0, "{parts} parts were sent when {up} of {PARTS} were up");
        } else if up > 0 {
            assert!(mount.log().contains("an upload of an earlier run goes on"), "{}", mount.log());
        }
        is_stored(&server, &mut mount, &bytes);
    }
}

#[test]
fn an_upload_whose_parts_must_not_be_listed_is_begun_anew_after_a_kill() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let bytes = noise(32, SIZE);
    let (mut mount, _) = killed_in_the_middle(&server, "commit=close", &bytes);
    server.demo().deny(Some(Operation::ListParts), "");
    server.demo().reset_counters();
    mount.mount_again();
    eventually("it is stored", || server.objects().exists("large"));
    let counters = server.demo().counters();
    assert_eq!(counters.requests(Operation::CreateMultipartUpload), 1);
    assert!(counters.requests(Operation::UploadPart) >= PARTS);
    server.demo().allow_all();
    is_stored(&server, &mut mount, &bytes);
}

/// Who writes to the file first stores what it has then.
#[test]
fn a_file_that_is_changed_at_once_after_a_kill_is_stored_with_the_change() {
    let server = TestServer::start();
    let mut bytes = noise(33, SIZE);
    let (mut mount, _) = killed_in_the_middle(&server, "commit=async", &bytes);
    mount.mount_again();
    mount.sh("printf changed | dd of=large bs=1 seek=30000000 conv=notrunc,fsync status=none; printf end >> large");
    bytes[30_000_000..30_000_007].copy_from_slice(b"changed");
    bytes.extend_from_slice(b"end");
    eventually("it is stored", || server.objects().get("large").is_some_and(|there| there.len() == bytes.len()));
    is_stored(&server, &mut mount, &bytes);
}
