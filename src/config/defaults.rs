//! Defaults that depend on the machine: the user's ids and home, the place of the stage, the memory that may be used.
//!
//! The home directory comes from the password database when `HOME` is missing: mount(8) removes it.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Least default of `memory_limit`: eight readers with a part of 8 MiB each.
const MEMORY_LEAST: u64 = 64 << 20;

/// Most default of `memory_limit`: more does not make one machine's readers faster.
const MEMORY_MOST: u64 = 512 << 20;

/// Longest host name in a file name, `HOST_NAME_MAX` of Linux.
const HOST_NAME_MOST: usize = 64;

/// What pailfs needs of a line of the password database.
pub(super) struct UserEntry {
    pub uid: u32,
    pub home: PathBuf,
}

/// Asks the password database through `query`, one of the `getpw*_r` functions.
pub(super) fn user_entry(
    query: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
) -> Option<UserEntry> {
    let mut buffer = vec![0 as libc::c_char; 16 << 10];
    // SAFETY: passwd is a plain C struct; all zeroes is a valid value of it.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    let answer = query(&mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found);
    if answer != 0 || found.is_null() || entry.pw_dir.is_null() {
        return None;
    }
    // SAFETY: the query succeeded, so that pw_dir points to a terminated string in `buffer`, which is alive.
    let home = unsafe { CStr::from_ptr(entry.pw_dir) }.to_bytes().to_vec();
    Some(UserEntry { uid: entry.pw_uid, home: OsString::from_vec(home).into() })
}

/// Number of the group of this name.
pub(super) fn group_id(name: &CStr) -> Option<u32> {
    let mut buffer = vec![0 as libc::c_char; 64 << 10];
    // SAFETY: group is a plain C struct; all zeroes is a valid value of it.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are live and the length is that of `buffer`.
    let answer = unsafe { libc::getgrnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    (answer == 0 && !found.is_null()).then_some(entry.gr_gid)
}

/// The effective user and group.
pub(super) fn ids() -> (u32, u32) {
    // SAFETY: these calls take nothing and can't fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Home of the user who runs this: `HOME`, else what the password database says.
pub fn home_directory() -> Option<PathBuf> {
    let named = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    named.or_else(|| {
        let (uid, _) = ids();
        user_entry(|entry, buffer, length, found| {
            // SAFETY: all pointers are live and `length` is that of `buffer`.
            unsafe { libc::getpwuid_r(uid, entry, buffer, length, found) }
        })
        .map(|entry| entry.home)
        .filter(|home| home.is_absolute())
    })
}

/// Default of `stage_dir`, by the rules of the XDG base directories for those who are not root.
/// `None` is a user without any home.
pub(super) fn stage_directory(uid: u32, state_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if uid == 0 {
        return Some(PathBuf::from("/var/lib/pailfs/stage"));
    }
    let state = state_home.filter(|dir| dir.is_absolute()).or_else(|| Some(home?.join(".local/state")))?;
    Some(state.join("pailfs/stage"))
}

/// Default of `endpoint_url`: what the AWS tools take from the environment, by their rules.
pub(super) fn endpoint_of_environment() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ignored =
        variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if ignored { None } else { variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL")) }
}

/// Name of this machine, as far as it can be part of a file name; never empty.
pub(super) fn host_name() -> String {
    host_name_of(&std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default())
}

fn host_name_of(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = text.chars().filter(plain).take(HOST_NAME_MOST).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Default of `memory_limit` on this machine.
pub(super) fn memory_limit() -> u64 {
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    memory_limit_of(memory.into_iter().chain(cgroup_limit(Path::new("/sys/fs/cgroup"))).min())
}

/// A quarter of `memory` (bytes), within 64 MiB and 512 MiB.
pub fn memory_limit_of(memory: Option<u64>) -> u64 {
    memory.map_or(MEMORY_LEAST, |bytes| (bytes / 4).clamp(MEMORY_LEAST, MEMORY_MOST))
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of this process's cgroup and those above it (cgroup v2, else v1).
fn cgroup_limit(root: &Path) -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mut dir = root.join(path);
    let mut least: Option<u64> = None;
    while dir.starts_with(root) {
        least = least.into_iter().chain(limit_in(&dir.join("memory.max"))).min();
        if !dir.pop() {
            break;
        }
    }
    least.or_else(|| limit_in(&root.join("memory/memory.limit_in_bytes")))
}

/// "max" is no limit, and no number either.
fn limit_in(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_in_var_for_root_and_in_the_state_directory_for_others() {
        let home = || Some(PathBuf::from("/home/u"));
        let stage = |uid, state: Option<&str>, home| stage_directory(uid, state.map(PathBuf::from), home);
        assert_eq!(stage(0, Some("/s"), home()), Some("/var/lib/pailfs/stage".into()));
        assert_eq!(stage(7, Some("/s"), home()), Some("/s/pailfs/stage".into()));
        assert_eq!(stage(7, Some("relative"), home()), Some("/home/u/.local/state/pailfs/stage".into()));
        assert_eq!(stage(7, None, home()), Some("/home/u/.local/state/pailfs/stage".into()));
        assert_eq!(stage(7, None, None), None);
    }

    #[test]
    fn the_memory_limit_is_a_quarter_within_its_bounds() {
        for (memory, limit) in
            [(None, 64 << 20), (Some(100 << 20), 64 << 20), (Some(1 << 30), 256 << 20), (Some(64 << 30), 512 << 20)]
        {
            assert_eq!(memory_limit_of(memory), limit, "{memory:?}");
        }
    }

    #[test]
    fn the_total_is_read_from_meminfo() {
        assert_eq!(meminfo_total("MemTotal:       24684544 kB\nMemFree: 1 kB\n"), Some(24_684_544 * 1024));
        assert_eq!(meminfo_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_host_name_is_always_part_of_a_file_name() {
        assert_eq!(host_name_of("node-1.example\n"), "node-1.example");
        assert_eq!(host_name_of("a/b c"), "abc");
        assert_eq!(host_name_of("(none)"), "none");
        assert_eq!((host_name_of("\n").as_str(), host_name_of(&"x".repeat(99)).len()), ("localhost", 64));
    }

    #[test]
    fn root_has_a_home_without_the_variable() {
        // SAFETY: getpwuid_r with live pointers and the buffer's own length.
        let root = user_entry(|e, b, n, f| unsafe { libc::getpwuid_r(0, e, b, n, f) }).expect("root is a user");
        assert_eq!((root.uid, root.home.is_absolute()), (0, true));
    }
}
