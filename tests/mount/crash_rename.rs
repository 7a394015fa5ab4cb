//! SIGKILL in the middle of a directory's rename: the next mount finishes it before anything is seen of it, says so, and takes
//! nothing that another client has put there meanwhile.

use std::path::{Path, PathBuf};

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, eventually, noise, signal, undisturbed};

/// Copies, or deletes, that go well before the kill.
const DONE: usize = 10;

/// What is below the directory: files, with bytes that follow from their names.
fn files() -> Vec<String> {
    (0..24).map(|number| format!("f{number:02}")).chain((0..8).map(|number| format!("sub/deep/g{number}"))).collect()
}

fn bytes_of(name: &str) -> Vec<u8> {
    let seed = name.bytes().fold(1, |seed: u64, byte| seed * 31 + u64::from(byte));
    noise(seed, 100 + seed as usize % 5000)
}

/// A mount that was killed while it renamed `d` to `e`, when requests of this operation no longer went through.
fn killed_rename(operation: Operation) -> Option<(TestServer, Mount)> {
    let server = TestServer::with(&[Capability::Simulation])?;
    let mut mount = server.mount();
    mount.sh("mkdir d d/empty");
    for name in files() {
        server.objects().put(&format!("d/{name}"), bytes_of(&name));
    }
    let all = server.objects().list().len();
    assert_eq!(all, files().len() + 2);
    let fired = server.demo().faults_fired();
    server.demo().add_fault(Fault::new(FaultKind::DropBeforeApply).on(operation).skip(DONE as u64));
    let undisturbed = undisturbed();
    let (from, to) = (mount.path("d"), mount.path("e"));
    let rename = std::thread::spawn(move || std::fs::rename(from, to));
    // Markers are made anew, not copied.
    let reached = if operation == Operation::CopyObject { all + DONE + 2 } else { 2 * all - DONE };
    eventually("a part of it is done", || {
        server.demo().faults_fired() > fired && server.objects().list().len() == reached
    });
    signal(mount.pid(), libc::SIGKILL);
    assert!(rename.join().expect("no panic").is_err(), "the rename was answered");
    drop(undisturbed);
    mount.kill();
    server.demo().clear_faults();
    Some((server, mount))
}

/// Whether `name` below the directory is where it belongs, and only there.
#[track_caller]
fn assert_moved(server: &TestServer, mount: &Mount, name: &str) {
    let found = std::fs::read(mount.path("e").join(name)).unwrap_or_else(|e| panic!("e/{name} is not there: {e}"));
    assert_same_bytes(name, &found, &bytes_of(name));
    let objects = server.objects();
    assert!(
        objects.get(&format!("e/{name}")) == Some(bytes_of(name)) && !objects.exists(&format!("d/{name}")),
        "{name}"
    );
}

#[track_caller]
fn survives(operation: Operation, far: &str) {
    let Some((server, mut mount)) = killed_rename(operation) else { return };
    let (status, listed) = mount.recover(&[]);
    assert_eq!(status, Some(0), "{listed}");
    assert!(listed.contains(&format!("rename of d to e: {} object(s), {far}", files().len() + 2)), "{listed}");
    mount.mount_again();
    assert!(!mount.path("d").exists(), "the old directory is there");
    let mut keys: Vec<String> = files().iter().map(|name| format!("e/{name}")).collect();
    keys.extend(["e/".to_owned(), "e/empty/".to_owned()]);
    keys.sort();
    assert_eq!(server.objects().list(), keys);
    files().iter().for_each(|name| assert_moved(&server, &mount, name));
    assert_eq!(mount.sh("ls e/empty; ls"), "e");
    let said = "the rename of d to e, begun by an earlier run, is finished now";
    assert_eq!(mount.log().matches(said).count(), 1, "{}", mount.log());
    mount.unmount();
    assert_eq!(mount.recover(&[]).1, "nothing is left\n");
}

#[test]
fn a_directory_rename_survives_a_kill_during_its_copies() {
    survives(Operation::CopyObject, "not all of them copied");
}

#[test]
fn a_directory_rename_survives_a_kill_during_its_deletes() {
    survives(Operation::DeleteObject, "all of them copied");
}

#[test]
fn what_another_client_stores_after_a_killed_rename_is_not_lost() {
    for operation in [Operation::CopyObject, Operation::DeleteObject] {
        let Some((server, mut mount)) = killed_rename(operation) else { return };
        let objects = server.objects();
        let unmoved: Vec<String> = files().into_iter().filter(|name| objects.exists(&format!("d/{name}"))).collect();
        let [target, source, ..] = &unmoved[..] else { panic!("nothing is left to move") };
        objects.put(&format!("e/{target}"), "theirs");
        objects.put(&format!("d/{source}"), "newer");
        objects.put("e/another", "theirs");
        mount.mount_again();
        for (name, text) in [(target, "theirs"), (&"another".to_owned(), "theirs")] {
            assert_eq!(objects.text(&format!("e/{name}")), text, "{operation:?}");
            assert_eq!(std::fs::read_to_string(mount.path("e").join(name)).expect("there"), text, "{operation:?}");
        }
        assert_eq!(objects.text(&format!("d/{source}")), "newer", "{operation:?}");
        assert!(objects.get(&format!("d/{target}")) == Some(bytes_of(target)), "{operation:?}: the source is gone");
        let others = files().into_iter().filter(|name| name != target && name != source);
        others.for_each(|name| assert_moved(&server, &mount, &name));
        assert!(mount.log().contains("is finished now, but for 2 object(s)"), "{}", mount.log());
        mount.unmount();
        assert_eq!(mount.recover(&[]).1, "nothing is left\n");
    }
}

