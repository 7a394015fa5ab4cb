//! A server that fails, drops connections and loses replies: no wrong byte is ever read or stored, errors reach the
//! program that must know, and what could not be stored is kept and tried again.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use pailfs::demo::{Fault, FaultKind, Operation, Shape};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, eventually, noise, signal, undisturbed};

/// Larger than two parts of 5 MiB.
const LARGE: usize = 12_000_000;

/// So large that a change of it is made of copied parts.
const HUGE: usize = 20_000_000;

/// Requests that a mount sends.
const OPERATIONS: &[Operation] = &[
    Operation::ListObjectsV2,
    Operation::HeadObject,
    Operation::GetObject,
    Operation::PutObject,
    Operation::CopyObject,
    Operation::DeleteObject,
    Operation::CreateMultipartUpload,
    Operation::UploadPart,
    Operation::UploadPartCopy,
    Operation::CompleteMultipartUpload,
];

fn answer(status: u16, code: &str) -> FaultKind {
    FaultKind::Answer { status, code: code.to_owned() }
}

fn server_and_mount() -> Option<(TestServer, Mount)> {
    let server = TestServer::with(&[Capability::Simulation])?;
    let mount = server.mount_with(&["part_size=5MiB"]);
    Some((server, mount))
}

/// Does some of everything in the directory `dir`, and checks both sides.
#[track_caller]
fn work(server: &TestServer, mount: &Mount, dir: &str, what: &str) {
    let (mut large, huge) = (noise(21, LARGE), noise(22, HUGE));
    let step = |name: &str, result: std::io::Result<()>| result.unwrap_or_else(|e| panic!("{what}: {name}: {e}"));
    let path = |name: &str| mount.path(&format!("{dir}/{name}"));
    step("mkdir", std::fs::create_dir(mount.path(dir)));
    step("write small", std::fs::write(path("small"), "small"));
    step("write large", std::fs::write(path("large"), &large));
    step("write huge", std::fs::write(path("huge"), &huge));
    let changing = File::options().write(true).open(path("huge"));
    step("change huge", changing.and_then(|file| file.write_all_at(b"changed", HUGE as u64 / 2)));
    step("append", File::options().append(true).open(path("small")).and_then(|mut file| file.write_all(b"er")));
    step("rename", std::fs::rename(path("small"), path("moved")));
    step("remove", std::fs::write(path("gone"), "x").and_then(|()| std::fs::remove_file(path("gone"))));
    let mut names: Vec<_> = std::fs::read_dir(mount.path(dir))
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect())
        .unwrap_or_else(|e| panic!("{what}: list: {e}"));
    names.sort();
    assert_eq!(names, ["huge", "large", "moved"], "{what}");
    let read = |name: &str| std::fs::read(path(name)).unwrap_or_else(|e| panic!("{what}: read {name}: {e}"));
    assert_same_bytes(what, &read("moved"), b"smaller");
    assert_same_bytes(what, &read("large"), &large);
    large = huge;
    large[HUGE / 2..][..7].copy_from_slice(b"changed");
    assert_same_bytes(what, &read("huge"), &large);
    server.demo().clear_faults();
    let object =
        |name: &str| server.objects().get(&format!("{dir}/{name}")).unwrap_or_else(|| panic!("{what}: {name}"));
    assert_same_bytes(what, &object("moved"), b"smaller");
    assert_same_bytes(what, &object("huge"), &large);
    assert_same_bytes(what, &object("large"), &noise(21, LARGE));
    assert!(
        !server.objects().exists(&format!("{dir}/small")) && !server.objects().exists(&format!("{dir}/gone")),
        "{what}"
    );
}

/// Runs [`work`] once per operation with the same fault on its first request.
#[track_caller]
fn each_operation_fails_once(kind: &FaultKind) {
    let Some((server, mut mount)) = server_and_mount() else { return };
    for operation in OPERATIONS {
        server.demo().add_fault(Fault::new(kind.clone()).on(*operation).once());
        let what = format!("{operation:?} with {kind:?}");
        let before = server.demo().faults_fired();
        work(&server, &mount, &format!("{operation:?}"), &what);
        assert_eq!(server.demo().faults_fired() - before, 1, "{what}: it was not sent");
        // An upload whose id never arrived can't be told from one that another client is making under that key.
        let applied = matches!(kind, FaultKind::ApplyThenDrop | FaultKind::ApplyThenAnswer { .. });
        if !(applied && *operation == Operation::CreateMultipartUpload) {
            assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new(), "{what}");
        }
        server.objects().remove_all();
        mount.remount();
    }
}

