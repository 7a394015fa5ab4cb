//! create and mkdir: new names.
//!
//! Owns what a new name is based on: a file is a draft that expects the name to be absent, a directory is a marker object at once.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Filesystem;
use super::reply::{Created, Entry, Opened};
use crate::error::{Error, Result};
use crate::inode::{
    Body, DirBody, Draft, FileState, FileType, Inode, Kind, Origin, Ownership, PERMISSION_BITS, Phase, Pin, Remains,
};
use crate::store::{Attributes, UploadBody};
use crate::types::{Access, Expect, Ino, Name, OpenIntent};

/// Set-group-ID bit: new entries of such a directory get its group (inode(7)).
const SET_GID: u32 = 0o2000;

/// What a new file or directory is to be.
#[derive(Clone, Copy, Debug)]
pub struct Creation {
    /// Permission bits, the caller's umask already applied.
    pub mode: u32,
    /// The caller.
    pub uid: u32,
    /// The caller's group.
    pub gid: u32,
}

impl Filesystem {
    /// Creates a file and opens it; one that is there is opened, or refused with `exclusive`.
    ///
    /// # Errors
    /// `AlreadyExists`, `IsDirectory`, `ReadOnly`, `StageFull`, names that can't be, and what S3 answers.
    pub async fn create(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        creation: Creation,
        intent: OpenIntent,
    ) -> Result<Created> {
        self.refuse_read_only()?;
        let name = Name::parse(name)?;
        let passage = self.table.pass(&[parent]).await;
        let pin = match self.resolve(parent, &name).await {
            Ok(_) if intent.exclusive => return Err(Error::AlreadyExists),
            Ok(pin) if pin.inode().kind() == Kind::Dir => return Err(Error::IsDirectory),
            // The kernel does not know of it yet: it looks the name up again, and goes on from there.
            Ok(pin) if pin.inode().file_type() != FileType::Regular => return Err(Error::Stale),
            Ok(pin) => {
                drop(passage);
                let attr_pin = self.table.get(pin.ino())?;
                let opened = self.open_pinned(pin, intent).await?;
                return Ok(Created { entry: self.tell_kernel(&attr_pin), opened });
            }
            Err(Error::NotFound) => {
                self.free_name(parent, &name).await?;
                self.new_file(parent, &name, creation, intent)?
            }
            Err(error) => return Err(error),
        };
        let entry = self.tell_kernel(&pin);
        let (fh, _, keep_cache) = self.add_file_handle(pin, intent, None).await?;
        Ok(Created { entry, opened: Opened { fh, keep_cache, backing: None } })
    }

    /// mknod(2): made and in S3 when this returns.
    ///
    /// # Errors
    /// As [`Filesystem::create`], and `Unsupported` for anything but a regular file in `metadata=basic`.
    pub async fn mknod(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        file_type: FileType,
        creation: Creation,
    ) -> Result<Entry> {
        if file_type != FileType::Regular {
            return self.make_special(parent, name, file_type, creation).await;
        }
        let intent = OpenIntent { access: Access::Write, truncate: false, append: false, exclusive: true };
        let created = self.create(parent, name, creation, intent).await?;
        self.release(created.opened.fh).await?;
        Ok(created.entry)
    }

    fn new_file(self: &Arc<Self>, parent: Ino, name: &Name, creation: Creation, intent: OpenIntent) -> Result<Pin> {
        let key = self.table.prefix_of(parent)?.file(name)?;
        let ownership = self.ownership_for(parent, creation, Kind::File)?;
        let origin = match self.hidden_object(parent, name)? {
            Some(waiting) => Origin::Replaced(Some(waiting)),
            None => Origin::Created { exclusive: intent.exclusive },
        };
        let staged = self.or_let_go(|| self.new_draft(&key, &origin.expect()))?;
        let draft = Draft { staged, origin, phase: Phase::Born };
        let mut made = false;
        let pin = self.table.attach(parent, name, Kind::File, |ino| {
            made = true;
            let inode = Inode::new(ino, Kind::File, ownership, Body::File(FileState::Dirty(draft)));
            // Known, so that it takes over nothing of an object that it replaces: its bytes are not encoded as those were.
            inode.lock().attributes = Some(Arc::new(self.new_attributes()));
            inode
        })?;
        if !made && intent.exclusive {
            return Err(Error::AlreadyExists);
        }
        self.note_name(parent, name, None);
        Ok(pin)
    }

