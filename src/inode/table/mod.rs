//! The inode table: numbers, names, places, lookup counts and pins, behind one short lock.
//!
//! Owns which inode stands at which name and how long it is remembered. Knows nothing of requests or of bytes. The order
//! of locks is table, then inodes by ascending number; nothing here waits or does I/O.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::attr::{Kind, Ownership};
use super::gate::{Closed, Gate};
use super::listing::Changes;
use super::listings::Listings;
use super::node::{Body, DirBody, Inode, NodeData};
use super::owned::Owned;
use super::state::{Event, FileState};
use crate::error::{Error, Result};
use crate::types::{DirPrefix, Ino, Name, ObjectKey};

/// Room that a map keeps in any case.
const MAP_MIN: usize = 1024;

/// Where an inode stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub parent: Ino,
    /// The name in it.
    pub name: Name,
}

#[derive(Debug)]
struct Entry {
    inode: Arc<Inode>,
    place: Option<Place>,
    lookups: u64,
    pins: u64,
    children: HashMap<Name, Ino>,
}

#[derive(Debug, Default)]
pub(super) struct Rows {
    entries: HashMap<Ino, Entry>,
    pub(super) gate: Gate,
}

/// The table of one mount.
#[derive(Debug)]
pub struct InodeTable {
    prefix: DirPrefix,
    rows: Mutex<Rows>,
    pub(super) gate_changed: tokio::sync::watch::Sender<u64>,
    pub(super) listings: Listings,
    changes: Changes,
}

/// Keeps an inode in the table while it is held: an open handle, or work under way.
#[derive(Debug)]
pub struct Pin {
    table: Arc<InodeTable>,
    inode: Arc<Inode>,
}

impl Pin {
    /// The inode.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// Its number.
    pub fn ino(&self) -> Ino {
        self.inode.ino()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.table.unpin(self.inode.ino());
    }
}

