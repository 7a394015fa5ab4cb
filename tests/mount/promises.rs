//! The promises of pailfs(7) that no program test runs already. The manual names the test of each promise.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use pailfs::demo::Operation;

use crate::common::{
    Capability, Mount, MountOptions, Objects, TestServer, alive, assert_same_bytes, eventually, noise, signal, skipped,
    test_name, undisturbed,
};

pub fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn close_returns_after_the_object_is_there() {
    let server = TestServer::start();
    let mount = server.mount();
    let bytes = noise(10, 700_000);
    let _undisturbed = undisturbed();
    let mut file = File::create(mount.path("f")).expect("a new file");
    file.write_all(&bytes).expect("written");
    assert!(server.objects().get("f").is_none_or(|there| there.is_empty()), "no part of it shows before the close");
    drop(file);
    assert_same_bytes("object after close", &server.objects().get("f").expect("object"), &bytes);
}

#[test]
fn fsync_returns_after_the_object_is_there_and_the_file_goes_on() {
    let server = TestServer::start();
    let mount = server.mount();
    let _undisturbed = undisturbed();
    let mut file = File::create(mount.path("f")).expect("a new file");
    file.write_all(b"one").and_then(|()| file.sync_all()).expect("synced");
    assert_eq!(server.objects().text("f"), "one");
    file.write_all(b" two").and_then(|()| file.sync_data()).expect("synced again");
    assert_eq!(server.objects().text("f"), "one two");
    file.write_all(b" three").expect("written");
    drop(file);
    assert_eq!(server.objects().text("f"), "one two three");
}

#[test]
fn a_new_file_without_a_write_becomes_an_empty_object() {
    let server = TestServer::start();
    let mount = server.mount();
    drop(File::create(mount.path("f")).expect("a new file"));
    eventually("the empty object is there", || server.objects().get("f").is_some_and(|bytes| bytes.is_empty()));
}

#[test]
fn an_exclusive_create_never_replaces_another_writers_object() {
    let server = TestServer::start();
    let mount = server.mount();
    let _undisturbed = undisturbed();
    assert!(!mount.path("f").exists(), "the mount now believes the name absent");
    server.objects().put("f", "theirs");
    let lost = match File::create_new(mount.path("f")) {
        Err(error) => Err(error),
        Ok(mut file) => file.write_all(b"ours").and_then(|()| file.sync_all()),
    };
    assert_eq!(errno(lost), Some(libc::EEXIST));
    assert_eq!(server.objects().text("f"), "theirs");
}

#[test]
fn a_change_based_on_an_old_version_is_refused_and_kept() {
    let server = TestServer::start();
    let mount = server.mount();
    let _undisturbed = undisturbed();
    server.objects().put("f", "base");
    let mut file = File::options().read(true).write(true).open(mount.path("f")).expect("an open file");
    file.write_all(b"ours").expect("written to the stage");
    server.objects().put("f", "theirs, meanwhile");
    assert_eq!(errno(file.sync_all()), Some(libc::ESTALE));
    assert_eq!(server.objects().text("f"), "theirs, meanwhile", "the other writer's bytes stand");
    let mut ours = String::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut ours)).expect("still readable here");
    assert_eq!(ours, "ours");
}

#[test]
fn a_truncating_open_replaces_whatever_is_there() {
    let server = TestServer::start();
    let mount = server.mount();
    let _undisturbed = undisturbed();
    server.objects().put("f", "base");
    let mut file = File::create(mount.path("f")).expect("an open file");
    server.objects().put("f", "theirs, meanwhile");
    file.write_all(b"last").expect("written");
    file.sync_all().expect("the last writer wins");
    assert_eq!(server.objects().text("f"), "last");
}

#[test]
fn a_redirection_stores_one_object_and_never_an_empty_one() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    server.objects().put("f", "base");
    server.demo().reset_counters();
    // The shell closes a copy of the descriptor between the truncation and the write.
    mount.sh("echo new > f");
    assert_eq!(server.demo().counters().requests(Operation::PutObject), 1);
    assert_eq!(server.objects().text("f"), "new\n");
}

#[test]
fn a_reader_never_mixes_two_versions() {
    let server = TestServer::start();
    let mount = server.mount();
    let (old, new) = (noise(11, 24 << 20), noise(12, 24 << 20));
    server.objects().put("f", old.clone());
    let file = File::open(mount.path("f")).expect("an open file");
    let mut block = vec![0; 1 << 20];
    file.read_exact_at(&mut block, 0).expect("the first MiB");
    assert_same_bytes("before the change", &block, &old[..1 << 20]);
    server.objects().put("f", new.clone());
    for index in (1..24usize).rev() {
        match file.read_exact_at(&mut block, (index as u64) << 20) {
            Ok(()) => assert_same_bytes("after the change", &block, &old[index << 20..(index + 1) << 20]),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "at {index} MiB"),
        }
    }
    drop(file);
    eventually("an open reads the new version", || {
        std::fs::read(mount.path("f")).is_ok_and(|bytes| bytes.len() == new.len() && bytes == new)
    });
}

