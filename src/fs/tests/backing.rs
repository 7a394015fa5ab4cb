//! Files that the kernel reads by itself: which opens get one, and that none shows an older version.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::kept::{Disk, noise};
use super::*;
use crate::error::Error;
use crate::fs::Opened;
use crate::fs::backing::choose;

/// More than the smallest that is worth it, and not a whole number of blocks.
const SIZE: usize = 300_000;

fn read_only() -> FsSettings {
    FsSettings { read_only: true, ..no_cache() }
}

impl Disk {
    /// A mount that can't be written to, with `name` on the disk and a kernel that reads what it is given.
    async fn mount_to_read(&self, name: &str, settings: FsSettings) -> Rig {
        let rig = self.mount_with(settings, 1 << 30);
        rig.read_whole(name).await;
        rig.fs.set_passthrough(rig.fs.wants_passthrough());
        rig
    }
}

impl Rig {
    /// Opens as the kernel does, which looks a name up again once when the open says ESTALE.
    async fn opened(&self, name: &str) -> (Ino, Opened) {
        for _ in 0..2 {
            let ino = self.ino(Ino::ROOT, name).await.expect("a file");
            match self.fs.open(ino, READ).await {
                Err(Error::Stale) => {}
                opened => return (ino, opened.expect("an open")),
            }
        }
        panic!("ESTALE twice: the kernel gives up then")
    }

    async fn gets_backing(&self, name: &str) -> bool {
        let (_, opened) = self.opened(name).await;
        self.fs.release(opened.fh).await.expect("a release");
        opened.backing.is_some()
    }
}

#[tokio::test]
async fn a_whole_file_is_given_to_the_kernel_and_nothing_else_is() {
    let disk = Disk::new();
    disk.store.set("p/f", noise(1, SIZE));
    disk.store.set("p/tiny", noise(2, 1000));
    // More than comes with an open.
    disk.store.set("p/other", noise(3, 3 << 20));
    let mount = disk.mount_to_read("f", read_only()).await;
    mount.read_whole("tiny").await;
    assert!(mount.gets_backing("f").await);
    assert!(!mount.gets_backing("tiny").await, "it costs more than it saves");
    assert!(!mount.gets_backing("other").await, "it is not on the disk");
    let (_, opened) = mount.opened("f").await;
    let file = opened.backing.as_ref().expect("a file").known_by(|file| file.try_clone().ok());
    let mut bytes = vec![0; SIZE];
    file.expect("a descriptor").read_exact_at(&mut bytes, 0).expect("a read");
    assert!(bytes == noise(1, SIZE));
    mount.fs.set_passthrough(false);
    mount.fs.release(opened.fh).await.expect("a release");
    drop(opened);
    assert!(!mount.gets_backing("f").await, "the kernel has refused it");
}

#[tokio::test]
async fn a_mount_that_can_be_written_to_gives_the_kernel_nothing() {
    let disk = Disk::new();
    disk.store.set("p/f", noise(1, SIZE));
    let mount = disk.mount_to_read("f", no_cache()).await;
    assert!(!mount.gets_backing("f").await);
    assert!(!Rig::with(read_only()).await.fs.wants_passthrough(), "without a cache");
}

#[tokio::test]
async fn all_opens_of_an_inode_go_the_same_way() {
    let disk = Disk::new();
    disk.store.set("p/f", noise(1, SIZE));
    let mount = disk.mount_to_read("f", read_only()).await;
    let (_, first) = mount.opened("f").await;
    let (_, second) = mount.opened("f").await;
    let (one, two) = (first.backing.expect("a file"), second.backing.expect("a file"));
    assert!(Arc::ptr_eq(&one, &two), "the kernel refuses two files for one inode");
    drop((one, two));
    mount.fs.release(first.fh).await.expect("a release");
    assert!(mount.gets_backing("f").await, "one of them is still open");
    mount.fs.release(second.fh).await.expect("a release");

    mount.fs.set_passthrough(false);
    let (_, plain) = mount.opened("f").await;
    mount.fs.set_passthrough(true);
    assert!(!mount.gets_backing("f").await, "another handle reads through this process");
    mount.fs.release(plain.fh).await.expect("a release");
    assert!(mount.gets_backing("f").await);
}

