//! The mount suite: the program on a real mount, used by real programs, with the object side checked through the S3
//! API byte for byte.
//!
//! One test program, so that it is linked once and all of its tests share `common`. It runs against the in-process
//! server by default and against any S3 store that the environment names (see `common`).

mod async_commit;
mod big;
mod checksums;
mod common;
mod conflicts;
mod copies;
mod crash;
mod crash_faults;
mod crash_files;
mod crash_loads;
mod crash_rename;
mod disk_cache;
mod economy;
mod encryption;
mod faults;
mod links;
mod metadata;
mod metrics;
mod model;
mod names;
mod passthrough;
mod posix_attributes;
mod posix_open;
mod posix_picture;
mod posix_rename;
mod posix_table;
mod posix_truncate;
mod posix_unlink;
mod programs_files;
mod programs_fio;
mod programs_fsx;
mod programs_git;
mod programs_processes;
mod programs_sqlite;
mod promises;
mod reads;
mod recover;
mod refused;
mod resume;
mod special_files;
mod stage_limits;
mod stage_parts;
mod status;
mod xattr;
