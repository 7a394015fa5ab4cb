//! Parts of a staged file that go up while a program still writes it.
//!
//! Owns which parts are under way and which are up. A part goes up when a sequential writer has passed its end; whether what
//! went up is still what the file holds, the file itself knows (`StagedFile::is_sent`), and nothing counts that is not. At the
//! commit [`Stream::finish`] sends what is missing. Lock order: stream, then staged file; neither is held while waiting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::multipart::Multipart;
use super::plan::Grid;
use super::resume::{self, Known};
use super::upload::{SentPart, StagedBytes};
use super::{Shared, away, journal};
use crate::error::{Error, Result};
use crate::stage::{StagedFile, UnderWay};
use crate::store::{Attributes, PartSource};
use crate::types::{ByteRange, ObjectKey, UploadId};

/// A part that is written again and again goes up this often before the commit, no more.
const TIMES: u8 = 2;
/// Rounds of sending what is missing: nobody writes meanwhile, so the second finds nothing new.
const ROUNDS: usize = 4;

/// What an upload that was begun early is for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the object goes.
    pub key: ObjectKey,
    /// What goes with it: S3 wants to know when the upload begins.
    pub attributes: Attributes,
}

pub(super) struct Stream {
    shared: Arc<Shared>,
    state: Mutex<State>,
    moved: watch::Sender<u64>,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) grid: Grid,
    /// What may be up since an earlier run, and was not looked at yet.
    known: Known,
    /// An earlier run had begun it.
    resumed: bool,
    /// The first part that no sequential writer has passed.
    next: u64,
    pub(super) ready: VecDeque<(u64, ByteRange)>,
    pub(super) running: BTreeSet<u64>,
    pub(super) sent: BTreeMap<u64, SentPart>,
    times: BTreeMap<u64, u8>,
    pub(super) error: Option<Error>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
pub(super) enum Phase {
    /// The upload is being begun.
    #[default]
    Opening,
    Open(Multipart, Box<Target>),
    /// There is none, or no more.
    Ended,
}

impl Stream {
    pub(super) fn new(shared: &Arc<Shared>, state: State) -> Arc<Stream> {
        Arc::new(Stream { shared: shared.clone(), state: Mutex::new(state), moved: watch::Sender::new(0) })
    }

    /// The stream of a file, if it has one.
    pub(super) fn of(file: &StagedFile) -> Option<Arc<Stream>> {
        file.companion()?.downcast().ok()
    }

    /// Puts a stream beside a file that has none; `None` if it has one.
    pub(super) fn open(shared: &Arc<Shared>, grid: Grid, file: &Arc<StagedFile>) -> Option<Opening> {
        // Before the writer has filled the disk: the store may take its time to begin the upload.
        file.keep_spare();
        let stream = Self::new(shared, State::new(grid));
        let beside = stream.clone();
        let opening = Opening { stream, file: file.clone(), _under_way: file.under_way() };
        file.accompany(|| beside).then_some(opening)
    }

