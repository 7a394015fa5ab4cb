//! `pailfs status` and `pailfs sync` as they were asked for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::UsageError;
use super::value;

/// `pailfs status`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRequest {
    /// A mountpoint, or something below one; absolute, otherwise as typed. `None` means all mounts of pailfs.
    pub path: Option<PathBuf>,
    /// For programs.
    pub json: bool,
    /// Say nothing while all is well.
    pub check: bool,
}

/// `pailfs sync`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// A mountpoint, or something below one; absolute, otherwise as typed.
    pub path: PathBuf,
    /// Longest wait; `None` is the `drain_timeout` of the mount.
    pub timeout: Option<Duration>,
}

fn path(help: &'static str) -> Arg {
    Arg::new("PATH").value_parser(clap::value_parser!(OsString)).value_hint(ValueHint::AnyPath).help(help)
}

pub(super) fn status_command() -> Command {
    let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("status")
        .about("Tell what a mount is doing, or how a file in it stands")
        .arg(path("A mountpoint, or what lies below one; without it, all mounts"))
        .arg(switch("json").help("As JSON, for programs"))
        .arg(switch("check").help("Say nothing; exit with 1 when files can't be stored"))
}

pub(super) fn sync_command() -> Command {
    Command::new("sync")
        .about("Wait until everything that was closed is in S3")
        .arg(path("A mountpoint, or something below one").required(true))
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("SECONDS")
                .value_parser(clap::value_parser!(OsString))
                .help("Longest wait [default: drain_timeout of the mount]"),
        )
}

pub(super) fn status_request(matches: &ArgMatches) -> Result<StatusRequest, UsageError> {
    let path = matches.get_one::<OsString>("PATH").map(absolute).transpose()?;
    Ok(StatusRequest { path, json: matches.get_flag("json"), check: matches.get_flag("check") })
}

pub(super) fn sync_request(matches: &ArgMatches) -> Result<SyncRequest, UsageError> {
    let path = absolute(matches.get_one::<OsString>("PATH").map_or(&OsString::new(), |path| path))?;
    let timeout = match matches.get_one::<OsString>("timeout") {
        Some(text) => {
            let text = text.to_string_lossy();
            let sentence = || format!("--timeout: '{text}' is no number of seconds; give one, such as 30");
            Some(value::seconds(&text).ok_or_else(|| UsageError::new(sentence()))?)
        }
        None => None,
    };
    Ok(SyncRequest { path, timeout })
}

fn absolute(path: &OsString) -> Result<PathBuf, UsageError> {
    std::path::absolute(path).map_err(|_| UsageError::new("the path is empty; name one"))
}
