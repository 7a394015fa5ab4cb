//! Copies within the mount: what S3 copies by itself, and what programs copy by reading and writing.

use std::io::Write;

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, noise};

const MIB: usize = 1 << 20;

/// What an open of a large file brings, for the program that may read it.
const FIRST_BYTES: u64 = 256 << 10;

/// os.copy_file_range of all of `a` to the new file `b`; prints what it answers each time.
const WHOLE: &str = "python3 -c '
import os
a, b = os.open(\"a\", os.O_RDONLY), os.open(\"b\", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
print(os.copy_file_range(a, b, 1 << 40), os.copy_file_range(a, b, 1 << 40))
os.close(b)'";

fn mount_with_a(bytes: &[u8]) -> (TestServer, Mount) {
    let server = TestServer::start();
    let mount = server.mount();
    server.objects().put("a", bytes);
    (server, mount)
}

#[track_caller]
fn assert_copied(server: &TestServer, mount: &Mount, name: &str, bytes: &[u8]) {
    assert_same_bytes(name, &server.objects().get(name).expect("an object"), bytes);
    assert_same_bytes(name, &std::fs::read(mount.path(name)).expect("it can be read"), bytes);
}

#[test]
fn cp_copies_a_file_within_s3_and_moves_none_of_its_bytes() {
    let bytes = noise(1, 9 * MIB + 1);
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    server.objects().put("a", bytes.clone());
    for program in ["cp a b", "cp a b", "cp -p a c", "cat a > d", WHOLE.replace("\"b\"", "\"e\"").as_str()] {
        server.demo().reset_counters();
        mount.sh(program);
        let counters = server.demo().counters();
        let total = counters.total();
        assert!(total.bytes_out <= FIRST_BYTES + (64 << 10), "{program}: {counters:?}");
        assert_eq!(counters.of(Operation::PutObject).requests, 0, "{program}: {counters:?}");
        assert_eq!(counters.of(Operation::UploadPart).requests, 0, "{program}: {counters:?}");
        assert!(total.requests <= 14, "{program}: {counters:?}");
    }
    for name in ["b", "c", "d", "e"] {
        assert_copied(&server, &mount, name, &bytes);
    }
    assert!(server.objects().unfinished_uploads().is_empty());
}

#[test]
fn programs_that_copy_find_the_same_bytes() {
    let bytes = noise(2, 6 * MIB + 7);
    let (server, mount) = mount_with_a(&bytes);
    let size = bytes.len();
    assert_eq!(mount.sh(WHOLE).trim(), format!("{size} 0"));
    mount.sh(
        "cp a c; cp a c; cp -p b d; chmod 600 d; printf more >> c; cp c e; mv e f; touch -d @1000000000 f; cp -p f g",
    );
    for name in ["b", "d"] {
        assert_copied(&server, &mount, name, &bytes);
    }
    let longer = [bytes.as_slice(), b"more"].concat();
    for name in ["c", "f", "g"] {
        assert_copied(&server, &mount, name, &longer);
    }
    assert_eq!(mount.sh("stat -c %Y g; stat -c %a d").split_whitespace().collect::<Vec<_>>(), ["1000000000", "600"]);
}

#[test]
fn a_copied_range_and_a_copy_of_what_is_being_written_are_right_too() {
    let bytes = noise(3, 6 * MIB);
    let (server, mount) = mount_with_a(&bytes);
    mount.sh("python3 -c '
import os
a, b = os.open(\"a\", os.O_RDWR), os.open(\"b\", os.O_RDWR | os.O_CREAT, 0o644)
assert os.copy_file_range(a, b, 1000, 5, 7) == 1000
d = os.open(\"d\", os.O_RDWR | os.O_CREAT, 0o644)
assert os.copy_file_range(a, d, 1 << 30, 0, 9) == 6 << 20
os.close(d)
os.pwrite(a, b\"new\", 0)
c = os.open(\"c\", os.O_RDWR | os.O_CREAT, 0o644)
assert os.copy_file_range(a, c, 1 << 30, 0, 0) == 6 << 20
os.close(c); os.close(b); os.close(a)'");
    assert_copied(&server, &mount, "b", &[&[0; 7], &bytes[5..1005]].concat());
    assert_copied(&server, &mount, "d", &[&[0; 9], bytes.as_slice()].concat());
    assert_copied(&server, &mount, "c", &[b"new", &bytes[3..]].concat());
}

#[test]
fn a_copy_never_replaces_what_another_client_made_first() {
    let bytes = noise(4, 6 * MIB);
    let (server, mount) = mount_with_a(&bytes);
    let script = mount.shell().start(
        "python3 -c '
import os, sys
a, b = os.open(\"a\", os.O_RDONLY), os.open(\"b\", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
open(os.environ[\"LOCAL\"] + \"/made\", \"w\").close()
while not os.path.exists(os.environ[\"LOCAL\"] + \"/go\"): pass
os.copy_file_range(a, b, 1 << 40)
try: os.close(b)
except FileExistsError: sys.exit(7)'",
    );
    crate::common::eventually("the file is open", || mount.local().join("made").exists());
    server.objects().put("b", "theirs");
    std::fs::write(mount.local().join("go"), "").expect("a word");
    let ended = script.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    assert_eq!(server.objects().text("b"), "theirs");
}

/// What copies a file in pieces of a few MiB, as the kernel does in pieces of 4 GiB, and others in pieces of 1 GiB. What the
/// commands say is done after each piece.
fn in_pieces(target: &str, then: &str) -> String {
    format!(
        "python3 -c '
import os, signal
a, b = os.open(\"a\", os.O_RDONLY), os.open(\"{target}\", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
at = 0
while True:
    count = os.copy_file_range(a, b, 7654321, at, at)
    if count == 0: break
    at += count
    {then}
os.close(b)'"
    )
}

#[test]
fn a_file_copied_in_pieces_and_files_put_together_move_none_of_their_bytes() {
    let bytes = noise(5, 24 * MIB + 5);
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    server.objects().put("a", bytes.clone());
    server.objects().put("small", "the end");
    let unseen = "assert os.fstat(b).st_size == at";
    for program in [in_pieces("b", unseen).as_str(), in_pieces("b", unseen).as_str(), "cat a a small > c"] {
        server.demo().reset_counters();
        mount.sh(program);
        let counters = server.demo().counters();
        let total = counters.total();
        assert!(total.bytes_out <= FIRST_BYTES + (64 << 10), "{program}: {counters:?}");
        assert!(total.bytes_in <= 64 << 10, "{program}: {counters:?}");
        assert_eq!(counters.of(Operation::PutObject).requests, 0, "{program}: {counters:?}");
        assert_eq!(counters.of(Operation::UploadPart).requests, 0, "{program}: {counters:?}");
        assert!(total.requests <= 30, "{program}: {counters:?}");
    }
    assert_copied(&server, &mount, "b", &bytes);
    assert_copied(&server, &mount, "c", &[bytes.as_slice(), &bytes, b"the end"].concat());
    assert!(server.objects().unfinished_uploads().is_empty());
}

#[test]
fn a_file_that_is_copied_in_pieces_can_be_used_before_it_is_closed() {
    let bytes = noise(6, 24 * MIB + 5);
    let (server, mount) = mount_with_a(&bytes);
    let uses = [
        ("read", "assert os.pread(b, 9, at - 5) == os.pread(a, 5, at - 5)"),
        ("synced", "os.fsync(b)"),
        ("written", "os.pwrite(b, os.pread(a, 99, 1), 1)"),
        ("renamed", "os.rename(\"renamed\", \"other\"); os.rename(\"other\", \"renamed\")"),
        ("given", "os.fchmod(b, 0o600)"),
    ];
    for (name, then) in uses {
        mount.sh(&in_pieces(name, then));
        assert_copied(&server, &mount, name, &bytes);
    }
    assert_eq!(mount.sh("stat -c %a given").trim(), "600");
    mount.sh(&in_pieces("b", "os.path.exists(\"a\") and at == os.fstat(a).st_size and os.unlink(\"a\")"));
    assert_copied(&server, &mount, "b", &bytes);
    if server.has(&[Capability::ListUploads]) {
        assert!(server.objects().unfinished_uploads().is_empty());
    }
}

#[test]
fn a_copy_in_pieces_that_s3_refuses_in_its_middle_is_right_too() {
    let bytes = noise(7, 24 * MIB + 5);
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    server.objects().put("a", bytes.clone());
    let answer = |status, code: &str| FaultKind::Answer { status, code: code.to_owned() };
    let refusals = [
        answer(403, "AccessDenied"),
        answer(404, "NoSuchKey"),
        answer(412, "PreconditionFailed"),
        answer(500, "InternalError"),
    ];
    for kind in refusals {
        for skip in [0, 1, 3] {
            server.demo().add_fault(Fault::new(kind.clone()).on(Operation::UploadPartCopy).skip(skip).once());
            mount.sh(&in_pieces("b", "pass"));
            server.demo().clear_faults();
            assert_copied(&server, &mount, "b", &bytes);
            crate::common::eventually("no upload is left", || server.objects().unfinished_uploads().is_empty());
        }
    }
}

#[test]
fn a_kill_during_a_copy_in_pieces_leaves_no_half_object_and_no_upload() {
    let bytes = noise(8, 24 * MIB + 5);
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount();
    server.objects().put("a", bytes.clone());
    let waits = "open(os.environ[\"LOCAL\"] + \"/made\", \"w\").close(); signal.pause()";
    let mut script = mount.shell().start(&format!("exec {}", in_pieces("b", waits)));
    crate::common::eventually("a piece is copied", || mount.local().join("made").exists());
    assert_eq!(server.objects().unfinished_uploads().len(), 1);
    mount.kill();
    _ = script.kill();
    _ = script.wait();
    mount.mount_again();
    crate::common::eventually("no upload is left", || server.objects().unfinished_uploads().is_empty());
    assert!(!server.objects().exists("b"), "half an object");
    mount.sh("cp a b");
    assert_copied(&server, &mount, "b", &bytes);
}

/// Of more than the kernel asks for at once. Composed of itself, it takes no memory in the server, but sums of it take time.
#[test]
fn a_file_of_more_than_4_gib_is_copied_within_s3() {
    let whole = !cfg!(debug_assertions) || std::env::var_os("PAILFS_TEST_BIG").is_some();
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    if !whole {
        return crate::common::skipped("a_file_of_more_than_4_gib_is_copied_within_s3", "PAILFS_TEST_BIG is not set");
    }
    let mount = server.mount();
    server.objects().put("a", noise(9, 64 * MIB));
    mount.sh("cat $(yes a | head -n 68) > large");
    server.demo().reset_counters();
    mount.sh("cp large b; install large c");
    let counters = server.demo().counters();
    assert!(counters.total().bytes_out + counters.total().bytes_in < 1 << 20, "{counters:?}");
    assert_eq!(counters.of(Operation::UploadPartCopy).requests, 2 * 9, "{counters:?}");
    for name in ["b", "c"] {
        assert_eq!(server.objects().head(name).map(|head| head.size), Some(68 * 64 * MIB as u64));
        mount.sh(&format!(
            "for at in 0 1 62 63 64 67; do dd if={name} bs=64M skip=$at count=1 status=none | cmp - a; done"
        ));
    }
}

/// S3 copies no range of an object of 5 MiB or less, though a part may be as small.
#[test]
fn a_file_that_grows_from_five_mib_is_stored() {
    const PART: usize = 5 << 20;
    let server = TestServer::start();
    let mount = server.mount_with(&["part_size=5MiB"]);
    for size in [PART - 1, PART, PART + 1] {
        let (first, more) = (noise(1, size), noise(2, 2 * PART));
        std::fs::write(mount.path("f"), &first).expect("stored");
        let mut file = std::fs::OpenOptions::new().append(true).open(mount.path("f")).expect("it opens");
        file.write_all(&more).and_then(|()| file.sync_all()).unwrap_or_else(|error| panic!("{size}: {error}"));
        drop(file);
        assert_same_bytes("object", &server.objects().get("f").expect("an object"), &[first, more].concat());
    }
}
