//! Scripts that make shells complete commands, options and what options take, also within the lists behind `-o`.
//!
//! Owns what is told to the shells, taken from the definition of the command line and the table of options; how to complete
//! stands in the three scripts, into which it is put. Knows nothing of mounts: the scripts look for those themselves.

mod bash;
mod fish;
mod zsh;

use clap::{Arg, ArgAction, Command, ValueHint};

use super::definition::{Help, command};
use super::kernel::{MOUNT_FLAGS, OWNED_BY_MOUNT};
use super::table::{Kind, OPTIONS, OptionSpec, find};

/// The shells that there are scripts for.
pub(super) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The script for a shell; empty for one that is none of [`SHELLS`].
pub(super) fn script(shell: &str) -> String {
    match shell {
        "bash" => bash::script(&commands()),
        "zsh" => zsh::script(&commands()),
        "fish" => fish::script(&commands()),
        _ => String::new(),
    }
}

/// What may stand where a value is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Takes {
    /// No value, or true/false behind a `=`.
    Flag,
    /// No value.
    Nothing,
    /// One of these.
    Words(Vec<String>),
    /// The path of a file.
    File,
    /// The path of a directory.
    Directory,
    /// A mountpoint of pailfs, or a path below one.
    Mount,
    /// A bucket and a prefix.
    Source,
    /// A user.
    User,
    /// A group.
    Group,
    /// Options with commas between them.
    List,
    /// What no shell can know.
    Text,
}

/// An option of a command.
#[derive(Debug)]
struct Flag {
    short: Option<char>,
    long: Option<String>,
    help: String,
    takes: Takes,
}

/// A command, and what may stand behind it.
#[derive(Debug)]
struct Completed {
    name: String,
    about: String,
    flags: Vec<Flag>,
    /// What stands without a name, in order.
    arguments: Vec<Takes>,
}

/// One option of a `-o` list: its name, its help, and what it takes.
struct Listed {
    name: &'static str,
    help: &'static str,
    takes: Takes,
}

fn commands() -> Vec<Completed> {
    let mut definition = command(Help::Complete);
    definition.build();
    let named = definition.get_subcommands().filter(|command| command.get_name() != "help");
    let mut completed: Vec<_> = named.map(completed).collect();
    let names = completed.iter().map(|command| command.name.clone()).collect();
    let about = "Show the commands, or all about one".to_owned();
    let help = Completed { name: "help".to_owned(), about, flags: Vec::new(), arguments: vec![Takes::Words(names)] };
    completed.push(help);
    completed
}

fn completed(command: &Command) -> Completed {
    let flags = command.get_arguments().filter(|arg| !arg.is_positional()).map(flag).collect();
    Completed {
        name: command.get_name().to_owned(),
        about: command.get_about().map(ToString::to_string).unwrap_or_default(),
        flags,
        arguments: command.get_positionals().map(takes).collect(),
    }
}

fn flag(arg: &Arg) -> Flag {
    // What a table's row adds to its help in brackets is too much for a line of a shell's menu.
    let help = match find(arg.get_id().as_str()) {
        Some(spec) => spec.help.to_owned(),
        None => arg.get_help().map(ToString::to_string).unwrap_or_default(),
    };
    Flag { short: arg.get_short(), long: arg.get_long().map(str::to_owned), help, takes: takes(arg) }
}

fn takes(arg: &Arg) -> Takes {
    if let Some(spec) = find(arg.get_id().as_str()) {
        return taken_by(spec);
    }
    if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Help | ArgAction::HelpShort | ArgAction::Version) {
        return Takes::Nothing;
    }
    let words = arg.get_possible_values();
    match (arg.get_id().as_str(), arg.get_value_hint()) {
        ("options", _) => Takes::List,
        ("SOURCE", _) => Takes::Source,
        _ if !words.is_empty() => Takes::Words(words.iter().map(|word| word.get_name().to_owned()).collect()),
        (_, ValueHint::DirPath) => Takes::Directory,
        (_, ValueHint::AnyPath) => Takes::Mount,
        _ => Takes::Text,
    }
}

fn taken_by(spec: &OptionSpec) -> Takes {
    match spec.kind {
        Kind::Flag => Takes::Flag,
        Kind::Choice(words) => Takes::Words(words.iter().map(|word| (*word).to_owned()).collect()),
        Kind::LogFilter => {
            Takes::Words(["error", "warn", "info", "debug", "trace"].iter().map(|word| (*word).to_owned()).collect())
        }
        Kind::Path if spec.name.ends_with("_dir") => Takes::Directory,
        Kind::Path => Takes::File,
        Kind::User => Takes::User,
        Kind::Group => Takes::Group,
        _ => Takes::Text,
    }
}

/// All that a `-o` list may hold: pailfs's own options, the kernel's, and those of mount(8).
fn listed() -> impl Iterator<Item = Listed> {
    let own = OPTIONS.iter().map(|spec| Listed { name: spec.name, help: spec.help, takes: taken_by(spec) });
    let plain = |help| move |name| Listed { name, help, takes: Takes::Nothing };
    let kernel = MOUNT_FLAGS.iter().map(|flag| flag.name).filter(|name| find(name).is_none());
    // Names that end in a hyphen stand for many.
    let others = OWNED_BY_MOUNT.iter().copied().filter(|name| !name.ends_with('-'));
    own.chain(kernel.map(plain("Option of the kernel"))).chain(others.map(plain("Option of mount(8)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_of_the_program_is_completed() {
        let names: Vec<_> = commands().into_iter().map(|command| command.name).collect();
        for command in super::super::command::COMMANDS {
            assert!(names.iter().any(|name| name == command), "{command} of {names:?}");
        }
    }

    #[test]
    fn an_option_takes_the_same_wherever_it_stands() {
        let mut known: Vec<(String, Takes)> = Vec::new();
        for flag in commands().into_iter().flat_map(|command| command.flags) {
            let Some(long) = flag.long else { continue };
            let other = known.iter().find(|(name, _)| *name == long);
            assert!(
                other.is_none_or(|(_, takes)| *takes == flag.takes),
                "{long}: the script for bash knows one kind only"
            );
            known.push((long, flag.takes));
        }
    }

    #[test]
    fn no_placeholder_is_left_in_a_script() {
        for shell in SHELLS {
            let script = script(shell);
            assert!(script.lines().count() > 50 && !script.contains("@@"), "{script}");
        }
    }
}
