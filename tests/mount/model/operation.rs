//! The operations, and how they are chosen: few names and few handles, so that they meet each other often.

use proptest::prelude::*;

/// Handles that can be open at once.
pub const SLOTS: usize = 3;

/// A file of more than this is not appended to by copies: it would double each time.
pub const LARGE: u64 = 8 << 20;

/// Which way a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Read,
    Write,
    Both,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    pub way: Way,
    pub create: bool,
    pub exclusive: bool,
    pub truncate: bool,
    pub append: bool,
}

/// One step. Paths are relative to the case's directory. `Put` makes or replaces a whole file, and closes it; `CopyOn` copies to the
/// end of a file, from its start or from as far in the source; `CopyFile` does what `cp` does, in pieces; `WriteUnstored` writes, and
/// syncs while the store refuses everything.
#[derive(Clone, Debug)]
pub enum Operation {
    Open { slot: usize, path: String, flags: Flags, mode: u32 },
    Put { path: String, len: usize, seed: u8 },
    Write { slot: usize, at: u64, len: usize, seed: u8 },
    Read { slot: usize, at: u64, len: usize },
    Resize { slot: usize, size: u64 },
    Allocate { slot: usize, at: u64, len: u64, keep_size: bool },
    Punch { slot: usize, at: u64, len: u64 },
    Copy { from: usize, to: usize, from_at: u64, to_at: u64, len: usize },
    CopyOn { from: usize, to: usize, along: bool, len: usize },
    CopyFile { from: String, to: String, piece: usize },
    Sync { slot: usize },
    WriteUnstored { slot: usize, at: u64, len: usize, seed: u8 },
    Close { slot: usize },
    Truncate { path: String, size: u64 },
    MakeDir { path: String, mode: u32 },
    RemoveDir { path: String },
    Unlink { path: String },
    Rename { from: String, to: String, replace: bool },
    MakeLink { target: String, path: String },
    ReadLink { path: String },
    SetMode { path: String, mode: u32 },
    SetOwner { path: String, uid: u32, gid: u32 },
    SetTime { path: String, seconds: i64, nanoseconds: i64 },
    Stat { path: String },
    List { path: String },
    ReadWhole { path: String },
    Restart,
}

/// Bytes that a write puts down: the same for the same step, and different from one offset to the next. They repeat every 256, and
/// are made so: one by one, many take a program without optimisation long.
pub fn bytes_of(seed: u8, at: u64, len: usize) -> Vec<u8> {
    let byte = |index: usize| (seed ^ (at as usize + index).wrapping_mul(31) as u8) | 1;
    let mut bytes = (0..256).map(byte).collect::<Vec<u8>>().repeat(len.div_ceil(256));
    bytes.truncate(len);
    bytes
}

/// Sequences of up to 60 steps.
pub fn operations() -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec(operation(), 1..60)
}

/// As [`operations`], of a few large files that are copied to each other.
pub fn copies() -> impl Strategy<Value = Vec<Operation>> {
    let name = || "[abc]";
    let way = prop::sample::select(vec![Way::Read, Way::Both, Way::Both]);
    let flags = (way, any::<bool>()).prop_map(|(way, truncate)| Flags {
        way,
        create: true,
        exclusive: false,
        truncate: truncate && way != Way::Read,
        append: false,
    });
    let first = (copied(), any::<u8>()).prop_map(|(len, seed)| Operation::Put {
        path: "a".to_owned(),
        len: len.min(LARGE as usize),
        seed,
    });
    let step = prop_oneof![
        1 => (name(), copied(), any::<u8>())
            .prop_map(|(path, len, seed)| Operation::Put { path, len: len.min(LARGE as usize), seed }),
        4 => (slot(), name(), flags).prop_map(|(slot, path, flags)| Operation::Open { slot, path, flags, mode: 0o644 }),
        4 => (name(), name(), copied()).prop_map(|(from, to, piece)| Operation::CopyFile {
            from,
            to,
            piece: piece.max(500_000),
        }),
        6 => (slot(), slot(), any::<bool>(), copied())
            .prop_map(|(from, to, along, len)| Operation::CopyOn { from, to, along, len }),
        1 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, at, len, seed)| Operation::Write { slot, at, len, seed }),
        2 => (slot(), offset(), length()).prop_map(|(slot, at, len)| Operation::Read { slot, at, len }),
        1 => (slot(), offset()).prop_map(|(slot, size)| Operation::Resize { slot, size }),
        1 => slot().prop_map(|slot| Operation::Sync { slot }),
        2 => slot().prop_map(|slot| Operation::Close { slot }),
        1 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, at, len, seed)| Operation::WriteUnstored { slot, at, len, seed }),
        1 => (name(), name()).prop_map(|(from, to)| Operation::Rename { from, to, replace: true }),
        1 => name().prop_map(|path| Operation::Unlink { path }),
        1 => name().prop_map(|path| Operation::Stat { path }),
        1 => name().prop_map(|path| Operation::ReadWhole { path }),
    ];
    (first, proptest::collection::vec(step, 1..30))
        .prop_map(|(first, steps)| std::iter::once(first).chain(steps).collect())
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]",
        4 => "[ab]/[ab]",
        1 => "[ab]/[ab]/[ab]",
    ]
}

