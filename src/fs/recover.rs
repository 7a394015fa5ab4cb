//! Recovery: whole files that an earlier run had not yet stored become drafts of this mount, and are committed.
//!
//! Owns which leftovers are taken in, and what becomes of one that can't be stored. A leftover that was taken in is an ordinary
//! draft, there before the first operation: every name it could meet goes through the same gates, it can be read here, and
//! it is tried again like any commit that failed. Never published is what was open and not synced, what can't be trusted, and what
//! another writer's object stands in the way of: that is kept, and said.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};

use super::Filesystem;
use super::commit::{RETRY, Scope};
use super::parting::is_open;
use super::resume::EarlierUpload;
use crate::error::{Error, Result};
use crate::inode::{
    Attempt, Body, Draft, Event, FileState, Inode, Kind, Listed, Origin, Ownership, Phase, Pin, Prior, StoredAttributes,
};
use crate::stage::{Doubt, Leftover, Record, StagedFile};
use crate::store::Attributes;
use crate::types::{Expect, Ino, Name, ObjectKey};

/// Files taken in at once, each with an open descriptor. The others follow as these are done.
pub(super) const AT_ONCE: usize = 512;

/// A leftover that stays where it is.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Path below the mountpoint, or what can be said instead.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The data.
    pub file: PathBuf,
    /// Why, as the rest of a sentence.
    pub why: String,
}

/// What is done about the leftovers of earlier runs.
#[derive(Debug, Default)]
pub struct Recovery {
    kept: Vec<Kept>,
    /// Sentences about renames of directories.
    pub(super) unfinished: Vec<String>,
    taken_in: Vec<TakenIn>,
    waiting: Vec<Leftover>,
    /// Not stored, but their multipart uploads are to go.
    uploads: Vec<Leftover>,
}

/// A leftover that is a draft of this mount now.
#[derive(Debug)]
pub(super) struct TakenIn {
    pub(super) leftover: Leftover,
    pub(super) staged: Arc<StagedFile>,
    pub(super) pin: Pin,
    pub(super) path: String,
}

/// How an attempt to store one went.
enum Outcome {
    Stored,
    /// Somebody changed it through this mount: it is theirs.
    TakenOver,
    Conflict,
    Later(Error),
}

impl Recovery {
    /// Nothing is stored: the mount is read-only.
    pub fn nothing_of(leftovers: Vec<Leftover>) -> Self {
        let kept = |left: &Leftover| Kept::new(left, None, "this mount is read-only");
        Recovery { kept: leftovers.iter().map(kept).collect(), ..Recovery::default() }
    }

    /// How many are going to be stored.
    pub fn pending(&self) -> usize {
        self.taken_in.len() + self.waiting.len()
    }

    /// What is not stored.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Renames of directories that could not be finished: a sentence each, without its full stop.
    pub fn unfinished(&self) -> &[String] {
        &self.unfinished
    }
}

impl Kept {
    fn new(left: &Leftover, path: Option<&str>, why: impl Into<String>) -> Self {
        let key = || left.key.as_ref().map(|key| key.as_str().to_owned());
        let name = path.map(str::to_owned).or_else(key).unwrap_or_else(|| "a file without a name".to_owned());
        Kept { name, size: left.size, file: left.file.clone(), why: why.into() }
    }
}

impl Filesystem {
    /// Finishes renames of directories, then takes the whole files among the leftovers in as drafts. Sends requests only for the
    /// former, and is to be called before the mount is served.
    pub async fn take_in_leftovers(self: &Arc<Self>, mut leftovers: Vec<Leftover>) -> Recovery {
        let unfinished = self.finish_renames(&mut leftovers).await;
        let mut recovery = Recovery { unfinished, ..Recovery::default() };
        for leftover in leftovers {
            match leftover.whole() {
                Err(doubt) => {
                    recovery.kept.push(Kept::new(&leftover, None, doubt.to_string()));
                    let has_upload = leftover.record.as_ref().is_ok_and(|record| record.upload_id.is_some());
                    if doubt == Doubt::Open && has_upload && leftover.away().is_empty() {
                        recovery.uploads.push(leftover);
                    }
                }
                Ok(_) if recovery.taken_in.len() >= AT_ONCE => recovery.waiting.push(leftover),
                Ok(_) => match self.take_in_leftover(&leftover).await {
                    Ok(taken) => recovery.taken_in.push(taken),
                    Err(why) => recovery.kept.push(Kept::new(&leftover, None, why)),
                },
            }
        }
        recovery
    }

