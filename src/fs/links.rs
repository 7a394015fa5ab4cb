//! Objects whose metadata says that they are something else than regular files: symbolic links, whose bytes are the target, and
//! fifos, sockets and devices, which have none.
//!
//! Owns how they are made, what may be a target, and that it is asked for once. Only with `metadata=posix`: in `basic` every object is a regular file.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Filesystem;
use super::create::Creation;
use super::refused::Refused;
use super::reply::Entry;
use crate::error::{Error, Result};
use crate::inode::{FileState, FileType, Inode, Kind, Listed, Pin, TARGET_MAX};
use crate::store::{Attributes, UploadBody};
use crate::transfer::Cursor;
use crate::types::{ByteRange, Expect, Ino, Name, ObjectKey, Version};

/// Permissions of every symbolic link (symlink(7)): nobody looks at them.
const LINK_MODE: u32 = 0o777;

/// What readlink finds.
enum Found {
    Here(Bytes),
    Object(u64, Version),
}

impl Filesystem {
    /// Makes a symbolic link to `target`, which need not exist, for the caller with these ids. It is in S3 when this returns.
    ///
    /// # Errors
    /// `Unsupported` in `metadata=basic`, `NotFound` for an empty target, `NameTooLong` for one of more than 4095 bytes,
    /// `AlreadyExists`, `ReadOnly`, names that can't be, and what S3 answers.
    pub async fn symlink(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        target: &[u8],
        (uid, gid): (u32, u32),
    ) -> Result<Entry> {
        self.refuse_read_only()?;
        if !self.keeps_metadata() {
            return Err(Refused::Symlink.error());
        }
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        if target.len() as u64 > TARGET_MAX {
            return Err(Error::NameTooLong);
        }
        let target = Bytes::copy_from_slice(target);
        let creation = Creation { mode: LINK_MODE, uid, gid };
        let pin = self.make_object(parent, name, (FileType::Symlink, creation), target.clone()).await?;
        {
            let mut data = pin.inode().lock();
            data.target = Some((data.lineage, target));
        }
        Ok(self.tell_kernel(&pin))
    }

    /// A fifo, a socket or a device: the kernel does all that is done with one, and only its name and attributes are kept.
    pub(super) async fn make_special(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        file_type: FileType,
        creation: Creation,
    ) -> Result<Entry> {
        self.refuse_read_only()?;
        if !self.keeps_metadata() {
            return Err(Refused::SpecialFile.error());
        }
        let pin = self.make_object(parent, name, (file_type, creation), Bytes::new()).await?;
        Ok(self.tell_kernel(&pin))
    }

    /// A new name for an object that is stored at once, and is never opened here.
    ///
    /// # Errors
    /// As [`Filesystem::symlink`].
    pub(super) async fn make_object(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        (file_type, creation): (FileType, Creation),
        body: Bytes,
    ) -> Result<Pin> {
        let name = Name::parse(name)?;
        let _passage = self.table.pass(&[parent]).await;
        match self.resolve(parent, &name).await {
            Ok(_) => return Err(Error::AlreadyExists),
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
        let waiting = self.table.get_plain(parent)?.lock().dir()?.names.hidden(&name);
        self.bring_waiting(waiting.as_slice()).await?;
        let key = self.table.prefix_of(parent)?.file(&name)?;
        let mut ownership = self.ownership_for(parent, creation, Kind::File)?;
        ownership.file_type = file_type;
        let mut attributes = self.new_attributes();
        ownership.to_stored().write(Kind::File, &mut attributes.metadata);
        let stored = match self.store.put(&key, UploadBody::Memory(body.clone()), &attributes, &Expect::Absent).await {
            // The reply to our own write may have been lost.
            Err(Error::PreconditionFailed) => match self.own_object(&key, &attributes, &body).await {
                Err(Error::AlreadyExists | Error::NotFound) => {
                    // Nobody here knew of it until now.
                    let dir = self.table.get_plain(parent)?;
                    let mut data = dir.lock();
                    let names = &mut data.dir()?.names;
                    names.note_found(&name);
                    names.forget_listing();
                    return Err(Error::AlreadyExists);
                }
                done => done?,
            },
            done => done?,
        };
        // S3 does not say it in its answer.
        let version = Version { size: body.len() as u64, ..stored };
        self.note_name(parent, &name, Some(Listed { kind: Kind::File, version: Some(version.clone()) }));
        let pin = self.take_in_file(parent, &name, (version, Some(Arc::new(attributes))), Instant::now())?;
        // A listing that is under way may lack it.
        pin.inode().lock().committed = Some(Instant::now());
        Ok(pin)
    }

    /// The object that is there, if it is the one that was to be made: it says the same, to the nanosecond.
    async fn own_object(&self, key: &ObjectKey, attributes: &Attributes, body: &Bytes) -> Result<Version> {
        let there = self.head(key).await?;
        let same = there.attributes.metadata == attributes.metadata && there.version.size == body.len() as u64;
        if same && self.whole(key, &there.version).await? == *body {
            Ok(there.version)
        } else {
            Err(Error::AlreadyExists)
        }
    }

    async fn whole(&self, key: &ObjectKey, version: &Version) -> Result<Bytes> {
        let reader = self.transfer.reader(key.clone(), version.clone());
        reader.read(&Cursor::default(), ByteRange::at(0, version.size)).await
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none, `Corrupt` for an object that can't be a target, `Stale` when it is
    /// gone or another one by now, and what S3 answers.
    pub async fn readlink(self: &Arc<Self>, ino: Ino) -> Result<Bytes> {
        let pin = self.table.get(ino)?;
        if pin.inode().kind() == Kind::Dir || pin.inode().file_type() != FileType::Symlink {
            return Err(Error::InvalidArgument("not a symbolic link"));
        }
        let (lineage, version) = match self.target_here(pin.inode()).await? {
            Found::Here(target) => return Ok(target),
            Found::Object(lineage, version) => (lineage, version),
        };
        let passage = self.pass_to(pin.inode()).await.map_err(|_| Error::Stale)?;
        let target = self.whole(&self.table.key_of(ino)?, &version).await;
        drop(passage);
        let target = target.inspect_err(|error| {
            // The kernel looks the name up again, and finds what is there now.
            if matches!(error, Error::Stale | Error::NotFound) {
                pin.inode().lock().belief.forget();
            }
        })?;
        if target.is_empty() || target.contains(&0) {
            return Err(Error::Corrupt("the target of a symbolic link is empty or has a NUL byte".into()));
        }
        pin.inode().lock().target = Some((lineage, target.clone()));
        Ok(target)
    }

    /// The target as far as it is known here. Who moves or removes the link is waited for.
    async fn target_here(&self, inode: &Arc<Inode>) -> Result<Found> {
        loop {
            let settled = {
                let data = inode.lock();
                match (&data.target, data.file()?) {
                    (Some((lineage, target)), _) if *lineage == data.lineage => return Ok(Found::Here(target.clone())),
                    (_, FileState::Clean(clean)) => return Ok(Found::Object(data.lineage, clean.version.clone())),
                    (_, FileState::Moving(_, settled)) => settled.clone(),
                    _ => return Err(Error::Stale),
                }
            };
            drop(settled.wait().await);
        }
    }
}
