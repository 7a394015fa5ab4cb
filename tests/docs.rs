//! The documents say what is true: options of the manual are those of the program, commands of the README exist,
//! and each promise of pailfs(7) names tests that are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn pailfs(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pailfs")).args(arguments).output().expect("the program runs")
}

/// Options in the help: each stands as `--name` at the beginning of its line, maybe behind a short one.
fn options_of_the_program() -> BTreeSet<String> {
    let help = pailfs(&["help", "mount"]);
    assert!(help.status.success(), "{help:?}");
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    let name = |line: &str| {
        let line = line.trim_start();
        let rest =
            line.strip_prefix("--").or_else(|| line.get(4..)?.strip_prefix("--").filter(|_| line.starts_with('-')))?;
        let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        Some(name.replace('-', "_"))
    };
    text.lines().filter_map(name).filter(|name| name != "help").collect()
}

/// Options in the manual: the `Cm` names of list items in the section OPTIONS, up to the options of others.
fn options_of_the_manual() -> BTreeSet<String> {
    let text = document("man/pailfs.8");
    let section = text.split("\n.Sh OPTIONS").nth(1).and_then(|rest| rest.split(".Ss Options of others").next());
    let mut names = BTreeSet::new();
    for item in section.expect("a section OPTIONS").lines().filter_map(|line| line.strip_prefix(".It Cm ")) {
        let mut is_name = true;
        let mut words = item.split(' ').peekable();
        while let Some(word) = words.next() {
            match word {
                // What follows is the value, up to the next name.
                "Ns" | "=" | "Ar" | "Fl" => is_name = false,
                "," => is_name = true,
                "Cm" => {}
                _ if is_name => {
                    names.insert(word.to_owned());
                    is_name = words.peek() == Some(&",");
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn the_manual_has_the_options_of_the_program() {
    let (program, manual) = (options_of_the_program(), options_of_the_manual());
    assert!(program.len() > 20, "only {program:?}");
    let missing: Vec<_> = program.difference(&manual).collect();
    let surplus: Vec<_> = manual.difference(&program).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "not in the manual: {missing:?}; not in the program: {surplus:?}"
    );
}

const COMMANDS: [&str; 8] = ["umount", "status", "sync", "check", "recover", "unit", "demo", "completions"];

/// Options of a command that are its own, as its help on a screen has them: `-l`, `--json`.
fn own_options_of(command: &str) -> BTreeSet<String> {
    let help = pailfs(&[command, "--help"]);
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    let flags = text.lines().filter(|line| line.trim_start().starts_with('-')).filter_map(|line| {
        let words = line.trim_start().split(' ').map(|word| word.trim_end_matches(','));
        words.take_while(|word| word.starts_with('-')).last().map(str::to_owned)
    });
    flags.filter(|flag| flag != "--help").collect()
}

/// The options that a page lists: `.It Fl l`, `.It Fl Fl json , Fl Fl check`.
fn options_of_page(command: &str) -> BTreeSet<String> {
    let text = document(&format!("man/pailfs-{command}.8"));
    let items = text.lines().filter_map(|line| line.strip_prefix(".It "));
    let alternatives = items.flat_map(|item| item.split(" , ").collect::<Vec<_>>());
    let option = |item: &str| match item.split(' ').collect::<Vec<_>>()[..] {
        ["Fl", "Fl", name, ..] => Some(format!("--{name}")),
        ["Fl", name, ..] => Some(format!("-{name}")),
        _ => None,
    };
    alternatives.filter_map(option).collect()
}

#[test]
fn each_command_has_a_page_with_its_options() {
    for command in COMMANDS {
        let (own, page) = (own_options_of(command), options_of_page(command));
        assert_eq!(own, page, "{command}: in the program, and in the manual");
    }
    let pages: BTreeSet<_> = files_of("man").map(|path| path.file_name().expect("a name").to_owned()).collect();
    for page in pages.iter().filter_map(|page| page.to_str()?.strip_prefix("pailfs-")?.strip_suffix(".8")) {
        assert!(COMMANDS.contains(&page), "a page of no command: {page}");
    }
    let (main, help) = (document("man/pailfs.8"), pailfs(&["--help"]).stdout);
    let help = String::from_utf8(help).expect("UTF-8");
    for command in
        help.lines().skip_while(|line| *line != "Commands:").skip(1).map_while(|line| line.strip_prefix("  "))
    {
        let command = command.split(' ').next().unwrap_or_default();
        assert!(main.contains(&format!("\n.It Cm {command}\n")), "{command} is not in pailfs(8)");
        assert!(["mount", "help"].contains(&command) || COMMANDS.contains(&command), "{command} has no page");
    }
}

/// All of the source but its tests, with the lines of texts that go on joined.
fn source() -> String {
    fn read(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                read(&entry, text);
            } else {
                let file = std::fs::read_to_string(&entry).expect("a source");
                text.push_str(file.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default());
            }
        }
    }
    let mut text = String::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

#[test]
fn what_troubleshooting_quotes_is_what_the_program_says() {
    let (page, source) = (document("man/pailfs.8"), source());
    let section = page.split("\n.Sh TROUBLESHOOTING\n").nth(1).and_then(|rest| rest.split("\n.Sh ").next());
    let section = section.expect("a section TROUBLESHOOTING");
    let messages =
        section.lines().filter_map(|line| line.strip_prefix(".It Li ").or_else(|| line.strip_prefix(".Li ")));
    let mut found = 0;
    // A macro that ends the literal text ends the message.
    for message in messages.filter(|message| !message.contains(" No ")) {
        for part in message.trim_end_matches(" ,").split("...").map(str::trim).filter(|part| !part.is_empty()) {
            assert!(part.len() > 8 && source.contains(part), "the program does not say: {part}");
            found += 1;
        }
    }
    assert!(found > 15, "only {found} messages");
}

/// Lines of the README's code blocks.
fn commands_of_the_readme() -> Vec<String> {
    let text = document("README.md");
    let blocks = text.split("```").skip(1).step_by(2);
    let shell = blocks.filter_map(|block| block.strip_prefix("sh\n"));
    shell.flat_map(str::lines).map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn the_readme_names_the_two_commands_to_begin_with() {
    let commands = commands_of_the_readme();
    for wanted in ["cargo run --release -- demo DIR", "cargo test"] {
        assert!(commands.iter().any(|command| command == wanted), "no line `{wanted}` in {commands:?}");
    }
}

#[test]
fn commands_and_options_in_the_readme_exist() {
    let known = options_of_the_program();
    let text = document("README.md");
    for command in commands_of_the_readme() {
        let Some(arguments) = command.strip_prefix("pailfs ") else { continue };
        let first = arguments.split(' ').next().unwrap_or_default();
        if !first.contains(':') {
            assert!(pailfs(&["help", first]).status.success(), "`{command}` names no command");
        }
        for list in arguments.split("-o ").skip(1) {
            for option in list.split(' ').next().unwrap_or_default().split(',') {
                let name = option.split('=').next().unwrap_or_default();
                assert!(known.contains(name), "`{command}` has an unknown option {name}");
            }
        }
    }
    // Options in the table are in backticks at the beginning of a row.
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        for name in row
            .split('|')
            .next()
            .unwrap_or_default()
            .split('`')
            .filter(|part| !part.trim_matches([',', ' ']).is_empty())
        {
            let name = name.split('=').next().unwrap_or_default();
            assert!(known.contains(name), "the README's table has an unknown option {name}");
        }
    }
}

/// Names of the tests in one file.
fn tests_in(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let of = |head: &str| -> Vec<String> {
        text.split(head).skip(1).filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())).collect()
    };
    [of("#[test]\nfn "), of("#[tokio::test]\nasync fn ")].concat()
}

/// The files of a test program, or of unit tests, in a directory of the project.
fn files_of(dir: &str) -> impl Iterator<Item = PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    std::fs::read_dir(dir).expect("tests").map(|entry| entry.expect("an entry").path())
}

