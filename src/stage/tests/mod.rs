//! Staged files against a naive model, and what sessions leave behind.
//!
//! Owns a stage in a temporary place, and sessions that die in it. What a restart of the machine leaves is in `restarts`.

mod restarts;
mod space;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::types::{ByteRange, ETag, Expect, ObjectKey, Version};

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { root: tempfile::tempdir().expect("a temporary directory") }
    }

    fn open(&self) -> (Stage, Vec<Leftover>) {
        Stage::open(&self.root.path().join("stage"), "s3://bucket/prefix/").expect("the stage opens")
    }
}

fn record(state: RecordState) -> Record {
    Record {
        key: ObjectKey::from_store("p/file"),
        base: None,
        expect: Expect::Absent,
        state,
        size: 5,
        attributes: RecordAttributes { metadata: BTreeMap::from([("a".into(), "b".into())]), ..Default::default() },
        upload_id: None,
        upload_mark: None,
        away: Vec::new(),
    }
}

/// What a killed process leaves: files kept, and the lock given up.
fn die_leaving(place: &Place, content: &[u8], state: Option<RecordState>) {
    let (stage, _) = place.open();
    let file = stage.new_file().expect("a staged file");
    file.write_at(0, content).expect("written");
    if let Some(state) = state {
        file.record(&record(state)).expect("recorded");
    }
    file.keep();
}

