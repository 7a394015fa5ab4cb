//! `pailfs status`: what the mounts of pailfs are doing, or how one file stands.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::control::{Ask, FileReport, Found, Limited, Reply, Report, ask, find};
use super::sentence::{Failure, Status};
use crate::config::StatusRequest;
use crate::fuse::mountinfo::{self, Entry};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Exit code of `--check` when files can't be stored.
const UNSTORED: u8 = 1;

/// Does it.
pub fn run(request: &StatusRequest) -> ExitCode {
    match carry_out(request) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn carry_out(request: &StatusRequest) -> Result<ExitCode, Failure> {
    let Some(path) = &request.path else { return all(request) };
    let found = find(path).map_err(|trouble| as_probe(request, trouble.into()))?;
    if !found.below.as_os_str().is_empty() && !request.check {
        return file(request, &found);
    }
    let report = mount(&found.entry).map_err(|failure| as_probe(request, failure))?;
    if request.check {
        return Ok(checked(&report));
    }
    print(&if request.json { json(&report)? } else { text(&report) });
    Ok(ExitCode::SUCCESS)
}

/// A probe tells apart what can't be used and what can't store: the former has mount(8)'s exit code for a failed mount.
fn as_probe(request: &StatusRequest, failure: Failure) -> Failure {
    if request.check { Failure::new(Status::Mount, failure.sentence()) } else { failure }
}

fn checked(report: &Report) -> ExitCode {
    if report.failed_files == 0 {
        return ExitCode::SUCCESS;
    }
    let error = report.unstored.first().and_then(|file| file.error.as_deref()).unwrap_or_default();
    super::say(&format!("{} file(s) can't be stored: {error}", report.failed_files));
    ExitCode::from(UNSTORED)
}

/// Every mount that this user may ask; of others it is said that they are there.
fn all(request: &StatusRequest) -> Result<ExitCode, Failure> {
    let table = mountinfo::read().map_err(|error| Failure::system("reading the mount table", &error))?;
    let mut reports = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for entry in table.into_iter().filter(Entry::is_pailfs) {
        match mount(&entry) {
            Ok(report) => reports.push(report),
            Err(failure) => code = failure.report(),
        }
    }
    if request.check {
        let worst = reports.iter().find(|report| report.failed_files > 0);
        return Ok(worst.map_or(code, checked));
    }
    if request.json {
        print(&json(&reports)?);
    } else if reports.is_empty() && code == ExitCode::SUCCESS {
        print("no pailfs is mounted\n");
    } else {
        print(&reports.iter().map(text).collect::<Vec<_>>().join("\n"));
    }
    Ok(code)
}

fn mount(entry: &Entry) -> Result<Report, Failure> {
    match ask(entry, &Ask::Status, Some(PATIENCE))? {
        Reply::Status(report) => Ok(*report),
        other => Err(unexpected(&other)),
    }
}

fn file(request: &StatusRequest, found: &Found) -> Result<ExitCode, Failure> {
    let Some(below) = found.below.to_str() else {
        return Err(Failure::new(Status::Usage, "the path is not UTF-8; names in S3 are"));
    };
    match ask(&found.entry, &Ask::File(below.to_owned()), Some(PATIENCE))? {
        Reply::File(report) => {
            print(&if request.json { json(&report)? } else { file_text(&report) });
            Ok(ExitCode::SUCCESS)
        }
        Reply::Refused(why) => Err(Failure::new(Status::Usage, format!("{below}: {why}"))),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &Reply) -> Failure {
    let why = match reply {
        Reply::Refused(why) => why,
        _ => "it answered another question; it is of another version",
    };
    Failure::new(Status::System, format!("the mount refused: {why}"))
}

fn json(report: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(report);
    text.map(|text| text + "\n").map_err(|error| Failure::new(Status::System, format!("writing JSON failed: {error}")))
}

/// A reader that stops reading (`| head`) is no failure.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Bytes as a person reads them.
pub fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, 0);
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{count} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

fn limited(limited: &Limited) -> String {
    let limit = limited.limit.map(|limit| format!(" of {}", bytes(limit))).unwrap_or_default();
    let dir = limited.dir.as_ref().map(|dir| format!(" in {dir}")).unwrap_or_default();
    format!("{}{limit}{dir}", bytes(limited.bytes))
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let Report { source, mountpoint, pid, version, uptime_seconds, .. } = report;
    // Writing into a String can't fail.
    let mut line = |name: &str, value: &str| _ = writeln!(text, "  {name:<12} {value}");
    let unstored = match (report.unstored_files, report.failed_files) {
        (0, _) => "nothing".to_owned(),
        (files, failed) => format!("{files} file(s), {}; {failed} failed", bytes(report.unstored_bytes)),
    };
    line("not stored", &unstored);
    for file in &report.unstored {
        let why = file.error.as_ref().map(|error| format!(" {} time(s): {error}", file.failures)).unwrap_or_default();
        line("", &format!("{}  {}  {}{why}", file.path, bytes(file.size), file.standing.words()));
    }
    let options = report.options.iter().map(|(name, value)| format!("{name}={value}"));
    line("options", &options.collect::<Vec<_>>().join(","));
    if report.conditional_writes == Some(false) {
        line("warning", "this store ignores the conditions of writes: other writers are overwritten without an error");
    }
    line("read buffers", &limited(&report.memory));
    line("stage", &limited(&report.stage));
    if let Some(cache) = &report.cache {
        line("disk cache", &limited(cache));
    }
    line("open files", &report.open_files.to_string());
    line("names", &format!("{} known, {} keys hidden", report.inodes, report.hidden_keys));
    for asked in &report.requests {
        let counted = &asked.counted;
        line(
            "asked of S3",
            &format!(
                "{} {} ({} failed), {} in, {} out, half within {} ms, nearly all within {} ms",
                counted.requests,
                asked.operation,
                counted.failures,
                bytes(counted.bytes_in),
                bytes(counted.bytes_out),
                asked.half_within_ms,
                asked.nearly_all_within_ms
            ),
        );
    }
    line("sent again", &report.retries.to_string());
    line("cost", &format!("about ${:.4} for requests, at the prices of S3 Standard", report.estimated_cost_usd));
    format!("{source} on {mountpoint}, up {} (pailfs {version}, process {pid})\n{text}", time(*uptime_seconds))
}

fn file_text(report: &FileReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<14} {value}");
    line("key", &report.key);
    if !report.is_dir {
        line("size", &format!("{} bytes", report.size));
        let error = report.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        line("bytes", &format!("{}{error}", report.standing.words()));
    }
    let facts = [("etag", &report.etag), ("version id", &report.version_id), ("storage class", &report.storage_class)];
    for (name, value) in facts {
        if let Some(value) = value {
            line(name, value);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_times_are_told_in_units_that_fit() {
        for (count, told) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(bytes(count), told);
        }
        for (seconds, told) in [(0, "0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(time(seconds), told);
        }
    }
}
