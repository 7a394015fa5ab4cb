//! One inode: its attributes, what is known of its object, and the state of its bytes, behind one short lock.
//!
//! Owns write tickets (who writes now). Who takes a whole file for a while is `owned`. Places and
//! names are the table's; the lock order is table before inode, and two inodes by ascending number.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::attr::{Attr, FileType, Kind, Ownership};
use super::backing::Backing;
use super::freshness::Belief;
use super::listing::DirNames;
use super::settled::Settled;
use super::state::{Clean, Draft, Event, FileState, Located, Remains};
use super::xattr::XattrChanges;
use crate::error::{Error, Result};
use crate::stage::StagedFile;
use crate::store::{Attributes, UserMetadata};
use crate::types::{ByteRange, Ino};

/// A file's or a directory's own part of an inode.
#[derive(Debug)]
pub enum Body {
    /// State of a file's bytes.
    File(FileState),
    /// Names of a directory.
    Dir(Box<DirBody>),
}

/// What a directory knows of itself.
#[derive(Debug, Default)]
pub struct DirBody {
    /// Its names.
    pub names: DirNames,
    /// Made or emptied here: it stays until rmdir, whatever S3 lists.
    pub held: bool,
    /// Removed here: who has it open finds an empty directory without a link.
    pub removed: bool,
}

/// What is behind the lock.
#[derive(Debug)]
pub struct NodeData {
    /// Permissions, owner and times.
    pub ownership: Ownership,
    /// What travels with the object, as last seen; `None` until HEAD or GET told.
    pub attributes: Option<Arc<Attributes>>,
    /// Extended attributes that were changed since; they go with the next commit.
    pub xattr_changes: XattrChanges,
    /// A program has set the time of the last modification, and nothing was written since.
    pub mtime_given: bool,
    /// How long what is known is believed.
    pub belief: Belief,
    /// When it was changed here last, or when the request began whose answer is what is known. An answer to an older
    /// request tells of the past.
    pub as_of: Option<Instant>,
    /// Uploads of the draft that failed without an answer: one of them may have made the object.
    pub attempts: Vec<Arc<Attempt>>,
    /// The last commit failed: until one does not, whoever closes the file wants to know how it ends.
    pub commit_failed: bool,
    /// Its name was given to another inode: it stays what it is for the handles that it has, and gets no more.
    pub parted: bool,
    /// An exclusive create of it lost its race.
    pub lost: bool,
    /// A task waits to try the commit again.
    pub retrying: bool,
    /// A place among the files that were closed and are not stored, while this is one.
    pub behind: Option<OwnedSemaphorePermit>,
    /// Grows when S3 turns out to hold bytes that were not written through this mount: older handles are then stale.
    pub lineage: u64,
    /// When a commit made here last ended: a listing that began before may lack the name.
    pub committed: Option<Instant>,
    /// The lineage whose attributes the kernel was told last.
    pub told: Option<u64>,
    /// The lineage whose pages the kernel may hold.
    pub kernel_pages: Option<u64>,
    /// Grows when bytes that the kernel was given turn out to be wrong: reads of handles that are older say nothing of its pages.
    pub pages_dropped: u64,
    /// Open handles, and how many of them may write.
    pub opens: Opens,
    /// What the kernel reads by itself, while a handle is open that was given it: all others must be given the same.
    pub backing: Weak<Backing>,
    /// The target of a symbolic link, and the lineage whose bytes it is.
    pub target: Option<(u64, Bytes)>,
    /// The own part.
    pub body: Body,
}

/// What an upload would have made.
#[derive(Debug)]
pub struct Attempt {
    /// Bytes.
    pub size: u64,
    /// CRC-64/NVME of the bytes that were changed, range by range: of all of them, or of what was not copied from the object.
    pub sums: Vec<(ByteRange, u64)>,
    /// What went with them.
    pub attributes: Attributes,
    /// When it began.
    pub began: SystemTime,
    /// The store was asked since, and has not made it.
    pub refuted: AtomicBool,
}

/// Open handles of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opens {
    /// All of them.
    pub all: u32,
    /// Those that may write.
    pub writing: u32,
}

impl NodeData {
    /// The state of the file.
    ///
    /// # Errors
    /// `IsDirectory`
    pub fn file(&self) -> Result<&FileState> {
        match &self.body {
            Body::File(state) => Ok(state),
            Body::Dir(_) => Err(Error::IsDirectory),
        }
    }

    /// Changes the state of the file.
    ///
    /// # Errors
    /// `IsDirectory`, and `Internal` for what the state does not allow.
    pub fn apply(&mut self, event: Event) -> Result<()> {
        match &mut self.body {
            Body::File(state) => {
                if !matches!(event, Event::LetGo | Event::Refresh(_)) {
                    self.as_of = Some(Instant::now());
                }
                let outcome = state.apply(event);
                debug_assert!(outcome.is_ok(), "{outcome:?}");
                outcome
            }
            Body::Dir(_) => Err(Error::IsDirectory),
        }
    }

    /// Lets go of bytes that no handle needs: committed ones, and those of a file whose name is another's. They are given back, to be dropped after the lock: removing a file of
    /// the local disk takes its time.
    pub fn let_go(&mut self) -> Option<Arc<StagedFile>> {
        match &self.body {
            Body::File(FileState::Clean(clean)) if self.opens.all == 0 => {
                let local = clean.local.clone()?;
                self.apply(Event::LetGo).ok().map(|()| local)
            }
            Body::File(FileState::Unlinked(Remains::Staged { staged, .. })) if self.parted && self.opens.all == 0 => {
                let staged = staged.clone();
                self.apply(Event::LastPin).ok().map(|()| staged)
            }
            _ => None,
        }
    }

