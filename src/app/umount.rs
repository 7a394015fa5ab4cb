//! `pailfs umount DIR`: unmounts what is a pailfs mount, and nothing else.

use std::process::ExitCode;

use super::sentence::Failure;
use crate::config::UmountRequest;
use crate::fuse::mountpoint;

/// Does it.
pub fn run(request: &UmountRequest) -> ExitCode {
    match mountpoint::unmount(&request.mountpoint, request.lazy) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => Failure::from(error).report(),
    }
}
