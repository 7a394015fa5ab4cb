//! The disk cache on real mounts: what it saves, also between mounts, and that it never shows a wrong byte.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, Mount, MountOptions, TestServer, assert_same_bytes, eventually, noise, signal};

const MIB: usize = 1 << 20;

/// A server, a directory for a cache, and what mounts them together.
pub struct World {
    server: TestServer,
    pub root: tempfile::TempDir,
}

impl World {
    pub fn new() -> Option<World> {
        let server = TestServer::with(&[Capability::Simulation])?;
        Some(World { server, root: tempfile::tempdir().expect("a directory") })
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    fn mount(&self) -> Mount {
        self.mount_with(&["cache_min_free=0"])
    }

    pub fn mount_with(&self, options: &[&str]) -> Mount {
        let dir = format!("cache_dir={}", self.dir().display());
        Mount::start(&self.server, MountOptions::new(&[options, &[dir.as_str()]].concat()))
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.server.direct().put(&self.server.key(name), bytes.to_vec());
    }

    /// Bytes that came out of the store since this was last asked.
    pub fn fetched(&self) -> u64 {
        let came = self.server.demo().counters().of(Operation::GetObject).bytes_out;
        self.server.demo().reset_counters();
        came
    }

    pub fn files(&self, ending: &str) -> Vec<PathBuf> {
        let shards = std::fs::read_dir(self.dir()).expect("the cache").flatten();
        let entries = shards.filter_map(|shard| std::fs::read_dir(shard.path()).ok()).flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(ending)).collect()
    }

    fn bytes_on_disk(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.files("").iter().filter_map(|path| path.metadata().ok()).map(|found| found.blocks() * 512).sum()
    }
}

#[track_caller]
fn read_right(mount: &Mount, name: &str, bytes: &[u8]) {
    assert_same_bytes(name, &std::fs::read(mount.path(name)).expect("a read"), bytes);
}

#[test]
fn the_next_mount_and_another_one_fetch_no_bytes() {
    let Some(world) = World::new() else { return };
    let (large, small) = (noise(1, 12 * MIB + 5), noise(2, 3000));
    world.put("large", &large);
    world.put("d/small", &small);
    let mut first = world.mount();
    read_right(&first, "large", &large);
    read_right(&first, "d/small", &small);
    assert!(world.fetched() >= (large.len() + small.len()) as u64);
    first.remount();
    let other = world.mount();
    for mount in [&first, &other] {
        read_right(mount, "large", &large);
        read_right(mount, "d/small", &small);
    }
    assert_eq!(world.fetched(), 0);
}

#[test]
fn an_open_of_a_cached_file_asks_once_and_shows_what_changed() {
    let Some(world) = World::new() else { return };
    let (old, new) = (noise(1, 500_000), noise(2, 500_000));
    world.put("f", &old);
    let mut mount = world.mount();
    read_right(&mount, "f", &old);
    mount.remount();
    std::fs::metadata(mount.path("f")).expect("it is there");
    // An answer is believed for a second.
    let looked = std::time::Instant::now();
    eventually("the second is over", || looked.elapsed() > std::time::Duration::from_secs(1));
    world.server.demo().reset_counters();
    read_right(&mount, "f", &old);
    let counters = world.server.demo().counters();
    assert_eq!((counters.total().requests, counters.requests(Operation::HeadObject)), (1, 1));
    mount.remount();
    world.put("f", &new);
    world.fetched();
    read_right(&mount, "f", &new);
    assert_eq!(world.fetched(), 500_000);
}

#[test]
fn a_written_file_is_read_back_without_a_byte_from_the_store() {
    written_and_read_back("commit=close");
}

#[test]
fn a_file_that_is_stored_after_its_close_is_read_back_without_a_byte_from_the_store() {
    written_and_read_back("commit=async");
}

fn written_and_read_back(commit: &str) {
    let Some(world) = World::new() else { return };
    let mut mount = world.mount_with(&["cache_min_free=0", commit]);
    let files = [("small", noise(1, 3000)), ("large", noise(2, 20 * MIB + 1)), ("d/deep", noise(3, MIB))];
    std::fs::create_dir(mount.path("d")).expect("a directory");
    for (name, bytes) in &files {
        std::fs::write(mount.path(name), bytes).expect("written");
    }
    world.fetched();
    for (name, bytes) in &files {
        // What the kernel has of it is of no help.
        let file = std::fs::File::open(mount.path(name)).expect("an open");
        eventually("it is kept", || world.files(".data").len() == files.len());
        drop_pages(&file);
        read_right(&mount, name, bytes);
    }
    assert_eq!(world.fetched(), 0, "on the mount that wrote them");
    mount.remount();
    for (name, bytes) in &files {
        read_right(&mount, name, bytes);
    }
    assert_eq!(world.fetched(), 0, "on the next mount");
}

/// The kernel lets go the pages of a file.
fn drop_pages(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; the call takes numbers.
    let answer = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(answer, 0);
}

