//! Open handles. They carry no state of the file (that is the inode's), only how it is used through them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::dir_stream::DirStream;
use super::{Filesystem, backing};
use crate::error::{Error, Result};
use crate::inode::{Backing, Draft, FileState, NodeData, Phase, Pin};
use crate::transfer::{Cursor, ObjectReader};
use crate::types::{Fh, Ino, ObjectKey, OpenIntent, Version};

/// All open handles of the mount.
#[derive(Debug, Default)]
pub(super) struct Handles {
    last: u64,
    files: HashMap<Fh, Arc<FileHandle>>,
    dirs: HashMap<Fh, Arc<DirHandle>>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct FileHandle {
    pub pin: Pin,
    pub intent: OpenIntent,
    /// The inode's lineage at open: S3 holding other bytes than this mount wrote or saw then is ESTALE.
    pub lineage: u64,
    /// The inode's count of times that the kernel's pages had to go, at open.
    pub pages_dropped: u64,
    pub cursor: Cursor,
    /// What the kernel reads by itself through this handle.
    pub backing: Option<Arc<Backing>>,
    reader: Mutex<Option<(ObjectKey, Version, Arc<ObjectReader>)>>,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct DirHandle {
    pub ino: Ino,
    /// One reader at a time; the listing goes on where it stopped, which needs requests.
    pub stream: tokio::sync::Mutex<DirStream>,
    _pin: Pin,
}

impl FileHandle {
    /// The reader for this version: the one used last, if it is still the same.
    pub fn reader(&self, fs: &Filesystem, key: &ObjectKey, version: &Version) -> Arc<ObjectReader> {
        let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some((last_key, last, reader)) if last_key == key && last.same_bytes(version) => reader.clone(),
            _ => {
                let reader = fs.transfer.reader(key.clone(), version.clone());
                *slot = Some((key.clone(), version.clone(), reader.clone()));
                reader
            }
        }
    }

    /// The kernel may hold pages from now on that are as the file was when this was opened, unless some were wrong.
    pub fn note_pages(&self, data: &mut NodeData) {
        if data.pages_dropped == self.pages_dropped {
            data.kernel_pages = Some(self.lineage);
        }
    }

    /// Where bytes that were given through this handle are known to be wrong, the next open makes the kernel drop its pages.
    pub fn distrust_wrong_pages(&self) {
        let reader =
            self.reader.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(.., reader)| reader.clone());
        if !reader.is_some_and(|reader| reader.is_wrong()) {
            return;
        }
        let mut data = self.pin.inode().lock();
        if data.pages_dropped == self.pages_dropped {
            data.pages_dropped += 1;
            data.kernel_pages = None;
        }
    }

    /// Keeps the reader that an open's first request has begun to fill.
    pub fn keep_reader(&self, key: ObjectKey, version: Version, reader: Arc<ObjectReader>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, version, reader));
    }
}

impl Handles {
    fn next(&mut self) -> Fh {
        self.last += 1;
        Fh::new(self.last)
    }
}

impl Filesystem {
    pub(super) fn file_handle(&self, fh: Fh) -> Result<Arc<FileHandle>> {
        self.handles().files.get(&fh).cloned().ok_or(Error::BadHandle)
    }

    /// All files that are open.
    pub(super) fn files_open(&self) -> Vec<Arc<FileHandle>> {
        self.handles().files.values().cloned().collect()
    }

    pub(super) fn dir_handle(&self, fh: Fh) -> Result<Arc<DirHandle>> {
        self.handles().dirs.get(&fh).cloned().ok_or(Error::BadHandle)
    }