#[test]
fn an_abort_that_fails_is_tried_again() {
    let kinds = [answer(500, "InternalError"), FaultKind::DropBeforeApply, FaultKind::ApplyThenDrop];
    for kind in kinds {
        let Some((server, mount)) = server_and_mount() else { return };
        server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::UploadPart).once());
        server.demo().add_fault(Fault::new(kind.clone()).on(Operation::AbortMultipartUpload).once());
        let bytes = noise(21, LARGE);
        assert!(std::fs::write(mount.path("f"), &bytes).and_then(|()| File::open(mount.path("f"))).is_ok());
        eventually("the file is stored by a later try", || server.objects().get("f").as_deref() == Some(&bytes[..]));
        eventually("no upload is left", || server.objects().unfinished_uploads().is_empty());
        assert_eq!(server.demo().faults_fired(), 2, "{kind:?}");
    }
}

#[test]
fn each_call_may_be_asked_to_slow_down() {
    each_operation_fails_once(&answer(503, "SlowDown"));
}

#[test]
fn each_call_may_fail_inside_the_server() {
    each_operation_fails_once(&answer(500, "InternalError"));
}

#[test]
fn each_call_may_lose_its_connection() {
    each_operation_fails_once(&FaultKind::DropBeforeApply);
}

#[test]
fn each_call_may_succeed_and_lose_its_reply() {
    each_operation_fails_once(&FaultKind::ApplyThenDrop);
}

#[test]
fn each_call_may_succeed_and_answer_an_error() {
    each_operation_fails_once(&FaultKind::ApplyThenAnswer { status: 500, code: "InternalError".to_owned() });
}

#[test]
fn a_body_that_breaks_off_is_read_on_where_it_broke() {
    let Some((server, mount)) = server_and_mount() else { return };
    let bytes = noise(22, LARGE);
    server.objects().put("f", bytes.clone());
    for after in [0, 1, 4096, 100_000] {
        server.demo().add_fault(Fault::new(FaultKind::CutBody { after }).on(Operation::GetObject).times(3));
    }
    assert_same_bytes("after cut bodies", &std::fs::read(mount.path("f")).expect("read"), &bytes);
    assert!(server.demo().faults_fired() >= 3);
}

#[test]
fn a_body_that_pauses_is_read_to_its_end() {
    let Some((server, mount)) = server_and_mount() else { return };
    let bytes = noise(23, 3_000_000);
    server.objects().put("f", bytes.clone());
    let pause = FaultKind::StallBody { after: 10_000, pause: Duration::from_millis(700) };
    server.demo().add_fault(Fault::new(pause).on(Operation::GetObject).times(2));
    assert_same_bytes("after a pause", &std::fs::read(mount.path("f")).expect("read"), &bytes);
}

#[test]
fn a_wrong_range_is_never_taken_for_the_right_one() {
    let Some((server, mount)) = server_and_mount() else { return };
    let bytes = noise(24, LARGE);
    server.objects().put("f", bytes.clone());
    server.demo().add_fault(Fault::new(FaultKind::WrongRange).on(Operation::GetObject).times(2));
    if let Ok(read) = std::fs::read(mount.path("f")) {
        assert_same_bytes("after wrong ranges", &read, &bytes);
    }
    server.demo().clear_faults();
    eventually("it is read as it is", || std::fs::read(mount.path("f")).is_ok_and(|read| read == bytes));
}

/// Of objects that come whole the store knows a checksum.
#[test]
fn a_small_file_whose_body_is_corrupt_is_fetched_again() {
    let Some((server, mount)) = server_and_mount() else { return };
    for (name, size) in [("tiny", 5), ("small", 300_000), ("1 MiB", 1 << 20)] {
        server.objects().put(name, noise(31, size));
        let before = server.demo().faults_fired();
        let corrupt = FaultKind::CorruptBody { at: size as u64 / 2 };
        server.demo().add_fault(Fault::new(corrupt).on(Operation::GetObject).times(2));
        assert_same_bytes(name, &std::fs::read(mount.path(name)).expect("read"), &noise(31, size));
        assert_eq!(server.demo().faults_fired() - before, 2, "{name}: nothing was broken");
        server.demo().clear_faults();
    }
    // Where it goes on, an error is told, and no wrong byte.
    server.objects().put("f", "right");
    server.demo().add_fault(Fault::new(FaultKind::CorruptBody { at: 1 }).on(Operation::GetObject));
    assert_eq!(std::fs::read(mount.path("f")).err().and_then(|error| error.raw_os_error()), Some(libc::EIO));
}

