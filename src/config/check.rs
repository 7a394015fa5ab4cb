//! `pailfs check` as it was asked for: a source as a mount of it would be made, and how far the check may go.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::definition::{argument, option_list};
use super::table::{Group, OPTIONS};
use super::{Config, UsageError};

/// `pailfs check`
#[derive(Debug)]
pub struct CheckRequest {
    /// What a mount would use.
    pub config: Box<Config>,
    /// Rights that need writing are tried, on objects of the check's own.
    pub write: bool,
    /// The bucket is created if it is not there.
    pub create: bool,
    /// For programs.
    pub json: bool,
    /// Print the least policy instead of asking anything.
    pub policy: Option<PolicyKind>,
}

/// What a policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// A mount with `ro`.
    ReadOnly,
    /// Any mount.
    ReadWrite,
}

/// Its definition.
pub(super) fn command() -> Command {
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let command = Command::new("check")
        .about("Tell before a mount what works: credentials, bucket, each right")
        .override_usage(
            "pailfs check SOURCE [--write] [--create] [--json] [-o NAME=VALUE,...]\n       \
             pailfs check SOURCE --policy ro|rw",
        )
        .arg(Arg::new("SOURCE").required(true).value_parser(clap::value_parser!(OsString)).help("As of 'pailfs mount'"))
        .arg(switch("write", "Try what needs writing too; what it makes is removed"))
        .arg(switch("create", "Create the bucket if it is not there"))
        .arg(switch("json", "As JSON, for programs"))
        .arg(
            Arg::new("policy")
                .long("policy")
                .value_name("ro|rw")
                .hide_possible_values(true)
                .value_parser(PossibleValuesParser::new(["ro", "rw"]))
                .conflicts_with_all(["write", "create", "json"])
                .help("Print the least IAM policy, ask nothing"),
        )
        .arg(option_list());
    OPTIONS.iter().filter(|spec| spec.group == Group::Bucket).fold(command, |command, spec| command.arg(argument(spec)))
}

/// Its arguments, checked. `config` is made of SOURCE and options.
pub(super) fn request(matches: &ArgMatches, config: Config) -> Result<CheckRequest, UsageError> {
    let policy = matches.get_one::<String>("policy").map(|kind| match kind.as_str() {
        "ro" => PolicyKind::ReadOnly,
        _ => PolicyKind::ReadWrite,
    });
    let flag = |name| matches.get_flag(name);
    let (write, create, json) = (flag("write"), flag("create"), flag("json"));
    let bucket = config.source.bucket();
    if create && (bucket.starts_with("arn:") || bucket.ends_with("-s3alias") || bucket.ends_with("--x-s3")) {
        return Err(UsageError::new(
            "check --create makes general purpose buckets; access points and directory buckets are made with 'aws s3control' and 'aws s3api'",
        ));
    }
    if write && config.fs.read_only {
        return Err(UsageError::new("a mount with ro never writes; leave out ro or --write"));
    }
    Ok(CheckRequest { config: Box::new(config), write, create, json, policy })
}
