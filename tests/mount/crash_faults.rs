//! SIGKILL while the store fails, and while the stage runs full: the loads of `crash_loads` and `crash_files`, with what those
//! demand, under a store that on every kind of call fails, is overloaded, loses replies, never answers, denies conditions that
//! hold, and breaks off in the middle of a body. It works again after the kill. In some rounds nothing is killed, and the load and the
//! mount must come to their ends once the store works: nothing hangs.
//!
//! What is drawn follows from a seed, which a failure prints. `PAILFS_TEST_CRASH_SEED` gives one; the order of the requests is
//! not the seed's. `PAILFS_TEST_CRASH_ROUNDS` says how often: each load is run in half as many rounds.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{TestServer, has_program, noise, skipped, test_name};
use crate::crash_files;
use crate::crash_loads::{self, COMMITS, Crash, End, rounds};
use crate::promises::SmallDisk;

/// Longer than a client waits for an answer.
const FOR_EVER: Duration = Duration::from_secs(45);

/// Requests that change objects.
const CHANGES: [Operation; 4] =
    [Operation::PutObject, Operation::CompleteMultipartUpload, Operation::CopyObject, Operation::DeleteObject];

/// Numbers that follow from a seed.
struct Choice(Vec<u8>);

impl Choice {
    fn of(seed: u64) -> Self {
        Choice(noise(seed.wrapping_add(1), 8192))
    }

    /// Less than `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        let rest = self.0.split_off(self.0.len() - 8);
        u64::from_le_bytes(rest.try_into().expect("8 bytes")) % limit
    }
}

/// Says with a failure how to see it again.
struct Round(u64);

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was PAILFS_TEST_CRASH_SEED={} PAILFS_TEST_CRASH_ROUNDS=1", self.0);
        }
    }
}

fn first_seed() -> u64 {
    let given = std::env::var("PAILFS_TEST_CRASH_SEED").ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    given.unwrap_or_else(|| now().as_millis() as u64)
}

fn answer(status: u16, code: &str) -> FaultKind {
    FaultKind::Answer { status, code: code.to_owned() }
}

fn answer_after(status: u16, code: &str) -> FaultKind {
    FaultKind::ApplyThenAnswer { status, code: code.to_owned() }
}

/// Faults on every kind of call, of every kind.
fn storm(server: &TestServer, seed: u64, is_patient: bool) {
    let mut choice = Choice::of(seed ^ 0x5707);
    let strength = [0.3, 1.0, 3.0][choice.below(3) as usize];
    let demo = server.demo();
    let often = |fault: Fault, share: f64| demo.add_fault(fault.probability(share * strength));
    // Storms of refusals, as long as a request is repeated and longer, on one kind of call and on all.
    for _ in 0..choice.below(4) {
        let burst = Fault::new(answer(503, "SlowDown")).skip(20 + choice.below(150)).times(5 + choice.below(60));
        let on = [None, Some(Operation::PutObject), Some(Operation::HeadObject), Some(Operation::UploadPart)];
        demo.add_fault(on[choice.below(4) as usize].iter().fold(burst, |burst, operation| burst.on(*operation)));
    }
    for operation in CHANGES {
        often(Fault::new(FaultKind::ApplyThenDrop).on(operation), 0.03);
        often(Fault::new(answer_after(500, "InternalError")).on(operation), 0.02);
        often(Fault::new(answer_after(412, "PreconditionFailed")).on(operation), 0.02);
        often(Fault::new(answer_after(409, "ConditionalRequestConflict")).on(operation), 0.02);
        often(Fault::new(answer(412, "PreconditionFailed")).on(operation), 0.02);
        often(Fault::new(answer(409, "ConditionalRequestConflict")).on(operation), 0.02);
    }
    for after in [0, 1, 1000, 100_000] {
        often(Fault::new(FaultKind::CutBody { after }).on(Operation::GetObject), 0.03);
    }
    often(Fault::new(FaultKind::WrongRange).on(Operation::GetObject), 0.01);
    for kind in [
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        answer(403, "AccessDenied"),
        answer(409, "OperationAborted"),
        answer(412, "PreconditionFailed"),
        FaultKind::DropBeforeApply,
        FaultKind::ApplyThenDrop,
        FaultKind::Silence { applied: true, pause: Duration::from_millis(300) },
    ] {
        often(Fault::new(kind), 0.01);
    }
    if is_patient {
        for applied in [true, false] {
            often(Fault::new(FaultKind::Silence { applied, pause: FOR_EVER }), 0.003);
        }
    }
}

