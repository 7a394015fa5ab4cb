//! Files that are larger than the stage, on real mounts: written in order, killed, refused, and recovered.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use pailfs::demo::{Fault, FaultKind, Operation, Shape};

use crate::common::{
    Capability, Mount, MountOptions, TestServer, assert_same_bytes, eventually, noise, signal, skipped, test_name,
    undisturbed,
};
use crate::promises::{SmallDisk, errno};

const MIB: usize = 1 << 20;
const PART: usize = 5 * MIB;
const LIMIT: usize = 24 * MIB;
const SIZE: usize = 64 * MIB;
/// Of a file of that size.
const PARTS: u64 = 13;

/// Bytes of the disk that the data files below `dir` take.
fn taken(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => taken(path),
        Ok(found) if path.extension().is_some_and(|extension| extension == "data") => found.blocks() * 512,
        _ => 0,
    };
    entries.filter_map(Result::ok).map(|entry| of(&entry.path())).sum()
}

fn small_stage(server: &TestServer) -> Mount {
    server.mount_with(&["stage_limit=24MiB", "part_size=5MiB"])
}

/// Uploads that were begun, and parts that were sent.
fn requests(server: &TestServer) -> [u64; 2] {
    let counters = server.demo().counters();
    [Operation::CreateMultipartUpload, Operation::UploadPart].map(|kind| counters.requests(kind))
}

/// A new file of which only the first part and the end are still in the stage.
fn written(mount: &Mount, name: &str, bytes: &[u8]) -> File {
    let mut file = File::options().read(true).write(true).create_new(true).open(mount.path(name)).expect("a new file");
    file.write_all(bytes).expect("room is made");
    file
}

#[test]
fn a_file_larger_than_the_stage_is_written_in_order_and_each_part_goes_up_once() {
    let server = TestServer::start();
    let mut mount = small_stage(&server);
    let bytes = noise(41, SIZE);
    std::fs::write(mount.local().join("bytes"), &bytes).expect("written");
    let stage = mount.local().join("stage");
    let mut dd = mount.shell().start("dd if=../bytes of=f bs=1M status=none");
    let mut most = 0;
    let status = loop {
        most = most.max(taken(&stage));
        if let Some(status) = dd.try_wait().expect("dd runs") {
            break status;
        }
    };
    assert!(status.success(), "{status}");
    assert!(most <= LIMIT as u64 + MIB as u64, "{most} bytes were in the stage");
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &bytes);
    assert_same_bytes("file", &std::fs::read(mount.path("f")).expect("a file"), &bytes);
    if server.kind() == "demo" {
        assert_eq!(requests(&server), [1, PARTS]);
    }
    assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
    mount.unmount();
    assert_eq!(mount.recover(&[]).1, "nothing is left\n");
}

#[test]
fn programs_one_after_the_other_write_a_file_larger_than_the_stage() {
    let server = TestServer::start();
    let mount = small_stage(&server);
    let bytes = noise(43, 38 * MIB);
    let (first, second) = bytes.split_at(20 * MIB);
    for (name, bytes) in [("first", first), ("second", second)] {
        std::fs::write(mount.local().join(name), bytes).expect("written");
    }
    // The end of each cat stores the file as it is then.
    mount.sh("{ cat ../first; cat ../second; } > f");
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &bytes);
    assert_same_bytes("file", &std::fs::read(mount.path("f")).expect("a file"), &bytes);
}

#[test]
fn what_has_left_the_stage_can_be_read_and_changed_only_once_the_file_is_stored() {
    let server = TestServer::start();
    let mount = small_stage(&server);
    let mut bytes = noise(42, SIZE);
    let _undisturbed = undisturbed();
    let mut file = written(&mount, "f", &bytes);
    let away = 2 * PART as u64;
    assert_eq!(errno(file.write_all_at(b"changed", away)), Some(libc::ENOSPC));
    assert_eq!(errno(file.set_len(away + 5)), Some(libc::ENOSPC));
    assert_eq!(errno(std::fs::rename(mount.path("f"), mount.path("g"))), Some(libc::EBUSY));
    // Through another open file, since the kernel has pages of what was written through this one.
    let mut end = vec![0; MIB];
    file.read_exact_at(&mut end, (SIZE - MIB) as u64).expect("the end is here");
    assert_same_bytes("the end", &end, &bytes[SIZE - MIB..]);
    file.write_all_at(b"header", 0).expect("and so is the first part");
    bytes[..6].copy_from_slice(b"header");
    file.sync_all().expect("stored");
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &bytes);
    file.write_all_at(b"changed", away).expect("it can be changed now");
    bytes[away as usize..][..7].copy_from_slice(b"changed");
    file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(b"more")).expect("and be longer");
    bytes.extend_from_slice(b"more");
    let mut read = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut read)).expect("and read");
    assert_same_bytes("file", &read, &bytes);
    drop(file);
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &bytes);
    std::fs::rename(mount.path("f"), mount.path("g")).expect("and be renamed");
    assert_same_bytes("object", &server.objects().get("g").expect("an object"), &bytes);
}

#[test]
fn a_commit_of_a_file_larger_than_the_stage_that_fails_is_done_again_with_the_same_upload() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = small_stage(&server);
    let bytes = noise(43, SIZE);
    let _undisturbed = undisturbed();
    let file = written(&mount, "f", &bytes);
    let refused = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(refused).on(Operation::CompleteMultipartUpload));
    assert_eq!(errno(file.sync_all()), Some(libc::EACCES));
    assert_eq!(server.objects().unfinished_uploads().len(), 1);
    server.demo().clear_faults();
    file.sync_all().expect("stored");
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &bytes);
    assert_eq!(requests(&server), [1, PARTS]);
}

