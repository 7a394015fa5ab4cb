//! The loads under which daemons are killed, and what must be there afterwards.
//!
//! Owns the crash of a round: a mount, a load on it, the end of the daemon, the next mount; and for each load by what it may be
//! judged. Whether the store fails meanwhile, or the stage runs full, is the caller's choice.
//!
//! What may be demanded is the same for all:
//! - What close or fsync had returned 0 for is in S3 when the next mount has ended its recovery: byte for byte, and nothing older.
//! - A close or an fsync that failed, or was under way at the kill, promises nothing: the file may be as it was, or as it would
//!   have become, never between the two. One that was stored before is never absent.
//! - What was written and never synced is in no object.
//!
//! A condition that the store denies though it holds (a 412 without another writer) is a conflict like any other: close says
//! ESTALE, and the bytes wait. With `commit=async` close has returned 0 by then. The next mount tries again and is not lied to, so
//! that these bytes are in S3 too; when they are in the stage instead, `crash_files` says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use pailfs::demo::Shape;

use crate::common::{
    Mount, MountOptions, PATIENCE, TestServer, alive, assert_same_bytes, eventually, holds_within, signal,
};

/// What a close waits for.
pub const COMMITS: [&str; 2] = ["commit=close", "commit=async"];

/// Longest that what a load does at the moment may go on after the faults have ended: the answer may have to be given up, and a
/// commit be tried again.
const LOAD_LIMIT: Duration = Duration::from_secs(90);

/// How often each load is killed.
pub fn rounds() -> u64 {
    std::env::var("PAILFS_TEST_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// How a load ends, after so many lines of progress or after this time.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// SIGKILL.
    Kill(u64, Duration),
    /// The store works again, and then the load is told to end after what it does at the moment.
    Alone(u64, Duration),
}

/// Makes a store fail.
pub type Storm = Box<dyn Fn(&TestServer)>;

/// One crash, still to come.
pub struct Crash {
    pub server: TestServer,
    pub options: Vec<&'static str>,
    pub stage: Option<PathBuf>,
    pub end: End,
    /// Of each request. What was closed with `commit=async` waits as long, at least, in the stage alone.
    pub latency: Duration,
    /// Begins when all is prepared.
    pub storm: Option<Storm>,
    /// Gives room to the stage again, once it is mounted again. A file that was changed in parts may need some before it is whole.
    pub relief: Option<Box<dyn Fn()>>,
    /// What the load chooses follows from it.
    pub seed: u64,
}

/// The mount after a crash, with its recovery done.
pub struct Crashed {
    pub server: TestServer,
    pub mount: Mount,
    /// What the load had told, in one file for all of it, before the end began.
    done: Vec<String>,
    pub is_async: bool,
}

impl Crash {
    /// One where nothing but the daemon fails.
    pub fn calm(round: u64, enough: u64) -> Option<Self> {
        let server = TestServer::simulated(round)?;
        let (options, end) = (vec![COMMITS[(round % 2) as usize]], End::Kill(enough, PATIENCE));
        let latency = Duration::from_millis([3, 30][(round % 2) as usize]);
        Some(Crash { server, options, stage: None, end, latency, storm: None, relief: None, seed: round })
    }

    /// Runs `script` on a mount until its daemon dies or its store gets well, and mounts again. The script and everything it
    /// started has ended then, and so has the recovery.
    #[track_caller]
    pub fn run(self, script: &str, prepare: &str) -> Crashed {
        let Crash { server, options, stage, end, latency, storm, relief, .. } = self;
        server.demo().set_shape(Shape { first_byte: latency, ..Shape::default() });
        let with = MountOptions::new(&options);
        let with = stage.iter().fold(with, |with, stage| with.stage(stage));
        let mut mount = Mount::start(&server, with);
        mount.shell().run(prepare);
        storm.iter().for_each(|storm| storm(&server));
        let mut load = Load(mount.shell().start(script));
        let (End::Kill(enough, limit) | End::Alone(enough, limit)) = end;
        // The time is that of the load, not of the start of programs.
        holds_within(PATIENCE, || progress(mount.local()) > 0 || load.has_ended());
        holds_within(limit, || progress(mount.local()) >= enough || load.has_ended());
        let done = text(&mount.local().join("done")).lines().map(str::to_owned).collect();
        if let End::Alone(..) = end {
            server.demo().clear_faults();
            std::fs::write(mount.local().join("stop"), "").expect("told");
            let ended = holds_within(LOAD_LIMIT, || load.has_ended());
            assert!(ended, "the load hangs for {LOAD_LIMIT:?} though the store works again");
            mount.unmount();
        } else {
            let pid = mount.pid();
            signal(pid, libc::SIGKILL);
            eventually("the daemon is dead", || !alive(pid));
            // Before the dead mount is cleared away: what is below it is no place for files.
            load.kill();
            mount.kill();
            server.demo().clear_faults();
        }
        mount.mount_again();
        relief.iter().for_each(|relief| relief());
        // A recovery holds the sessions that it takes files from.
        let has_ended = || mount.recover(&[]).1.matches("a running mount").count() == 1;
        assert!(holds_within(PATIENCE, has_ended), "the recovery does not end: {}", mount.recover(&[]).1);
        Crashed { server, mount, done, is_async: options.contains(&COMMITS[1]) }
    }
}

/// A load at work, killed when it is dropped.
struct Load(Child);

impl Load {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }

    #[track_caller]
    fn kill(&mut self) {
        let group = -(self.0.id() as i32);
        signal(group, libc::SIGKILL);
        // A member that was reparented is no child of ours.
        eventually("all of the load is dead", || self.has_ended() && !signal(group, 0));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !self.has_ended() {
            signal(-(self.0.id() as i32), libc::SIGKILL);
        }
    }
}