    /// The object of an unlinked file that waits under this name for its last handle, because the disk was too full for it.
    fn hidden_object(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Option<crate::types::Version>> {
        let dir = self.table.get(parent)?;
        let waiting = dir.inode().lock().dir()?.names.hidden(name);
        let Some(pin) = waiting.and_then(|ino| self.table.get(ino).ok()) else { return Ok(None) };
        let data = pin.inode().lock();
        Ok(match data.file()? {
            FileState::Unlinked(Remains::Object(object)) => Some(object.version.clone()),
            _ => None,
        })
    }

    pub(super) fn ownership_for(self: &Arc<Self>, parent: Ino, creation: Creation, kind: Kind) -> Result<Ownership> {
        let now = SystemTime::now();
        if !self.keeps_metadata() {
            let default = match kind {
                Kind::File => self.file_default(now),
                Kind::Dir => self.dir_default(),
            };
            return Ok(Ownership { mtime: now, atime: now, ctime: now, ..default });
        }
        let dir = self.table.get(parent)?;
        let above = dir.inode().lock().ownership;
        let inherits = above.mode & SET_GID != 0;
        let gid = if inherits { above.gid } else { creation.gid };
        let extra = if inherits && kind == Kind::Dir { SET_GID } else { 0 };
        let mode = (creation.mode & PERMISSION_BITS) | extra;
        let file_type = FileType::Regular;
        Ok(Ownership { file_type, mode, uid: creation.uid, gid, mtime: now, atime: now, ctime: now })
    }

    /// Makes a directory: its marker object is in S3 when this returns.
    ///
    /// # Errors
    /// `AlreadyExists`, `ReadOnly`, names that can't be, and what S3 answers.
    pub async fn mkdir(self: &Arc<Self>, parent: Ino, name: &[u8], creation: Creation) -> Result<Entry> {
        self.refuse_read_only()?;
        let name = Name::parse(name)?;
        let _passage = self.table.pass(&[parent]).await;
        match self.resolve(parent, &name).await {
            Ok(_) => return Err(Error::AlreadyExists),
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
        let waiting = self.table.get_plain(parent)?.lock().dir()?.names.hidden(&name);
        self.bring_waiting(waiting.as_slice()).await?;
        let prefix = self.table.prefix_of(parent)?.dir(&name)?;
        let marker = prefix.marker().ok_or(Error::Internal("a directory with a name has no marker"))?;
        let ownership = self.ownership_for(parent, creation, Kind::Dir)?;
        let mut attributes = Attributes::default();
        if self.keeps_metadata() {
            ownership.to_stored().write(Kind::Dir, &mut attributes.metadata);
        }
        match self.store.put(&marker, empty(), &attributes, &Expect::Absent).await {
            Ok(_) => {}
            // The reply to our own write may have been lost: what is there then says the same, to the nanosecond.
            Err(Error::PreconditionFailed) => match self.marker(&prefix).await? {
                Some(there) if there.version.size == 0 && there.attributes.metadata == attributes.metadata => {}
                _ => return Err(Error::AlreadyExists),
            },
            Err(error) => return Err(error),
        }
        let body = DirBody { held: true, ..DirBody::default() };
        let pin = self
            .table
            .attach(parent, &name, Kind::Dir, |ino| Inode::new(ino, Kind::Dir, ownership, Body::Dir(Box::new(body))))?;
        self.mark_new_dir(&pin)?;
        self.note_name(parent, &name, Some(crate::inode::Listed { kind: Kind::Dir, version: None }));
        Ok(self.tell_kernel(&pin))
    }

    /// A directory made here is known to be empty, and stays until rmdir.
    fn mark_new_dir(&self, pin: &Pin) -> Result<()> {
        let mut data = pin.inode().lock();
        let now = Instant::now();
        data.belief.checked(now, true, self.dir_span());
        let dir = data.dir()?;
        dir.held = true;
        dir.names.keep_listing(Default::default(), now);
        Ok(())
    }
}

/// A body of no bytes.
pub(super) fn empty() -> UploadBody {
    UploadBody::Memory(bytes::Bytes::new())
}