/// Tests that a page of the manual names.
fn named_in(page: &str) -> BTreeSet<String> {
    let page = document(page);
    page.lines().filter_map(|line| line.strip_prefix(".\\\" test: ")).map(str::to_owned).collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let mut tests = BTreeSet::new();
    let mut promises = BTreeSet::new();
    let memory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/memory.rs");
    for path in files_of("tests/mount").chain(files_of("src/fs/tests")).chain([memory]) {
        let functions = tests_in(&path);
        if path.ends_with("promises.rs") {
            promises.extend(functions.clone());
        }
        tests.extend(functions);
    }
    let named = named_in("man/pailfs.7");
    let unknown: Vec<_> = named.difference(&tests).collect();
    let unnamed: Vec<_> = promises.difference(&named).collect();
    assert!(unknown.is_empty() && unnamed.is_empty(), "no such tests: {unknown:?}; not in the manual: {unnamed:?}");
}

#[test]
fn what_the_manual_says_of_signals_names_tests_that_exist() {
    let tests: BTreeSet<_> = files_of("tests/cli_mount").flat_map(|path| tests_in(&path)).collect();
    let named = named_in("man/pailfs.8");
    let unknown: Vec<_> = named.difference(&tests).collect();
    assert!(unknown.is_empty() && named.len() > 5, "no such tests: {unknown:?} of {named:?}");
}
