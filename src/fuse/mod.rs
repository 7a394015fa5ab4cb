//! The kernel bridge: mounting, serving, and translating between the kernel's structures and the operations.
//!
//! Owns everything that names `fuser`, and the mount table. Each callback converts its arguments and calls one operation; there is
//! no policy here, no cache, and no choice of an errno beyond what the table of refused calls says.

mod answer;
mod bridge;
mod convert;
mod fusermount;
mod handshake;
mod kernel_caches;
mod meter;
pub mod mount;
pub mod mountinfo;
pub mod mountpoint;
mod raw;
mod reply;
mod session;
mod xattr;

pub use kernel_caches::KernelCaches;
pub use meter::{Meter, Operation, Status};
pub use session::{Served, SessionOptions, serve};
