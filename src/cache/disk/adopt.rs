//! A file that was written here becomes an entry: it is moved where that can be, which costs one reading for the checksums.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::entry::{Entry, Files, PAGE, Seen, checksum, read_up_to};
use super::room::Turn;
use super::{BLOCK, READ_MOST};
use crate::types::ByteRange;

impl Entry {
    /// Moves a file with all bytes of the version here; nobody may write to it any more. False when it was left where it was,
    /// because it is on another file system or has no room.
    pub fn adopt(&self, path: &Path) -> bool {
        !self.is_closed() && self.try_adopt(path).inspect_err(|error| self.disk.note(error)).unwrap_or(false)
    }

    fn try_adopt(&self, path: &Path) -> io::Result<bool> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        if found.len() != self.size() {
            return Ok(false);
        }
        let mut slots = Vec::new();
        while (slots.len() as u64) < found.len().div_ceil(BLOCK) * 8 {
            let read = ByteRange::at(slots.len() as u64 / 8 * BLOCK, READ_MOST * BLOCK);
            let bytes = read_up_to(&file, read.intersect(ByteRange::new(0, self.size())))?;
            if bytes.is_empty() {
                return Ok(false);
            }
            slots.extend(bytes.chunks(BLOCK as usize).flat_map(|block| checksum(block).to_le_bytes()));
        }
        let turn = self.disk.room.turn()?;
        if !turn.make_room(found.blocks() * 512 + PAGE * 2 + slots.len() as u64, self.name())? {
            return Ok(false);
        }
        self.move_in(path, file, &slots, &turn)
    }

    fn move_in(&self, path: &Path, data: File, slots: &[u8], turn: &Turn<'_>) -> io::Result<bool> {
        let (known, before) = match self.see()? {
            Seen::Good(files) => {
                let before = files.bytes_on_disk()?;
                (Some(files.record), before)
            }
            Seen::Bad | Seen::Nothing => (None, 0),
        };
        if known.is_none() {
            turn.remove(self.name())?;
        }
        turn.make_shard(self.name())?;
        match std::fs::rename(path, self.disk.room.data_path(self.name())) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(false),
            moved => moved?,
        }
        let record = match known {
            Some(record) => Ok(record),
            None => self.make_record(),
        };
        let done = record.and_then(|record| {
            record.write_all_at(slots, self.slot_at(0))?;
            turn.changed(self.name(), before, Files { data, record }.bytes_on_disk()?)
        });
        if done.is_err() {
            turn.remove(self.name())?;
        }
        self.forget_files();
        done.map(|()| true)
    }
}
