//! The command line: which command, with which arguments. Three kinds of argv come in: a user's, that of the mount(8)
//! helper (`mount.pailfs SPEC DIR -sfnv -o OPTIONS`, see "EXTERNAL HELPERS" in mount(8)), and that of mount.fuse3,
//! which looks like a user's.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::build::Given;
use super::check::{self, CheckRequest};
use super::completion;
use super::defaults::endpoint_of_environment;
use super::definition::{Help, command, helper_command};
use super::demo::{self, DemoRequest};
use super::recover::{self, RecoverRequest};
use super::status::{self, StatusRequest, SyncRequest};
use super::table::{self, OPTIONS};
use super::unit::{self, UnitRequest};
use super::{Config, UsageError};

/// What is to be done.
#[derive(Debug)]
pub enum Request {
    /// Mount.
    Mount(Box<Config>),
    /// `mount -f`: everything was checked, and nothing is to be mounted.
    Fake,
    /// Unmount.
    Umount(UmountRequest),
    /// Tell what a mount is doing.
    Status(StatusRequest),
    /// Wait until everything is stored.
    Sync(SyncRequest),
    /// What works before a mount.
    Check(CheckRequest),
    /// What killed mounts left.
    Recover(RecoverRequest),
    /// A systemd service.
    Unit(UnitRequest),
    /// The demonstration.
    Demo(DemoRequest),
    /// A text for standard output: help, version, a script for a shell.
    Show(String),
}

/// `pailfs umount`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UmountRequest {
    /// Absolute, otherwise as typed.
    pub mountpoint: PathBuf,
    /// Also when busy: it goes from the tree at once, and for good when the last file is closed.
    pub lazy: bool,
}

/// Names under which mount(8) calls us.
const HELPER_NAMES: [&str; 2] = ["mount.pailfs", "mount.fuse.pailfs"];

pub(super) const COMMANDS: [&str; 10] =
    ["mount", "umount", "status", "sync", "check", "recover", "unit", "demo", "completions", "help"];

/// Reads a whole argv.
///
/// # Errors
/// One sentence about the first thing that is wrong.
pub fn parse(args: Vec<OsString>) -> Result<Request, UsageError> {
    let called_as = args.first().map(PathBuf::from).unwrap_or_default();
    let called_as = called_as.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let rest: Vec<OsString> = args.iter().skip(1).cloned().collect();
    if HELPER_NAMES.contains(&called_as) {
        return parse_helper(rest);
    }
    let mut line = vec![OsString::from("pailfs")];
    let named = rest.first().and_then(|first| first.to_str());
    if !named.is_some_and(|word| COMMANDS.contains(&word) || ["-h", "--help", "-V", "--version"].contains(&word)) {
        if rest.is_empty() {
            return Err(UsageError::new("no source and no mountpoint; 'pailfs --help' shows how to mount"));
        }
        line.push("mount".into());
    }
    let help = if named == Some("help") { Help::Complete } else { Help::Screen };
    line.extend(rest.into_iter().map(underscores_to_dashes));
    let called = line.get(1).and_then(|word| word.to_str()).filter(|word| COMMANDS.contains(word)).map(str::to_owned);
    let matches = match command(help).try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) => return shown_or_refused(&error, called.as_deref().unwrap_or("mount")),
    };
    match matches.subcommand() {
        Some(("mount", matches)) => mount_config(matches).map(|config| Request::Mount(Box::new(config))),
        Some(("umount", matches)) => Ok(Request::Umount(UmountRequest {
            mountpoint: absolute(matches, "MOUNTPOINT")?,
            lazy: matches.get_flag("lazy"),
        })),
        Some(("status", matches)) => status::status_request(matches).map(Request::Status),
        Some(("sync", matches)) => status::sync_request(matches).map(Request::Sync),
        // There is no mountpoint, and none is looked at.
        Some(("check", matches)) => {
            let config = given_options(matches)?.config(source(matches)?, Path::new("/"))?;
            check::request(matches, config).map(Request::Check)
        }
        Some(("recover", matches)) => recover_request(matches).map(Request::Recover),
        Some(("unit", matches)) => unit::request(matches, mount_config(matches)?).map(Request::Unit),
        Some(("demo", matches)) => demo::request(matches).map(Request::Demo),
        Some(("completions", matches)) => {
            let shell = matches.get_one::<String>("SHELL").map_or("", String::as_str);
            Ok(Request::Show(completion::script(shell)))
        }
        _ => Err(UsageError::new("no command; 'pailfs --help' lists them")),
    }
}

/// `--part_size=8M` is `--part-size=8M`.
fn underscores_to_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text.starts_with("--") => {
            let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
            format!("{}{value}", name.replace('_', "-")).into()
        }
        _ => argument,
    }
}

