//! What the keys that came tell of a directory, and who walks.

use std::collections::BTreeSet;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::types::{ETag, ObjectKey, Version};

fn object(key: &str) -> ListedObject {
    let version = Version { etag: ETag::parse("e"), size: 1, modified: SystemTime::UNIX_EPOCH };
    ListedObject { key: ObjectKey::from_store(key), version, storage_class: None }
}

fn page(keys: &[&str], next: bool) -> ListPage {
    let objects = keys.iter().map(|key| object(key)).collect();
    ListPage { objects, prefixes: Vec::new(), next: next.then(|| "token".to_owned()) }
}

fn names(told: Told) -> Option<Vec<String>> {
    match told {
        Told::All(page, _) => {
            let objects = page.objects.iter().map(|object| object.key.as_str().to_owned());
            Some(objects.chain(page.prefixes).collect())
        }
        Told::Some | Told::Passed | Told::Nothing => None,
    }
}

impl Filesystem {
    /// As if everything that is here of walks, or under way, had been asked for then.
    pub(in crate::fs) fn walks_were_asked_at(&self, at: Instant) {
        for walk in &self.walks().walks {
            let mut keys = walk.keys.try_lock().expect("nobody walks now");
            keys.held.iter_mut().for_each(|(_, asked)| *asked = at);
            if let Next::UnderWay(asked, _) = &mut keys.next {
                *asked = at;
            }
        }
    }
}

#[test]
fn a_directory_is_told_when_all_its_keys_are_here_and_not_before() {
    let mut keys = Keys::beginning_at("p/c/", 0);
    let asked = Instant::now();
    assert!(matches!(keys.tell("p/c/"), Told::Some));
    keys.take_in(page(&["p/c/1", "p/c/2"], true), asked).unwrap();
    assert!(matches!(keys.tell("p/c/"), Told::Some), "more may come");
    keys.take_in(page(&["p/c/3", "p/c/x/y", "p/d/1"], true), asked).unwrap();
    assert_eq!(names(keys.tell("p/c/")).unwrap(), ["p/c/1", "p/c/2", "p/c/3", "p/c/x/"]);
    assert_eq!(names(keys.tell("p/c/x/")).unwrap(), ["p/c/x/y"]);
    assert!(matches!(keys.tell("p/d/"), Told::Some));
    assert!(matches!(keys.tell("p/c/"), Told::Passed));
    assert_eq!(keys.held.len(), 1, "what was passed is kept");
    keys.take_in(page(&["p/e/", "p/f/1"], false), asked).unwrap();
    assert_eq!(names(keys.tell("p/d/")).unwrap(), ["p/d/1"]);
    assert_eq!(names(keys.tell("p/e/")).unwrap(), ["p/e/"], "a marker alone");
    assert!(matches!(keys.tell("p/ee/"), Told::Nothing), "no key at all is no news of S3");
    assert_eq!(names(keys.tell("p/f/")).unwrap(), ["p/f/1"]);
    assert!(matches!(keys.tell("p/g/"), Told::Nothing));
}

#[test]
fn what_several_pages_tell_is_as_old_as_the_first() {
    let (old, new) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
    let mut keys = Keys::beginning_at("p/c/", 0);
    keys.take_in(page(&["p/c/1"], true), old).unwrap();
    keys.take_in(page(&["p/c/2", "p/d/1", "p/e/1"], true), new).unwrap();
    assert!(matches!(keys.tell("p/c/"), Told::All(_, asked) if asked == old));
    assert!(matches!(keys.tell("p/d/"), Told::All(_, asked) if asked == new));
}

#[test]
fn keys_in_another_order_than_that_of_s3_are_not_believed() {
    for wrong in [&["p/c/2", "p/c/1"][..], &["p/c/1", "p/c/1"], &["p/b/1"]] {
        let mut keys = Keys::beginning_at("p/c/", 0);
        assert!(keys.take_in(page(wrong, true), Instant::now()).is_err(), "{wrong:?}");
    }
    let mut keys = Keys::beginning_at("p/c/", 0);
    keys.take_in(page(&["p/c/5"], true), Instant::now()).unwrap();
    assert!(keys.take_in(page(&["p/c/4"], true), Instant::now()).is_err(), "from page to page");
}