#[test]
fn bytes_that_are_let_go_of_are_missing_here_and_in_the_record_and_are_never_read_as_zeros() {
    const MIB: u64 = 1 << 20;
    let place = Place::new();
    {
        let (stage, _) = place.open();
        let file = stage.new_file().expect("a staged file");
        file.write_at(0, &vec![1; 20 << 20]).expect("written");
        file.clean();
        file.record(&record(RecordState::Open)).expect("recorded");
        file.write_at(7 * MIB, b"changed").expect("written");
        assert_eq!(file.let_go_of_unchanged(20 * MIB).expect("it goes"), 5 * MIB - 7, "5 MiB beside a change stay");
        assert!(matches!(file.read_at(2 * MIB - 1, 1), Err(Error::NotReadableYet)));
        let gone = [ByteRange::new(0, 2 * MIB), ByteRange::new(12 * MIB + 7, 15 * MIB)];
        assert_eq!(file.missing(ByteRange::new(0, 20 * MIB)), gone);
        assert_eq!(file.read_at(7 * MIB, 7).expect("it is here")[..], b"changed"[..]);
        assert_eq!(stage.taken(), 15 * MIB + 7);
        file.keep();
    }
    let (_, left) = place.open();
    let present = match &left[..] {
        [left] => left.present.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(present, [ByteRange::new(2 * MIB, 12 * MIB + 7), ByteRange::new(15 * MIB, 20 * MIB)]);
}

#[test]
fn a_live_session_is_left_alone() {
    let place = Place::new();
    let (first, _) = place.open();
    let file = first.new_file().expect("a staged file");
    file.write_at(0, b"hello").expect("written");
    let (second, leftovers) = place.open();
    assert!(leftovers.is_empty());
    assert_ne!(first.dir(), second.dir());
    assert_eq!(file.read_at(0, 9).expect("read"), "hello");
}

#[test]
fn a_dead_session_with_data_is_told_and_kept() {
    let place = Place::new();
    die_leaving(&place, b"hello", Some(RecordState::Sealed));
    for _ in 0..2 {
        let (_stage, leftovers) = place.open();
        assert_eq!(leftovers.len(), 1);
        let left = &leftovers[0];
        assert_eq!(left.record, Ok(record(RecordState::Sealed)));
        assert_eq!((left.size, left.sealed, left.key.clone()), (5, true, Some(ObjectKey::from_store("p/file"))));
        assert_eq!(left.present, [ByteRange::new(0, 5)]);
        assert_eq!(std::fs::read(&left.file).expect("readable"), b"hello");
    }
}

#[test]
fn a_dead_session_is_taken_by_one_process_at_a_time() {
    let place = Place::new();
    die_leaving(&place, b"hello", Some(RecordState::Sealed));
    let (_first, leftovers) = place.open();
    assert_eq!(leftovers.len(), 1);
    assert_eq!(place.open().1.len(), 0, "two took the same file");
    let opened = leftovers[0].open().expect("opened");
    drop(leftovers);
    assert_eq!(place.open().1.len(), 0, "taken while it was being recovered");
    drop(opened);
    assert_eq!(place.open().1.len(), 1, "it stayed taken");
}

#[test]
fn a_leftover_opens_with_its_bytes_and_goes_when_it_is_clean() {
    let place = Place::new();
    die_leaving(&place, b"hello", Some(RecordState::Sealed));
    let (_stage, leftovers) = place.open();
    assert!(leftovers[0].whole().is_ok(), "{:?}", leftovers[0].whole());
    let file = leftovers[0].open().expect("opened");
    assert_eq!((file.read_at(0, 9).expect("read"), file.is_complete(), file.dirty()), ("hello".into(), true, true));
    let dir = leftovers[0].dir.clone();
    file.clean();
    drop((file, leftovers));
    assert!(!dir.exists(), "a dead session stayed without need");
}

#[test]
fn a_leftover_with_holes_misses_exactly_them() {
    let place = Place::new();
    let base = Version { etag: ETag::parse("b"), size: 10, modified: std::time::SystemTime::UNIX_EPOCH };
    let expect = Expect::Is(base.etag.clone());
    {
        let (stage, _) = place.open();
        let file = stage.over(10).expect("a staged file");
        file.write_at(2, b"xyz").expect("written");
        let base = Some(base.clone());
        file.record(&Record { base, expect, size: 10, ..record(RecordState::Sealed) }).expect("recorded");
        file.keep();
    }
    let (_stage, leftovers) = place.open();
    assert_eq!(leftovers[0].missing(), [ByteRange::new(0, 2), ByteRange::new(5, 10)]);
    assert_eq!((leftovers[0].base(), leftovers[0].whole().is_ok()), (Some(&base), true));
    let file = leftovers[0].open().expect("opened");
    assert_eq!(file.missing(ByteRange::new(0, 10)), [ByteRange::new(0, 2), ByteRange::new(5, 10)]);
}

#[test]
fn holes_that_nothing_can_fill_are_no_whole_file() {
    let place = Place::new();
    {
        let (stage, _) = place.open();
        let file = stage.over(5).expect("a staged file");
        file.write_at(2, b"x").expect("written");
        // It replaces whatever is there, so that no byte of that is to be taken.
        let base = Some(Version { etag: ETag::parse("b"), size: 5, modified: std::time::SystemTime::UNIX_EPOCH });
        let noted = Record { base, expect: Expect::Any, ..record(RecordState::Sealed) };
        file.record(&noted).expect("recorded");
        file.keep();
    }
    assert_eq!(place.open().1[0].whole().err(), Some(Doubt::Holes));
}

#[test]
fn a_leftover_shorter_than_its_record_is_not_whole() {
    let place = Place::new();
    die_leaving(&place, b"hell", Some(RecordState::Sealed));
    assert_eq!(place.open().1[0].whole().err(), Some(Doubt::Size { found: 4, recorded: 5 }));
}

#[test]
fn a_moved_file_is_found_under_its_new_key_and_a_disowned_one_not_at_all() {
    let place = Place::new();
    let (stage, _) = place.open();
    let files: Vec<_> = (0..2).map(|_| stage.new_file().expect("a staged file")).collect();
    for file in &files {
        file.write_at(0, b"hello").expect("written");
        file.record(&record(RecordState::Sealed)).expect("recorded");
        file.keep();
    }
    files[0].moved(&ObjectKey::from_store("p/new"), None, &Expect::Any).expect("noted");
    files[1].disown();
    drop((files, stage));
    let (_stage, leftovers) = place.open();
    assert_eq!(leftovers.len(), 1);
    assert_eq!(leftovers[0].key, Some(ObjectKey::from_store("p/new")));
    assert_eq!(leftovers[0].present, [ByteRange::new(0, 5)]);
}

#[test]
fn what_is_left_is_told_for_all_sources_and_live_sessions_are_named() {
    let place = Place::new();
    die_leaving(&place, b"hello", Some(RecordState::Open));
    let (_live, leftovers) = place.open();
    drop(leftovers);
    let root = place.root.path().join("stage");
    let all = remaining(&root, None).expect("looked");
    assert_eq!((all.len(), all[0].leftovers.len(), all[0].live.len()), (1, 1, 1));
    assert_eq!(
        (all[0].identity.as_str(), all[0].leftovers[0].whole().err()),
        ("s3://bucket/prefix/", Some(Doubt::Open))
    );
    assert!(remaining(&root, Some("another")).expect("looked").is_empty());
    assert!(remaining(&root.join("missing"), None).expect("looked").is_empty());
}

#[test]
fn data_with_a_torn_record_is_told_as_such() {
    let place = Place::new();
    die_leaving(&place, b"hello", Some(RecordState::Sealed));
    let torn = place.open().1.iter().find(|left| left.record.is_ok()).map(|left| left.file.with_extension("json"));
    std::fs::write(torn.expect("one has a record"), b"{\"pailfs_rec").expect("overwritten");
    let faults: Vec<_> = place.open().1.into_iter().filter_map(|left| left.record.err()).collect();
    assert_eq!(faults, [RecordFault::Torn]);
}

#[test]
fn data_without_a_record_was_clean_and_goes_away_beside_what_is_kept() {
    let place = Place::new();
    let (stage, _) = place.open();
    let files: Vec<_> = (0..2).map(|_| stage.new_file().expect("a staged file")).collect();
    for file in &files {
        file.record(&record(RecordState::Sealed)).expect("recorded");
        file.write_at(0, b"hello").expect("written");
        file.fsync().expect("synced");
        file.keep();
    }
    files[1].clean();
    files[1].keep();
    let (kept, clean) = (files[0].path().to_owned(), files[1].path().to_owned());
    drop((files, stage));
    assert!(clean.exists() && !clean.with_extension("json").exists());
    let (_stage, leftovers) = place.open();
    assert_eq!(leftovers.iter().map(|left| left.file.clone()).collect::<Vec<_>>(), [kept]);
    assert!(!clean.exists());
}

#[test]
fn a_dead_session_of_clean_files_goes_away() {
    let place = Place::new();
    die_leaving(&place, b"hello", None);
    let (stage, leftovers) = place.open();
    assert!(leftovers.is_empty());
    let source = stage.dir().parent().expect("it has a parent");
    assert_eq!(std::fs::read_dir(source).expect("readable").count(), 2, "the identity and the new session");
}

#[test]
fn a_dead_session_without_data_goes_away() {
    let place = Place::new();
    die_leaving(&place, b"", Some(RecordState::Open));
    let (stage, leftovers) = place.open();
    assert!(leftovers.is_empty());
    let source = stage.dir().parent().expect("it has a parent");
    assert_eq!(std::fs::read_dir(source).expect("readable").count(), 2, "the identity and the new session");
}

#[test]
fn an_empty_sealed_file_is_kept() {
    let place = Place::new();
    die_leaving(&place, b"", Some(RecordState::Sealed));
    assert_eq!(place.open().1.len(), 1);
}

#[test]
fn the_session_goes_with_its_last_file_unless_one_is_kept() {
    let place = Place::new();
    let (stage, _) = place.open();
    let dir = stage.dir().to_owned();
    let file = stage.new_file().expect("a staged file");
    assert!(!stage.finish().expect("asked"));
    drop(file);
    assert!(stage.finish().expect("asked"));
    drop(stage);
    assert!(!dir.exists());
}

#[test]
fn a_stage_that_others_could_write_or_redirect_is_refused() {
    let place = Place::new();
    let open = place.root.path().join("open");
    std::fs::create_dir(&open).expect("made");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("changed");
    assert!(matches!(Stage::open(&open, "x"), Err(Error::AccessDenied(_))));
    let link = place.root.path().join("link");
    std::os::unix::fs::symlink(place.root.path(), &link).expect("linked");
    assert!(matches!(Stage::open(&link, "x"), Err(Error::AccessDenied(_))));
}

#[test]
fn the_stage_is_private() {
    let place = Place::new();
    let (stage, _) = place.open();
    let root = place.root.path().join("stage");
    for dir in [root.as_path(), stage.dir(), stage.dir().parent().expect("it has a parent")] {
        assert_eq!(std::fs::metadata(dir).expect("there").permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_write_past_the_largest_size_is_refused() {
    let place = Place::new();
    let file = place.open().0.new_file().expect("a staged file");
    assert!(matches!(file.write_at(u64::MAX - 1, b"abc"), Err(Error::FileTooLarge)));
    assert!(matches!(file.set_size(1 << 63), Err(Error::FileTooLarge)));
    assert_eq!((file.size(), file.dirty()), (0, false));
}

#[test]
fn a_file_is_dirty_until_it_is_clean() {
    let place = Place::new();
    let file = place.open().0.over(10).expect("a staged file");
    file.fill_at(0, &[1; 10]).expect("filled");
    assert!(!file.dirty(), "bytes of the base change nothing");
    file.set_size(4).expect("cut");
    assert!(file.dirty() && file.dirty_ranges().is_empty());
    file.clean();
    assert!(!file.dirty());
    let before = file.generation();
    file.write_at(1, b"x").expect("written");
    assert!(file.dirty() && file.generation() > before);
    assert_eq!(file.dirty_ranges(), [ByteRange::new(1, 2)]);
}

const SPACE: u64 = 96;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Fill(ByteRange),
    SetSize(u64),
    Allocate(ByteRange, bool),
    Punch(ByteRange),
    Zero(ByteRange, bool),
}

fn any_range() -> impl Strategy<Value = ByteRange> {
    (0..SPACE - 1, 1..SPACE).prop_map(|(start, len)| ByteRange::new(start, (start + len).min(SPACE)))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SPACE / 2, prop::collection::vec(1..255u8, 1..24)).prop_map(|(at, data)| Step::Write(at, data)),
        3 => any_range().prop_map(Step::Fill),
        2 => (0..SPACE).prop_map(Step::SetSize),
        1 => (any_range(), any::<bool>()).prop_map(|(range, keep)| Step::Allocate(range, keep)),
        1 => any_range().prop_map(Step::Punch),
        1 => (any_range(), any::<bool>()).prop_map(|(range, keep)| Step::Zero(range, keep)),
    ]
}

/// A byte of the base version.
fn base(at: u64) -> u8 {
    (at as u8).wrapping_mul(7) | 1
}

/// `None` is a byte that is still missing.
struct Model(Vec<Option<u8>>);

impl Model {
    fn grow(&mut self, size: u64) {
        if size as usize > self.0.len() {
            self.0.resize(size as usize, Some(0));
        }
    }

    fn set(&mut self, range: ByteRange, value: impl Fn(u64) -> u8) {
        (range.start..range.end.min(self.0.len() as u64)).for_each(|at| self.0[at as usize] = Some(value(at)));
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write(at, data) => {
                self.grow(at + data.len() as u64);
                self.set(ByteRange::at(*at, data.len() as u64), |i| data[(i - at) as usize]);
            }
            Step::Fill(range) => {
                let last = range.end.min(self.0.len() as u64);
                for at in (range.start..last).filter(|&at| self.0[at as usize].is_none()).collect::<Vec<_>>() {
                    self.0[at as usize] = Some(base(at));
                }
            }
            Step::SetSize(size) => {
                self.0.truncate(*size as usize);
                self.grow(*size);
            }
            Step::Allocate(range, keep) if !keep => self.grow(range.end),
            Step::Allocate(..) => {}
            Step::Punch(range) => self.set(*range, |_| 0),
            Step::Zero(range, keep) => {
                if !keep {
                    self.grow(range.end);
                }
                self.set(*range, |_| 0);
            }
        }
    }
}

