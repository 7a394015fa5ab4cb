//! Renames of directories that a killed run had begun: finished before this mount is there, so that nobody sees one half.
//!
//! Owns what is copied and deleted then, and where drafts below belong after it. A rename goes forward, never back: a copy is
//! made only of the very version that was to be moved, and only where nothing stands; a source is deleted only while it is that
//! version and its copy is known to stand at the new place. Going back would mean to delete what stands there, and not every
//! copy can be told from what another client has put there since. What can't be told, and what another client has changed, stays
//! under both names, and is said. A run that is killed in this leaves the record, and the next one goes on.

use std::collections::{HashMap, HashSet};
use std::time::UNIX_EPOCH;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Filesystem;
use super::create::empty;
use super::recover::Recovery;
use super::rename_dir::Move;
use crate::error::{Error, Result};
use crate::stage::{LeftMoves, Leftover, MovePhase, Moves, MovesFile, OneMove, Record};
use crate::store::ListRequest;
use crate::types::{ETag, Expect, Ino, ObjectKey, Version};

/// What stands on the two sides of a rename, by what follows the prefix.
struct Sides {
    old: HashMap<String, Version>,
    new: HashMap<String, Version>,
}

impl Filesystem {
    /// Nothing is stored and no rename is finished: the mount is read-only.
    pub fn leave_leftovers(&self, leftovers: Vec<Leftover>) -> Recovery {
        let mut recovery = Recovery::nothing_of(leftovers);
        for LeftMoves { file, moves } in self.stage.take_renames() {
            let why = moves.as_ref().map_or_else(ToString::to_string, |_| "this mount is read-only".to_owned());
            recovery.unfinished.push(self.unfinished(&file, moves.as_ref().ok(), &why));
        }
        recovery
    }

    /// Finishes what can be finished; of the rest it tells why, in a sentence each. Drafts that were below a directory that
    /// moved are among the leftovers.
    pub(super) async fn finish_renames(&self, leftovers: &mut [Leftover]) -> Vec<String> {
        let mut unfinished = Vec::new();
        for LeftMoves { file, moves } in self.stage.take_renames() {
            let mut moves = match moves {
                Ok(moves) => moves,
                Err(fault) => {
                    unfinished.push(self.unfinished(&file, None, &fault.to_string()));
                    continue;
                }
            };
            let (old, new) = (self.path_below(&moves.old), self.path_below(&moves.new));
            tracing::info!(objects = moves.moves.len(), "an earlier run was killed while it renamed {old} to {new}");
            match self.finish_rename(&file, &mut moves, leftovers).await {
                Ok(0) => tracing::info!("the rename of {old} to {new}, begun by an earlier run, is finished now"),
                Ok(left) => tracing::warn!(
                    "the rename of {old} to {new}, begun by an earlier run, is finished now, but for {left} object(s) \
                     that another client changed since or that can't be told from its own: they stay where they are"
                ),
                Err(error) => unfinished.push(self.unfinished(&file, Some(&moves), &error.to_string())),
            }
        }
        unfinished
    }

    fn unfinished(&self, file: &MovesFile, moves: Option<&Moves>, why: &str) -> String {
        let what = match moves {
            Some(moves) => format!("rename of {} to {}", self.path_below(&moves.old), self.path_below(&moves.new)),
            None => "rename of a directory".to_owned(),
        };
        format!(
            "the {what}, begun by an earlier run that was killed, is not finished: {why} ({})",
            file.path().display()
        )
    }

    fn path_below(&self, prefix: &str) -> String {
        let root = self.table.prefix_of(Ino::ROOT).map(|root| root.as_str().to_owned()).unwrap_or_default();
        prefix.strip_prefix(&root).unwrap_or(prefix).trim_end_matches('/').to_owned()
    }

    /// How many objects stay under the old name.
    async fn finish_rename(&self, file: &MovesFile, moves: &mut Moves, leftovers: &mut [Leftover]) -> Result<usize> {
        let root = self.table.prefix_of(Ino::ROOT)?;
        if !moves.old.starts_with(root.as_str()) || !moves.new.starts_with(root.as_str()) {
            return Err(Error::InvalidArgument("its directories are not of this mount"));
        }
        if moves.phase == MovePhase::Copying {
            self.finish_copies(moves).await?;
            moves.phase = MovePhase::Deleting;
            self.save_moves(file, moves).await?;
        }
        // Before the sources go: the copies that they are based on from now on are there.
        move_records(moves, leftovers)?;
        let left = self.finish_deletes(moves).await?;
        self.remove_moves(file).await?;
        Ok(left)
    }