    /// What a file is; of a directory it says nothing.
    pub fn file_type(&self) -> FileType {
        match &self.body {
            Body::File(state) => self.ownership.file_type.of_size(state.size()),
            Body::Dir(_) => FileType::Regular,
        }
    }

    /// The directory's own part.
    ///
    /// # Errors
    /// `NotDirectory`
    pub fn dir(&mut self) -> Result<&mut DirBody> {
        match &mut self.body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Error::NotDirectory),
        }
    }

    /// User metadata as the next commit stores it, without modes, owners and times; none where the object's is not known.
    pub fn metadata(&self) -> UserMetadata {
        let mut metadata = self.attributes.as_ref().map(|known| known.metadata.clone()).unwrap_or_default();
        self.xattr_changes.write(&mut metadata);
        metadata
    }

    /// True when a listing that began then need not show the name: it is not in S3, or came there since.
    pub fn may_be_missed_since(&self, began: Instant) -> bool {
        self.is_local() || self.committed.is_some_and(|at| at >= began)
    }

    /// True when it was changed here since, or what is known was asked for later.
    pub fn is_changed_since(&self, asked: Instant) -> bool {
        self.as_of.is_some_and(|known| asked < known)
    }

    /// True when S3 is not the authority for this inode.
    pub fn is_local(&self) -> bool {
        match &self.body {
            Body::File(state) => state.is_local(),
            Body::Dir(dir) => dir.held || dir.removed,
        }
    }
}

/// An inode.
#[derive(Debug)]
pub struct Inode {
    ino: Ino,
    kind: Kind,
    data: Mutex<NodeData>,
    pub(super) writers: watch::Sender<usize>,
}

/// What a write finds.
#[derive(Debug)]
pub enum WriteTurn {
    /// Write here, and hold the ticket while doing so.
    Ready(WriteTicket),
    /// A draft must be begun first, as a change of this version.
    Begin(Clean),
    /// The bytes of an unlinked file must be brought to the local disk first.
    Preserve(Located),
    /// Somebody owns the file: wait, then ask again.
    Wait(Settled),
}

/// Held while bytes are written: no upload reads a file that is being written.
#[derive(Debug)]
pub struct WriteTicket {
    inode: Arc<Inode>,
    staged: Arc<StagedFile>,
}

impl WriteTicket {
    /// Where to write.
    pub fn staged(&self) -> &Arc<StagedFile> {
        &self.staged
    }
}

impl Drop for WriteTicket {
    fn drop(&mut self) {
        self.inode.writers.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Inode {
    /// A new inode.
    pub fn new(ino: Ino, kind: Kind, ownership: Ownership, body: Body) -> Self {
        let data = NodeData {
            ownership,
            attributes: None,
            xattr_changes: XattrChanges::default(),
            mtime_given: false,
            belief: Belief::default(),
            as_of: None,
            attempts: Vec::new(),
            commit_failed: false,
            parted: false,
            lost: false,
            retrying: false,
            behind: None,
            lineage: 0,
            committed: None,
            told: None,
            kernel_pages: None,
            pages_dropped: 0,
            opens: Opens::default(),
            backing: Weak::new(),
            target: None,
            body,
        };
        Inode { ino, kind, data: Mutex::new(data), writers: watch::Sender::new(0) }
    }

    /// Its number.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// File or directory.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What a file is; of a directory it says nothing.
    pub fn file_type(&self) -> FileType {
        self.lock().file_type()
    }

    /// The lock. A panic elsewhere does not make the inode unusable.
    pub fn lock(&self) -> MutexGuard<'_, NodeData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As stat(2) shows it. The kernel is told so.
    pub fn attr(&self) -> Attr {
        let mut data = self.lock();
        data.told = Some(data.lineage);
        let (size, nlink) = match &data.body {
            Body::File(FileState::Unlinked(remains)) => (FileState::Unlinked(remains.clone()).size(), 0),
            Body::File(state) => (state.size(), 1),
            Body::Dir(dir) => (0, u32::from(!dir.removed)),
        };
        let ownership = Ownership { file_type: data.file_type(), ..data.ownership };
        Attr { ino: self.ino, kind: self.kind, size, nlink, ownership }
    }

    /// True when no request is needed to answer for it.
    pub fn is_fresh(&self, now: Instant) -> bool {
        let data = self.lock();
        data.is_local() || data.belief.is_fresh(now)
    }

    /// True when the size that the kernel knows is that of this lineage.
    pub fn kernel_knows_size(&self) -> bool {
        let data = self.lock();
        data.told == Some(data.lineage)
    }

    /// A turn to write.
    ///
    /// # Errors
    /// `IsDirectory`, `NotFound` for a file that is gone, `Stale` for one whose name is another file's.
    pub fn write_turn(self: &Arc<Self>) -> Result<WriteTurn> {
        let data = self.lock();
        let state = data.file()?;
        let turn = match state {
            FileState::Clean(clean) => WriteTurn::Begin(clean.clone()),
            FileState::Uploading(_, settled) | FileState::Moving(_, settled) => WriteTurn::Wait(settled.clone()),
            // An unlinked file is its writer's until the last close; here the name went without the writer's knowing.
            FileState::Unlinked(_) | FileState::Removed if data.parted => return Err(Error::Stale),
            FileState::Unlinked(Remains::Object(object)) => WriteTurn::Preserve(object.clone()),
            FileState::Dirty(Draft { staged, .. }) | FileState::Unlinked(Remains::Staged { staged, .. }) => {
                // Counted under the lock: a seal that comes later sees this writer.
                self.writers.send_modify(|count| *count += 1);
                WriteTurn::Ready(WriteTicket { inode: self.clone(), staged: staged.clone() })
            }
            FileState::Removed => return Err(Error::NotFound),
        };
        Ok(turn)
    }
}