    /// Commits in the background what was taken in.
    pub fn recover(self: &Arc<Self>, recovery: Recovery) {
        let Recovery { taken_in, waiting, uploads, .. } = recovery;
        if taken_in.is_empty() && uploads.is_empty() {
            return;
        }
        let fs = self.clone();
        let limit = self.settings.transfer.concurrency.max(1);
        self.runtime.spawn(async move {
            let fs = &fs;
            let first = stream::iter(taken_in).map(|taken| Box::pin(fs.store_first(taken)));
            first.buffer_unordered(limit).for_each(|()| async {}).await;
            let rest = stream::iter(waiting).map(|left| async move {
                let taken = match fs.is_superseded(&left).await {
                    true => Err("another version was stored since".to_owned()),
                    false => fs.take_in_leftover(&left).await,
                };
                match taken {
                    Ok(taken) => Box::pin(fs.store_first(taken)).await,
                    Err(why) => tell_kept(&Kept::new(&left, None, why)),
                }
            });
            rest.buffer_unordered(limit).for_each(|()| async {}).await;
            for left in &uploads {
                fs.abort_upload_of(left, None).await;
            }
        });
    }

    /// True when a program, here or elsewhere, has stored something newer under the key of a leftover that nobody has seen yet.
    async fn is_superseded(&self, left: &Leftover) -> bool {
        let Some(key) = &left.key else { return false };
        match self.store.head(key).await {
            Ok(info) => {
                !left.base().is_some_and(|base| base.same_bytes(&info.version)) && info.version.modified > left.recorded
            }
            Err(_) => false,
        }
    }

    /// A draft of a leftover, or why it can't be one.
    async fn take_in_leftover(self: &Arc<Self>, left: &Leftover) -> std::result::Result<TakenIn, String> {
        let record = left.whole().map_err(|doubt| doubt.to_string())?;
        let path = self.names_of(&record.key).ok_or("its key is not one of this mount")?;
        let origin = origin_of(record).ok_or("its record contradicts itself")?;
        let staged = Arc::new(left.open().map_err(|error| error.to_string())?);
        let draft = Draft { staged: staged.clone(), origin, phase: failed_before() };
        let attributes = Attributes::from(&record.attributes);
        let pin = self.attach_draft(&path, draft, attributes, left).await.map_err(|error| match error {
            Error::AlreadyExists | Error::IsDirectory | Error::NotDirectory => {
                "the name is in use in this mount".into()
            }
            other => other.to_string(),
        })?;
        let path = self.table.path_of(pin.ino());
        Ok(TakenIn { leftover: left.clone(), staged, pin, path })
    }

    /// The names on the way to a key, the file's last; `None` for a key outside the mount.
    fn names_of(&self, key: &ObjectKey) -> Option<Vec<Name>> {
        let prefix = self.table.prefix_of(Ino::ROOT).ok()?;
        key.as_str().strip_prefix(prefix.as_str())?.split('/').map(Name::from_key_segment).collect()
    }

    async fn attach_draft(
        self: &Arc<Self>,
        path: &[Name],
        draft: Draft,
        attributes: Attributes,
        left: &Leftover,
    ) -> Result<Pin> {
        let (name, above) = path.split_last().ok_or(Error::InvalidName)?;
        let dir = self.dirs_on_the_way(above)?;
        let _passage = self.table.pass(&[dir.ino()]).await;
        if let Some(child) = self.table.child(dir.ino(), name) {
            if child.inode().kind() == Kind::Dir {
                return Err(Error::IsDirectory);
            }
            self.part_from_clean(&child);
        }
        let default = self.file_default(left.recorded);
        let ownership = match self.keeps_metadata() {
            true => Ownership::from_stored(&StoredAttributes::read(&attributes.metadata), default, left.recorded),
            false => default,
        };
        let first = draft.clone();
        let mut made = false;
        let pin = self.table.attach(dir.ino(), name, Kind::File, |ino| {
            made = true;
            Inode::new(ino, Kind::File, ownership, Body::File(FileState::Dirty(first)))
        })?;
        let mut data = pin.inode().lock();
        if !made {
            let is_clean = matches!(data.file()?, FileState::Clean(_)) && data.committed.is_none();
            if !is_clean || data.parted || is_open(&data) {
                return Err(Error::AlreadyExists);
            }
            data.apply(Event::Change(draft))?;
            // Other bytes than those that the kernel may have kept.
            data.lineage += 1;
            data.ownership = ownership;
        }
        data.attributes = Some(Arc::new(attributes));
        drop(data);
        self.note_name(dir.ino(), name, None);
        Ok(pin)
    }