#[test]
fn a_body_that_goes_silent_is_read_on_within_seconds() {
    let Some((server, mount)) = server_and_mount() else { return };
    let bytes = noise(31, LARGE);
    server.objects().put("f", bytes.clone());
    // The connection stays open for much longer than a reader is to wait.
    let silence = Duration::from_secs(300);
    let fault = FaultKind::StallBody { after: 300_000, pause: silence };
    server.demo().add_fault(Fault::new(fault).on(Operation::GetObject).skip(1).once());
    let start = Instant::now();
    assert_same_bytes("after a silence", &std::fs::read(mount.path("f")).expect("read"), &bytes);
    assert_eq!(server.demo().faults_fired(), 1);
    assert!(start.elapsed() < silence / 4, "the silence was waited out");
}

#[test]
fn bursts_of_refusals_in_the_stream_are_waited_out() {
    let Some((server, mount)) = server_and_mount() else { return };
    for (number, (status, code)) in [(503, "SlowDown"), (500, "InternalError")].into_iter().enumerate() {
        let (name, bytes) = (format!("f{number}"), noise(32 + number as u64, LARGE));
        server.objects().put(&name, bytes.clone());
        let before = server.demo().faults_fired();
        let burst = Fault::new(answer(status, code)).on(Operation::GetObject).skip(1).times(4);
        server.demo().add_fault(burst);
        server
            .demo()
            .add_fault(Fault::new(FaultKind::CutBody { after: 50_000 }).on(Operation::GetObject).skip(3).times(2));
        assert_same_bytes(code, &std::fs::read(mount.path(&name)).expect("read"), &bytes);
        assert!(server.demo().faults_fired() >= before + 4, "{code}");
        server.demo().clear_faults();
    }
}

#[test]
fn the_first_bytes_of_an_open_may_come_wrong() {
    let Some((server, mount)) = server_and_mount() else { return };
    let kinds = [FaultKind::WrongRange, FaultKind::CutBody { after: 0 }, FaultKind::CutBody { after: 7000 }];
    // Each in a directory of its own: next to each other they would be fetched ahead, perhaps before the fault.
    let files: Vec<_> = (0..6)
        .map(|number| (format!("d{number}/f"), noise(40 + number, 20_000 + number as usize % 2 * LARGE)))
        .collect();
    for (name, bytes) in &files {
        server.objects().put(name, bytes.clone());
        std::fs::metadata(mount.path(name)).expect("it is there");
    }
    // An answer is believed for a second: after that the open asks, for the first bytes.
    let looked = std::time::Instant::now();
    eventually("the second is over", || looked.elapsed() > std::time::Duration::from_secs(1));
    for (number, (name, bytes)) in files.iter().enumerate() {
        let before = server.demo().faults_fired();
        let kind = kinds[number / 2].clone();
        server.demo().add_fault(Fault::new(kind.clone()).on(Operation::GetObject).once());
        assert_same_bytes(name, &std::fs::read(mount.path(name)).expect("a read"), bytes);
        assert_eq!(server.demo().faults_fired(), before + 1, "{name}: {kind:?}");
    }
}

#[test]
fn small_files_fetched_ahead_survive_every_fault_of_a_stream() {
    let Some((server, mount)) = server_and_mount() else { return };
    let content = |number: usize| noise(100 + number as u64, 20_000);
    (0..200).for_each(|number| server.direct().put(&server.key(&format!("d/{number:03}")), content(number)));
    for kind in [
        FaultKind::CutBody { after: 0 },
        FaultKind::CutBody { after: 7000 },
        FaultKind::DropBeforeApply,
        FaultKind::WrongRange,
        answer(503, "SlowDown"),
    ] {
        server.demo().add_fault(Fault::new(kind).on(Operation::GetObject).probability(0.05));
    }
    let mut names: Vec<_> = std::fs::read_dir(mount.path("d"))
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect())
        .expect("a listing");
    names.sort();
    for (number, name) in names.iter().enumerate() {
        let read = std::fs::read(mount.path("d").join(name)).expect("a read");
        assert_same_bytes("with faults", &read, &content(number));
    }
    assert!(server.demo().faults_fired() > 5);
}

