//! What files that `crash_files.py` has changed may be after a crash.
//!
//! Owns the model: for each file what it has, what close or fsync has acknowledged, and what it may have become since.
//!
//! One case allows less than all in S3. With `commit=async` a file that was closed, could not be stored and is being written again
//! is kept as one that is open (`commit` in pailfs(7)). Then its object may be older, and `pailfs recover` must have what was
//! acknowledged, with what was written to it since; unless the program itself has emptied or removed it since.

use std::collections::BTreeMap;

use crate::crash_loads::{Crash, Crashed, PYTHON};

/// What a file may have.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Absent,
    /// These bytes.
    Is(Vec<u8>),
    /// These bytes, with none, the first of, or all of others written over them at an offset: a write that failed.
    Maybe(Vec<u8>, usize, Vec<u8>),
}

impl State {
    fn bytes(&self) -> Vec<u8> {
        match self {
            State::Absent => Vec::new(),
            State::Is(bytes) | State::Maybe(bytes, ..) => bytes.clone(),
        }
    }

    fn allows(&self, found: Option<&[u8]>) -> bool {
        match (self, found) {
            (State::Absent, None) => true,
            (State::Is(bytes), Some(found)) => bytes == found,
            (State::Maybe(bytes, at, data), Some(found)) => {
                let taken = found.get(*at..).unwrap_or_default().iter().zip(data).take_while(|(a, b)| a == b).count();
                written(bytes, *at, &data[..taken]) == found || bytes == found
            }
            _ => false,
        }
    }
}

fn written(bytes: &[u8], at: usize, data: &[u8]) -> Vec<u8> {
    let mut all = bytes.to_vec();
    if !data.is_empty() {
        all.resize(all.len().max(at + data.len()), 0);
        all[at..at + data.len()].copy_from_slice(data);
    }
    all
}

/// A file of the program.
#[derive(Debug)]
struct Model {
    /// One of these it has now.
    now: Vec<State>,
    /// One of these was acknowledged last.
    stored: Vec<State>,
    /// What it may have become in S3 since.
    pending: Vec<State>,
    /// What it was at any time since, in S3 or not.
    since: Vec<State>,
    /// What was ever to be stored.
    ever: Vec<State>,
    /// An acknowledged file whose rename to this name has failed or was under way: it may be there instead.
    moved_to: Option<String>,
}

impl Model {
    fn new() -> Self {
        let absent = vec![State::Absent];
        Model {
            now: absent.clone(),
            stored: absent.clone(),
            pending: Vec::new(),
            since: absent.clone(),
            ever: absent,
            moved_to: None,
        }
    }

    fn become_one_of(&mut self, states: Vec<State>) {
        self.since.extend(states.iter().cloned());
        self.now = states;
    }

    /// A commit that failed or has not ended: each of these may be what it stores.
    fn may_be_stored(&mut self, states: &[State]) {
        self.pending.extend_from_slice(states);
        self.ever.extend_from_slice(states);
        self.since.extend_from_slice(states);
    }

    fn is_new_and_empty(&self) -> bool {
        self.stored == [State::Absent] && self.now.iter().any(|state| state.bytes().is_empty())
    }

    fn is_stored(&mut self) {
        self.ever.extend(self.now.iter().cloned());
        self.stored = self.now.clone();
        self.since = self.now.clone();
        self.pending.clear();
    }
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Ok(usize),
    Failed,
    /// The mount was killed before.
    Unknown,
}

type Models = BTreeMap<String, Model>;

