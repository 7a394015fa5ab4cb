//! `pailfs umount DIR`: waits until everything that was closed is in S3, and unmounts what is a pailfs mount, and nothing else.

use std::process::ExitCode;

use super::control::find;
use super::sentence::Failure;
use super::sync::{sync, unstored};
use crate::config::UmountRequest;
use crate::fuse::mountpoint;

/// Does it.
pub fn run(request: &UmountRequest) -> ExitCode {
    match carry_out(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn carry_out(request: &UmountRequest) -> Result<(), Failure> {
    if !request.lazy {
        store(request)?;
    }
    mountpoint::unmount(&request.mountpoint, request.lazy)?;
    Ok(())
}

/// A mount that can't be asked, by this user or any more, is unmounted all the same: its daemon stores what it can by itself.
fn store(request: &UmountRequest) -> Result<(), Failure> {
    let Ok(found) = find(&request.mountpoint) else { return Ok(()) };
    if !found.below.as_os_str().is_empty() {
        return Ok(());
    }
    let Ok(synced) = sync(&found.entry, None) else { return Ok(()) };
    let Some(failure) = unstored(&synced) else { return Ok(()) };
    let path = request.mountpoint.display();
    let sentence = format!("{}; 'pailfs umount -l {path}' unmounts and keeps them in the stage", failure.sentence());
    Err(Failure::new(failure.status(), sentence))
}
