//! Extended attributes (option `xattr`): what they cost, what programs and other tools find, and what is told of objects.

use std::ffi::CString;
use std::os::raw::c_int;
use std::path::Path;

use pailfs::demo::{Fault, FaultKind, Operation, Server};
use serde_json::Value;

use crate::common::{Capability, Mount, MountOptions, TestServer, eventually, has_program};

/// `{"user.a":"b25l","user.b":"AP8="}`: what s3fs stores for `one` and the bytes 0 and 255.
const TWO: &str = "%7B%22user.a%22%3A%22b25l%22%2C%22user.b%22%3A%22AP8%3D%22%7D";

fn mount(server: &TestServer) -> Mount {
    server.mount_with(&["xattr"])
}

fn stored(server: &TestServer, name: &str) -> Option<String> {
    server.objects().head(name).expect("the object").metadata.get("xattr").cloned()
}

/// Requests of all kinds.
fn requests(server: &Server) -> u64 {
    server.counters().total().requests
}

fn c_string(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn path(path: &Path) -> CString {
    c_string(path.to_str().expect("UTF-8"))
}

fn errno(result: isize) -> Result<usize, c_int> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

fn set(file: &Path, name: &str, value: &[u8], flags: c_int) -> Result<usize, c_int> {
    let (file, name) = (path(file), c_string(name));
    // SAFETY: the strings and the bytes live through the call, and the length is theirs.
    errno(unsafe { libc::setxattr(file.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) } as isize)
}

fn get(file: &Path, name: &str, room: usize) -> Result<Vec<u8>, c_int> {
    let (file, name, mut bytes) = (path(file), c_string(name), vec![0u8; room]);
    // SAFETY: strings and buffer live through the call, and the length is the buffer's.
    let len = errno(unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), bytes.as_mut_ptr().cast(), room) })?;
    bytes.resize(len, 0);
    Ok(bytes)
}

fn list(file: &Path, room: usize) -> Result<Vec<u8>, c_int> {
    let (file, mut bytes) = (path(file), vec![0u8; room]);
    // SAFETY: the string and the buffer live through the call, and the length is the buffer's.
    let len = errno(unsafe { libc::listxattr(file.as_ptr(), bytes.as_mut_ptr().cast(), room) })?;
    bytes.resize(len, 0);
    Ok(bytes)
}

fn remove(file: &Path, name: &str) -> Result<usize, c_int> {
    let (file, name) = (path(file), c_string(name));
    // SAFETY: the strings live through the call.
    errno(unsafe { libc::removexattr(file.as_ptr(), name.as_ptr()) } as isize)
}

#[test]
fn extended_attributes_are_kept_as_s3fs_keeps_them() {
    if !has_program("setfattr") {
        return;
    }
    let server = TestServer::start();
    server.objects().put("theirs", "bytes");
    let mut mount = mount(&server);
    mount.sh(
        "echo x > f; mkdir d; mkdir -p implicit
         for name in f theirs d implicit; do setfattr -n user.a -v one $name; setfattr -n user.b -v 0x00ff $name; done",
    );
    for name in ["f", "theirs", "d/", "implicit/"] {
        assert_eq!(stored(&server, name).as_deref(), Some(TWO), "{name}");
    }
    assert_eq!(server.objects().text("theirs"), "bytes");
    let shown = "getfattr --absolute-names -d -e hex f theirs d implicit | grep -v '^#'";
    let wanted = ["user.a=0x6f6e65\nuser.b=0x00ff\n"; 4].join("\n");
    assert_eq!(mount.sh(shown).trim_end(), wanted.trim_end());
    mount.remount();
    assert_eq!(mount.sh(shown).trim_end(), wanted.trim_end());
    mount.sh("for name in f d; do setfattr -x user.a $name; setfattr -x user.b $name; done; mv theirs moved");
    assert_eq!((stored(&server, "f"), stored(&server, "d/")), (None, None));
    assert_eq!(stored(&server, "moved").as_deref(), Some(TWO));
    assert_eq!(mount.sh("getfattr -d f d"), "");
}

