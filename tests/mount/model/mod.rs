//! Random operations on a real mount and on a plain model in memory: every answer, and at the end every name, byte,
//! size and mode, must be the same, here, in the bucket and after a remount.
//!
//! `PAILFS_MODEL_SECONDS` says how long to look (10 by default) and `PAILFS_MODEL_SEED` from where. The model itself
//! is held against a plain directory first, so that it is no second opinion of the same author.

mod operation;
mod real;
mod reference;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pailfs::demo::{Fault, FaultKind};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::common::{Mount, Objects, TestServer, holds_within};
use operation::{Operation, copies, operations};
use real::Real;
use reference::{Answer, Reference};

/// How long one test looks for a difference.
fn duration() -> Duration {
    let seconds = std::env::var("PAILFS_MODEL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

fn seed() -> u64 {
    let given = std::env::var("PAILFS_MODEL_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    given.unwrap_or(now.as_nanos() as u64)
}

/// What stores something.
const WRITES: [pailfs::demo::Operation; 5] = {
    use pailfs::demo::Operation::*;
    [PutObject, CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload]
};

/// A place where operations are done.
trait World {
    /// A new empty directory for one case, and the prefix of its objects.
    fn fresh(&mut self) -> (PathBuf, String);
    /// Everything is closed: forget what is cached.
    fn restart(&mut self);
    /// From now on the store refuses what would store something of a case; false where none can be told to.
    fn refuse(&self, prefix: &str) -> bool;
    /// The store takes everything again.
    fn take(&self);
    /// What is stored of a case, if that can be asked.
    fn objects(&self) -> Option<&Objects>;
}

/// Looks for a sequence of operations whose answers differ, and shrinks it.
#[track_caller]
fn look_for_a_difference(world: &mut dyn World, limit: Duration, sequences: &impl Strategy<Value = Vec<Operation>>) {
    let (seed, start) = (seed(), Instant::now());
    let mut cases = 0u64;
    while start.elapsed() < limit {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&cases.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config {
            cases: 1,
            max_shrink_iters: 300,
            max_shrink_time: 60_000,
            failure_persistence: None,
            ..Config::default()
        };
        let outer = std::cell::RefCell::new(&mut *world);
        let result = TestRunner::new_with_rng(config, rng)
            .run(sequences, |sequence| one_case(&mut **outer.borrow_mut(), &sequence).map_err(TestCaseError::fail));
        match result {
            Ok(()) => cases += 1,
            Err(TestError::Fail(why, sequence)) => {
                let steps: Vec<_> = sequence.iter().map(|step| format!("  {step:?}")).collect();
                panic!("PAILFS_MODEL_SEED={seed}, case {cases}: {why}\nafter\n{}", steps.join("\n"));
            }
            Err(TestError::Abort(why)) => panic!("PAILFS_MODEL_SEED={seed}, case {cases}: {why}"),
        }
    }
    println!("{cases} sequences agree (PAILFS_MODEL_SEED={seed})");
}

fn one_case(world: &mut dyn World, sequence: &[Operation]) -> Result<(), String> {
    let (root, prefix) = world.fresh();
    let mut real = Real::new(root);
    let mut reference = Reference::default();
    for (number, operation) in sequence.iter().enumerate() {
        if matches!(operation, Operation::Restart) {
            real.close_all();
            world.restart();
        }
        let differ = |wanted, found| format!("step {number}, {operation:?}: wanted {wanted:?}, found {found:?}");
        if let Operation::WriteUnstored { slot, at, len, seed } = *operation {
            let write = Operation::Write { slot, at, len, seed };
            let (wanted, found) = (reference.apply(&write), real.apply(&write));
            if wanted != found {
                return Err(differ(wanted, found));
            }
            if wanted != Answer::Done {
                continue;
            }
            let refused = world.refuse(&prefix);
            let (wanted, found) = (reference.sync_in_vain(slot), real.sync_in_vain(slot, refused));
            world.take();
            if wanted != found {
                return Err(differ(wanted, found));
            }
            continue;
        }
        let (wanted, found) = (reference.apply(operation), real.apply(operation));
        if wanted != found {
            return Err(differ(wanted, found));
        }
    }
    real.close_all();
    reference.close_all();
    compare(&reference, &real, "at the end")?;
    if let Some(objects) = world.objects() {
        // An empty file that was never written is stored at its release, which close(2) does not wait for.
        let mut difference = Ok(());
        holds_within(Duration::from_secs(20), || {
            difference = compare_objects(&reference, objects, &prefix);
            difference.is_ok()
        });
        difference?;
    }
    if sequence.len().is_multiple_of(4) {
        world.restart();
        compare(&reference, &real, "after a restart")?;
    }
    Ok(())
}

fn compare(reference: &Reference, real: &Real, when: &str) -> Result<(), String> {
    let (wanted, found) = (reference.tree(), real.tree()?);
    let differing = wanted.iter().find(|(path, entry)| found.get(*path) != Some(entry));
    if let Some((path, entry)) = differing {
        return Err(format!("{when}, {path:?}: wanted {entry:?}, found {:?}", found.get(path)));
    }
    match found.keys().find(|path| !wanted.contains_key(*path)) {
        Some(path) => Err(format!("{when}, {path:?} should not be there")),
        None => Ok(()),
    }
}

fn compare_objects(reference: &Reference, objects: &Objects, prefix: &str) -> Result<(), String> {
    let mut stored: Vec<_> =
        objects.files().into_iter().filter_map(|key| Some(key.strip_prefix(prefix)?.to_owned())).collect();
    for (path, bytes) in reference.files() {
        let object = objects.get(&format!("{prefix}{path}")).ok_or_else(|| format!("no object of {path}"))?;
        if object != bytes {
            return Err(format!("the object of {path} has {} bytes, not the {} written", object.len(), bytes.len()));
        }
        stored.retain(|there| *there != path);
    }
    if stored.is_empty() { Ok(()) } else { Err(format!("objects too many: {stored:?}")) }
}

/// A plain directory: what the model is held against.
struct Plain {
    dir: tempfile::TempDir,
    count: u32,
}

impl World for Plain {
    fn fresh(&mut self) -> (PathBuf, String) {
        self.count += 1;
        let root = self.dir.path().join(format!("case-{}", self.count));
        std::fs::create_dir(&root).expect("a directory for a case");
        // New files get the group of who makes them, and not that of the directory.
        let (uid, gid) = reference::me();
        std::os::unix::fs::chown(&root, Some(uid), Some(gid)).expect("it is ours");
        std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
        (root, String::new())
    }
    fn restart(&mut self) {}
    fn refuse(&self, _: &str) -> bool {
        false
    }
    fn take(&self) {}
    fn objects(&self) -> Option<&Objects> {
        None
    }
}

/// A mount.
struct Mounted {
    mount: Mount,
    server: TestServer,
    count: u32,
}

impl Mounted {
    /// How often S3 copied something by itself: a test that has none of that looks at less than it should.
    fn tell_copies(&self) {
        if self.server.kind() == "demo" {
            let counters = self.server.demo().counters();
            let count = |operation| counters.requests(operation);
            let (parts, files) =
                (count(pailfs::demo::Operation::UploadPartCopy), count(pailfs::demo::Operation::CopyObject));
            println!("{parts} parts and {files} objects were copied within S3");
        }
    }
}

impl World for Mounted {
    fn fresh(&mut self) -> (PathBuf, String) {
        self.count += 1;
        let name = format!("case-{}", self.count);
        std::fs::create_dir(self.mount.path(&name)).expect("a directory for a case");
        (self.mount.path(&name), format!("{name}/"))
    }
    fn restart(&mut self) {
        self.mount.remount();
    }
    fn refuse(&self, prefix: &str) -> bool {
        // No server outside can be told to, and need not be called lacking for that.
        if self.server.kind() != "demo" {
            return false;
        }
        let answer = FaultKind::Answer { status: 403, code: "AccessDenied".to_owned() };
        let prefix = self.server.key(prefix);
        for operation in WRITES {
            self.server.demo().add_fault(Fault::new(answer.clone()).on(operation).key(prefix.as_str()));
        }
        true
    }
    fn take(&self) {
        if self.server.kind() == "demo" {
            self.server.demo().clear_faults();
        }
    }
    fn objects(&self) -> Option<&Objects> {
        Some(self.server.objects())
    }
}

#[test]
fn the_model_agrees_with_a_plain_directory() {
    let mut plain = Plain { dir: tempfile::tempdir().expect("a directory"), count: 0 };
    let limit = duration().min(Duration::from_secs(5));
    look_for_a_difference(&mut plain, limit, &operations());
    look_for_a_difference(&mut plain, limit, &copies());
}

#[test]
fn a_mount_agrees_with_the_model() {
    let server = TestServer::start();
    let mount = server.mount();
    let mut mounted = Mounted { mount, server, count: 0 };
    look_for_a_difference(&mut mounted, duration(), &operations());
    mounted.tell_copies();
}

#[test]
fn a_mount_that_believes_nothing_agrees_with_the_model() {
    let server = TestServer::start();
    let mount = server.mount_with(&["noac", "negative_ttl=0", "part_size=5MiB", "read_ahead=0"]);
    let mut mounted = Mounted { mount, server, count: 0 };
    look_for_a_difference(&mut mounted, duration(), &operations());
    mounted.tell_copies();
}

#[test]
fn a_mount_that_stores_meanwhile_agrees_with_the_model() {
    let server = TestServer::start();
    let mount = server.mount_with(&["commit=async"]);
    let mut mounted = Mounted { mount, server, count: 0 };
    look_for_a_difference(&mut mounted, duration(), &operations());
    mounted.tell_copies();
}

#[test]
fn a_mount_that_copies_large_files_agrees_with_the_model() {
    let server = TestServer::start();
    let mount = server.mount();
    let mut mounted = Mounted { mount, server, count: 0 };
    look_for_a_difference(&mut mounted, duration(), &copies());
    mounted.tell_copies();
}
