//! One inode: its attributes, what is known of its object, and the state of its bytes, behind one short lock.
//!
//! Owns write tickets (who writes now) and the hand-over of a file to the one task that commits or moves it. Places and
//! names are the table's; the lock order is table before inode, and two inodes by ascending number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::attr::{Attr, Kind, Ownership};
use super::backing::Backing;
use super::freshness::Belief;
use super::listing::DirNames;
use super::settled::Settled;
use super::state::{Clean, Draft, Event, FileState, Located, Origin, Remains};
use crate::error::{Error, Result};
use crate::stage::StagedFile;
use crate::store::Attributes;
use crate::types::{ByteRange, Ino};

/// A file's or a directory's own part of an inode.
#[derive(Debug)]
pub enum Body {
    /// State of a file's bytes.
    File(FileState),
    /// Names of a directory.
    Dir(DirBody),
}

/// What a directory knows of itself.
#[derive(Debug, Default)]
pub struct DirBody {
    /// Its names.
    pub names: DirNames,
    /// Made or emptied here: it stays until rmdir, whatever S3 lists.
    pub held: bool,
}

/// What is behind the lock.
#[derive(Debug)]
pub struct NodeData {
    /// Permissions, owner and times.
    pub ownership: Ownership,
    /// What travels with the object, as last seen; `None` until HEAD or GET told.
    pub attributes: Option<Arc<Attributes>>,
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
    /// Open handles, and how many of them may write.
    pub opens: Opens,
    /// What the kernel reads by itself, while a handle is open that was given it: all others must be given the same.
    pub backing: Weak<Backing>,
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

    /// Lets go of committed bytes that no handle needs. They are given back, to be dropped after the lock: removing a file of
    /// the local disk takes its time.
    pub fn let_go(&mut self) -> Option<Arc<StagedFile>> {
        match &self.body {
            Body::File(FileState::Clean(clean)) if self.opens.all == 0 => {
                let local = clean.local.clone()?;
                self.apply(Event::LetGo).ok().map(|()| local)
            }
            _ => None,
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
            Body::Dir(dir) => dir.held,
        }
    }
}

/// An inode.
#[derive(Debug)]
pub struct Inode {
    ino: Ino,
    kind: Kind,
    data: Mutex<NodeData>,
    writers: watch::Sender<usize>,
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

/// A file taken for a while by one task. Dropped without a word, the file is as it was before.
#[derive(Debug)]
pub struct Owned {
    inode: Arc<Inode>,
    prior: Option<Prior>,
    settled: Settled,
}

/// What the file was when it was taken.
#[derive(Clone, Debug)]
pub enum Prior {
    /// As in S3.
    Clean(Clean),
    /// A draft.
    Dirty(Draft),
}

impl Owned {
    /// What the file was when it was taken.
    ///
    /// # Errors
    /// `Internal` after it was given back.
    pub fn prior(&self) -> Result<&Prior> {
        self.prior.as_ref().ok_or(Error::Internal("a file was used after it was given back"))
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// What others wait for.
    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Waits until nobody writes. New writers wait for the owner.
    pub async fn writers_gone(&self) {
        let mut writers = self.inode.writers.subscribe();
        // The sender lives in the inode, which this holds: the wait can't fail.
        let _ = writers.wait_for(|count| *count == 0).await;
    }

    /// The file is this object now.
    ///
    /// # Errors
    /// `Internal`
    pub fn settle_clean(mut self, clean: Clean, change: impl FnOnce(&mut NodeData)) -> Result<()> {
        self.end(Ok(()), |data| {
            data.apply(Event::SettleOk(clean))?;
            data.commit_failed = false;
            data.behind = None;
            change(data);
            Ok(())
        })
    }

    /// It failed: what was there before stays, and who waits is told.
    ///
    /// # Errors
    /// `Internal`
    pub fn settle_failed(mut self, error: Error) -> Result<()> {
        self.end(Err(error.clone()), |data| {
            data.commit_failed = true;
            data.apply(Event::SettleErr(error))
        })
    }

    /// The draft goes on, with this origin.
    ///
    /// # Errors
    /// `Internal`
    pub fn reopen(mut self, origin: Origin) -> Result<()> {
        self.end(Ok(()), |data| data.apply(Event::Reopen(origin)))
    }

    /// The name is gone.
    ///
    /// # Errors
    /// `Internal`
    pub fn unlinked(mut self, remains: Remains) -> Result<()> {
        self.end(Ok(()), |data| {
            data.behind = None;
            data.apply(Event::Unlink(remains))
        })
    }

    fn end(&mut self, outcome: Result<()>, change: impl FnOnce(&mut NodeData) -> Result<()>) -> Result<()> {
        self.prior = None;
        let (done, _unused) = {
            let mut data = self.inode.lock();
            (change(&mut data), data.let_go())
        };
        self.settled.settle(outcome);
        done
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let event = match self.prior.take() {
            None => return,
            Some(Prior::Clean(clean)) => Event::SettleOk(clean),
            Some(Prior::Dirty(draft)) => Event::Reopen(draft.origin),
        };
        let _ = self.end(Ok(()), |data| data.apply(event));
    }
}

impl Inode {
    /// A new inode.
    pub fn new(ino: Ino, kind: Kind, ownership: Ownership, body: Body) -> Self {
        let data = NodeData {
            ownership,
            attributes: None,
            mtime_given: false,
            belief: Belief::default(),
            as_of: None,
            attempts: Vec::new(),
            commit_failed: false,
            parted: false,
            retrying: false,
            behind: None,
            lineage: 0,
            committed: None,
            told: None,
            kernel_pages: None,
            opens: Opens::default(),
            backing: Weak::new(),
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
            Body::Dir(_) => (0, 1),
        };
        Attr { ino: self.ino, kind: self.kind, size, nlink, ownership: data.ownership }
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
    /// `IsDirectory`, `NotFound` for a file that is gone.
    pub fn write_turn(self: &Arc<Self>) -> Result<WriteTurn> {
        let data = self.lock();
        let state = data.file()?;
        let turn = match state {
            FileState::Clean(clean) => WriteTurn::Begin(clean.clone()),
            FileState::Uploading(_, settled) | FileState::Moving(_, settled) => WriteTurn::Wait(settled.clone()),
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

    /// Takes the file, or says whom to wait for.
    ///
    /// # Errors
    /// `NotFound` for a file that has no name any more.
    pub fn try_own(self: &Arc<Self>) -> Result<std::result::Result<Owned, Settled>> {
        let mut data = self.lock();
        let (prior, event, settled) = match data.file()? {
            FileState::Uploading(_, settled) | FileState::Moving(_, settled) => return Ok(Err(settled.clone())),
            FileState::Unlinked(_) | FileState::Removed => return Err(Error::NotFound),
            FileState::Clean(clean) => {
                let settled = Settled::new();
                (Prior::Clean(clean.clone()), Event::Own(settled.clone()), settled)
            }
            FileState::Dirty(draft) => {
                let settled = Settled::new();
                (Prior::Dirty(draft.clone()), Event::Seal(settled.clone()), settled)
            }
        };
        data.apply(event)?;
        Ok(Ok(Owned { inode: self.clone(), prior: Some(prior), settled }))
    }

    /// Takes the file as soon as nobody else has it.
    ///
    /// # Errors
    /// As [`Inode::try_own`].
    pub async fn own(self: &Arc<Self>) -> Result<Owned> {
        loop {
            match self.try_own()? {
                Ok(owned) => return Ok(owned),
                // How the other one's work ended is not our business: the state says what is there now.
                Err(settled) => drop(settled.wait().await),
            }
        }
    }
}
