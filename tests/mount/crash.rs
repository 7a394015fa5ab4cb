//! SIGKILL at any instant: what close or fsync had returned 0 for is in S3 after the next mount, byte for byte, and no object
//! is ever a torn file.
//!
//! `PAILFS_TEST_CRASH_ROUNDS` says how often each load is killed.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pailfs::demo::{Fault, FaultKind, Operation, Shape};

use crate::common::{
    Capability, Mount, TestServer, alive, assert_same_bytes, eventually, has_program, noise, signal, undisturbed,
};

/// More than two parts.
const LARGE: usize = 12_000_000;

fn rounds() -> u64 {
    std::env::var("PAILFS_TEST_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// What a close waits for.
const COMMITS: [&str; 2] = ["commit=close", "commit=async"];

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

/// Runs `script` on a mount, kills its daemon when `progress` shows enough of it, and mounts again. The script and everything
/// it started has ended then.
fn killed_under_load(server: &TestServer, script: &str, prepare: &str, (round, enough): (u64, u64)) -> (Mount, String) {
    let mut mount = server.mount_with(&[COMMITS[(round % 2) as usize]]);
    mount.shell().run(prepare);
    let mut child = mount.shell().start(script);
    let progress = mount.local().join("done");
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    eventually("enough is done", || {
        lines(&progress).lines().count() as u64 >= enough || child.try_wait().is_ok_and(|s| s.is_some())
    });
    let done = lines(&progress);
    mount.kill();
    signal(-(child.id() as i32), libc::SIGKILL);
    let _ = child.wait();
    eventually("the script has ended", || !alive(child.id() as i32));
    mount.mount_again();
    (mount, done)
}

fn slow_server() -> Option<TestServer> {
    let server = TestServer::with(&[Capability::Simulation])?;
    server.demo().set_shape(Shape { first_byte: Duration::from_millis(3), ..Shape::default() });
    Some(server)
}

/// Waits for the recovery of `names`, then compares each of them, and what else is there: it may be there, but only whole.
#[track_caller]
fn compare(server: &TestServer, names: &[String], wanted: impl Fn(&str) -> Vec<u8>) {
    for name in names {
        eventually(&format!("{name} is stored"), || server.objects().exists(name));
    }
    for name in server.objects().files() {
        let Some(found) = server.objects().get(&name) else { continue };
        assert_same_bytes(&name, &found, &wanted(&name));
    }
}

#[test]
fn files_that_cp_had_finished_survive_kills() {
    for round in 0..rounds() {
        let Some(server) = slow_server() else { return };
        let prepare =
            "for i in $(seq 60); do head -c $((i * 4000)) /dev/zero | tr '\\0' \"$((i % 10))\" > $LOCAL/$i; done";
        let script = "for i in $(seq 60); do cp $LOCAL/$i f$i && echo f$i >> $LOCAL/done; done";
        let (mut mount, done) = killed_under_load(&server, script, prepare, (round, 3 + round * 7 % 50));
        let names: Vec<String> = done.lines().map(str::to_owned).collect();
        compare(&server, &names, |name| std::fs::read(mount.local().join(&name[1..])).expect("a source"));
        mount.unmount();
    }
}

#[test]
fn files_that_tar_had_finished_survive_kills() {
    for round in 0..rounds() {
        let Some(server) = slow_server() else { return };
        let prepare = "mkdir -p $LOCAL/t/d; for i in $(seq 80); do seq $((i * 50)) > $LOCAL/t/d/$i; done; \
                       tar -C $LOCAL/t -cf $LOCAL/t.tar d";
        let (mut mount, done) =
            killed_under_load(&server, "tar -xvf $LOCAL/t.tar > $LOCAL/done", prepare, (round, 5 + round * 11 % 60));
        // tar names a file before it makes it: the last one named may not be closed yet.
        let mut names: Vec<String> = done.lines().map(str::to_owned).collect();
        names.pop();
        names.retain(|name| !name.ends_with('/'));
        compare(&server, &names, |name| std::fs::read(mount.local().join("t").join(name)).expect("a source"));
        mount.unmount();
    }
}

#[test]
fn lines_that_were_appended_survive_kills() {
    for round in 0..rounds() {
        let Some(server) = slow_server() else { return };
        let script = "for i in $(seq 200); do echo line $i >> log && echo $i >> $LOCAL/done; done";
        let (mut mount, done) = killed_under_load(&server, script, "true", (round, 2 + round * 5 % 40));
        let last: usize = done.lines().last().and_then(|line| line.parse().ok()).unwrap_or_default();
        let all: String = (1..=200).map(|number| format!("line {number}\n")).collect();
        let lines =
            |server: &TestServer| server.objects().get("log").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        eventually("every line is stored", || lines(&server).is_some_and(|text| text.lines().count() >= last));
        let text = lines(&server).expect("the log");
        assert!(all.starts_with(&text) && text.ends_with('\n'), "torn: {text:?}");
        mount.unmount();
    }
}

/// Adds numbers to a database, each in a transaction, and tells of each that was committed.
const TRANSACTIONS: &str = r#"exec python3 -c '
import os, sqlite3
db = sqlite3.connect("db", isolation_level=None)
db.execute("pragma journal_mode=" + os.environ["MODE"])
db.execute("create table if not exists t(n integer primary key, filling text)")
with open(os.environ["LOCAL"] + "/done", "a", buffering=1) as done:
    for n in range(1, 300):
        db.execute("begin")
        db.execute("insert into t values (?, ?)", (n, "x" * (n * 37 % 3000)))
        db.execute("update t set filling = filling || 0 where n % 7 = ?", (n % 7,))
        db.execute("commit")
        done.write("%d\n" % n)
'"#;

/// What a check of the database finds: that it is whole, how many rows it has, and the last one.
const CHECKED: &str = r#"python3 -c '
import sqlite3
db = sqlite3.connect("db")
print(*db.execute("pragma integrity_check").fetchone(), *db.execute("select count(*), coalesce(max(n), 0) from t").fetchone())
'"#;

#[test]
fn transactions_that_sqlite_had_committed_survive_kills() {
    if !has_program("python3") {
        return;
    }
    for round in 0..rounds() {
        let Some(server) = slow_server() else { return };
        let mode = ["delete", "truncate", "persist"][(round % 3) as usize];
        let script = format!("export MODE={mode}; {TRANSACTIONS}");
        let (mut mount, done) = killed_under_load(&server, &script, "true", (round, 2 + round * 7 % 40));
        eventually("the recovery has ended", || mount.recover(&[]).1.matches("a running mount").count() == 1);
        let last: u64 = done.lines().last().and_then(|line| line.parse().ok()).unwrap_or_default();
        let found = mount.shell().run(CHECKED);
        // One more may have been committed whose word was not out yet.
        let good = [last, last + 1].map(|rows| format!("ok {rows} {rows}"));
        assert!(good.contains(&found), "{last} were committed with {mode}: {found}");
        mount.unmount();
    }
}

#[test]
fn what_was_synced_survives_kills_and_what_was_not_is_never_published() {
    for round in 0..rounds() {
        let Some(server) = slow_server() else { return };
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
