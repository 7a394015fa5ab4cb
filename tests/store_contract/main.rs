//! The contract of `ObjectStore`: every method, every condition, every kind of key, on the store itself and
//! through its decorators.
//!
//! Runs against the in-process server, or, with `PAILFS_TEST_ENDPOINT`, `PAILFS_TEST_BUCKET` and
//! `PAILFS_TEST_SERVER` set, against that one. What a server lacks is skipped by name, and printed.

#![cfg(feature = "demo")]

mod broken;
mod checksums;
mod conditions;
mod decorators;
mod failures;
mod keys;
mod listing;
mod multipart;
mod reading;
mod server;
mod tags;
mod world;
mod writing;
