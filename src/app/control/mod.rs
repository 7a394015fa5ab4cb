//! The control socket of a mount: other pailfs commands ask it what the mount is doing.
//!
//! Owns where the socket is, who may use it (the user of the daemon, and root), and what goes over it: one line of JSON each
//! way, then the end. A mount works without one.

mod client;
mod place;
mod report;
mod server;

pub use client::{Ask, Found, Reply, Trouble, ask, find, found_at};
pub use report::{Counted, FileReport, Limited, OperationReport, Report, StandingWord, Synced, UnstoredFile};
pub use server::{Control, Subject};
