//! Modes, owners and times in object metadata: how they are read and written. Pure.
//!
//! Written under the keys that AWS tools use (FSx for Lustre User Guide, "POSIX metadata support for data repositories"):
//! `file-permissions` (octal file type and mode, `0100644`), `file-owner`, `file-group` (decimal), `file-mtime`,
//! `file-atime` (nanoseconds, ending in `ns`); the number of a device under `file-rdev`. The keys of s3fs (`mode` in decimal, `uid`, `gid`, `mtime`) and rclone (`mtime`)
//! are read too, and brought up to date where an object has them, so that no reader sees a contradiction.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::attr::{Device, FileType, Kind};
use crate::store::UserMetadata;

/// Keys of other tools' modes, owners, times and sums (s3fs, rclone): none of them is an extended attribute.
const FOREIGN: [&str; 8] = [S3FS_MODE, S3FS_UID, S3FS_GID, S3FS_MTIME, "atime", "btime", "ctime", "rdev"];

/// True for a key that holds an attribute of stat(2), in this notation or another one's.
pub(super) fn is_posix(key: &str) -> bool {
    key.starts_with("file-") || FOREIGN.contains(&key)
}

/// Most bytes that S3 counts for the keys that are written here: names, values, and what stands before each name.
pub(super) const WRITTEN_MAX: usize = 256;

/// True for a key that is written here.
pub(super) fn is_written(key: &str) -> bool {
    [PERMISSIONS, OWNER, GROUP, MTIME, ATIME, DEVICE].contains(&key)
}

const PERMISSIONS: &str = "file-permissions";
const OWNER: &str = "file-owner";
const GROUP: &str = "file-group";
const MTIME: &str = "file-mtime";
const ATIME: &str = "file-atime";
/// Major and minor number of a device, in decimal: a key of our own, since AWS tools keep no devices.
const DEVICE: &str = "file-rdev";
const S3FS_MODE: &str = "mode";
const S3FS_UID: &str = "uid";
const S3FS_GID: &str = "gid";
const S3FS_MTIME: &str = "mtime";

/// Bits of a mode that chmod(2) sets.
pub const PERMISSION_BITS: u32 = 0o7777;

/// Largest `st_mode`.
const FULL_MODE_MAX: u32 = 0o177_777;

/// What an object's metadata says; `None` where it says nothing, or nothing that makes sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredAttributes {
    /// What a file is; a regular one where the type is not told, or is that of a directory.
    pub file_type: FileType,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last modification.
    pub mtime: Option<SystemTime>,
    /// Last access, as it was last set.
    pub atime: Option<SystemTime>,
}

impl StoredAttributes {
    /// Reads them; the AWS keys go before those of s3fs and rclone.
    pub fn read(metadata: &UserMetadata) -> Self {
        let text = |key: &str| metadata.get(key).map(|value| value.trim());
        let octal = |key| text(key).and_then(|value| u32::from_str_radix(value, 8).ok());
        let decimal = |key| text(key).and_then(|value| value.parse::<u32>().ok());
        // More bits than a mode has are another tool's notation (rclone writes octal digits under the key of s3fs).
        let full = octal(PERMISSIONS).or_else(|| decimal(S3FS_MODE)).filter(|mode| *mode <= FULL_MODE_MAX);
        // One without a number is one that no driver has.
        let device = text(DEVICE).and_then(parse_device).unwrap_or_default();
        StoredAttributes {
            file_type: full.and_then(|full| FileType::from_mode(full, device)).unwrap_or_default(),
            mode: full.map(|mode| mode & PERMISSION_BITS),
            uid: decimal(OWNER).or_else(|| decimal(S3FS_UID)),
            gid: decimal(GROUP).or_else(|| decimal(S3FS_GID)),
            mtime: text(MTIME).and_then(parse_time).or_else(|| text(S3FS_MTIME).and_then(parse_time)),
            atime: text(ATIME).and_then(parse_time),
        }
    }