    /// Opens a handle, and says whether the kernel may keep its pages. Waits where somebody may be taking the bytes away, who
    /// does not bring them here for a file that nobody has open. `found` is what the kernel may read by itself.
    ///
    /// # Errors
    /// `Stale` when the name went, and what it stood for with it: the kernel looks the name up again.
    pub(super) async fn add_file_handle(
        &self,
        pin: Pin,
        intent: OpenIntent,
        found: Option<Arc<Backing>>,
    ) -> Result<(Fh, Arc<FileHandle>, bool)> {
        let (lineage, pages_dropped, keep_cache, backing) = loop {
            let settled = {
                let mut data = pin.inode().lock();
                if data.parted {
                    return Err(Error::Stale);
                }
                match (data.file()?, data.opens.all) {
                    (FileState::Unlinked(_) | FileState::Removed, 0) => return Err(Error::Stale),
                    (FileState::Moving(_, settled), 0) => settled.clone(),
                    (FileState::Uploading(draft, settled), 0) if !draft.staged.is_complete() => settled.clone(),
                    _ => {
                        let backing = backing::choose(&mut data, found)?;
                        data.opens.all += 1;
                        data.opens.writing += u32::from(intent.writes());
                        let keep_cache = data.kernel_pages == Some(data.lineage);
                        break (data.lineage, data.pages_dropped, keep_cache, backing);
                    }
                }
            };
            // How it ended shows in the state.
            drop(settled.wait().await);
        };
        let (cursor, reader) = (Cursor::default(), Mutex::default());
        let handle = Arc::new(FileHandle { pin, intent, lineage, pages_dropped, cursor, backing, reader });
        let mut handles = self.handles();
        let fh = handles.next();
        handles.files.insert(fh, handle.clone());
        Ok((fh, handle, keep_cache))
    }

    pub(super) fn add_dir_handle(&self, pin: Pin) -> Fh {
        let stream = tokio::sync::Mutex::new(DirStream::new());
        let handle = Arc::new(DirHandle { ino: pin.ino(), stream, _pin: pin });
        let mut handles = self.handles();
        let fh = handles.next();
        handles.dirs.insert(fh, handle);
        fh
    }

    pub(super) fn take_file_handle(&self, fh: Fh) -> Result<Arc<FileHandle>> {
        self.handles().files.remove(&fh).ok_or(Error::BadHandle)
    }

    pub(super) fn take_dir_handle(&self, fh: Fh) {
        let taken = self.handles().dirs.remove(&fh);
        // Dropped after the lock of the handles is released: its pin needs that of the table.
        drop(taken);
    }

    /// Counts a handle out. True when it was the last one that could write, or the last one of a file that was made, or
    /// emptied, through a handle that can't.
    pub(super) fn count_out(handle: &FileHandle) -> bool {
        let mut data = handle.pin.inode().lock();
        let writes = handle.intent.writes();
        data.opens.writing = data.opens.writing.saturating_sub(u32::from(writes));
        let born = matches!(data.file(), Ok(FileState::Dirty(Draft { phase: Phase::Born, .. })));
        data.opens.writing == 0 && (writes || (born && data.opens.all <= 1))
    }

    /// The last step of a release: what only open handles needed goes, to the disk cache where there is one.
    pub(super) fn close_out(&self, handle: &FileHandle) -> Result<()> {
        // The key first: the table's lock comes before an inode's.
        let key = self.table.key_of(handle.pin.ino());
        // Let go of after the lock: removing a file of the local disk takes its time.
        let (local, version) = {
            let mut data = handle.pin.inode().lock();
            let local = data.file()?.staged().cloned();
            data.opens.all = data.opens.all.saturating_sub(1);
            let version = match data.file()? {
                FileState::Clean(clean) if data.opens.all == 0 => Some(clean.version.clone()),
                _ => None,
            };
            let unused = data.let_go();
            (local.or(unused), version)
        };
        if let (Some(staged), Some(_)) = (&local, &version) {
            staged.leave();
        }
        if let (Some(staged), Some(version), Ok(key)) = (local, version, key) {
            self.transfer.keep_written(&key, &version, staged);
        }
        Ok(())
    }
}