fn parse_helper(rest: Vec<OsString>) -> Result<Request, UsageError> {
    let line = std::iter::once(OsString::from("mount.pailfs")).chain(rest);
    let matches = match helper_command().try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) => return shown_or_refused(&error, "mount"),
    };
    let config = mount_config(&matches)?;
    Ok(if matches.get_flag("fake") { Request::Fake } else { Request::Mount(Box::new(config)) })
}

fn recover_request(matches: &ArgMatches) -> Result<RecoverRequest, UsageError> {
    let stage = given_options(matches)?.stage_settings()?;
    let config = match matches.get_one::<OsString>("SOURCE") {
        // There is no mountpoint, and none is looked at.
        Some(_) => Some(Box::new(given_options(matches)?.config(source(matches)?, Path::new("/"))?)),
        None => None,
    };
    recover::request(matches, config, stage)
}

fn mount_config(matches: &ArgMatches) -> Result<Config, UsageError> {
    let mountpoint = matches.get_one::<OsString>("MOUNTPOINT").map(OsString::as_os_str).unwrap_or_default();
    given_options(matches)?.config(source(matches)?, Path::new(mountpoint))
}

fn given_options(matches: &ArgMatches) -> Result<Given, UsageError> {
    let sloppy = matches.try_get_one::<bool>("sloppy").ok().flatten().copied().unwrap_or(false);
    let mut given = Given::new(sloppy, endpoint_of_environment());
    for Occurrence { name, text, .. } in in_order(matches)? {
        match name {
            None => given.list(&text)?,
            Some(name) => given.element((name.to_owned(), Some(text)))?,
        }
    }
    Ok(given)
}

fn source(matches: &ArgMatches) -> Result<&str, UsageError> {
    let source = matches.get_one::<OsString>("SOURCE").map(OsString::as_os_str).unwrap_or_default();
    source.to_str().ok_or_else(|| UsageError::new("the source is not UTF-8; bucket and keys are"))
}

/// One option as it stands on the command line; a `-o` list has no name.
struct Occurrence {
    index: usize,
    name: Option<&'static str>,
    text: String,
}

/// `-o` values and options, from left to right: later ones win.
fn in_order(matches: &ArgMatches) -> Result<Vec<Occurrence>, UsageError> {
    let names = std::iter::once(("options", None)).chain(OPTIONS.iter().map(|spec| (spec.name, Some(spec.name))));
    let mut found = Vec::new();
    for (id, name) in names {
        // The helper's argv has no `--name` options at all: an id that clap does not know is one not given.
        let Ok(Some(values)) = matches.try_get_many::<OsString>(id) else { continue };
        let Some(indices) = matches.indices_of(id) else { continue };
        for (value, index) in values.zip(indices) {
            let text = value.to_str().ok_or_else(|| UsageError::new("an option's value is not UTF-8"))?;
            found.push(Occurrence { index, name, text: text.to_owned() });
        }
    }
    found.sort_by_key(|occurrence| occurrence.index);
    Ok(found)
}

fn absolute(matches: &ArgMatches, id: &str) -> Result<PathBuf, UsageError> {
    let path = matches.get_one::<OsString>(id).map(PathBuf::from).unwrap_or_default();
    std::path::absolute(&path).map_err(|_| UsageError::new("the directory is empty; name one"))
}

/// clap's own error about a call of `command` as one sentence; its help and version as texts.
fn shown_or_refused(error: &clap::Error, command: &str) -> Result<Request, UsageError> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let argument = context(ContextKind::InvalidArg);
    let how = format!("'pailfs help {command}'");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Request::Show(error.render().to_string())),
        ErrorKind::UnknownArgument if argument.starts_with("--") && command == "mount" => {
            Err(table::unknown(argument.trim_start_matches('-').split('=').next().unwrap_or_default()))
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let near = context(ContextKind::SuggestedArg);
            let end =
                if near.is_empty() { format!("{how} lists the options") } else { format!("did you mean '{near}'?") };
            Err(UsageError::new(format!("{command} has no option '{argument}'; {end}")))
        }
        ErrorKind::UnknownArgument => {
            Err(UsageError::new(format!("'{argument}' is one argument too many; {how} shows what {command} takes")))
        }
        ErrorKind::MissingRequiredArgument => {
            Err(UsageError::new(format!("missing {argument}; {how} shows what {command} takes")))
        }
        ErrorKind::InvalidValue if !context(ContextKind::ValidValue).is_empty() => Err(UsageError::new(format!(
            "'{}' is no value of {argument}; give one of {}",
            context(ContextKind::InvalidValue),
            context(ContextKind::ValidValue)
        ))),
        ErrorKind::InvalidSubcommand => Err(UsageError::new(format!(
            "no command '{}'; 'pailfs --help' lists them",
            context(ContextKind::InvalidSubcommand)
        ))),
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(UsageError::new(format!("{line}; {how} shows what {command} takes")))
        }
    }
}

