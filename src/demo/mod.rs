//! An S3 server in this process, in memory: for `pailfs demo`, the tests and the benches.
//!
//! Owns S3's semantics as far as a filesystem needs them (flat names, conditions judged when publishing, checksums,
//! multipart, copies), and what no real server does on demand: latency, bandwidth, faults, denials and counts, the
//! same ones for the same seed. HTTP, signatures and XML are the `s3s` crate's. It knows nothing of the rest of the
//! program and keeps nothing on disk.

mod backend;
mod body;
mod bucket;
mod checksums;
mod conditions;
mod copy;
mod counters;
mod encryption;
mod faults;
mod listing;
mod multipart;
mod objects;
mod operation;
mod server;
mod service;
mod shape;
mod state;
mod upload;

pub use bucket::{Bucket, Stored};
pub use counters::{Count, Counters};
pub use faults::{Fault, FaultKind};
pub use operation::Operation;
pub use server::{Server, ServerOptions};
pub use shape::Shape;
