//! The command line as a program sees it: texts, exit codes, the helper's argv. Nothing here needs FUSE or S3.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pailfs");

/// Runs the program under the name `called_as`, with an environment that holds nothing of ours.
fn run_as(called_as: &str, args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg0(called_as).args(args).env_clear();
    command.output().expect("the program was built and starts")
}

fn run(args: &[&str]) -> Output {
    run_as("pailfs", args)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("all output is UTF-8")
}

/// The one sentence of a call that is refused as wrong usage.
#[track_caller]
fn refusal(output: &Output) -> String {
    let sentence = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "one sentence: {sentence}");
    assert!(sentence.starts_with("pailfs: ") && output.stdout.is_empty(), "{sentence}");
    sentence
}

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    for (args, part) in [
        (&["--help"][..], "Usage: pailfs [mount] SOURCE MOUNTPOINT"),
        (&["help", "mount"], "--endpoint-url"),
        (&["mount", "--help"], "-o endpoint_url=URL"),
        (&["mount", "-h"], "'pailfs help mount' lists all"),
        (&["help", "umount"], "MOUNTPOINT"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = run(args);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}");
        assert!(text(&output.stdout).contains(part), "{args:?}");
    }
}

const COMMANDS: [&str; 9] = ["mount", "umount", "status", "sync", "check", "recover", "unit", "demo", "completions"];

#[test]
fn the_help_of_each_command_fits_on_a_screen() {
    let calls = COMMANDS.iter().map(|command| vec![*command, "--help"]).chain([vec!["--help"], vec!["-h"]]);
    for call in calls {
        let help = text(&run(&call).stdout);
        let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
        let lines = help.lines().count();
        assert!((5..=24).contains(&lines) && wide.is_empty(), "{call:?}: {lines} lines, too wide: {wide:#?}");
    }
}

#[test]
fn a_short_help_names_only_options_that_exist() {
    let help = text(&run(&["mount", "--help"]).stdout);
    let named: Vec<_> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  -o ")?.split([' ', '=']).next())
        .filter(|name| !name.starts_with('<'))
        .collect();
    let unknown = named.iter().find(|name| pailfs::config::find_option(name).is_none());
    assert!(named.len() > 5 && unknown.is_none(), "{unknown:?} of {named:?}");
}

#[test]
fn the_help_command_leaves_nothing_out() {
    for command in COMMANDS {
        let (short, long) = (text(&run(&[command, "--help"]).stdout), text(&run(&["help", command]).stdout));
        let options = |help: &str| -> Vec<String> {
            help.split([' ', '[', '\n']).filter(|word| word.starts_with("--")).map(str::to_owned).collect()
        };
        let (short, long) = (options(&short), options(&long));
        assert!(
            short.iter().all(|option| option == "--NAME" || long.contains(option)),
            "{command}: {short:?}, {long:?}"
        );
        let rows = ["check", "recover"].contains(&command);
        assert!(!rows || long.iter().any(|option| option == "--endpoint-url"), "{command}: {long:?}");
    }
}

