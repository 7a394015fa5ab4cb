//! The listings that are kept of all directories, together.
//!
//! Owns their bound: a directory whose inode the kernel remembers for a long time would else keep a listing that nobody asks
//! for any more. What a listing says is `listing`'s.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use lru::LruCache;

use super::listing::Listed;
use super::node::Inode;
use super::table::InodeTable;
use crate::error::Result;
use crate::types::{Ino, Name};

/// Names of all listings that are kept: at about 200 bytes a name 100 MB.
const NAMES_MAX: usize = 500_000;

/// What a listing takes beside its names, in names: without it, empty ones would take nothing.
const OVERHEAD: usize = 4;

/// One listing that is kept, or was.
#[derive(Debug)]
struct Kept {
    dir: Weak<Inode>,
    began: Instant,
    names: usize,
}

/// Which directories have one, the oldest first.
#[derive(Debug)]
pub(super) struct Listings(Mutex<Order>);

#[derive(Debug)]
struct Order {
    kept: LruCache<Ino, Kept>,
    names: usize,
}

impl Default for Listings {
    fn default() -> Self {
        Listings(Mutex::new(Order { kept: LruCache::unbounded(), names: 0 }))
    }
}

impl Listings {
    /// Notes a listing, and gives those that have to go for it.
    fn note(&self, dir: &Arc<Inode>, began: Instant, names: usize) -> Vec<Kept> {
        let mut order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names + OVERHEAD;
        order.names += names;
        if let Some(before) = order.kept.put(dir.ino(), Kept { dir: Arc::downgrade(dir), began, names }) {
            order.names -= before.names;
        }
        let mut go = Vec::new();
        while order.names > NAMES_MAX
            && let Some((_, oldest)) = order.kept.pop_lru()
        {
            order.names -= oldest.names;
            go.push(oldest);
        }
        go
    }
}

impl InodeTable {
    /// Forgets which directories have listings, for who has each of them forget its own next: one that is kept meanwhile is known of.
    pub fn forget_order_of_listings(&self) {
        let mut order = self.listings.0.lock().unwrap_or_else(PoisonError::into_inner);
        order.kept.clear();
        order.names = 0;
    }

    /// Keeps a whole listing of a directory that began then (see [`super::DirNames::keep_listing`]); the oldest ones of others go
    /// for it, when there are too many names in all.
    ///
    /// # Errors
    /// `NotDirectory`
    pub fn keep_listing(&self, dir: &Arc<Inode>, entries: BTreeMap<Name, Listed>, began: Instant) -> Result<()> {
        let names = {
            let mut data = dir.lock();
            let known = &mut data.dir()?.names;
            if !known.keep_listing(entries, began) {
                return Ok(());
            }
            known.listed_names()
        };
        for kept in self.listings.note(dir, began, names) {
            let Some(inode) = kept.dir.upgrade() else { continue };
            let mut data = inode.lock();
            if let Ok(body) = data.dir()
                && body.names.listed_at() == Some(kept.began)
            {
                body.names.forget_listing();
            }
        }
        Ok(())
    }
}
