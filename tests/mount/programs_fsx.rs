//! fsx (the crate of that name): random reads, writes, maps, truncations, allocations and copies of one file, each
//! compared with what the file must hold. `PAILFS_TEST_FSX_OPS` says how many operations (1,500 by default).

use crate::common::{TestServer, has_program};

/// Runs fsx with these weights, reads the file again after a remount and compares it with the object.
#[track_caller]
fn fsx(config: &str) {
    if !has_program("fsx") {
        return;
    }
    let operations = std::env::var("PAILFS_TEST_FSX_OPS").unwrap_or_else(|_| "1500".to_owned());
    let server = TestServer::start();
    let mut mount = server.mount();
    // With -v it prints each operation, so that many are not taken for a hang.
    // Only what is named is done: the defaults would add maps to each run.
    let quiet = ["mapread", "mapwrite", "read", "write", "truncate"].into_iter();
    let rest: String =
        quiet.filter(|name| !config.contains(&format!("\n{name} "))).map(|n| format!("{n} = 0\n")).collect();
    std::fs::write(mount.local().join("fsx.toml"), format!("flen = 1048576\n[weights]{config}{rest}")).expect("a file");
    mount.sh(&format!(
        "fsx -v -N {operations} -S 11 -f $LOCAL/fsx.toml -P $LOCAL data 2>&1
         if [ -e data ]; then sha256sum < data > $LOCAL/sum; fi"
    ));
    mount.remount();
    mount.sh("if [ -e data ]; then sha256sum < data | cmp - $LOCAL/sum; fi");
    if let Some(bytes) = server.objects().get("data") {
        std::fs::write(mount.local().join("object"), bytes).expect("a local copy");
        mount.sh("sha256sum < $LOCAL/object | cmp - $LOCAL/sum");
    }
}

#[test]
fn fsx_reads_writes_and_truncates() {
    fsx("\nread = 10\nwrite = 10\ntruncate = 3\n");
}

#[test]
fn fsx_maps() {
    fsx("\nmapread = 10\nmapwrite = 10\ntruncate = 2\n");
}

#[test]
fn fsx_mixes_maps_reads_and_writes() {
    fsx("\nread = 10\nwrite = 10\nmapread = 10\nmapwrite = 10\ntruncate = 3\ninvalidate = 1\n");
}

#[test]
fn fsx_closes_opens_and_syncs() {
    fsx(
        "\nread = 10\nwrite = 10\nmapread = 5\nmapwrite = 5\ntruncate = 2\nclose_open = 1\nfsync = 0.5\nfdatasync = 0.5\n",
    );
}

#[test]
fn fsx_allocates_and_punches_holes() {
    fsx("\nread = 10\nwrite = 10\nmapread = 5\nmapwrite = 5\ntruncate = 3\nposix_fallocate = 5\npunch_hole = 5\n");
}

#[test]
fn fsx_copies_ranges_and_sends() {
    fsx(
        "\nread = 10\nwrite = 10\nmapread = 5\nmapwrite = 5\ntruncate = 3\ncopy_file_range = 5\nsendfile = 5\nposix_fadvise = 3\n",
    );
}