#[test]
fn calls_of_extended_attributes_answer_as_their_manual_says() {
    let server = TestServer::start();
    let mount = mount(&server);
    mount.sh("echo x > f; mkdir d");
    for name in ["f", "d"] {
        let file = &mount.path(name);
        assert_eq!(get(file, "user.a", 0), Err(libc::ENODATA));
        assert_eq!(remove(file, "user.a"), Err(libc::ENODATA));
        assert_eq!(list(file, 0), Ok(vec![]));
        assert_eq!(set(file, "user.a", b"x", libc::XATTR_REPLACE), Err(libc::ENODATA));
        assert_eq!(set(file, "user.a", b"value", libc::XATTR_CREATE), Ok(0));
        assert_eq!(set(file, "user.a", b"x", libc::XATTR_CREATE), Err(libc::EEXIST));
        assert_eq!(get(file, "user.a", 0).map(|room| room.len()), Ok(5), "how much room it takes");
        assert_eq!(get(file, "user.a", 4), Err(libc::ERANGE));
        assert_eq!(get(file, "user.a", 5), Ok(b"value".to_vec()));
        assert_eq!(set(file, "user.a", b"", libc::XATTR_REPLACE), Ok(0));
        assert_eq!(get(file, "user.a", 9), Ok(vec![]), "an empty value is one");
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(set(file, "user.\u{fc}: ,\"{}\\", &every, 0), Ok(0));
        assert_eq!(get(file, "user.\u{fc}: ,\"{}\\", 256), Ok(every));
        let names = "user.a\0user.\u{fc}: ,\"{}\\\0".as_bytes().to_vec();
        assert_eq!(list(file, 0).map(|room| room.len()), Ok(names.len()));
        assert_eq!(list(file, names.len() - 1), Err(libc::ERANGE));
        assert_eq!(list(file, names.len()), Ok(names));
        assert_eq!(set(file, "user.big", &[b'x'; 2048], 0), Err(libc::E2BIG), "no object can have it");
        assert_eq!(set(file, "user.c", &[b'x'; 1100], 0), Err(libc::ENOSPC), "this one can't");
        assert_eq!(set(file, &format!("user.{}", "n".repeat(251)), b"x", 0), Err(libc::ERANGE));
        assert_eq!(set(file, "user.", b"x", 0), Err(libc::EINVAL));
        for other in ["trusted.a", "security.a", "system.a", "nothing"] {
            assert_eq!(set(file, other, b"x", 0), Err(libc::ENOTSUP), "{other}");
            assert_eq!(get(file, other, 9), Err(libc::ENOTSUP), "{other}");
        }
        for fact in ["user.s3.etag", "user.s3.state", "user.s3.else"] {
            assert_eq!((set(file, fact, b"x", 0), remove(file, fact)), (Err(libc::EPERM), Err(libc::EPERM)), "{fact}");
        }
        assert_eq!(remove(file, "user.a"), Ok(0));
        assert_eq!(get(file, "user.a", 9), Err(libc::ENODATA));
    }
    assert_eq!(set(&mount.path("none"), "user.a", b"x", 0), Err(libc::ENOENT));
    assert_eq!(get(&mount.path("none"), "user.a", 9), Err(libc::ENOENT));
}

#[test]
fn extended_attributes_of_a_file_being_written_cost_no_request_and_those_of_another_one_copy() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = mount(&server);
    let file = mount.path("f");
    let script = "import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(file, b'bytes')