    /// Writes what is known into `metadata`.
    pub fn write(&self, kind: Kind, metadata: &mut UserMetadata) {
        if let Some(mode) = self.mode {
            let type_bits = match kind {
                Kind::File => self.file_type.type_bits(),
                Kind::Dir => kind.type_bits(),
            };
            match self.file_type.device().filter(|_| kind == Kind::File) {
                Some(device) => {
                    metadata.insert(DEVICE.into(), format!("{}:{}", device.major(), device.minor()));
                }
                None => _ = metadata.remove(DEVICE),
            }
            let full = type_bits | (mode & PERMISSION_BITS);
            metadata.insert(PERMISSIONS.into(), format!("{full:07o}"));
            refresh(metadata, S3FS_MODE, || full.to_string());
        }
        if let Some(uid) = self.uid {
            metadata.insert(OWNER.into(), uid.to_string());
            refresh(metadata, S3FS_UID, || uid.to_string());
        }
        if let Some(gid) = self.gid {
            metadata.insert(GROUP.into(), gid.to_string());
            refresh(metadata, S3FS_GID, || gid.to_string());
        }
        if let Some(mtime) = self.mtime {
            metadata.insert(MTIME.into(), nanoseconds(mtime));
            refresh(metadata, S3FS_MTIME, || seconds(mtime));
        }
        if let Some(atime) = self.atime {
            metadata.insert(ATIME.into(), nanoseconds(atime));
        } else if self.mtime.is_some() {
            // The access time is that of the modification again.
            metadata.remove(ATIME);
        }
    }
}

fn parse_device(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Device::new(major.parse().ok()?, minor.parse().ok()?)
}

fn refresh(metadata: &mut UserMetadata, key: &str, value: impl FnOnce() -> String) {
    if let Some(there) = metadata.get_mut(key) {
        *there = value();
    }
}

/// `time`, or the earliest or latest that can be stored if it is before or after that: 64 bits of nanoseconds, which is what the
/// tools that read the key take. POSIX wants the greatest time that is not greater than what was asked for (futimens), and Linux
/// does the same for times that are too early.
pub(super) fn nearest_stored(time: SystemTime) -> SystemTime {
    let nanos = signed_nanoseconds(time).clamp(i64::MIN.into(), i64::MAX.into());
    from_nanoseconds(nanos).unwrap_or(time)
}

fn signed_nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

fn nanoseconds(time: SystemTime) -> String {
    format!("{}ns", signed_nanoseconds(time))
}

fn seconds(time: SystemTime) -> String {
    let nanos = signed_nanoseconds(time);
    format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
}