impl InodeTable {
    /// A table with nothing but the root, whose keys begin with `prefix`.
    pub fn new(prefix: DirPrefix, root: Ownership) -> Arc<Self> {
        let changes = Changes::default();
        let mut body = DirBody { held: true, ..DirBody::default() };
        body.names.count_among(&changes);
        let inode = Arc::new(Inode::new(Ino::ROOT, Kind::Dir, root, Body::Dir(Box::new(body))));
        let mut rows = Rows::default();
        let entry = Entry { inode, place: None, lookups: 1, pins: 1, children: HashMap::new() };
        rows.entries.insert(Ino::ROOT, entry);
        let gate_changed = tokio::sync::watch::Sender::new(0);
        Arc::new(InodeTable { prefix, rows: Mutex::new(rows), gate_changed, listings: Listings::default(), changes })
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The changes of names that were made here, in whatever directory.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The inode with this number.
    ///
    /// # Errors
    /// `Stale` when it is not known (any more).
    pub fn get(self: &Arc<Self>, ino: Ino) -> Result<Pin> {
        self.rows().pinned(self, ino).ok_or(Error::Stale)
    }

    /// The inode at `name` in `parent`, if it is known.
    pub fn child(self: &Arc<Self>, parent: Ino, name: &Name) -> Option<Pin> {
        let mut rows = self.rows();
        let ino = *rows.entries.get(&parent)?.children.get(name)?;
        rows.pinned(self, ino)
    }

    /// As [`InodeTable::get`], without keeping it in the table: for a look at what is pinned otherwise.
    ///
    /// # Errors
    /// `Stale` when it is not known (any more).
    pub fn get_plain(&self, ino: Ino) -> Result<Arc<Inode>> {
        self.rows().entries.get(&ino).map(|entry| entry.inode.clone()).ok_or(Error::Stale)
    }

    /// True when `ino` is `top` or stands somewhere below it.
    pub fn is_at_or_below(&self, ino: Ino, top: Ino) -> bool {
        self.rows().is_at_or_below(ino, top)
    }

    /// All inodes known in `parent`, with their names.
    pub fn children(&self, parent: Ino) -> Vec<(Name, Arc<Inode>)> {
        let rows = self.rows();
        let Some(entry) = rows.entries.get(&parent) else { return Vec::new() };
        let child = |(name, ino): (&Name, &Ino)| rows.entries.get(ino).map(|entry| (name.clone(), entry.inode.clone()));
        entry.children.iter().filter_map(child).collect()
    }

    /// All inodes.
    pub fn all(&self) -> Vec<Arc<Inode>> {
        self.rows().entries.values().map(|entry| entry.inode.clone()).collect()
    }

    /// All inodes below `top`, without itself.
    pub fn below(&self, top: Ino) -> Vec<Arc<Inode>> {
        let rows = self.rows();
        let mut found = Vec::new();
        let mut open = vec![top];
        while let Some(ino) = open.pop() {
            let Some(entry) = rows.entries.get(&ino) else { continue };
            for child in entry.children.values() {
                found.extend(rows.entries.get(child).map(|entry| entry.inode.clone()));
                open.push(*child);
            }
        }
        found
    }

    /// Where the inode stands; `None` for the root and for what has no name any more.
    pub fn place(&self, ino: Ino) -> Option<Place> {
        self.rows().entries.get(&ino)?.place.clone()
    }

    /// Prefix of the keys in this directory.
    ///
    /// # Errors
    /// `Stale` when the directory has no name any more, `NameTooLong`.
    pub fn prefix_of(&self, dir: Ino) -> Result<DirPrefix> {
        self.rows().prefix_of(dir, &self.prefix)
    }

    /// Key of this file's object.
    ///
    /// # Errors
    /// `Stale` when the file has no name any more, `NameTooLong`.
    pub fn key_of(&self, file: Ino) -> Result<ObjectKey> {
        let rows = self.rows();
        let place = rows.entries.get(&file).and_then(|entry| entry.place.as_ref()).ok_or(Error::Stale)?;
        rows.prefix_of(place.parent, &self.prefix)?.file(&place.name)
    }

    /// Path below the mountpoint, for people. Empty for the root.
    pub fn path_of(&self, ino: Ino) -> String {
        let rows = self.rows();
        let mut names = Vec::new();
        let mut next = rows.entries.get(&ino);
        while let Some(place) = next.and_then(|entry| entry.place.as_ref()) {
            names.push(place.name.as_str().to_owned());
            next = rows.entries.get(&place.parent);
        }
        names.reverse();
        names.join("/")
    }

    /// The inode at `name`: the one that is there if it is of this kind, else a new one from `make`.
    ///
    /// # Errors
    /// `Stale` when the directory is gone.
    pub fn attach(
        self: &Arc<Self>,
        parent: Ino,
        name: &Name,
        kind: Kind,
        make: impl FnOnce(Ino) -> Inode,
    ) -> Result<Pin> {
        let mut rows = self.rows();
        let known = rows.entries.get(&parent).ok_or(Error::Stale)?.children.get(name).copied();
        if let Some(ino) = known {
            match rows.entries.get(&ino) {
                Some(entry) if entry.inode.kind() == kind => return rows.pinned(self, ino).ok_or(Error::Stale),
                _ => {
                    let _ = rows.take_name(ino);
                }
            }
        }
        let ino = rows.number_for(parent, name);
        let place = Some(Place { parent, name: name.clone() });
        let inode = Arc::new(make(ino));
        if let Ok(body) = inode.lock().dir() {
            body.names.count_among(&self.changes);
        }
        let entry = Entry { inode, place, lookups: 0, pins: 0, children: HashMap::new() };
        rows.entries.insert(ino, entry);
        if let Some(entry) = rows.entries.get_mut(&parent) {
            entry.children.insert(name.clone(), ino);
        }
        rows.pinned(self, ino).ok_or(Error::Stale)
    }

    /// The number that a name has, or would have if it were looked up: the same after a remount.
    pub fn number_of(&self, parent: Ino, name: &Name) -> Ino {
        let rows = self.rows();
        let known = rows.entries.get(&parent).and_then(|entry| entry.children.get(name)).copied();
        known.unwrap_or_else(|| rows.number_for(parent, name))
    }

    /// Takes the name away from an inode. The inode stays while the kernel or a handle knows it.
    pub fn detach(&self, ino: Ino) {
        let mut rows = self.rows();
        let left = rows.take_name(ino);
        rows.forget_if_unused(ino);
        if let Some(left) = left {
            rows.forget_if_unused(left);
        }
    }

    /// As [`InodeTable::detach`], of what was `asked` for and is not in S3. False for what stays: it, or something below it, is
    /// only here, or it was changed here since.
    pub fn detach_gone(&self, ino: Ino, asked: Instant) -> bool {
        let mut rows = self.rows();
        if rows.any_at_or_below(ino, |data| data.is_local() || data.is_changed_since(asked)) {
            return false;
        }
        let left = rows.take_name(ino);
        rows.forget_if_unused(ino);
        if let Some(left) = left {
            rows.forget_if_unused(left);
        }
        true
    }

    /// Moves a file to another name, taking the place of what is there. It is owned meanwhile: a commit that waits for it
    /// would else store it under the old name.
    ///
    /// # Errors
    /// `Stale` when it or the directory is gone.
    pub fn rename_file(&self, file: &Owned, parent: Ino, name: &Name) -> Result<()> {
        self.rename(file.inode().ino(), parent, name)
    }

    /// As [`InodeTable::rename_file`], of a directory that nobody changes anything in meanwhile.
    ///
    /// # Errors
    /// `Stale` when it or the directory is gone.
    pub fn rename_dir(&self, dir: &Closed, parent: Ino, name: &Name) -> Result<()> {
        self.rename(dir.top(), parent, name)
    }

    fn rename(&self, ino: Ino, parent: Ino, name: &Name) -> Result<()> {
        let mut rows = self.rows();
        if !rows.entries.contains_key(&parent) || !rows.entries.contains_key(&ino) {
            return Err(Error::Stale);
        }
        let there = rows.entries.get(&parent).and_then(|entry| entry.children.get(name)).copied();
        if let Some(there) = there.filter(|there| *there != ino) {
            let _ = rows.take_name(there);
            rows.forget_if_unused(there);
        }
        let left = rows.take_name(ino);
        if let Some(entry) = rows.entries.get_mut(&ino) {
            entry.place = Some(Place { parent, name: name.clone() });
        }
        if let Some(entry) = rows.entries.get_mut(&parent) {
            entry.children.insert(name.clone(), ino);
        }
        if let Some(left) = left {
            rows.forget_if_unused(left);
        }
        Ok(())
    }

    /// The kernel was told of this inode once more.
    pub fn count_lookup(&self, ino: Ino) {
        if let Some(entry) = self.rows().entries.get_mut(&ino) {
            entry.lookups += 1;
        }
    }

    /// The kernel forgot `count` of the times it was told.
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut rows = self.rows();
        if let Some(entry) = rows.entries.get_mut(&ino) {
            entry.lookups = entry.lookups.saturating_sub(count);
        }
        rows.forget_if_unused(ino);
    }

