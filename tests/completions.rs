//! What the scripts for shells answer, asked of the shells themselves. A shell that is not installed is skipped by name.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pailfs");

/// The script for a shell, in a file.
fn script(shell: &str) -> tempfile::NamedTempFile {
    let output = Command::new(PROGRAM).args(["completions", shell]).output().expect("the program runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&output.stdout).expect("written");
    file
}

/// Runs a shell; `None` where it is not installed, which is said.
fn run(shell: &str, args: &[&str]) -> Option<Output> {
    // Not what the user of the tests has told the shells.
    let home = tempfile::tempdir().expect("a directory");
    let is_missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    if Command::new(shell).arg("--version").output().is_err_and(|error| is_missing(&error)) {
        // Past the capture of the test runner: what was not tested must show.
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {shell} is not installed");
        return None;
    }
    // A shell that waits for more than it gets would wait for ever.
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "60", shell])
        .args(args)
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("TERM", "dumb");
    Some(command.stdin(Stdio::null()).output().expect("timeout(1) runs"))
}

/// What bash answers at the end of a line: what it fills in, and which of readline's own completions it asks for.
fn bash(line: &str) -> Option<(Vec<String>, String)> {
    const ASK: &str = r#"
        source "$1"
        compopt() { asked+=" $*"; }
        COMP_LINE=$2 COMP_POINT=${#2}
        COMP_WORDS=($2) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _pailfs
        printf '%s\n' "${asked# }" "${COMPREPLY[@]}""#;
    let script = script("bash");
    let path = script.path().to_str().expect("UTF-8");
    let output = run("bash", &["--norc", "--noprofile", "-c", ASK, "bash", path, line])?;
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines = text.lines().map(str::to_owned);
    let asked = lines.next().unwrap_or_default();
    Some((lines.filter(|line| !line.is_empty()).collect(), asked))
}

#[test]
fn bash_completes_commands_options_and_what_they_take() {
    for (line, wanted) in [
        ("pailfs sy", &["sync"][..]),
        ("pailfs s", &["status", "sync", "s3://"]),
        ("pailfs help s", &["status", "sync"]),
        ("pailfs completions ", &["bash", "zsh", "fish"]),
        ("pailfs status --", &["--json", "--check", "--help"]),
        ("pailfs check s3://b --policy ", &["ro", "rw"]),
        ("pailfs s3://b /mnt --pa", &["--path-style", "--payload-signing", "--part-size"]),
        ("pailfs s3://b /mnt --commit ", &["close", "async"]),
        // Readline breaks the word at the `=`: only what stands behind it is filled in.
        ("pailfs s3://b /mnt --commit=a", &["async"]),
        ("pailfs mount --ro=t", &["true"]),
        ("pailfs --region eu-west-1 s3", &["s3://"]),
        ("pailfs --region ", &[]),
    ] {
        let Some((answers, _)) = bash(line) else { return };
        assert_eq!(answers, wanted, "{line}");
    }
}

#[test]
fn bash_completes_within_lists_of_mount_options() {
    for (line, wanted) in [
        ("pailfs mount -o reg", &["region="][..]),
        ("pailfs s3://b /mnt -o ro,pa", &["ro,path_style=", "ro,payload_signing=", "ro,part_size="]),
        ("pailfs s3://b /mnt -o ro,path_style=", &["auto", "true", "false"]),
        ("pailfs s3://b /mnt -o ro,path-style=a", &["auto"]),
        ("pailfs s3://b /mnt -oro,commit=a", &["async"]),
        ("pailfs s3://b /mnt -o commit=async,noex", &["async,noexec"]),
        ("pailfs s3://b /mnt -o endpoint_url=http://host:9000,reg", &["9000,region="]),
        ("pailfs unit s3://b /mnt -o xat", &["xattr"]),
        ("pailfs s3://b /mnt -o uid=roo", &["root"]),
        // What is there already is not offered again.
        ("pailfs s3://b /mnt -o region=x,reg", &[]),
    ] {
        let Some((answers, asked)) = bash(line) else { return };
        assert_eq!(answers, wanted, "{line}");
        assert!(asked.contains("nospace"), "{line}: another option may follow: {asked}");
    }
    let Some((answers, _)) = bash("pailfs mount -o ") else { return };
    for spec in pailfs::config::OPTIONS {
        assert!(answers.iter().any(|answer| answer.trim_end_matches('=') == spec.name), "{}", spec.name);
    }
}

#[test]
fn bash_leaves_paths_to_readline() {
    for (line, wanted) in [
        ("pailfs s3://b ", "-o dirnames"),
        ("pailfs -o ro s3://b /m", "-o dirnames"),
        ("pailfs s3://b /mnt --log-file ", "-o default"),
        ("pailfs s3://b /mnt -o stage_dir=/v", "-o nospace -o dirnames"),
        ("pailfs recover s3://b --export ", "-o dirnames"),
        ("pailfs umount ", "-o filenames -o default"),
    ] {
        let Some((_, asked)) = bash(line) else { return };
        assert_eq!(asked, wanted, "{line}");
    }
}

#[test]
fn fish_completes_commands_and_lists() {
    for (line, wanted) in [
        ("pailfs sy", &["sync"][..]),
        ("pailfs s3://b /mnt -o ro,pat", &["ro,path_style="]),
        ("pailfs mount -o ro,commit=", &["ro,commit=async", "ro,commit=close"]),
        ("pailfs mount -oro,path-style=a", &["-oro,path-style=auto"]),
        ("pailfs check s3://b --policy ", &["ro", "rw"]),
        ("pailfs --commi", &["--commit"]),
    ] {
        let script = script("fish");
        let path = script.path().to_str().expect("UTF-8");
        let ask = format!("source {path}; complete -C '{line}'");
        let Some(output) = run("fish", &["--no-config", "-c", &ask]) else { return };
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let mut answers: Vec<_> = text.lines().filter_map(|line| line.split('\t').next()).collect();
        answers.sort_unstable();
        assert_eq!(answers, wanted, "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn zsh_reads_the_script_without_complaint() {
    let script = script("zsh");
    let path = script.path().to_str().expect("UTF-8");
    let ask = format!("autoload -Uz compinit && compinit -u -D && source {path} && print -r -- $_comps[pailfs]");
    let Some(output) = run("zsh", &["-f", "-c", &ask]) else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.trim() == "_pailfs" && output.stderr.is_empty(), "{output:?}");
    assert!(
        fs::read_to_string(path).is_ok_and(|text| text.starts_with("#compdef pailfs\n")),
        "what compinit looks for"
    );
}

#[test]
fn zsh_completes_commands_and_lists() {
    // An interactive zsh in a terminal of another one: after the line comes a tab, then a key that shows what the line is now.
    const ASK: &str = r#"
        zmodload zsh/zpty || exit 1
        zpty inner zsh -f -i
        zpty -w inner "source $1"
        zpty -r inner text '*READY*' || exit 1
        for line in "${@:2}"; do
            zpty -n -w inner "$line"$'\t\C-t'
            zpty -r inner text '*<<*>>*' || exit 1
            text=${text##*<<}
            print -r -- "${text%%>>*}"
        done"#;
    const SETUP: &str = r#"
        autoload -Uz compinit
        compinit -u -D
        source "@COMPLETIONS@"
        show() { zle -I; print -r -- "<<$BUFFER>>"; BUFFER= }
        zle -N show
        bindkey '^T' show
        print READY"#;
    let lines = [
        ("pailfs sy", "pailfs sync "),
        ("pailfs mount -o reg", "pailfs mount -o region="),
        ("pailfs s3://b /mnt -o ro,pat", "pailfs s3://b /mnt -o ro,path_style="),
        ("pailfs s3://b /mnt --commit=a", "pailfs s3://b /mnt --commit=async "),
        ("pailfs check s3://b --wr", "pailfs check s3://b --write "),
        ("pailfs recover s3://b --uplo", "pailfs recover s3://b --upload "),
    ];
    let (script, mut setup) = (script("zsh"), tempfile::NamedTempFile::new().expect("a file"));
    let text = SETUP.replace("@COMPLETIONS@", script.path().to_str().expect("UTF-8"));
    setup.write_all(text.as_bytes()).expect("written");
    let mut args = vec!["-f", "-c", ASK, "zsh", setup.path().to_str().expect("UTF-8")];
    args.extend(lines.iter().map(|(line, _)| *line));
    let Some(output) = run("zsh", &args) else { return };
    let answers = String::from_utf8_lossy(&output.stdout);
    let wanted: Vec<_> = lines.iter().map(|(_, completed)| *completed).collect();
    assert_eq!(answers.lines().collect::<Vec<_>>(), wanted, "{output:?}");
}
