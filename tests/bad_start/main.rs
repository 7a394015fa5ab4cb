//! Every way a mount can fail to start: each has its own sentence and the exit code of mount(8).
//!
//! S3 is a scripted answer or the in-process server; a machine without FUSE is made in a mount namespace of its own.

mod machine;
mod mountpoint;
#[cfg(feature = "demo")]
mod server;
mod store;
mod support;
