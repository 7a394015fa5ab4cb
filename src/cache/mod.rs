//! Clean bytes, in memory and on the local disk.
//!
//! Owns: [`Budget`] with its reservations, [`Part`], the bytes of one ranged GET as they arrive, and in [`disk`] what is kept
//! of object versions between reads and mounts. Knows nothing of requests, of who reads, or of what is fetched next.

mod budget;
pub mod disk;
mod limit;
mod part;

pub use budget::{Budget, Reservation};
pub use part::{Part, join};
