//! What the mount remembers of the tree takes no more memory than the manual says.
//!
//! A program of its own, since its allocator counts. Counted is what each test's thread asks for; what an allocator adds to
//! that is not.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pailfs::inode::{Body, FileState, Inode, InodeTable, Kind, Listed, Ownership, Pin};
use pailfs::store::Attributes;
use pailfs::types::{DirPrefix, ETag, Ino, Name, Version};

/// In man/pailfs.7: bytes of a name in a listing that is kept, of a file that the kernel knows, and of a directory.
const LISTED_MAX: isize = 250;
const FILE_MAX: isize = 2560;
const DIR_MAX: isize = 2560;

/// In man/pailfs.7: names of one listing that is kept, and of all of them.
const LISTING_MAX: usize = 200_000;
const LISTINGS_MAX: usize = 500_000;

const COUNT: usize = 10_000;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn add(bytes: isize) {
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: all of it is the system's allocator; a thread's cell of a number is all that is touched beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> isize {
    HELD.with(Cell::get)
}

/// 20 bytes, as many names are.
fn name(number: usize) -> Name {
    Name::parse(format!("object-{number:09}.txt").as_bytes()).expect("a name")
}

fn version(number: usize) -> Version {
    Version { etag: ETag::parse(&format!("{number:032x}")), size: 1, modified: SystemTime::UNIX_EPOCH }
}

fn listing(count: usize) -> BTreeMap<Name, Listed> {
    (0..count).map(|number| (name(number), Listed { kind: Kind::File, version: Some(version(number)) })).collect()
}

fn ownership() -> Ownership {
    let time = SystemTime::UNIX_EPOCH;
    Ownership { file_type: Default::default(), mode: 0o755, uid: 0, gid: 0, mtime: time, atime: time, ctime: time }
}

fn table() -> Arc<InodeTable> {
    InodeTable::new(DirPrefix::normalize("p"), ownership())
}

/// With what `metadata=posix` stores of it.
fn attributes() -> Arc<Attributes> {
    let keys = ["file-permissions", "file-owner", "file-group", "file-mtime"];
    let metadata = keys.iter().map(|key| ((*key).to_owned(), "1700000000000ns".to_owned())).collect();
    Arc::new(Attributes { metadata, ..Attributes::default() })
}

#[test]
fn a_listed_name_takes_no_more_memory_than_the_manual_says() {
    let table = table();
    let root = table.get(Ino::ROOT).expect("the root");
    let before = held();
    table.keep_listing(root.inode(), listing(COUNT), Instant::now()).expect("a directory");
    let each = (held() - before) / COUNT as isize;
    println!("{each} bytes a listed name");
    assert!(each > 50 && each <= LISTED_MAX, "{each} bytes");
    root.inode().lock().dir().expect("a directory").names.forget_listing();
    assert!(held() - before < 4096, "{} bytes stay", held() - before);
}

#[test]
fn listings_are_bounded_one_by_one_and_together_and_the_oldest_go() {
    const EACH: usize = 60_000;
    let table = table();
    let make = |ino| Inode::new(ino, Kind::Dir, ownership(), Body::Dir(Box::default()));
    let attach = |number| table.attach(Ino::ROOT, &name(number), Kind::Dir, make).expect("a directory");
    let dirs: Vec<Pin> = (0..11).map(attach).collect();
    let count = |dir: &Pin| dir.inode().lock().dir().expect("a directory").names.listed_names();
    let keep = |dir: &Pin, listing| table.keep_listing(dir.inode(), listing, Instant::now()).expect("a directory");
    let each = listing(EACH);
    for dir in &dirs {
        // Taken again, it counts once.
        keep(dir, each.clone());
        keep(dir, each.clone());
    }
    // One that is too large changes nothing.
    keep(&dirs[0], listing(LISTING_MAX + 1));
    let kept: Vec<_> = dirs.iter().map(count).collect();
    let (old, new) = kept.split_at(dirs.len() - LISTINGS_MAX / EACH);
    assert!(old.iter().all(|names| *names == 0) && new.iter().all(|names| *names == EACH), "{kept:?}");
}

#[test]
fn an_inode_takes_no_more_memory_than_the_manual_says_and_none_once_the_kernel_forgets_it() {
    type Make = fn(usize) -> Body;
    let file: Make = |number| Body::File(FileState::clean(version(number)));
    let dir: Make = |_| Body::Dir(Box::default());
    for (kind, body, most) in [(Kind::File, file, FILE_MAX), (Kind::Dir, dir, DIR_MAX)] {
        let table = table();
        let before = held();
        let make = |number: usize| {
            let new = |ino| Inode::new(ino, kind, ownership(), body(number));
            let pin = table.attach(Ino::ROOT, &name(number), kind, new).expect("an inode");
            pin.inode().lock().attributes = Some(attributes());
            table.count_lookup(pin.ino());
            pin.ino()
        };
        let numbers: Vec<Ino> = (0..COUNT).map(make).collect();
        let each = (held() - before) / COUNT as isize;
        println!("{each} bytes a {kind:?}, of which {} are its own", size_of::<Inode>());
        assert!(each > 200 && each <= most, "{each} bytes of a {kind:?}");
        numbers.iter().for_each(|ino| table.forget(*ino, 1));
        assert_eq!(table.len(), 1, "the root alone stays");
        drop(numbers);
        let left = held() - before;
        assert!(left < 512 << 10, "{left} bytes stay of {COUNT} that were forgotten");
    }
}
