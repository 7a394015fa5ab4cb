//! Much: a large file with little memory, a directory of 100,000 objects, and a daemon that is ended in the middle.

use std::collections::HashSet;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use pailfs::demo::Operation;

use crate::common::{Capability, TestServer, assert_same_bytes, eventually, noise, signal, undisturbed};

/// Most memory that the daemon may use for it.
const MEMORY_MAX: u64 = 400 << 20;

/// 1 GiB with optimisation or on demand; unoptimised checksums make 256 MiB enough.
fn large_size() -> u64 {
    let whole = !cfg!(debug_assertions) || std::env::var_os("PAILFS_TEST_BIG").is_some();
    if whole { 1 << 30 } else { 256 << 20 }
}

#[test]
fn a_large_file_goes_in_and_out_within_little_memory() {
    let server = TestServer::start();
    let mut mount = server.mount();
    let size = large_size();
    let sum = |path: &str| format!("sha256sum < {path}");
    mount.sh(&format!("head -c {size} /dev/urandom > $LOCAL/in; cp $LOCAL/in large"));
    let writing = mount.peak_memory();
    assert_eq!(server.objects().head("large").map(|head| head.size), Some(size));
    mount.remount();
    mount.sh("cp large $LOCAL/out");
    let reading = mount.peak_memory();
    assert_eq!(mount.sh(&sum("$LOCAL/in")), mount.sh(&sum("$LOCAL/out")));
    println!("peak memory: {} MiB writing, {} MiB reading {} MiB", writing >> 20, reading >> 20, size >> 20);
    assert!(writing < MEMORY_MAX && reading < MEMORY_MAX, "{writing} bytes writing, {reading} reading");
}

#[test]
fn a_directory_of_100_000_objects_is_listed_whole_in_few_requests() {
    const COUNT: usize = 100_000;
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let bucket = server.direct();
    for number in 0..COUNT {
        bucket.put(&server.key(&format!("many/object-{number:06}")), "x");
    }
    let mount = server.mount();
    server.demo().reset_counters();
    let names: Vec<_> = std::fs::read_dir(mount.path("many"))
        .expect("the directory opens")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    let unique: HashSet<_> = names.iter().map(|name| name.as_bytes()).collect();
    assert_eq!((names.len(), unique.len()), (COUNT, COUNT));
    let lists = server.demo().counters().requests(Operation::ListObjectsV2);
    assert!(lists < 110, "{lists} requests to list {COUNT} objects");
    server.demo().reset_counters();
    assert_eq!(mount.sh("ls -f many | grep -c object-; ls many | sort | uniq | wc -l"), format!("{COUNT}\n{COUNT}"));
    let lists = server.demo().counters().requests(Operation::ListObjectsV2);
    assert!(lists < 220, "{lists} requests to list {COUNT} objects twice");
}

#[test]
fn sigterm_during_a_large_copy_leaves_no_half_object() {
    let server = TestServer::start();
    let mut mount = server.mount_with(&["part_size=5MiB"]);
    mount.sh("head -c 200000000 /dev/urandom > $LOCAL/in; sha256sum < $LOCAL/in > $LOCAL/sum");
    for arrived in [1_000_000, 150_000_000] {
        let mut copying = mount.shell().start("exec cp $LOCAL/in large");
        eventually("the copy is under way", || {
            let ended = copying.try_wait().ok().flatten().is_some();
            ended || std::fs::metadata(mount.path("large")).is_ok_and(|stat| stat.len() >= arrived)
        });
        assert!(signal(mount.pid(), libc::SIGTERM));
        mount.await_end();
        eventually("the copying program has ended", || copying.try_wait().ok().flatten().is_some());
        mount.clear();
        if let Some(head) = server.objects().head("large") {
            assert_eq!(head.size, 200_000_000, "a half object");
        }
        if server.has(&[Capability::ListUploads]) {
            assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
        }
        mount.mount_again();
        mount.sh("[ ! -e large ] || sha256sum < large | cmp - $LOCAL/sum; rm -f large");
    }
}

#[test]
fn sigkill_during_a_large_copy_leaves_no_half_object() {
    let server = TestServer::start();
    let mut mount = server.mount_with(&["part_size=5MiB"]);
    mount.sh("head -c 100000000 /dev/zero > $LOCAL/in");
    let mut copying = mount.shell().start("exec cp $LOCAL/in large");
    eventually("the copy is under way", || {
        std::fs::metadata(mount.path("large")).is_ok_and(|stat| stat.len() > 1_000_000)
    });
    mount.kill();
    eventually("the copying program has ended", || copying.try_wait().ok().flatten().is_some());
    assert!(server.objects().head("large").is_none_or(|head| head.size == 100_000_000), "a half object");
    mount.mount_again();
    mount.sh("ls");
}

