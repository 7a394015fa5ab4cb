//! What is settled with the kernel before the first request.

use fuser::{InitFlags, KernelConfig};

use crate::fs::Filesystem;

/// Largest write request: 1 MiB halves the time of 128 KiB, and larger ones need a host-wide sysctl.
const MAX_WRITE: u32 = 1 << 20;

/// Requests of the kernel's own read-ahead under way; with 16, a window of 4 MiB is not filled.
const MAX_BACKGROUND: u16 = 64;

/// Files that the kernel reads by itself are on file systems that are on no other one. Two would allow an overlay, but then the
/// mount could not be one's lower layer.
const BACKING_DEPTH: u32 = 1;

/// Asks for what helps, and tells the filesystem what the kernel can do.
pub(super) fn settle(fs: &Filesystem, config: &mut KernelConfig) {
    let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO;
    // An older kernel lacks some of them, and works without.
    if let Err(lacking) = config.add_capabilities(wanted) {
        let _ = config.add_capabilities(wanted & !lacking);
    }
    if fs.serves_xattrs() {
        // Else it asks for one before each write.
        let capable = config.add_capabilities(InitFlags::FUSE_HANDLE_KILLPRIV_V2);
        fs.set_takes_set_id(capable.is_ok());
    }
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_background(MAX_BACKGROUND);
    if fs.wants_passthrough() {
        let depth = config.set_max_stack_depth(BACKING_DEPTH);
        let capable = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH);
        fs.set_passthrough(depth.is_ok() && capable.is_ok());
    }
}
