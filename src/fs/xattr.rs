//! Extended attributes, with the option `xattr`: those of programs (`user.*`), and what there is to tell of an object
//! (`user.s3.*`).
//!
//! Owns where a change goes: with the commit of a draft, by a server-side copy of a clean file, into the marker object of a
//! directory. How they stand in metadata is `inode::xattr`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Filesystem;
use crate::error::{Error, Result};
use crate::inode::{
    FileState, Inode, Kind, NodeData, ObjectFact, Ownership, OwnershipChange, Pin, Presence, Prior, XattrChange,
    XattrChanges, XattrName, xattr_names, xattr_value,
};
use crate::store::{Attributes, UserMetadata};
use crate::types::{Ino, ObjectKey};

/// What S3 means by naming no storage class.
const DEFAULT_CLASS: &str = "STANDARD";

/// Set-user-ID, set-group-ID, and the right of the group to execute, without which the second means something else (inode(7)).
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o0010;

impl Filesystem {
    /// False where the kernel is told to ask never again.
    pub fn serves_xattrs(&self) -> bool {
        self.settings.xattr
    }

    /// The kernel leaves it to this program to take set-user-ID bits away, and then asks for no attribute before each write.
    pub fn set_takes_set_id(&self, takes: bool) {
        self.takes_set_id.store(takes, Ordering::Relaxed);
    }

    /// The mode of a file whose bytes or owner are changed: without the rights of its owner, where the kernel leaves that to this
    /// program.
    pub(super) fn mode_after_change(&self, ownership: &Ownership) -> u32 {
        if !self.takes_set_id.load(Ordering::Relaxed) {
            return ownership.mode;
        }
        let group = if ownership.mode & GROUP_EXECUTES != 0 { SET_GID } else { 0 };
        ownership.mode & !(SET_UID | group)
    }

    /// getxattr(2): no request where the attributes are known, but for the version's id.
    ///
    /// # Errors
    /// `NoAttribute`, `Unsupported` for other namespaces, names that can't be, `Stale`, and what S3 answers.
    pub async fn getxattr(self: &Arc<Self>, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let name = XattrName::parse(name)?;
        let pin = self.table.get(ino)?;
        match name {
            XattrName::User(name) => xattr_value(&self.metadata_of(&pin).await?, &name).ok_or(Error::NoAttribute),
            XattrName::Object(Some(fact)) => self.fact(&pin, fact).await,
            XattrName::Object(None) => Err(Error::NoAttribute),
        }
    }

    /// listxattr(2): names, each with a NUL behind it.
    ///
    /// # Errors
    /// As [`Filesystem::getxattr`].
    pub async fn listxattr(self: &Arc<Self>, ino: Ino) -> Result<Vec<u8>> {
        let pin = self.table.get(ino)?;
        let names = xattr_names(&self.metadata_of(&pin).await?);
        Ok(names.into_iter().flat_map(|name| [name.into_bytes(), vec![0]]).flatten().collect())
    }

    /// setxattr(2).
    ///
    /// # Errors
    /// As [`XattrChange::apply`]; `NotPermitted` for what is told of objects, `Unsupported` for other namespaces and in
    /// `metadata=basic`, `ReadOnly`, `Stale`, and what S3 answers.
    pub async fn setxattr(self: &Arc<Self>, ino: Ino, name: &[u8], value: Vec<u8>, presence: Presence) -> Result<()> {
        self.change_xattr(ino, name, Some(value), presence).await
    }

    /// removexattr(2).
    ///
    /// # Errors
    /// As [`Filesystem::setxattr`].
    pub async fn removexattr(self: &Arc<Self>, ino: Ino, name: &[u8]) -> Result<()> {
        self.change_xattr(ino, name, None, Presence::Present).await
    }

    async fn change_xattr(
        self: &Arc<Self>,
        ino: Ino,
        name: &[u8],
        value: Option<Vec<u8>>,
        presence: Presence,
    ) -> Result<()> {
        let name = match XattrName::parse(name)? {
            XattrName::User(name) => name,
            XattrName::Object(_) => return Err(Error::NotPermitted("what S3 says of an object")),
        };
        self.refuse_read_only()?;
        if !self.keeps_metadata() {
            return Err(Error::Unsupported("an extended attribute with metadata=basic"));
        }
        let pin = self.table.get(ino)?;
        self.know_metadata(&pin).await?;
        let change = XattrChange { name, value, presence };
        match pin.inode().kind() {
            Kind::File => self.change_xattr_of_file(pin.inode(), change).await?,
            Kind::Dir => self.rewrite_marker(&pin, |metadata| change.apply(metadata)).await?,
        }
        pin.inode().lock().ownership.ctime = SystemTime::now();
        Ok(())
    }

