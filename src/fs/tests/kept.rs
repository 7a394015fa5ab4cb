//! What the disk cache saves, and what it must not hide.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::CacheSettings;
use crate::transfer::tests::fake::Call;

/// A disk and a store, mounted again and again.
pub(super) struct Disk {
    root: tempfile::TempDir,
    pub store: Arc<Fake>,
}

impl Disk {
    pub fn new() -> Disk {
        Disk { root: tempfile::tempdir().expect("a folder"), store: Arc::new(Fake::new(false)) }
    }

    /// A mount as if nobody had mounted before: it knows nothing, and asks of S3 each time.
    fn mount(&self) -> Rig {
        self.mount_with(no_cache(), 1 << 30)
    }

    pub fn mount_with(&self, settings: FsSettings, limit: u64) -> Rig {
        let cache = CacheSettings { dir: self.dir(), limit, min_free: 0 };
        let cache = DiskCache::open(cache, "test".to_owned()).expect("a cache");
        self.store.take_calls();
        Rig::keeping(self.store.clone(), settings, Some(cache))
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    /// The next mount reads these bytes, and fetches none.
    async fn next_mount_has(&self, name: &str, bytes: &[u8]) {
        let mount = self.mount();
        assert!(mount.read_whole(name).await == bytes, "{name} has wrong bytes");
        assert!(!self.store.take_calls().contains(&Call::Get), "bytes of {name} were fetched");
    }

    /// The files of bytes in it.
    pub fn data_files(&self) -> Vec<PathBuf> {
        let shards = std::fs::read_dir(self.dir()).expect("the cache").flatten();
        let entries = shards.filter_map(|shard| std::fs::read_dir(shard.path()).ok()).flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| is_data(path)).collect()
    }
}

fn is_data(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "data")
}

impl Rig {
    /// Reads a file whole, in steps, and waits until what came is kept.
    pub async fn read_whole(&self, name: &str) -> Vec<u8> {
        let ino = self.ino(Ino::ROOT, name).await.expect("a file");
        let fh = self.fs.open(ino, READ).await.expect("an open").fh;
        let mut all = Vec::new();
        loop {
            let bytes = self.fs.read(fh, all.len() as u64, 128 << 10).await.expect("a read");
            if bytes.is_empty() {
                break;
            }
            all.extend_from_slice(&bytes);
        }
        self.fs.release(fh).await.expect("a release");
        self.fs.transfer.kept(Duration::from_secs(10)).await;
        all
    }
}

pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| ((at + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[tokio::test]
async fn the_next_mount_fetches_no_bytes_and_still_asks_whether_they_are_right() {
    for size in [5, 128 << 10, (1 << 20) + 1, (5 << 20) + 777] {
        let (disk, bytes) = (Disk::new(), noise(1, size));
        disk.store.set("p/f", bytes.clone());
        assert!(disk.mount().read_whole("f").await == bytes);
        let second = disk.mount();
        let ino = second.ino(Ino::ROOT, "f").await.expect("a file");
        disk.store.take_calls();
        let fh = second.open(ino, READ).await;
        assert_eq!(disk.store.take_calls(), [Call::Head], "the open of {size} bytes");
        second.close(fh).await.expect("a close");
        assert!(second.read_whole("f").await == bytes);
        assert!(!disk.store.take_calls().contains(&Call::Get), "{size} bytes");
    }
}

#[tokio::test]
async fn a_file_changed_since_is_fetched_anew() {
    let disk = Disk::new();
    disk.store.set("p/f", noise(1, 300_000));
    disk.mount().read_whole("f").await;
    let mount = disk.mount();
    mount.read_whole("f").await;
    let changed = noise(2, 300_000);
    disk.store.set("p/f", changed.clone());
    assert!(mount.read_whole("f").await == changed, "an open that shows the old bytes");
    assert!(disk.mount().read_whole("f").await == changed);
}

#[tokio::test]
async fn an_open_shows_a_change_and_a_removal_after_the_last_look() {
    let (disk, changed) = (Disk::new(), noise(2, 300_000));
    disk.store.set("p/f", noise(1, 300_000));
    disk.mount().read_whole("f").await;
    let mount = disk.mount();
    let ino = mount.ino(Ino::ROOT, "f").await.expect("a file");
    disk.store.set("p/f", changed.clone());
    // The kernel does not know of the change: the open is refused, and it asks again.
    let opened = match mount.fs.open(ino, READ).await {
        Err(crate::error::Error::Stale) => {
            let ino = mount.ino(Ino::ROOT, "f").await.expect("a file");
            mount.fs.open(ino, READ).await
        }
        opened => opened,
    };
    let fh = opened.expect("an open").fh;
    assert!(mount.fs.read(fh, 0, 300_000).await.expect("a read") == changed);
    let mount = disk.mount();
    let ino = mount.ino(Ino::ROOT, "f").await.expect("a file");
    disk.store.remove("p/f");
    assert!(mount.fs.open(ino, READ).await.is_err());
}

#[tokio::test]
async fn what_is_read_in_odd_steps_is_kept_without_gaps() {
    let (disk, bytes) = (Disk::new(), noise(1, 12 << 20));
    disk.store.set("p/f", bytes.clone());
    let mut fetched = 0;
    for round in 0..2 {
        let mount = disk.mount();
        let ino = mount.ino(Ino::ROOT, "f").await.expect("a file");
        let fh = mount.open(ino, READ).await;
        for at in (1_000_003..bytes.len()).step_by(100_003) {
            let end = bytes.len().min(at + 100_003);
            assert!(mount.fs.read(fh, at as u64, 100_003).await.expect("a read") == bytes[at..end]);
        }
        mount.close(fh).await.expect("a close");
        mount.fs.transfer.kept(Duration::from_secs(10)).await;
        // Of the first bytes, which nobody reads, the open's request may be cut short.
        let gets = disk.store.gets().split_off(fetched);
        assert!(round == 0 || gets.iter().all(|get| get.end <= 1_000_003), "{gets:?}");
        fetched += gets.len();
    }
}

#[tokio::test]
async fn a_lock_that_another_process_never_gives_back_stops_no_read() {
    let (disk, bytes) = (Disk::new(), noise(1, 24 << 20));
    disk.store.set("p/f", bytes.clone());
    let mount = disk.mount();
    let usage = std::fs::File::open(disk.dir().join("usage")).expect("the file of numbers");
    usage.lock().expect("a lock");
    // Nor the start of another mount.
    let other = disk.mount();
    let read = async |mount: &Rig| {
        let ino = mount.ino(Ino::ROOT, "f").await.expect("a file");
        let fh = mount.open(ino, READ).await;
        for (number, part) in bytes.chunks(1 << 20).enumerate() {
            assert!(mount.fs.read(fh, (number << 20) as u64, 1 << 20).await.expect("a read") == part);
        }
    };
    let both = async {
        read(&mount).await;
        read(&other).await;
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("it hangs");
    drop(usage);
}

#[tokio::test]
async fn a_poisoned_entry_is_fetched_anew() {
    let (disk, bytes) = (Disk::new(), noise(1, 3 << 20));
    disk.store.set("p/f", bytes.clone());
    disk.mount().read_whole("f").await;
    for place in [0, 1 << 20, (3 << 20) - 1] {
        let file = std::fs::File::options().write(true).open(&disk.data_files()[0]).expect("its file");
        std::os::unix::fs::FileExt::write_all_at(&file, &[!bytes[place]], place as u64).expect("poisoned");
        let mount = disk.mount();
        assert!(mount.read_whole("f").await == bytes, "poisoned at {place}");
        assert!(disk.store.take_calls().contains(&Call::Get));
        // What came again is kept again, all of it after another reading.
        disk.mount().read_whole("f").await;
        assert!(disk.mount().read_whole("f").await == bytes);
        assert!(!disk.store.take_calls().contains(&Call::Get), "poisoned at {place}");
    }
}

#[tokio::test]
async fn a_read_succeeds_where_nothing_fits_and_where_the_directory_is_gone() {
    let (disk, bytes) = (Disk::new(), noise(1, 3 << 20));
    disk.store.set("p/f", bytes.clone());
    let mount = disk.mount_with(no_cache(), 1 << 20);
    assert!(mount.read_whole("f").await == bytes);
    assert!(mount.read_whole("f").await == bytes);
    std::fs::remove_dir_all(disk.dir()).expect("removed");
    assert!(mount.read_whole("f").await == bytes);
}

#[tokio::test]
async fn a_change_of_a_file_that_is_kept_fetches_nothing_of_it() {
    let (disk, mut bytes) = (Disk::new(), noise(1, 2 << 20));
    disk.store.set("p/f", bytes.clone());
    disk.mount().read_whole("f").await;
    let mount = disk.mount();
    let ino = mount.ino(Ino::ROOT, "f").await.expect("a file");
    let fh = mount.open(ino, WRITE).await;
    mount.fs.write(fh, 1_000_000, b"changed").await.expect("a write");
    mount.close(fh).await.expect("a close");
    bytes[1_000_000..][..7].copy_from_slice(b"changed");
    assert!(mount.object("p/f") == Some(bytes));
    assert!(!disk.store.take_calls().contains(&Call::Get));
}

#[tokio::test]
async fn files_in_listing_order_are_asked_for_ahead_without_their_bytes() {
    let disk = Disk::new();
    for number in 0..40 {
        disk.store.set(&format!("p/d/{number:02}"), noise(number, 2000));
    }
    // Believed long enough for guesses.
    let read = async |mount: &Rig| {
        let dir = mount.ino(Ino::ROOT, "d").await.expect("a directory");
        for (number, name) in mount.names(dir).await.iter().enumerate() {
            let ino = mount.ino(dir, name).await.expect("a file");
            assert!(mount.read(ino).await.expect("a read") == noise(number as u64, 2000), "{name}");
        }
        mount.fs.transfer.kept(Duration::from_secs(10)).await;
    };
    read(&disk.mount_with(settings(), 1 << 30)).await;
    let second = disk.mount_with(settings(), 1 << 30);
    read(&second).await;
    let calls = disk.store.take_calls();
    assert!(!calls.contains(&Call::Get), "{calls:?}");
}

#[tokio::test]
async fn a_written_file_is_read_back_without_fetching_it() {
    for size in [1, 300_000, 20 << 20] {
        let (disk, bytes) = (Disk::new(), noise(1, size));
        let mount = disk.mount();
        mount.put(Ino::ROOT, "f", &bytes).await;
        mount.fs.transfer.kept(Duration::from_secs(10)).await;
        // Here too: what was staged is gone.
        assert!(mount.read_whole("f").await == bytes);
        assert!(!disk.store.take_calls().contains(&Call::Get), "{size} bytes");
        disk.next_mount_has("f", &bytes).await;
    }
}

#[tokio::test]
async fn a_file_written_again_is_kept_as_it_is_now() {
    let (disk, mut bytes) = (Disk::new(), noise(1, 300_000));
    let mount = disk.mount();
    let ino = mount.put(Ino::ROOT, "f", &bytes).await;
    for round in 0..3 {
        let fh = mount.open(ino, WRITE).await;
        // Two commits with one handle: the first version's bytes are changed in place.
        for step in 0..2 {
            let at = round * 90_000 + step * 40_000;
            mount.fs.write(fh, at as u64, b"changed").await.expect("a write");
            bytes[at..at + 7].copy_from_slice(b"changed");
            mount.fs.fsync(fh).await.expect("a commit");
        }
        mount.close(fh).await.expect("a close");
        mount.fs.transfer.kept(Duration::from_secs(10)).await;
        disk.next_mount_has("f", &bytes).await;
    }
    assert!(mount.object("p/f") == Some(bytes));
}

#[tokio::test]
async fn a_file_renamed_while_it_is_open_is_kept_under_its_new_name() {
    let (disk, bytes) = (Disk::new(), noise(1, 300_000));
    let mount = disk.mount();
    let (_, fh) = mount.create(Ino::ROOT, "f").await;
    mount.fs.write(fh, 0, &bytes).await.expect("a write");
    mount.fs.fsync(fh).await.expect("a commit");
    let mode = crate::fs::RenameMode::Replace;
    mount.fs.rename(Ino::ROOT, b"f", Ino::ROOT, b"g", mode).await.expect("a rename");
    mount.close(fh).await.expect("a close");
    mount.fs.transfer.kept(Duration::from_secs(10)).await;
    disk.next_mount_has("g", &bytes).await;
}

#[tokio::test]
async fn a_written_file_that_cannot_be_moved_is_copied() {
    let (disk, bytes) = (Disk::new(), noise(1, 3_000_000));
    let mount = disk.mount();
    let (_, fh) = mount.create(Ino::ROOT, "f").await;
    mount.fs.write(fh, 0, &bytes).await.expect("a write");
    // Somebody still has the staged file when the last handle goes.
    let staged = {
        let inode = mount.fs.file_handle(fh).expect("a handle").pin.inode().clone();
        inode.lock().file().expect("a file").staged().expect("staged bytes").clone()
    };
    mount.close(fh).await.expect("a close");
    mount.fs.transfer.kept(Duration::from_secs(10)).await;
    assert!(staged.path().exists());
    disk.next_mount_has("f", &bytes).await;
}