for name in ['a', 'b', 'c']: os.setxattr(file, 'user.' + name, b'x')
os.removexattr(file, 'user.c')
assert os.listxattr(file) == ['user.a', 'user.b']
os.close(file)";
    std::fs::write(mount.local().join("write.py"), script).expect("a script");
    mount.sh("ls; python3 -c 'import os'");
    server.demo().reset_counters();
    mount.sh("python3 $LOCAL/write.py $PWD/f");
    let counters = server.demo().counters();
    assert_eq!((counters.requests(Operation::PutObject), counters.requests(Operation::CopyObject)), (1, 0));
    assert_eq!(
        stored(&server, "f").as_deref(),
        Some("%7B%22user.a%22%3A%22eA%3D%3D%22%2C%22user.b%22%3A%22eA%3D%3D%22%7D")
    );

    std::fs::metadata(&file).expect("the file");
    server.demo().reset_counters();
    assert_eq!(get(&file, "user.a", 9), Ok(b"x".to_vec()));
    assert_eq!(list(&file, 99), Ok(b"user.a\0user.b\0".to_vec()));
    assert_eq!(
        (get(&file, "user.none", 9), get(&file, "security.capability", 9)),
        (Err(libc::ENODATA), Err(libc::ENOTSUP))
    );
    assert_eq!(set(&file, "user.a", b"x", 0), Ok(0), "nothing is changed");
    assert_eq!(requests(server.demo()), 0);
    assert_eq!(set(&file, "user.a", b"y", 0), Ok(0));
    assert_eq!((requests(server.demo()), server.demo().counters().requests(Operation::CopyObject)), (1, 1));
}

#[test]
fn writes_ask_for_no_attribute_and_take_the_set_user_id_bit() {
    let server = TestServer::start();
    let mount = server.mount_with(&["xattr", "log_level=debug"]);
    mount.sh("head -c 409600 /dev/zero > f; stat f > /dev/null");
    let asked = |mount: &Mount| mount.log().matches("call=\"getxattr\"").count();
    let before = asked(&mount);
    mount.sh("dd if=/dev/zero of=f bs=4096 count=100 conv=notrunc status=none");
    let during = asked(&mount) - before;
    assert!(during <= 3, "{during} for 100 writes");
    // The kernel believes a mode for a second.
    let becomes = |mode: &str| eventually("the mode is seen", || mount.sh("stat -c %a f") == mode);
    mount.sh("chmod 6755 f; echo x >> f");
    becomes("755");
    mount.sh("chmod 2744 f; echo x >> f; chmod 4755 f");
    becomes("4755");
    // SAFETY: geteuid(2) takes nothing and can't fail.
    if unsafe { libc::geteuid() } == 0 {
        mount.sh("chown 1 f");
        becomes("755");
        mount.sh("chmod 4755 f");
    }
    mount.sh("truncate -s 5 f");
    becomes("755");
    assert_eq!(server.objects().head("f").expect("the object").metadata["file-permissions"].get(3..), Some("0755"));
}