    /// A sequential writer has got to the end of `run`: the parts that it has passed go up.
    pub(super) fn passed(self: &Arc<Self>, file: &Arc<StagedFile>, run: ByteRange) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Opening | Phase::Open(..)) || state.error.is_some() {
            return;
        }
        // What lies before the run was not passed by it, and is nothing but a hole perhaps; an earlier place is written anew.
        let first = state.grid.index_at(run.start);
        if first > state.next || state.grid.part(state.next).is_none_or(|next| run.end < next.end) {
            state.next = first;
        }
        while let Some(part) = state.grid.part(state.next).filter(|part| part.end <= run.end) {
            let index = state.next;
            state.next += 1;
            let times = state.times.get(&index).copied().unwrap_or(0);
            if times < TIMES && !file.is_sent(part) && file.is_on_disk(part) {
                state.times.insert(index, times + 1);
                self.queue(&mut state, file, (index, part));
            }
        }
        self.pump(&mut state, file);
    }

    /// A part that is under way stays as it is: two of one number must not race.
    pub(super) fn queue(&self, state: &mut State, file: &StagedFile, (index, part): (u64, ByteRange)) -> bool {
        let busy = state.running.contains(&index) || state.ready.iter().any(|(queued, _)| *queued == index);
        if !busy && file.send(part) {
            state.sent.remove(&index);
            state.ready.push_back((index, part));
        }
        !busy
    }

    pub(super) fn pump(self: &Arc<Self>, state: &mut State, file: &Arc<StagedFile>) {
        while state.tasks.try_join_next().is_some() {}
        let parts = match &state.phase {
            Phase::Open(multipart, _) => multipart.parts().clone(),
            Phase::Opening | Phase::Ended => return,
        };
        while state.running.len() < self.shared.settings.concurrency.max(1) {
            let Some((index, part)) = state.ready.pop_front() else { break };
            state.running.insert(index);
            let running = Running {
                stream: self.clone(),
                file: file.clone(),
                part: (index, part),
                outcome: None,
                _under_way: file.under_way(),
            };
            let (bytes, parts) = (StagedBytes::new(&self.shared, file), parts.clone());
            let known = state.known.remove(&index);
            let send = async move { running.end(resume::bring_part(bytes, parts, (index, part), known).await) };
            state.tasks.spawn_on(send, &self.shared.runtime);
        }
    }

    fn ran(self: &Arc<Self>, file: &Arc<StagedFile>, (index, part): (u64, ByteRange), outcome: Result<SentPart>) {
        let mut state = self.state();
        state.running.remove(&index);
        match outcome {
            Ok(sent) => {
                state.sent.insert(index, sent);
            }
            // It was cut or written again, perhaps while it was read: it would go up again anyway.
            Err(error) if !file.is_sent(part) => tracing::debug!(%error, index, "a part changed on its way"),
            Err(error) => {
                tracing::debug!(%error, index, "a part did not go up");
                state.ready.clear();
                state.error = Some(error);
            }
        }
        self.pump(&mut state, file);
        drop(state);
        self.notify();
    }

    /// What the upload is for, once it is begun; `None` when there is none.
    pub(super) async fn target(&self) -> Option<Target> {
        self.until(|state| !matches!(state.phase, Phase::Opening)).await;
        match &self.state().phase {
            Phase::Open(_, target) => Some(target.as_ref().clone()),
            Phase::Opening | Phase::Ended => None,
        }
    }

    /// Sends what is not up of a file that nobody writes to any more, and gives the upload with all its parts in order;
    /// `None` when there is no upload, or none that can hold the file.
    ///
    /// # Errors
    /// What the store says. The upload is then aborted, or goes on where parts of the file are only there.
    pub(super) async fn finish(self: &Arc<Self>, file: &Arc<StagedFile>) -> Result<Option<Finished>> {
        let _ending = Ending(self, file);
        if self.target().await.is_none() {
            return Ok(None);
        }
        let grid = self.state().grid;
        let Some(parts) = grid.parts(file.size()) else { return Ok(None) };
        {
            let mut state = self.state();
            state.ready.clear();
            state.error = None;
        }
        for _ in 0..ROUNDS {
            {
                let mut state = self.state();
                for (index, part) in (0..).zip(&parts) {
                    if !is_up(&state, file, index, *part)
                        && self.queue(&mut state, file, (index, *part))
                        && !file.is_sent(*part)
                    {
                        return Err(Error::Internal("a staged file with missing bytes can't be uploaded"));
                    }
                }
                self.pump(&mut state, file);
            }
            self.until(|state| state.error.is_some() || (state.running.is_empty() && state.ready.is_empty())).await;
            let mut state = self.state();
            if let Some(error) = state.error.take() {
                return Err(error);
            }
            if (0..).zip(&parts).all(|(index, part)| is_up(&state, file, index, *part)) {
                let sent = (0..parts.len() as u64).filter_map(|index| state.sent.remove(&index)).collect();
                return Ok(match std::mem::replace(&mut state.phase, Phase::Ended) {
                    Phase::Open(multipart, target) => Some(Finished { multipart, sent, target }),
                    Phase::Opening | Phase::Ended => None,
                });
            }
        }
        Err(Error::Internal("a file changes while it is committed"))
    }

    /// An earlier run had begun it.
    pub(super) fn is_resumed(&self) -> bool {
        self.state().resumed
    }

    /// Stops, and aborts what was begun.
    pub(super) fn cancel(&self) {
        self.cancel_if(|| true);
    }

    /// As [`Stream::cancel`], if that holds at a moment when nothing of it changes.
    pub(super) fn cancel_if(&self, may: impl FnOnce() -> bool) -> bool {
        let (phase, mut tasks) = {
            let mut state = self.state();
            if !may() {
                return false;
            }
            state.ready.clear();
            (std::mem::replace(&mut state.phase, Phase::Ended), std::mem::take(&mut state.tasks))
        };
        // Outside the lock: what the tasks hold ends with them, and takes it.
        tasks.abort_all();
        drop((tasks, phase));
        self.notify();
        true
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut moved = self.moved.subscribe();
        // The sender lives in this stream: the wait can't fail.
        let _ = moved.wait_for(|_| holds(&self.state())).await;
    }

    fn notify(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that has all parts of a file.
pub(super) struct Finished {
    pub(super) multipart: Multipart,
    /// In order.
    pub(super) sent: Vec<SentPart>,
    pub(super) target: Box<Target>,
}

impl State {
    pub(super) fn new(grid: Grid) -> Self {
        State {
            phase: Phase::default(),
            grid,
            known: Known::new(),
            resumed: false,
            next: 0,
            ready: VecDeque::new(),
            running: BTreeSet::new(),
            sent: BTreeMap::new(),
            times: BTreeMap::new(),
            error: None,
            tasks: JoinSet::new(),
        }
    }
}

pub(super) fn is_up(state: &State, file: &StagedFile, index: u64, part: ByteRange) -> bool {
    !state.running.contains(&index)
        && state.sent.get(&index).is_some_and(|sent| sent.range == part)
        && file.is_sent(part)
}

/// Stops the stream when the commit that finishes it ends, however it ends. What is only in its upload is needed for the next.
struct Ending<'a>(&'a Arc<Stream>, &'a StagedFile);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.1.has_away() {
            self.0.cancel();
        }
    }
}