#[test]
fn the_third_directory_in_order_begins_a_walk_unless_something_changes() {
    let mut walks = Walks::default();
    assert!(walks.walk_to("p/", "p/a/", 7).is_none());
    assert!(walks.walk_to("p/", "p/b/", 7).is_none());
    let (walk, is_streak) = walks.walk_to("p/", "p/c/", 7).expect("a walk");
    assert!(is_streak && walk.root == "p/");
    let (deeper, _) = walks.walk_to("p/d/", "p/d/x/", 7).expect("the same");
    assert!(Arc::ptr_eq(&walk, &deeper));
    walks.end(&walk);
    assert!(walks.walk_to("p/", "p/d/", 7).is_none() && walks.walk_to("p/", "p/e/", 7).is_none());
    // Who removes a tree reads it in order, too.
    let mut walks = Walks::default();
    for (number, dir) in ["p/a/", "p/b/", "p/c/", "p/d/", "p/e/"].into_iter().enumerate() {
        assert!(walks.walk_to("p/", dir, number as u64).is_none(), "{dir}");
    }
    // And who goes back and forth walks nowhere.
    let mut walks = Walks::default();
    for dir in ["p/a/", "p/b/", "p/a/", "p/b/", "p/a/", "p/b/"] {
        assert!(walks.walk_to("p/", dir, 0).is_none(), "{dir}");
    }
}

#[test]
fn walks_are_few() {
    let mut walks = Walks::default();
    for parent in 0..20 {
        for dir in 0..3 {
            walks.walk_to(&format!("p{parent:02}/"), &format!("p{parent:02}/{dir}/"), 0);
        }
    }
    assert_eq!(walks.walks.len(), WALKS);
    assert_eq!(walks.walks.back().map(|walk| walk.root.as_str()), Some("p19/"));
}

proptest! {
    /// Objects and common prefixes by the words of the S3 API reference: the delimiter is looked for behind the prefix.
    #[test]
    fn the_page_of_a_directory_is_that_of_a_listing_by_delimiter(
        rests in proptest::collection::btree_set("[ab/.\u{e9}-]{0,5}", 0..40),
        pages in 1usize..6,
    ) {
        let keys: BTreeSet<String> = rests.iter().map(|rest| format!("p/d/{rest}"))
            .chain(["p/d.x".to_owned(), "p/d0".to_owned(), "p/e/1".to_owned()]).collect();
        let (mut objects, mut prefixes) = (Vec::new(), BTreeSet::new());
        for rest in &rests {
            match rest.find('/') {
                Some(at) => _ = prefixes.insert(format!("p/d/{}", &rest[..=at])),
                None => objects.push(format!("p/d/{rest}")),
            }
        }
        // The marker of the first directory is behind no key.
        let after: Vec<&str> = keys.iter().map(String::as_str).filter(|key| *key > "p/d/").collect();
        let mut walked = Keys::beginning_at("p/d/", 0);
        let chunks: Vec<_> = after.chunks(after.len().div_ceil(pages)).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            walked.take_in(page(chunk, index + 1 < chunks.len()), Instant::now()).unwrap();
        }
        objects.retain(|key| key != "p/d/");
        match walked.tell("p/d/") {
            Told::All(page, _) => {
                let found: Vec<_> = page.objects.iter().map(|object| object.key.as_str().to_owned()).collect();
                prop_assert_eq!(found, objects);
                prop_assert_eq!(page.prefixes, prefixes.into_iter().collect::<Vec<_>>());
            }
            Told::Nothing => prop_assert!(objects.is_empty() && prefixes.is_empty()),
            told => prop_assert!(false, "{:?}", told),
        }
    }
}