    /// Directories that are not known yet are believed in: there are keys below them, or will be.
    fn dirs_on_the_way(self: &Arc<Self>, names: &[Name]) -> Result<Pin> {
        let mut dir = self.table.get(Ino::ROOT)?;
        for name in names {
            if self.table.child(dir.ino(), name).is_some_and(|child| child.inode().kind() != Kind::Dir) {
                return Err(Error::NotDirectory);
            }
            let ownership = self.dir_default();
            let make = |ino| Inode::new(ino, Kind::Dir, ownership, Body::Dir(Box::default()));
            dir = self.table.attach(dir.ino(), name, Kind::Dir, make)?;
        }
        Ok(dir)
    }

    /// Stores one, or leaves it to a task of its own that tries again.
    async fn store_first(self: &Arc<Self>, taken: TakenIn) {
        // Before the commit itself begins, which is only when S3 has answered some questions.
        let _under_way = self.stage.under_way();
        if let Err(error) = self.expect_own_work(&taken).await {
            tracing::warn!(path = taken.path, %error, "what an earlier upload may have made can't be told");
        }
        let mut earlier = EarlierUpload::default();
        let error = match self.store_next(&taken, &mut earlier).await {
            Outcome::Later(error) => error,
            outcome => return self.tell_outcome(&taken, &outcome),
        };
        tracing::warn!(path = taken.path, %error, "a file of an earlier run could not be stored yet; it is tried again");
        let fs = self.clone();
        self.runtime.spawn(async move {
            let mut attempt = 1;
            while !fs.stopping.load(Ordering::Relaxed) {
                tokio::time::sleep(RETRY.pause(attempt)).await;
                attempt += 1;
                match fs.store_next(&taken, &mut earlier).await {
                    Outcome::Later(_) => {}
                    outcome => return fs.tell_outcome(&taken, &outcome),
                }
            }
        });
    }

    /// The upload of the earlier run first, so that the commit finds it beside the file.
    async fn store_next(self: &Arc<Self>, taken: &TakenIn, earlier: &mut EarlierUpload) -> Outcome {
        match self.resume_or_abort(taken, earlier).await {
            Ok(()) => self.store_once(taken).await,
            Err(error) => Outcome::Later(error),
        }
    }

    async fn store_once(self: &Arc<Self>, taken: &TakenIn) -> Outcome {
        let inode = taken.pin.inode();
        match self.settle_expectation(taken).await {
            Ok(true) => {}
            Ok(false) if is_clean(inode) => return Outcome::Stored,
            Ok(false) => return Outcome::TakenOver,
            Err(Error::Stale) => return self.give_back(taken).await,
            Err(error) => return Outcome::Later(error),
        }
        match self.commit(inode, Scope::Everything).await {
            Ok(()) => {
                self.note_dirs(inode);
                Outcome::Stored
            }
            Err(Error::Stale | Error::AlreadyExists) => self.give_back(taken).await,
            Err(error) => Outcome::Later(error),
        }
    }

    /// What was to replace anything at all is some time old: an object that was made since is newer, and stays. False when
    /// the file is not the one that was taken in any more.
    async fn settle_expectation(self: &Arc<Self>, taken: &TakenIn) -> Result<bool> {
        let inode = taken.pin.inode();
        match untouched(inode, &taken.staged) {
            None => return Ok(false),
            Some(draft) if draft.origin.expect() != Expect::Any => return Ok(true),
            Some(_) => {}
        }
        let (_passage, owned) = self.own_in_place(inode).await?;
        let draft = match owned.prior()? {
            Prior::Dirty(draft) if is_same(draft, &taken.staged) => draft.clone(),
            _ => return Ok(false),
        };
        let key = self.table.key_of(inode.ino())?;
        let origin = match self.store.head(&key).await {
            Err(Error::NotFound) => Origin::Created { exclusive: false },
            Ok(info) => {
                let seen = draft.origin.object().is_some_and(|base| base.same_bytes(&info.version));
                let older = info.version.modified <= taken.leftover.recorded;
                if !seen && !older && self.made_before(inode, &draft, &key).await?.is_none() {
                    return Err(Error::Stale);
                }
                Origin::Changed(info.version)
            }
            Err(error) => return Err(error),
        };
        owned.reopen(origin).map(|()| true)
    }

