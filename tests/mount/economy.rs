//! What looking at names costs in requests: a listing tells of all its names at once, and what it told is not asked again while
//! it is fresh.

use std::os::unix::fs::MetadataExt;

use pailfs::demo::Operation;

use crate::common::{Capability, Mount, TestServer};

/// A day of freshness: nothing is asked for a second time because a machine was slow.
const FRESH: &str = "actimeo=86400";

/// A mount, and what was asked of S3 since.
struct Counted {
    server: TestServer,
    mount: Mount,
}

impl Counted {
    /// With these objects of one byte.
    fn with(options: &[&str], names: impl Iterator<Item = String>) -> Option<Self> {
        let server = TestServer::with(&[Capability::Simulation])?;
        names.for_each(|name| server.direct().put(&server.key(&name), "x"));
        let mount = server.mount_with(options);
        server.demo().reset_counters();
        Some(Counted { server, mount })
    }

    /// LISTs and HEADs since the last look, when there was nothing else.
    #[track_caller]
    fn asked(&self) -> [u64; 2] {
        let counters = self.server.demo().counters();
        let asked = [Operation::ListObjectsV2, Operation::HeadObject].map(|operation| counters.requests(operation));
        let all: Vec<_> = counters.iter().filter(|(_, count)| count.requests > 0).collect();
        assert_eq!(counters.total().requests, asked.iter().sum::<u64>(), "{all:?}");
        self.server.demo().reset_counters();
        asked
    }
}

/// `dirs` directories of as many files each.
fn tree(dirs: usize, files: usize) -> impl Iterator<Item = String> {
    (0..dirs).flat_map(move |dir| (0..files).map(move |file| format!("tree/d{dir:02}/f{file:02}")))
}

fn thousand() -> impl Iterator<Item = String> {
    (0..1000).map(|number| format!("d/{number:04}"))
}

#[test]
fn the_stat_of_a_path_that_nobody_has_seen_takes_two_requests_a_name() {
    let Some(counted) = Counted::with(&[FRESH], std::iter::once("a/b/c/d/e/f".to_owned())) else { return };
    assert_eq!(std::fs::metadata(counted.mount.path("a/b/c/d/e/f")).expect("it is there").size(), 1);
    assert_eq!(counted.asked(), [6, 6]);
    assert!(counted.mount.path("a/b/c/d/e/f").exists());
    assert_eq!(counted.asked(), [0, 0]);
}

#[test]
fn a_thousand_names_that_are_not_there_take_one_listing() {
    let Some(counted) = Counted::with(&[FRESH], thousand()) else { return };
    for number in 0..1000 {
        assert!(!counted.mount.path(&format!("d/no-{number}")).exists());
    }
    let [lists, heads] = counted.asked();
    assert!(lists <= 6 && heads <= 5, "{lists} LISTs and {heads} HEADs");
}

#[test]
fn a_thousand_names_asked_for_one_by_one_take_one_listing() {
    let Some(counted) = Counted::with(&[FRESH, "metadata=basic"], thousand()) else { return };
    let stat_all = || {
        for name in thousand() {
            assert!(counted.mount.path(&name).exists(), "{name}");
        }
    };
    stat_all();
    let [lists, heads] = counted.asked();
    assert!(lists <= 6 && heads <= 5, "{lists} LISTs and {heads} HEADs");
    stat_all();
    assert_eq!(counted.asked(), [0, 0]);
    // Metadata is in no listing.
    let Some(counted) = Counted::with(&[FRESH], thousand()) else { return };
    for name in thousand() {
        assert!(counted.mount.path(&name).exists(), "{name}");
    }
    let [lists, heads] = counted.asked();
    assert!(lists <= 6 && heads <= 1005, "{lists} LISTs and {heads} HEADs");
}

#[test]
fn a_name_that_was_just_made_elsewhere_is_found_though_its_directory_was_listed_for_other_names() {
    let Some(counted) = Counted::with(&[FRESH, "metadata=basic"], thousand().take(500)) else { return };
    for name in thousand().take(10) {
        assert!(counted.mount.path(&name).exists(), "{name}");
    }
    assert!(counted.asked()[0] <= 5, "the directory was not listed");
    for number in 0..5 {
        let name = format!("d/new-{number}");
        counted.server.direct().put(&counted.server.key(&name), "x");
        assert!(counted.mount.path(&name).exists(), "{name}");
    }
    assert_eq!(counted.asked(), [5, 5]);
}

