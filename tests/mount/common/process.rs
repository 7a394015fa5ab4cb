//! Processes as /proc shows them: finding the daemon of a mount, its memory, its end.

use std::path::Path;

/// True while the process runs; one that ended but was not waited for does not.
pub fn alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the command's name, which stands in parentheses and may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X") | None)
}

/// Processes of the program under test that have `argument` on their command line.
pub fn children_matching(argument: &Path) -> Vec<i32> {
    let wanted = argument.as_os_str().as_encoded_bytes();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| alive(*pid) && is_ours(*pid, wanted)).collect()
}

fn is_ours(pid: i32, argument: &[u8]) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let ours = Path::new(env!("CARGO_BIN_EXE_pailfs"));
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    program.file_name() == ours.file_name() && line.split(|b| *b == 0).any(|word| word == argument)
}

/// Most memory the process had at once, in bytes (`VmHWM`).
pub fn peak_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Sends a signal; false if there is no such process.
pub fn signal(pid: i32, number: i32) -> bool {
    // SAFETY: kill(2) takes two numbers.
    unsafe { libc::kill(pid, number) == 0 }
}

/// Why a daemon may not have ended: what its threads wait for, and processes in whose mount namespace a copy of its mount
/// is still there, for which it then goes on.
pub fn still_there(pid: i32, root: &Path) -> String {
    let entries = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let text = |path: &Path, name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
    let threads = entries(&format!("/proc/{pid}/task")).map(|task| {
        let state =
            text(&task, "stat").rsplit(')').next().and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
        format!("{} {} {}", text(&task, "comm"), state.unwrap_or_default(), text(&task, "wchan"))
    });
    let root = root.to_string_lossy();
    let holders = entries("/proc").filter(|process| text(process, "mountinfo").contains(&*root));
    let holders = holders.map(|process| format!("{} {}", process.display(), text(&process, "comm")));
    format!("threads: {:?}, mounted for: {:?}", threads.collect::<Vec<_>>(), holders.collect::<Vec<_>>())
}