#[test]
fn an_object_removed_while_it_is_read_is_stale_and_never_wrong() {
    let Some((server, mount)) = server_and_mount() else { return };
    let bytes = noise(34, 48 << 20);
    server.objects().put("f", bytes.clone());
    let file = File::open(mount.path("f")).expect("an open file");
    let mut block = vec![0; 1 << 20];
    file.read_exact_at(&mut block, 0).expect("the first MiB");
    server.objects().remove_all();
    let mut stale = 0;
    for index in (1..48usize).rev() {
        match file.read_exact_at(&mut block, (index as u64) << 20) {
            Ok(()) => assert_same_bytes("what was here already", &block, &bytes[index << 20..(index + 1) << 20]),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "at {index} MiB");
                stale += 1;
            }
        }
    }
    assert!(stale > 0, "all of it was read after it was gone");
}

#[test]
fn a_refused_put_is_reported_kept_and_tried_again() {
    let Some((server, mut mount)) = server_and_mount() else { return };
    server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::PutObject));
    let undisturbed = undisturbed();
    let mut file = File::create(mount.path("f")).expect("a new file");
    file.write_all(b"kept").expect("written to the stage");
    let refused = file.sync_all().expect_err("fsync reports it");
    assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
    drop((file, undisturbed));
    // Standard tools report it too.
    let finished = mount.shell().attempt("cp f g");
    assert!(!finished.status.success(), "cp reports it: {finished:?}");
    assert_eq!(std::fs::read(mount.path("f")).ok().as_deref(), Some(&b"kept"[..]), "still readable here");
    server.demo().clear_faults();
    let file = File::options().write(true).open(mount.path("f")).expect("an open file");
    file.sync_all().expect("the next fsync stores it");
    assert_eq!(server.objects().text("f"), "kept");
    drop(file);
    mount.unmount();
}

#[test]
fn a_refused_put_is_stored_at_the_latest_when_the_mount_ends() {
    let Some((server, mut mount)) = server_and_mount() else { return };
    server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::PutObject));
    assert!(std::fs::write(mount.path("f"), "kept").is_err() || !server.objects().exists("f"));
    server.demo().clear_faults();
    mount.unmount();
    assert_eq!(server.objects().text("f"), "kept");
}

#[test]
fn a_refused_part_leaves_the_old_object_and_no_upload() {
    let Some((server, mut mount)) = server_and_mount() else { return };
    server.objects().put("f", "old");
    for operation in [Operation::UploadPart, Operation::CompleteMultipartUpload, Operation::CreateMultipartUpload] {
        server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(operation));
        let undisturbed = undisturbed();
        let mut file = File::create(mount.path("f")).expect("an open file");
        file.write_all(&noise(25, LARGE)).expect("written to the stage");
        assert_eq!(file.sync_all().expect_err("reported").raw_os_error(), Some(libc::EACCES), "{operation:?}");
        assert_eq!(server.objects().text("f"), "old", "{operation:?}");
        eventually("the upload is aborted", || server.objects().unfinished_uploads().is_empty());
        server.demo().clear_faults();
        file.set_len(3).expect("shortened");
        drop((file, undisturbed));
        assert_eq!(server.objects().get("f").map(|bytes| bytes.len()), Some(3), "{operation:?}");
        server.objects().put("f", "old");
        mount.remount();
    }
}

#[test]
fn a_refused_delete_is_reported_and_the_file_stays() {
    let Some((server, mount)) = server_and_mount() else { return };
    server.objects().put("f", "x");
    server.objects().put("d/f", "x");
    for operation in [Operation::DeleteObject, Operation::DeleteObjects] {
        server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(operation));
    }
    let finished = mount.shell().attempt("rm f");
    assert!(!finished.status.success() && finished.stderr.contains("Permission denied"), "{finished:?}");
    server.demo().clear_faults();
    assert_eq!(mount.sh("cat f"), "x");
}

#[test]
fn a_refused_copy_fails_the_rename_and_loses_nothing() {
    let Some((server, mount)) = server_and_mount() else { return };
    server.objects().put("f", "bytes");
    server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::CopyObject));
    assert!(std::fs::rename(mount.path("f"), mount.path("g")).is_err());
    server.demo().clear_faults();
    assert_eq!(mount.sh("cat f; ls"), "bytesf");
    mount.sh("mv f g");
    assert_eq!(server.objects().list(), ["g"]);
}

