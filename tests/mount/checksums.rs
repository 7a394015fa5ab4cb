//! `checksum`: what goes with uploads, and what the server then keeps.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, Mount, TestServer, assert_same_bytes, noise};

const MIB: usize = 1 << 20;

#[test]
fn files_come_back_and_have_the_checksum_that_was_asked_for() {
    // Where none is sent the server makes one of its own, as S3 does.
    for (word, kept, composite) in [
        ("auto", "CRC64NVME", false),
        ("crc64nvme", "CRC64NVME", false),
        ("crc32c", "CRC32C", false),
        ("sha256", "SHA256", true),
        ("off", "CRC64NVME", false),
    ] {
        let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
        let mut mount = server.mount_with(&[&format!("checksum={word}"), "part_size=5MiB"]);
        let (small, mut large) = (noise(1, 1000), noise(2, 30 * MIB + 7));
        std::fs::write(mount.path("small"), &small).expect("a small file is stored");
        std::fs::write(mount.path("large"), &large).expect("a large file is stored");
        let sum = |name: &str| server.direct().get(&server.key(name)).and_then(|object| object.checksum);
        let is_kept = |name: &str, of_parts: bool| {
            let (algorithm, text) = sum(name).unwrap_or_else(|| panic!("{word}: {name} has no sum"));
            assert_eq!((algorithm, text.contains('-')), (kept, of_parts), "{word}: {name}: {text}");
        };
        is_kept("small", false);
        is_kept("large", composite);
        mount.remount();
        assert_same_bytes(word, &std::fs::read(mount.path("small")).expect("it is read"), &small);
        assert_same_bytes(word, &std::fs::read(mount.path("large")).expect("it is read"), &large);

        // What was not changed is copied within the store.
        server.demo().reset_counters();
        large[15 * MIB..][..5].copy_from_slice(b"other");
        let file = std::fs::OpenOptions::new().write(true).open(mount.path("large")).expect("it opens");
        file.write_all_at(b"other", 15 * MIB as u64).and_then(|()| file.sync_all()).expect("the change is stored");
        drop(file);
        assert!(server.demo().counters().requests(Operation::UploadPartCopy) > 0, "{word}");
        is_kept("large", composite);

        // What S3 copies in one request keeps what it had.
        server.direct().put(&server.key("theirs"), noise(3, MIB));
        server.demo().reset_counters();
        mount.sh("chmod 600 theirs");
        assert_eq!(server.demo().counters().requests(Operation::CopyObject), 1, "{word}");
        assert_eq!(sum("theirs").map(|(algorithm, _)| algorithm), Some("CRC64NVME"), "{word}");

        // What comes wrong is noticed where sums are asked for, and fetched again.
        let fresh = noise(4, 1000);
        server.direct().put(&server.key("fresh"), fresh.clone());
        let wrong = Fault::new(FaultKind::CorruptBody { at: 1 }).on(Operation::GetObject);
        server.demo().add_fault(wrong.key("fresh").once());
        mount.remount();
        let read = std::fs::read(mount.path("fresh")).expect("it is read");
        assert_same_bytes(word, &std::fs::read(mount.path("large")).expect("it is read"), &large);
        assert!(server.objects().unfinished_uploads().is_empty(), "{word}");
        assert_eq!((server.demo().faults_fired(), read == fresh), (1, word != "off"), "{word}");
    }
}

/// As MinIO, which refuses to copy parts into uploads with a named sum.
#[test]
fn where_parts_can_not_be_copied_all_bytes_of_a_changed_file_go_up() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount_with(&["checksum=sha256", "part_size=5MiB"]);
    let mut large = noise(2, 30 * MIB + 7);
    std::fs::write(mount.path("large"), &large).expect("a large file is stored");
    let refused = FaultKind::Answer { status: 400, code: "InvalidArgument".to_owned() };
    server.demo().add_fault(Fault::new(refused).on(Operation::UploadPartCopy));
    large[15 * MIB..][..5].copy_from_slice(b"other");
    let file = std::fs::OpenOptions::new().write(true).open(mount.path("large")).expect("it opens");
    file.write_all_at(b"other", 15 * MIB as u64).and_then(|()| file.sync_all()).expect("the change is stored");
    assert!(server.demo().faults_fired() > 0);
    assert_same_bytes("object", &server.objects().get("large").expect("an object"), &large);
}

