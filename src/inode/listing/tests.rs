//! What a directory remembers of its names.

use super::*;

const TTL: Duration = Duration::from_secs(3);

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).expect("a name")
}

fn dir() -> Listed {
    Listed { kind: Kind::Dir, version: None }
}

#[test]
fn a_fresh_listing_answers_for_every_name_and_an_old_one_for_none() {
    let now = Instant::now();
    let mut names = DirNames::default();
    assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Unknown);
    names.keep_listing(BTreeMap::from([(name("a"), dir())]), now);
    assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Present(dir()));
    assert_eq!(names.known(&name("b"), now, TTL, TTL), Known::Absent);
    assert_eq!(names.known(&name("a"), now + TTL, TTL, TTL), Known::Unknown);
}

#[test]
fn a_listing_is_believed_of_absent_names_no_longer_than_a_miss() {
    let now = Instant::now();
    let mut names = DirNames::default();
    names.keep_listing(BTreeMap::from([(name("a"), dir())]), now);
    assert_eq!(names.known(&name("b"), now, TTL, Duration::ZERO), Known::Unknown);
    assert_eq!(names.known(&name("a"), now, TTL, Duration::ZERO), Known::Present(dir()));
}

#[test]
fn what_changed_here_while_a_listing_was_taken_stands_as_it_was_changed() {
    let mut names = DirNames::default();
    names.note_change(&name("before"), None);
    let began = Instant::now();
    names.note_change(&name("made"), Some(dir()));
    names.note_change(&name("removed"), None);
    names.keep_listing(["before", "removed", "other"].map(|each| (name(each), dir())).into(), began);
    let known = ["before", "made", "removed", "other"].map(|each| names.known(&name(each), began, TTL, TTL));
    assert_eq!(known, [Known::Present(dir()), Known::Present(dir()), Known::Absent, Known::Present(dir())]);
    // Nobody knows any more what changed since then.
    let mut names = DirNames { changes_since: Some(began + TTL), ..DirNames::default() };
    names.keep_listing([(name("a"), dir())].into(), began);
    assert_eq!(names.known(&name("b"), began, TTL, TTL), Known::Unknown);
}

#[test]
fn a_listing_is_worth_it_once_when_names_that_are_not_there_are_asked_for_often() {
    let now = Instant::now();
    let mut names = DirNames::default();
    for asked in 0..ASKED_WORTH {
        assert!(names.worth_listing(now, TTL, TTL).is_none(), "after {asked}");
        names.note_absent(now);
    }
    assert!(names.worth_listing(now, Duration::ZERO, TTL).is_none(), "it would not last");
    assert!(names.worth_listing(now, TTL, Duration::ZERO).is_none(), "what is absent would not be believed");
    assert!(names.worth_listing(now + TTL, TTL, TTL).is_none(), "long ago");
    let lister = names.worth_listing(now, TTL, TTL);
    assert!(lister.as_ref().is_some_and(|lister| lister.for_absent));
    assert!(names.worth_listing(now, TTL, TTL).is_none(), "two at once");
    drop(lister);
    assert!(names.worth_listing(now, TTL, TTL).is_some());
    names.note_large(now, true);
    assert!(names.worth_listing(now, TTL, TTL).is_none(), "it is too large");
}

#[test]
fn a_listing_is_worth_it_when_many_names_are_asked_for_of_which_nothing_is_known() {
    let now = Instant::now();
    let mut names = DirNames::default();
    for asked in 0..ASKED_WORTH {
        assert!(names.worth_listing(now, TTL, TTL).is_none(), "after {asked}");
        names.note_unknown(now);
    }
    let lister = names.worth_listing(now, TTL, Duration::ZERO);
    assert!(lister.is_some_and(|lister| !lister.for_absent));
    let lister = names.worth_listing(now, TTL, TTL).expect("the other one is gone");
    names.keep_listing([(name("a"), dir())].into(), now);
    drop(lister);
    let known = ["a", "b"].map(|each| names.known(&name(each), now, TTL, TTL));
    assert_eq!(known, [Known::Present(dir()), Known::Unknown], "a name may be new since");
    assert!(names.worth_listing(now, TTL, TTL).is_none(), "the next listing would say the same");
    names.forget_listing();
    names.note_large(now, false);
    assert!(names.worth_listing(now, TTL, TTL).is_none(), "it has more than a page");
    names.note_absent(now);
    names.note_absent(now);
    assert!(names.worth_listing(now, TTL, TTL).is_some_and(|lister| lister.for_absent), "most are not there");
    (0..ASKED_WORTH).for_each(|_| names.note_absent(now));
    assert!(names.worth_listing(now, TTL, TTL).is_some(), "what is absent would be asked for again and again");
    assert!(names.worth_listing(now + TTL, TTL, TTL).is_none(), "long ago");
}

