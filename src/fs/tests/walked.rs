//! Trees that are walked: which directories come out of a listing of all keys and which are listed by themselves, and that nothing
//! shows that is too old.

use std::time::Instant;

use super::*;
use crate::inode::Kind;
use crate::transfer::tests::fake::{Call, Fault};

/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(3600);

/// Files of each directory, where nothing else is said.
const ALL: [&str; 3] = ["f0", "f1", "f2"];

/// A listing says all there is to say.
fn basic() -> FsSettings {
    FsSettings { metadata: MetadataMode::Basic, ..settings() }
}

/// Nothing gets too old because a machine is slow.
fn patient() -> FsSettings {
    let freshness = Freshness { dir_min: LONG, dir_max: LONG, file_min: LONG, file_max: LONG, negative: LONG };
    FsSettings { freshness, ..basic() }
}

fn dir(number: usize) -> String {
    format!("d{number:02}")
}

/// `dirs` directories in `tree`, which has been read; the number of each.
async fn tree(rig: &Rig, dirs: usize) -> Vec<Ino> {
    for number in 0..dirs {
        for file in ALL {
            rig.store.set(&format!("p/tree/{}/{file}", dir(number)), "x");
        }
    }
    let tree = rig.ino(Ino::ROOT, "tree").await.expect("a directory");
    rig.names(tree).await;
    let mut found = Vec::new();
    for number in 0..dirs {
        found.push(rig.ino(tree, &dir(number)).await.expect("a directory"));
    }
    rig.store.take_lists();
    found
}

/// The same, of which the first six have been read in order: the keys of the next ones are here.
async fn walked(rig: &Rig, dirs: usize) -> Vec<Ino> {
    let found = tree(rig, dirs).await;
    for dir in &found[..6] {
        assert_eq!(rig.names(*dir).await, ALL);
    }
    assert!(pages_and_dirs(rig).0 >= 1, "nobody walks");
    found
}

/// What was listed since the last look: so many pages of walks, and these directories by themselves.
fn pages_and_dirs(rig: &Rig) -> (usize, Vec<String>) {
    let lists = rig.store.take_lists();
    let pages = lists.iter().filter(|request| !request.by_directory && request.max_keys == 0).count();
    let mut dirs: Vec<_> = lists.into_iter().filter(|list| list.by_directory).map(|list| list.prefix).collect();
    dirs.dedup();
    (pages, dirs)
}