/// `1595002920000000000ns` (AWS), `1595002920.5` (s3fs, rclone) or `1595002920`.
fn parse_time(text: &str) -> Option<SystemTime> {
    if let Some(nanos) = text.strip_suffix("ns") {
        return from_nanoseconds(nanos.parse::<i64>().ok()?.into());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i128 = digits.parse().ok()?;
    from_nanoseconds(i128::from(whole) * 1_000_000_000 + nanos)
}

fn from_nanoseconds(nanos: i128) -> Option<SystemTime> {
    let distance = Duration::from_nanos(u64::try_from(nanos.unsigned_abs()).ok()?);
    if nanos >= 0 { UNIX_EPOCH.checked_add(distance) } else { UNIX_EPOCH.checked_sub(distance) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> UserMetadata {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_keys_of_aws_tools_s3fs_and_rclone_are_read() {
        let aws =
            metadata(&[("file-permissions", "0100640"), ("file-owner", "7"), ("file-mtime", "1500000000000000001ns")]);
        let read = StoredAttributes::read(&aws);
        assert_eq!((read.mode, read.uid, read.gid), (Some(0o640), Some(7), None));
        assert_eq!(read.mtime, Some(UNIX_EPOCH + Duration::new(1_500_000_000, 1)));
        let s3fs = metadata(&[("mode", "33188"), ("uid", "5"), ("gid", "6"), ("mtime", "1500000000.25")]);
        let read = StoredAttributes::read(&s3fs);
        assert_eq!((read.mode, read.uid, read.gid), (Some(0o644), Some(5), Some(6)));
        assert_eq!(read.mtime, Some(UNIX_EPOCH + Duration::new(1_500_000_000, 250_000_000)));
    }

    #[test]
    fn nonsense_is_nothing() {
        let bad =
            metadata(&[("file-permissions", "rw"), ("file-owner", "-1"), ("file-mtime", "soonns"), ("mtime", "1.x")]);
        assert_eq!(StoredAttributes::read(&bad), StoredAttributes::default());
        let far = metadata(&[("file-mtime", "999999999999999999999999ns")]);
        assert_eq!(StoredAttributes::read(&far).mtime, None);
    }

    #[test]
    fn the_type_of_a_symbolic_link_is_read_of_aws_tools_and_s3fs_and_written() {
        for stored in [[("file-permissions", "0120777")], [("mode", "41471")]] {
            let read = StoredAttributes::read(&metadata(&stored));
            assert_eq!((read.file_type, read.mode), (FileType::Symlink, Some(0o777)), "{stored:?}");
        }
        let mut written = metadata(&[("mode", "0")]);
        let link = StoredAttributes { file_type: FileType::Symlink, mode: Some(0o777), ..Default::default() };
        link.write(Kind::File, &mut written);
        assert_eq!((written["file-permissions"].as_str(), written["mode"].as_str()), ("0120777", "41471"));
    }

    #[test]
    fn special_files_and_the_numbers_of_devices_are_read_back() {
        let device = Device::new(259, 70_000).expect("numbers that fit");
        assert_eq!((device.major(), device.minor()), (259, 70_000));
        assert_eq!((Device::new(4096, 0), Device::new(0, 1 << 20)), (None, None));
        for (file_type, permissions) in [
            (FileType::Fifo, "0010640"),
            (FileType::Socket, "0140640"),
            (FileType::CharDevice(device), "0020640"),
            (FileType::BlockDevice(device), "0060640"),
        ] {
            let mut stored = metadata(&[("file-rdev", "old")]);
            let wanted = StoredAttributes { file_type, mode: Some(0o640), ..Default::default() };
            wanted.write(Kind::File, &mut stored);
            assert_eq!(stored["file-permissions"], permissions);
            let number = file_type.device().map(|_| "259:70000");
            assert_eq!(stored.get("file-rdev").map(String::as_str), number, "{file_type:?}");
            assert_eq!(StoredAttributes::read(&stored), wanted);
        }
        for number in ["", "8", "8:x", "4096:0", "-1:0"] {
            let read = StoredAttributes::read(&metadata(&[("file-permissions", "0020640"), ("file-rdev", number)]));
            assert_eq!(read.file_type, FileType::CharDevice(Device::default()), "{number}");
        }
    }

    #[test]
    fn what_has_no_type_or_that_of_a_directory_or_another_notation_is_a_regular_file() {
        for stored in
            [[("file-permissions", "0777")], [("file-permissions", "0040755")], [("file-permissions", "0777777")]]
        {
            assert_eq!(StoredAttributes::read(&metadata(&stored)).file_type, FileType::Regular, "{stored:?}");
        }
        // Octal digits, as rclone writes them.
        let rclone = StoredAttributes::read(&metadata(&[("mode", "120777")]));
        assert_eq!((rclone.file_type, rclone.mode), (FileType::Regular, None));
    }

    #[test]
    fn foreign_keys_are_brought_up_to_date_where_they_are() {
        let mut both = metadata(&[("mode", "33188"), ("mtime", "1.5"), ("note", "kept")]);
        let wanted = StoredAttributes {
            mode: Some(0o600),
            mtime: Some(UNIX_EPOCH + Duration::from_secs(9)),
            ..Default::default()
        };
        wanted.write(Kind::File, &mut both);
        assert_eq!(both["mode"], "33152");
        assert_eq!(both["mtime"], "9.000000000");
        assert_eq!(both["file-permissions"], "0100600");
        assert_eq!(both["note"], "kept");
        assert!(!both.contains_key("uid"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(mode in 0u32..0o10000, uid: u32, gid: u32, nanos in -(1i64 << 60)..(1i64 << 60)) {
            let time = from_nanoseconds(nanos.into());
            let wanted = StoredAttributes {
                mode: Some(mode),
                uid: Some(uid),
                gid: Some(gid),
                mtime: time,
                atime: time,
                ..Default::default()
            };
            let mut stored = UserMetadata::new();
            wanted.write(Kind::Dir, &mut stored);
            prop_assert_eq!(StoredAttributes::read(&stored), wanted);
        }

        #[test]
        fn every_time_becomes_one_that_is_read_back(at: i64, nanos in 0u64..1_000_000_000) {
            let distance = Duration::from_secs(at.unsigned_abs());
            let second = if at < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
            let time = second.and_then(|second| second.checked_add(Duration::from_nanos(nanos))).expect("a time");
            let kept = nearest_stored(time);
            prop_assert_eq!(parse_time(&nanoseconds(kept)), Some(kept));
            prop_assert_eq!(parse_time(&seconds(kept)), Some(kept));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = parse_time(&text);
        }
    }
}
