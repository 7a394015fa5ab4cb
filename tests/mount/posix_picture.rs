//! What stands in a directory, with all that stat(2) shows of it: made of words, looked at, and compared.
//!
//! `f:640:7:8=abc` is a file of mode 0640 of user 7 and group 8 that holds `abc`, `d/:700` a directory; what is left out is 0644
//! or 0755, user and group 0, and empty.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Waits until what is done from now on gets a later time: file systems tell the time by a coarse clock.
pub fn wait_past(time: Time) {
    // A tick is 10 ms at most.
    let start = std::time::Instant::now();
    while now(libc::CLOCK_REALTIME_COARSE) <= time {
        assert!(start.elapsed() < crate::common::PATIENCE, "the clock does not get past {time:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Seconds and nanoseconds.
pub type Time = (i64, i64);

pub fn now(clock: libc::clockid_t) -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) fills the structure.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec, time.tv_nsec)
}

/// What one name shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ino: u64,
    nlink: u64,
    /// In the words of a table, without the name.
    word: String,
    bytes: Option<Vec<u8>>,
    size: u64,
    pub mtime: Time,
    pub ctime: Time,
    atime: Time,
}

pub type Picture = BTreeMap<String, Seen>;

/// All that stands in the working directory, which is `.`, if wanted with the bytes of files.
pub fn picture(mounted: bool, with_bytes: bool) -> Result<Picture, String> {
    let mut all = Picture::new();
    let mut waiting = vec![PathBuf::from(".")];
    while let Some(path) = waiting.pop() {
        let seen = see(&path, with_bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let is_dir = seen.word.starts_with('/');
        // pailfs does not count the directories in a directory; local file systems each have their way.
        if (!is_dir || mounted) && seen.nlink != 1 {
            return Err(format!("{} has {} links", path.display(), seen.nlink));
        }
        if is_dir {
            let entries = std::fs::read_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            waiting.extend(entries.flatten().map(|entry| entry.path()));
        }
        let key = path.to_string_lossy();
        all.insert(key.strip_prefix("./").unwrap_or(&key).to_owned(), seen);
    }
    Ok(all)
}

fn see(path: &Path, with_bytes: bool) -> std::io::Result<Seen> {
    let stat = std::fs::symlink_metadata(path)?;
    let kind = if stat.is_dir() { "/" } else { "" };
    let bytes = if with_bytes && stat.is_file() { Some(std::fs::read(path)?) } else { None };
    Ok(Seen {
        ino: stat.ino(),
        nlink: stat.nlink(),
        word: format!("{kind}:{:o}:{}:{}", stat.mode() & 0o7777, stat.uid(), stat.gid()),
        bytes,
        size: if stat.is_file() { stat.size() } else { 0 },
        mtime: (stat.mtime(), stat.mtime_nsec()),
        ctime: (stat.ctime(), stat.ctime_nsec()),
        atime: (stat.atime(), stat.atime_nsec()),
    })
}

/// One word of a table: the name, whether it is a directory, mode, user, group and bytes.
fn parse(word: &str) -> (&str, bool, [u32; 3], &str) {
    let (head, bytes) = word.split_once('=').unwrap_or((word, ""));
    let mut fields = head.split(':');
    let name = fields.next().unwrap_or_default();
    let is_dir = name.ends_with('/');
    let mode =
        fields.next().map_or(if is_dir { 0o755 } else { 0o644 }, |mode| u32::from_str_radix(mode, 8).expect("a mode"));
    let mut id = || fields.next().map_or(0, |id| id.parse().expect("a number"));
    (name.trim_end_matches('/'), is_dir, [mode, id(), id()], bytes)
}

pub fn set_up(dir: &Path, stands: &str) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o755).create(dir)?;
    for word in stands.split_whitespace() {
        let (name, is_dir, [mode, uid, gid], bytes) = parse(word);
        let path = dir.join(name);
        if is_dir {
            std::fs::DirBuilder::new().mode(mode).create(&path)?;
        } else {
            use std::io::Write;
            let mut file = std::fs::File::options().write(true).create_new(true).mode(mode).open(&path)?;
            file.write_all(bytes.as_bytes())?;
        }
        if (uid, gid) != (0, 0) {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        }
        if mode & 0o6000 != 0 {
            // mkdir(2) takes no such bits, and chown(2) clears them.
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        }
    }
    Ok(())
}

pub fn same(before: &Picture, after: &Picture) -> Result<(), String> {
    let timeless = |seen: Option<&Seen>| seen.map(|seen| Seen { atime: (0, 0), bytes: None, ..seen.clone() });
    for path in before.keys().chain(after.keys()) {
        let (was, is) = (timeless(before.get(path)), timeless(after.get(path)));
        if was != is {
            return Err(format!("fails as it should, and changes {path}: {was:?} is {is:?}"));
        }
    }
    Ok(())
}

/// Kinds, rights, sizes and bytes are those of the table.
pub fn compare(after: &Picture, then: &str) -> Result<(), String> {
    let word = |(path, seen): (&String, &Seen)| {
        let bytes = seen.bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).replace('\0', "0"));
        (format!("{path}{}", seen.word), seen.size, bytes)
    };
    let mut found: Vec<_> = after.iter().filter(|(path, _)| *path != ".").map(word).collect();
    let mut wanted: Vec<_> = then
        .split_whitespace()
        .map(|word| {
            let (name, is_dir, [mode, uid, gid], bytes) = parse(word);
            let kind = if is_dir { "/" } else { "" };
            (format!("{name}{kind}:{mode:o}:{uid}:{gid}"), bytes.len() as u64, (!is_dir).then(|| bytes.to_owned()))
        })
        .collect();
    found.sort();
    wanted.sort();
    if found == wanted { Ok(()) } else { Err(format!("leaves {found:.300?} instead of {wanted:.300?}")) }
}

/// Times of what is new are those of the call, those in `moved` are later than before, and others are what they were.
pub fn times(before: &Picture, after: &Picture, moved: &str, began: Time) -> Result<(), String> {
    let by_ino: BTreeMap<u64, &Seen> = before.values().map(|seen| (seen.ino, seen)).collect();
    let moved: BTreeMap<&str, &str> = moved.split_whitespace().filter_map(|word| word.rsplit_once(':')).collect();
    for (path, is) in after {
        let Some(was) = by_ino.get(&is.ino) else {
            if is.mtime < began || is.ctime < began || is.atime < began {
                return Err(format!("new {path} has times before the call at {began:?}: {is:?}"));
            }
            continue;
        };
        let marks = moved.get(path.as_str()).copied().unwrap_or_default();
        for (letter, was, is) in [('m', was.mtime, is.mtime), ('c', was.ctime, is.ctime)] {
            let right = if marks.contains(letter) { is >= began && is > was } else { is == was };
            if !right {
                let wish = if marks.contains(letter) { "move" } else { "stay" };
                return Err(format!("{letter}time of {path} should {wish}: {was:?} is {is:?}"));
            }
        }
    }
    match moved.keys().find(|path| !after.contains_key(**path)) {
        Some(path) => Err(format!("the table names times of {path}, which is not there")),
        None => Ok(()),
    }
}
