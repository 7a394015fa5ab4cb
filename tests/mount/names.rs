//! Many names: what removing a tree asks of S3, and what listing large directories takes of memory.

use pailfs::demo::{Counters, Operation};

use crate::common::{Capability, TestServer};

/// Directories of the tree, and files in each.
const DIRS: usize = 20;
const FILES: usize = 10;

fn counts(counters: &Counters) -> Vec<(Operation, u64)> {
    let asked = counters.iter().filter(|(_, count)| count.requests > 0);
    asked.map(|(operation, count)| (operation, count.requests)).collect()
}

#[test]
fn rm_r_removes_each_file_with_one_request_and_asks_no_attributes_twice() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let (dirs, files) = (DIRS as u64, (DIRS * FILES) as u64);
    for (options, of_attributes) in [("metadata=basic", 0), ("metadata=posix", files + dirs)] {
        let bucket = server.direct();
        for dir in 0..DIRS {
            bucket.put_all((0..FILES).map(|file| server.key(&format!("tree/dir-{dir}/{file}"))), "x");
        }
        // So that no count depends on how long it takes.
        let mount = server.mount_with(&[options, "actimeo=600"]);
        server.demo().reset_counters();
        mount.sh("rm -r tree");
        let counters = server.demo().counters();
        println!("{options}: {:?}", counts(&counters));
        let asked = |operation| counters.requests(operation);
        assert_eq!(asked(Operation::DeleteObject), files, "{:?}", counts(&counters));
        // What a listing does not tell is asked once, for the answer that comes with attributes.
        assert!(asked(Operation::HeadObject) <= of_attributes + 4, "{:?}", counts(&counters));
        // The listing that rm reads, and the one that finds the directory empty.
        assert!(asked(Operation::ListObjectsV2) <= 2 * (dirs + 1) + 2, "{:?}", counts(&counters));
        assert_eq!(server.objects().list(), Vec::<String>::new(), "{options}");
    }
}

#[test]
fn rm_r_of_a_tree_made_here_is_clean_and_removes_each_key_once() {
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    let mount = server.mount_with(&["actimeo=600"]);
    mount.sh(&format!(
        "for d in $(seq {DIRS}); do mkdir -p tree/$d; for f in $(seq {FILES}); do echo $f > tree/$d/$f; done; done"
    ));
    server.demo().reset_counters();
    mount.sh("rm -r tree");
    let counters = server.demo().counters();
    println!("made here: {:?}", counts(&counters));
    let asked = |operation| counters.requests(operation);
    // Each file, and the marker of each directory.
    assert_eq!(asked(Operation::DeleteObject), (DIRS * FILES + DIRS + 1) as u64, "{:?}", counts(&counters));
    assert!(asked(Operation::HeadObject) <= (DIRS * FILES) as u64, "{:?}", counts(&counters));
    assert!(asked(Operation::ListObjectsV2) <= 2 * (DIRS as u64 + 1), "{:?}", counts(&counters));
    assert_eq!(server.objects().list(), Vec::<String>::new());
}

#[test]
fn a_listing_of_100_000_names_takes_little_memory_and_keeps_no_inodes() {
    const COUNT: u64 = 100_000;
    /// Bytes a name, with everything that is held while it is read: the kept listing, and the names of the open directory.
    const EACH: u64 = 1024;
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    server.direct().put_all((0..COUNT).map(|number| server.key(&format!("many/object-{number:06}"))), "x");
    let mount = server.mount();
    mount.sh("ls -f . > /dev/null");
    let before = mount.peak_memory();
    assert_eq!(mount.sh("ls -f many | grep -c object-"), COUNT.to_string());
    let grown = mount.peak_memory() - before;
    println!("{} bytes a name", grown / COUNT);
    assert!(grown < COUNT * EACH, "{grown} bytes for {COUNT} names");
    let (_, text, _) = mount.pailfs(&["status", "--json", &mount.path("").to_string_lossy()]);
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let inodes = report["inodes"].as_u64().expect("a count");
    // The first answers come with attributes, until the kernel sees that nobody wants them.
    assert!(inodes < 1000, "{inodes} inodes");
}