    /// Makes the copies that are missing, and notes every one that stands.
    async fn finish_copies(&self, moves: &mut Moves) -> Result<()> {
        let mut sides = self.both_sides(moves).await?;
        let steps: Vec<_> = moves
            .moves
            .iter()
            .map(|one| (step_of(moves, one), sides.old.remove(&one.rest), sides.new.remove(&one.rest)))
            .collect();
        let work = steps
            .into_iter()
            .map(|(step, source, target)| async move { self.finish_copy(&step, source.as_ref(), target).await });
        let limit = self.settings.transfer.concurrency.max(1);
        // One that is dropped by another's failure may still be made: the next run finds it.
        let copies: Vec<Option<ETag>> = stream::iter(work).buffered(limit).try_collect().await?;
        for (one, copy) in moves.moves.iter_mut().zip(copies) {
            one.copy = copy;
        }
        if moves.moves.is_empty() {
            // A directory that only this machine knew of, and the files in it that S3 has never seen.
            match self
                .store
                .put(&ObjectKey::from_store(&*moves.new), empty(), &Default::default(), &Expect::Absent)
                .await
            {
                Ok(_) | Err(Error::PreconditionFailed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The copy of one object, made now or found; `None` where there is none that is known to be one.
    async fn finish_copy(
        &self,
        step: &Move,
        source: Option<&Version>,
        target: Option<Version>,
    ) -> Result<Option<ETag>> {
        let unchanged = source.is_some_and(|source| is_unchanged(source, &step.version));
        match target {
            // A copy of an object that was not made of parts has its ETag.
            Some(target) if target.same_bytes(&step.version) => Ok(Some(target.etag)),
            Some(target) if unchanged => self.known_copy(step, &target).await,
            None if unchanged => self.copy_where_nothing_is(step).await,
            _ => Ok(None),
        }
    }

    async fn copy_where_nothing_is(&self, step: &Move) -> Result<Option<ETag>> {
        let expect = Expect::Absent;
        let made = if step.is_marker() {
            let attributes = match self.store.head(&step.from).await {
                Ok(info) => self.transfer.with_tags(&step.from, info.attributes).await?,
                Err(Error::NotFound) => return Ok(None),
                Err(error) => return Err(error),
            };
            self.store.put(&step.to, empty(), &attributes, &expect).await
        } else if !self.store.capabilities().conditional_copy && self.there(&step.to).await?.is_some() {
            // Such a store would copy over it.
            Err(Error::PreconditionFailed)
        } else {
            self.transfer.copy(&step.from, &step.version, &step.to, None, &expect).await
        };
        match made {
            Ok(version) => Ok(Some(version.etag)),
            // The source is another one by now, or something came to the target: this very copy perhaps, without its answer.
            Err(Error::PreconditionFailed) => match self.there(&step.to).await? {
                Some(target) => self.known_copy(step, &target).await,
                None => Ok(None),
            },
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn there(&self, key: &ObjectKey) -> Result<Option<Version>> {
        match self.store.head(key).await {
            Ok(info) => Ok(Some(info.version)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The target's ETag, if it holds what the source does: then nothing is lost when the source goes, whoever made it.
    async fn known_copy(&self, step: &Move, target: &Version) -> Result<Option<ETag>> {
        if target.size != step.version.size {
            return Ok(None);
        }
        if target.etag == step.version.etag || step.is_marker() {
            return Ok(Some(target.etag.clone()));
        }
        let (source, copy) = match (self.store.head(&step.from).await, self.store.head(&step.to).await) {
            (Ok(source), Ok(copy)) => (source, copy),
            (Err(Error::NotFound), _) | (_, Err(Error::NotFound)) => return Ok(None),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let unchanged = source.version.same_bytes(&step.version) && copy.version.size == step.version.size;
        let same_bytes = source.crc64nvme.is_some() && source.crc64nvme == copy.crc64nvme;
        let same_attributes = source.attributes.metadata == copy.attributes.metadata
            && source.attributes.content_type == copy.attributes.content_type;
        Ok((unchanged && same_bytes && same_attributes).then_some(copy.version.etag))
    }

    /// Deletes the sources whose copies stand. How many others are there.
    async fn finish_deletes(&self, moves: &Moves) -> Result<usize> {
        let sides = self.both_sides(moves).await?;
        let (mut delete, mut left) = (Vec::new(), 0);
        for one in &moves.moves {
            let Some(source) = sides.old.get(&one.rest) else { continue };
            let step = step_of(moves, one);
            let target = sides.new.get(&one.rest);
            if !is_unchanged(source, &one.version) {
                left += 1;
                tracing::warn!(key = %step.from, "replaced by another client since its rename was begun; the new one stays");
            } else if stands(&step, one.copy.as_ref(), target) {
                delete.push(step);
            } else {
                left += 1;
                tracing::warn!(from = %step.from, to = %step.to, "not moved: what stands at the new place is not known to be its copy");
            }
        }
        self.delete_all(&delete).await?;
        Ok(left)
    }

    async fn both_sides(&self, moves: &Moves) -> Result<Sides> {
        let wanted: HashSet<&str> = moves.moves.iter().map(|one| one.rest.as_str()).collect();
        let old = self.versions_below(&moves.old, &wanted).await?;
        Ok(Sides { old, new: self.versions_below(&moves.new, &wanted).await? })
    }

    async fn versions_below(&self, prefix: &str, wanted: &HashSet<&str>) -> Result<HashMap<String, Version>> {
        let mut found = HashMap::new();
        let mut request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
        loop {
            let page = self.store.list(request.clone()).await?;
            for object in page.objects {
                if let Some(rest) = object.key.as_str().strip_prefix(prefix)
                    && wanted.contains(rest)
                {
                    found.insert(rest.to_owned(), object.version);
                }
            }
            match page.next {
                Some(token) => request.continuation = Some(token),
                None => return Ok(found),
            }
        }
    }
}

fn step_of(moves: &Moves, one: &OneMove) -> Move {
    let key = |prefix: &str| ObjectKey::from_store(format!("{prefix}{}", one.rest));
    Move { from: key(&moves.old), to: key(&moves.new), version: one.version.clone() }
}

/// The time counts here: who has stored equal bytes since wants them there. Listings tell it in whole seconds.
fn is_unchanged(source: &Version, moved: &Version) -> bool {
    let second = |version: &Version| version.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    source.same_bytes(moved) && second(source) == second(moved)
}

/// A marker has no bytes: any marker at the new place is as good as its copy.
fn stands(step: &Move, copy: Option<&ETag>, target: Option<&Version>) -> bool {
    match (copy, target) {
        (Some(copy), Some(target)) => target.etag == *copy || (step.is_marker() && target.size == 0),
        _ => false,
    }
}

/// Drafts that were below the directory belong below the new one, and what they change is the copy now. One whose object does
/// not move stays with it.
fn move_records(moves: &Moves, leftovers: &mut [Leftover]) -> Result<()> {
    if moves.files.is_empty() {
        return Ok(());
    }
    let files: HashSet<&str> = moves.files.iter().map(String::as_str).collect();
    let by_rest: HashMap<&str, &OneMove> = moves.moves.iter().map(|one| (one.rest.as_str(), one)).collect();
    for left in leftovers.iter_mut().filter(|left| files.contains(left.id().as_str())) {
        let Ok(record) = &left.record else { continue };
        // Told already, by the run that was killed or by one that came after it.
        let Some(rest) = record.key.as_str().strip_prefix(&moves.old) else { continue };
        let key = ObjectKey::from_store(format!("{}{rest}", moves.new));
        let (base, expect) = match by_rest.get(rest) {
            Some(OneMove { copy: None, .. }) => continue,
            Some(OneMove { version, copy: Some(copy), .. }) => rebased(record, version, copy),
            None => (record.base.clone(), record.expect.clone()),
        };
        left.moved(&key, base.as_ref(), &expect)?;
    }
    Ok(())
}

/// What a draft is based on after its object was moved. One that was based on another version is in conflict with it, and stays so.
fn rebased(record: &Record, moved: &Version, copy: &ETag) -> (Option<Version>, Expect) {
    let base = record.base.clone().map(|base| match base.etag == moved.etag {
        true => Version { etag: copy.clone(), ..base },
        false => base,
    });
    let expect = match &record.expect {
        Expect::Is(etag) if *etag == moved.etag => Expect::Is(copy.clone()),
        other => other.clone(),
    };
    (base, expect)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_source_that_was_stored_again_with_equal_bytes_is_another_clients() {
        let version = |etag: &str, size, millis| Version {
            etag: ETag::parse(etag),
            size,
            modified: UNIX_EPOCH + Duration::from_millis(millis),
        };
        let moved = version("a", 7, 9000);
        assert!(is_unchanged(&version("a", 7, 9500), &moved));
        for other in [version("b", 7, 9000), version("a", 8, 9000), version("a", 7, 10_000)] {
            assert!(!is_unchanged(&other, &moved), "{other:?}");
        }
    }
}