/// Lines in the files of `dir` that loads tell their progress in.
fn progress(dir: &Path) -> u64 {
    let is_told = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("done"));
    let paths = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| is_told(path)).map(|path| text(&path).lines().count() as u64).sum()
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

impl Crashed {
    /// Ends the mount, and demands each of `names`, and that what else is there is whole. `told` is what the load said.
    #[track_caller]
    fn compare(mut self, names: &[String], told: &str, wanted: impl Fn(&str) -> Option<Vec<u8>>) {
        for name in names {
            let read = std::fs::read(self.mount.path(name)).unwrap_or_else(|error| panic!("{name}: {error}; {told}"));
            assert_same_bytes(name, &read, &wanted(name).expect("a source"));
        }
        self.mount.unmount();
        let there: BTreeSet<String> = self.server.objects().files().into_iter().collect();
        let lost: Vec<_> = names.iter().filter(|name| !there.contains(*name)).collect();
        assert!(lost.is_empty(), "not in S3: {lost:?}; recover says {}; {told}", self.mount.recover(&[]).1);
        for name in there {
            let Some(found) = self.server.objects().get(&name) else { continue };
            let wanted = wanted(&name).unwrap_or_else(|| panic!("nobody made {name}"));
            assert_same_bytes(&name, &found, &wanted);
        }
    }
}

/// cp of many files, one after the other.
#[track_caller]
pub fn cp(crash: Crash) {
    let prepare = "for i in $(seq 60); do head -c $((i * 4000)) /dev/zero | tr '\\0' \"$((i % 10))\" > $LOCAL/$i; done";
    let script =
        "for i in $(seq 60); do [ ! -e $LOCAL/stop ] || break; cp $LOCAL/$i f$i && echo f$i >> $LOCAL/done; done";
    let crashed = crash.run(script, prepare);
    let sources = crashed.mount.local().to_owned();
    let done = crashed.done.clone();
    crashed.compare(&done, "", |name| std::fs::read(sources.join(name.get(1..)?)).ok());
}

/// The unpacking of an archive.
#[track_caller]
pub fn tar(crash: Crash) {
    let prepare = "mkdir -p $LOCAL/t/d; for i in $(seq 80); do seq $((i * 50)) > $LOCAL/t/d/$i; done; \
                   tar -C $LOCAL/t -cf $LOCAL/t.tar d";
    let crashed = crash.run("tar -xvf $LOCAL/t.tar > $LOCAL/done 2> $LOCAL/refused", prepare);
    let sources = crashed.mount.local().join("t");
    let errors = text(&crashed.mount.local().join("refused"));
    let failed: BTreeSet<_> = errors.lines().filter_map(|line| line.strip_prefix("tar: ")?.split(':').next()).collect();
    // tar names a file before it makes it: the last one named may not be closed yet.
    let mut names = crashed.done.clone();
    names.pop();
    names.retain(|name| !name.ends_with('/') && !failed.contains(name.as_str()));
    crashed.compare(&names, &errors, |name| std::fs::read(sources.join(name)).ok());
}

/// Lines appended to one file, each by a program of its own. A shell's own echo would not look at how close ends.
#[track_caller]
pub fn append(crash: Crash) {
    let script = "for i in $(seq 200); do [ ! -e $LOCAL/stop ] || break; env echo line $i >> log && echo $i >> $LOCAL/done; done";
    let mut crashed = crash.run(script, "true");
    let acknowledged = |text: &str, done: &[String]| {
        let lines: Vec<_> = text.lines().collect();
        let numbers = lines.iter().map(|line| line.strip_prefix("line ")?.parse::<u64>().ok());
        let numbers = numbers.collect::<Option<Vec<_>>>().filter(|_| text.is_empty() || text.ends_with('\n'));
        let numbers = numbers.filter(|numbers| numbers.is_sorted_by(|a, b| a < b));
        numbers.map(|numbers| done.iter().all(|done| done.parse().is_ok_and(|number| numbers.contains(&number))))
    };
    let done = crashed.done.clone();
    crashed.mount.unmount();
    let stored = crashed.server.objects().get("log").unwrap_or_default();
    let stored = String::from_utf8_lossy(&stored);
    if acknowledged(&stored, &done).unwrap_or_else(|| panic!("torn: {stored:?}")) {
        return;
    }
    // Closed, not stored, and being appended to again: kept as a file that is open.
    let kept = if crashed.is_async { crashed.kept("log") } else { Vec::new() };
    let kept: Vec<_> = kept.iter().map(|kept| String::from_utf8_lossy(kept)).collect();
    let is_kept = kept.iter().any(|kept| acknowledged(kept, &done) == Some(true));
    assert!(is_kept, "lines are lost: {done:?} of {stored:?}, and of {kept:?}");
}

