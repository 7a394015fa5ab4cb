//! Room in the stage on real mounts: `stage_limit`, `stage_min_free`, and who waits and who is told.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::common::{
    Mount, MountOptions, TestServer, assert_same_bytes, eventually, noise, skipped, test_name, undisturbed,
};
use crate::promises::{SmallDisk, errno};

const MIB: usize = 1 << 20;

/// Bytes that the data files below `dir` take.
fn staged(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => staged(path),
        Ok(found) if path.extension().is_some_and(|extension| extension == "data") => found.len(),
        _ => 0,
    };
    entries.filter_map(Result::ok).map(|entry| of(&entry.path())).sum()
}

/// Writes to a new file until that is refused, and gives the file and what it has.
fn fill(mount: &Mount, name: &str) -> (File, Vec<u8>) {
    let mut file = File::create(mount.path(name)).expect("a new file");
    let mut written = Vec::new();
    for number in 0..256 {
        let block = noise(number, MIB / 8);
        match errno(file.write_all(&block)) {
            None => written.extend_from_slice(&block),
            refused => {
                assert_eq!(refused, Some(libc::ENOSPC));
                let size = file.metadata().expect("attributes").len() as usize;
                // The last write may have been taken by a part.
                written.extend_from_slice(&block[..size - written.len()]);
                return (file, written);
            }
        }
    }
    panic!("32 MiB were taken");
}

#[test]
fn a_file_larger_than_a_stage_of_less_than_a_part_is_refused_by_write_and_what_was_written_is_stored() {
    let server = TestServer::start();
    let stage = tempfile::tempdir().expect("a directory");
    let mount = Mount::start(&server, MountOptions::new(&["stage_limit=4MiB"]).stage(&stage.path().join("stage")));
    let _undisturbed = undisturbed();
    let (file, written) = fill(&mount, "f");
    assert_eq!(written.len(), 4 * MIB);
    assert_eq!(staged(stage.path()), 4 * MIB as u64);
    drop(file);
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &written);
    // Its room is there again.
    eventually("the stage is empty", || staged(stage.path()) == 0);
    std::fs::write(mount.path("g"), &written).expect("written");
    assert_same_bytes("object", &server.objects().get("g").expect("an object"), &written);
}

#[test]
fn writers_wait_for_uploads_when_the_stage_is_full() {
    let server = TestServer::start();
    let stage = tempfile::tempdir().expect("a directory");
    let options = MountOptions::new(&["stage_limit=4MiB", "commit=async"]).stage(&stage.path().join("stage"));
    let mut mount = Mount::start(&server, options);
    let files: Vec<_> = (0..16).map(|number| noise(number, 3 * MIB)).collect();
    for (number, bytes) in files.iter().enumerate() {
        std::fs::write(mount.path(&format!("f{number}")), bytes).expect("room is made");
        let taken = staged(stage.path());
        assert!(taken <= 4 * MIB as u64, "{taken} bytes are in the stage");
    }
    mount.unmount();
    for (number, bytes) in files.iter().enumerate() {
        let name = format!("f{number}");
        assert_same_bytes(&name, &server.objects().get(&name).expect("an object"), bytes);
    }
}

#[test]
fn a_file_that_is_open_and_stored_makes_room_in_a_full_stage_and_stays_readable() {
    let server = TestServer::start();
    let mount = server.mount_with(&["stage_limit=4MiB"]);
    let _undisturbed = undisturbed();
    makes_room_and_stays_readable(&server, &mount, 3 * MIB, 3 * MIB);
}

/// A file of `first` bytes that is stored and open gives its room to another of `second` bytes, and stays what it is.
fn makes_room_and_stays_readable(server: &TestServer, mount: &Mount, first: usize, second: usize) {
    let first = noise(1, first);
    let mut stored = File::create(mount.path("stored")).expect("a new file");
    stored.write_all(&first).and_then(|()| stored.sync_all()).expect("stored");
    let second = noise(2, second);
    std::fs::write(mount.path("other"), &second).expect("room is made");
    assert_same_bytes("what is open", &std::fs::read(mount.path("stored")).expect("a read"), &first);
    stored.write_all(b"more").expect("written");
    drop(stored);
    let whole = [first, b"more".to_vec()].concat();
    assert_same_bytes("object", &server.objects().get("stored").expect("an object"), &whole);
    assert_same_bytes("object", &server.objects().get("other").expect("an object"), &second);
}

