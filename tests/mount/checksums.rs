//! `checksum`: what goes with uploads, and what the server then keeps.

use std::os::unix::fs::FileExt;

use pailfs::demo::{Fault, FaultKind, Operation};

use crate::common::{Capability, TestServer, assert_same_bytes, noise};

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