#[test]
fn directories_are_markers_and_stay_when_emptied() {
    let server = TestServer::start();
    let mut mount = server.mount();
    server.objects().put("implicit/f", "x");
    mount.sh("mkdir made; rm implicit/f; ls -d implicit made; [ -z \"$(ls -A implicit)\" ]; touch implicit/again");
    assert_eq!(server.objects().get("made/"), Some(Vec::new()));
    mount.remount();
    mount.sh("rm implicit/again; ls -d implicit made; rmdir implicit made; ! ls -d implicit 2> /dev/null");
    assert_eq!(server.objects().list(), Vec::<String>::new());
}

#[test]
fn rmdir_refuses_a_directory_with_entries() {
    let server = TestServer::start();
    let mount = server.mount();
    server.objects().put("d/f", "x");
    assert_eq!(errno(std::fs::remove_dir(mount.path("d"))), Some(libc::ENOTEMPTY));
    // Made by another client after this mount saw the directory empty.
    std::fs::create_dir(mount.path("e")).expect("a directory");
    server.objects().put("e/late", "x");
    assert_eq!(errno(std::fs::remove_dir(mount.path("e"))), Some(libc::ENOTEMPTY));
    assert_eq!(server.objects().text("e/late"), "x");
}

#[test]
fn renames_follow_the_rules_of_rename() {
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("mkdir -p d/sub empty full; echo x > full/f; echo y > f");
    let rename = |from: &str, to: &str| errno(std::fs::rename(mount.path(from), mount.path(to)));
    assert_eq!(rename("missing", "x"), Some(libc::ENOENT));
    assert_eq!(rename("d", "full"), Some(libc::ENOTEMPTY));
    assert_eq!(rename("f", "d"), Some(libc::EISDIR));
    assert_eq!(rename("d", "f"), Some(libc::ENOTDIR));
    assert_eq!(rename("d", "d/sub/in"), Some(libc::EINVAL));
    assert_eq!(rename("d", "empty"), None);
    assert_eq!(rename("f", "f"), None);
    assert_eq!(mount.sh("find . | sort"), ".\n./empty\n./empty/sub\n./f\n./full\n./full/f");
}

#[test]
fn a_directory_over_the_limit_is_left_to_mv() {
    let server = TestServer::start();
    for number in 0..5 {
        server.objects().put(&format!("d/{number}"), number.to_string());
    }
    let mount = server.mount_with(&["rename_dir_limit=3"]);
    assert_eq!(errno(std::fs::rename(mount.path("d"), mount.path("e"))), Some(libc::EXDEV));
    assert_eq!(server.objects().files().len(), 5);
    mount.sh("mv d e; cat e/*");
    assert_eq!(server.objects().files(), ["e/0", "e/1", "e/2", "e/3", "e/4"]);
}

#[test]
fn nothing_outside_the_prefix_is_touched() {
    let server = TestServer::start();
    // Beside the prefix: keys that begin with it but for the slash, which a careless listing would take in.
    let beside = server.beside();
    beside.put("x", "outside");
    server.objects().put("in/f", "x");
    let mount = server.mount();
    assert_eq!(mount.sh("ls -A"), "in");
    mount.sh("mv in moved; rm -rf ./* ; ls -A");
    assert_eq!(server.objects().list(), Vec::<String>::new());
    assert_eq!(beside.text("x"), "outside");
    beside.remove_all();
}

#[test]
fn a_prefix_need_not_exist() {
    let server = TestServer::start();
    let mut mount = server.mount();
    assert_eq!(mount.sh("ls -A | wc -l; df . > /dev/null; stat -c %F ."), "0\ndirectory");
    mount.unmount();
    assert_eq!(server.objects().list(), Vec::<String>::new(), "mounting writes nothing");
}

#[test]
fn names_that_can_not_be_keys_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let server = TestServer::start();
    let mount = server.mount();
    assert_eq!(errno(File::create(mount.path(&"n".repeat(256)))), Some(libc::ENAMETOOLONG));
    let not_text = mount.path("").join(std::ffi::OsStr::from_bytes(b"a\xff"));
    assert_eq!(errno(File::create(not_text)), Some(libc::EILSEQ));
    let mut deep = String::from("d");
    std::fs::create_dir(mount.path(&deep)).expect("a directory");
    let refused = (0..6).find_map(|_| {
        deep = format!("{deep}/{}", "d".repeat(200));
        errno(std::fs::create_dir(mount.path(&deep)))
    });
    assert_eq!(refused, Some(libc::ENAMETOOLONG), "a key of over 1024 bytes");
    mount.sh("ls -lR > /dev/null");
}

