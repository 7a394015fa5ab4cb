//! Signals that ask a running mount for something: none of them ends it, whenever it comes.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pailfs::demo::{Fault, FaultKind, Operation, Shape};

use crate::machine::{Machine, Mount, eventually, kill};

/// A log file that can be waited for.
struct Log(PathBuf);

impl Log {
    fn of(machine: &Machine) -> Self {
        Log(machine.path("log"))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }

    fn count(&self, part: &str) -> usize {
        self.text().matches(part).count()
    }

    /// Sends a signal, and waits until the log says `answer` once more.
    #[track_caller]
    fn answers(&self, mount: &Mount<'_>, signal: i32, answer: &str) {
        let before = self.count(answer);
        kill(mount.pid(), signal);
        eventually(answer, || self.count(answer) > before || mount.has_ended());
        assert!(!mount.has_ended(), "it is dead: {}", self.text());
    }
}

const DROPPED: &str = "SIGUSR1: what was kept of clean files is dropped";
const LEVEL: &str = "SIGUSR2: the log level is now";
const REOPENED: &str = "was opened again";

#[test]
fn sigusr1_has_what_was_kept_asked_of_s3_again() {
    let machine = Machine::new();
    let log = Log::of(&machine);
    let mount = machine.mount(&["--log-file", log.path(), "--actimeo", "600", "--negative-ttl", "600"]);
    let (hello, none) = (machine.mountpoint().join("hello"), machine.mountpoint().join("none"));
    let look = || assert_eq!(fs::metadata(&hello).expect("it is there").len(), 13);
    let miss = || assert!(fs::metadata(&none).is_err());
    let list = || assert_eq!(fs::read_dir(machine.mountpoint()).expect("it can be listed").count(), 1);
    let questions: [(&str, &dyn Fn()); 3] =
        [("attributes", &look), ("a name that is not there", &miss), ("names", &list)];
    let read = || assert_eq!(fs::read_to_string(&hello).expect("it can be read"), "hello from S3");
    let ask_all = || {
        questions.iter().for_each(|(_, ask)| ask());
        read();
    };
    let requests = |ask: &dyn Fn()| {
        let before = machine.server().counters().total().requests;
        ask();
        machine.server().counters().total().requests - before
    };
    let bytes = || machine.server().counters().requests(Operation::GetObject);
    ask_all();
    for (what, ask) in questions {
        assert_eq!(requests(ask), 0, "{what}: kept");
        log.answers(&mount, libc::SIGUSR1, DROPPED);
        assert!(requests(ask) > 0, "{what}: dropped");
        ask_all();
    }
    let before = bytes();
    read();
    assert_eq!(bytes(), before, "bytes: kept");
    log.answers(&mount, libc::SIGUSR1, DROPPED);
    read();
    assert_eq!(bytes(), before + 1, "bytes: dropped");
    mount.end();
}

