//! The process and its surroundings: environment and limits.

use std::io;

use crate::config::home_directory;

/// `PATH` for programs that we start (fusermount3, a `credential_process`) when mount(8) took ours away.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Puts `HOME` and `PATH` back, which mount(8) removes: the AWS configuration files are below the first. Must be
/// called before any thread was started.
pub fn complete_environment() {
    let missing = |name: &str| std::env::var_os(name).is_none();
    let home = home_directory().filter(|_| missing("HOME"));
    // SAFETY: no other thread exists that could read the environment meanwhile.
    unsafe {
        if let Some(home) = home {
            std::env::set_var("HOME", home);
        }
        if missing("PATH") {
            std::env::set_var("PATH", USUAL_PATH);
        }
    }
}

/// Every open file that is written has a staged file, and every request a socket: 1024 of both is little.
pub fn raise_file_limit() {
    // SAFETY: rlimit is a plain C struct that lives until the calls return.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
                tracing::debug!("the limit of open files stays: {}", io::Error::last_os_error());
            }
        }
    }
}
