//! A file that programs have open, and whose name stands for other bytes by now: of another client, or of an earlier run.
//!
//! The kernel keeps the pages of an inode, not those of an open file: read through one inode, bytes of the new version would be
//! shown to who has the old one open. So the name gets a new inode, and the old one stays what it is for the handles it has.

use std::time::Instant;

use super::Filesystem;
use crate::error::{Error, Result};
use crate::inode::{Draft, FileState, Kind, Listed, Located, NodeData, Origin, Owned, Pin, Prior, Remains};
use crate::store::Attributes;
use crate::types::Version;

impl Filesystem {
    /// Takes the name away from an inode that is open as another version than `version`, which was `asked` for then; or that the
    /// kernel knows as a file of another type than `attributes` say: it never changes the type of an inode.
    ///
    /// # Errors
    /// `Stale` when that was so: the kernel looks the name up again.
    pub(super) fn part_from_readers(
        &self,
        pin: &Pin,
        (version, attributes): (&Version, Option<&Attributes>),
        asked: Instant,
    ) -> Result<()> {
        {
            let mut data = pin.inode().lock();
            let now = self.ownership_of(data.ownership, version.modified, attributes);
            let other_type = is_told(&data) && now.file_type.of_size(version.size) != data.file_type();
            if data.is_changed_since(asked) || !(other_type || is_read_as_another(&data, version)) {
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

    /// Takes the name away from a file as it is in S3 that programs have open, for bytes of this mount that come there: those that
    /// an earlier run has left. What was changed here keeps its name.
    pub(super) fn part_from_clean(&self, pin: &Pin) {
        {
            let mut data = pin.inode().lock();
            let is_clean = matches!(data.file(), Ok(FileState::Clean(_))) && data.committed.is_none();
            if !is_clean || !is_open(&data) {
                return;
            }
            data.parted = true;
        }
        self.table.detach(pin.ino());
    }

    /// A draft that is not to be stored under its name: that is `theirs`, if there is one. Open handles go on reading the draft.
    /// Who waits for its commit gets the outcome.
    ///
    /// # Errors
    /// `Internal` for a file that is no draft.
    pub(super) fn give_name_away(&self, owned: Owned, theirs: Option<Version>, outcome: Result<()>) -> Result<()> {
        let Prior::Dirty(Draft { staged, origin, .. }) = owned.prior()?.clone() else {
            return Err(Error::Internal("the name of a file without a draft was to be given away"));
        };
        let ino = owned.inode().ino();
        let base = match (origin, self.table.key_of(ino)) {
            // It is gone, or will be soon: who reads what was never fetched is told so.
            (Origin::Changed(version), Ok(key)) if !staged.is_complete() => Some(Located { key, version }),
            _ => None,
        };
        let listed = theirs.map(|version| Listed { kind: Kind::File, version: Some(version) });
        self.note_name_changed(owned.inode(), listed);
        owned.parted(Remains::Staged { staged, base }, outcome)?;
        self.table.detach(ino);
        Ok(())
    }

    /// True for a file whose name is another one's by now, or nobody's, and that programs have open all the same.
    pub(super) fn is_open_without_a_name(&self, pin: &Pin) -> bool {
        pin.inode().kind() == Kind::File && self.table.place(pin.ino()).is_none() && pin.inode().lock().opens.all > 0
    }
}

/// True while a program has it open, or the kernel reads its bytes by itself.
pub(super) fn is_open(data: &NodeData) -> bool {
    data.opens.all > 0 || data.backing.strong_count() > 0
}

/// True when the name is another file's and nobody has this one open: who asks means the other one.
pub(super) fn is_left_alone(data: &NodeData) -> bool {
    data.parted && !is_open(data)
}

/// True when the kernel was told of a file that is as in S3.
fn is_told(data: &NodeData) -> bool {
    data.told.is_some() && matches!(data.file(), Ok(FileState::Clean(_)))
}

/// True when handles are open that read other bytes than those of `version`.
pub(super) fn is_read_as_another(data: &NodeData, version: &Version) -> bool {
    is_open(data) && matches!(data.file(), Ok(FileState::Clean(clean)) if !clean.version.same_bytes(version))
}
