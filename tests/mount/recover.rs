//! `pailfs recover`: what killed mounts left is listed, stored, exported and thrown away, and nothing else is touched.

use std::fs::File;
use std::io::Write;

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, Mount, TestServer, eventually, signal, undisturbed};

/// A mount that was killed with a file that was closed and could not be stored, `whole`, and one that was still open, `half`.
fn killed_mount() -> Option<(TestServer, Mount)> {
    let server = TestServer::with(&[Capability::Simulation])?;
    let mut mount = server.mount();
    let refused = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    server.demo().add_fault(Fault::new(refused).on(Operation::PutObject));
    let undisturbed = undisturbed();
    let mut half = File::create(mount.path("half")).expect("a new file");
    half.write_all(b"unfinished").expect("written");
    let mut whole = File::create(mount.path("whole")).expect("a new file");
    whole.write_all(b"finished").expect("written");
    whole.sync_all().expect_err("it can't be stored");
    signal(mount.pid(), libc::SIGKILL);
    drop((half, whole, undisturbed));
    mount.kill();
    server.demo().clear_faults();
    Some((server, mount))
}

#[track_caller]
fn done(outcome: (Option<i32>, String)) -> String {
    assert_eq!(outcome.0, Some(0), "{}", outcome.1);
    outcome.1
}

#[track_caller]
fn refused(outcome: (Option<i32>, String), status: i32) -> String {
    assert_eq!(outcome.0, Some(status), "{}", outcome.1);
    outcome.1
}

#[test]
fn what_is_left_is_listed_exported_and_discarded_without_s3() {
    let Some((server, mount)) = killed_mount() else { return };
    server.demo().add_fault(Fault::new(FaultKind::DropBeforeApply));
    let listed = done(mount.recover(&[]));
    assert!(listed.contains("8 bytes  whole: whole, not stored yet"), "{listed}");
    assert!(listed.contains("10 bytes  half: it was still open, and not synced"), "{listed}");
    let dir = mount.local().join("exported");
    let dir_name = dir.to_str().expect("UTF-8");
    done(mount.recover(&["--export", dir_name]));
    assert_eq!(std::fs::read(dir.join("whole")).expect("exported"), b"finished");
    assert_eq!(std::fs::read(dir.join("half")).expect("exported"), b"unfinished");
    std::fs::write(dir.join("half"), "mine").expect("changed");
    let said = refused(mount.recover(&["--export", dir_name, "half"]), 2);
    assert!(said.contains("File exists"), "{said}");
    assert_eq!(std::fs::read(dir.join("half")).expect("there"), b"mine", "an export replaced a file");
    done(mount.recover(&["--discard", "half"]));
    let listed = done(mount.recover(&["--list"]));
    assert!(listed.contains("whole") && !listed.contains("half"), "{listed}");
    done(mount.recover(&["--discard", "--all"]));
    assert_eq!(done(mount.recover(&[])), "nothing is left\n");
}

#[test]
fn what_was_closed_is_uploaded_and_what_was_open_only_when_it_is_named() {
    let Some((server, mount)) = killed_mount() else { return };
    let said = refused(mount.recover(&["--upload"]), 2);
    assert!(said.contains("whole: stored as") && said.contains("half: it was still open"), "{said}");
    assert_eq!((server.objects().list(), server.objects().text("whole")), (vec!["whole".into()], "finished".into()));
    done(mount.recover(&["--upload", "half"]));
    assert_eq!(server.objects().text("half"), "unfinished");
    assert_eq!(done(mount.recover(&[])), "nothing is left\n");
}

#[test]
fn an_upload_never_replaces_another_writers_object_unless_told_to() {
    let Some((server, mount)) = killed_mount() else { return };
    server.objects().put("whole", "theirs");
    let said = refused(mount.recover(&["--upload", "whole"]), 2);
    assert!(said.contains("another writer") && said.contains("--force") && said.contains("--to"), "{said}");
    assert_eq!(server.objects().text("whole"), "theirs");
    server.objects().put("taken", "theirs");
    let said = refused(mount.recover(&["--upload", "--to", "taken", "half"]), 2);
    assert!(said.contains("already"), "{said}");
    done(mount.recover(&["--upload", "--to", "d/beside", "half"]));
    done(mount.recover(&["--upload", "--force", "whole"]));
    let text = |name: &str| server.objects().text(name);
    assert_eq!([text("whole"), text("taken"), text("d/beside")], ["finished", "theirs", "unfinished"]);
    assert_eq!(done(mount.recover(&[])), "nothing is left\n");
}

#[test]
fn a_session_in_use_is_left_alone() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount();
    let mut file = File::create(mount.path("f")).expect("a new file");
    file.write_all(b"being written").expect("written");
    let said = done(mount.recover(&["--discard", "--all"]));
    assert!(said.contains(&format!("a running mount uses the session {}-", mount.pid())), "{said}");
    file.write_all(b", still").expect("written");
    file.sync_all().expect("stored");
    drop(file);
    assert_eq!(server.objects().text("f"), "being written, still");
}

#[test]
fn a_torn_record_is_told_and_kept() {
    let Some((server, mut mount)) = killed_mount() else { return };
    let find = |dir: &std::path::Path| -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![dir.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).expect("readable").flatten() {
                if entry.path().is_dir() { open.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    };
    let records =
        || find(&mount.local().join("stage")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    for record in records() {
        let text = std::fs::read(&record).expect("readable");
        std::fs::write(&record, &text[..text.len() / 2]).expect("torn");
    }
    mount.mount_again();
    eventually("the mount says so", || mount.log().matches("the record is torn").count() == 2);
    let listed = done(mount.recover(&[]));
    assert_eq!(listed.matches("the record is torn").count(), 2, "{listed}");
    let dir = mount.local().join("exported");
    done(mount.recover(&["--export", dir.to_str().expect("UTF-8")]));
    let mut exported: Vec<_> = find(&dir).iter().map(|path| std::fs::read(path).expect("readable")).collect();
    exported.sort();
    assert_eq!(exported, [b"finished".to_vec(), b"unfinished".to_vec()]);
    mount.unmount();
    assert_eq!(server.objects().list(), Vec::<String>::new());
}

#[test]
fn a_conflict_found_after_a_kill_is_kept_and_told() {
    let Some((server, mut mount)) = killed_mount() else { return };
    server.objects().put("whole", "theirs");
    mount.mount_again();
    eventually("the mount says so", || {
        mount.log().contains("not stored: whole: another writer changed the object since")
    });
    assert_eq!(mount.sh("cat whole"), "theirs");
    let listed = done(mount.recover(&[]));
    assert!(listed.contains("whole: whole, not stored yet"), "{listed}");
    mount.unmount();
    assert_eq!(server.objects().text("whole"), "theirs");
}
