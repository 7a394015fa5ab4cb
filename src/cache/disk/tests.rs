//! The cache against damage, limits, other instances and time.

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::types::{ByteRange, ETag};

/// A size that ends within a block.
const SIZE: u64 = 5 * BLOCK + 1000;

struct Rig {
    root: tempfile::TempDir,
    cache: DiskCache,
}

impl Rig {
    fn new() -> Self {
        Self::limited(1 << 30, 0)
    }

    fn limited(limit: u64, min_free: u64) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let cache = open(root.path(), limit, min_free);
        Rig { root, cache }
    }

    /// Another mount, or the next one.
    fn another(&self) -> DiskCache {
        open(self.root.path(), 1 << 30, 0)
    }

    /// The files of all entries with this ending, with their paths.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for shard in std::fs::read_dir(self.root.path().join("c")).expect("the cache").flatten() {
            let Ok(entries) = std::fs::read_dir(shard.path()) else { continue };
            found.extend(
                entries.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(ending)),
            );
        }
        found
    }

    /// The one file with this ending, opened for writing.
    fn file(&self, ending: &str) -> std::fs::File {
        let files = self.files(ending);
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::File::options().read(true).write(true).open(&files[0]).expect("it opens")
    }

    fn bytes_on_disk(&self) -> u64 {
        let files = [self.files(".data"), self.files(".record")].concat();
        files.iter().map(|path| path.metadata().expect("it is there").blocks() * 512).sum()
    }

    fn used(&self) -> u64 {
        self.cache.shared.room.turn().and_then(|turn| turn.used()).expect("a turn")
    }
}

fn open(root: &Path, limit: u64, min_free: u64) -> DiskCache {
    let settings = CacheSettings { dir: root.join("c"), limit, min_free };
    DiskCache::open(settings, "http://h s3://b".to_owned()).expect("the cache opens")
}