#[test]
fn a_large_file_goes_up_while_it_is_written() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    server.demo().reset_counters();
    let parts = || server.demo().counters().requests(Operation::UploadPart);
    // The fork of another test would close the descriptor, and so store what is written by then.
    let undisturbed = undisturbed();
    let mut file = std::fs::File::create(mount.path("large")).expect("a new file");
    let bytes = noise(5, 41 << 20);
    file.write_all(&bytes).expect("written");
    eventually("the full parts are up", || parts() == 5);
    assert!(!server.objects().exists("large"), "published before it was closed");
    drop((file, undisturbed));
    eventually("the object is there", || server.objects().exists("large"));
    assert_eq!(parts(), 6);
    assert_same_bytes("the object", &server.objects().get("large").expect("an object"), &bytes);
}

#[test]
fn attributes_given_before_the_close_of_a_large_file_are_kept() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount
        .sh("head -c 50000000 /dev/urandom > $LOCAL/in; chmod 640 $LOCAL/in; touch -d '2001-02-03 04:05:06' $LOCAL/in");
    mount.sh(
        "cp -p $LOCAL/in large; stat -c '%a %Y' $LOCAL/in > $LOCAL/stat; stat -c '%a %Y' large | cmp - $LOCAL/stat",
    );
    mount.remount();
    mount.sh("stat -c '%a %Y' large | cmp - $LOCAL/stat; cmp large $LOCAL/in");
}

#[test]
fn the_time_of_a_large_file_is_the_same_after_a_remount() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("head -c 50000000 /dev/urandom > large; stat -c %.9Y large > $LOCAL/time");
    mount.remount();
    mount.sh("stat -c %.9Y large | cmp - $LOCAL/time");
}

#[test]
fn a_large_file_changed_in_its_middle_while_it_goes_up_is_whole() {
    let server = TestServer::start();
    let mount = server.mount_with(&["part_size=5MiB"]);
    let mut bytes = noise(6, 60 << 20);
    let mut file = std::fs::File::create(mount.path("large")).expect("a new file");
    for (round, at) in [7 << 20, 3, 40 << 20, (59 << 20) + 5].into_iter().enumerate() {
        file.seek(SeekFrom::Start(0)).expect("sought");
        file.write_all(&bytes).expect("written");
        let change = noise(round as u64, 100_000);
        bytes[at..at + change.len()].copy_from_slice(&change);
        file.seek(SeekFrom::Start(at as u64)).expect("sought");
        file.write_all(&change).expect("written");
    }
    file.sync_all().expect("stored");
    assert_same_bytes("the object", &server.objects().get("large").expect("an object"), &bytes);
    if server.has(&[Capability::ListUploads]) {
        assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
    }
}

#[test]
fn a_change_of_a_large_file_moves_what_was_changed() {
    let server = TestServer::start();
    let mut mount = server.mount();
    let mut bytes = noise(8, 60 << 20);
    server.objects().put_with("large", bytes.clone(), &[("kept", "yes")]);
    mount.sh("printf middle | dd of=large bs=1 seek=30000000 conv=notrunc status=none; printf end >> large");
    bytes[30_000_000..30_000_006].copy_from_slice(b"middle");
    bytes.extend_from_slice(b"end");
    assert_same_bytes("the object", &server.objects().get("large").expect("an object"), &bytes);
    assert_eq!(
        server.objects().head("large").expect("an object").metadata.get("kept").map(String::as_str),
        Some("yes")
    );
    mount.remount();
    assert_same_bytes("the file", &std::fs::read(mount.path("large")).expect("read"), &bytes);
    if server.has(&[Capability::Simulation]) {
        server.demo().reset_counters();
        mount.sh("printf middle | dd of=large bs=1 seek=20000000 conv=notrunc status=none; printf end >> large");
        let moved = server.demo().counters().total();
        let (up, down) = (moved.bytes_in, moved.bytes_out);
        assert!(up < 6 << 20 && down < 6 << 20, "{up} bytes up, {down} bytes down");
    }
}

#[test]
fn two_writers_of_a_large_file_never_mix_their_versions() {
    let server = TestServer::start();
    let (mount, other) = (server.mount(), server.mount());
    mount.sh("head -c 40000000 /dev/zero > large");
    let open = |mount: &crate::common::Mount| {
        std::fs::File::options().read(true).write(true).open(mount.path("large")).expect("opens")
    };
    eventually("the other one sees it", || other.path("large").exists());
    // The fork of another test would close both descriptors, and so store what is written by then.
    let undisturbed = undisturbed();
    let (mine, theirs) = (open(&mount), open(&other));
    mine.write_all_at(b"mine", 10_000_000).expect("written");
    theirs.write_all_at(b"theirs", 30_000_000).expect("written");
    theirs.sync_all().expect("the first one is stored");
    assert_eq!(mine.sync_all().expect_err("a conflict").raw_os_error(), Some(libc::ESTALE));
    drop(undisturbed);
    let object = server.objects().get("large").expect("an object");
    assert_eq!((&object[10_000_000..10_000_004], &object[30_000_000..30_000_006]), (&[0; 4][..], &b"theirs"[..]));
}
