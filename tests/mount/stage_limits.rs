//! Room in the stage on real mounts: `stage_limit`, `stage_min_free`, and who waits and who is told.

use std::fs::File;
use std::io::Write;
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
fn a_file_larger_than_stage_limit_is_refused_by_write_and_what_was_written_is_stored() {
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
    let first = noise(1, 3 * MIB);
    let mut stored = File::create(mount.path("stored")).expect("a new file");
    stored.write_all(&first).and_then(|()| stored.sync_all()).expect("stored");
    let second = noise(2, 3 * MIB);
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