#[test]
fn long_names_work() {
    let Some(server) = TestServer::with(&[Capability::LongNames]) else { return };
    let mut mount = server.mount();
    let name = "ä".repeat(127);
    std::fs::write(mount.path(&name), "x").expect("a name of 254 bytes");
    mount.remount();
    assert_eq!(mount.sh("ls"), name);
}

/// A small file system in memory, taken away when it is dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Of 8 MiB; `None` without the rights to mount one.
    pub fn new() -> Option<Self> {
        Self::of_mib(8)
    }

    /// Makes it larger, or smaller than it was if it is empty enough.
    #[track_caller]
    pub fn resize(&self, mib: u64) {
        let size = format!("remount,size={mib}m");
        let done = Command::new("mount").args(["-o", &size]).arg(self.path()).output().expect("mount runs");
        assert!(done.status.success(), "{done:?}");
    }

    /// Of so many MiB; `None` without the rights to mount one.
    pub fn of_mib(size: u64) -> Option<Self> {
        let disk = SmallDisk(tempfile::tempdir().expect("a directory"));
        let size = format!("size={size}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.0.path()).output();
        mount.is_ok_and(|output| output.status.success()).then_some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_stage_is_told_by_write_and_loses_no_object() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mount = Mount::start(&server, MountOptions::default().stage(&disk.0.path().join("stage")));
    let _undisturbed = undisturbed();
    server.objects().put("f", "before");
    let mut file = File::options().write(true).open(mount.path("f")).expect("an open file");
    let block = vec![7; 1 << 20];
    let refused = (0..40).find_map(|_| errno(file.write_all(&block)));
    assert_eq!(refused, Some(libc::ENOSPC));
    file.set_len(3).expect("room again");
    file.sync_all().expect("what fits is committed");
    assert_eq!(server.objects().get("f"), Some(vec![7; 3]));
}

#[test]
fn what_was_written_before_the_stage_ran_full_is_stored() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mount = Mount::start(&server, MountOptions::default().stage(&disk.0.path().join("stage")));
    let _undisturbed = undisturbed();
    let mut file = File::create(mount.path("f")).expect("a new file");
    // To the last page.
    for block in [vec![7; 1 << 20], vec![7; 4096]] {
        let refused = (0..400).find_map(|_| errno(file.write_all(&block)));
        assert_eq!(refused, Some(libc::ENOSPC));
    }
    let size = file.metadata().expect("attributes").len();
    file.sync_all().expect("what fits is stored, with no room for another record");
    drop(file);
    assert_eq!(server.objects().get("f"), Some(vec![7; size as usize]));
}

#[test]
fn a_full_stage_keeps_no_file_from_being_replaced_and_shows_no_wrong_byte_of_the_old_one() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mount = Mount::start(&server, MountOptions::default().stage(&disk.0.path().join("stage")));
    const SIZE: u64 = (64 << 20) + 1;
    for name in ["renamed over", "made anew"] {
        server.objects().put(name, vec![b'o'; SIZE as usize]);
        let old = File::open(mount.path(name)).expect("an open file");
        std::fs::write(mount.path("new"), "new").expect("a small file fits");
        if name == "made anew" {
            std::fs::remove_file(mount.path(name)).expect("removed");
            std::fs::write(mount.path(name), "new").expect("a small file fits");
        } else {
            std::fs::rename(mount.path("new"), mount.path(name)).expect("a rename");
        }
        assert_eq!(server.objects().text(name), "new");
        let mut end = [0; 1];
        let read = old.read_at(&mut end, SIZE - 1);
        assert_eq!(errno(read), Some(libc::ESTALE), "{name}: {end:?}");
        drop(old);
        assert_eq!(mount.sh(&format!("cat '{name}'")), "new");
    }
}

#[test]
fn a_sparse_file_needs_no_room_for_its_holes() {
    let server = TestServer::start();
    let mount = server.mount();
    let file = File::create(mount.path("f")).expect("a new file");
    file.set_len(64 << 20).and_then(|()| file.write_all_at(b"end", (64 << 20) - 3)).expect("written");
    drop(file);
    assert_eq!(server.objects().head("f").map(|head| head.size), Some(64 << 20));
    assert_eq!(mount.sh("tail -c 3 f; head -c 5000000 f | tr -d '\\0' | wc -c"), "end0");
}

