//! What the way from a name to the first byte costs.

use super::*;
use crate::transfer::tests::fake::Call;

fn basic() -> FsSettings {
    FsSettings { metadata: MetadataMode::Basic, ..settings() }
}

/// Looks a file up, opens it and reads it: gives the requests of that.
async fn cost(rig: &Rig, dir: Ino, name: &str) -> Vec<Call> {
    rig.store.take_calls();
    let ino = rig.ino(dir, name).await.expect("a file");
    assert_eq!(rig.read(ino).await.expect("a read"), b"bytes");
    rig.store.take_calls()
}

async fn listed(rig: &Rig) -> Ino {
    for key in ["p/d/a", "p/d/b", "p/d/c"] {
        rig.store.set(key, "bytes");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    rig.names(dir).await;
    dir
}

#[tokio::test]
async fn a_file_known_from_a_listing_costs_one_request() {
    let rig = Rig::with(basic()).await;
    let dir = listed(&rig).await;
    assert_eq!(cost(&rig, dir, "b").await, [Call::Get]);
}

#[tokio::test]
async fn a_file_whose_attributes_were_listed_costs_one_request() {
    let rig = Rig::new().await;
    let dir = listed(&rig).await;
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    // As for ls -l: the kernel then knows the entries with their attributes.
    let entries = rig.fs.readdir(fh, 0, true).await.expect("a readdir");
    rig.fs.releasedir(fh);
    assert_eq!(cost(&rig, dir, "b").await, [Call::Get]);
    drop(entries);
}

#[tokio::test]
async fn an_unknown_file_costs_two_round_trips() {
    let rig = Rig::new().await;
    rig.store.set("p/f", "bytes");
    let mut calls = cost(&rig, Ino::ROOT, "f").await;
    // The first two go out at once.
    calls[..2].sort_by_key(|call| format!("{call:?}"));
    assert_eq!(calls, [Call::Head, Call::List, Call::Get]);
}

#[tokio::test]
async fn an_open_after_the_second_checks_with_the_first_bytes() {
    let short = Freshness { file_min: Duration::from_millis(20), ..Freshness::default() };
    let rig = Rig::with(FsSettings { freshness: short, ..basic() }).await;
    let dir = listed(&rig).await;
    let ino = rig.ino(dir, "a").await.expect("a file");
    let looked = std::time::Instant::now();
    while looked.elapsed() <= Duration::from_millis(20) {
        tokio::task::yield_now().await;
    }
    rig.store.take_calls();
    assert_eq!(rig.read(ino).await.expect("a read"), b"bytes");
    assert_eq!(rig.store.take_calls(), [Call::Get]);
}

#[tokio::test]
async fn an_open_within_the_second_asks_only_for_a_change() {
    let rig = Rig::with(basic()).await;
    let dir = listed(&rig).await;
    let ino = rig.ino(dir, "a").await.expect("a file");
    rig.read(ino).await.expect("a read");
    for (intent, asks) in [(READ, false), (WRITE, true), (OpenIntent { access: Access::Write, ..READ }, true)] {
        rig.store.take_calls();
        let fh = rig.open(ino, intent).await;
        assert_eq!(!rig.store.take_calls().is_empty(), asks, "{intent:?}");
        rig.close(fh).await.expect("a close");
    }
}

/// As the kernel reads a long directory for `ls -l`: each answer goes on where the one before it ended.
#[tokio::test]
async fn each_attribute_of_a_long_listing_is_asked_for_once_and_ahead_from_the_second_answer_on() {
    const NAMES: usize = 1500;
    let rig = Rig::new().await;
    for number in 0..NAMES {
        rig.store.set(&format!("p/d/{number:04}"), "x");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    rig.store.take_calls();
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    let (mut offset, mut names, mut asked) = (0, 0, Vec::new());
    loop {
        let mut entries = rig.fs.readdir(fh, offset, true).await.expect("a readdir");
        // The kernel's buffer has no place for more.
        entries.truncate(100);
        let Some(last) = entries.last() else { break };
        offset = last.next;
        names += entries.len();
        entries.iter().filter(|entry| entry.attr.as_ref().is_some_and(|(_, pin)| pin.is_some())).for_each(|entry| {
            rig.fs.told(entry.ino);
        });
        asked.push(rig.store.count(Call::Head));
    }
    rig.fs.releasedir(fh);
    assert_eq!(names, NAMES + 2);
    assert_eq!(rig.store.count(Call::Head) as usize, NAMES, "{asked:?}");
    // The first answer takes one round trip and is not followed by any, the later ones are by some hundred.
    assert!(asked[0] <= 64 && asked[2] >= 700 && asked[2] <= 1000, "{asked:?}");
}

#[tokio::test]
async fn a_listing_that_is_left_takes_back_what_was_asked_for_ahead() {
    let rig = Rig::new().await;
    for number in 0..800 {
        rig.store.set(&format!("p/d/{number:04}"), "x");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    let first = rig.fs.readdir(fh, 0, true).await.expect("a readdir");
    let known = rig.fs.table.len();
    let next = first.last().expect("an entry").next;
    let second = rig.fs.readdir(fh, next, true).await.expect("a readdir");
    drop((first, second));
    rig.fs.releasedir(fh);
    // What the kernel was not told of is forgotten.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while rig.fs.table.len() >= known && std::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert!(rig.fs.table.len() < known, "{} names are known", rig.fs.table.len());
}

#[tokio::test]
async fn a_fresh_listing_is_read_again_without_a_request() {
    let rig = Rig::new().await;
    let dir = listed(&rig).await;
    rig.store.take_calls();
    rig.store.set("p/d/other", "of another client");
    assert_eq!(rig.names(dir).await, ["a", "b", "c"]);
    assert_eq!(rig.store.take_calls(), []);
    // Who was told of a name finds it in its directory.
    rig.ino(dir, "other").await.expect_err("a fresh listing knows it as absent");
    rig.mkdir(dir, "made").await;
    rig.store.take_calls();
    assert_eq!(rig.names(dir).await, ["a", "b", "c", "made", "other"]);
    assert_eq!(rig.store.take_calls(), [Call::List]);
    rig.fs.unlink(dir, b"a").await.expect("an unlink");
    assert_eq!(rig.names(dir).await, ["b", "c", "made", "other"]);
}

#[tokio::test]
async fn a_name_that_was_found_after_the_listing_is_in_the_next_one() {
    let none_missing = Freshness { negative: Duration::ZERO, ..settings().freshness };
    let rig = Rig::with(FsSettings { freshness: none_missing, ..settings() }).await;
    let dir = listed(&rig).await;
    rig.store.set("p/d/other", "of another client");
    rig.ino(dir, "other").await.expect("a file");
    assert_eq!(rig.names(dir).await, ["a", "b", "c", "other"]);
}

#[tokio::test]
async fn a_listing_that_is_not_believed_is_asked_for_each_time() {
    let rig = Rig::with(no_cache()).await;
    let dir = listed(&rig).await;
    rig.store.set("p/d/other", "of another client");
    assert_eq!(rig.names(dir).await, ["a", "b", "c", "other"]);
}

#[tokio::test]
async fn the_next_page_is_asked_for_before_the_reader_gets_to_it() {
    let rig = Rig::new().await;
    for index in 0..2500 {
        rig.store.set(&format!("p/d/{index:04}"), "x");
    }
    let dir = rig.ino(Ino::ROOT, "d").await.expect("a directory");
    let fh = rig.fs.opendir(dir).expect("an opendir").fh;
    rig.store.take_calls();
    let first = rig.fs.readdir(fh, 0, false).await.expect("the first names");
    assert!(first.len() < 1000, "{}", first.len());
    let mut asked = Vec::new();
    let both = async {
        while asked.len() < 2 {
            tokio::task::yield_now().await;
            asked.extend(rig.store.take_calls());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("two pages are asked for");
    assert_eq!(asked, [Call::List; 2]);
    assert_eq!(rig.names(dir).await.len(), 2500);
}
