//! The account of what staged files take, against a naive one and against the limit.

use super::*;
use crate::config::StageSettings;

impl Place {
    fn open_within(&self, limit: u64) -> (Stage, Vec<Leftover>) {
        let settings = StageSettings { dir: self.root.path().join("stage"), limit: Some(limit), min_free: Some(0) };
        Stage::open_within(&settings, "s3://bucket/prefix/").expect("the stage opens")
    }
}

fn full<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::StageFull))
}

/// True for each offset that takes room.
struct Taken(Vec<bool>);

impl Taken {
    fn set(&mut self, range: ByteRange, taken: bool) {
        self.0[range.start as usize..range.end as usize].fill(taken);
    }

    /// `before` is what the file was before the step.
    fn apply(&mut self, step: &Step, before: &Model) {
        let size = before.0.len() as u64;
        match step {
            Step::Write(at, data) => self.set(ByteRange::at(*at, data.len() as u64), true),
            Step::Fill(range) => {
                let missing = |at: &u64| *at < size && before.0[*at as usize].is_none();
                (range.start..range.end).filter(missing).for_each(|at| self.0[at as usize] = true);
            }
            Step::SetSize(cut) if *cut < size => self.set(ByteRange::new(*cut, SPACE * 2), false),
            Step::SetSize(_) => {}
            Step::Allocate(range, _) | Step::Zero(range, _) => self.set(*range, true),
            Step::Punch(range) => self.set(range.intersect(ByteRange::new(0, size)), false),
        }
    }

    fn total(&self) -> u64 {
        self.0.iter().filter(|taken| **taken).count() as u64
    }
}

fn try_run(file: &StagedFile, step: &Step) -> Result<(), Error> {
    match step {
        Step::Write(at, data) => file.write_at(*at, data).map(drop),
        Step::Fill(range) => file.fill_if_room(range.start, &(range.start..range.end).map(base).collect::<Vec<_>>()),
        Step::SetSize(size) => file.set_size(*size),
        Step::Allocate(range, keep) => file.allocate(*range, *keep),
        Step::Punch(range) => file.punch(*range),
        Step::Zero(range, keep) => file.zero(*range, *keep),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_is_taken_is_what_was_written_and_is_not_cut_or_punched(
        size in 0..SPACE,
        steps in prop::collection::vec((any::<bool>(), any_step()), 0..24),
    ) {
        let place = Place::new();
        let (stage, _) = place.open();
        let file = || (stage.over(size).expect("a file"), Model(vec![None; size as usize]), Taken(vec![false; 2 * SPACE as usize]));
        let mut files = [file(), file()];
        for (which, step) in &steps {
            let (file, model, taken) = &mut files[usize::from(*which)];
            run(file, step);
            taken.apply(step, model);
            model.apply(step);
            prop_assert_eq!(stage.taken(), files.iter().map(|(.., taken)| taken.total()).sum::<u64>(), "{:?}", step);
        }
        let [one, (_other, ..)] = files;
        let left = stage.taken();
        let of_one = one.2.total();
        drop(one);
        prop_assert_eq!(stage.taken(), left - of_one);
        drop(_other);
        prop_assert_eq!(stage.taken(), 0);
    }

    #[test]
    fn no_step_takes_more_than_the_limit_and_one_that_would_changes_nothing(
        limit in 0..SPACE,
        size in 0..SPACE,
        steps in prop::collection::vec(any_step(), 0..24),
    ) {
        let place = Place::new();
        let (stage, _) = place.open_within(limit);
        let file = stage.over(size).expect("a staged file");
        let all = ByteRange::new(0, u64::MAX);
        for step in &steps {
            let before = (file.size(), file.generation(), file.missing(all), stage.taken());
            let outcome = try_run(&file, step);
            prop_assert!(stage.taken() <= limit, "{:?} took {} of {}", step, stage.taken(), limit);
            if outcome.is_err() {
                prop_assert!(full(outcome));
                prop_assert!(!matches!(step, Step::SetSize(_) | Step::Punch(_)), "{:?} needs no room", step);
                if !matches!(step, Step::Fill(_)) {
                    prop_assert_eq!((file.size(), file.generation(), file.missing(all), stage.taken()), before);
                }
            }
        }
        drop(file);
        prop_assert_eq!(stage.taken(), 0);
    }
}

#[test]
fn holes_take_no_room_and_what_is_written_twice_takes_it_once() {
    let place = Place::new();
    let (stage, _) = place.open_within(10);
    let file = stage.over(1 << 30).expect("a staged file");
    file.set_size(1 << 40).expect("a hole");
    file.write_at(1 << 39, b"0123456789").expect("room");
    file.write_at(1 << 39, b"abcdefghij").expect("it has its room already");
    assert!(full(file.write_at(0, b"x")));
    assert!(full(file.fill_if_room(0, b"x")));
    file.fill_at(0, b"x").expect("bytes without which the file could not be stored");
    assert_eq!(stage.taken(), 11);
    file.set_size(1).expect("cut");
    file.write_at(0, b"0123456789").expect("room again");
}

#[test]
fn a_leftover_is_opened_whatever_the_limit_and_counts_until_it_goes() {
    let place = Place::new();
    die_leaving(&place, b"hello", Some(RecordState::Sealed));
    let (stage, leftovers) = place.open_within(3);
    assert_eq!(stage.taken(), 0);
    let opened = leftovers[0].open().expect("opened");
    assert_eq!(stage.taken(), 5);
    let file = stage.new_file().expect("a staged file");
    assert!(full(file.write_at(0, b"x")));
    opened.clean();
    drop(opened);
    file.write_at(0, b"x").expect("room");
    assert_eq!(stage.taken(), 1);
    file.keep();
    drop(file);
    assert_eq!(stage.taken(), 1, "what stays on the disk was given back");
}