/// Relative to the link, and never above it: a link that is moved must not point out of the case's directory.
fn target() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ab]", 2 => "[ab]/[ab]", 1 => Just("nowhere".to_owned())]
}

/// Of the first ranges that S3 copies into a part of an object, and of others.
fn copied() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(1 << 30), 2 => 5_242_880usize..5_400_000, 1 => 1usize..100_000]
}

fn slot() -> impl Strategy<Value = usize> {
    0..SLOTS
}

/// Permission bits that lock nobody out and that the usual umask leaves alone.
fn file_mode() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0o600, 0o644, 0o640, 0o755])
}

fn dir_mode() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0o700, 0o755, 0o711])
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..20_000,
        2 => 0u64..300_000,
        1 => 5_000_000u64..6_000_000,
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 1usize..5_000, 2 => 1usize..150_000]
}

fn flags() -> impl Strategy<Value = Flags> {
    let way = prop::sample::select(vec![Way::Read, Way::Write, Way::Both, Way::Both]);
    (way, any::<bool>(), prop::bool::weighted(0.15), prop::bool::weighted(0.25), prop::bool::weighted(0.2)).prop_map(
        |(way, create, exclusive, truncate, append)| Flags {
            way,
            create,
            exclusive: create && exclusive,
            // What O_TRUNC does to a file opened for reading alone is not said by POSIX.
            truncate: truncate && way != Way::Read,
            append,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        10 => (slot(), path(), flags(), file_mode())
            .prop_map(|(slot, path, flags, mode)| Operation::Open { slot, path, flags, mode }),
        12 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, at, len, seed)| Operation::Write { slot, at, len, seed }),
        3 => (path(), copied(), any::<u8>()).prop_map(|(path, len, seed)| {
            Operation::Put { path, len: len.min(LARGE as usize), seed }
        }),
        8 => (slot(), offset(), length()).prop_map(|(slot, at, len)| Operation::Read { slot, at, len }),
        3 => (slot(), offset()).prop_map(|(slot, size)| Operation::Resize { slot, size }),
        2 => (slot(), offset(), length(), any::<bool>())
            .prop_map(|(slot, at, len, keep_size)| Operation::Allocate { slot, at, len: len as u64, keep_size }),
        2 => (slot(), offset(), length()).prop_map(|(slot, at, len)| Operation::Punch { slot, at, len: len as u64 }),
        3 => (slot(), slot())
            .prop_map(|(from, to)| Operation::Copy { from, to, from_at: 0, to_at: 0, len: 1 << 30 }),
        2 => (slot(), slot(), offset(), offset(), length())
            .prop_map(|(from, to, from_at, to_at, len)| Operation::Copy { from, to, from_at, to_at, len }),
        4 => (slot(), slot(), any::<bool>(), copied())
            .prop_map(|(from, to, along, len)| Operation::CopyOn { from, to, along, len }),
        3 => (path(), path(), prop_oneof![Just(1 << 30), 5_242_880usize..5_400_000, 100_000usize..9_000_000])
            .prop_map(|(from, to, piece)| Operation::CopyFile { from, to, piece }),
        2 => slot().prop_map(|slot| Operation::Sync { slot }),
        2 => (slot(), offset(), length(), any::<u8>())
            .prop_map(|(slot, at, len, seed)| Operation::WriteUnstored { slot, at, len, seed }),
        6 => slot().prop_map(|slot| Operation::Close { slot }),
        2 => (path(), offset()).prop_map(|(path, size)| Operation::Truncate { path, size }),
        5 => (path(), dir_mode()).prop_map(|(path, mode)| Operation::MakeDir { path, mode }),
        2 => path().prop_map(|path| Operation::RemoveDir { path }),
        4 => path().prop_map(|path| Operation::Unlink { path }),
        5 => (path(), path(), prop::bool::weighted(0.8))
            .prop_map(|(from, to, replace)| Operation::Rename { from, to, replace }),
        2 => (path(), file_mode()).prop_map(|(path, mode)| Operation::SetMode { path, mode: mode | 0o100 }),
        3 => (target(), path()).prop_map(|(target, path)| Operation::MakeLink { target, path }),
        2 => path().prop_map(|path| Operation::ReadLink { path }),
        2 => (path(), 0u32..70_000, 0u32..70_000)
            .prop_map(|(path, uid, gid)| Operation::SetOwner { path, uid, gid }),
        2 => (path(), -2_000_000_000i64..2_000_000_000, 0i64..1_000_000_000)
            .prop_map(|(path, seconds, nanoseconds)| Operation::SetTime { path, seconds, nanoseconds }),
        3 => path().prop_map(|path| Operation::Stat { path }),
        3 => prop_oneof![Just(String::new()), path()].prop_map(|path| Operation::List { path }),
        4 => path().prop_map(|path| Operation::ReadWhole { path }),
        1 => Just(Operation::Restart),
    ]
}