#[test]
fn a_rename_that_was_answered_is_not_touched_after_a_kill() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mut mount = server.mount();
    for name in ["d/f", "good/f"] {
        server.objects().put(name, name);
    }
    mount.sh("mv good better");
    server.objects().put("good/f", "made anew");
    let refused = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(refused).on(Operation::DeleteObject));
    assert!(std::fs::rename(mount.path("d"), mount.path("e")).is_err());
    server.demo().clear_faults();
    let before = server.objects().list();
    assert_eq!(before, ["better/f", "d/f", "e/f", "good/f"]);
    mount.kill();
    mount.mount_again();
    assert_eq!(server.objects().list(), before);
    mount.unmount();
    assert_eq!(mount.recover(&[]).1, "nothing is left\n");
}

#[test]
fn a_file_not_stored_yet_goes_with_its_directory_whose_rename_was_killed() {
    for operation in [Operation::CopyObject, Operation::DeleteObject] {
        let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
        let mut mount = server.mount();
        server.objects().put("d/old", "old");
        server.objects().put("d/changed", "before");
        let refused = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
        server.demo().add_fault(Fault::new(refused).on(Operation::PutObject));
        for name in ["d/fresh", "d/changed"] {
            // Its close fails, which this does not tell.
            std::fs::write(mount.path(name), name).expect("written");
        }
        let fired = server.demo().faults_fired();
        server.demo().add_fault(Fault::new(FaultKind::DropBeforeApply).on(operation));
        let undisturbed = undisturbed();
        let (from, to) = (mount.path("d"), mount.path("e"));
        let rename = std::thread::spawn(move || std::fs::rename(from, to));
        let reached = if operation == Operation::CopyObject { 2 } else { 4 };
        eventually("the rename is under way", || {
            server.demo().faults_fired() > fired
                && server.objects().list().len() == reached
                && record(&mount.local().join("stage")).is_some()
        });
        signal(mount.pid(), libc::SIGKILL);
        assert!(rename.join().expect("no panic").is_err(), "the rename was answered");
        drop(undisturbed);
        mount.kill();
        server.demo().clear_faults();
        mount.mount_again();
        eventually("all is stored", || {
            server.objects().list() == ["e/changed", "e/fresh", "e/old"]
                && server.objects().text("e/changed") == "d/changed"
        });
        assert_eq!(
            (server.objects().text("e/fresh"), server.objects().text("e/old")),
            ("d/fresh".into(), "old".into())
        );
        mount.unmount();
        assert_eq!(mount.recover(&[]).1, "nothing is left\n", "{operation:?}");
    }
}

/// The record of the rename, somewhere below the stage.
fn record(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("readable").flatten().map(|entry| entry.path());
    let mut found = entries.filter_map(|path| match path.is_dir() {
        true => record(&path),
        false => path.extension().is_some_and(|extension| extension == "moves").then_some(path),
    });
    found.next()
}

#[test]
fn a_torn_record_of_a_rename_is_told_and_kept_until_it_is_discarded() {
    let Some((server, mut mount)) = killed_rename(Operation::DeleteObject) else { return };
    let path = record(&mount.local().join("stage")).expect("a record");
    let text = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &text[..text.len() / 2]).expect("torn");
    let before = server.objects().list();
    for _ in 0..2 {
        mount.mount_again();
        let told = mount.log().matches("is not finished: the record is torn").count();
        assert!(told > 0, "{}", mount.log());
        mount.unmount();
    }
    assert_eq!(server.objects().list(), before);
    let done = |outcome: (Option<i32>, String)| {
        assert_eq!(outcome.0, Some(0), "{}", outcome.1);
        outcome.1
    };
    assert!(done(mount.recover(&[])).contains("rename of a directory: the record is torn"));
    let dir = mount.local().join("exported");
    let said = done(mount.recover(&["--export", dir.to_str().expect("UTF-8")]));
    assert!(said.contains("nothing to store or to export"), "{said}");
    assert!(done(mount.recover(&[])).contains("the record is torn"), "an export removed it");
    done(mount.recover(&["--discard", "--all"]));
    assert_eq!(done(mount.recover(&[])), "nothing is left\n");
    assert_eq!(server.objects().list(), before, "to discard a record touched objects");
}
