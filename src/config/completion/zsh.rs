//! The script for zsh: `pailfs.zsh`, with specifications as `_arguments` and `_values` take them (zshcompsys(1)).

use super::{Completed, Flag, Takes, listed};

pub(super) fn script(commands: &[Completed]) -> String {
    let described: String = commands
        .iter()
        .map(|command| format!("        {}\n", quoted(&format!("{}:{}", command.name, command.about))))
        .collect();
    let list: Vec<_> = listed()
        .map(|option| {
            let value = value(&option.takes).filter(|_| option.takes != Takes::Flag);
            quoted(&format!("{}[{}]{}", option.name, escaped(option.help), value.unwrap_or_default()))
        })
        .collect();
    include_str!("pailfs.zsh")
        .replace("@@COMMANDS@@", described.trim_end())
        .replace("@@LIST@@", &list.join(" \\\n        "))
        .replace("@@ARGUMENTS@@", commands.iter().map(arguments_of).collect::<String>().trim_end())
}

fn arguments_of(command: &Completed) -> String {
    let flags = command.flags.iter().flat_map(specifications);
    // What nobody knows is left out: its message would keep zsh from filling in an option that stands there.
    let known = command.arguments.iter().enumerate().filter(|(_, takes)| **takes != Takes::Text);
    let arguments = known.filter_map(|(position, takes)| Some(quoted(&format!("{}{}", position + 1, value(takes)?))));
    let all: Vec<_> = flags.chain(arguments).collect();
    format!(
        "        {})\n            _arguments -s \\\n                {}\n            ;;\n",
        command.name,
        all.join(" \\\n                ")
    )
}

/// One for the short name and one for the long one: each may come again.
fn specifications(flag: &Flag) -> Vec<String> {
    let help = escaped(&flag.help);
    let value = value(&flag.takes);
    let taken = value.clone().unwrap_or_default();
    let short = flag.short.map(|short| match &flag.takes {
        Takes::Flag | Takes::Nothing => quoted(&format!("*-{short}[{help}]")),
        _ => quoted(&format!("*-{short}+[{help}]{taken}")),
    });
    let long = flag.long.as_ref().map(|long| match &flag.takes {
        Takes::Nothing => quoted(&format!("*--{long}[{help}]")),
        // Its value stands behind the `=`, or is left out.
        Takes::Flag => quoted(&format!("*--{long}=-[{help}]:{taken}")),
        _ => quoted(&format!("*--{long}=[{help}]{taken}")),
    });
    short.into_iter().chain(long).collect()
}

/// `:message:action`; `None` where no value follows.
fn value(takes: &Takes) -> Option<String> {
    Some(match takes {
        Takes::Nothing => return None,
        Takes::Flag => ":value:(true false)".to_owned(),
        Takes::Words(words) => format!(":value:({})", words.join(" ")),
        Takes::File => ":file:_files".to_owned(),
        Takes::Directory => ":directory:_files -/".to_owned(),
        Takes::Mount => ":path:_pailfs_mount".to_owned(),
        Takes::Source => ":source:_pailfs_source".to_owned(),
        Takes::User => ":user:_users".to_owned(),
        Takes::Group => ":group:_groups".to_owned(),
        Takes::List => ":options:_pailfs_list".to_owned(),
        Takes::Text => ":value:".to_owned(),
    })
}

/// For the brackets of a specification.
fn escaped(help: &str) -> String {
    help.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
