//! Files that are larger than the stage: their parts leave the local disk once they are up, before the file is whole.
//!
//! Owns which part goes and when an upload is the only place of some bytes: it is then never aborted, and a commit that fails leaves
//! it as it is for the next. Which bytes are away the staged file knows, with all that completes the upload.

use std::collections::BTreeMap;
use std::sync::Arc;

use crc_fast::CrcAlgorithm::Crc64Nvme;

use super::multipart::Multipart;
use super::plan::Grid;
use super::stream::{Finished, Opening, Phase, State, Stream, Target, is_up};
use super::upload::{SentPart, StagedBytes, Upload};
use super::{Shared, tasks};
use crate::error::{Error, Result};
use crate::stage::{AwayPart, StagedFile};
use crate::store::UploadedPart;
use crate::types::{ByteRange, ObjectKey, PartNumber, Version};

/// What is under way of a file whose writer waits for room.
pub enum Pressed {
    /// Nothing that could make room.
    Nothing,
    /// Parts are on their way.
    Sending,
    /// The last one had failed; parts are on their way again.
    SendingAgain,
    /// An upload is to be begun.
    Begin(Opening),
    /// It could not be begun a moment ago.
    BeginAgain(Opening),
}

impl Stream {
    /// Notes that one part that is up is only there from now on. The first goes last, when no other
    /// is on its way: programs that write in order often come back to it in the end.
    fn send_one_away(&self, file: &StagedFile, key: &ObjectKey) -> Result<Option<AwayPart>> {
        let state = self.state();
        if !matches!(&state.phase, Phase::Open(_, target) if target.key == *key) {
            return Ok(None);
        }
        let first = state.running.is_empty().then_some(0);
        for index in state.sent.keys().copied().filter(|index| *index > 0).chain(first) {
            let Some(sent) = state.sent.get(&index) else { continue };
            // The last one of a file that is committed may be cut short, and grow.
            if state.grid.part(index) != Some(sent.range) || !is_up(&state, file, index, sent.range) {
                continue;
            }
            let UploadedPart { etag, checksum, .. } = sent.uploaded.clone();
            let part = AwayPart { index, range: sent.range, crc: sent.crc, etag, checksum };
            if file.send_away(&part)? {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    fn press(self: &Arc<Self>, file: &Arc<StagedFile>) -> Pressed {
        let mut state = self.state();
        let failed = match (&state.phase, &state.error) {
            (Phase::Opening, _) => return Pressed::Sending,
            (Phase::Ended, _) => return Pressed::Nothing,
            (Phase::Open(..), Some(error)) if !error.is_transient() => return Pressed::Nothing,
            (Phase::Open(..), error) => error.is_some(),
        };
        state.error = None;
        let end = file.run().end;
        let passed = (0..).map_while(|index| Some((index, state.grid.part(index).filter(|part| part.end <= end)?)));
        for (index, part) in passed.collect::<Vec<_>>() {
            // A hole takes no room.
            if !is_up(&state, file, index, part) && file.is_on_disk(part) {
                self.queue(&mut state, file, (index, part));
            }
        }
        self.pump(&mut state, file);
        match (state.running.is_empty(), failed) {
            (true, _) => Pressed::Nothing,
            (false, true) => Pressed::SendingAgain,
            (false, false) => Pressed::Sending,
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.state().phase, Phase::Ended)
    }

    /// A commit has failed, and the next goes on with the same upload.
    fn restore(&self, finished: Finished) {
        let Finished { multipart, sent, target } = finished;
        let mut state = self.state();
        state.sent = (0..).zip(sent).collect();
        state.phase = Phase::Open(multipart, target);
    }
}

pub(super) fn let_go_of_part(file: &Arc<StagedFile>, key: &ObjectKey) -> Result<u64> {
    let Some(stream) = Stream::of(file) else { return Ok(0) };
    Ok(stream.send_one_away(file, key)?.map_or(0, |part| file.let_go_of(&part)))
}

pub(super) fn press(shared: &Arc<Shared>, file: &Arc<StagedFile>) -> Pressed {
    let grid = Grid::new(shared.settings.part_size);
    if file.run().len() < grid.part_size() {
        // Nobody writes it in order: what goes up now is written again, perhaps.
        return Pressed::Nothing;
    }
    let failed = match Stream::of(file) {
        Some(stream) if stream.has_ended() && !file.has_away() => {
            let error = stream.state().error.clone();
            if error.as_ref().is_some_and(|error| !error.is_transient()) {
                return Pressed::Nothing;
            }
            file.take_companion();
            error.is_some()
        }
        Some(stream) => return stream.press(file),
        None => false,
    };
    let Some(opening) = Stream::open(shared, grid, file) else { return Pressed::Nothing };
    if let Some(stream) = Stream::of(file) {
        stream.passed(file, file.run());
    }
    if failed { Pressed::BeginAgain(opening) } else { Pressed::Begin(opening) }
}

/// Ends the stream of a file and aborts its upload, unless that has the only bytes of some part; with `for_good` also then.
pub(super) fn call_back(file: &Arc<StagedFile>, for_good: bool) -> bool {
    let forget = || {
        if let Err(error) = file.note_upload(None) {
            tracing::debug!(%error, "the journal names an upload that was called back");
        }
    };
    if for_good {
        // First: an upload that is needed does not go.
        forget();
    }
    let Some(stream) = Stream::of(file) else { return for_good || !file.has_away() };
    if !stream.cancel_if(|| for_good || !file.has_away()) {
        return false;
    }
    file.take_companion();
    if !for_good {
        forget();
    }
    true
}

/// Lets go of the upload of a file that outlives this process, and leaves it in the store.
pub(super) fn leave(file: &Arc<StagedFile>) {
    if let Some(stream) = Stream::of(file).filter(|_| file.has_away()) {
        file.take_companion();
        stream.cancel();
    }
}

/// How a file is cut of which parts are away.
pub(super) fn grid(file: &StagedFile) -> Result<Grid> {
    let away = file.away();
    let first = away.first().ok_or(Error::Internal("no part of a file is away"))?;
    let part_size = first.range.start.checked_div(first.index).unwrap_or(first.range.len());
    let fits = |grid: &Grid| away.iter().all(|part| grid.part(part.index) == Some(part.range));
    let grids = [Grid::new(part_size), Grid::even(part_size)];
    grids.into_iter().find(fits).ok_or(Error::Internal("the parts of a file that are away fit nowhere"))
}

/// The parts that are away, as they were sent.
pub(super) fn sent_parts(file: &StagedFile) -> Result<BTreeMap<u64, SentPart>> {
    let sent = |AwayPart { index, range, crc, etag, checksum }| {
        let number = PartNumber::from_index(index)?;
        let uploaded = UploadedPart { number, etag, size: range.len(), checksum };
        Ok((index, SentPart { range, crc, uploaded }))
    };
    file.away().into_iter().map(sent).collect()
}

/// CRC-64/NVME of a whole file of which parts are away.
pub(super) async fn checksum(bytes: &StagedBytes) -> Result<u64> {
    let file = &bytes.file;
    let whole = ByteRange::new(0, file.size());
    if file.has_lost() || !file.missing(whole).is_empty() {
        return Err(Error::NotReadableYet);
    }
    let (mut sum, mut at) = (0, 0);
    let mut add = |crc, len| sum = crc_fast::checksum_combine(Crc64Nvme, sum, crc, len);
    for part in file.away() {
        let before = ByteRange::new(at, part.range.start);
        if !before.is_empty() {
            add(bytes.checksum(before).await?, before.len());
        }
        add(part.crc, part.range.len());
        at = part.range.end;
    }
    let rest = ByteRange::new(at, whole.end);
    if !rest.is_empty() {
        add(bytes.checksum(rest).await?, rest.len());
    }
    Ok(sum)
}

/// Completes the upload of a file of which parts are away. On failure it stays, for the next commit.
pub(super) async fn upload(upload: Upload) -> Result<Version> {
    let (shared, file) = (upload.bytes.shared.clone(), upload.bytes.file.clone());
    let stream = stream_of(&upload)?;
    let done = tasks::run(&shared.runtime, async move { upload.go_on(stream).await }).await;
    if done.is_ok() {
        file.take_companion();
    }
    done
}

/// The stream beside the file; a new one where an earlier commit was stopped half-way, or an earlier run.
fn stream_of(upload: &Upload) -> Result<Arc<Stream>> {
    let (shared, file) = (&upload.bytes.shared, &upload.bytes.file);
    if let Some(stream) = Stream::of(file) {
        match &stream.state().phase {
            Phase::Open(_, target) if target.key != upload.key => return Err(Error::NotMovableYet),
            Phase::Open(..) => return Ok(stream.clone()),
            Phase::Opening => return Err(Error::Internal("an upload is gone on with before it is there")),
            Phase::Ended => {}
        }
    }
    let id = file.upload().ok_or(Error::PartsLost)?;
    let mut state = State::new(grid(file)?);
    state.sent = sent_parts(file)?;
    let mut multipart = Multipart::adopt(shared, &upload.key, id);
    multipart.keep_while(file.needs_upload());
    let target = Target { key: upload.key.clone(), attributes: upload.attributes.clone() };
    state.phase = Phase::Open(multipart, Box::new(target));
    let stream = Stream::new(shared, state);
    file.take_companion();
    let beside = stream.clone();
    file.accompany(|| beside);
    Ok(stream)
}

impl Upload {
    async fn go_on(&self, stream: Arc<Stream>) -> Result<Version> {
        let (shared, file) = (&self.bytes.shared, &self.bytes.file);
        let mut attempt = 1;
        loop {
            let outcome = match stream.finish(file).await {
                Ok(Some(mut finished)) => {
                    let outcome = self.complete(&mut finished.multipart, finished.sent.clone()).await;
                    if outcome.is_err() {
                        stream.restore(finished);
                    }
                    outcome
                }
                Ok(None) => Err(Error::Internal("a file of which parts are away has no upload")),
                Err(error) => Err(error),
            };
            match outcome {
                Err(Error::UploadGone) => return Err(self.lost_or(&stream, Error::UploadGone).await),
                Err(Error::ConcurrentWrite) if attempt < shared.patience.redo => {}
                done => return done,
            }
            tokio::time::sleep(shared.patience.before(attempt)).await;
            attempt += 1;
        }
    }

    /// The store says that the upload is gone. It is asked once more, in another way, before it is believed: nothing brings back
    /// what was only there.
    async fn lost_or(&self, stream: &Arc<Stream>, error: Error) -> Error {
        let file = &self.bytes.file;
        let Some(id) = file.upload() else { return Error::PartsLost };
        if !matches!(stream.shared().store.list_parts(&self.key, &id, None, 1).await, Err(Error::UploadGone)) {
            return error;
        }
        let bytes: u64 = file.away().iter().map(|part| part.range.len()).sum();
        let (key, upload) = (&self.key, id.as_str());
        tracing::error!(%key, upload, bytes, "the unfinished upload of a file that is larger than the stage is gone from the bucket, and with it bytes that were only there; what is left is kept for 'pailfs recover'");
        call_back(file, true);
        Error::PartsLost
    }
}
