//! What reading costs in requests and bytes, and that what is fetched ahead is never older than an open may believe.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pailfs::demo::{Operation, Shape};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, eventually, noise};

/// Bytes of a small file.
const SMALL: usize = 4096;

/// What a random read is rounded to.
const BLOCK: u64 = 128 << 10;

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
    assert!((400..=440).contains(&gets) && all <= 450, "{all} requests, {gets} of them GETs, for 400 files");
}

#[test]
fn tar_cp_and_grep_read_a_tree_with_about_one_get_a_file() {
    let Some((server, mut mount)) = many(300, &[]) else { return };
    for program in ["tar cf $LOCAL/d.tar d", "cp -r d $LOCAL/copied", "grep -rc NOTHERE d > /dev/null || true"] {
        server.demo().reset_counters();
        mount.sh(program);
        let gets = gets(&server);
        assert!((300..=330).contains(&gets), "{program}: {gets} GETs for 300 files");
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

/// The names of sixty small files that a listing showed without attributes, in no order. The kernel asks for those of the first
/// 160 names of each listing by itself.
fn sixty_shown_plainly(server: &TestServer, dir: &Path) -> Vec<String> {
    let shown = names(server, dir);
    let plain = &shown[shown.len() - 60..];
    (0..60).map(|step| plain[step * 37 % 60].clone()).collect()
}

/// GETs, HEADs and LISTs so far.
fn requests(server: &TestServer) -> [u64; 3] {
    let counters = server.demo().counters();
    [Operation::GetObject, Operation::HeadObject, Operation::ListObjectsV2]
        .map(|operation| counters.requests(operation))
}

#[test]
fn files_read_in_no_order_come_with_their_lookups() {
    let Some((server, mount)) = many(260, &["acdirmin=60"]) else { return };
    let dir = mount.path("d");
    for name in sixty_shown_plainly(&server, &dir) {
        read_right(&dir, &name);
    }
    // On a machine that stands still for a second some come too late.
    let [gets, heads, lists] = requests(&server);
    assert!((60..=64).contains(&gets) && heads <= 8 && lists <= 4, "{gets} GETs, {heads} HEADs, {lists} LISTs");
    assert!(server.demo().counters().total().requests <= 68);
}

#[test]
fn files_that_no_listing_showed_come_with_their_lookups() {
    let Some((server, mount)) = many(60, &[]) else { return };
    let dir = mount.path("d");
    assert!(dir.is_dir());
    server.demo().reset_counters();
    for step in 0..60 {
        read_right(&dir, &format!("{:04}", step * 37 % 60));
    }
    let [gets, heads, lists] = requests(&server);
    assert!((60..=64).contains(&gets) && heads <= 8 && lists <= 64, "{gets} GETs, {heads} HEADs, {lists} LISTs");
}

#[test]
fn who_only_looks_at_files_fetches_none_and_two_after_reading() {
    for (first, in_vain) in [(0, 0), (10, 2)] {
        let Some((server, mount)) = many(260, &["acdirmin=60"]) else { return };
        let dir = mount.path("d");
        let names = sixty_shown_plainly(&server, &dir);
        let (read, looked_at) = names.split_at(first);
        read.iter().for_each(|name| read_right(&dir, name));
        for name in looked_at {
            assert_eq!(dir.join(name).metadata().expect("a file").len(), SMALL as u64);
        }
        let [gets, heads, _] = requests(&server);
        assert!(gets <= (first + in_vain) as u64, "{gets} GETs for {first} files read");
        assert!(heads >= (60 - first - in_vain) as u64 && gets + heads <= 64, "{gets} GETs, {heads} HEADs");
    }
}

#[test]
fn ls_and_find_send_what_they_sent_before() {
    let Some((server, mut mount)) = many(260, &[]) else { return };
    // After readers, too.
    for number in [7, 100, 55, 200] {
        read_right(&mount.path("d"), &format!("{number:04}"));
    }
    for (program, most) in [("find d -type f > /dev/null", 170), ("ls -l d > /dev/null", 270)] {
        server.demo().reset_counters();
        mount.sh(program);
        let [gets, heads, _] = requests(&server);
        assert!(gets <= 2 && heads <= most, "{program}: {gets} GETs, {heads} HEADs");
        mount.remount();
    }
}

#[test]
fn a_listing_is_read_again_without_asking_s3_until_something_changes() {
    let Some((server, mount)) = many(50, &["actimeo=600"]) else { return };
    let dir = mount.path("d");
    assert_eq!(names(&server, &dir).len(), 50);
    let again = || std::fs::read_dir(&dir).expect("the directory opens").count();
    assert_eq!((again(), again()), (50, 50));
    assert_eq!(requests(&server)[2], 0);
    std::fs::create_dir(dir.join("made")).expect("a directory is made");
    assert_eq!(again(), 51);
    assert!(requests(&server)[2] > 0);
}

/// A mount and one large file of so many bytes, which nothing has looked at.
fn large(size: usize) -> Option<(TestServer, Mount, Vec<u8>)> {
    let server = TestServer::with(&[Capability::Simulation])?;
    let bytes = noise(77, size);
    server.direct().put(&server.key("large"), bytes.clone());
    let mount = server.mount();
    server.demo().reset_counters();
    Some((server, mount, bytes))
}

/// Requests for bytes, and the bytes that came.
fn fetched(server: &TestServer) -> (u64, u64) {
    let count = server.demo().counters().of(Operation::GetObject);
    (count.requests, count.bytes_out)
}

#[track_caller]
fn read_at(file: &File, bytes: &[u8], at: u64, len: usize) {
    let mut read = vec![0; len];
    file.read_exact_at(&mut read, at).unwrap_or_else(|error| panic!("{len} bytes at {at}: {error}"));
    assert_same_bytes("a read", &read, &bytes[at as usize..at as usize + len]);
}

/// Places that nobody could guess, all different, each with `len` bytes in a file of `size`.
fn places(count: u64, size: u64, len: u64) -> impl Iterator<Item = u64> {
    let mut steps: Vec<u64> = (0..size / len).collect();
    steps.sort_by_key(|step| crc_fast::crc64_nvme(&step.to_le_bytes()));
    steps.into_iter().take(count as usize).map(move |step| step * len)
}

#[test]
fn a_sequential_read_brings_each_byte_once_in_few_requests() {
    let Some((server, mount, bytes)) = large(64 << 20) else { return };
    let read = std::fs::read(mount.path("large")).expect("a read");
    assert_same_bytes("a sequential read", &read, &bytes);
    let (requests, came) = fetched(&server);
    assert!(requests <= 24 && came == 64 << 20, "{requests} requests brought {came} bytes");
}

#[test]
fn random_reads_of_4_kib_bring_their_blocks_and_no_more() {
    let Some((server, mount, bytes)) = large(96 << 20) else { return };
    let file = File::open(mount.path("large")).expect("an open");
    places(100, 96 << 20, BLOCK).for_each(|at| read_at(&file, &bytes, at + 8192, 4096));
    let (requests, came) = fetched(&server);
    assert!(requests <= 102 && came * 4 <= 100 * BLOCK * 5, "{requests} requests brought {came} bytes");
}

#[test]
fn random_reads_of_1_mib_bring_what_they_ask_and_no_more() {
    const MIB: u64 = 1 << 20;
    let Some((server, mount, bytes)) = large(96 << 20) else { return };
    let file = File::open(mount.path("large")).expect("an open");
    places(40, 96 << 20, 2 * MIB).for_each(|at| read_at(&file, &bytes, at, MIB as usize));
    let (requests, came) = fetched(&server);
    assert!(requests <= 60 && came * 4 <= 40 * MIB * 5, "{requests} requests brought {came} bytes");
}

#[test]
fn a_footer_and_three_ranges_bring_little_more_than_they_ask() {
    const MIB: u64 = 1 << 20;
    let Some((server, mount, bytes)) = large(64 << 20) else { return };
    let file = File::open(mount.path("large")).expect("an open");
    read_at(&file, &bytes, (64 << 20) - 8, 8);
    read_at(&file, &bytes, (64 << 20) - 65_536, 65_536);
    for at in [40, 10, 25] {
        read_at(&file, &bytes, at * MIB, MIB as usize);
    }
    let (requests, came) = fetched(&server);
    assert!(requests <= 12 && came <= 6 * MIB + MIB / 2, "{requests} requests brought {came} bytes");
}

#[test]
fn reads_that_go_backwards_bring_each_byte_once() {
    let Some((server, mount, bytes)) = large(16 << 20) else { return };
    let file = File::open(mount.path("large")).expect("an open");
    (0..128).rev().for_each(|index| read_at(&file, &bytes, index * BLOCK, BLOCK as usize));
    let (requests, came) = fetched(&server);
    assert!(requests <= 130 && came * 8 <= (16 << 20) * 9, "{requests} requests brought {came} bytes");
}

#[test]
fn a_second_read_brings_nothing() {
    let Some((server, mount, bytes)) = large(32 << 20) else { return };
    assert_same_bytes("the first read", &std::fs::read(mount.path("large")).expect("a read"), &bytes);
    server.demo().reset_counters();
    let first = Instant::now();
    // Within the second, and after it: the open then asks whether it is still the same.
    assert_same_bytes("at once", &std::fs::read(mount.path("large")).expect("a read"), &bytes);
    eventually("the second is over", || first.elapsed() > SECOND);
    assert_same_bytes("later", &std::fs::read(mount.path("large")).expect("a read"), &bytes);
    // The kernel drops pages when it wants to; without what it keeps, all of them would come, twice.
    let (requests, came) = fetched(&server);
    assert!(came * 2 <= 32 << 20, "{requests} requests brought {came} bytes");
}

#[test]
fn two_who_read_one_file_at_once_bring_it_once() {
    let Some((server, mount, bytes)) = large(8 << 20) else { return };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                assert_same_bytes("one of two", &std::fs::read(mount.path("large")).expect("a read"), &bytes)
            });
        }
    });
    let (_, came) = fetched(&server);
    assert!(came <= 9 << 20, "{came} bytes for a file of 8 MiB");
}

