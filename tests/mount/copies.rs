//! Copies within the mount: what S3 copies by itself, and what programs copy by reading and writing.

use std::io::Write;

use pailfs::demo::Operation;

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