/// A part that is on its way; a panic ends it as a failure.
struct Running {
    stream: Arc<Stream>,
    file: Arc<StagedFile>,
    part: (u64, ByteRange),
    outcome: Option<Result<SentPart>>,
    /// Last, so that who waits for room finds the part up.
    _under_way: UnderWay,
}

impl Running {
    fn end(mut self, outcome: Result<SentPart>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Err(Error::Internal("an upload of a part ended early")));
        self.stream.ran(&self.file, self.part, outcome);
    }
}

/// An upload that is to be begun. Dropped before, there is none.
pub struct Opening {
    stream: Arc<Stream>,
    file: Arc<StagedFile>,
    /// Last: parts are on their way by then.
    _under_way: UnderWay,
}

impl Opening {
    /// Begins it, and gives its id.
    ///
    /// # Errors
    /// What the store says. The file then goes up at its commit.
    pub async fn begin(self, target: Target) -> Result<()> {
        let shared = &self.stream.shared;
        if !matches!(self.stream.state().phase, Phase::Opening) {
            return Ok(());
        }
        let made = Multipart::create(shared, &target.key, &target.attributes, PartSource::Bodies).await;
        let mut multipart = made.inspect_err(|error| self.stream.state().error = Some(error.clone()))?;
        multipart.keep_while(self.file.needs_upload());
        let noted = journal::noted(multipart.id(), &target.key, &target.attributes);
        if let Err(error) = self.file.note_upload(Some(noted)) {
            tracing::debug!(%error, "the journal does not name an upload that was begun");
        }
        {
            let mut state = self.stream.state();
            if matches!(state.phase, Phase::Opening) {
                state.phase = Phase::Open(multipart, Box::new(target));
                self.stream.pump(&mut state, &self.file);
                return Ok(());
            }
        }
        // Called back meanwhile.
        multipart.abort().await;
        self.file.note_upload(None)
    }

    /// Goes on with an upload that an earlier run had begun for `target`, the one that the file's record names, and tells how many
    /// of its parts are worth a look. With none there is nothing to go on with: the upload may still be there, and the file goes
    /// up anew at its commit.
    ///
    /// # Errors
    /// What the store says; it is then as above.
    pub async fn resume(self, target: Target, id: &UploadId) -> Result<usize> {
        let shared = &self.stream.shared;
        let found = resume::look(shared, &target.key, id, &self.file).await;
        if let Ok(Some((grid, known))) = &found {
            let (sent, mut known) = (away::sent_parts(&self.file)?, known.clone());
            known.retain(|index, _| !sent.contains_key(index));
            let mut state = self.stream.state();
            if matches!(state.phase, Phase::Opening) {
                let mut multipart = Multipart::adopt(shared, &target.key, id.clone());
                multipart.keep_while(self.file.needs_upload());
                // What a writer has passed meanwhile was cut by another grid, perhaps.
                state.ready.clear();
                let count = known.len() + sent.len();
                (state.next, state.grid, state.resumed) = (0, *grid, true);
                (state.known, state.sent) = (known, sent);
                state.phase = Phase::Open(multipart, Box::new(target));
                return Ok(count);
            }
        }
        self.file.take_companion();
        found.map(|_| 0)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut state = self.stream.state();
        if matches!(state.phase, Phase::Opening) {
            state.phase = Phase::Ended;
        }
        drop(state);
        self.stream.notify();
    }
}
