//! What several processes and mappings do with one file: mmap, locks, open files that are unlinked, programs run
//! from the mount.

use crate::common::{TestServer, assert_same_bytes, has_program, noise};

#[test]
fn python_maps_a_file_shared_and_writes_through_the_map() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    server.objects().put("f", vec![b'.'; 20_000]);
    mount.sh(r#"python3 - <<'END'
import mmap, os
with open("f", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
    assert m[:3] == b"..."
    m[10:13] = b"abc"
    m[9999:10001] = b"yz"
    f.seek(10); assert f.read(3) == b"abc", "read sees the map"
    f.seek(0); f.write(b"W"); f.flush()
    assert m[0:1] == b"W", "the map sees the write"
    m.flush(); m.close()
END"#);
    let mut wanted = vec![b'.'; 20_000];
    wanted[10..13].copy_from_slice(b"abc");
    wanted[9999..10001].copy_from_slice(b"yz");
    wanted[0] = b'W';
    assert_same_bytes("object of a mapped file", &server.objects().get("f").expect("object"), &wanted);
}

#[test]
fn a_private_map_changes_nothing() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    server.objects().put("f", vec![b'.'; 5000]);
    mount.sh(r#"python3 - <<'END'
import mmap
with open("f", "rb") as f:
    m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    m[0:5] = b"local"
    assert m[:6] == b"local."
    m.close()
END"#);
    assert_same_bytes("object", &server.objects().get("f").expect("object"), &[b'.'; 5000]);
}

#[test]
fn a_map_that_outlives_its_descriptor_reaches_the_object() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh(r#"python3 - <<'END'
import mmap, os
f = open("f", "w+b"); f.truncate(8192); f.flush()
m = mmap.mmap(f.fileno(), 8192)
f.close()
m[4096:4100] = b"late"
m.close()
END"#);
    mount.unmount();
    let bytes = server.objects().get("f").expect("object");
    assert_eq!((bytes.len(), &bytes[4096..4100]), (8192, &b"late"[..]));
}

#[test]
fn an_unlinked_file_works_until_its_last_close() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    server.objects().put("clean", noise(3, 2_000_000));
    mount.sh(r#"python3 - <<'END'
import os
c = open("clean", "rb"); first = c.read(1000)
d = open("dirty", "w+b"); d.write(b"abc"); d.flush()
os.unlink("clean"); os.unlink("dirty")
assert not os.path.exists("clean") and not os.path.exists("dirty")
assert os.listdir(".") == []
c.seek(0); rest = c.read(); assert len(rest) == 2000000 and rest[:1000] == first
d.write(b"def"); d.flush(); d.seek(0); assert d.read() == b"abcdef"
assert os.fstat(d.fileno()).st_size == 6
c.close(); d.close()
END"#);
    assert_eq!(server.objects().list(), Vec::<String>::new());
}

#[test]
fn a_name_can_be_made_anew_while_the_unlinked_file_is_open() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh(r#"python3 - <<'END'
import os
old = open("f", "w+b"); old.write(b"old"); old.flush(); os.fsync(old.fileno())
os.unlink("f")
with open("f", "wb") as new: new.write(b"new")
old.write(b"er"); old.flush(); old.seek(0); assert old.read() == b"older"
old.close()
assert open("f", "rb").read() == b"new"
END"#);
    assert_eq!(server.objects().text("f"), "new");
}

#[test]
fn a_large_file_works_until_its_last_close_whatever_becomes_of_its_name() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh(r#"python3 - <<'END'
import os
size = (64 << 20) + 3
def opened(path):
    os.makedirs("d", exist_ok=True)
    with open(path, "wb") as file: file.truncate(size - 3); file.seek(size - 3); file.write(b"end")
    return open(path, "rb")
def works(file):
    file.seek(size - 3); assert file.read() == b"end"; file.close()
def new():
    with open("new", "wb") as file: file.write(b"new")
removed = opened("d/removed"); os.unlink("d/removed"); assert not os.listdir("d"); works(removed); assert os.listdir("d") == []
over = opened("d/over"); new(); os.rename("new", "d/over"); works(over); assert open("d/over", "rb").read() == b"new"
moved = opened("d/moved"); os.unlink("d/moved"); os.rename("d", "e"); assert not os.path.exists("d"); works(moved)
assert os.listdir("e") == ["over"]
END"#);
    assert_eq!(server.objects().files(), ["e/over"]);
}

/// Equal bytes have an equal ETag, so that a delete guarded by it would take the new file away.
#[test]
fn a_file_equal_to_a_large_unlinked_one_survives_its_last_close() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh(r#"python3 - <<'END'
import os
size = (64 << 20) + 1
def make(path):
    with open(path, "wb") as file: file.truncate(size)
for path in ["f", "dir/f"]:
    os.makedirs("dir", exist_ok=True)
    make(path)
    old = open(path, "rb")
    os.unlink(path)
    if path == "f":
        make(path)
    else:
        os.mkdir("other"); make("other/f"); os.rename("other", "dir")
    old.seek(size - 1); assert old.read() == b"\0"
    old.close()
    assert os.path.getsize(path) == size
END"#);
    assert_eq!(server.objects().get("f").map(|bytes| bytes.len()), Some((64 << 20) + 1));
    assert_eq!(server.objects().get("dir/f").map(|bytes| bytes.len()), Some((64 << 20) + 1));
}

#[test]
fn a_reader_sees_what_a_writer_wrote_before_its_close() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    server.objects().put("f", "0123456789");
    mount.sh(r#"python3 - <<'END'
import os
r = open("f", "rb", buffering=0); w = open("f", "r+b", buffering=0)
assert r.read(2) == b"01"
w.seek(2); w.write(b"ab")
assert r.read(2) == b"ab"
w.seek(0, 2); w.write(b"tail")
assert os.fstat(r.fileno()).st_size == 14
r.seek(8); assert r.read() == b"89tail"
w.close(); r.close()
END"#);
    assert_eq!(server.objects().text("f"), "01ab456789tail");
}

#[test]
fn a_renamed_file_keeps_its_open_writer() {
    if !has_program("python3") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh(r#"python3 - <<'END'
import os
f = open("a", "wb", buffering=0); f.write(b"one ")
os.mkdir("d"); os.rename("a", "d/b")
f.write(b"two"); f.close()
assert not os.path.exists("a")
END"#);
    assert_eq!(server.objects().text("d/b"), "one two");
    assert!(!server.objects().exists("a"));
}

#[test]
fn locks_work_between_processes_of_one_mount() {
    if !has_program("flock") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("echo x > f; exec 9<f; flock 9; ! flock -n f true; flock -u 9; flock -n f true");
}

#[test]
fn a_program_in_the_mount_runs() {
    let server = TestServer::start();
    let mount = server.mount();
    assert_eq!(mount.sh("cp /bin/echo ./say && chmod +x say && ./say hello"), "hello");
}

#[test]
fn many_processes_write_files_of_one_directory() {
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh(
        "mkdir d; for i in $(seq 40); do (echo $i > d/$i; cat d/$i > d/copy-$i) & done; wait; [ $(ls d | wc -l) = 80 ]",
    );
    for number in [1, 17, 40] {
        assert_eq!(server.objects().text(&format!("d/copy-{number}")), format!("{number}\n"));
    }
    assert_eq!(server.objects().files().len(), 80);
}
