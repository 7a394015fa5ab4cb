//! Dirty bytes on the local disk and their journal, and nothing about S3.
//!
//! Owns: the stage directory ([`Stage`]), sparse staged files that know which of their bytes are here
//! ([`StagedFile`], [`RangeMap`]), the account of what they take of the disk, the journal record beside each ([`Record`]), and that of
//! a directory's rename that is under way ([`Moves`]). Never guesses: a record
//! that is torn or not ours is reported as such ([`RecordFault`]), and what a dead process left is kept
//! ([`Leftover`]) until somebody decides about it. Knows nothing of requests, inodes or the kernel.

mod away;
mod beside;
mod file;
mod holes;
mod journal;
mod leftover;
mod moves;
mod ranges;
mod record;
mod session;
mod space;

pub use away::AwayPart;
pub use beside::Companion;
pub use file::StagedFile;
pub use journal::NotedUpload;
pub use leftover::{Doubt, Leftover, Remaining, remaining};
pub use moves::{LeftMoves, MovePhase, Moves, MovesFile, OneMove};
pub use ranges::RangeMap;
pub use record::{Record, RecordAttributes, RecordEncryption, RecordFault, RecordState};
pub use session::Stage;
pub use space::UnderWay;

#[cfg(test)]
mod tests;
