//! A file that programs have open, and of which S3 has another version by now.
//!
//! The kernel keeps the pages of an inode, not those of an open file: read through one inode, bytes of the new version would be
//! shown to who has the old one open. So the name gets a new inode, and the old one stays what it is for the handles it has.

use std::time::Instant;

use super::Filesystem;
use crate::error::{Error, Result};
use crate::inode::{FileState, Kind, Listed, NodeData, Pin};
use crate::types::Version;

impl Filesystem {
    /// Takes the name away from an inode that is open as another version than `version`, which was `asked` for then.
    ///
    /// # Errors
    /// `Stale` when that was so: the kernel looks the name up again.
    pub(super) fn part_from_readers(&self, pin: &Pin, version: &Version, asked: Instant) -> Result<()> {
        {
            let mut data = pin.inode().lock();
            if data.is_changed_since(asked) || !is_read_as_another(&data, version) {
                return Ok(());
            }
            // From here on nobody opens or changes it who looked before.
            data.parted = true;
        }
        let place = self.table.place(pin.ino());
        self.table.detach(pin.ino());
        if let Some(place) = place
            && let Ok(dir) = self.table.get(place.parent)
            && let Ok(body) = dir.inode().lock().dir()
        {
            // A listing may still show the other one.
            let listed = Listed { kind: Kind::File, version: Some(version.clone()) };
            body.names.note_change(&place.name, Some(listed));
        }
        Err(Error::Stale)
    }

    /// True for a file whose name is another one's by now, or nobody's, and that programs have open all the same.
    pub(super) fn is_open_without_a_name(&self, pin: &Pin) -> bool {
        pin.inode().kind() == Kind::File && self.table.place(pin.ino()).is_none() && pin.inode().lock().opens.all > 0
    }
}

/// True when handles are open that read other bytes than those of `version`.
pub(super) fn is_read_as_another(data: &NodeData, version: &Version) -> bool {
    let is_read = data.opens.all > 0 || data.backing.strong_count() > 0;
    is_read && matches!(data.file(), Ok(FileState::Clean(clean)) if !clean.version.same_bytes(version))
}
