//! `pailfs recover` as it was asked for: what is to be done with the files that killed runs left.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueHint};

use super::definition::{argument, option_list};
use super::table::{Group, OPTIONS, OptionSpec};
use super::{Config, StageSettings, UsageError};

/// `pailfs recover`
#[derive(Debug)]
pub struct RecoverRequest {
    /// The source, as a mount of it would be made; `None` means all sources, which can only be listed.
    pub config: Option<Box<Config>>,
    /// Where to look.
    pub stage: StageSettings,
    /// What to do.
    pub action: RecoverAction,
    /// With which files: paths below the prefix, or the ids that the list shows. None means all that the action is meant for.
    pub files: Vec<String>,
}

/// What to do with what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverAction {
    /// Tell what is there.
    List,
    /// Store it in S3.
    Upload {
        /// Also over what another writer put there.
        force: bool,
        /// Under this path below the prefix, where nothing may be.
        to: Option<String>,
    },
    /// Copy it into this directory; absolute.
    Export(PathBuf),
    /// Throw it away.
    Discard,
}

/// Options that matter here: the way to the bucket, the stage, and the log. `-o` takes them all.
fn matters(spec: &OptionSpec) -> bool {
    let named = ["stage_dir", "part_size", "concurrency", "memory_limit", "log_level", "log_file"];
    spec.group == Group::Bucket || named.contains(&spec.name)
}

/// Its definition.
pub(super) fn command() -> Command {
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let text = |name: &'static str, value: &'static str| {
        Arg::new(name).long(name).value_name(value).value_parser(clap::value_parser!(OsString))
    };
    let positional = |name: &'static str| Arg::new(name).value_parser(clap::value_parser!(OsString));
    let command = Command::new("recover")
        .about("List, store, export or discard what killed mounts left")
        .override_usage(
            "pailfs recover [SOURCE] [--list]\n       pailfs recover SOURCE --upload [--force | --to PATH] [FILE...]\n       \
             pailfs recover SOURCE --export DIR [FILE...]\n       pailfs recover SOURCE --discard FILE...|--all",
        )
        .arg(positional("SOURCE").help("As of 'pailfs mount'; without it, all sources are listed"))
        .arg(positional("FILE").num_args(0..).help("Paths below the prefix, or ids, as the list shows them"))
        .arg(switch("list", "Tell what is left (the default)"))
        .arg(switch("upload", "Store it; without FILE, all that was closed or synced"))
        .arg(text("export", "DIR").value_hint(ValueHint::DirPath).help("Copy it into a directory; it stays in the stage, too"))
        .arg(switch("discard", "Throw it away"))
        .group(ArgGroup::new("action").args(["list", "upload", "export", "discard"]))
        .arg(switch("all", "With --discard: all of it").requires("discard"))
        .arg(switch("force", "With --upload: replace what was stored since").requires("upload"))
        .arg(text("to", "PATH").requires("upload").help("With --upload: store the one file under this path"))
        .arg(option_list());
    OPTIONS.iter().filter(|spec| matters(spec)).fold(command, |command, spec| command.arg(argument(spec)))
}

/// Its arguments, checked. `config` is made of SOURCE and options.
pub(super) fn request(
    matches: &ArgMatches,
    config: Option<Box<Config>>,
    stage: StageSettings,
) -> Result<RecoverRequest, UsageError> {
    let text = |value: &OsString| {
        value.to_str().map(str::to_owned).ok_or_else(|| UsageError::new("a path is not UTF-8; keys are"))
    };
    let mut files =
        matches.get_many::<OsString>("FILE").into_iter().flatten().map(text).collect::<Result<Vec<_>, _>>()?;
    files.iter_mut().for_each(|file| *file = file.trim_start_matches('/').to_owned());
    let to = matches.get_one::<OsString>("to").map(text).transpose()?.map(|to| to.trim_start_matches('/').to_owned());
    let export = matches.get_one::<OsString>("export").map(std::path::absolute).transpose();
    let export = export.map_err(|_| UsageError::new("the directory to export to is empty; name one"))?;
    let action = match (export, matches.get_flag("upload"), matches.get_flag("discard")) {
        (Some(dir), ..) => RecoverAction::Export(dir),
        (None, true, _) => RecoverAction::Upload { force: matches.get_flag("force"), to },
        (None, false, true) => RecoverAction::Discard,
        _ => RecoverAction::List,
    };
    match &action {
        RecoverAction::Discard if files.is_empty() && !matches.get_flag("all") => {
            return Err(UsageError::new("recover --discard throws files away for good; name them, or say --all"));
        }
        RecoverAction::Discard if !files.is_empty() && matches.get_flag("all") => {
            return Err(UsageError::new("recover --discard takes files or --all, not both"));
        }
        RecoverAction::Upload { force: true, to: Some(_) } => {
            return Err(UsageError::new("recover --to never replaces anything; leave out --to or --force"));
        }
        RecoverAction::Upload { to: Some(_), .. } if files.len() != 1 => {
            return Err(UsageError::new("recover --to stores one file under another path; name that one file"));
        }
        _ if config.is_none() && action != RecoverAction::List => {
            return Err(UsageError::new("recover needs a source to do that; 'pailfs recover' lists all of them"));
        }
        _ => {}
    }
    Ok(RecoverRequest { config, stage, action, files })
}
