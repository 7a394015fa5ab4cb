//! Options of the kernel and of mount(8) itself: the first are turned into mount flags, the second are accepted and
//! mean nothing here.

/// One option of the kernel: which flag of mount(2) it sets or clears.
#[derive(Clone, Copy, Debug)]
pub struct MountFlag {
    /// As in mount(8), "Filesystem-independent mount options".
    pub name: &'static str,
    /// `MS_*`; 0 where the option only names the default.
    pub flag: libc::c_ulong,
    /// Sets the flag; else clears it.
    pub set: bool,
}

const fn sets(name: &'static str, flag: libc::c_ulong) -> MountFlag {
    MountFlag { name, flag, set: true }
}

const fn clears(name: &'static str, flag: libc::c_ulong) -> MountFlag {
    MountFlag { name, flag, set: false }
}

/// The options that are passed on.
pub const MOUNT_FLAGS: &[MountFlag] = &[
    sets("ro", libc::MS_RDONLY),
    clears("rw", libc::MS_RDONLY),
    sets("nosuid", libc::MS_NOSUID),
    clears("suid", libc::MS_NOSUID),
    sets("nodev", libc::MS_NODEV),
    clears("dev", libc::MS_NODEV),
    sets("noexec", libc::MS_NOEXEC),
    clears("exec", libc::MS_NOEXEC),
    sets("sync", libc::MS_SYNCHRONOUS),
    clears("async", libc::MS_SYNCHRONOUS),
    sets("dirsync", libc::MS_DIRSYNC),
    sets("noatime", libc::MS_NOATIME),
    clears("atime", libc::MS_NOATIME),
    sets("nodiratime", libc::MS_NODIRATIME),
    clears("diratime", libc::MS_NODIRATIME),
    sets("relatime", libc::MS_RELATIME),
    clears("norelatime", libc::MS_RELATIME),
    sets("strictatime", libc::MS_STRICTATIME),
    clears("nostrictatime", libc::MS_STRICTATIME),
    sets("lazytime", libc::MS_LAZYTIME),
    clears("nolazytime", libc::MS_LAZYTIME),
];

/// What mount(8), systemd and others keep for themselves. Names ending in `-` stand for all that begin so.
pub const OWNED_BY_MOUNT: &[&str] = &[
    "_netdev", "nofail", "noauto", "auto", "user", "users", "nouser", "owner", "group", "defaults", "comment", "x-",
    "X-", "silent", "loud", "helper", "uhelper",
];

/// True for an option that is accepted and ignored.
pub(super) fn owned_by_mount(name: &str) -> bool {
    OWNED_BY_MOUNT.iter().any(|known| match known.strip_suffix('-') {
        Some(_) => name.starts_with(known),
        None => name == *known,
    })
}

/// The kernel's part of the options, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    flags: libc::c_ulong,
}

impl Default for KernelOptions {
    /// Modes may come from anyone who can write to the bucket: set-user-id bits and devices are not honoured unless
    /// `suid` or `dev` asks for them (as libfuse does).
    fn default() -> Self {
        KernelOptions { flags: libc::MS_NOSUID | libc::MS_NODEV }
    }
}

impl KernelOptions {
    /// Applies one option; false if it is none of the kernel's.
    pub(super) fn apply(&mut self, name: &str) -> bool {
        let Some(option) = MOUNT_FLAGS.iter().find(|option| option.name == name) else { return false };
        if option.set {
            self.flags |= option.flag;
        } else {
            self.flags &= !option.flag;
        }
        true
    }

    /// Flags for mount(2).
    pub fn flags(self) -> libc::c_ulong {
        self.flags
    }

    /// `ro`
    pub fn read_only(self) -> bool {
        self.flags & libc::MS_RDONLY != 0
    }

    /// The same as a list of options: what fusermount3 takes.
    pub fn names(self) -> Vec<&'static str> {
        let mut names = vec![if self.read_only() { "ro" } else { "rw" }];
        let given = MOUNT_FLAGS.iter().filter(|o| o.set && o.name != "ro" && self.flags & o.flag != 0);
        names.extend(given.map(|option| option.name));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_undo_earlier_ones() {
        let mut options = KernelOptions::default();
        for name in ["ro", "noexec", "rw", "suid", "noatime"] {
            assert!(options.apply(name), "{name}");
        }
        assert_eq!(options.names(), ["rw", "nodev", "noexec", "noatime"]);
        assert_eq!(options.flags(), libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOATIME);
    }

    #[test]
    fn what_mount_keeps_for_itself_is_known_by_name_or_beginning() {
        for name in ["_netdev", "nofail", "x-systemd.automount", "X-mount.mkdir", "comment", "user", "defaults"] {
            assert!(owned_by_mount(name), "{name}");
        }
        for name in ["xattr", "netdev", "nofails", "remount"] {
            assert!(!owned_by_mount(name), "{name}");
        }
    }
}