    async fn change_xattr_of_file(self: &Arc<Self>, inode: &Arc<Inode>, change: XattrChange) -> Result<()> {
        {
            let mut data = inode.lock();
            if matches!(data.file()?, FileState::Dirty(_)) {
                return add_to_draft(&mut data, change);
            }
        }
        let (_passage, owned) = match self.own_in_place(inode).await {
            Ok(both) => both,
            // No name: nothing to store it in, and nobody to find it there but those who have it open.
            Err(Error::NotFound) => return add_to_draft(&mut inode.lock(), change),
            Err(error) => return Err(error),
        };
        match owned.prior()?.clone() {
            Prior::Clean(clean) => {
                let mut changes = XattrChanges::default();
                if !change.apply(&mut inode.lock().metadata())? {
                    return Ok(());
                }
                changes.add(change);
                self.store_change(owned, clean, &OwnershipChange::default(), &changes).await
            }
            Prior::Dirty(draft) => {
                add_to_draft(&mut inode.lock(), change)?;
                owned.reopen(draft.origin)
            }
        }
    }

    /// User metadata as programs see it: none with `metadata=basic`.
    async fn metadata_of(self: &Arc<Self>, pin: &Pin) -> Result<UserMetadata> {
        if !self.keeps_metadata() {
            return Ok(UserMetadata::new());
        }
        self.know_metadata(pin).await?;
        Ok(pin.inode().lock().metadata())
    }

    /// Asks S3 where what is known is too old, or is not all.
    pub(super) async fn know_metadata(self: &Arc<Self>, pin: &Pin) -> Result<()> {
        self.refresh(pin).await?;
        let (is_known, is_local, has_object) = {
            let data = pin.inode().lock();
            let object = match data.file() {
                Ok(FileState::Dirty(draft) | FileState::Uploading(draft, _)) => draft.origin.object().is_some(),
                Ok(state) => state.object().is_some(),
                Err(_) => true,
            };
            (data.attributes.is_some(), data.is_local(), object)
        };
        if is_known || !has_object {
            return Ok(());
        }
        let key = match pin.inode().kind() {
            Kind::File if !is_local => return self.revalidate(pin).await,
            Kind::File => Some(self.table.key_of(pin.ino())?),
            Kind::Dir => self.table.prefix_of(pin.ino())?.marker(),
        };
        // The root of a bucket has no object.
        let Some(key) = key else { return Ok(()) };
        let attributes = self.attributes_at(&key).await?;
        let mut data = pin.inode().lock();
        if data.attributes.is_none() {
            data.attributes = Some(Arc::new(attributes));
        }
        Ok(())
    }

    async fn attributes_at(&self, key: &ObjectKey) -> Result<Attributes> {
        match self.store.head(key).await {
            Ok(info) => Ok(info.attributes),
            Err(Error::NotFound) => Ok(self.new_attributes()),
            Err(error) => Err(error),
        }
    }

    async fn fact(self: &Arc<Self>, pin: &Pin, fact: ObjectFact) -> Result<Vec<u8>> {
        if pin.inode().kind() == Kind::Dir {
            return Err(Error::NoAttribute);
        }
        if matches!(fact, ObjectFact::StorageClass) {
            self.know_metadata(pin).await?;
        } else {
            self.refresh(pin).await?;
        }
        let told = self.description(pin)?;
        let text = match fact {
            ObjectFact::ETag => told.version.map(|(etag, _)| etag),
            ObjectFact::StorageClass => told.storage_class,
            ObjectFact::State => Some(told.standing.word().to_owned()),
            ObjectFact::LastError => told.failure.map(|(error, _)| error),
            ObjectFact::VersionId if told.version.is_none() => None,
            ObjectFact::VersionId => self.version_id(pin).await?,
        };
        text.map(String::into_bytes).ok_or(Error::NoAttribute)
    }

    /// What S3 calls the version of the object that is there now: no other answer tells it.
    pub(super) async fn version_id(&self, pin: &Pin) -> Result<Option<String>> {
        match self.head(&self.table.key_of(pin.ino())?).await {
            Ok(info) => Ok(info.version_id),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The storage class of an object whose attributes are known.
pub(super) fn storage_class(data: &NodeData) -> Option<String> {
    let attributes = data.attributes.as_ref()?;
    Some(attributes.storage_class.clone().unwrap_or_else(|| DEFAULT_CLASS.to_owned()))
}

/// What is not stored yet takes it along with its commit, at no request.
fn add_to_draft(data: &mut NodeData, change: XattrChange) -> Result<()> {
    if data.parted || matches!(data.file()?, FileState::Clean(_) | FileState::Moving(..)) {
        // The name is another file's by now, which is the one that is meant; or it was stored this moment.
        return Err(Error::Stale);
    }
    if change.apply(&mut data.metadata())? {
        data.xattr_changes.add(change);
    }
    Ok(())
}
