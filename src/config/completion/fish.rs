//! The script for fish: `pailfs.fish`, with one `complete` for each option of each command.

use super::{Completed, Flag, Takes, listed};

pub(super) fn script(commands: &[Completed]) -> String {
    let names: Vec<_> = commands.iter().map(|command| command.name.as_str()).collect();
    let list: String = listed()
        .map(|option| {
            let equals = if matches!(option.takes, Takes::Flag | Takes::Nothing) { "" } else { "=" };
            format!("    printf '%s\\t%s\\n' {}{equals} {}\n", option.name, quoted(option.help))
        })
        .collect();
    let values: String = listed()
        .filter_map(|option| Some((option.name, values(&option.takes)?)))
        .map(|(name, values)| format!("        case {name}\n            {values}\n"))
        .collect();
    let described: String = commands
        .iter()
        .map(|command| {
            let about = quoted(&command.about);
            format!("complete -c pailfs -n __pailfs_is_first -a {} -d {about}\n", command.name)
        })
        .collect();
    include_str!("pailfs.fish")
        .replace("@@COMMANDS@@", &names.join(" "))
        .replace("@@LIST@@", list.trim_end())
        .replace("@@VALUES@@", values.trim_end())
        .replace("@@DESCRIBED@@", described.trim_end())
        .replace("@@OPTIONS@@", commands.iter().map(options_of).collect::<String>().trim_end())
}

fn options_of(command: &Completed) -> String {
    let condition = quoted(&format!("__pailfs_command_is {}", command.name));
    let flags = command.flags.iter().map(|flag| option(&condition, flag));
    // fish does not count what stands without a name: each of them is offered at each place.
    let mut arguments: Vec<&Takes> = Vec::new();
    for takes in &command.arguments {
        if !arguments.contains(&takes) {
            arguments.push(takes);
        }
    }
    let arguments = arguments.into_iter().filter_map(values);
    let arguments =
        arguments.map(|values| format!("complete -c pailfs -n {condition} -a {}\n", quoted(&format!("({values})"))));
    flags.chain(arguments).collect()
}

fn option(condition: &str, flag: &Flag) -> String {
    let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
    let long = flag.long.as_ref().map(|long| format!(" -l {long}")).unwrap_or_default();
    let taken = match &flag.takes {
        Takes::Flag | Takes::Nothing => String::new(),
        takes => match values(takes) {
            Some(values) => format!(" -x -a {}", quoted(&format!("({values})"))),
            None => " -x".to_owned(),
        },
    };
    format!("complete -c pailfs -n {condition}{short}{long}{taken} -d {}\n", quoted(&flag.help))
}

/// A command that prints what is taken; `None` where nobody knows.
fn values(takes: &Takes) -> Option<String> {
    Some(match takes {
        Takes::Nothing | Takes::Text => return None,
        Takes::Flag => "printf '%s\\n' true false".to_owned(),
        Takes::Words(words) => format!("printf '%s\\n' {}", words.join(" ")),
        Takes::File => "__fish_complete_path".to_owned(),
        Takes::Directory => "__fish_complete_directories".to_owned(),
        Takes::Mount => "__pailfs_mount".to_owned(),
        Takes::Source => "echo s3://".to_owned(),
        Takes::User => "__fish_complete_users".to_owned(),
        Takes::Group => "__fish_complete_groups".to_owned(),
        Takes::List => "__pailfs_list".to_owned(),
    })
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