#[test]
fn ls_l_of_a_thousand_takes_a_listing_and_with_metadata_a_head_each_once() {
    for (metadata, most) in [("metadata=basic", 1), ("metadata=posix", 1001)] {
        let Some(counted) = Counted::with(&[FRESH, metadata], thousand()) else { return };
        assert_eq!(counted.mount.sh("ls -l d | wc -l"), "1001");
        let [lists, heads] = counted.asked();
        assert!(lists <= 2 && heads <= most, "{metadata}: {lists} LISTs and {heads} HEADs");
        assert_eq!(counted.mount.sh("ls -l d | wc -l"), "1001");
        assert_eq!(counted.asked(), [0, 0], "{metadata}: again");
    }
}

#[test]
fn a_tree_that_is_walked_is_listed_by_its_keys() {
    for program in ["find tree | wc -l", "du --inodes -s tree | cut -f1"] {
        let Some(counted) = Counted::with(&[FRESH, "metadata=basic"], tree(100, 100)) else { return };
        assert_eq!(counted.mount.sh(program), "10101", "{program}");
        let [lists, heads] = counted.asked();
        assert!(lists + heads <= 15, "{program}: {lists} LISTs and {heads} HEADs");
        assert_eq!(counted.mount.sh(program), "10101", "{program}");
        assert_eq!(counted.asked(), [0, 0], "{program}: again");
    }
    // Metadata is in no listing, nor is whether a small object is a link.
    let Some(counted) = Counted::with(&[FRESH], tree(30, 30)) else { return };
    assert_eq!(counted.mount.sh("find tree | wc -l"), "931");
    let [lists, heads] = counted.asked();
    assert!(lists <= 6 && heads <= 931, "{lists} LISTs and {heads} HEADs");
    assert_eq!(counted.mount.sh("find tree | wc -l"), "931");
    assert_eq!(counted.asked(), [0, 0]);
}

#[test]
fn a_tree_whose_directories_are_large_or_deep_is_walked_with_no_more_requests_than_it_has_directories_and_pages() {
    let large = (0..4).flat_map(|dir| (0..1500).map(move |file| format!("tree/large{dir}/f{file:04}")));
    let deep = (0..6).flat_map(|a| (0..6).flat_map(move |b| (0..6).map(move |c| format!("tree/z{a}/y{b}/x{c}/file"))));
    let Some(counted) = Counted::with(&[FRESH, "metadata=basic"], large.chain(deep)) else { return };
    assert_eq!(counted.mount.sh("find tree -type f | wc -l"), "6216");
    let [lists, heads] = counted.asked();
    // Two pages each, and one of the walk that is too small for them; below, each of two levels needs a start.
    assert!(lists + heads <= 40, "{lists} LISTs and {heads} HEADs");
}

#[test]
fn git_status_of_a_thousand_files_lists_each_directory_once() {
    let Some(mut counted) = Counted::with(&[FRESH], std::iter::empty()) else { return };
    counted.mount.sh(
        "git init -q r; cd r; for d in 0 1 2 3 4; do mkdir $d; for f in $(seq 200); do echo $f > $d/$f; done; done; \
         git add .; git -c user.name=a -c user.email=a@b commit -qm x",
    );
    counted.mount.remount();
    counted.server.demo().reset_counters();
    let status = || {
        assert_eq!(counted.mount.sh("cd r; git status --porcelain"), "");
        let counters = counted.server.demo().counters();
        counted.server.demo().reset_counters();
        let of = |operation| counters.requests(operation);
        (of(Operation::ListObjectsV2), of(Operation::HeadObject), counters.total().requests)
    };
    // The index, and what git looks for beside it.
    let (lists, heads, all) = status();
    assert!(lists <= 60 && heads <= 1100 && all <= 1200, "{lists} LISTs and {heads} HEADs of {all} requests");
    let (lists, heads, all) = status();
    assert!(lists + heads <= 10 && all <= 20, "again: {lists} LISTs and {heads} HEADs of {all} requests");
}

/// Names in an order that is not that of their keys, markers, and what can't be shown.
fn odd_tree() -> Vec<String> {
    let mut names = Vec::new();
    for dir in ["a", "a-b", "a.b", "a b", "ab", "b", "b0", "c\u{e9}", "d", "e", "f", "g"] {
        names.extend(
            ["1", "2-x/y", "2/z", "2.txt", "sub/", "sub/deep/deeper/leaf"].map(|rest| format!("t/{dir}/{rest}")),
        );
    }
    names.extend(["t/a//hidden", "t/b/../up", "t/d", "t/marker/", "t/h/i/j/k", "t/z"].map(str::to_owned));
    names
}