fn pattern(worker: u64, write: u64, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..=length / 16).flat_map(|line| format!("{worker:02}{write:05}{line:08}\n").into_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// What one call makes of the files.
fn apply(models: &mut Models, worker: u64, words: &[&str], outcome: Outcome) {
    let name = words[1];
    let number = |index: usize| words[index].parse::<usize>().expect("a number");
    let model = models.entry(name.to_owned()).or_insert_with(Model::new);
    match (words[0], outcome) {
        ("open", Outcome::Ok(_)) => {
            let empty = |state: &State| words[2] == "new" || *state == State::Absent;
            let opened = |state: &State| if empty(state) { State::Is(Vec::new()) } else { state.clone() };
            model.become_one_of(model.now.iter().map(opened).collect());
        }
        // It may have been opened, and closed when nobody wanted the answer.
        ("open", Outcome::Failed) => model.may_be_stored(&[State::Is(Vec::new())]),
        ("write", Outcome::Ok(taken)) => {
            let (at, data) = (number(3), pattern(worker, number(2) as u64, number(4)));
            let write = |state: &State| State::Is(written(&state.bytes(), at, &data[..taken]));
            model.become_one_of(model.now.iter().map(write).collect());
        }
        ("write", Outcome::Failed | Outcome::Unknown) => {
            let (at, data) = (number(3), pattern(worker, number(2) as u64, number(4)));
            let write = |state: &State| State::Maybe(state.bytes(), at, data.clone());
            model.become_one_of(model.now.iter().map(write).collect());
        }
        ("cut", outcome) => {
            let cut = |state: &State| {
                let mut bytes = state.bytes();
                bytes.resize(number(2), 0);
                State::Is(bytes)
            };
            let mut states: Vec<_> = model.now.iter().map(cut).collect();
            if outcome != Outcome::Ok(0) {
                states.extend(model.now.iter().cloned());
            }
            model.become_one_of(states);
        }
        // A new file that was never written is stored after its close.
        ("close", Outcome::Ok(_)) if model.is_new_and_empty() => model.may_be_stored(&model.now.clone()),
        ("sync" | "close", Outcome::Ok(_)) => model.is_stored(),
        ("sync" | "close", _) => model.may_be_stored(&model.now.clone()),
        ("remove", Outcome::Ok(_)) => {
            model.become_one_of(vec![State::Absent]);
            model.is_stored();
        }
        ("remove", _) => model.may_be_stored(&[State::Absent]),
        ("move", outcome) => {
            let (moved, was_ever) = (model.now.clone(), model.ever.clone());
            if outcome == Outcome::Ok(0) {
                // A store that denies the condition of the delete says that another writer's object is there now: it stays.
                model.become_one_of(vec![State::Absent]);
                model.is_stored();
                model.may_be_stored(&moved);
            } else {
                model.moved_to = Some(words[2].to_owned());
                model.may_be_stored(&[State::Absent]);
            }
            let target = models.entry(words[2].to_owned()).or_insert_with(Model::new);
            if outcome == Outcome::Ok(0) {
                target.ever.extend(was_ever);
                target.become_one_of(moved);
                target.is_stored();
            } else {
                target.may_be_stored(&moved);
            }
        }
        ("open", Outcome::Unknown) => {}
        _ => panic!("{words:?}"),
    }
}

/// Replays what one program told.
fn replay(models: &mut Models, worker: u64, told: &str) {
    let mut lines = told.lines().peekable();
    while let Some(line) = lines.next() {
        let words: Vec<_> = line.split(' ').collect();
        match words[0] {
            "try" => {
                let next = lines.next().map(|line| line.split(' ').collect::<Vec<_>>());
                let outcome = match next.as_deref() {
                    Some(["ok", number]) if words[1] == "write" => Outcome::Ok(number.parse().expect("a number")),
                    Some(["ok", ..]) => Outcome::Ok(0),
                    Some(["failed", ..]) => Outcome::Failed,
                    _ => Outcome::Unknown,
                };
                apply(models, worker, &words[1..], outcome);
            }
            "end" => {}
            _ => panic!("a wrong byte was read: {line}"),
        }
    }
}

/// Programs at work at once.
const WORKERS: u64 = 3;

/// Files changed in all ways by several programs, each with its own.
#[track_caller]
pub fn files(crash: Crash, largest: usize, turns: u64) {
    let seed = crash.seed;
    let programs: String = (0..WORKERS)
        .map(|worker| {
            format!("$LOCAL/python $LOCAL/files.py {worker} {seed} {largest} {turns} 2> $LOCAL/error{worker} & ")
        })
        .collect();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/crash_files.py");
    let crashed = crash.run(&format!("{programs}wait"), &format!("cp {source} $LOCAL/files.py; {PYTHON}"));
    judge(crashed);
}

#[track_caller]
fn judge(mut crashed: Crashed) {
    let mut models = Models::new();
    for worker in 0..WORKERS {
        let local = crashed.mount.local();
        let told = std::fs::read_to_string(local.join(format!("done{worker}"))).unwrap_or_default();
        replay(&mut models, worker, &told);
        let mut refusals = BTreeMap::<&str, u32>::new();
        told.lines().filter_map(|line| line.strip_prefix("failed ")).for_each(|e| *refusals.entry(e).or_default() += 1);
        eprintln!(
            "{worker}: {} calls, failed by errno: {refusals:?}",
            told.lines().filter(|l| l.starts_with("try ")).count()
        );
        let error = std::fs::read_to_string(local.join(format!("error{worker}"))).unwrap_or_default();
        assert!(!error.contains("Traceback"), "{error}");
    }
    let names: Vec<_> = models.keys().cloned().collect();
    let read = |name: &String| (name.clone(), std::fs::read(crashed.mount.path(name)).ok());
    let seen: BTreeMap<_, _> = names.iter().map(read).collect();
    crashed.mount.unmount();
    let there = crashed.server.objects().files();
    let stray: Vec<_> = there.iter().filter(|name| !models.contains_key(*name)).collect();
    assert!(stray.is_empty(), "nobody left such a file: {stray:?}");
    for (name, model) in &models {
        let found = crashed.server.objects().get(name);
        assert!(found == seen[name], "{name} reads otherwise than it is stored");
        let allows = |states: &[State], found: Option<&[u8]>| states.iter().any(|state| state.allows(found));
        if allows(&model.stored, found.as_deref()) || allows(&model.pending, found.as_deref()) {
            let is_lost = found.is_none() && model.moved_to.is_some();
            let moved_to = model.moved_to.as_ref().and_then(|to| crashed.server.objects().get(to));
            assert!(!is_lost || allows(&model.stored, moved_to.as_deref()), "{name} was moved to nowhere");
            continue;
        }
        let kept = if crashed.is_async { crashed.kept(name) } else { Vec::new() };
        let is_kept = kept.iter().any(|kept| allows(&model.since, Some(kept)));
        let was_emptied = allows(&model.since, None) || allows(&model.since, Some(b""));
        assert!(
            crashed.is_async && allows(&model.ever, found.as_deref()) && (is_kept || was_emptied),
            "{name} is lost or torn.\nfound: {}\nkept: {:?}\nacknowledged: {:?}\nor since: {:?}\never: {:?}\nrecover: {}",
            told(found.as_deref()),
            kept.iter().map(|kept| told(Some(kept))).collect::<Vec<_>>(),
            model.stored.iter().map(told_state).collect::<Vec<_>>(),
            model.pending.iter().map(told_state).collect::<Vec<_>>(),
            model.ever.iter().map(told_state).collect::<Vec<_>>(),
            crashed.mount.recover(&[]).1
        );
        eprintln!("{name} is kept for recover");
    }
}

fn told_state(state: &State) -> String {
    match state {
        State::Absent => told(None),
        State::Is(bytes) => told(Some(bytes)),
        State::Maybe(bytes, at, data) => format!("{}, maybe with {} at {at}", told(Some(bytes)), told(Some(data))),
    }
}

/// Which lines of which writes.
fn told(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "nothing".to_owned() };
    let mut runs: Vec<(String, usize)> = Vec::new();
    for line in bytes.chunks(16) {
        let write = String::from_utf8_lossy(line.get(..7).unwrap_or(line)).into_owned();
        match runs.last_mut() {
            Some((last, lines)) if *last == write => *lines += 1,
            _ => runs.push((write, 1)),
        }
    }
    runs.truncate(12);
    format!("{} bytes {runs:?}", bytes.len())
}