/// One crash under a storm.
fn stormy(seed: u64, most: u64) -> Option<Crash> {
    let server = TestServer::simulated(seed)?;
    let mut choice = Choice::of(seed);
    let (commit, latency) = match choice.below(2) {
        0 => (COMMITS[0], 3),
        _ => (COMMITS[1], [3, 30, 200][choice.below(3) as usize]),
    };
    let latency = Duration::from_millis(latency);
    let (enough, limit) = (1 + choice.below(most), Duration::from_millis(300 + choice.below(8000)));
    let is_killed = choice.below(4) > 0;
    let end = if is_killed { End::Kill(enough, limit) } else { End::Alone(enough, limit) };
    // Who waits for the end of the load waits for each of these; that is for those who have asked for many rounds.
    let is_patient = is_killed || rounds() > 4;
    let storm = Box::new(move |server: &TestServer| storm(server, seed, is_patient));
    let options = vec![commit, "part_size=5MiB"];
    Some(Crash { server, options, stage: None, end, latency, storm: Some(storm), relief: None, seed })
}

#[track_caller]
fn each_round(crash: impl Fn(u64) -> Option<Crash>, load: impl Fn(Crash)) {
    let first = first_seed();
    for seed in (first..).take(rounds().div_ceil(2) as usize) {
        let _round = Round(seed);
        let Some(crash) = crash(seed) else { return };
        load(crash);
    }
}

#[test]
fn files_that_cp_had_finished_survive_kills_and_a_store_that_fails() {
    each_round(|seed| stormy(seed, 50), crash_loads::cp);
}

#[test]
fn files_that_tar_had_finished_survive_kills_and_a_store_that_fails() {
    each_round(|seed| stormy(seed, 60), crash_loads::tar);
}

#[test]
fn lines_that_were_appended_survive_kills_and_a_store_that_fails() {
    each_round(|seed| stormy(seed, 60), crash_loads::append);
}

#[test]
fn transactions_that_sqlite_had_committed_survive_kills_and_a_store_that_fails() {
    if has_program("python3") {
        each_round(|seed| stormy(seed, 40), crash_loads::sqlite);
    }
}

#[test]
fn all_that_was_acknowledged_survives_kills_and_a_store_that_fails() {
    if has_program("python3") {
        each_round(|seed| stormy(seed, 800), |crash| crash_files::files(crash, 6_000_000, 40));
    }
}

/// The disk is full after some MiB: the others are taken by a file of somebody else, or not.
#[test]
fn all_that_was_acknowledged_survives_kills_and_a_stage_that_runs_full() {
    if !has_program("python3") {
        return;
    }
    let Some(disk) = SmallDisk::of_mib(64).map(Rc::new) else {
        return skipped(&test_name(), "a small file system can only be mounted by root");
    };
    let full = |seed| {
        let mut crash = stormy(seed, 250)?;
        let others = if seed % 4 == 0 { 0 } else { 64 - 4 - seed as usize % 8 };
        disk.resize(64);
        std::fs::write(disk.path().join("others"), vec![9; others << 20]).expect("room");
        let grown = disk.clone();
        crash.relief = Some(Box::new(move || grown.resize(512)));
        crash.options.push("stage_min_free=0");
        crash.stage = Some(disk.path().join("stage"));
        // Where the store works well, too.
        crash.storm = crash.storm.filter(|_| seed % 2 == 0);
        Some(crash)
    };
    each_round(full, |crash| {
        let largest = if crash.seed % 4 == 0 { 30_000_000 } else { 4_000_000 };
        crash_files::files(crash, largest, 40);
        std::fs::remove_dir_all(disk.path().join("stage")).expect("removed");
    });
}