    /// An upload of the earlier run may have been done without its answer: what it would have made is remembered.
    async fn expect_own_work(&self, taken: &TakenIn) -> Result<()> {
        let sums = self.transfer.sums(&taken.staged).await?;
        let Ok(record) = taken.leftover.whole() else { return Ok(()) };
        let attributes = Attributes::from(&record.attributes);
        let attempt = Attempt {
            size: record.size,
            sums,
            attributes,
            began: taken.leftover.recorded,
            refuted: AtomicBool::new(false),
        };
        taken.pin.inode().lock().attempts.push(Arc::new(attempt));
        Ok(())
    }

    /// Another writer's object stands there: the name is theirs, and the leftover stays in the stage.
    async fn give_back(self: &Arc<Self>, taken: &TakenIn) -> Outcome {
        match self.try_give_back(taken).await {
            Ok(true) => Outcome::Conflict,
            Ok(false) => Outcome::TakenOver,
            Err(error) => Outcome::Later(error),
        }
    }

    async fn try_give_back(self: &Arc<Self>, taken: &TakenIn) -> Result<bool> {
        let inode = taken.pin.inode();
        let (_passage, owned) = self.own_in_place(inode).await?;
        let key = self.table.key_of(inode.ino())?;
        let there = match self.store.head(&key).await {
            Ok(info) => Some(info.version),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        // One who came just before may have changed it since it was taken.
        owned.writers_gone().await;
        let in_use = inode.lock().opens.writing > 0;
        if in_use || untouched(inode, &taken.staged).is_none() {
            return Ok(false);
        }
        self.transfer.leave(&taken.staged);
        taken.staged.keep();
        self.give_name_away(owned, there, Ok(()))?;
        Ok(true)
    }

    /// Directories that are there only since the file is: listings from before don't show them.
    fn note_dirs(&self, inode: &Arc<Inode>) {
        let mut next = self.table.place(inode.ino()).and_then(|place| self.table.place(place.parent));
        while let Some(place) = next {
            self.note_name(place.parent, &place.name, Some(Listed { kind: Kind::Dir, version: None }));
            next = self.table.place(place.parent);
        }
    }

    fn tell_outcome(&self, taken: &TakenIn, outcome: &Outcome) {
        let path = &taken.path;
        match outcome {
            Outcome::Stored => tracing::info!("{path}, left by an earlier run, is stored now"),
            Outcome::TakenOver => {
                tracing::info!("{path}, left by an earlier run, was changed here and goes on from there")
            }
            Outcome::Conflict => {
                let why = "another writer changed the object since";
                tell_kept(&Kept::new(&taken.leftover, Some(path), why));
            }
            Outcome::Later(_) => {}
        }
    }
}

fn tell_kept(Kept { name, size, file, why }: &Kept) {
    let file = file.display();
    tracing::warn!(size, "kept from an earlier run, not stored: {name}: {why} ({file}); see 'pailfs recover'");
}

fn origin_of(record: &Record) -> Option<Origin> {
    match (&record.expect, &record.base) {
        (Expect::Absent, _) => Some(Origin::Created { exclusive: false }),
        (Expect::Any, base) => Some(Origin::Replaced(base.clone())),
        (Expect::Is(etag), Some(base)) if base.etag == *etag => Some(Origin::Changed(base.clone())),
        (Expect::Is(_), _) => None,
    }
}

/// Its commit has failed once: a program that writes to it reopens its record.
fn failed_before() -> Phase {
    Phase::Failed { error: Error::Timeout("the run that wrote it ended before".into()), attempts: 0 }
}

/// True while nobody has written to what was taken in.
pub(super) fn is_same(draft: &Draft, staged: &Arc<StagedFile>) -> bool {
    matches!(draft.phase, Phase::Failed { .. }) && Arc::ptr_eq(&draft.staged, staged)
}

fn untouched(inode: &Arc<Inode>, staged: &Arc<StagedFile>) -> Option<Draft> {
    match inode.lock().file() {
        Ok(FileState::Dirty(draft) | FileState::Uploading(draft, _)) if is_same(draft, staged) => Some(draft.clone()),
        _ => None,
    }
}

fn is_clean(inode: &Arc<Inode>) -> bool {
    matches!(inode.lock().file(), Ok(FileState::Clean(_)))
}
