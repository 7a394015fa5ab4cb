//! Clean bytes in memory: parts of objects that readers wait for, and the budget they all come out of.
//!
//! Owns: [`Budget`] with its reservations, and [`Part`], the bytes of one ranged GET as they arrive. Knows nothing
//! of requests, of who reads, or of what is fetched next.

mod budget;
mod limit;
mod part;

pub use budget::{Budget, Reservation};
pub use part::{Part, join};
