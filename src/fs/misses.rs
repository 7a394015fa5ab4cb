//! Many names asked for in one directory: one listing answers for all of them.
//!
//! Owns when that is tried, and when it is given up. Programs that make many files ask for each before they make it; compilers
//! look for headers in one directory after the other; git asks for each file that it knows of. A listing costs what one such
//! question costs, or half of it.

use std::sync::Arc;
use std::time::Instant;

use super::Filesystem;
use super::dir_stream::DirStream;
use crate::inode::Pin;

/// Pages that are asked for: with more names than these hold, most directories are not worth it. What is there is often asked for
/// only once, here and there in a large directory.
const PAGES_MAX: usize = 4;
const PAGES_OF_PRESENT: usize = 1;

impl Filesystem {
    /// Lists the directory, if that saves requests. True when the listing is there to be asked.
    pub(super) async fn list_instead(self: &Arc<Self>, dir: &Pin) -> bool {
        let freshness = self.settings.freshness;
        let (lasts, absent_lasts) = (freshness.dir_min, freshness.negative);
        let worth = || dir.inode().lock().dir().ok()?.names.worth_listing(Instant::now(), lasts, absent_lasts);
        let Some(lister) = worth() else { return false };
        let mut stream = DirStream::new();
        for _ in 0..if lister.for_absent { PAGES_MAX } else { PAGES_OF_PRESENT } {
            match self.next_page(dir.ino(), &mut stream).await {
                Ok(()) if stream.is_whole() => return true,
                Ok(()) => {}
                // Who asks for a single name is told why.
                Err(_) => break,
            }
        }
        if let Ok(body) = dir.inode().lock().dir() {
            body.names.note_large(Instant::now(), lister.for_absent);
        }
        false
    }
}