#[test]
fn stage_min_free_is_left_to_others_and_may_be_nothing() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let free = || {
        let told = rustix::fs::statvfs(disk.path()).expect("a file system");
        (told.f_bavail * told.f_frsize) as usize
    };
    for (option, least, most) in [
        (Some("stage_min_free=5MiB"), 5 * MIB, 6 * MIB),
        // A twentieth of 8 MiB.
        (None, 8 * MIB / 20, MIB),
        (Some("stage_min_free=0"), 0, MIB / 8),
    ] {
        let stage = disk.path().join("stage");
        let mut mount = Mount::start(&server, MountOptions::new(option.as_slice()).stage(&stage));
        let alone = undisturbed();
        let (file, written) = fill(&mount, "f");
        let left = free();
        assert!((least..=most).contains(&left), "{option:?} left {left} bytes free");
        drop(file);
        assert_same_bytes("object", &server.objects().get("f").expect("an object"), &written);
        // Others may start programs again, and so may this.
        drop(alone);
        mount.unmount();
    }
}

/// On the file system itself, with no limit of the stage in force.
fn on_disk(disk: &SmallDisk, options: &[&str]) -> MountOptions {
    MountOptions::new(&[&["stage_min_free=0"], options].concat()).stage(&disk.path().join("stage"))
}

#[test]
fn a_file_that_is_open_and_stored_makes_room_on_a_disk_that_is_full() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mount = Mount::start(&server, on_disk(&disk, &[]));
    let _undisturbed = undisturbed();
    makes_room_and_stays_readable(&server, &mount, 5 * MIB, 7 * MIB);
}

#[test]
fn writers_wait_for_uploads_when_the_disk_is_full() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mut mount = Mount::start(&server, on_disk(&disk, &["commit=async"]));
    let files: Vec<_> = (0..12).map(|number| noise(number, 3 * MIB)).collect();
    for (number, bytes) in files.iter().enumerate() {
        std::fs::write(mount.path(&format!("f{number}")), bytes).expect("room is made");
    }
    mount.unmount();
    for (number, bytes) in files.iter().enumerate() {
        let name = format!("f{number}");
        assert_same_bytes(&name, &server.objects().get(&name).expect("an object"), bytes);
    }
}

/// A change of a small object takes what is around it from S3 when it is committed.
#[test]
fn a_commit_that_brings_bytes_to_a_disk_that_is_full_has_stored_files_make_room() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mut old = noise(1, 5 * MIB);
    server.objects().put("f", old.clone());
    let mount = Mount::start(&server, on_disk(&disk, &[]));
    let _undisturbed = undisturbed();
    let mut changed = File::options().write(true).open(mount.path("f")).expect("an open file");
    changed.write_all(b"new").expect("written");
    let first = noise(2, 5 * MIB);
    let mut stored = File::create(mount.path("stored")).expect("a new file");
    stored.write_all(&first).and_then(|()| stored.sync_all()).expect("stored");
    changed.sync_all().expect("room is made");
    drop(changed);
    old[..3].copy_from_slice(b"new");
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &old);
    assert_same_bytes("what is open", &std::fs::read(mount.path("stored")).expect("a read"), &first);
    stored.write_all(b"more").expect("written");
    drop(stored);
    let whole = [first, b"more".to_vec()].concat();
    assert_same_bytes("object", &server.objects().get("stored").expect("an object"), &whole);
}