#[test]
fn a_walk_shows_what_each_directory_alone_would_show() {
    let find = |actimeo: &str| {
        let counted = Counted::with(&[actimeo, "metadata=basic"], odd_tree().into_iter())?;
        let shown = ["find t", "find t -depth", "ls -R t", "du -a --apparent-size t", "find t -name sub -empty"];
        Some(shown.map(|program| counted.mount.sh(&format!("{program} | sort"))))
    };
    let (Some(walked), Some(alone)) = (find(FRESH), find("actimeo=0")) else { return };
    assert_eq!(walked, alone);
    assert!(walked[0].contains("t/g/sub/deep/deeper/leaf") && !walked[0].contains("hidden"));
}

const ALL: [&str; 3] = ["f00", "f01", "f02"];

fn listed(mount: &Mount, dir: usize) -> Vec<String> {
    let names = std::fs::read_dir(mount.path(&format!("tree/d{dir:02}"))).expect("a directory");
    let mut names: Vec<_> =
        names.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A tree of which some directories have been read in order, and the keys of the next ones are here.
fn walked() -> Option<Counted> {
    let counted = Counted::with(&[FRESH, "metadata=basic"], tree(20, 3))?;
    assert_eq!(std::fs::read_dir(counted.mount.path("tree")).expect("a directory").count(), 20);
    counted.asked();
    (0..6).for_each(|dir| assert_eq!(listed(&counted.mount, dir), ALL, "{dir}"));
    assert!(counted.asked()[0] <= 4, "nobody walks");
    Some(counted)
}

#[test]
fn what_changes_while_a_tree_is_walked_shows_at_once() {
    for (change, shown) in [
        ("echo new > tree/d06/new", &["f00", "f01", "f02", "new"][..]),
        ("rm tree/d06/f01", &["f00", "f02"]),
        ("mkdir tree/d06/dir", &["dir", "f00", "f01", "f02"]),
        ("mv tree/d09/f00 tree/d06/moved", &["f00", "f01", "f02", "moved"]),
        ("mv tree/d06/f00 tree/d09/moved", &["f01", "f02"]),
        ("ln -s x tree/d06/link || echo x > tree/d06/link", &["f00", "f01", "f02", "link"]),
        ("rm -r tree/d06; mv tree/d07 tree/d06; touch tree/d06/f03", &["f00", "f01", "f02", "f03"]),
    ] {
        let Some(counted) = walked() else { return };
        counted.mount.sh(change);
        assert_eq!(listed(&counted.mount, 6), shown, "{change}");
        (10..20).for_each(|dir| assert_eq!(listed(&counted.mount, dir), ALL, "{change}: {dir}"));
    }
}

#[test]
fn what_s3_told_of_a_name_is_not_undone_by_a_walk_that_began_before() {
    let Some(counted) = walked() else { return };
    let (bucket, key) = (counted.server.direct(), |name: &str| counted.server.key(name));
    bucket.delete(&key("tree/d07/f01"));
    assert!(!counted.mount.path("tree/d07/f01").exists());
    assert_eq!(listed(&counted.mount, 7), ["f00", "f02"]);
    assert!(!counted.mount.path("tree/d07/f01").exists());
    bucket.put(&key("tree/d08/theirs"), "x");
    assert!(counted.mount.path("tree/d08/theirs").exists());
    assert_eq!(listed(&counted.mount, 8), ["f00", "f01", "f02", "theirs"]);
    counted.asked();
    (9..20).for_each(|dir| assert_eq!(listed(&counted.mount, dir), ALL, "{dir}"));
    assert_eq!(counted.asked(), [0, 0], "the walk has ended");
}

#[test]
fn a_tree_that_is_removed_takes_one_listing_a_directory() {
    let Some(counted) = Counted::with(&[FRESH, "metadata=basic"], tree(30, 4)) else { return };
    counted.mount.sh("rm -r tree");
    let counters = counted.server.demo().counters();
    let of = |operation| counters.requests(operation);
    assert_eq!(of(Operation::DeleteObject), 120);
    let lists = of(Operation::ListObjectsV2);
    assert!(lists <= 65, "{lists} LISTs for 31 directories");
    assert!(counted.server.direct().keys().is_empty());
}