#[test]
fn sigterm_commits_what_is_dirty_and_unmounts() {
    for number in [libc::SIGTERM, libc::SIGINT] {
        let server = TestServer::start();
        let mut mount = server.mount();
        let mut file = File::create(mount.path("f")).expect("a new file");
        file.write_all(b"synced").and_then(|()| file.sync_all()).expect("synced");
        drop(file);
        assert!(signal(mount.pid(), number));
        mount.await_end();
        assert!(!is_mounted(&mount.path("")), "the daemon unmounts");
        assert_eq!(server.objects().text("f"), "synced");
        mount.mount_again();
        assert_eq!(mount.sh("cat f"), "synced");
    }
}

fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn the_table_of_mounts_shows_type_and_source() {
    let server = TestServer::start();
    let mount = server.mount();
    let shown = mount.sh("findmnt -n -o FSTYPE,SOURCE --mountpoint \"$PWD\" | tr -s ' '");
    assert_eq!(shown, format!("fuse.pailfs {}", server.source()));
}

#[test]
fn a_killed_daemon_leaves_its_stage_and_the_next_mount_says_so() {
    let server = TestServer::start();
    let stage = tempfile::tempdir().expect("a stage that outlives the mounts");
    let mut mount = Mount::start(&server, MountOptions::default().stage(stage.path()));
    let undisturbed = undisturbed();
    let mut file = File::create(mount.path("unsynced")).expect("a new file");
    file.write_all(b"precious bytes").expect("written");
    signal(mount.pid(), libc::SIGKILL);
    drop((file, undisturbed));
    mount.kill();
    assert!(holds(stage.path(), b"precious bytes"), "the written bytes are still in the stage");
    mount.mount_again();
    let log = mount.log();
    assert!(log.contains("unsynced") || log.contains("kept"), "the next mount says what it found:\n{log}");
    mount.unmount();
    assert!(holds(stage.path(), b"precious bytes"), "and keeps it");
    assert_eq!(server.objects().list(), Vec::<String>::new(), "an unsynced file is not published");
}

/// True if some file below `dir` holds `bytes`.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        std::fs::read(&path).is_ok_and(|there| there.windows(bytes.len()).any(|window| window == bytes))
    })
}

#[test]
fn a_dead_mount_is_mounted_over() {
    let server = TestServer::start();
    server.objects().put("f", "x");
    let mut mount = server.mount();
    signal(mount.pid(), libc::SIGKILL);
    let pid = mount.pid();
    eventually("the daemon is dead", || !alive(pid));
    mount.mount_again();
    assert_eq!(mount.sh("cat f"), "x");
}

#[test]
fn an_archived_object_fails_at_open() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    server.objects().put("f", "cold");
    server.direct().archive(&server.key("f"));
    let mount = server.mount();
    assert_eq!(mount.sh("stat -c %s f"), "4");
    let opened = File::open(mount.path("f")).and_then(|mut file| file.read(&mut [0; 4]));
    assert_eq!(errno(opened), Some(libc::EACCES));
    assert!(mount.log().contains("archived"), "{}", mount.log());
}

#[test]
fn new_objects_get_the_storage_class_that_was_asked_for() {
    let Some(server) = TestServer::with(&[Capability::StorageClasses]) else { return };
    let mount = server.mount_with(&["storage_class=STANDARD_IA", "part_size=5MiB"]);
    mount.sh("echo x > small; head -c 12000000 /dev/zero > large");
    for name in ["small", "large"] {
        let class = server.objects().head(name).expect("the object").storage_class;
        assert_eq!(class.as_deref(), Some("STANDARD_IA"), "{name}");
    }
}

#[test]
fn a_large_file_goes_up_in_parts_and_leaves_no_upload() {
    let server = TestServer::start();
    let mount = server.mount_with(&["part_size=5MiB"]);
    let bytes = noise(13, (21 << 20) + 5);
    std::fs::write(mount.path("f"), &bytes).expect("written");
    assert_same_bytes("object of parts", &server.objects().get("f").expect("object"), &bytes);
    let file = File::options().read(true).write(true).open(mount.path("f")).expect("an open file");
    file.write_all_at(b"patch", 9 << 20).expect("patched");
    drop(file);
    let mut wanted = bytes;
    wanted[9 << 20..(9 << 20) + 5].copy_from_slice(b"patch");
    assert_same_bytes("patched object", &server.objects().get("f").expect("object"), &wanted);
    if server.has(&[Capability::ListUploads]) {
        assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
    }
}

#[test]
fn statfs_is_large_and_invents_no_quota() {
    let server = TestServer::start();
    let mount = server.mount();
    let free: u64 = mount.sh("df --output=avail -B1 . | tail -1").trim().parse().expect("a number");
    assert!(free > 1 << 40, "{free} bytes are free");
}

#[test]
fn the_object_side_of_two_prefixes_is_kept_apart() {
    let server = TestServer::start();
    let other: Objects = server.beside();
    let mount = server.mount();
    mount.sh("echo mine > f");
    assert_eq!(other.list(), Vec::<String>::new());
}
