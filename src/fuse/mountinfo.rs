//! The table of mounts as the kernel tells it (proc_pid_mountinfo(5)): what is mounted at a path, and with which
//! device number. The only trustworthy answer to "is this mount still ours?": reading it asks no filesystem.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Filesystem type of our mounts.
pub const FILESYSTEM_TYPE: &str = "fuse.pailfs";

/// Number of the device that stands for one mounted filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    /// 0 for filesystems without a block device.
    pub major: u32,
    /// Also the id of the FUSE connection.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Device number.
    pub device: DeviceNumber,
    /// Where.
    pub mountpoint: PathBuf,
    /// Type, such as `ext4` or `fuse.pailfs`.
    pub filesystem: String,
    /// Source, as given to mount(2).
    pub source: String,
    /// Of a FUSE mount, who made it; else 0.
    pub user: u32,
}

impl Entry {
    /// True for a mount that pailfs made.
    pub fn is_pailfs(&self) -> bool {
        self.filesystem == FILESYSTEM_TYPE
    }
}

/// The table of this process's mount namespace, in the order of mounting.
pub fn read() -> io::Result<Vec<Entry>> {
    // Not a String: a mountpoint need not be UTF-8.
    Ok(std::fs::read("/proc/self/mountinfo")?.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

/// What is on top at exactly this (absolute, resolved) path.
pub fn top_at(path: &Path) -> io::Result<Option<Entry>> {
    Ok(read()?.into_iter().rfind(|entry| entry.mountpoint == path))
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let device = DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? };
    let mountpoint = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    // After the mount's options come none, one or more tagged fields, and then a lone hyphen.
    fields.by_ref().skip(1).find(|field| *field == b"-")?;
    let filesystem = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let options = fields.next().unwrap_or_default().split(|byte| *byte == b',');
    let user = options.filter_map(|option| option.strip_prefix(b"user_id=")).next();
    let user = user.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok()).unwrap_or_default();
    Some(Entry { device, mountpoint, filesystem, source, user })
}

/// Space, tab, newline, backslash and `#` stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str) -> Option<Entry> {
        parse_line(line.as_bytes())
    }

    #[test]
    fn a_line_gives_device_place_type_and_source() {
        let line = r"61 28 0:52 / /mnt/a\040b\134c rw,nosuid shared:3 master:1 - fuse.pailfs s3://b/p\040q rw,user_id=7,group_id=8";
        let entry = entry(line).expect("a line as the kernel writes it");
        assert_eq!((entry.device.major, entry.device.minor), (0, 52));
        assert_eq!(entry.mountpoint, Path::new(r"/mnt/a b\c"));
        assert_eq!((entry.source.as_str(), entry.is_pailfs(), entry.user), ("s3://b/p q", true, 7));
    }

    #[test]
    fn a_line_without_tagged_fields_is_read_too() {
        let entry = entry("36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw").expect("a line");
        assert_eq!((entry.filesystem.as_str(), entry.is_pailfs()), ("ext3", false));
    }

    #[test]
    fn lines_that_make_no_sense_are_skipped() {
        for line in ["", "36", "36 35 98 / / rw - a b c", "36 35 9:x / / rw - a b", "36 35 9:1 / / rw a b c"] {
            assert_eq!(entry(line), None, "{line}");
        }
    }

    #[test]
    fn what_looks_like_an_escape_but_is_none_stays() {
        assert_eq!(unescape(br"a\b\09\777\04"), br"a\b\09\777\04");
        assert_eq!(unescape(br"\040\011\012\134\043"), b" \t\n\\#");
    }

    #[test]
    fn the_root_is_in_the_own_table() {
        assert!(top_at(Path::new("/")).expect("proc is mounted").is_some());
    }
}
