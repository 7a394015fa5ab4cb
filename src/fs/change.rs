//! The beginning of every change of a file: a draft on the local disk, and a ticket to write to it.
//!
//! Owns what a draft is based on and the journal record of an open one. What becomes of the draft is `commit`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Filesystem;
use super::commit::Scope;
use crate::error::{Error, Result};
use crate::inode::{
    Clean, Draft, Event, FileState, Inode, Located, NodeData, Origin, Phase, Pin, Settled, WriteTicket, WriteTurn,
};
use crate::stage::{Record, RecordState, StagedFile};
use crate::types::{ByteRange, Expect, ObjectKey};

impl Filesystem {
    /// A ticket to change the bytes of a file. The file is a draft from now on, and its times are now.
    pub(super) async fn write_ticket(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<WriteTicket> {
        loop {
            match inode.write_turn()? {
                WriteTurn::Ready(ticket) if self.transfer.is_composed(ticket.staged()) => {
                    let staged = ticket.staged().clone();
                    // Who stores the file waits for its writers.
                    drop(ticket);
                    self.end_composition(inode, &staged).await?;
                }
                WriteTurn::Ready(ticket) if is_in_doubt(inode, ticket.staged()) => {
                    drop(ticket);
                    self.end_doubt(inode).await?;
                }
                WriteTurn::Ready(ticket) => {
                    self.note_written(inode)?;
                    return Ok(ticket);
                }
                WriteTurn::Begin(clean) => self.begin_change(inode, clean)?,
                WriteTurn::Preserve(object) => self.preserve_unlinked(inode, &object).await?,
                // How it ended shows in the state, which is asked again.
                WriteTurn::Wait(settled) => drop(settled.wait().await),
            }
        }
    }

    /// A ticket for a file that is a draft already and that nobody owns; else `None`.
    pub(super) fn ready_ticket(&self, inode: &Arc<Inode>) -> Option<WriteTicket> {
        match inode.write_turn() {
            Ok(WriteTurn::Ready(ticket))
                if self.transfer.is_composed(ticket.staged()) || is_in_doubt(inode, ticket.staged()) =>
            {
                None
            }
            Ok(WriteTurn::Ready(ticket)) => self.note_written(inode).ok().map(|()| ticket),
            _ => None,
        }
    }

    /// Stores a file that S3 has made an object of although it did not say so; one of which S3 has none may be written on.
    async fn end_doubt(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let (draft, attempts) = {
            let data = inode.lock();
            match data.file()? {
                FileState::Dirty(draft) => (draft.clone(), data.attempts.clone()),
                _ => return Ok(()),
            }
        };
        let key = self.table.key_of(inode.ino())?;
        if self.made_before(inode, &draft, &key).await?.is_some() {
            return self.commit(inode, Scope::Everything).await;
        }
        attempts.iter().for_each(|attempt| attempt.refuted.store(true, Ordering::SeqCst));
        Ok(())
    }

    /// Clean → dirty: the local copy if there is one, else a sparse file over the object.
    fn begin_change(&self, inode: &Arc<Inode>, clean: Clean) -> Result<()> {
        let was_local = clean.local.is_some();
        let staged = match clean.local {
            Some(local) => local,
            None => Arc::new(self.stage.over(clean.version.size)?),
        };
        let key = self.table.key_of(inode.ino())?;
        self.note_open(&staged, &key, Some(&clean.version), &Expect::Is(clean.version.etag.clone()))?;
        let mut data = inode.lock();
        if data.parted {
            return Err(Error::Stale);
        }
        match data.file()? {
            // Still what it was when it was looked at, so that the draft is based on what is there, and no local copy that was let
            // go of meanwhile is used again.
            FileState::Clean(now) if now.version.same_bytes(&clean.version) && now.local.is_some() == was_local => {
                let origin = Origin::Changed(now.version.clone());
                data.apply(Event::Change(Draft { staged, origin, phase: Phase::Changed }))
            }
            _ => Ok(()),
        }
    }

    /// A truncating open: an empty draft that replaces whatever is there.
    pub(super) async fn begin_replace(self: &Arc<Self>, pin: &Pin) -> Result<()> {
        let inode = pin.inode();
        loop {
            match replace_turn(inode)? {
                ReplaceTurn::Draft => {
                    let ticket = self.write_ticket(inode).await?;
                    ticket.staged().set_size(0)?;
                    if replace_draft(inode)? {
                        return self.note_draft(inode);
                    }
                }
                ReplaceTurn::Wait(settled) => drop(settled.wait().await),
                ReplaceTurn::Begin => {
                    let key = self.table.key_of(inode.ino())?;
                    let staged = self.or_let_go(|| self.new_draft(&key, &Expect::Any))?;
                    if replace_clean(inode, staged)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// An empty draft of what is to be a new object.
    pub(super) fn new_draft(&self, key: &ObjectKey, expect: &Expect) -> Result<Arc<StagedFile>> {
        let staged = Arc::new(self.stage.new_file()?);
        self.note_open(&staged, key, None, expect)?;
        Ok(staged)
    }

    /// The caller holds a ticket, so that no commit seals the file meanwhile.
    fn note_written(&self, inode: &Arc<Inode>) -> Result<()> {
        if was_sealed(inode)? {
            // Its commit failed, and its record says that it is whole: from here on it is not, until the next one.
            self.note_draft(inode)?;
        }
        let mut data = inode.lock();
        if let FileState::Dirty(draft) | FileState::Uploading(draft, _) = data.file()?
            && !matches!(draft.phase, Phase::Changed)
        {
            data.apply(Event::Written)?;
        }
        self.touch_file(&mut data);
        Ok(())
    }

    /// Bytes of a file were changed now.
    pub(super) fn touch_file(&self, data: &mut NodeData) {
        touch(&mut data.ownership);
        data.mtime_given = false;
        data.ownership.mode = self.mode_after_change(&data.ownership);
    }

    /// As [`Filesystem::note_open`], of what the file is now.
    fn note_draft(&self, inode: &Arc<Inode>) -> Result<()> {
        let Ok(key) = self.table.key_of(inode.ino()) else { return Ok(()) };
        let draft = match inode.lock().file()? {
            FileState::Dirty(draft) | FileState::Uploading(draft, _) => draft.clone(),
            _ => return Ok(()),
        };
        self.note_open(&draft.staged, &key, draft.origin.object(), &draft.origin.expect())
    }

    pub(super) async fn hydrate_all(&self, object: &Located, staged: &Arc<StagedFile>) -> Result<()> {
        let whole = ByteRange::new(0, object.version.size);
        self.bring((&object.key, &object.version), staged, whole).await
    }

    /// The journal record of a draft that a program is writing: half a file, perhaps.
    pub(super) fn note_open(
        &self,
        staged: &StagedFile,
        key: &ObjectKey,
        base: Option<&crate::types::Version>,
        expect: &Expect,
    ) -> Result<()> {
        staged.record(&Record {
            key: key.clone(),
            base: base.cloned(),
            expect: expect.clone(),
            state: RecordState::Open,
            size: staged.size(),
            attributes: crate::stage::RecordAttributes::default(),
            upload_id: None,
            upload_mark: None,
            away: Vec::new(),
        })
    }

    pub(super) fn refuse_read_only(&self) -> Result<()> {
        if self.settings.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

/// A commit got no answer, and parts of the file are in its upload only: if S3 has made the object, that upload is no more, and
/// what is written now could not go up with them.
fn is_in_doubt(inode: &Arc<Inode>, staged: &StagedFile) -> bool {
    let unknown = inode.lock().attempts.iter().any(|attempt| !attempt.refuted.load(Ordering::SeqCst));
    unknown && staged.has_away()
}

fn was_sealed(inode: &Arc<Inode>) -> Result<bool> {
    let data = inode.lock();
    Ok(match data.file()? {
        FileState::Dirty(draft) | FileState::Uploading(draft, _) => matches!(draft.phase, Phase::Failed { .. }),
        _ => false,
    })
}

/// What a truncating open finds.
enum ReplaceTurn {
    Draft,
    Begin,
    Wait(Settled),
}

fn replace_turn(inode: &Arc<Inode>) -> Result<ReplaceTurn> {
    let data = inode.lock();
    let state = data.file()?;
    Ok(match (state, state.owner()) {
        (FileState::Clean(_), _) => ReplaceTurn::Begin,
        (_, Some(settled)) => ReplaceTurn::Wait(settled.clone()),
        (_, None) => ReplaceTurn::Draft,
    })
}

/// False when a commit has begun meanwhile, with the base that the draft had: the file is to be replaced after that.
pub(super) fn replace_draft(inode: &Arc<Inode>) -> Result<bool> {
    let mut data = inode.lock();
    match data.file()? {
        FileState::Dirty(_) => data.apply(Event::Replace).map(|()| true),
        state => Ok(state.owner().is_none()),
    }
}

/// False when the file was no longer clean.
fn replace_clean(inode: &Arc<Inode>, staged: Arc<StagedFile>) -> Result<bool> {
    let mut data = inode.lock();
    if data.parted {
        return Err(Error::Stale);
    }
    let FileState::Clean(clean) = data.file()? else { return Ok(false) };
    let origin = Origin::Replaced(Some(clean.version.clone()));
    data.apply(Event::Change(Draft { staged, origin, phase: Phase::Born }))?;
    touch(&mut data.ownership);
    Ok(true)
}

/// Bytes were changed now.
pub(super) fn touch(ownership: &mut crate::inode::Ownership) {
    let now = SystemTime::now();
    ownership.mtime = now;
    ownership.ctime = now;
}