fn content(size: u64) -> Bytes {
    (0..size).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn entry_of(cache: &DiskCache, key: &str, etag: &str, size: u64) -> Arc<Entry> {
    let version = Version { etag: ETag::parse(etag), size, modified: std::time::UNIX_EPOCH };
    cache.entry(&ObjectKey::from_store(key), &version).expect("an entry")
}

fn entry(cache: &DiskCache) -> Arc<Entry> {
    entry_of(cache, "k", "e", SIZE)
}

fn fill(entry: &Entry) {
    let bytes = content(entry.size());
    // In pieces that end nowhere near a block's end.
    let pieces: Vec<Bytes> = bytes.chunks(50_001).map(Bytes::copy_from_slice).collect();
    assert!(entry.keep(0, &pieces));
}

/// Reads as far as it is here; every byte must be right.
fn read(entry: &Entry, range: ByteRange) -> u64 {
    let (bytes, mut at) = (content(entry.size()), range.start);
    while at < range.end {
        match entry.look(ByteRange::new(at, range.end)) {
            Found::Here(found) => {
                assert!(found == bytes[at as usize..at as usize + found.len()], "wrong bytes at {at}");
                at += found.len() as u64;
            }
            Found::MissingUntil(_) => break,
        }
    }
    at - range.start
}

fn all(entry: &Entry) -> ByteRange {
    ByteRange::new(0, entry.size())
}

#[test]
fn what_was_kept_is_read_at_any_offset_also_by_the_next_mount() {
    let rig = Rig::new();
    fill(&entry(&rig.cache));
    for cache in [&rig.cache, &rig.another()] {
        let entry = entry(cache);
        assert!(entry.has(all(&entry)));
        for start in [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 7, SIZE - 1] {
            for end in [start + 1, (start + BLOCK).min(SIZE), SIZE] {
                assert_eq!(read(&entry, ByteRange::new(start, end)), end - start, "{start}..{end}");
            }
        }
    }
}

#[test]
fn parts_of_blocks_and_bytes_past_the_end_are_not_kept() {
    let rig = Rig::new();
    let entry = entry(&rig.cache);
    for (at, len) in [(1, BLOCK), (0, BLOCK - 1), (0, 0), (4 * BLOCK, 2 * BLOCK), (5 * BLOCK, 999)] {
        assert!(!entry.keep(at, &[content(len)]), "{len} at {at}");
    }
    assert!(rig.files("").is_empty());
}

#[test]
fn another_etag_size_key_or_bucket_finds_nothing() {
    let rig = Rig::new();
    fill(&entry(&rig.cache));
    let elsewhere = CacheSettings { dir: rig.root.path().join("c"), limit: 1 << 30, min_free: 0 };
    let elsewhere = DiskCache::open(elsewhere, "http://h s3://other".to_owned()).expect("it opens");
    for other in [
        entry_of(&rig.cache, "k", "f", SIZE),
        entry_of(&rig.cache, "k", "e", SIZE + 1),
        entry_of(&rig.cache, "l", "e", SIZE),
        entry(&elsewhere),
    ] {
        assert_eq!(other.look(all(&other)), Found::MissingUntil(other.size()));
    }
}

#[test]
fn a_weak_or_missing_etag_has_no_entry() {
    let rig = Rig::new();
    for etag in ["", "\"\"", "W/\"a\""] {
        let version = Version { etag: ETag::parse(etag), size: 10, modified: std::time::UNIX_EPOCH };
        assert!(rig.cache.entry(&ObjectKey::from_store("k"), &version).is_none(), "{etag}");
    }
}

#[test]
fn a_poisoned_block_is_noticed_dropped_and_kept_anew() {
    let rig = Rig::new();
    fill(&entry(&rig.cache));
    rig.file(".data").write_all_at(b"poison", 2 * BLOCK + 5).expect("poisoned");
    let entry = entry(&rig.cache);
    assert_eq!(read(&entry, all(&entry)), 2 * BLOCK);
    assert!(rig.files("").is_empty(), "it is still there");
    fill(&entry);
    assert_eq!(read(&entry, all(&entry)), SIZE);
}

#[test]
fn a_torn_record_and_torn_data_are_noticed_and_dropped() {
    type Damage = fn(&std::fs::File);
    let damages: [(&str, Damage); 6] = [
        (".record", |file| file.set_len(11).expect("cut")),
        (".record", |file| file.set_len(0).expect("cut")),
        (".record", |file| file.write_all_at(b"x", 9).expect("changed")),
        (".record", |file| file.write_all_at(&[7; 8], file.metadata().expect("a size").len() - 8).expect("changed")),
        (".data", |file| file.set_len(SIZE - 1).expect("cut")),
        (".data", |file| file.set_len(0).and_then(|()| file.set_len(SIZE)).expect("lost")),
    ];
    for (number, (ending, damage)) in damages.into_iter().enumerate() {
        let rig = Rig::new();
        fill(&entry(&rig.cache));
        damage(&rig.file(ending));
        let entry = entry(&rig.cache);
        assert!(read(&entry, all(&entry)) <= 5 * BLOCK, "damage {number} was not noticed");
        assert!(rig.files("").is_empty(), "damage {number}: it is still there");
        fill(&entry);
        assert_eq!(read(&entry, all(&entry)), SIZE);
    }
}

#[test]
fn data_whose_checksum_was_not_written_before_a_kill_is_not_here() {
    let rig = Rig::new();
    let entry = entry(&rig.cache);
    assert!(entry.keep(0, &[content(SIZE).slice(..BLOCK as usize)]));
    rig.file(".data").write_all_at(&content(SIZE)[BLOCK as usize..], BLOCK).expect("written");
    assert_eq!(read(&entry, all(&entry)), BLOCK);
    assert!(entry.has(ByteRange::new(0, BLOCK)) && !entry.has(ByteRange::new(0, BLOCK + 1)));
}

#[test]
fn files_of_another_version_under_a_name_are_noticed_as_foreign() {
    let rig = Rig::new();
    let (one, other) = (entry(&rig.cache), entry_of(&rig.cache, "l", "e", SIZE));
    fill(&one);
    let mut names: Vec<PathBuf> = [".data", ".record"].iter().map(|ending| rig.files(ending).remove(0)).collect();
    assert!(other.keep(0, &[content(SIZE).slice(..BLOCK as usize)]));
    for (name, ending) in names.drain(..).zip([".data", ".record"]) {
        let its = rig.files(ending).into_iter().find(|path| *path != name).expect("the other's");
        std::fs::copy(&name, its).expect("copied");
    }
    let other = entry_of(&rig.another(), "l", "e", SIZE);
    assert_eq!(other.look(all(&other)), Found::MissingUntil(SIZE));
    assert_eq!(rig.files("").len(), 2, "the foreign one is still there");
}

#[test]
fn a_request_is_not_cut_for_a_few_blocks_but_for_many() {
    let rig = Rig::new();
    let size = 40 * BLOCK;
    let (entry, bytes) = (entry_of(&rig.cache, "k", "e", size), content(size));
    let keep = |from: u64, to: u64| {
        assert!(entry.keep(from * BLOCK, &[bytes.slice((from * BLOCK) as usize..(to * BLOCK) as usize)]))
    };
    keep(2, 4);
    keep(10, 18);
    keep(39, 40);
    assert_eq!(entry.look(ByteRange::new(5, size)), Found::MissingUntil(10 * BLOCK));
    assert_eq!(entry.look(ByteRange::new(18 * BLOCK, size)), Found::MissingUntil(39 * BLOCK));
    assert_eq!(entry.look(ByteRange::new(18 * BLOCK, 20 * BLOCK)), Found::MissingUntil(20 * BLOCK));
}

#[test]
fn the_limit_holds_at_every_write_and_what_was_used_last_stays() {
    let limit = 8 * BLOCK;
    let rig = Rig::limited(limit, 0);
    let names = ["a", "b", "c"];
    let entries = names.map(|key| entry_of(&rig.cache, key, "e", 2 * BLOCK));
    for entry in &entries {
        fill(entry);
        assert!(rig.bytes_on_disk() <= limit);
    }
    // The first is read again: the second is now the oldest.
    assert_eq!(read(&entry_of(&rig.another(), "a", "e", 2 * BLOCK), ByteRange::new(0, 10)), 10);
    let more = entry_of(&rig.cache, "d", "e", 2 * BLOCK);
    fill(&more);
    assert!(rig.bytes_on_disk() <= limit);
    let here = |key: &str| {
        let entry = entry_of(&rig.another(), key, "e", 2 * BLOCK);
        entry.has(all(&entry))
    };
    assert_eq!(["a", "b", "c", "d"].map(here), [true, false, true, true]);
    assert_eq!(rig.used(), rig.bytes_on_disk());
}

#[test]
fn an_entry_does_not_push_itself_out_and_what_has_no_room_is_not_kept() {
    let limit = 8 * BLOCK;
    let rig = Rig::limited(limit, 0);
    let (entry, bytes) = (entry_of(&rig.cache, "k", "e", 40 * BLOCK), content(40 * BLOCK));
    let kept = (0..40).filter(|block| {
        let at = (block * BLOCK) as usize;
        entry.keep(at as u64, &[bytes.slice(at..at + BLOCK as usize)])
    });
    assert!((4..8).contains(&kept.count()));
    assert!(rig.bytes_on_disk() <= limit);
    assert_eq!(read(&entry, ByteRange::new(0, 4 * BLOCK)), 4 * BLOCK);
}

#[test]
fn what_must_stay_free_stays_free() {
    let rig = Rig::limited(1 << 30, u64::MAX / 2);
    assert!(!entry(&rig.cache).keep(0, &[content(SIZE)]));
    assert!(rig.files("").is_empty());
}

#[test]
fn two_mounts_fill_and_read_one_entry_at_once() {
    let rig = Rig::new();
    let caches = [rig.cache.clone(), rig.another()];
    let bytes = content(SIZE);
    std::thread::scope(|scope| {
        for (number, cache) in caches.iter().enumerate() {
            let bytes = bytes.clone();
            scope.spawn(move || {
                let entry = entry(cache);
                for round in 0..6 {
                    let block = if number == 0 { round } else { 5 - round };
                    let part = ByteRange::at(block * BLOCK, BLOCK).intersect(ByteRange::new(0, SIZE));
                    assert!(entry.keep(part.start, &[bytes.slice(part.start as usize..part.end as usize)]));
                    assert_eq!(read(&entry, part), part.len());
                }
            });
        }
    });
    assert_eq!(read(&entry(&rig.another()), ByteRange::new(0, SIZE)), SIZE);
    assert_eq!(rig.files("").len(), 2);
    assert_eq!(rig.used(), rig.bytes_on_disk());
}

#[test]
fn an_entry_removed_by_another_mount_is_read_to_the_end_and_made_anew() {
    for reads_before in [true, false] {
        let rig = Rig::new();
        let mine = entry(&rig.cache);
        fill(&mine);
        let other = rig.another();
        let theirs = entry(&other);
        assert_eq!(read(&theirs, ByteRange::new(0, 10)), 10);
        other.shared.room.turn().and_then(|turn| turn.remove(&identified("k"))).expect("removed");
        assert_eq!((rig.files("").len(), rig.used()), (0, 0));
        if reads_before {
            assert_eq!(read(&mine, ByteRange::new(5, 10)), 5);
        }
        fill(&mine);
        assert_eq!(read(&entry(&rig.another()), ByteRange::new(0, SIZE)), SIZE);
        assert_eq!(rig.used(), rig.bytes_on_disk());
    }
}

fn identified(key: &str) -> name::EntryName {
    let version = Version { etag: ETag::parse("e"), size: SIZE, modified: std::time::UNIX_EPOCH };
    name::identify("http://h s3://b", &ObjectKey::from_store(key), &version).0
}

#[test]
fn a_survey_puts_numbers_right_and_leaves_foreign_files_alone() {
    let rig = Rig::new();
    fill(&entry(&rig.cache));
    let dir = rig.root.path().join("c");
    std::fs::write(dir.join("usage"), [255; 100]).expect("spoilt");
    let (lonely, foreign) = (dir.join("aa").join(format!("{}.data", "a".repeat(64))), dir.join("aa/notes.txt"));
    std::fs::create_dir_all(dir.join("aa")).expect("a folder");
    std::fs::write(&lonely, "left by a kill").expect("written");
    std::fs::write(&foreign, "mine").expect("written");
    rig.cache.survey();
    assert!(foreign.exists() && !lonely.exists());
    assert_eq!(rig.used(), rig.bytes_on_disk());
    assert!(entry(&rig.another()).has(ByteRange::new(0, SIZE)));
}

#[test]
fn a_directory_that_is_removed_is_done_without_until_it_is_there_again() {
    let (rig, dir) = (Rig::new(), "c");
    let entry = entry(&rig.cache);
    fill(&entry);
    std::fs::remove_dir_all(rig.root.path().join(dir)).expect("removed");
    let other = entry_of(&rig.cache, "l", "e", SIZE);
    assert!(!other.keep(0, &[content(SIZE)]) && !other.has(all(&other)));
    assert_eq!(read(&entry, all(&entry)), SIZE, "what is open stays readable");
    std::fs::create_dir(rig.root.path().join(dir)).expect("made");
    fill(&other);
    assert_eq!(read(&other, all(&other)), SIZE);
}

#[test]
fn a_disk_that_is_full_or_fails_is_done_without_and_only_the_second_for_good() {
    let rig = Rig::new();
    rig.cache.shared.note(&io::Error::from(ErrorKind::StorageFull));
    rig.cache.shared.note(&io::Error::from(rustix::io::Errno::MFILE));
    fill(&entry(&rig.cache));
    rig.cache.shared.note(&io::Error::from(rustix::io::Errno::IO));
    let entry = entry(&rig.cache);
    assert!(!entry.keep(0, &[content(SIZE)]) && !entry.has(all(&entry)));
    assert_eq!(entry.look(all(&entry)), Found::MissingUntil(SIZE));
}

#[test]
fn a_directory_that_others_can_see_or_that_is_none_is_refused() {
    let root = tempfile::tempdir().expect("a folder");
    let open = |name: &str| {
        let settings = CacheSettings { dir: root.path().join(name), limit: 1 << 30, min_free: 0 };
        DiskCache::open(settings, "s".to_owned()).map(drop)
    };
    open("new/deep").expect("it is made");
    assert_eq!(root.path().join("new/deep").metadata().expect("it is there").mode() & 0o777, 0o700);
    std::fs::create_dir(root.path().join("seen")).expect("a folder");
    std::fs::set_permissions(root.path().join("seen"), std::fs::Permissions::from_mode(0o750)).expect("a mode");
    assert!(matches!(open("seen"), Err(Error::AccessDenied(_))));
    std::os::unix::fs::symlink("new", root.path().join("link")).expect("a link");
    assert!(matches!(open("link"), Err(Error::AccessDenied(_))));
    std::fs::write(root.path().join("file"), "").expect("a file");
    assert!(open("file").is_err());
}

/// A file that was written elsewhere, on the disk of the cache or on another one.
fn written(dir: &Path, size: u64) -> PathBuf {
    let path = dir.join("written");
    std::fs::write(&path, content(size)).expect("written");
    path
}

#[test]
fn a_written_file_is_moved_in_also_over_what_is_there_of_it() {
    let rig = Rig::new();
    for fresh in [true, false] {
        let entry = entry_of(&rig.cache, if fresh { "new" } else { "known" }, "e", SIZE);
        if !fresh {
            assert!(entry.keep(BLOCK, &[content(SIZE).slice(BLOCK as usize..2 * BLOCK as usize)]));
            assert_eq!(read(&entry, ByteRange::at(BLOCK, 10)), 10);
        }
        let path = written(rig.root.path(), SIZE);
        assert!(entry.adopt(&path) && !path.exists());
        assert_eq!(read(&entry, all(&entry)), SIZE);
        assert_eq!(rig.used(), rig.bytes_on_disk());
    }
    let entry = entry_of(&rig.another(), "new", "e", SIZE);
    assert_eq!(read(&entry, all(&entry)), SIZE);
}

#[test]
fn a_written_file_that_does_not_fit_is_left_where_it_is() {
    let rig = Rig::limited(4 * BLOCK, 0);
    let path = written(rig.root.path(), SIZE);
    assert!(!entry(&rig.cache).adopt(&path) && path.exists());
    let path = written(rig.root.path(), SIZE - 1);
    assert!(!entry(&rig.another()).adopt(&path) && path.exists());
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("another file system");
    let path = written(elsewhere.path(), SIZE);
    let another = rig.another();
    assert!(!entry(&another).adopt(&path) && path.exists());
    assert!(!another.shared.is_off() && rig.files("").is_empty());
}

#[test]
fn what_is_discarded_is_gone_and_comes_back_through_another_entry_only() {
    let rig = Rig::new();
    let wrong = entry_of(&rig.cache, "k", "e", SIZE);
    assert!(wrong.keep(0, &[content(SIZE)]));
    wrong.discard();
    assert_eq!((rig.files("").len(), rig.used()), (0, 0));
    // What was on its way to the disk meanwhile.
    assert!(!wrong.keep(0, &[content(BLOCK)]) && rig.files("").is_empty());
    let right = entry_of(&rig.cache, "k", "e", SIZE);
    assert!(right.keep(0, &[content(SIZE)]) && right.has(ByteRange::new(0, SIZE)));
}