impl Crashed {
    /// What `pailfs recover` has of a file, when the mount has ended: as it is exported, and with the zeros of it filled from its
    /// object. Of a file that is changed only what was changed is in the stage.
    pub fn kept(&self, name: &str) -> Vec<Vec<u8>> {
        let listed = self.mount.recover(&[]).1;
        let of_it = listed.lines().filter(|line| line.contains(&format!(" bytes  {name}: ")));
        let ids: Vec<_> = of_it.filter_map(|line| line.split("  ").next()).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let export = |(number, id): (usize, &&str)| {
            let to = dir.path().join(number.to_string());
            let (status, said) = self.mount.recover(&["--export", to.to_str().expect("UTF-8"), id]);
            assert_eq!(status, Some(0), "{said}");
            std::fs::read(to.join(name)).expect("exported")
        };
        let object = self.server.objects().get(name).unwrap_or_default();
        let filled = |kept: &Vec<u8>| {
            let theirs = object.iter().copied().chain(std::iter::repeat(0));
            kept.iter().zip(theirs).map(|(ours, theirs)| if *ours == 0 { theirs } else { *ours }).collect()
        };
        ids.iter().enumerate().map(export).flat_map(|kept| [filled(&kept), kept]).collect()
    }
}

/// Makes the interpreter itself known, where `python3` is a script that looks for it first.
pub const PYTHON: &str = "ln -s $(python3 -c 'import sys; print(sys.executable)') $LOCAL/python";

/// Adds numbers to a database, each in a transaction, and tells of each that was committed.
const TRANSACTIONS: &str = r#"exec $LOCAL/python -c '
import os, sqlite3
db = None
with open(os.environ["LOCAL"] + "/done", "a", buffering=1) as done:
    for n in range(1, 300):
        if os.path.exists(os.environ["LOCAL"] + "/stop"):
            break
        try:
            if db is None:
                db = sqlite3.connect("db", isolation_level=None)
                db.execute("pragma journal_mode=" + os.environ["MODE"])
                db.execute("create table if not exists t(n integer primary key, filling text)")
            db.execute("begin")
            db.execute("insert into t values (?, ?)", (n, "x" * (n * 37 % 3000)))
            db.execute("update t set filling = filling || 0 where n % 7 = ?", (n % 7,))
            db.execute("commit")
            done.write("%d\n" % n)
        except sqlite3.Error as error:
            done.write("%d failed: %s\n" % (n, error))
            try:
                db.close()
            except (AttributeError, sqlite3.Error):
                pass
            db = None
'"#;

/// What a check of the database finds: that it is whole, and its rows.
const CHECKED: &str = r#"timeout 60 python3 -c '
import sqlite3
db = sqlite3.connect("db")
print(*db.execute("pragma integrity_check").fetchone())
print(*[n for n, in db.execute("select n from t order by n")])
'"#;

/// Transactions of a database with a rollback journal.
#[track_caller]
pub fn sqlite(crash: Crash) {
    let mode = ["delete", "truncate", "persist"][(crash.seed % 3) as usize];
    let mut crashed = crash.run(&format!("export MODE={mode}; {TRANSACTIONS}"), PYTHON);
    let told = crashed.done.clone();
    let is_failed = |line: &&String| line.contains(" failed");
    let committed: BTreeSet<u64> = told.iter().filter(|line| !is_failed(line)).filter_map(|n| n.parse().ok()).collect();
    if committed.is_empty() {
        return;
    }
    let found = crashed.mount.shell().run(CHECKED);
    let (whole, rows) = found.split_once('\n').unwrap_or((&found, ""));
    let rows: BTreeSet<u64> = rows.split(' ').filter_map(|row| row.parse().ok()).collect();
    assert_eq!(whole, "ok", "with {mode}");
    let lost: Vec<_> = committed.difference(&rows).collect();
    assert!(lost.is_empty(), "with {mode} committed and not there: {lost:?}; {told:?}");
    // Of one that failed, or was under way, the store may have all all the same.
    let number = |line: &String| line.split(' ').next().and_then(|n| n.parse::<u64>().ok());
    let unknown: BTreeSet<u64> = told.iter().filter(is_failed).filter_map(number).collect();
    let last = told.iter().filter_map(number).max().unwrap_or_default();
    let stray: Vec<_> = rows.difference(&committed).filter(|n| !unknown.contains(n) && **n != last + 1).collect();
    assert!(stray.is_empty(), "with {mode} there and never begun: {stray:?}");
    crashed.mount.unmount();
}