#[test]
fn every_option_of_the_table_is_in_the_help_with_its_default() {
    let help = text(&run(&["help", "mount"]).stdout);
    for option in pailfs::config::OPTIONS {
        let name = option.name.replace('_', "-");
        let line =
            help.lines().find(|line| line.contains(&format!("--{name} ")) || line.contains(&format!("--{name}[")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in the help"));
        assert!(line.contains(option.help), "{line}");
        if let pailfs::config::Fallback::Is(default) = option.default {
            assert!(default == "false" || line.contains(&format!("default {default}")), "{line}");
        }
    }
}

#[test]
fn a_misspelt_option_is_led_to_the_right_one() {
    for args in [
        &["s3://bucket", "/nowhere", "--reigon", "x"][..],
        &["s3://bucket", "/nowhere", "-o", "ro,reigon=x"],
        &["mount", "s3://bucket", "/nowhere", "-o", "reigon=x"],
    ] {
        let sentence = refusal(&run(args));
        assert!(sentence.contains("unknown option 'reigon'; did you mean 'region'?"), "{sentence}");
    }
}

#[test]
fn wrong_calls_are_refused_with_one_sentence() {
    for (args, part) in [
        (&[][..], "pailfs --help"),
        (&["s3://bucket"], "missing <MOUNTPOINT>"),
        (&["s3://bucket", "/a", "/b"], "one argument too many"),
        (&["s3://bucket", ""], "mountpoint is empty"),
        (&["s3://bucket", "/a", "-o", "remount,rw"], "remount is not supported"),
        (&["s3://bucket", "/a", "-o", "a=\"x"], "quote"),
        (&["s3://bucket", "/a", "-o", "part_size=1M"], "from 5MiB to 5GiB"),
        (&["s3://bucket", "/a", "-o", "umask=9"], "octal"),
        (&["s3://bucket", "/a", "-o", "region"], "needs a value"),
        (&["s3://bucket", "/a", "-o", "allow_other,allow_root"], "leave allow_root out"),
        (&["s3://bucket", "/a", "-o", "log_level=loud"], "log_level"),
        (&["umount"], "missing"),
        (&["demo"], "directory"),
    ] {
        let sentence = refusal(&run(args));
        assert!(sentence.contains(part), "{args:?}: {sentence}");
    }
}

#[test]
fn bad_sources_are_refused_by_the_rule_that_they_break() {
    for (source, part) in [
        ("s3://My-Bucket", "lower-case"),
        ("s3://a", "3 to 63"),
        ("s3://under_score", "holds '_'"),
        ("s3://10.0.0.1", "IP address"),
        ("https://host/bucket", "endpoint_url"),
        ("bucket/prefix", "write s3://bucket/prefix"),
        ("arn:aws:s3:eu-west-1:1:accesspoint/x", "12 digits"),
    ] {
        let sentence = refusal(&run(&[source, "/nowhere"]));
        assert!(sentence.contains(part), "{source}: {sentence}");
    }
}

#[test]
fn a_secret_that_was_typed_is_never_repeated() {
    for args in [
        &["s3://AKIDEXAMPLE:hush-hush@bucket", "/nowhere"][..],
        &["s3://bucket", "/nowhere", "-o", "endpoint_url=http://AKIDEXAMPLE:hush-hush@host"],
    ] {
        let sentence = refusal(&run(args));
        assert!(!sentence.contains("hush-hush") && !sentence.contains("AKIDEXAMPLE"), "{sentence}");
    }
}

#[test]
fn a_good_line_gets_as_far_as_the_missing_mountpoint() {
    // 32 and the mountpoint's sentence: everything that was typed has been accepted.
    for args in [
        &["s3://bucket", "/nowhere/at/all"][..],
        &["mount", "bucket:/prefix", "/nowhere/at/all", "--part_size=16MiB", "--allow-other"],
        &["pailfs#s3://bucket/a", "/nowhere/at/all", "-o", "rw,dev,suid,noatime,_netdev,x-systemd.automount"],
        &["arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a", "/nowhere/at/all", "-f", "-o", "metadata=basic"],
    ] {
        for args in [args.to_vec(), [args, &["-o", "ro"]].concat()] {
            let output = run(&args);
            let sentence = text(&output.stderr);
            assert!([Some(32), Some(2), Some(1)].contains(&output.status.code()), "{args:?}: {sentence}");
            let machine =
                sentence.contains("/dev/fuse") || sentence.contains("fusermount3") || sentence.contains("fuse.conf");
            assert!(sentence.contains("/nowhere/at/all does not exist") || machine, "{args:?}: {sentence}");
        }
    }
}

#[test]
fn as_the_helper_of_mount_it_takes_that_argv_and_fakes_when_asked() {
    for name in ["mount.pailfs", "/sbin/mount.pailfs", "/sbin/mount.fuse.pailfs"] {
        let args = ["s3://bucket/p", "/nowhere/at/all", "-f", "-n", "-v", "-o", "rw,noexec,_netdev,nofail,user"];
        let output = run_as(name, &args);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    }
    let sentence = refusal(&run_as("mount.pailfs", &["s3://bucket", "/nowhere", "-f", "-o", "rw,odd=1"]));
    assert!(sentence.contains("unknown option 'odd'"), "{sentence}");
    let sloppy = run_as("mount.pailfs", &["s3://bucket", "/nowhere", "-s", "-f", "-o", "rw,odd=1"]);
    assert!(sloppy.status.success(), "{}", text(&sloppy.stderr));
}

#[test]
fn unmounting_what_is_no_pailfs_mount_is_refused() {
    let output = run(&["umount", "/proc"]);
    assert_eq!(output.status.code(), Some(32));
    assert!(text(&output.stderr).contains("/proc is not a pailfs mount"));
}
