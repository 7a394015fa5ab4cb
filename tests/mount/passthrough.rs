//! Files that are whole in the disk cache, on read-only mounts: the kernel reads them by itself, and never another version.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::common::{assert_same_bytes, eventually, noise, skipped, test_name};
use crate::disk_cache::World;

const MIB: usize = 1 << 20;
const READ_ONLY: &[&str] = &["ro", "cache_min_free=0"];

/// The kernel takes files to read by itself from CAP_SYS_ADMIN only, and none of a file system on top of another one.
fn can_pass_through(world: &World) -> bool {
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(world.root.path()).output();
    // SAFETY: geteuid(2) has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    root && kind.is_ok_and(|kind| String::from_utf8_lossy(&kind.stdout).trim() != "overlayfs")
}

/// A mount of `f`, which is whole on the disk.
fn mount_of(world: &World, bytes: &[u8]) -> crate::common::Mount {
    world.put("f", bytes);
    let mut mount = world.mount_with(READ_ONLY);
    assert_same_bytes("f", &std::fs::read(mount.path("f")).expect("a read"), bytes);
    // The end of a mount waits for what is written to the disk.
    mount.remount();
    mount
}

#[test]
fn a_file_that_is_whole_in_the_cache_is_read_by_the_kernel_itself() {
    let Some(world) = World::new() else { return };
    if !can_pass_through(&world) {
        return skipped(&test_name(), "the kernel does not read the files of this directory by itself");
    }
    let bytes = noise(1, 4 * MIB + 5);
    let mut mount = mount_of(&world, &bytes);
    let file = File::open(mount.path("f")).expect("an open");
    let entry = File::options().read(true).write(true).open(&world.files(".data")[0]).expect("the entry");
    // The daemon would notice this by the checksum, and show the right bytes.
    entry.write_all_at(b"poison", MIB as u64).expect("poisoned");
    let mut seen = [0; 6];
    file.read_exact_at(&mut seen, MIB as u64).expect("a read");
    assert_eq!(&seen, b"poison", "the daemon was asked");
    drop(file);
    mount.remount();
    assert_same_bytes("f", &std::fs::read(mount.path("f")).expect("a read"), &bytes);
}

#[test]
fn programs_read_the_right_bytes_through_it_in_every_way() {
    let Some(world) = World::new() else { return };
    let bytes = noise(1, 3 * MIB + 1);
    let mount = mount_of(&world, &bytes);
    let here = world.root.path().join("copy");
    std::fs::write(&here, &bytes).expect("written");
    let path = mount.path("f");
    let quoted = |program: &str| {
        program.replace("MOUNTED", &path.display().to_string()).replace("HERE", &here.display().to_string())
    };
    for script in [
        "cmp MOUNTED HERE",
        "cp MOUNTED HERE.2 && cmp HERE.2 HERE",
        "dd if=MOUNTED iflag=direct bs=1M status=none | cmp - HERE",
        "exec 3<MOUNTED 4<MOUNTED; cmp - HERE <&3 && tail -c 1000 <&4 | cmp - <(tail -c 1000 HERE)",
        "python3 -c 'import mmap; f = open(\"MOUNTED\", \"rb\"); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); f.close(); assert m[:] == open(\"HERE\", \"rb\").read()'",
        "[ $(stat -c %s MOUNTED) = $(stat -c %s HERE) ]",
        "! sh -c ': >> MOUNTED' 2> /dev/null",
    ] {
        let outcome = Command::new("bash").arg("-c").arg(quoted(script)).output().expect("bash runs");
        assert!(outcome.status.success(), "{script}: {}", String::from_utf8_lossy(&outcome.stderr));
    }
}

#[test]
fn a_version_replaced_while_it_is_open_is_read_to_its_end_and_the_next_open_shows_the_new_one() {
    let Some(world) = World::new() else { return };
    if !can_pass_through(&world) {
        return skipped(&test_name(), "the kernel does not read the files of this directory by itself");
    }
    let (old, new) = (noise(1, 2 * MIB), noise(2, 2 * MIB + 77));
    let mount = mount_of(&world, &old);
    let path = mount.path("f");
    for round in 0..3 {
        let (before, after) = if round % 2 == 0 { (&old, &new) } else { (&new, &old) };
        let file = File::open(&path).expect("an open");
        world.put("f", after);
        eventually("an open shows the new version", || {
            let seen = std::fs::read(&path).expect("a read");
            assert!(&seen == before || &seen == after, "a mix of two versions, or neither");
            &seen == after
        });
        let mut held = vec![0; before.len()];
        match file.read_exact_at(&mut held, 0) {
            Ok(()) => {
                assert_same_bytes("f", &held, before);
                assert_eq!(file.metadata().expect("attributes").len(), before.len() as u64, "another version's size");
            }
            // Later ones may be fetched, by this process.
            Err(error) => assert!(round > 0 && error.raw_os_error() == Some(libc::ESTALE), "{error}"),
        }
    }
}

#[test]
fn a_cache_on_a_file_system_that_the_kernel_does_not_take_is_read_all_the_same() {
    let Some(world) = World::new() else { return };
    let dir = |name: &str| {
        let dir = world.root.path().join(name);
        std::fs::create_dir(&dir).expect("a directory");
        dir
    };
    let (lower, upper, work, merged) = (dir("lower"), dir("upper"), dir("work"), dir("cache"));
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skipped(&test_name(), "an overlay can't be mounted");
    }
    let _unmounted = crate::disk_cache::SmallDisk(merged.clone());
    let modes = Command::new("chmod").arg("700").arg(&merged).status();
    assert!(modes.is_ok_and(|status| status.success()));
    let bytes = noise(1, 2 * MIB);
    let mount = mount_of(&world, &bytes);
    world.fetched();
    for _ in 0..3 {
        assert_same_bytes("f", &std::fs::read(mount.path("f")).expect("a read"), &bytes);
    }
    assert_eq!(world.fetched(), 0);
}
