//! Small files asked for with their bytes while they are looked up: the open that follows finds them here.
//!
//! Owns when a lookup asks so, instead of with HEAD: `habit` says it of the directory, and the last listing knows of the file that
//! it is small and not archived. An answer that does not come is none: HEAD is asked then, and has the last word.

use std::sync::Arc;
use std::time::Instant;

use super::siblings::Sibling;
use super::{Ahead, Cause, Guess, lock};
use crate::error::{Error, Result};
use crate::fs::Filesystem;
use crate::fs::lookup::Purpose;
use crate::inode::{FileState, Kind, Pin};
use crate::store::ObjectInfo;
use crate::types::{Ino, Name, ObjectKey};

impl Ahead {
    /// Bytes to ask for, for a file that is looked up in `dir`: what the last listing said, if it is no older than `since`, or
    /// what its siblings have. `None` for one that is large, or archived, or new.
    fn likely_size(&self, (dir, ino): (Ino, Ino), since: Option<Instant>) -> Option<u64> {
        let mut state = lock(&self.state);
        let listing = state.dirs.iter_mut().find(|known| known.dir == dir);
        let size = match listing.filter(|known| since.is_none_or(|since| known.listed_at >= since)) {
            Some(listing) => listing.size_of(ino)?,
            None => state.habits.of(dir).likely_size()?,
        };
        (size > 0).then_some(size)
    }

    /// Takes back a guess that no open is to find.
    fn give_up(&self, ino: Ino) {
        let mut state = lock(&self.state);
        if state.guesses.get(&ino).is_some_and(|guess| guess.cause != Cause::Order) {
            let gone = state.guesses.remove(&ino);
            drop(state);
            drop(gone);
        }
    }
}

impl Filesystem {
    /// A file at a name that a listing shows, asked for with its bytes. `None` when that was not done, or did not help.
    pub(in crate::fs) async fn found_with_bytes(
        self: &Arc<Self>,
        parent: Ino,
        name: &Name,
        purpose: Purpose,
    ) -> Option<Pin> {
        let ino = self.table.number_of(parent, name);
        self.fetch_looked_up((parent, ino), name, (Cause::Listed, purpose))?;
        let found = self.found_ahead(parent, name).await;
        if found.is_none() {
            self.fetched_nothing(parent, ino);
        }
        found
    }

    /// What HEAD says of `key`, the key of `name` in `parent`, perhaps together with its bytes.
    ///
    /// # Errors
    /// As HEAD's.
    pub(in crate::fs) async fn head_with_bytes(
        self: &Arc<Self>,
        (parent, name): (Ino, &Name),
        key: &ObjectKey,
        purpose: Purpose,
    ) -> Result<ObjectInfo> {
        let ino = self.table.number_of(parent, name);
        let Some(guess) = self.fetch_looked_up((parent, ino), name, (Cause::Unlisted, purpose)) else {
            return self.head(key).await;
        };
        match guess.answered().await {
            Some(Ok(brought)) => {
                let (version, attributes) = (brought.version.clone(), brought.attributes.as_ref().clone());
                Ok(ObjectInfo { version, attributes, crc64nvme: None, version_id: None, otherwise_encrypted: false })
            }
            Some(Err(Error::NotFound)) => Err(Error::NotFound),
            _ => {
                self.fetched_nothing(parent, ino);
                self.head(key).await
            }
        }
    }

    fn fetch_looked_up(
        self: &Arc<Self>,
        (dir, ino): (Ino, Ino),
        name: &Name,
        (cause, purpose): (Cause, Purpose),
    ) -> Option<Arc<Guess>> {
        if purpose != Purpose::Lookup || !self.may_guess() {
            return None;
        }
        let now = Instant::now();
        let size = self.ahead.likely_size((dir, ino), now.checked_sub(self.settings.freshness.dir_max))?;
        if !lock(&self.ahead.state).habits.of(dir).fetches(ino, now, self.guess_life()) {
            return None;
        }
        self.guess(dir, &Sibling { ino, name: name.clone(), size: Some(size) }, cause)
    }

    fn fetched_nothing(&self, dir: Ino, ino: Ino) {
        self.ahead.give_up(ino);
        lock(&self.ahead.state).habits.of(dir).failed(ino);
    }

    /// A file of `dir` was looked up, which took a request.
    pub(in crate::fs) fn note_looked_up(&self, dir: Ino, pin: &Pin, purpose: Purpose) {
        let is_clean = pin.inode().kind() == Kind::File && matches!(pin.inode().lock().file(), Ok(FileState::Clean(_)));
        if is_clean && purpose == Purpose::Lookup && self.may_guess() {
            lock(&self.ahead.state).habits.of(dir).looked_up(pin.ino(), Instant::now(), self.guess_life());
        }
    }

    /// A file of `dir` is opened for reading, and has `size` bytes; for anything else there is no size.
    pub(super) fn note_opened(&self, (dir, ino): (Ino, Ino), size: Option<u64>) {
        if self.may_guess() {
            lock(&self.ahead.state).habits.of(dir).opened(ino, size, Instant::now(), self.guess_life());
        }
    }

    /// A file is opened to be changed: what was fetched of it is of no use.
    pub(in crate::fs) fn opened_for_change(&self, pin: &Pin) {
        if let Some(place) = self.table.place(pin.ino()) {
            self.ahead.give_up(pin.ino());
            self.note_opened((place.parent, pin.ino()), None);
        }
    }
}
