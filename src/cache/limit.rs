//! How much memory this process may use, as its cgroups and the machine say.

use std::path::{Path, PathBuf};

const LEAST: u64 = 16 << 20;
const MOST: u64 = 1 << 30;

/// Share of `memory` that buffers may take.
pub(super) fn share_of(memory: Option<u64>) -> u64 {
    memory.map_or(LEAST * 4, |memory| (memory / 4).clamp(LEAST, MOST))
}

/// The smallest of the limits of all cgroups that this process is in, and of the machine's memory.
pub(super) fn memory_of_this_process() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| parse_limit(&std::fs::read_to_string(file).ok()?));
    let ram = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_meminfo(&text));
    limits.chain(ram).min()
}

/// Files that may hold a limit: of each memory group and all groups above it. In a container the paths are those
/// of the host while the mount shows only the container's own group, at the top, which the walk reaches last.
fn limit_files(proc_cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in proc_cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (top, name) = if controllers.is_empty() {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|ancestor| top.join(ancestor).join(name)));
    }
    files
}

/// v2 writes `max` for none; v1 writes a number near 2^63, which is no limit either.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < 1 << 60)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_group_and_those_above_it_are_asked() {
        let files = limit_files("0::/user.slice/a.scope\n");
        let expected = ["user.slice/a.scope/memory.max", "user.slice/memory.max", "memory.max"]
            .map(|file| Path::new("/sys/fs/cgroup").join(file));
        assert_eq!(files, expected);
    }

    #[test]
    fn a_v1_memory_group_is_found_among_the_others() {
        let files = limit_files("5:cpu,cpuacct:/x\n4:memory:/docker/1\n");
        assert_eq!(files[0], Path::new("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes"));
    }

    #[test]
    fn no_limit_in_either_spelling_is_none() {
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("9223372036854771712\n"), None);
        assert_eq!(parse_limit("536870912\n"), Some(512 << 20));
    }

    #[test]
    fn the_share_stays_within_bounds() {
        assert_eq!(share_of(Some(1 << 20)), LEAST);
        assert_eq!(share_of(Some(1 << 30)), 256 << 20);
        assert_eq!(share_of(Some(u64::MAX)), MOST);
        assert_eq!(parse_meminfo("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16384));
    }
}