#[test]
fn programs_that_copy_take_extended_attributes_along_and_none_of_an_objects_facts() {
    let programs = ["setfattr", "rsync", "tar"].map(has_program);
    if programs.contains(&false) {
        return;
    }
    let server = TestServer::start();
    let mount = mount(&server);
    mount.sh("mkdir -p from/d; echo x > from/f; echo y > from/d/g; setfattr -n user.d -v 1 from/d
         setfattr -n user.a -v one from/f; setfattr -n user.b -v 0x00ff from/f; setfattr -n user.g -v 2 from/d/g
         show() { (cd $1; getfattr -R -d -e hex . 2>&1); }
         show from > $LOCAL/wanted; grep -q user.g $LOCAL/wanted
         mkdir copies; cp -a --preserve=xattr from copies/cp; show copies/cp | diff $LOCAL/wanted -
         rsync -aX from/ copies/rsync; show copies/rsync | diff $LOCAL/wanted -
         tar --xattrs -C from -cf $LOCAL/t.tar .; mkdir copies/tar
         tar --xattrs -C copies/tar -xf $LOCAL/t.tar; show copies/tar | diff $LOCAL/wanted -");
    assert_eq!(
        mount.sh("rsync -aXi from/ copies/rsync; rsync -aXi from/ copies/cp"),
        "",
        "nothing is left to transfer"
    );
}

#[test]
fn s3fs_reads_the_extended_attributes_and_what_it_stores_is_read() {
    let programs = ["setfattr", "s3fs"].map(has_program);
    if programs.contains(&false) {
        return;
    }
    let server = TestServer::start();
    // s3fs mounts a directory that is one for it.
    server.objects().put("", "");
    let mount = mount(&server);
    mount.sh("echo x > ours; setfattr -n user.a -v one ours; setfattr -n user.b -v 0x00ff ours; chmod 644 ours");
    mount.sh("setfattr -n 'user.with, : these' -v odd ours");
    let s3fs = S3fs::start(&server, &mount);
    let shown = mount.sh(&format!("cd {}; getfattr -d -e hex ours", s3fs.root()));
    assert!(shown.contains("user.a=0x6f6e65\n") && shown.contains("user.b=0x00ff"), "{shown}");
    mount.sh(&format!(
        "cd {}; echo y > theirs; setfattr -n user.c -v three theirs; setfattr -n user.c -v three ours",
        s3fs.root()
    ));
    drop(s3fs);
    eventually("what s3fs stored is seen", || get(&mount.path("ours"), "user.c", 9) == Ok(b"three".to_vec()));
    assert_eq!(get(&mount.path("theirs"), "user.c", 9), Ok(b"three".to_vec()));
    assert_eq!(get(&mount.path("ours"), "user.b", 9), Ok(vec![0, 255]));
    assert_eq!(get(&mount.path("ours"), "user.with, : these", 9), Ok(b"odd".to_vec()));
}

/// A mount of s3fs over the same prefix.
struct S3fs(std::path::PathBuf);

impl S3fs {
    fn start(server: &TestServer, mount: &Mount) -> Self {
        let root = mount.local().join("s3fs");
        std::fs::create_dir(&root).expect("a mountpoint");
        let keys = mount.local().join("keys");
        let access = server.access();
        std::fs::write(&keys, format!("{}:{}", access.access_key, access.secret_key)).expect("a file for keys");
        std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
        let url = access.endpoint.iter().map(|url| format!(",url={url},use_path_request_style"));
        let options = format!("passwd_file={},use_xattr,endpoint={}", keys.display(), access.region);
        let options = url.fold(options, |all, one| all + &one);
        let source = format!("{}:/{}", access.bucket, server.key("").trim_end_matches('/'));
        mount.sh(&format!("s3fs '{source}' {} -o {options}", root.display()));
        let mounted = S3fs(root);
        eventually("s3fs shows the file", || mounted.0.join("ours").exists());
        mounted
    }

    fn root(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for S3fs {
    fn drop(&mut self) {
        for flag in ["-u", "-uz"] {
            let status = std::process::Command::new("fusermount3").arg(flag).arg(&self.0).status();
            if status.is_ok_and(|status| status.success()) {
                return;
            }
        }
    }
}

#[test]
fn metadata_of_other_tools_is_read_as_extended_attributes_and_changed_where_it_stands() {
    let server = TestServer::start();
    let keys = [("team", "blue"), ("mtime", "1000000000.5"), ("file-owner", "0")];
    server.objects().put_with("f", "x", &keys);
    let mount = mount(&server);
    let file = mount.path("f");
    assert_eq!(list(&file, 99), Ok(b"user.team\0".to_vec()));
    assert_eq!(get(&file, "user.team", 9), Ok(b"blue".to_vec()));
    assert_eq!(set(&file, "user.team", b"green", libc::XATTR_REPLACE), Ok(0));
    let metadata = server.objects().head("f").expect("the object").metadata;
    assert_eq!((metadata["team"].as_str(), metadata.get("xattr")), ("green", None));
    assert_eq!(remove(&file, "user.team"), Ok(0));
    assert_eq!(server.objects().head("f").expect("the object").metadata.get("team"), None);
}

#[test]
fn extended_attributes_survive_a_kill_before_their_put() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let stage = tempfile::tempdir().expect("a stage");
    let mut mount = Mount::start(&server, MountOptions::new(&["xattr"]).stage(stage.path()));
    let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(denied).on(Operation::PutObject));
    mount.sh("! python3 -c \"import os
file = os.open('f', os.O_CREAT | os.O_WRONLY)
os.write(file, b'bytes')
os.setxattr(file, 'user.a', b'one')
os.setxattr(file, 'user.b', bytes([0, 255]))
os.fsync(file)\" 2> $LOCAL/why; grep -q Permission $LOCAL/why");
    mount.kill();
    server.demo().clear_faults();
    mount.mount_again();
    assert_eq!(get(&mount.path("f"), "user.a", 9), Ok(b"one".to_vec()));
    eventually("the next mount stores it", || server.objects().get("f").is_some());
    assert_eq!((stored(&server, "f").as_deref(), server.objects().text("f").as_str()), (Some(TWO), "bytes"));
}

#[test]
fn a_refused_change_of_an_extended_attribute_is_told_and_shows_nowhere() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = mount(&server);
    mount.sh("echo x > f");
    let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(denied).on(Operation::CopyObject));
    assert_eq!(set(&mount.path("f"), "user.a", b"one", 0), Err(libc::EACCES));
    assert_eq!((list(&mount.path("f"), 99), stored(&server, "f")), (Ok(vec![]), None));
    server.demo().clear_faults();
    assert_eq!(set(&mount.path("f"), "user.a", b"one", 0), Ok(0));
}