#[tokio::test]
async fn a_new_version_is_opened_while_the_kernel_reads_the_old_one() {
    // With and without attributes in the listing, and with one that still shows the old version.
    for metadata in [MetadataMode::Posix, MetadataMode::Basic] {
        for freshness in [no_cache().freshness, Freshness { dir_min: Duration::from_secs(60), ..no_cache().freshness }]
        {
            let (disk, new) = (Disk::new(), noise(2, SIZE + 9));
            disk.store.set("p/f", noise(1, SIZE));
            let mount = disk.mount_to_read("f", FsSettings { metadata, freshness, ..read_only() }).await;
            assert_eq!(mount.names(Ino::ROOT).await, ["f"]);
            let (old_ino, old) = mount.opened("f").await;
            let held = old.backing.expect("a file");
            disk.store.set("p/f", new.clone());
            // An answer is believed for a second.
            mount.fs.table.get(old_ino).expect("the inode").inode().lock().belief.forget();

            let (ino, opened) = mount.opened("f").await;
            assert_ne!(ino, old_ino, "the kernel would go on reading the old version");
            let bytes = mount.fs.read(opened.fh, 0, 1 << 20).await.expect("a read");
            assert!(bytes == new, "an open that shows the old bytes");
            let attr = mount.fs.getattr(ino).await.expect("attributes");
            assert_eq!(attr.size, new.len() as u64);
            let attr = mount.fs.getattr(old_ino).await.expect("attributes of what is open");
            assert_eq!(attr.size, SIZE as u64, "another version's size");
            mount.fs.release(opened.fh).await.expect("a release");
            drop(held);
            mount.fs.release(old.fh).await.expect("a release");
            assert_eq!(mount.ino(Ino::ROOT, "f").await.expect("a file"), ino);
            assert!(mount.read_whole("f").await == new);
            assert!(mount.gets_backing("f").await);
        }
    }
}

#[tokio::test]
async fn a_damaged_file_is_never_given_to_the_kernel() {
    let (disk, bytes) = (Disk::new(), noise(1, SIZE));
    disk.store.set("p/f", bytes.clone());
    let mount = disk.mount_to_read("f", read_only()).await;
    assert!(mount.gets_backing("f").await, "it was compared now, and found right");
    let damaged = File::options().write(true).open(&disk.data_files()[0]).expect("the entry");
    damaged.write_all_at(b"poison", 200_000).expect("poisoned");
    assert!(!mount.gets_backing("f").await);
    assert!(mount.read_whole("f").await == bytes);
    assert!(mount.gets_backing("f").await, "it was fetched again");
}

#[tokio::test]
async fn a_large_file_is_compared_meanwhile_and_given_to_a_later_open() {
    let (disk, bytes) = (Disk::new(), noise(1, 9 << 20));
    disk.store.set("p/f", bytes.clone());
    let mount = disk.mount_to_read("f", read_only()).await;
    assert!(!mount.gets_backing("f").await, "the open waited for all of it to be read");
    let given = async {
        while !mount.gets_backing("f").await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), given).await.expect("a later open gets it");
}

#[tokio::test]
async fn an_open_that_was_faster_decides_which_way_all_go() {
    let disk = Disk::new();
    disk.store.set("p/f", noise(1, SIZE));
    let mount = disk.mount_to_read("f", read_only()).await;
    let (ino, opened) = mount.opened("f").await;
    let backing = opened.backing.expect("a file");
    mount.fs.release(opened.fh).await.expect("a release");
    let inode = mount.fs.table.get(ino).expect("the inode").inode().clone();
    let mut data = inode.lock();
    data.backing = std::sync::Weak::new();
    // Another open came while the file was looked for, and was told to read through this process.
    data.opens.all = 1;
    assert!(choose(&mut data, Some(backing.clone())).expect("a choice").is_none());
    data.opens.all = 0;
    assert!(choose(&mut data, Some(backing)).expect("a choice").is_some());
}