/// In turns, so that each one needs memory while all others hold some: 24 windows would fill the limit many times.
#[test]
fn many_streams_share_little_memory_and_none_is_refused() {
    const STREAMS: usize = 24;
    const SIZE: usize = 4 << 20;
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let contents: Vec<Vec<u8>> = (0..STREAMS as u64).map(|seed| noise(seed, SIZE)).collect();
    for (number, bytes) in contents.iter().enumerate() {
        server.direct().put(&server.key(&format!("s{number}")), bytes.clone());
    }
    let mount = server.mount_with(&["memory_limit=32MiB"]);
    let files: Vec<File> =
        (0..STREAMS).map(|number| File::open(mount.path(&format!("s{number}"))).expect("an open")).collect();
    server.demo().reset_counters();
    for at in (0..SIZE).step_by(256 << 10) {
        for (file, bytes) in files.iter().zip(&contents) {
            read_at(file, bytes, at as u64, 256 << 10);
        }
    }
    let (_, came) = fetched(&server);
    let asked = (STREAMS * SIZE) as u64;
    assert!(came <= asked * 5 / 4, "{came} bytes came for {asked}: streams take each other's memory");
}

/// The kernel keeps pages by inode: what others bring of a newer version must not be taken for that of an older one.
#[test]
fn who_has_a_file_open_is_never_shown_a_newer_version_that_others_read() {
    const FIRST: usize = 64 << 10;
    let server = TestServer::start();
    let mount = server.mount();
    for (name, size) in [("same", 4 << 20), ("shorter", 1 << 20), ("longer", (4 << 20) + 1)] {
        let (old, new) = (noise(1, 4 << 20), noise(2, size));
        server.objects().put(name, old.clone());
        let path = mount.path(name);
        let file = File::open(&path).expect("an open");
        read_at(&file, &old, 0, FIRST);
        server.objects().put(name, new.clone());
        // An open that believes what it knows for a second is told of the change by its read.
        eventually("an open shows the new version", || std::fs::read(&path).is_ok_and(|seen| seen == new));
        let mut rest = vec![0; old.len() - FIRST];
        match file.read_exact_at(&mut rest, FIRST as u64) {
            Ok(()) => assert_same_bytes(name, &rest, &old[FIRST..]),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{name}: {error}"),
        }
        let stat = file.metadata().expect("attributes of what is open");
        assert_eq!(stat.len(), old.len() as u64, "{name}: the size of another version");
        assert_eq!(std::fs::metadata(&path).expect("attributes").len(), new.len() as u64, "{name}");
        drop(file);
        assert_same_bytes(name, &std::fs::read(&path).expect("a read"), &new);
    }
}
