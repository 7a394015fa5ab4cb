//! lookup and forget: what stands at a name, and how much of that needs a request.
//!
//! Owns the rule of who wins: what is changed here, then a fresh memory, then a fresh listing, then HEAD of the key and LIST of
//! `key/` at once, where a directory wins over a file of the same name. Where the file will likely be read next, its bytes come in
//! place of what HEAD says (see `ahead`).

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Filesystem;
use super::parting::is_read_as_another;
use super::reply::Entry;
use crate::error::{Error, Result};
use crate::inode::{
    Body, Event, FileState, Inode, Kind, Known, Listed, NodeData, Ownership, Pin, StoredAttributes, XattrChanges,
};
use crate::store::{Attributes, ListRequest, ObjectInfo};
use crate::types::{DirPrefix, Ino, Name, ObjectKey, Version};

/// A lookup that is overtaken so often by changes of the name made here is given up.
const OVERTAKEN_MAX: usize = 16;

/// What S3 says of a name.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// An object.
    File(ObjectInfo),
    /// A directory, with what its marker object says, if it has one that was asked.
    Dir(Option<ObjectInfo>),
    /// Neither.
    Nothing,
}

/// What a name is resolved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The kernel looks it up: nobody knows yet what for, and an open may come next.
    Lookup,
    /// Something is done to the name.
    Change,
}

impl Filesystem {
    /// The entry at `name` in `parent`; counts one lookup.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotUtf8`, `NameTooLong`, and what S3 answers.
    pub async fn lookup(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Result<Entry> {
        let name = Name::parse(name)?;
        let _passage = self.table.pass(&[parent]).await;
        let pin = self.resolve_for(parent, &name, Purpose::Lookup).await?;
        Ok(self.tell_kernel(&pin))
    }

    /// The kernel forgets an inode it was told of `count` times.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.table.forget(ino, count);
    }

    pub(super) fn tell_kernel(&self, pin: &Pin) -> Entry {
        self.table.count_lookup(pin.ino());
        Entry { attr: pin.inode().attr() }
    }