/// A mount of a file of 20 MiB, which was listed, and looked up where the listing does not say all.
fn listed(options: &[&str]) -> Option<(TestServer, Mount, Vec<u8>)> {
    let server = TestServer::with(&[Capability::Simulation])?;
    let bytes = noise(5, 20 * MIB + 5);
    server.direct().put(&server.key("f"), bytes.clone());
    let mount = server.mount_with(options);
    mount.sh("ls -l > /dev/null");
    Some((server, mount, bytes))
}

/// The next third answer with bytes of the file brings a wrong one in its midst.
fn break_a_byte(server: &TestServer) {
    let wrong = Fault::new(FaultKind::CorruptBody { at: 100_000 }).on(Operation::GetObject);
    server.demo().add_fault(wrong.skip(2).once());
    server.demo().reset_counters();
}

/// Requests of HEAD since [`break_a_byte`], when it took effect.
#[track_caller]
fn heads(server: &TestServer) -> u64 {
    assert_eq!(server.demo().faults_fired(), 1, "nothing was broken");
    server.demo().counters().requests(Operation::HeadObject)
}

#[test]
fn a_larger_file_that_came_wrong_is_an_error_at_its_end_and_right_the_next_time() {
    // What is kept in metadata is asked for with the listing, and the checksum with it; else it is asked for when it is read.
    for (metadata, asked) in [("metadata=posix", 0), ("metadata=basic", 1)] {
        let Some((server, mount, bytes)) = listed(&[metadata, "actimeo=600"]) else { return };
        break_a_byte(&server);
        let mut file = File::open(mount.path("f")).expect("an open");
        for read in [file.read_to_end(&mut Vec::new()), file.read_at(&mut [0], bytes.len() as u64 - 1)] {
            assert_eq!(read.err().and_then(|error| error.raw_os_error()), Some(libc::EIO), "{metadata}");
        }
        assert_eq!(heads(&server), asked, "{metadata}");
        let sum = format!("{:016x}", crc_fast::crc64_nvme(&bytes));
        let log = mount.log();
        let told: Vec<_> = log.lines().filter(|line| line.contains("key=") && line.contains(&sum)).collect();
        assert_eq!(told.len(), 1, "{metadata}: {log}");
        // Nothing is left of what came wrong, neither here nor in the kernel, also while the first one is open.
        assert_same_bytes(metadata, &std::fs::read(mount.path("f")).expect("it is read"), &bytes);
        // The sum is known, and whether the file is still the same is asked with the first bytes.
        assert_eq!(heads(&server), asked, "{metadata}");
    }
}

#[test]
fn cp_of_a_larger_file_that_came_wrong_fails_and_the_next_one_does_not() {
    let Some((server, mount, bytes)) = listed(&[]) else { return };
    let copy = mount.local().join("copy");
    let cp = || Command::new("cp").arg(mount.path("f")).arg(&copy).output().expect("cp runs");
    break_a_byte(&server);
    let failed = cp();
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("Input/output error"), "{said}");
    heads(&server);
    assert!(cp().status.success());
    assert_same_bytes("the copy", &std::fs::read(&copy).expect("it is there"), &bytes);
}

#[test]
fn a_larger_file_is_compared_with_one_head_at_most_and_not_at_all_where_it_is_read_in_part_or_sums_are_off() {
    for (options, read, asked) in [
        (&["metadata=basic"][..], "cat f", 1),
        (&["metadata=basic"], "head -c 1MiB f", 0),
        (&["metadata=basic"], "tail -c 1000 f", 0),
        (&["metadata=basic", "checksum=off"], "cat f", 0),
        (&["metadata=posix"], "cat f", 0),
    ] {
        let Some((server, mount, _)) = listed(&[options, &["actimeo=600"]].concat()) else { return };
        server.demo().reset_counters();
        mount.sh(&format!("{read} | cat > /dev/null"));
        assert_eq!(server.demo().counters().requests(Operation::HeadObject), asked, "{options:?}: {read}");
    }
    let Some((server, mount, bytes)) = listed(&["checksum=off"]) else { return };
    break_a_byte(&server);
    assert!(std::fs::read(mount.path("f")).expect("it is not compared") != bytes);
    heads(&server);
}