/// A daemon that is killed when parts of a file are only in its upload.
fn killed(server: &TestServer, bytes: &[u8], closed: bool) -> Mount {
    let mut mount = small_stage(server);
    let undisturbed = undisturbed();
    let file = written(&mount, "f", bytes);
    if closed {
        let refused = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
        server.demo().add_fault(Fault::new(refused).on(Operation::CompleteMultipartUpload));
        file.sync_all().expect_err("it can't be stored");
    }
    signal(mount.pid(), libc::SIGKILL);
    drop((file, undisturbed));
    mount.kill();
    if closed {
        server.demo().clear_faults();
        server.demo().reset_counters();
    }
    mount
}

#[test]
fn a_file_larger_than_the_stage_that_was_closed_is_stored_by_the_next_mount_after_a_kill() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let bytes = noise(44, SIZE);
    let mut mount = killed(&server, &bytes, true);
    let listed = mount.recover(&[]).1;
    assert!(
        listed.contains("f: whole, not stored yet; ") && listed.contains("only in the unfinished upload"),
        "{listed}"
    );
    mount.mount_again();
    eventually("it is stored", || server.objects().exists("f"));
    assert_same_bytes("object", &server.objects().get("f").expect("an object"), &bytes);
    assert_eq!(requests(&server), [0, 0], "what was up was sent again");
    mount.unmount();
    assert_eq!(mount.recover(&[]).1, "nothing is left\n");
    assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
}

#[test]
fn recover_completes_or_discards_what_is_only_in_an_upload_and_exports_no_zeros() {
    let server = TestServer::start();
    let bytes = noise(45, SIZE);
    for discards in [false, true] {
        let mut mount = killed(&server, &bytes, false);
        // The next mount leaves it alone.
        mount.mount_again();
        mount.unmount();
        let listed = mount.recover(&[]).1;
        assert!(
            listed.contains("f: it was still open") && listed.contains("only in the unfinished upload"),
            "{listed}"
        );
        let dir = mount.local().join("exported");
        let (status, said) = mount.recover(&["--export", dir.to_str().expect("UTF-8")]);
        assert!(status == Some(2) && said.contains("--upload completes it") && !dir.join("f").exists(), "{said}");
        let (status, said) = mount.recover(&["--upload", "--to", "g", "f"]);
        assert!(status == Some(2) && said.contains("without --to"), "{said}");
        let arguments: &[&str] = if discards { &["--discard", "f"] } else { &["--upload", "f"] };
        let (status, said) = mount.recover(arguments);
        assert_eq!(status, Some(0), "{said}");
        if discards {
            assert!(!server.objects().exists("f"));
        } else {
            assert_same_bytes("object", &server.objects().get("f").expect("an object"), &bytes);
            server.objects().delete("f");
        }
        assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
        assert_eq!(mount.recover(&[]).1, "nothing is left\n");
    }
}

#[test]
fn an_upload_that_is_gone_takes_bytes_with_it_and_that_is_told() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = small_stage(&server);
    let undisturbed = undisturbed();
    let file = written(&mount, "f", &noise(46, SIZE));
    let gone = FaultKind::Answer { status: 404, code: "NoSuchUpload".to_owned() };
    for operation in [Operation::CompleteMultipartUpload, Operation::UploadPart, Operation::ListParts] {
        server.demo().add_fault(Fault::new(gone.clone()).on(operation));
    }
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
    drop((file, undisturbed));
    assert!(mount.log().contains("is gone from the bucket"), "{}", mount.log());
    mount.unmount();
    let listed = mount.recover(&[]).1;
    assert!(listed.contains("parts of it were only in an unfinished upload that is gone"), "{listed}");
    let dir = mount.local().join("exported");
    let (status, said) = mount.recover(&["--export", dir.to_str().expect("UTF-8")]);
    assert!(status == Some(0) && said.contains("these bytes are lost, and read as zeros there: "), "{said}");
}

#[test]
fn a_file_larger_than_a_disk_is_stored_whole_or_refused_with_enospc_and_never_wrong() {
    let Some(disk) = SmallDisk::of_mib(32) else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let server = TestServer::start();
    if server.kind() == "demo" {
        // The disk runs full before a part is up.
        server.demo().set_shape(Shape { total: Some(24 << 20), ..Shape::default() });
    }
    let options = MountOptions::new(&["stage_min_free=0", "part_size=5MiB"]).stage(&disk.path().join("stage"));
    let mount = Mount::start(&server, options);
    let bytes = noise(47, SIZE);
    let undisturbed = undisturbed();
    let mut file = File::create(mount.path("f")).expect("it is made");
    let mut written = 0;
    for piece in bytes.chunks(1 << 20) {
        match file.write_all(piece) {
            Ok(()) => written += piece.len(),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                break;
            }
        }
    }
    let synced = file.sync_all();
    drop(undisturbed);
    let refused = synced.as_ref().err().and_then(std::io::Error::raw_os_error);
    assert!(synced.is_ok() || (written < SIZE && refused == Some(libc::ENOSPC)), "{synced:?}");
    let object = server.objects().get("f").unwrap_or_default();
    assert!(
        synced.is_err() || object.len() >= written,
        "{written} bytes were written, and {} are stored",
        object.len()
    );
    assert_same_bytes("object", &object, &bytes[..object.len()]);
}