fn run(file: &StagedFile, step: &Step) {
    match step {
        Step::Write(at, data) => file.write_at(*at, data).map(drop),
        Step::Fill(range) => file.fill_at(range.start, &(range.start..range.end).map(base).collect::<Vec<_>>()),
        Step::SetSize(size) => file.set_size(*size),
        Step::Allocate(range, keep) => file.allocate(*range, *keep),
        Step::Punch(range) => file.punch(*range),
        Step::Zero(range, keep) => file.zero(*range, *keep),
    }
    .expect("the step works");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_staged_file_agrees_with_a_vector(size in 0..SPACE, steps in prop::collection::vec(any_step(), 0..24)) {
        let place = Place::new();
        let (stage, _) = place.open();
        let file = stage.over(size).expect("a staged file");
        let mut model = Model(vec![None; size as usize]);
        for step in &steps {
            run(&file, step);
            model.apply(step);
        }
        prop_assert_eq!(file.size(), model.0.len() as u64);
        let all = ByteRange::new(0, u64::MAX);
        let missing: Vec<u64> = file.missing(all).into_iter().flat_map(|gap| gap.start..gap.end).collect();
        let expected: Vec<u64> = (0..model.0.len() as u64).filter(|&at| model.0[at as usize].is_none()).collect();
        prop_assert_eq!(file.is_complete(), expected.is_empty());
        prop_assert_eq!(missing, expected);
        let content = file.read_at(0, SPACE as usize * 2).expect("read");
        for (at, byte) in model.0.iter().enumerate() {
            prop_assert!(byte.is_none_or(|byte| byte == content[at]), "byte {}", at);
        }
    }
}