#[test]
fn a_poisoned_entry_is_fetched_again_and_never_shown() {
    let Some(world) = World::new() else { return };
    let bytes = noise(1, 4 * MIB);
    world.put("f", &bytes);
    let mut mount = world.mount();
    read_right(&mount, "f", &bytes);
    mount.unmount();
    let file = std::fs::File::options().write(true).open(&world.files(".data")[0]).expect("the entry");
    file.write_all_at(b"poison", 2 * MIB as u64 + 100).expect("poisoned");
    world.fetched();
    mount.mount_again();
    read_right(&mount, "f", &bytes);
    assert!(world.fetched() > 0);
    assert!(mount.log().contains("damaged"), "nothing in the log: {}", mount.log());
}

#[test]
fn a_killed_daemon_leaves_a_cache_that_the_next_mount_can_use() {
    let Some(world) = World::new() else { return };
    let bytes = noise(1, 64 * MIB);
    world.put("f", &bytes);
    for _ in 0..4 {
        let mut mount = world.mount();
        let (pid, path) = (mount.pid(), mount.path("f"));
        let reading = std::thread::spawn(move || std::fs::read(path).map(|_| ()));
        eventually("some of it is kept", || world.bytes_on_disk() > 0 || reading.is_finished());
        signal(pid, libc::SIGKILL);
        let _ = reading.join().expect("no panic");
        mount.kill();
    }
    let mount = world.mount();
    read_right(&mount, "f", &bytes);
}

#[test]
fn a_cache_that_is_too_small_holds_its_limit_and_fails_no_read() {
    let Some(world) = World::new() else { return };
    let bytes: Vec<Vec<u8>> = (0..6).map(|seed| noise(seed, 3 * MIB)).collect();
    for (number, bytes) in bytes.iter().enumerate() {
        world.put(&number.to_string(), bytes);
    }
    let mut mount = world.mount_with(&["cache_limit=8MiB", "cache_min_free=0"]);
    for _ in 0..2 {
        for (number, bytes) in bytes.iter().enumerate() {
            read_right(&mount, &number.to_string(), bytes);
            assert!(world.bytes_on_disk() <= 8 * MIB as u64);
        }
        mount.remount();
    }
    assert!(world.bytes_on_disk() > 4 * MIB as u64, "nothing is kept");
}

#[test]
fn a_full_disk_fails_no_read() {
    let Some(world) = World::new() else { return };
    let bytes = noise(1, 8 * MIB);
    world.put("f", &bytes);
    let dir = world.dir();
    std::fs::create_dir(&dir).expect("a directory");
    let Some(_small) = small_disk(&dir) else { return };
    let mut mount = world.mount();
    for _ in 0..2 {
        read_right(&mount, "f", &bytes);
        mount.remount();
    }
    drop(mount);
}

/// Two MiB of memory, mounted over a directory until it is dropped.
pub struct SmallDisk(pub PathBuf);

fn small_disk(dir: &Path) -> Option<SmallDisk> {
    let mut command = std::process::Command::new("mount");
    let mounted = command.args(["-t", "tmpfs", "-o", "size=2M,mode=700", "tmpfs"]).arg(dir).status();
    if !mounted.is_ok_and(|status| status.success()) {
        crate::common::skipped(&crate::common::test_name(), "a tmpfs can't be mounted");
        return None;
    }
    Some(SmallDisk(dir.to_owned()))
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_cache_directory_that_vanishes_fails_no_read() {
    let Some(world) = World::new() else { return };
    let (one, other) = (noise(1, 3 * MIB), noise(2, 3 * MIB));
    world.put("one", &one);
    world.put("other", &other);
    let mount = world.mount();
    read_right(&mount, "one", &one);
    std::fs::remove_dir_all(world.dir()).expect("removed");
    read_right(&mount, "other", &other);
    read_right(&mount, "one", &one);
}

#[test]
fn a_larger_file_that_came_wrong_is_not_kept_and_the_next_mount_has_the_right_one() {
    let Some(world) = World::new() else { return };
    let bytes = noise(1, 20 * MIB + 5);
    world.put("f", &bytes);
    // Where only reading is allowed the kernel may read what is whole by itself.
    for options in [&["cache_min_free=0"][..], &["cache_min_free=0", "ro"]] {
        let mut mount = world.mount_with(options);
        let wrong = Fault::new(FaultKind::CorruptBody { at: 100_000 }).on(Operation::GetObject);
        world.server.demo().add_fault(wrong.skip(2).once());
        let read = std::fs::read(mount.path("f"));
        assert_eq!(read.err().and_then(|error| error.raw_os_error()), Some(libc::EIO));
        assert_eq!(world.files(".data"), Vec::<PathBuf>::new());
        read_right(&mount, "f", &bytes);
        mount.remount();
        world.fetched();
        read_right(&mount, "f", &bytes);
        assert_eq!(world.fetched(), 0, "it is kept when it is right");
        mount.unmount();
        std::fs::remove_dir_all(world.dir()).expect("removed");
    }
}