    /// The inode at a name, asking S3 only for what is not known. The caller has passed the gate of the directory: half-way
    /// through its move, names in it are missing.
    pub(super) async fn resolve(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<Pin> {
        self.resolve_for(parent, name, Purpose::Change).await
    }

    async fn resolve_for(self: &Arc<Self>, parent: Ino, name: &Name, purpose: Purpose) -> Result<Pin> {
        let dir = self.table.get(parent)?;
        for round in 0..OVERTAKEN_MAX {
            let now = Instant::now();
            if let Some(child) = self.table.child(parent, name)
                && child.inode().is_fresh(now)
            {
                return Ok(child);
            }
            let (known, listed_at) = {
                let mut data = dir.inode().lock();
                let names = &mut data.dir()?.names;
                let freshness = self.settings.freshness;
                let known = names.known(name, now, freshness.dir_min, freshness.negative);
                match &known {
                    Known::Absent => names.note_absent(now),
                    Known::Unknown => names.note_unknown(now),
                    Known::Present(_) => {}
                }
                (known, names.listed_at().unwrap_or(now))
            };
            // What was found is of before a change made here meanwhile: then it is asked again.
            let is_overtaken = || Ok::<_, Error>(!dir.inode().lock().dir()?.names.is_untouched_since(name, now));
            let may_be_file = match &known {
                Known::Present(listed) => listed.kind == Kind::File,
                Known::Absent => false,
                Known::Unknown => true,
            };
            if may_be_file && let Some(pin) = self.found_ahead(parent, name).await {
                return Ok(pin);
            }
            if known == Known::Unknown && round == 0 && self.list_instead(&dir).await {
                continue;
            }
            let found = match known {
                Known::Absent => return Err(Error::NotFound),
                Known::Present(_) if is_overtaken()? => continue,
                Known::Present(listed) => {
                    if let Some(pin) = self.from_listing(parent, name, &listed, listed_at)? {
                        return Ok(pin);
                    }
                    if may_be_file && let Some(pin) = self.found_with_bytes(parent, name, purpose).await {
                        return Ok(pin);
                    }
                    self.probe_listed(parent, name, &listed).await?
                }
                Known::Unknown => self.probe(parent, name, purpose).await?,
            };
            if !is_overtaken()? {
                let pin = self.take_in(parent, name, found, now)?;
                self.note_looked_up(parent, &pin, purpose);
                return Ok(pin);
            }
        }
        // The kernel asks again.
        Err(Error::Stale)
    }

    /// The inode of a name that a listing has just shown. It began at `began`; one that a change
    /// made here has overtaken is not `trusted`.
    pub(super) async fn resolve_listed(
        self: &Arc<Self>,
        parent: Ino,
        name: &Name,
        listed: &Listed,
        began: Instant,
        trusted: bool,
    ) -> Result<Pin> {
        if let Some(child) = self.table.child(parent, name)
            && (child.inode().lock().is_local() || (!trusted && child.inode().is_fresh(Instant::now())))
        {
            return Ok(child);
        }
        if trusted && let Some(pin) = self.from_listing(parent, name, listed, began)? {
            return Ok(pin);
        }
        let now = Instant::now();
        let found = self.probe_listed(parent, name, listed).await?;
        self.take_in(parent, name, found, now)
    }

    /// A listing's word is enough where no metadata is kept, or where this version's metadata was read before.
    fn from_listing(
        self: &Arc<Self>,
        parent: Ino,
        name: &Name,
        listed: &Listed,
        began: Instant,
    ) -> Result<Option<Pin>> {
        if let Some(child) = self.table.child(parent, name) {
            let confirmed = match &listed.version {
                Some(version) => self.confirms(&child, version, began),
                // Of a directory a listing says no more than that it is there.
                None => child.inode().kind() == Kind::Dir && child.inode().is_fresh(Instant::now()),
            };
            if confirmed {
                return Ok(Some(child));
            }
        }
        if self.keeps_metadata() {
            return Ok(None);
        }
        match &listed.version {
            Some(version) => self.take_in_file(parent, name, (version.clone(), None), began).map(Some),
            None => self.take_in_dir(parent, name, None, began).map(Some),
        }
    }

    /// True when `version` is the one whose attributes are known here.
    fn confirms(&self, child: &Pin, version: &Version, began: Instant) -> bool {
        let mut data = child.inode().lock();
        let known = data.attributes.is_some() || !self.keeps_metadata();
        let same = matches!(data.file(), Ok(FileState::Clean(clean)) if clean.version == *version);
        if known && same {
            data.belief.answered(Instant::now(), began, true, self.file_span());
        }
        known && same
    }

    async fn probe_listed(self: &Arc<Self>, parent: Ino, name: &Name, listed: &Listed) -> Result<Found> {
        let prefix = self.table.prefix_of(parent)?;
        match listed.kind {
            Kind::Dir => Ok(Found::Dir(self.marker(&prefix.dir(name)?).await?)),
            Kind::File => match self.head(&prefix.file(name)?).await {
                Ok(info) => Ok(Found::File(info)),
                Err(Error::NotFound) => self.probe(parent, name, Purpose::Change).await,
                Err(error) => Err(error),
            },
        }
    }

    /// HEAD of the key and LIST of `key/` at once.
    async fn probe(self: &Arc<Self>, parent: Ino, name: &Name, purpose: Purpose) -> Result<Found> {
        let prefix = self.table.prefix_of(parent)?;
        let key = prefix.file(name)?;
        let Ok(below) = prefix.dir(name) else {
            return Self::file_or_nothing(self.head(&key).await);
        };
        let request = ListRequest { prefix: below.as_str().to_owned(), max_keys: 1, ..ListRequest::default() };
        let head = self.head_with_bytes((parent, name), &key, purpose);
        let (head, list) = tokio::join!(head, self.store.list(request));
        let page = list?;
        let Some(first) = page.objects.first() else { return Self::file_or_nothing(head) };
        if head.is_ok() {
            self.note_hidden(1);
            tracing::debug!(%key, "a file is hidden by a directory of the same name");
        }
        if self.keeps_metadata() && below.marker().as_ref() == Some(&first.key) {
            return Ok(Found::Dir(self.marker(&below).await?));
        }
        Ok(Found::Dir(None))
    }

    /// HEAD of a file, which also tells what its bytes are compared with when they are read.
    pub(super) async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo> {
        let info = self.store.head(key).await?;
        self.transfer.note_head(key, &info);
        Ok(info)
    }

    fn file_or_nothing(head: Result<ObjectInfo>) -> Result<Found> {
        match head {
            Ok(info) => Ok(Found::File(info)),
            Err(Error::NotFound) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// What a directory's marker object says, if there is one.
    pub(super) async fn marker(&self, prefix: &DirPrefix) -> Result<Option<ObjectInfo>> {
        let Some(key) = prefix.marker() else { return Ok(None) };
        if !self.keeps_metadata() {
            return Ok(None);
        }
        match self.store.head(&key).await {
            Ok(info) => Ok(Some(info)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Turns what S3 said into an inode, or into a miss. It was `asked` then.
    fn take_in(self: &Arc<Self>, parent: Ino, name: &Name, found: Found, asked: Instant) -> Result<Pin> {
        // Changed here meanwhile: that is what stands there.
        if let Some(child) = self.table.child(parent, name)
            && child.inode().lock().is_local()
        {
            return Ok(child);
        }
        match found {
            Found::File(info) => {
                let attributes = Arc::new(info.attributes);
                self.take_in_file(parent, name, (info.version, Some(attributes)), asked)
            }
            Found::Dir(marker) => self.take_in_dir(parent, name, marker.as_ref(), asked),
            Found::Nothing => {
                if let Some(child) = self.table.child(parent, name)
                    && !self.table.detach_gone(child.ino(), asked)
                {
                    return Ok(child);
                }
                let dir = self.table.get(parent)?;
                dir.inode().lock().dir()?.names.note_miss(name, Instant::now());
                Err(Error::NotFound)
            }
        }
    }

    pub(super) fn take_in_file(
        self: &Arc<Self>,
        parent: Ino,
        name: &Name,
        (version, attributes): (Version, Option<Arc<Attributes>>),
        asked: Instant,
    ) -> Result<Pin> {
        let default = self.file_default(version.modified);
        let state = || Body::File(FileState::clean(version.clone()));
        let attach =
            || self.table.attach(parent, name, Kind::File, |ino| Inode::new(ino, Kind::File, default, state()));
        let mut pin = attach()?;
        if self.part_from_readers(&pin, (&version, attributes.as_deref()), asked).is_err() {
            pin = attach()?;
        }
        self.note_version(&mut pin.inode().lock(), (version, attributes), asked)?;
        self.note_found(parent, name)?;
        Ok(pin)
    }

    pub(super) fn take_in_dir(
        self: &Arc<Self>,
        parent: Ino,
        name: &Name,
        marker: Option<&ObjectInfo>,
        asked: Instant,
    ) -> Result<Pin> {
        let ownership = self.dir_ownership(marker);
        let make = |ino| Inode::new(ino, Kind::Dir, ownership, Body::Dir(Box::default()));
        let pin = self.table.attach(parent, name, Kind::Dir, make)?;
        {
            let mut data = pin.inode().lock();
            if !data.is_local() && !data.is_changed_since(asked) {
                data.ownership = ownership;
                data.attributes = marker.map(|info| Arc::new(info.attributes.clone()));
                data.belief.checked(Instant::now(), true, self.dir_span());
            }
        }
        self.note_found(parent, name)?;
        Ok(pin)
    }

    fn note_found(&self, parent: Ino, name: &Name) -> Result<()> {
        let dir = self.table.get(parent)?;
        dir.inode().lock().dir()?.names.note_found(name);
        Ok(())
    }

    pub(super) fn dir_ownership(&self, marker: Option<&ObjectInfo>) -> Ownership {
        match marker {
            Some(info) if self.keeps_metadata() => {
                let stored = StoredAttributes::read(&info.attributes.metadata);
                Ownership::from_stored(&stored, self.dir_default(), info.version.modified)
            }
            _ => self.dir_default(),
        }
    }

    /// What S3 says of a file that is clean here. A file changed here is left alone, also if the change is in S3 by now and
    /// S3 was `asked` before.
    pub(super) fn note_version(
        &self,
        data: &mut NodeData,
        (version, attributes): (Version, Option<Arc<Attributes>>),
        asked: Instant,
    ) -> Result<()> {
        let FileState::Clean(clean) = data.file()? else { return Ok(()) };
        if data.is_changed_since(asked) {
            return Ok(());
        }
        let same = clean.version.same_bytes(&version);
        if is_read_as_another(data, &version) {
            // It stays what it is: see `part_from_readers`.
            return Ok(());
        }
        if !same {
            data.lineage += 1;
            data.attributes = None;
            data.xattr_changes = XattrChanges::default();
        }
        let told = self.ownership_of(data.ownership, version.modified, attributes.as_deref());
        // S3's time of a change made here is in whole seconds, and later: no news while nothing else is.
        if !same || data.ownership != (Ownership { ctime: data.ownership.ctime, ..told }) {
            data.ownership = told;
        }
        data.apply(Event::Refresh(version))?;
        if attributes.is_some() {
            data.attributes = attributes;
        }
        data.belief.answered(Instant::now(), asked, same, self.file_span());
        data.as_of = Some(asked);
        Ok(())
    }

    pub(super) fn ownership_of(
        &self,
        known: Ownership,
        modified: SystemTime,
        attributes: Option<&Attributes>,
    ) -> Ownership {
        match attributes {
            Some(attributes) if self.keeps_metadata() => {
                let stored = StoredAttributes::read(&attributes.metadata);
                Ownership::from_stored(&stored, self.file_default(modified), modified)
            }
            Some(_) => self.file_default(modified),
            None if self.keeps_metadata() => known,
            None => self.file_default(modified),
        }
    }

    /// Compares an inode with S3, once no directory above it is being moved.
    ///
    /// # Errors
    /// `Stale` when it is gone there.
    pub(super) async fn revalidate(self: &Arc<Self>, pin: &Pin) -> Result<()> {
        let _passage = match pin.inode().kind() {
            Kind::File => self.pass_to(pin.inode()).await.map_err(|_| Error::Stale)?,
            Kind::Dir => self.table.pass(&[pin.ino()]).await,
        };
        let asked = Instant::now();
        let gone = match pin.inode().kind() {
            Kind::File => {
                let key = self.table.key_of(pin.ino())?;
                match self.head(&key).await {
                    Ok(info) => {
                        self.part_from_readers(pin, (&info.version, Some(&info.attributes)), asked)?;
                        let attributes = Some(Arc::new(info.attributes));
                        self.note_version(&mut pin.inode().lock(), (info.version, attributes), asked)?;
                        false
                    }
                    Err(Error::NotFound) => true,
                    Err(error) => return Err(error),
                }
            }
            Kind::Dir => !self.dir_is_there(pin, asked).await?,
        };
        if gone && self.table.detach_gone(pin.ino(), asked) {
            return Err(Error::Stale);
        }
        Ok(())
    }

    async fn dir_is_there(&self, pin: &Pin, asked: Instant) -> Result<bool> {
        let prefix = self.table.prefix_of(pin.ino())?;
        let request = ListRequest { prefix: prefix.as_str().to_owned(), max_keys: 1, ..ListRequest::default() };
        let page = self.store.list(request).await?;
        let Some(first) = page.objects.first() else { return Ok(false) };
        let marker = if prefix.marker().as_ref() == Some(&first.key) { self.marker(&prefix).await? } else { None };
        let mut data = pin.inode().lock();
        if !data.is_local() && !data.is_changed_since(asked) {
            data.ownership = self.dir_ownership(marker.as_ref());
            data.attributes = marker.map(|info| Arc::new(info.attributes));
        }
        data.belief.checked(Instant::now(), true, self.dir_span());
        Ok(true)
    }

    /// Counts keys that can't be shown.
    pub(super) fn note_hidden(&self, count: u64) {
        self.hidden_keys.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
    }
}
