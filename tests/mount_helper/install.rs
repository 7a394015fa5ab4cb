//! Links to the program under test where mount(8) and mount.fuse3 look for it, for as long as a test holds them.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pailfs");

const PLACES: [&str; 3] = ["/sbin/mount.pailfs", "/sbin/mount.fuse.pailfs", "/usr/local/bin/pailfs"];

/// One test process and one test thread at a time may hold it.
const LOCK: &str = "/tmp/pailfs-mount-helper-test.lock";

/// The links; gone when dropped.
pub struct Installed {
    _lock: File,
}

impl Installed {
    /// `None`, with the reason printed, without root or FUSE, or where pailfs is really installed.
    pub fn new() -> Option<Self> {
        // SAFETY: takes nothing and can't fail.
        if unsafe { libc::geteuid() } != 0 || !Path::new("/dev/fuse").exists() {
            skipped("the helper of mount(8) needs root and /dev/fuse");
            return None;
        }
        let lock = File::create(LOCK).and_then(|file| file.lock().map(|()| file)).expect("a lock file");
        if let Some(place) = PLACES.iter().find(|place| !may_replace(Path::new(place))) {
            skipped(&format!("{place} is there already"));
            return None;
        }
        remove();
        let installed = Installed { _lock: lock };
        for place in PLACES {
            if let Err(error) = symlink(PROGRAM, place) {
                skipped(&format!("{place} can't be made: {error}"));
                return None;
            }
        }
        Some(installed)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        remove();
    }
}

/// Nothing, or the link of a test of this build that was killed. Any other link is somebody's own.
fn may_replace(place: &Path) -> bool {
    match std::fs::read_link(place) {
        Ok(target) => target == Path::new(PROGRAM),
        Err(_) => std::fs::symlink_metadata(place).is_err(),
    }
}

fn remove() {
    for place in PLACES {
        if may_replace(Path::new(place)) {
            let _ = std::fs::remove_file(place);
        }
    }
}

/// Says so past the capture of the test harness: a test that was not run is to be seen.
pub fn skipped(why: &str) {
    use std::io::Write;
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
