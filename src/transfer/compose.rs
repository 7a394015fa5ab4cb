//! An object that is composed of ranges of other objects, one after the other, before anybody can see it.
//!
//! Owns the parts of such an upload. A range is in the upload when [`Transfer::add_range`] returns, so that nothing is lost when
//! its source goes. Some stores do not look at the ETag that a part is copied of, so what stands there is asked for once more
//! after the last part of a range: a source that was replaced in between is refused, and none of its bytes are used. A staged
//! file stands for the object until it is complete, and its bytes are read from their sources till then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::fetch::Source;
use super::multipart::{Multipart, Parts};
use super::plan::cut_copy;
use super::stream::Target;
use super::upload::{StagedBytes, Upload};
use super::{Need, Transfer, tasks};
use crate::error::{Error, Result};
use crate::stage::{NotedUpload, StagedFile};
use crate::store::{PartSource, UploadedPart};
use crate::types::{ByteRange, Expect, ObjectKey, PARTS_MAX, Version};

/// A range of one version of an object.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The object.
    pub key: ObjectKey,
    /// Its version.
    pub version: Version,
    /// Which bytes of it.
    pub range: ByteRange,
    /// Where they are in the object that is composed.
    pub at: u64,
}

impl Segment {
    /// Where its bytes are in the object that is composed.
    pub fn place(&self) -> ByteRange {
        ByteRange::at(self.at, self.range.len())
    }

    /// The bytes of the source that stand at `place`.
    pub fn source_of(&self, place: ByteRange) -> ByteRange {
        let place = place.intersect(self.place());
        ByteRange::at(self.range.start + (place.start - self.at), place.len())
    }

    fn is_whole(&self) -> bool {
        self.range == ByteRange::new(0, self.version.size)
    }
}

/// The upload of an object that is being composed, beside the staged file that stands for it.
pub struct Composition {
    target: Target,
    state: Mutex<State>,
}

impl std::fmt::Debug for Composition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composition").field("target", &self.target).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// `None` while it is being completed, and after that.
    multipart: Option<Multipart>,
    parts: Vec<UploadedPart>,
    segments: Vec<Segment>,
    /// Parts that were asked for. One that got no answer may still come: its number is not used again.
    asked: u64,
    /// The object is there.
    done: bool,
}

impl Composition {
    /// What it makes, and what goes with it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The ranges, in order and without gaps.
    pub fn segments(&self) -> Vec<Segment> {
        self.state().segments.clone()
    }

    fn of(file: &StagedFile) -> Option<Arc<Composition>> {
        file.companion()?.downcast().ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next parts, for a segment that can follow what is there.
    fn reserve(&self, segment: &Segment, ranges: &[ByteRange]) -> Result<(Parts, u64)> {
        let mut state = self.state();
        let end = state.segments.last().map_or(0, |last| last.place().end);
        let follows = end == segment.at && state.parts.iter().all(|part| part.size >= super::plan::PART_MIN);
        if !follows {
            return Err(Error::Unsupported("a part of less than 5 MiB that is not the last"));
        }
        let first = state.asked;
        if first + ranges.len() as u64 > u64::from(PARTS_MAX) {
            return Err(Error::FileTooLarge);
        }
        let parts = state.multipart.as_ref().ok_or(Error::UploadGone)?.parts().clone();
        state.asked += ranges.len() as u64;
        Ok((parts, first))
    }
}

impl Transfer {
    /// What composes the object that a staged file stands for, also for a moment after it is complete.
    pub fn composition(&self, file: &StagedFile) -> Option<Arc<Composition>> {
        Composition::of(file)
    }

    /// True for a file whose bytes are in parts of an upload, and not here.
    pub fn is_composed(&self, file: &StagedFile) -> bool {
        Composition::of(file).is_some_and(|composition| !composition.state().done)
    }

    /// Begins to compose the object that a file stands for, of which nothing goes up otherwise.
    ///
    /// # Errors
    /// What the store says.
    pub async fn compose(&self, file: &Arc<StagedFile>, target: Target) -> Result<Arc<Composition>> {
        let multipart = Multipart::create(&self.shared, &target.key, &target.attributes, PartSource::Copies).await?;
        // Another run does not go on with it: it has nothing to compare the parts with.
        let noted = NotedUpload { id: multipart.id().clone(), mark: None };
        let state = State { multipart: Some(multipart), ..State::default() };
        let composition = Arc::new(Composition { target, state: Mutex::new(state) });
        let beside = composition.clone();
        if !file.accompany(|| beside) {
            return Err(Error::Internal("a file that goes up was to be composed"));
        }
        if let Err(error) = file.note_upload(Some(noted)) {
            tracing::debug!(%error, "the journal does not name an upload of copied parts");
        }
        Ok(composition)
    }

