//! What the servers that the suite runs against lack. A test that needs such a thing is skipped by name there,
//! and the list of skips is printed.

/// Something that not every server does as S3 does it, or that only the in-process server can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Faults, counters and direct access: the in-process server alone.
    Simulation,
    /// Objects `a` and `a/b` at once, both listed.
    FileBesideDirectory,
    /// Keys such as `a//b` that are no paths.
    OddKeys,
    /// DELETE with If-Match.
    ConditionalDelete,
    /// CopyObject with If-None-Match on the target.
    ConditionalCopy,
    /// ListMultipartUploads by prefix.
    ListUploads,
    /// An upload that is cut off leaves nothing behind.
    WholeUploads,
    /// Control characters in keys come back in listings.
    ControlCharacters,
    /// Every name of a storage class is taken, and kept.
    StorageClasses,
    /// Names of 255 bytes.
    LongNames,
    /// The same of directories, to which MinIO adds a word on its disk.
    LongDirectories,
}

use Capability::*;

/// The in-process server lacks nothing; neither does AWS but for the simulation.
const LACKS: &[(&str, &[Capability])] = &[
    ("demo", &[]),
    ("aws", &[Simulation]),
    (
        "minio",
        &[
            Simulation,
            FileBesideDirectory,
            OddKeys,
            ConditionalDelete,
            ConditionalCopy,
            ListUploads,
            StorageClasses,
            LongDirectories,
        ],
    ),
    (
        "versitygw",
        &[
            Simulation,
            FileBesideDirectory,
            OddKeys,
            ConditionalCopy,
            WholeUploads,
            ControlCharacters,
            StorageClasses,
            LongNames,
        ],
    ),
];

/// For a server that the table does not know: the least.
const UNKNOWN_LACKS: &[Capability] = &[
    Simulation,
    FileBesideDirectory,
    OddKeys,
    ConditionalDelete,
    ConditionalCopy,
    ListUploads,
    WholeUploads,
    ControlCharacters,
    StorageClasses,
    LongNames,
    LongDirectories,
];

/// True if the server of this kind lacks it.
pub fn lacks(server: &str, capability: Capability) -> bool {
    let known = LACKS.iter().find(|(name, _)| *name == server).map(|(_, lacks)| *lacks);
    known.unwrap_or(UNKNOWN_LACKS).contains(&capability)
}