#[test]
fn read_only_attributes_tell_of_the_object_as_status_does() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = mount(&server);
    mount.sh("echo x > f");
    let file = mount.path("f");
    let told =
        |name: &str| get(&file, &format!("user.s3.{name}"), 999).map(|text| String::from_utf8(text).expect("text"));
    let status = || {
        let (code, printed, said) = mount.pailfs(&["status", "--json", &file.display().to_string()]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<Value>(&printed).expect("JSON")
    };
    let of_status = status();
    assert_eq!(told("etag").as_deref(), Ok(of_status["etag"].as_str().expect("an ETag")));
    assert_eq!((told("state").as_deref(), &of_status["standing"]), (Ok("stored"), &Value::from("stored")));
    assert_eq!(
        (told("storage-class").as_deref(), &of_status["storage_class"]),
        (Ok("STANDARD"), &Value::from("STANDARD"))
    );
    // This bucket keeps no versions.
    assert_eq!((told("version-id"), &of_status["version_id"]), (Err(libc::ENODATA), &Value::Null));
    assert_eq!((told("last-error"), &of_status["error"]), (Err(libc::ENODATA), &Value::Null));
    assert_eq!(list(&file, 99), Ok(vec![]), "programs that copy attributes must not find them");
    server.demo().reset_counters();
    assert!(told("etag").is_ok() && told("state").is_ok() && told("storage-class").is_ok());
    assert_eq!(requests(server.demo()), 0);

    let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(denied).on(Operation::PutObject));
    mount.sh("! echo y >> f 2> /dev/null || true");
    eventually("the commit has failed", || told("state").as_deref() == Ok("failed"));
    let error = told("last-error").expect("a reason");
    assert!(error.contains("denied"), "{error}");
    assert_eq!(status()["error"], Value::from(error));
}

#[test]
fn with_basic_metadata_no_extended_attribute_is_kept() {
    let server = TestServer::start();
    let mount = server.mount_with(&["xattr", "metadata=basic"]);
    mount.sh("echo x > f");
    let file = mount.path("f");
    assert_eq!(set(&file, "user.a", b"x", 0), Err(libc::ENOTSUP));
    assert_eq!((get(&file, "user.a", 9), list(&file, 9)), (Err(libc::ENODATA), Ok(vec![])));
    assert_eq!(get(&file, "user.s3.state", 9), Ok(b"stored".to_vec()));
    assert_eq!(server.objects().head("f").expect("the object").metadata.len(), 0);
}

#[test]
fn a_large_file_keeps_the_extended_attributes_it_got_while_it_went_up() {
    let server = TestServer::start();
    let mut mount = server.mount_with(&["xattr", "part_size=5MiB"]);
    mount.sh("python3 -c \"import os
file = os.open('f', os.O_CREAT | os.O_WRONLY)
for number in range(24): os.write(file, bytes(1 << 20))
os.setxattr(file, 'user.a', b'one')
os.setxattr(file, 'user.b', bytes([0, 255]))
os.close(file)\"");
    assert_eq!(stored(&server, "f").as_deref(), Some(TWO));
    mount.remount();
    assert_eq!(get(&mount.path("f"), "user.b", 9), Ok(vec![0, 255]));
    assert_eq!(mount.sh("setfattr -n user.a -v two f; stat -c %s f"), (24 << 20).to_string());
    assert_eq!(get(&mount.path("f"), "user.a", 9), Ok(b"two".to_vec()));
}