/// A file of 5 MiB that is stored and open, and the other room of the disk, to the last page, in files of somebody else.
fn fill_beside_a_stored_file(disk: &SmallDisk, mount: &Mount) -> (File, Vec<u8>) {
    let bytes = noise(7, 5 * MIB);
    let mut stored = File::create(mount.path("stored")).expect("a new file");
    stored.write_all(&bytes).and_then(|()| stored.sync_all()).expect("stored");
    let mut others = File::create(disk.path().join("others")).expect("a new file");
    for block in [vec![9; MIB], vec![9; 4096]] {
        let refused = (0..4000).find_map(|_| errno(others.write_all(&block)));
        assert_eq!(refused, Some(libc::ENOSPC));
    }
    (stored, bytes)
}

#[test]
fn a_file_may_be_made_cut_extended_and_replaced_on_a_full_disk_where_stored_files_can_make_room() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mount = Mount::start(&server, on_disk(&disk, &[]));
    let _undisturbed = undisturbed();
    type Change = fn(&Path) -> std::io::Result<()>;
    let changes: [(&str, Change, Vec<u8>); 5] = [
        ("new", |path| std::fs::write(path, "new"), b"new".to_vec()),
        ("replaced", |path| std::fs::write(path, "new"), b"new".to_vec()),
        ("cut", |path| File::options().write(true).open(path)?.set_len(3), b"012".to_vec()),
        ("extended", |path| File::options().write(true).open(path)?.set_len(12), b"0123456789\0\0".to_vec()),
        ("written", |path| File::options().write(true).open(path)?.write_all(b"new"), b"new3456789".to_vec()),
    ];
    for (name, _, _) in &changes[1..] {
        server.objects().put(name, "0123456789");
    }
    for (name, change, wanted) in changes {
        let (stored, bytes) = fill_beside_a_stored_file(&disk, &mount);
        change(&mount.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same_bytes(name, &server.objects().get(name).expect("an object"), &wanted);
        assert_same_bytes("what is open", &std::fs::read(mount.path("stored")).expect("a read"), &bytes);
        drop(stored);
        std::fs::remove_file(mount.path("stored")).expect("removed");
        std::fs::remove_file(disk.path().join("others")).expect("removed");
    }
}

/// A file that is replaced is brought to the disk for who has it open.
#[test]
fn an_open_file_that_is_replaced_on_a_full_disk_has_stored_files_make_room_for_its_bytes() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let old = noise(1, 3 * MIB);
    server.objects().put("f", old.clone());
    server.objects().put("g", "new");
    let mount = Mount::start(&server, on_disk(&disk, &[]));
    let _undisturbed = undisturbed();
    let mut reader = File::open(mount.path("f")).expect("an open file");
    let (_stored, _) = fill_beside_a_stored_file(&disk, &mount);
    std::fs::rename(mount.path("g"), mount.path("f")).expect("a rename");
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect("its bytes are here");
    assert_same_bytes("what is open", &read, &old);
    assert_eq!(server.objects().text("f"), "new");
}

#[test]
fn a_write_that_a_full_disk_takes_a_part_of_leaves_what_was_there() {
    let Some(disk) = SmallDisk::new() else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    let mount = Mount::start(&server, on_disk(&disk, &[]));
    let _undisturbed = undisturbed();
    let (mut file, mut written) = fill(&mount, "f");
    // Only uploads and stored files make room, and there are none.
    assert_eq!(errno(file.write_all(&noise(300, 4 * MIB))), Some(libc::ENOSPC));
    let size = file.metadata().expect("attributes").len() as usize;
    assert!(size >= written.len());
    written.extend_from_slice(&noise(300, 4 * MIB)[..size - written.len()]);
    file.sync_all().expect("what fits is stored");
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &written);
    // What is stored makes room for the next one, and the write that did not fit is as if it had not been.
    let next = noise(301, 6 * MIB);
    std::fs::write(mount.path("next"), &next).expect("room is made");
    assert_same_bytes("object", &server.objects().get("next").expect("an object"), &next);
    assert_same_bytes("what is open", &std::fs::read(mount.path("f")).expect("a read"), &written);
}
