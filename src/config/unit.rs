//! `pailfs unit` as it was asked for: a mount, checked like any other, and the words that it was asked with.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command, ValueHint};

use super::definition::option_list;
use super::{Config, UsageError};

/// `pailfs unit`
#[derive(Debug)]
pub struct UnitRequest {
    /// What the unit mounts.
    pub config: Box<Config>,
    /// The values of `-o`, in order, as typed.
    pub options: Vec<String>,
}

pub(super) fn command() -> Command {
    let path = |id: &'static str| Arg::new(id).required(true).value_parser(clap::value_parser!(OsString));
    Command::new("unit")
        .about("Print a systemd service that mounts at boot")
        .arg(path("SOURCE").help("As of 'pailfs mount'"))
        .arg(path("MOUNTPOINT").value_hint(ValueHint::DirPath).help("Where the service mounts"))
        .arg(option_list())
}

pub(super) fn request(matches: &ArgMatches, config: Config) -> Result<UnitRequest, UsageError> {
    let given = matches.get_many::<OsString>("options").into_iter().flatten();
    let text = |value: &OsString| value.to_str().map(str::to_owned);
    let options = given.map(text).collect::<Option<Vec<_>>>();
    let options = options.ok_or_else(|| UsageError::new("an option's value is not UTF-8"))?;
    Ok(UnitRequest { config: Box::new(config), options })
}
