//! The machine lacks something: /dev/fuse, the right to it, fusermount3, a line in /etc/fuse.conf. Each test makes
//! such a machine in a mount namespace of its own, which takes root.

use std::path::Path;
use std::process::Command;

use crate::support::{PROGRAM, Place, Said, is_root, open_to_all, run, skip};

/// A /dev with nothing but what every program needs.
const BARE_DEV: &str = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9";

/// A device that everyone may open, as most distributions have it.
const OPEN_FUSE: &str = "mknod -m 666 /dev/fuse c 10 229";

const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// Runs `pailfs s3://bucket mnt OPTIONS` as `user` on a machine that `setup` (a shell's list of commands) makes.
/// `None` where no namespace can be made.
fn on_machine(setup: &str, user: &str, options: &str) -> Option<Said> {
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !is_root() || !works(Command::new("unshare").args(["-m", "true"])) {
        skip("a mount namespace needs root and unshare(1)");
        return None;
    }
    if !works(Command::new("setpriv").args(["--reuid=65534", "--clear-groups", "true"])) {
        skip("setpriv(1) is missing");
        return None;
    }
    let place = Place::new();
    std::os::unix::fs::chown(place.mountpoint(), Some(65534), Some(65534)).expect("root may");
    std::fs::create_dir(place.path("stage")).expect("a directory");
    std::os::unix::fs::chown(place.path("stage"), Some(65534), Some(65534)).expect("root may");
    // The directory of the build may be closed to others.
    let program = place.path("pailfs");
    std::fs::hard_link(PROGRAM, &program).or_else(|_| std::fs::copy(PROGRAM, &program).map(drop)).expect("a copy");
    open_to_all(Path::new(&program));
    // A copy of another test's mount would keep its daemon alive for as long as this runs.
    let script = format!("umount -l -a -t fuse.pailfs; {setup} && exec {user} \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-ec", &script]);
    command.arg(&program).arg("s3://bucket").arg(place.mountpoint()).args(["-o", options]);
    place.surroundings(&mut command);
    let said = run(&mut command);
    (!said.text.contains("mknod") && !said.text.contains("mount:")).then_some(said).or_else(|| {
        skip("this container may not mount or make devices");
        None
    })
}

#[test]
fn no_dev_fuse() {
    if let Some(said) = on_machine(BARE_DEV, "", "rw") {
        said.is(2, &["/dev/fuse is missing", "modprobe fuse"]);
    }
}

#[test]
fn no_permission_for_dev_fuse() {
    let setup = format!("{BARE_DEV} && mknod -m 600 /dev/fuse c 10 229");
    if !Path::new("/usr/bin/fusermount3").exists() {
        return skip("fusermount3 is not installed");
    }
    if let Some(said) = on_machine(&setup, AS_NOBODY, "rw") {
        said.is(1, &["/dev/fuse may not be opened by this user", "run as root"]);
    }
}

#[test]
fn no_fusermount3() {
    let hide = "for p in /usr/bin /bin /usr/local/bin; do \
                if [ -e $p/fusermount3 ]; then mount --bind /dev/null $p/fusermount3; fi; done";
    let setup = format!("{BARE_DEV} && {OPEN_FUSE} && {hide}");
    if let Some(said) = on_machine(&setup, AS_NOBODY, "rw") {
        said.is(2, &["needs fusermount3, which is not installed", "install the package fuse3"]);
    }
}

#[test]
fn allow_other_without_the_line_in_fuse_conf() {
    let setup = format!("{BARE_DEV} && {OPEN_FUSE} && : > /dev/empty && mount --bind /dev/empty /etc/fuse.conf");
    if !Path::new("/etc/fuse.conf").exists() || !Path::new("/usr/bin/fusermount3").exists() {
        return skip("fusermount3 or /etc/fuse.conf is not installed");
    }
    if let Some(said) = on_machine(&setup, AS_NOBODY, "allow_other") {
        said.is(1, &["user_allow_other", "/etc/fuse.conf"]);
    }
}

#[test]
fn a_mountpoint_that_is_dead_tells_a_user_the_command() {
    // The shell's own fd of the device is closed at exec, which leaves a dead mount behind.
    let setup = format!(
        "{BARE_DEV} && {OPEN_FUSE} && mnt=\"$2\" && exec 9<>/dev/fuse \
         && mount -i -t fuse.pailfs -o fd=9,rootmode=40000,user_id=65534,group_id=65534 s3://bucket/dead \"$mnt\" \
         && exec 9>&-"
    );
    if let Some(said) = on_machine(&setup, AS_NOBODY, "rw") {
        said.is(32, &["holds a dead mount", "clear it with: fusermount3 -uz /"]);
    }
}
