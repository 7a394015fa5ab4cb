//! The command line as clap wants it told: the commands, and the rows of the option table as arguments.

use std::ffi::OsString;
use std::sync::LazyLock;

use clap::builder::{PossibleValuesParser, StyledStr};
use clap::{Arg, ArgAction, Command, ValueHint};

use super::completion::SHELLS;
use super::table::{Fallback, Kind, OPTIONS, OptionSpec, find};
use super::{check, demo, recover, status, unit};

/// How much a help text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Help {
    /// What fits on a screen: the rows of the table are left out.
    Screen,
    /// All there is.
    Complete,
}

/// Commands that take rows of the table, with what their help says of these where it must fit on a screen.
const WITH_ROWS: [(&str, &str); 3] = [
    ("mount", COMMON_OPTIONS),
    ("check", "Those of the bucket as --NAME VALUE, too: 'pailfs help check' lists them."),
    ("recover", "Some as --NAME VALUE, too: 'pailfs help recover' lists them."),
];

const COMMON_OPTIONS: &str = "\
Options that are wanted most ('pailfs help mount' lists all, with defaults):
  -o ro                  Write nothing to the bucket
  -o allow_other         Let all users of this machine use the mount
  -o region=TEXT         Region of the bucket, where it can't be found out
  -o endpoint_url=URL    Another S3 service than AWS
  -o profile=TEXT        Profile of the AWS configuration files
  -o no_sign_request     Public buckets need no credentials
  -o stage_dir=PATH      Where written bytes wait until S3 has them
  -o cache_dir=PATH      Keep bytes that were read, for later
  -o foreground          Stay attached to the terminal";

pub(super) fn command(help: Help) -> Command {
    let command = whole_command();
    if help == Help::Complete {
        return command;
    }
    WITH_ROWS.iter().fold(command, |command, (name, after)| {
        command.mut_subcommand(name, |command| {
            let command =
                command.mut_args(|arg| if find(arg.get_id().as_str()).is_some() { arg.hide(true) } else { arg });
            command.after_help(*after)
        })
    })
}

fn whole_command() -> Command {
    Command::new("pailfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Mount an S3 prefix as a Linux filesystem: one object is one file")
        .override_usage(
            "pailfs [mount] SOURCE MOUNTPOINT [-o NAME=VALUE,...] [--NAME VALUE]\n       pailfs COMMAND ...",
        )
        .after_help(
            "Example: pailfs s3://bucket/prefix /mnt -o ro,allow_other
'pailfs help COMMAND' tells all of one, as do pailfs(8) and pailfs-COMMAND(8).",
        )
        .subcommand_required(true)
        .subcommand(mount_command())
        .subcommand(
            Command::new("umount")
                .about("Wait until everything that was closed is in S3, and unmount")
                .arg(path("MOUNTPOINT").value_hint(ValueHint::AnyPath).help("Where it is mounted"))
                .arg(switch("lazy", 'l').help("Also when busy: detach now, end when the last file is closed")),
        )
        .subcommand(status::status_command())
        .subcommand(status::sync_command())
        .subcommand(check::command())
        .subcommand(recover::command())
        .subcommand(unit::command())
        .subcommand(demo::command())
        .subcommand(
            Command::new("completions").about("Print a script that makes a shell complete commands and options").arg(
                Arg::new("SHELL").required(true).value_parser(PossibleValuesParser::new(SHELLS)).help("The shell"),
            ),
        )
}

fn mount_command() -> Command {
    let command = Command::new("mount")
        .about("Mount an S3 prefix")
        .override_usage("pailfs [mount] SOURCE MOUNTPOINT [-o NAME=VALUE,...] [--NAME VALUE]")
        .arg(path("SOURCE").help("s3://BUCKET[/PREFIX], BUCKET[:/PREFIX], or an access point ARN"))
        .arg(path("MOUNTPOINT").value_hint(ValueHint::DirPath).help("An existing empty directory"))
        .arg(option_list())
        .after_help(StyledStr::from(
            "Every option but -o can be given as --NAME VALUE and as -o NAME=VALUE; '-' and '_' are the same in names.\n\
             A comma within a value of a list stands in quotes or behind a backslash.\n\
             Also with -o: the kernel's options (nosuid, suid, nodev, dev, noexec, noatime, ...) are passed on; those \
             of mount(8) (_netdev, nofail, noauto, user, x-*, ...) are accepted.",
        ));
    OPTIONS.iter().fold(command, |command, spec| command.arg(argument(spec)))
}

/// What mount(8) passes: everything else comes with `-o`.
pub(super) fn helper_command() -> Command {
    Command::new("mount.pailfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Helper of mount(8): called as mount -t pailfs SOURCE MOUNTPOINT -o OPTIONS")
        .arg(path("SOURCE").help("As of 'pailfs mount'"))
        .arg(path("MOUNTPOINT").help("An existing empty directory"))
        .arg(switch("sloppy", 's').help("Ignore unknown options"))
        .arg(switch("fake", 'f').help("Check everything, mount nothing"))
        .arg(switch("no-mtab", 'n').help("Accepted: there is no mtab file"))
        .arg(switch("verbose", 'v').action(ArgAction::Count).help("Accepted"))
        .arg(Arg::new("type").short('t').value_name("TYPE").help("Accepted: there is one type"))
        .arg(Arg::new("namespace").short('N').value_name("NAMESPACE").help("Accepted: mount(8) is in it already"))
        .arg(option_list())
}

pub(super) fn option_list() -> Arg {
    Arg::new("options")
        .short('o')
        .value_name("NAME=VALUE,...")
        .value_parser(clap::value_parser!(OsString))
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .help("Options of 'pailfs mount', with commas between them")
}

fn path(id: &'static str) -> Arg {
    Arg::new(id).required(true).value_parser(clap::value_parser!(OsString))
}

fn switch(id: &'static str, short: char) -> Arg {
    Arg::new(id).short(short).action(ArgAction::SetTrue)
}

/// The name with dashes. clap keeps names for ever, so that they are made once.
fn long_name(spec: &OptionSpec) -> &'static str {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| OPTIONS.iter().map(|spec| spec.name.replace('_', "-")).collect());
    let index = OPTIONS.iter().position(|other| other.name == spec.name).unwrap_or_default();
    &NAMES[index]
}

/// A row of the table as clap's argument. Values are read by our own parser, so that `-o` and `--` say the same.
pub(super) fn argument(spec: &'static OptionSpec) -> Arg {
    let mut notes = Vec::new();
    let range = spec.kind.range();
    if !range.is_empty() {
        notes.push(range);
    }
    match spec.default {
        Fallback::Is("false") | Fallback::Nothing => {}
        Fallback::Is(text) => notes.push(format!("default {text}")),
        Fallback::Told(text) => notes.push(format!("default: {text}")),
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" [{}]", notes.join("; ")) };
    let argument = Arg::new(spec.name)
        .long(long_name(spec))
        .value_parser(clap::value_parser!(OsString))
        .action(ArgAction::Append)
        .help_heading(spec.group.title())
        .help(format!("{}{notes}", spec.help));
    match (spec.kind, spec.name) {
        (Kind::Flag, "foreground") => argument.short('f'),
        _ => argument,
    }
    .num_args(if spec.kind == Kind::Flag { 0..=1 } else { 1..=1 })
    .require_equals(spec.kind == Kind::Flag)
    .default_missing_value("true")
    .value_name(if spec.kind == Kind::Flag { "true|false" } else { spec.kind.placeholder() })
    .allow_hyphen_values(spec.kind != Kind::Flag)
}