fn with(more: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = ALL.iter().chain(more).map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn directories_of_more_than_4000_keys_are_listed_by_themselves() {
    for below in ["", "sub/"] {
        let rig = Rig::with(patient()).await;
        for file in 0..4001 {
            rig.store.set(&format!("p/tree/d06/{below}{file:04}"), "x");
        }
        for file in 0..2997 {
            rig.store.set(&format!("p/tree/d08/{below}{file:04}"), "x");
        }
        let found = walked(&rig, 20).await;
        rig.names(found[6]).await;
        let (pages, dirs) = pages_and_dirs(&rig);
        assert!(pages <= 4 && dirs == ["p/tree/d06/"], "{pages} pages of a walk, {dirs:?}");
        let mut listed = Vec::new();
        let mut pages = 0;
        for (number, dir) in found.iter().enumerate().skip(7) {
            let few = if below.is_empty() { 3000 } else { 4 };
            assert_eq!(rig.names(*dir).await.len(), if number == 8 { few } else { 3 }, "{number}");
            let (more, dirs) = pages_and_dirs(&rig);
            pages += more;
            listed.extend(dirs);
        }
        // Who gave up needs three in order again.
        assert!(listed.len() <= 2 && pages <= 5, "{pages} pages of a walk, {listed:?}");

        // The same without the one that is too large: it comes with the others.
        let rig = Rig::with(patient()).await;
        for file in 0..2997 {
            rig.store.set(&format!("p/tree/d06/{below}{file:04}"), "x");
        }
        let found = walked(&rig, 20).await;
        rig.names(found[6]).await;
        let (pages, dirs) = pages_and_dirs(&rig);
        assert!(pages <= 4 && dirs.is_empty(), "{pages} pages of a walk, {dirs:?}");
    }
}

#[tokio::test]
async fn in_directory_buckets_each_directory_is_listed_by_itself() {
    let rig = Rig::over(Arc::new(Fake::listing_in_no_order()), patient());
    let found = tree(&rig, 20).await;
    for dir in &found {
        assert_eq!(rig.names(*dir).await, ALL);
    }
    let (pages, dirs) = pages_and_dirs(&rig);
    assert_eq!((pages, dirs.len()), (0, 20), "{dirs:?}");
}

#[tokio::test]
async fn with_actimeo_0_each_directory_is_listed_by_itself() {
    let rig = Rig::with(FsSettings { metadata: MetadataMode::Basic, ..no_cache() }).await;
    let found = tree(&rig, 20).await;
    for dir in &found {
        assert_eq!(rig.names(*dir).await, ALL);
    }
    let (pages, dirs) = pages_and_dirs(&rig);
    assert_eq!((pages, dirs.len()), (0, 20), "{dirs:?}");
}

#[tokio::test]
async fn what_a_walk_shows_is_younger_than_acdirmin() {
    let rig = Rig::with(basic()).await;
    let lasts = Freshness::default().dir_min;
    assert_eq!((rig.fs.settings.freshness.dir_min, lasts), (lasts, Duration::from_secs(3)));
    let found = walked(&rig, 20).await;
    for number in 6..20 {
        rig.store.set(&format!("p/tree/{}/theirs", dir(number)), "x");
    }
    // However slow the machine is, this has just been asked for.
    let young = Instant::now() + LONG;
    rig.fs.walks_were_asked_at(young);
    assert_eq!(rig.names(found[6]).await, ALL, "it did not come out of the walk");
    assert_eq!(pages_and_dirs(&rig), (0, vec![]));
    let listed_at =
        |dir| rig.fs.table.get_plain(dir).expect("it is known").lock().dir().expect("one").names.listed_at();
    assert_eq!(listed_at(found[6]), Some(young), "what is kept of it is as old as the walk");

    rig.fs.walks_were_asked_at(Instant::now().checked_sub(lasts).expect("a machine that is up for a while"));
    assert_eq!(rig.names(found[7]).await, with(&["theirs"]));
    assert_eq!(pages_and_dirs(&rig), (1, vec![]), "the walk goes on with what is there now");
    rig.fs.walks_were_asked_at(young);
    assert_eq!(rig.names(found[8]).await, with(&["theirs"]));
    assert_eq!(pages_and_dirs(&rig), (0, vec![]));
}

#[tokio::test]
async fn a_page_that_was_asked_for_too_long_ago_is_not_waited_for() {
    let rig = Rig::with(basic()).await;
    for number in 0..20 {
        for file in 0..100 {
            rig.store.set(&format!("p/tree/{}/g{file:02}", dir(number)), "x");
        }
    }
    let found = tree(&rig, 20).await;
    for dir in &found[..2] {
        rig.names(*dir).await;
    }
    // With the first page the next one is asked for.
    rig.names(found[2]).await;
    until_listed(&rig, 2).await;
    rig.store.set("p/tree/d17/theirs", "x");
    rig.fs.walks_were_asked_at(Instant::now().checked_sub(Duration::from_secs(3)).expect("a machine that is up"));
    assert!(rig.names(found[17]).await.contains(&"theirs".to_owned()));
    assert_eq!(pages_and_dirs(&rig).1, [""; 0], "the walk goes on with what is there now");
}

#[tokio::test]
async fn who_leaves_a_walk_for_a_directory_far_ahead_does_not_get_all_that_is_between() {
    let rig = Rig::with(patient()).await;
    for number in 0..60 {
        for file in 0..100 {
            rig.store.set(&format!("p/tree/{}/g{file:02}", dir(number)), "x");
        }
    }
    let found = tree(&rig, 60).await;
    for number in [0, 1, 2, 55] {
        assert_eq!(rig.names(found[number]).await.len(), 103, "{number}");
    }
    let (pages, dirs) = pages_and_dirs(&rig);
    assert!(pages <= 2 && dirs == ["p/tree/d00/", "p/tree/d01/", "p/tree/d55/"], "{pages} pages of a walk, {dirs:?}");
}

#[tokio::test]
async fn who_walks_before_the_place_where_others_are_gets_a_walk_too() {
    let rig = Rig::with(patient()).await;
    let found = tree(&rig, 20).await;
    for number in [10, 11, 12, 13, 0, 1, 2, 3, 4, 5, 6] {
        assert_eq!(rig.names(found[number]).await, ALL, "{number}");
    }
    let (pages, dirs) = pages_and_dirs(&rig);
    assert_eq!((pages, dirs), (2, [10, 11, 0, 1].map(|number| format!("p/tree/{}/", dir(number))).to_vec()));
}

/// Waits until so many pages of walks have been asked for since the last look.
async fn until_listed(rig: &Rig, pages: usize) {
    let (deadline, mut listed) = (Instant::now() + Duration::from_secs(10), 0);
    while listed < pages {
        assert!(Instant::now() < deadline, "{listed} pages were asked for");
        tokio::task::yield_now().await;
        listed += pages_and_dirs(rig).0;
    }
}

#[tokio::test]
async fn a_page_that_comes_when_it_is_too_old_is_not_shown() {
    let freshness = Freshness { dir_min: Duration::from_nanos(1), ..Freshness::default() };
    let rig = Rig::with(FsSettings { freshness, ..basic() }).await;
    let found = tree(&rig, 6).await;
    for dir in &found {
        assert_eq!(rig.names(*dir).await, ALL);
    }
    assert_eq!(pages_and_dirs(&rig).1, (0..6).map(|number| format!("p/tree/{}/", dir(number))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_made_here_ends_a_walk_wherever_it_is_made() {
    for change in ["create", "write", "unlink", "rename", "mkdir", "rmdir"] {
        let rig = Rig::with(patient()).await;
        rig.store.set("p/other/file", "x");
        let other = rig.ino(Ino::ROOT, "other").await.expect("a directory");
        let empty = rig.mkdir(Ino::ROOT, "empty").await;
        assert_eq!(rig.names(empty).await, [""; 0]);
        let found = walked(&rig, 20).await;
        rig.names(found[6]).await;
        assert_eq!(pages_and_dirs(&rig), (0, vec![]));
        // Another client sees the change, and makes one of its own that is not to show without the first.
        rig.store.set("p/tree/d07/theirs", "x");
        match change {
            "create" => _ = rig.put(other, "new", b"x").await,
            "write" => {
                let file = rig.ino(other, "file").await.expect("a file");
                let fh = rig.open(file, WRITE).await;
                rig.fs.write(fh, 0, b"new").await.expect("a write");
                rig.close(fh).await.expect("a close");
            }
            "unlink" => rig.fs.unlink(other, b"file").await.expect("an unlink"),
            "rename" => {
                let mode = crate::fs::RenameMode::Replace;
                rig.fs.rename(other, b"file", other, b"moved", mode).await.expect("a rename");
            }
            "mkdir" => _ = rig.mkdir(other, "dir").await,
            _ => rig.fs.rmdir(Ino::ROOT, b"empty").await.expect("an rmdir"),
        }
        rig.store.take_lists();
        assert_eq!(rig.names(found[7]).await, with(&["theirs"]), "{change}");
        assert_eq!(pages_and_dirs(&rig), (0, vec!["p/tree/d07/".to_owned()]), "{change}");
        for dir in &found[8..] {
            assert_eq!(rig.names(*dir).await, ALL, "{change}");
        }
        let (pages, dirs) = pages_and_dirs(&rig);
        assert!(pages == 1 && dirs.len() <= 2, "{change}: nobody walks any more: {dirs:?}");
    }
}

/// A tree of which two directories were read; the page that the third begins a walk with is answered when the word is given.
async fn about_to_walk(rig: &Rig) -> (Vec<Ino>, Arc<tokio::sync::Notify>) {
    let found = tree(rig, 20).await;
    rig.names(found[0]).await;
    rig.names(found[1]).await;
    rig.store.take_lists();
    let word = Arc::new(tokio::sync::Notify::new());
    rig.store.next(Call::List, Fault::Late(word.clone()));
    (found, word)
}

#[tokio::test]
async fn what_s3_tells_of_a_name_while_a_page_is_under_way_is_not_undone_by_it() {
    let rig = Rig::with(patient()).await;
    let (found, word) = about_to_walk(&rig).await;
    let meanwhile = async {
        until_listed(&rig, 1).await;
        rig.store.set("p/tree/d02/theirs", "x");
        rig.ino(found[2], "theirs").await.expect("a file");
        word.notify_one();
    };
    let (names, ()) = tokio::join!(rig.names(found[2]), meanwhile);
    assert_eq!(names, with(&["theirs"]));
}

#[tokio::test]
async fn a_change_made_here_ends_a_walk_whose_page_is_under_way() {
    let rig = Rig::with(patient()).await;
    let (found, word) = about_to_walk(&rig).await;
    let meanwhile = async {
        until_listed(&rig, 1).await;
        rig.fs.unlink(found[9], b"f1").await.expect("an unlink");
        // Who was told of that answers with a change of its own.
        rig.store.remove("p/tree/d02/f0");
        word.notify_one();
    };
    let (names, ()) = tokio::join!(rig.names(found[2]), meanwhile);
    assert_eq!(names, ["f1", "f2"], "the page of before was shown");
}

#[tokio::test]
async fn directories_of_a_walk_are_read_in_any_order_and_twice() {
    let rig = Rig::with(patient()).await;
    rig.store.set("p/tree/d05/below/deep/leaf", "x");
    rig.store.set("p/tree/d07//hidden", "x");
    rig.store.set("p/tree/d07/../hidden", "x");
    rig.store.set("p/tree/d07/marker/", "");
    let found = walked_with_odd(&rig).await;
    for number in [5, 7, 6, 7, 12, 11, 19, 3, 8] {
        let expected = match number {
            5 => with(&["below"]),
            7 => with(&["marker"]),
            _ => with(&[]),
        };
        assert_eq!(rig.names(found[number]).await, expected, "{number}");
    }
    let below = rig.fs.lookup(found[5], b"below").await.expect("a directory").attr;
    assert_eq!(below.kind, Kind::Dir);
    assert_eq!(rig.names(below.ino).await, ["deep"]);
}

async fn walked_with_odd(rig: &Rig) -> Vec<Ino> {
    let found = tree(rig, 20).await;
    for dir in &found[..4] {
        assert_eq!(rig.names(*dir).await, ALL);
    }
    found
}
