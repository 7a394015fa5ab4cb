//! What reading costs in requests and bytes, and that what is fetched ahead is never older than an open may believe.

use std::path::Path;
use std::time::{Duration, Instant};

use pailfs::demo::{Operation, Shape};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, eventually, noise};

/// Bytes of a small file.
const SMALL: usize = 4096;

/// So long an open believes what S3 answered.
const SECOND: Duration = Duration::from_secs(1);

fn small(number: usize) -> Vec<u8> {
    noise(number as u64 + 1, SMALL)
}

/// `count` small files in `d`, on a server that answers after some milliseconds.
fn many(count: usize, options: &[&str]) -> Option<(TestServer, Mount)> {
    let server = TestServer::with(&[Capability::Simulation])?;
    for number in 0..count {
        server.direct().put(&server.key(&format!("d/{number:04}")), small(number));
    }
    server.demo().set_shape(Shape { first_byte: Duration::from_millis(3), ..Shape::default() });
    let mount = server.mount_with(options);
    Some((server, mount))
}

/// Names as readdir(3) gives them, and no requests counted so far.
fn names(server: &TestServer, dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the directory opens");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    server.demo().reset_counters();
    names
}

#[track_caller]
fn read_right(dir: &Path, name: &str) {
    let bytes = std::fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_same_bytes(name, &bytes, &small(name.parse().expect("a number")));
}

fn gets(server: &TestServer) -> u64 {
    server.demo().counters().requests(Operation::GetObject)
}

#[test]
fn files_opened_in_listing_order_cost_one_request_each() {
    let Some((server, mount)) = many(400, &[]) else { return };
    let dir = mount.path("d");
    for name in names(&server, &dir) {
        read_right(&dir, &name);
    }
    let (gets, all) = (gets(&server), server.demo().counters().total().requests);
    assert!((400..=404).contains(&gets) && all <= 410, "{all} requests, {gets} of them GETs, for 400 files");
}

#[test]
fn tar_cp_and_grep_read_a_tree_with_about_one_get_a_file() {
    let Some((server, mut mount)) = many(300, &[]) else { return };
    for program in ["tar cf $LOCAL/d.tar d", "cp -r d $LOCAL/copied", "grep -rc NOTHERE d > /dev/null || true"] {
        server.demo().reset_counters();
        mount.sh(program);
        let gets = gets(&server);
        assert!((300..=315).contains(&gets), "{program}: {gets} GETs for 300 files");
        mount.remount();
    }
    for number in 0..300 {
        let copied = std::fs::read(mount.local().join(format!("copied/{number:04}"))).expect("a copy");
        assert_same_bytes("a copy", &copied, &small(number));
    }
    mount.sh("tar xf $LOCAL/d.tar -C $LOCAL; diff -r $LOCAL/d $LOCAL/copied");
}

#[test]
fn files_opened_in_no_order_cost_no_more_than_the_share() {
    let Some((server, mount)) = many(400, &[]) else { return };
    let dir = mount.path("d");
    let names = names(&server, &dir);
    for step in 0..400 {
        read_right(&dir, &names[step * 163 % 400]);
    }
    let gets = gets(&server);
    assert!(gets <= 464, "{gets} GETs for 400 files");
}

#[test]
fn a_file_replaced_after_it_was_fetched_ahead_is_read_as_it_is_a_second_later() {
    let Some((server, mount)) = many(60, &[]) else { return };
    let dir = mount.path("d");
    let names = names(&server, &dir);
    for name in &names[..20] {
        read_right(&dir, name);
    }
    eventually("some are fetched ahead", || gets(&server) > 24);
    for name in &names[20..] {
        server.direct().put(&server.key(&format!("d/{name}")), "new");
    }
    let replaced = Instant::now();
    for name in &names[20..] {
        // What the promise is about is time: what S3 said up to a second ago may be shown.
        loop {
            let began = Instant::now();
            let bytes = std::fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            if bytes == b"new" {
                break;
            }
            assert!(began < replaced + SECOND, "{name} is shown as it was more than a second before");
        }
    }
}

#[test]
fn what_was_fetched_ahead_is_not_shown_after_a_change_made_here() {
    let Some((server, mount)) = many(60, &[]) else { return };
    let dir = mount.path("d");
    let names = names(&server, &dir);
    std::fs::write(mount.path("other"), "moved here").expect("a new file");
    for round in 0..5 {
        for name in &names[round * 10..round * 10 + 6] {
            read_right(&dir, name);
        }
        let at = |index: usize| dir.join(&names[round * 10 + index]);
        std::fs::remove_file(at(6)).expect("removed");
        assert!(std::fs::read(at(6)).is_err(), "a removed file is back");
        std::fs::write(at(7), "changed").expect("changed");
        assert_eq!(std::fs::read(at(7)).expect("read"), b"changed");
        std::fs::copy(mount.path("other"), mount.path("other2")).expect("a copy");
        std::fs::rename(mount.path("other2"), at(8)).expect("moved");
        assert_eq!(std::fs::read(at(8)).expect("read"), b"moved here");
    }
}

#[test]
fn nothing_is_fetched_ahead_for_writers_nor_where_it_is_turned_off() {
    for options in [&["noac"][..], &["read_ahead=0"], &[]] {
        let Some((server, mount)) = many(40, options) else { return };
        let dir = mount.path("d");
        for name in names(&server, &dir) {
            if options.is_empty() {
                drop(std::fs::File::options().append(true).open(dir.join(&name)).expect("an open for writing"));
            } else {
                read_right(&dir, &name);
            }
        }
        let most = if options.is_empty() { 0 } else { 40 };
        assert!(gets(&server) <= most, "{options:?}: {} GETs", gets(&server));
    }
}
