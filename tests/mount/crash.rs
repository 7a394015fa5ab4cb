//! SIGKILL at any instant: what close or fsync had returned 0 for is in S3 after the next mount, byte for byte, and no object
//! is ever a torn file.
//!
//! `PAILFS_TEST_CRASH_ROUNDS` says how often each load is killed.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pailfs::demo::{Fault, FaultKind, Operation, Shape};

use crate::common::{Capability, TestServer, assert_same_bytes, eventually, has_program, noise, signal, undisturbed};
use crate::crash_loads::{self, COMMITS, Crash, rounds};

/// More than two parts.
const LARGE: usize = 12_000_000;

/// Lets the daemon die at a point of a close, and mounts again.
#[track_caller]
fn killed_at(what: &str, size: usize, fault: Fault, reached: impl Fn(&TestServer, &str) -> bool) {
    for commit in COMMITS {
        killed_while(&format!("{what}, {commit}"), commit, size, &fault, &reached);
    }
}

#[track_caller]
fn killed_while(what: &str, commit: &str, size: usize, fault: &Fault, reached: &dyn Fn(&TestServer, &str) -> bool) {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount_with(&["part_size=5MiB", commit]);
    let bytes = noise(size as u64, size);
    server.objects().put("changed", "old");
    for name in ["f", "changed"] {
        server.demo().add_fault(fault.clone());
        let fired = server.demo().faults_fired();
        let undisturbed = undisturbed();
        let (path, content) = (mount.path(name), bytes.clone());
        let writer = std::thread::spawn(move || std::fs::write(path, content));
        eventually(&format!("{what}: the point is reached"), || {
            server.demo().faults_fired() > fired && reached(&server, name)
        });
        signal(mount.pid(), libc::SIGKILL);
        let _ = writer.join();
        drop(undisturbed);
        mount.kill();
        server.demo().clear_faults();
        mount.mount_again();
        let read = std::fs::read(mount.path(name)).unwrap_or_else(|e| panic!("{what}: {name} is not there: {e}"));
        assert_same_bytes(what, &read, &bytes);
        eventually(&format!("{what}: {name} is stored"), || server.objects().get(name).as_deref() == Some(&bytes[..]));
        eventually(&format!("{what}: it is said"), || {
            mount.log().contains(&format!("{name}, left by an earlier run, is stored"))
        });
        eventually(&format!("{what}: no upload is left"), || server.objects().unfinished_uploads().is_empty());
        server.objects().delete("f");
    }
    mount.unmount();
    let (_, left) = mount.recover(&[]);
    assert_eq!(left, "nothing is left\n", "{what}");
}

#[test]
fn a_file_survives_a_kill_before_its_put() {
    let fault = Fault::new(FaultKind::DropBeforeApply).on(Operation::PutObject);
    killed_at("before the put", 100_000, fault, |_, _| true);
}

#[test]
fn a_file_survives_a_kill_after_a_put_that_lost_its_reply() {
    let fault = Fault::new(FaultKind::ApplyThenDrop).on(Operation::PutObject);
    let stored =
        |server: &TestServer, name: &str| server.objects().get(name).is_some_and(|bytes| bytes.len() == 100_000);
    killed_at("after the put", 100_000, fault, stored);
}

#[test]
fn a_file_survives_a_kill_during_a_part() {
    let fault = Fault::new(FaultKind::DropBeforeApply).on(Operation::UploadPart).skip(1);
    killed_at("during a part", LARGE, fault, |_, _| true);
}

#[test]
fn a_file_survives_a_kill_before_its_upload_is_completed() {
    let fault = Fault::new(FaultKind::DropBeforeApply).on(Operation::CompleteMultipartUpload);
    killed_at("before completion", LARGE, fault, |_, _| true);
}

#[test]
fn a_file_survives_a_kill_after_a_completion_that_lost_its_reply() {
    let fault = Fault::new(FaultKind::ApplyThenDrop).on(Operation::CompleteMultipartUpload);
    let stored = |server: &TestServer, name: &str| server.objects().get(name).is_some_and(|bytes| bytes.len() == LARGE);
    killed_at("after completion", LARGE, fault, stored);
}

#[test]
fn files_that_cp_had_finished_survive_kills() {
    each_round(|round| 3 + round * 7 % 50, crash_loads::cp);
}

#[test]
fn files_that_tar_had_finished_survive_kills() {
    each_round(|round| 5 + round * 11 % 60, crash_loads::tar);
}

#[test]
fn lines_that_were_appended_survive_kills() {
    each_round(|round| 2 + round * 5 % 40, crash_loads::append);
}

#[test]
fn transactions_that_sqlite_had_committed_survive_kills() {
    if has_program("python3") {
        each_round(|round| 2 + round * 7 % 40, crash_loads::sqlite);
    }
}

/// Runs a load, and kills the daemon when so much of it is done.
#[track_caller]
fn each_round(enough: impl Fn(u64) -> u64, load: impl Fn(Crash)) {
    for round in 0..rounds() {
        let Some(crash) = Crash::calm(round, enough(round)) else { return };
        load(crash);
    }
}

#[test]
fn what_was_synced_survives_kills_and_what_was_not_is_never_published() {
    for round in 0..rounds() {
        let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
        server.demo().set_shape(Shape { first_byte: Duration::from_millis(3), ..Shape::default() });
        let mut mount = server.mount();
        let synced = AtomicU64::new(0);
        let undisturbed = undisturbed();
        std::thread::scope(|scope| {
            let mut file = File::create(mount.path("f")).expect("a new file");
            let count = &synced;
            scope.spawn(move || {
                let mut write = move |number: u64| -> std::io::Result<()> {
                    write!(file, "{number:8}")?;
                    file.sync_all()?;
                    count.store(number, Ordering::SeqCst);
                    write!(file, "x")
                };
                (1..).take_while(|number| write(*number).is_ok()).count()
            });
            eventually("enough is synced", || synced.load(Ordering::SeqCst) > round * 5 % 30);
            signal(mount.pid(), libc::SIGKILL);
        });
        drop(undisturbed);
        mount.kill();
        mount.mount_again();
        let last = synced.load(Ordering::SeqCst) as usize;
        let all: String = (1..=last + 1).map(|number| format!("{number:8}x")).collect();
        // One more may have been stored, or be stored now, if it was being synced.
        eventually("what was being synced is stored", || mount.recover(&[]).1.matches("a running mount").count() == 1);
        let text = server.objects().text("f");
        assert!(text.len() >= last * 9 - 1 && all.starts_with(&text), "{last} were synced: {text:?}");
        assert_eq!((text.len() + 1) % 9, 0, "what was not synced was published: {text:?}");
        mount.unmount();
    }
}