    /// Copies a range behind those that are there. It is in the upload when this returns.
    ///
    /// # Errors
    /// `Unsupported` for what S3 does not copy into a part at this place, before anything was asked of it: a range of less than 5 MiB
    /// can only be the last, and of an object of up to 5 MiB only all of it. `PreconditionFailed` when the source is another
    /// version by now; what the store says. Nothing is added then.
    pub async fn add_range(&self, composition: &Arc<Composition>, segment: Segment) -> Result<()> {
        if segment.range.is_empty() || (!segment.is_whole() && segment.version.size <= super::plan::PART_MIN) {
            return Err(Error::Unsupported("copying a range of a small object"));
        }
        let ranges = cut_copy(segment.range, segment.version.size);
        let (parts, first) = composition.reserve(&segment, &ranges)?;
        let shared = self.shared.clone();
        let added = segment.clone();
        let copied = tasks::run(&self.shared.runtime, async move {
            let jobs =
                (first..).zip(ranges).map(|(index, range)| copy_part(parts.clone(), added.clone(), index, range));
            let copied = tasks::run_all(&shared.runtime, shared.settings.concurrency, jobs).await?;
            match shared.store.head(&added.key).await {
                Ok(info) if info.version.etag == added.version.etag => Ok(copied),
                Ok(_) | Err(Error::NotFound) => Err(Error::PreconditionFailed),
                Err(error) => Err(error),
            }
        });
        let copied = copied.await?;
        let mut state = composition.state();
        state.parts.extend(copied);
        state.segments.push(segment);
        Ok(())
    }

    /// Makes the object. The file's bytes are to be read from it from then on. After a failure the upload is still there, unless
    /// the store says that it is gone.
    ///
    /// # Errors
    /// `PreconditionFailed` when something else than `expect` stands there, and it is not what this very upload made before its
    /// answer got lost; `UploadGone`; what the store says.
    pub async fn complete_composition(
        &self,
        composition: &Arc<Composition>,
        file: &Arc<StagedFile>,
        expect: &Expect,
    ) -> Result<Version> {
        let (shared, composition) = (self.shared.clone(), composition.clone());
        let upload = Upload {
            bytes: StagedBytes::new(&shared, file),
            key: composition.target.key.clone(),
            attributes: composition.target.attributes.clone(),
            expect: expect.clone(),
            size: file.size(),
            started: SystemTime::now(),
        };
        tasks::run(&self.shared.runtime, async move { complete(&composition, &upload).await }).await
    }

    /// Brings all bytes from their sources into the staged file, which stands for itself from then on: what is in the upload is
    /// dropped.
    ///
    /// # Errors
    /// `Stale` when a source is not there any more; `StageFull`; what the store says. The composition then stays.
    pub async fn bring_composed(&self, composition: &Composition, file: &Arc<StagedFile>) -> Result<()> {
        for segment in composition.segments() {
            if file.missing(segment.place()).is_empty() {
                continue;
            }
            let source = Source::new(self.shared.clone(), segment.key.clone(), segment.version.clone());
            let file = file.clone();
            tasks::run(&self.shared.runtime, async move {
                let (from, at) = (segment.range.start, segment.at);
                source
                    .stream(segment.range, None, &mut |there, chunk| Need::Must.fill(&file, there - from + at, &chunk))
                    .await
            })
            .await?;
        }
        self.give_up_composition(file);
        Ok(())
    }

    /// Nothing is composed any more of what a file stands for. An upload that is not complete is aborted.
    pub fn give_up_composition(&self, file: &StagedFile) {
        let Some(composition) = Composition::of(file) else { return };
        file.take_companion();
        let is_done = {
            let mut state = composition.state();
            state.multipart.take();
            std::mem::replace(&mut state.done, true)
        };
        if !is_done && let Err(error) = file.note_upload(None) {
            tracing::debug!(%error, "the journal names an upload that was given up");
        }
    }
}

async fn complete(composition: &Composition, upload: &Upload) -> Result<Version> {
    let (multipart, parts) = {
        let mut state = composition.state();
        (state.multipart.take(), state.parts.clone())
    };
    let Some(mut multipart) = multipart else { return Err(Error::UploadGone) };
    let done = match multipart.complete(parts, upload.size, None, &upload.expect).await {
        // What was copied has no sums here: it is known again by what goes with it.
        Err(error @ (Error::PreconditionFailed | Error::UploadGone)) => match upload.own_work(&[]).await {
            Ok(made) => made.ok_or(error),
            Err(error) => Err(error),
        },
        done => done,
    };
    let mut state = composition.state();
    match &done {
        Ok(_) => state.done = true,
        Err(_) => state.multipart = Some(multipart),
    }
    done
}

async fn copy_part(parts: Parts, segment: Segment, index: u64, range: ByteRange) -> Result<UploadedPart> {
    let whole = range == ByteRange::new(0, segment.version.size);
    match parts.copy(index, &segment.key, &segment.version.etag, (!whole).then_some(range)).await {
        Ok(part) => Ok(UploadedPart { size: range.len(), ..part }),
        Err(Error::NotFound) => Err(Error::PreconditionFailed),
        Err(error) => Err(error),
    }
}