#[test]
fn a_miss_is_believed_until_its_time_is_over_or_the_name_is_made_here() {
    let now = Instant::now();
    let mut names = DirNames::default();
    names.note_miss(&name("a"), now);
    assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Absent);
    assert_eq!(names.known(&name("a"), now + TTL, TTL, TTL), Known::Unknown);
    names.note_change(&name("a"), None);
    assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Unknown);
}

#[test]
fn a_listed_name_that_turned_out_to_be_gone_is_not_there_again_once_the_miss_is_old() {
    let now = Instant::now();
    let mut names = DirNames::default();
    names.keep_listing(BTreeMap::from([(name("a"), dir()), (name("b"), dir())]), now);
    names.note_miss(&name("a"), now);
    let old = TTL / 2;
    assert_eq!(names.known(&name("a"), now + old, TTL, old), Known::Unknown);
    assert_eq!(names.known(&name("b"), now + old, TTL, old), Known::Present(dir()));
}

#[test]
fn a_listing_that_shows_a_name_ends_the_miss_of_before() {
    let now = Instant::now();
    let mut names = DirNames::default();
    names.note_miss(&name("a"), now);
    names.keep_listing(BTreeMap::from([(name("a"), dir())]), now);
    assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Present(dir()));
}

#[test]
fn a_directory_remembers_no_more_names_than_it_may() {
    let now = Instant::now();
    let mut names = DirNames::default();
    (0..MISSES_MAX + 100).for_each(|number| names.note_miss(&name(&format!("{number}")), now));
    assert_eq!(names.misses.len(), MISSES_MAX);
    assert!(names.misses.peek(&name("99")).is_none(), "the oldest stayed");
    let many = |count: usize| (0..count).map(|number| (name(&format!("{number}")), dir())).collect();
    assert!(!names.keep_listing(many(LISTING_MAX + 1), now) && names.listed_names() == 0);
    assert!(names.keep_listing(many(LISTING_MAX), now));
    names.note_change(&name("one more"), Some(dir()));
    assert_eq!((names.listed_names(), names.listed_at()), (0, None), "it grew without end");
}

#[test]
fn a_name_that_was_changed_here_is_not_untouched() {
    let before = Instant::now();
    let mut names = DirNames::default();
    names.note_change(&name("a"), None);
    let after = Instant::now() + Duration::from_nanos(1);
    assert!(!names.is_untouched_since(&name("a"), before));
    assert!(names.is_untouched_since(&name("a"), after) && names.is_untouched_since(&name("b"), before));
    // Old changes are forgotten, and nothing is then said of the time before.
    let late = before + CHANGES_KEPT * 2;
    (0..100).for_each(|index| names.remember_change(&name(&format!("{index}")), late, None));
    assert!(names.changed.len() <= 101);
    assert!(!names.is_untouched_since(&name("b"), before), "nobody knows");
    assert!(names.is_untouched_since(&name("b"), late));
}

#[test]
fn a_hidden_name_is_absent_until_its_own_inode_is_gone() {
    let now = Instant::now();
    let mut names = DirNames::default();
    names.hide(&name("a"), Ino::new(7));
    assert_eq!(names.known(&name("a"), now, TTL, TTL), Known::Absent);
    names.unhide(&name("a"), Ino::new(8));
    assert!(names.is_hidden(&name("a")));
    let began = Instant::now();
    assert!(names.is_gone_since(&name("a"), began) && !names.is_gone_since(&name("b"), began));
    names.unhide(&name("a"), Ino::new(7));
    assert!(!names.is_hidden(&name("a")));
    assert!(names.is_gone_since(&name("a"), began), "a listing that began before shows it");
    assert!(!names.is_gone_since(&name("a"), Instant::now() + Duration::from_nanos(1)));
}

#[test]
fn what_s3_told_of_a_name_makes_older_listings_old_unless_they_say_the_same() {
    let mut names = DirNames::default();
    let asked = Instant::now();
    assert!(!names.has_learned_since(asked));
    names.keep_listing([(name("a"), dir())].into(), asked);
    names.note_found(&name("a"));
    assert!(!names.has_learned_since(asked), "that is no news");
    names.note_found(&name("b"));
    assert!(names.has_learned_since(asked));
    let asked = Instant::now() + Duration::from_nanos(1);
    assert!(!names.has_learned_since(asked));
    names.note_miss(&name("a"), asked + TTL);
    assert!(names.has_learned_since(asked));
    names.keep_listing(BTreeMap::new(), asked + TTL * 2);
    assert!(names.has_learned_since(asked + TTL) && !names.has_learned_since(asked + TTL * 2));
}

#[test]
fn a_change_that_may_be_under_way_counts_when_it_ends() {
    let changes = Changes::default();
    let changing = changes.changing();
    assert_eq!(changes.count(), 0);
    drop(changing);
    assert_eq!(changes.count(), 1);
}
