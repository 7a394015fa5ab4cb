//! The script for bash: `pailfs.bash`, with what the commands, options and arguments take as `case` patterns.

use std::collections::BTreeSet;

use super::{Completed, Flag, Takes, listed};

pub(super) fn script(commands: &[Completed]) -> String {
    let names: Vec<_> = commands.iter().map(|command| command.name.as_str()).collect();
    let list: Vec<_> = listed().map(|option| format!("{}{}", option.name, equals(&option.takes))).collect();
    include_str!("pailfs.bash")
        .replace("@@COMMANDS@@", &names.join(" "))
        .replace("@@LIST@@", &list.join(" "))
        .replace("@@OPTIONS@@", commands.iter().map(options_of).collect::<String>().trim_end())
        .replace("@@TAKES@@", takes_of_all(commands).trim_end())
}

/// `=` where a value must follow.
fn equals(takes: &Takes) -> &'static str {
    if matches!(takes, Takes::Flag | Takes::Nothing) { "" } else { "=" }
}

fn names(flag: &Flag) -> impl Iterator<Item = String> {
    flag.short.map(|short| format!("-{short}")).into_iter().chain(flag.long.as_ref().map(|long| format!("--{long}")))
}

fn options_of(command: &Completed) -> String {
    let all: Vec<_> = command.flags.iter().flat_map(names).collect();
    format!("        {}) options='{}' ;;\n", command.name, all.join(" "))
}

/// Options by name, options of lists by name, and arguments as `COMMAND:POSITION`.
fn takes_of_all(commands: &[Completed]) -> String {
    let mut lines = BTreeSet::new();
    for flag in commands.iter().flat_map(|command| &command.flags) {
        lines.extend(names(flag).map(|name| (name, word(&flag.takes))));
    }
    lines.extend(listed().map(|option| (option.name.to_owned(), word(&option.takes))));
    for command in commands {
        for (position, takes) in command.arguments.iter().enumerate() {
            lines.insert((format!("{}:{position}", command.name), word(takes)));
        }
    }
    let taking = lines.iter().filter(|(_, word)| !word.is_empty());
    taking.map(|(name, word)| format!("        {name}) takes='{word}' ;;\n")).collect()
}

fn word(takes: &Takes) -> String {
    match takes {
        Takes::Nothing => String::new(),
        Takes::Text => "@text".to_owned(),
        Takes::Flag => "@flag".to_owned(),
        Takes::Words(words) => words.join(" "),
        Takes::File => "@file".to_owned(),
        Takes::Directory => "@directory".to_owned(),
        Takes::Mount => "@mount".to_owned(),
        Takes::Source => "@source".to_owned(),
        Takes::User => "@user".to_owned(),
        Takes::Group => "@group".to_owned(),
        Takes::List => "@list".to_owned(),
    }
}
