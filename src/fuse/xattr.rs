//! The four calls of extended attributes: refused for ever without the option `xattr`, else converted as all others are.
//!
//! Owns the protocol of sizes: a caller that gives no room wants to know how much there must be (getxattr(2)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{Errno, ReplyEmpty, ReplyXattr};

use super::answer::Call;
use super::bridge::Bridge;
use super::convert::{errno, refusal};
use super::meter::Operation;
use super::reply::empty;
use crate::error::Result;
use crate::fs::Refused;
use crate::inode::Presence;
use crate::types::Ino;

pub(super) fn set(bridge: &Bridge, ino: Ino, name: &OsStr, (value, how): (&[u8], i32), reply: ReplyEmpty) {
    if !bridge.fs.serves_xattrs() {
        return reply.error(refusal(Refused::ExtendedAttribute));
    }
    let presence = match how {
        libc::XATTR_CREATE => Presence::Absent,
        libc::XATTR_REPLACE => Presence::Present,
        _ => Presence::Any,
    };
    let (fs, name, value) = (bridge.fs.clone(), name.as_bytes().to_vec(), value.to_vec());
    let operation = async move { fs.setxattr(ino, &name, value, presence).await };
    bridge.serve(Call::transfer(Operation::Setxattr, ino), operation, |outcome| empty(reply, outcome));
}

pub(super) fn get(bridge: &Bridge, ino: Ino, name: &OsStr, room: u32, reply: ReplyXattr) {
    if !bridge.fs.serves_xattrs() {
        return reply.error(refusal(Refused::ExtendedAttribute));
    }
    let (fs, name) = (bridge.fs.clone(), name.as_bytes().to_vec());
    let operation = async move { fs.getxattr(ino, &name).await };
    bridge.serve(Call::quick(Operation::Getxattr, ino), operation, move |outcome| sized(reply, room, outcome));
}

pub(super) fn list(bridge: &Bridge, ino: Ino, room: u32, reply: ReplyXattr) {
    if !bridge.fs.serves_xattrs() {
        return reply.error(refusal(Refused::ExtendedAttribute));
    }
    let fs = bridge.fs.clone();
    let operation = async move { fs.listxattr(ino).await };
    bridge.serve(Call::quick(Operation::Listxattr, ino), operation, move |outcome| sized(reply, room, outcome));
}

pub(super) fn remove(bridge: &Bridge, ino: Ino, name: &OsStr, reply: ReplyEmpty) {
    if !bridge.fs.serves_xattrs() {
        return reply.error(refusal(Refused::ExtendedAttribute));
    }
    let (fs, name) = (bridge.fs.clone(), name.as_bytes().to_vec());
    let operation = async move { fs.removexattr(ino, &name).await };
    bridge.serve(Call::transfer(Operation::Removexattr, ino), operation, |outcome| empty(reply, outcome));
}

fn sized(reply: ReplyXattr, room: u32, outcome: Result<Vec<u8>>) {
    match outcome {
        Ok(bytes) if room == 0 => reply.size(bytes.len() as u32),
        Ok(bytes) if bytes.len() > room as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(errno(&error)),
    }
}