#[test]
fn sigusr1_and_sigusr2_leave_alone_what_is_not_stored() {
    let machine = Machine::new();
    let log = Log::of(&machine);
    let mount = machine.mount(&["--log-file", log.path()]);
    let open = machine.half_written("half");
    let denied = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
    machine.server().add_fault(Fault::new(denied).on(Operation::PutObject).key("p/refused"));
    let refused = machine.mountpoint().join("refused");
    let mut file = fs::File::create(&refused).expect("a new file");
    file.write_all(b"kept").expect("it takes bytes");
    assert!(file.sync_all().is_err(), "the program is told");
    drop(file);
    for (signal, answer) in [(libc::SIGUSR1, DROPPED), (libc::SIGUSR2, LEVEL), (libc::SIGUSR1, DROPPED)] {
        log.answers(&mount, signal, answer);
        assert_eq!(fs::read_to_string(&refused).expect("it is here"), "kept");
        assert_eq!(fs::read_to_string(machine.mountpoint().join("half")).expect("it is here"), "half of it");
    }
    open.finish(" and the rest");
    eventually("the rest is stored", || machine.object("p/half").as_deref() == Some(&b"half of it and the rest"[..]));
    assert_eq!(machine.object("p/refused"), None);
    machine.server().clear_faults();
    kill(mount.pid(), libc::SIGTERM);
    mount.await_end();
    assert_eq!(machine.object("p/refused").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn sigusr1_in_the_middle_of_reads_and_writes_changes_no_byte() {
    let machine = Machine::new();
    let log = Log::of(&machine);
    let mount = machine.mount(&["--log-file", log.path()]);
    let large: Vec<u8> =
        (0..6_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    machine.server().bucket("bucket").put("p/large", large.clone());
    let reading = {
        let path = machine.mountpoint().join("large");
        std::thread::spawn(move || (0..2).for_each(|_| assert!(fs::read(&path).expect("read") == large, "other bytes")))
    };
    let writing = {
        let dir = machine.mountpoint();
        std::thread::spawn(move || {
            for number in 0..30_u32 {
                let (path, bytes) = (dir.join(format!("f{}", number % 7)), number.to_string().repeat(10_000));
                fs::write(&path, &bytes).expect("stored");
                assert!(fs::read_to_string(&path).expect("read") == bytes, "other bytes than were written");
            }
        })
    };
    let mut signals = 0;
    while !(reading.is_finished() && writing.is_finished()) {
        log.answers(&mount, libc::SIGUSR1, DROPPED);
        signals += 1;
    }
    reading.join().expect("read");
    writing.join().expect("written");
    assert!(signals > 1, "{signals}");
    for number in 23..30_u32 {
        let stored = machine.object(&format!("p/f{}", number % 7)).expect("stored");
        assert!(stored == number.to_string().repeat(10_000).as_bytes(), "other bytes are stored");
    }
    mount.end();
}

#[test]
fn signals_that_ask_are_ignored_while_it_mounts() {
    let machine = Machine::new();
    let log = Log::of(&machine);
    machine.server().set_shape(Shape { first_byte: Duration::from_secs(1), ..Shape::default() });
    let mut caller = machine.command("s3://bucket/p", &["--log-file", log.path()]).spawn().expect("the program starts");
    eventually("caller and daemon run", || machine.daemons().len() == 2);
    for pid in machine.daemons() {
        [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP].into_iter().for_each(|signal| kill(pid, signal));
    }
    let status = caller.wait().expect("a child of ours");
    assert!(status.success(), "{status}: {}", log.text());
    assert_eq!(fs::read_to_string(machine.mountpoint().join("hello")).expect("it can be used"), "hello from S3");
    machine.mounted().end();
}

#[test]
fn signals_that_ask_end_nothing_while_it_ends() {
    let machine = Machine::new();
    let log = Log::of(&machine);
    let mut command = machine.command("s3://bucket/p", &["-f", "--commit", "async", "--log-file", log.path()]);
    let mut daemon = command.stderr(Stdio::null()).spawn().expect("the program starts");
    let pid = daemon.id() as i32;
    eventually("it is mounted", || log.count("is mounted on") == 1);
    machine.server().set_shape(Shape { first_byte: Duration::from_secs(1), ..Shape::default() });
    fs::write(machine.mountpoint().join("new"), "written").expect("it is closed");
    kill(pid, libc::SIGTERM);
    eventually("it ends", || log.count("SIGTERM: committing") == 1);
    let mut status = None;
    eventually("it has ended", || {
        [libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP].into_iter().for_each(|signal| kill(pid, signal));
        status = daemon.try_wait().expect("a child of ours");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}: {}", log.text());
    assert_eq!(machine.table(), None);
    assert_eq!(machine.object("p/new").as_deref(), Some(&b"written"[..]));
}

#[test]
fn sighup_opens_the_log_file_again_and_ends_nothing() {
    let machine = Machine::new();
    fs::create_dir(machine.path("logs")).expect("a directory");
    let log = Log(machine.path("logs/log"));
    // In the foreground too: the terminal may go.
    let mut command = machine.command("s3://bucket/p", &["--foreground", "--log-file", log.path()]);
    let mut daemon = command.stderr(Stdio::null()).spawn().expect("the program starts");
    eventually("it is mounted", || log.count("is mounted on") == 1);
    let mount = machine.mounted();
    let moved = Log(machine.path("logs/log.1"));
    fs::rename(&log.0, &moved.0).expect("moved");
    log.answers(&mount, libc::SIGHUP, REOPENED);
    assert_eq!((moved.count("is mounted on"), log.count("is mounted on")), (1, 0));

    // Where it can't be made, the one that is open stays, and says so.
    fs::rename(machine.path("logs"), machine.path("away")).expect("moved");
    let away = Log(machine.path("away/log"));
    away.answers(&mount, libc::SIGHUP, "can't be opened again, this one stays");
    away.answers(&mount, libc::SIGUSR1, DROPPED);

    fs::create_dir(machine.path("logs")).expect("a directory");
    log.answers(&mount, libc::SIGHUP, REOPENED);
    machine.unmount();
    let status = daemon.wait().expect("a child of ours");
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(log.count("unmounted from outside"), 1, "{}", log.text());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&log.0).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn sigusr2_shows_more_in_the_log_and_goes_back() {
    let machine = Machine::new();
    let log = Log::of(&machine);
    let mount = machine.mount(&["--log-file", log.path(), "--log-level", "error", "--negative-ttl", "0"]);
    let logged = || {
        let before = log.count("answered with an error");
        // A name that is not there is told of at the level debug.
        assert!(fs::metadata(machine.mountpoint().join("none")).is_err());
        log.count("answered with an error") > before
    };
    assert!(!logged());
    for _ in 0..2 {
        for (level, shown) in [("debug", true), ("trace", true), ("error", false)] {
            log.answers(&mount, libc::SIGUSR2, &format!("{LEVEL} {level}"));
            eventually(level, || logged() == shown);
        }
    }
    mount.end();
}

#[test]
fn sigusr2_does_nothing_where_there_is_no_log() {
    let machine = Machine::new();
    let mount = machine.mount(&[]);
    [libc::SIGUSR2, libc::SIGUSR1, libc::SIGUSR2].into_iter().for_each(|signal| kill(mount.pid(), signal));
    fs::write(machine.mountpoint().join("new"), "written").expect("it works");
    assert_eq!(machine.object("p/new").as_deref(), Some(&b"written"[..]));
    mount.end();
}