    fn unpin(&self, ino: Ino) {
        let mut rows = self.rows();
        if let Some(entry) = rows.entries.get_mut(&ino) {
            entry.pins = entry.pins.saturating_sub(1);
        }
        rows.forget_if_unused(ino);
    }

    /// Lets go of an inode that nothing needs: after its bytes were committed, for example.
    pub fn forget_if_unused(&self, ino: Ino) {
        self.rows().forget_if_unused(ino);
    }

    /// Number of inodes, the root included.
    pub fn len(&self) -> usize {
        self.rows().entries.len()
    }

    /// Never true: the root is always there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Rows {
    fn prefix_of(&self, dir: Ino, root: &DirPrefix) -> Result<DirPrefix> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != Ino::ROOT {
            let place = self.entries.get(&at).and_then(|entry| entry.place.as_ref()).ok_or(Error::Stale)?;
            names.push(&place.name);
            at = place.parent;
        }
        names.iter().rev().try_fold(root.clone(), |prefix, name| prefix.dir(name))
    }

    /// A hash of the place, so that numbers are the same after a remount; the next free one if it is taken by an inode
    /// that was renamed away or unlinked while it was open.
    fn number_for(&self, parent: Ino, name: &Name) -> Ino {
        let mut hasher = std::hash::DefaultHasher::new();
        (parent.get(), name.as_str()).hash(&mut hasher);
        let mut number = hasher.finish() >> 1;
        while number <= Ino::ROOT.get() || self.entries.contains_key(&Ino::new(number)) {
            number = number.wrapping_add(1) & (u64::MAX >> 1);
        }
        Ino::new(number)
    }

    fn pinned(&mut self, table: &Arc<InodeTable>, ino: Ino) -> Option<Pin> {
        let entry = self.entries.get_mut(&ino)?;
        entry.pins += 1;
        Some(Pin { table: table.clone(), inode: entry.inode.clone() })
    }

    /// Takes the name away, and returns the directory it was in, which may be unused now.
    fn take_name(&mut self, ino: Ino) -> Option<Ino> {
        let place = self.entries.get_mut(&ino)?.place.take()?;
        if let Some(parent) = self.entries.get_mut(&place.parent)
            && parent.children.get(&place.name) == Some(&ino)
        {
            parent.children.remove(&place.name);
            give_back(&mut parent.children);
        }
        Some(place.parent)
    }

    fn forget_if_unused(&mut self, ino: Ino) {
        let Some(entry) = self.entries.get(&ino) else { return };
        if ino == Ino::ROOT || entry.lookups > 0 || entry.pins > 0 || !entry.children.is_empty() {
            return;
        }
        let named = entry.place.is_some();
        let mut data = entry.inode.lock();
        let keep = match &mut data.body {
            Body::File(FileState::Unlinked(_)) => false,
            Body::File(state) => named && state.is_local(),
            Body::Dir(dir) => named && dir.held,
        };
        if keep {
            return;
        }
        if let Body::File(state @ FileState::Unlinked(_)) = &mut data.body {
            // Allowed by the state machine; the error would name a bug, and the inode goes anyway.
            let _ = state.apply(Event::LastPin);
        }
        drop(data);
        let left = self.take_name(ino);
        self.entries.remove(&ino);
        give_back(&mut self.entries);
        if let Some(left) = left {
            self.forget_if_unused(left);
        }
    }

    fn any_at_or_below(&self, top: Ino, is_so: impl Fn(&NodeData) -> bool) -> bool {
        let mut open = vec![top];
        while let Some(entry) = open.pop().and_then(|ino| self.entries.get(&ino)) {
            if is_so(&entry.inode.lock()) {
                return true;
            }
            open.extend(entry.children.values());
        }
        false
    }

    pub(super) fn is_at_or_below(&self, ino: Ino, top: Ino) -> bool {
        let mut at = ino;
        loop {
            if at == top {
                return true;
            }
            match self.entries.get(&at).and_then(|entry| entry.place.as_ref()) {
                Some(place) => at = place.parent,
                None => return false,
            }
        }
    }
}

/// A map that was large once does not stay so: it keeps room for twice what it has.
fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > MAP_MIN && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests;