#[test]
fn a_directory_rename_that_fails_half_way_loses_nothing() {
    let Some((server, mount)) = server_and_mount() else { return };
    for number in 0..20 {
        server.objects().put(&format!("d/{number}"), number.to_string());
    }
    let fault = Fault::new(answer(403, "AccessDenied")).on(Operation::CopyObject).skip(7);
    server.demo().add_fault(fault);
    assert!(std::fs::rename(mount.path("d"), mount.path("e")).is_err());
    server.demo().clear_faults();
    let objects = server.objects();
    for number in 0..20 {
        let found = objects.get(&format!("d/{number}")).or_else(|| objects.get(&format!("e/{number}")));
        assert_eq!(found, Some(number.to_string().into_bytes()), "{number}");
    }
}

#[test]
fn a_refused_listing_is_an_error_and_never_an_empty_directory() {
    let Some((server, mount)) = server_and_mount() else { return };
    server.objects().put("d/f", "x");
    mount.sh("stat d > /dev/null");
    server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::ListObjectsV2));
    let finished = mount.shell().attempt("ls d");
    assert!(!finished.status.success() && finished.stdout.is_empty(), "{finished:?}");
    assert!(std::fs::remove_dir(mount.path("d")).is_err());
    server.demo().clear_faults();
    assert_eq!(mount.sh("ls d"), "f");
}

#[test]
fn a_denied_read_is_permission_denied() {
    let Some((server, mount)) = server_and_mount() else { return };
    server.objects().put("secret/f", "x");
    server.demo().deny(Some(Operation::GetObject), &server.key("secret/"));
    let mut text = String::new();
    let read = File::open(mount.path("secret/f")).and_then(|mut file| file.read_to_string(&mut text));
    assert_eq!(read.err().and_then(|e| e.raw_os_error()), Some(libc::EACCES));
    assert_eq!(mount.sh("ls secret"), "f");
}

#[test]
fn what_was_reported_stored_is_stored_whatever_fails() {
    let Some((server, mut mount)) = server_and_mount() else { return };
    for kind in [
        answer(500, "InternalError"),
        FaultKind::DropBeforeApply,
        FaultKind::ApplyThenDrop,
        FaultKind::CutBody { after: 1000 },
        answer(403, "AccessDenied"),
    ] {
        server.demo().add_fault(Fault::new(kind).probability(0.05));
    }
    let mut stored = Vec::new();
    for number in 0..60u64 {
        let bytes = noise(number, 200_000 + number as usize);
        let path = mount.path(&format!("f{number}"));
        let written = File::create(&path).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        if let Ok(read) = std::fs::read(&path) {
            assert!(written.is_err() || read == bytes, "f{number} reads otherwise than it was written");
        }
        stored.push((number, bytes, written.is_ok()));
    }
    server.demo().clear_faults();
    for (number, bytes, reported) in &stored {
        match server.objects().get(&format!("f{number}")) {
            Some(object) => assert_same_bytes("an object", &object, bytes),
            None => assert!(!reported, "f{number} was reported stored and is not there"),
        }
    }
    assert!(stored.iter().filter(|(_, _, reported)| *reported).count() > 20);
    mount.unmount();
    assert_eq!(server.objects().unfinished_uploads(), Vec::<String>::new());
}

#[test]
fn the_end_of_a_mount_waits_no_longer_than_drain_timeout() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount_with(&["drain_timeout=1"]);
    for (name, by_signal) in [("unmounted", false), ("signalled", true)] {
        server.demo().add_fault(Fault::new(answer(403, "AccessDenied")).on(Operation::PutObject));
        // The close is refused, but nothing that tells of it is: the bytes are here.
        let mut file = File::create(mount.path(name)).expect("a new file");
        file.write_all(name.as_bytes()).expect("staged");
        assert!(file.sync_all().is_err());
        drop(file);
        let shape = Shape { first_byte: Duration::from_secs(600), ..Shape::default() };
        server.demo().set_shape(shape);
        server.demo().clear_faults();
        if by_signal {
            assert!(signal(mount.pid(), libc::SIGTERM));
            mount.await_end();
        } else {
            mount.unmount();
        }
        let log = mount.log();
        assert!(log.contains(&format!("{name} is not committed, and is kept in ")), "{log}");
        server.demo().set_shape(Shape::default());
        mount.mount_again();
        eventually("the next mount has stored it", || server.objects().exists(name));
        assert_eq!(server.objects().text(name), name);
    }
}
