//! pailfs mounts an S3 prefix as a Linux filesystem: one object is one file.
//!
//! The folders are the layers; a file imports its own folder and lower layers only (`tests/layers.rs`):
//! `types`, `error`, `backoff`, `latency`, `config` (0), `store`, `stage`, `cache` (1), `inode` (2), `transfer` (3), `fs` (4), `fuse` (5),
//! `app` (6). `demo` is the in-process S3 server, which knows nothing of the rest.

#![deny(clippy::await_holding_lock)]
#![warn(missing_docs)]

pub mod app;
pub mod backoff;
pub mod cache;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod error;
pub mod fs;
pub mod fuse;
pub mod inode;
pub mod latency;
pub mod stage;
pub mod store;
pub mod transfer;
pub mod types;