/// Text of `pailfs help mount`.
pub fn help_text() -> String {
    let mut command = command(Help::Complete);
    command.build();
    command.find_subcommand_mut("mount").map(|mount| mount.render_long_help().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    fn mounted(line: &[&str]) -> Config {
        match parse(words(line)) {
            Ok(Request::Mount(config)) => *config,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn refused(line: &[&str]) -> String {
        parse(words(line)).map(|_| ()).expect_err("a refusal").to_string()
    }

    #[test]
    fn clap_finds_no_fault_with_the_definitions() {
        command(Help::Screen).debug_assert();
        command(Help::Complete).debug_assert();
        helper_command().debug_assert();
    }

    #[test]
    fn mount_is_the_command_when_none_is_named() {
        for line in [
            &["pailfs", "s3://bucket/p", "/mnt"][..],
            &["/usr/bin/pailfs", "mount", "s3://bucket/p", "/mnt"],
            &["pailfs", "-o", "ro", "s3://bucket/p", "/mnt"],
            &["pailfs", "--foreground", "s3://bucket/p", "/mnt"],
        ] {
            assert_eq!(mounted(line).source.bucket(), "bucket", "{line:?}");
        }
    }

    #[test]
    fn options_come_as_flags_and_as_lists_and_the_last_one_wins() {
        let line =
            ["pailfs", "s3://bucket", "/mnt", "--part-size", "9M", "-o", "part_size=10M,uid=3", "--part_size=11M"];
        assert_eq!(mounted(&line).fs.transfer.part_size, 11 << 20);
        let config = mounted(&["pailfs", "s3://bucket", "/mnt", "-f", "--allow-other", "--ro=false", "-oumask=077"]);
        assert!(config.foreground && !config.fs.read_only);
        assert_eq!(config.fs.dmask, 0o077);
    }

    #[test]
    fn the_helper_takes_the_argv_of_mount() {
        let line = ["/sbin/mount.pailfs", "s3://bucket/p", "/mnt", "-s", "-n", "-v", "-o", "ro,noexec,_netdev,odd=1"];
        assert!(mounted(&line).fs.read_only);
        let line = ["mount.fuse.pailfs", "pailfs#s3://bucket", "/mnt", "-o", "rw"];
        assert_eq!(mounted(&line).source.typed(), "pailfs#s3://bucket");
        assert!(matches!(parse(words(&["mount.pailfs", "s3://bucket", "/mnt", "-f", "-o", "rw"])), Ok(Request::Fake)));
        assert!(refused(&["mount.pailfs", "s3://bucket", "/mnt", "-o", "rw,odd=1"]).contains("unknown option 'odd'"));
        assert!(refused(&["mount.pailfs", "s3://b", "/mnt", "-f", "-o", "rw"]).contains("not a bucket's name"));
    }

    #[test]
    fn a_wrong_call_is_one_sentence() {
        for (line, part) in [
            (&["pailfs"][..], "no source"),
            (&["pailfs", "s3://bucket"], "missing <MOUNTPOINT>"),
            (&["pailfs", "s3://bucket", "/mnt", "/more"], "one argument too many"),
            (&["pailfs", "s3://bucket", "/mnt", "--reigon", "x"], "did you mean 'region'?"),
            (&["pailfs", "s3://bucket", "/mnt", "--region"], "region"),
            (&["pailfs", "s3://bucket", "/mnt", "-x"], "-x"),
            (&["pailfs", "demo"], "demo needs a directory"),
            (&["pailfs", "umount"], "missing <MOUNTPOINT>; 'pailfs help umount'"),
            (&["pailfs", "status", "/a", "/b"], "'/b' is one argument too many; 'pailfs help status'"),
            (&["pailfs", "status", "--jsn"], "did you mean '--json'?"),
            (&["pailfs", "sync", "/mnt", "-x"], "sync has no option '-x'; 'pailfs help sync'"),
            (&["pailfs", "check", "s3://bucket", "--policy", "rx"], "give one of ro, rw"),
            (&["pailfs", "completions", "tcsh"], "give one of bash, zsh, fish"),
            (&["pailfs", "sync"], "missing"),
            (&["pailfs", "sync", "/mnt", "--timeout", "soon"], "no number of seconds"),
            (&["pailfs", "recover", "--upload"], "needs a source"),
            (&["pailfs", "recover", "s3://bucket", "--discard"], "say --all"),
            (&["pailfs", "recover", "s3://bucket", "--upload", "--to", "x"], "name that one file"),
            (&["pailfs", "recover", "s3://bucket", "--upload", "--discard"], "cannot be used with"),
        ] {
            let sentence = refused(line);
            assert!(sentence.contains(part) && !sentence.contains('\n'), "{line:?}: {sentence}");
        }
    }

    #[test]
    fn the_help_names_every_option() {
        let help = help_text();
        for spec in OPTIONS {
            assert!(help.contains(&format!("--{}", spec.name.replace('_', "-"))), "{}", spec.name);
        }
    }
}
