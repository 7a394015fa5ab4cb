//! readdir and readdirplus: a directory's names, page by page as S3 lists them, together with what exists only here.
//!
//! Owns when a listing is taken, and its next page asked for. One that was read to its end is left with the directory's inode: for
//! lookups, and for whoever reads the directory again while it is fresh.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};

use super::Filesystem;
use super::dir_stream::{DirStream, PageAhead, Progress};
use super::handle::DirHandle;
use super::reply::{DirEntry, EntryName};
use crate::error::{Error, Result};
use crate::inode::{DirNames, FileState, FileType, KeptListing, Kind, Listed, Passage, Pin, TARGET_MAX};
use crate::store::ListRequest;
use crate::types::{DirPrefix, Fh, Ino, Name};

/// `.` and `..` come before all names.
const DOTS: u64 = 2;

/// Entries of one answer: what fits the 32 KiB that glibc asks for at a time (names of 8 bytes).
const PLAIN_AT_ONCE: u64 = 1024;
const PLUS_AT_ONCE: u64 = 160;
/// The same of an answer with types that are not known, of which one page is told: so many of the shortest names.
const PAGE_AT_ONCE: u64 = 128;

/// HEADs under way for the attributes of one answer. A mount sends as many requests at once as this.
pub(super) const HEADS_AT_ONCE: usize = 64;

/// Entries of a first answer whose attributes take a HEAD each: no more than go in one round trip, so that the first names show,
/// and nobody who only wants names pays for more.
const FIRST_AT_ONCE: u64 = DOTS + HEADS_AT_ONCE as u64;

impl Filesystem {
    /// Entries from `offset` on; with `plus` each has its attributes. An empty answer is the end.
    ///
    /// # Errors
    /// `BadHandle`, `Stale` when the directory is gone, and what S3 answers.
    pub async fn readdir(self: &Arc<Self>, fh: Fh, offset: u64, plus: bool) -> Result<Vec<DirEntry>> {
        let handle = self.dir_handle(fh)?;
        let mut offset = offset;
        loop {
            let (answer, next) = self.some_entries(&handle, offset, plus).await?;
            match next {
                // All of them went meanwhile, and others come after them.
                Some(next) if answer.is_empty() => offset = next,
                _ => return Ok(answer),
            }
        }
    }

    /// Those entries after `offset` that are still there, and where the next ones begin, if there are any.
    async fn some_entries(
        self: &Arc<Self>,
        handle: &DirHandle,
        offset: u64,
        plus: bool,
    ) -> Result<(Vec<DirEntry>, Option<u64>)> {
        let at_once = match plus {
            true if offset == 0 && self.keeps_metadata() => FIRST_AT_ONCE,
            true => PLUS_AT_ONCE,
            false if self.keeps_metadata() => PAGE_AT_ONCE,
            false => PLAIN_AT_ONCE,
        };
        let mut stream = handle.stream.lock().await;
        let passage = Arc::new(self.table.pass(&[handle.ino]).await);
        if offset == 0 && stream.progress != Progress::Start {
            *stream = DirStream::new();
        }
        if stream.progress == Progress::Start
            && let Some(kept) = self.kept_listing(handle.ino)?
        {
            *stream = DirStream::of_kept(kept);
            self.add_local(handle.ino, &mut stream);
        }
        let until = offset.saturating_add(at_once);
        while (stream.entries.len() as u64 + DOTS) < until && stream.progress != Progress::End {
            self.next_page(handle.ino, &mut stream).await?;
            self.ask_next_page(handle.ino, &passage, &mut stream);
        }
        let first = offset.saturating_sub(DOTS) as usize;
        let last = (until.saturating_sub(DOTS) as usize).min(stream.entries.len());
        let names: Vec<(Name, Listed)> = stream.entries.get(first..last).unwrap_or_default().to_vec();
        let next = (!names.is_empty()).then_some(DOTS + last as u64);
        let began = stream.began;
        let trusted = self.table.get_plain(handle.ino)?.lock().dir()?.names.changes() == stream.changes;
        // Without metadata a listing says all there is to say.
        if plus && self.keeps_metadata() {
            let stream = &mut *stream;
            let names = (stream.entries.as_slice(), stream.progress == Progress::End);
            let dir = (handle.ino, &passage);
            self.ask_attributes(&mut stream.ahead, dir, names, (first, last), (began, trusted));
            stream.ahead.arrive(first, last).await;
        }
        drop(stream);
        let mut answer = self.dots(handle.ino, offset, plus)?;
        let begin = DOTS + first as u64;
        if plus {
            answer.extend(self.with_attributes(handle.ino, begin, names, (began, trusted)).await?);
        } else {
            answer.extend(names.into_iter().zip(begin + 1..).map(|((name, listed), next)| {
                let ino = self.table.number_of(handle.ino, &name);
                let file_type = self.type_of(handle.ino, &name, &listed);
                DirEntry { next, ino, kind: listed.kind, file_type, name: EntryName::Name(name), attr: None }
            }));
        }
        Ok((answer, next))
    }

    /// What a listed file is, as far as that is known without a request: S3 lists no metadata.
    fn type_of(self: &Arc<Self>, dir: Ino, name: &Name, listed: &Listed) -> Option<FileType> {
        let large = listed.version.as_ref().is_some_and(|version| version.size > TARGET_MAX);
        if !self.keeps_metadata() || large || listed.kind == Kind::Dir {
            return Some(FileType::Regular);
        }
        let child = self.table.child(dir, name)?;
        let data = child.inode().lock();
        let known = match (data.file().ok()?, &listed.version) {
            (FileState::Clean(clean), Some(version)) => data.attributes.is_some() && clean.version.same_bytes(version),
            (state, _) => state.is_local(),
        };
        known.then(|| data.file_type())
    }

    fn dots(self: &Arc<Self>, dir: Ino, offset: u64, plus: bool) -> Result<Vec<DirEntry>> {
        let parent = self.table.place(dir).map_or(Ino::ROOT, |place| place.parent);
        let both = [(EntryName::Dot, dir), (EntryName::DotDot, parent)];
        let mut answer = Vec::new();
        for (index, (name, ino)) in both.into_iter().enumerate().skip(offset.min(DOTS) as usize) {
            // The kernel looks at the name only: it knows both already, and counts no lookup.
            let attr = if plus { Some((self.table.get(ino)?.inode().attr(), None)) } else { None };
            let (next, kind, file_type) = (index as u64 + 1, Kind::Dir, Some(FileType::default()));
            answer.push(DirEntry { next, ino, kind, file_type, name, attr });
        }
        Ok(answer)
    }

    /// The caller has passed the gate of the directory.
    pub(super) async fn next_page(self: &Arc<Self>, dir: Ino, stream: &mut DirStream) -> Result<()> {
        let prefix = self.table.prefix_of(dir)?;
        stream.go_on(&prefix);
        let continuation = match &stream.progress {
            Progress::More(token) => Some(token.clone()),
            _ => {
                stream.began = Instant::now();
                stream.changes = self.table.get_plain(dir)?.lock().dir()?.names.changes();
                None
            }
        };
        let asked = match stream.next.take() {
            Some(next) => next.arrive(&prefix, continuation.as_deref()).await,
            None => None,
        };
        let of_walk = match (&asked, &continuation) {
            (None, None) => self.page_of_walk(dir, &prefix).await,
            _ => None,
        };
        let page = match (asked, of_walk) {
            (Some(page), _) => page,
            (None, Some((page, began))) => {
                stream.began = began;
                page
            }
            (None, None) => self.store.list(names_below(&prefix, continuation)).await?,
        };
        let before = stream.entries.len();
        let hidden = stream.take_page(&prefix, page, self.store.capabilities().ordered_listing);
        if hidden > 0 {
            self.note_hidden(hidden);
            tracing::warn!(prefix = prefix.as_str(), hidden, "keys that can't be shown as paths are hidden");
        }
        // Before anybody has seen them: what was shown keeps its offset.
        let new = stream.entries.split_off(before);
        {
            let inode = self.table.get_plain(dir)?;
            let mut data = inode.lock();
            let names = &data.dir()?.names;
            let before = &stream.before_move;
            let is_new = |name: &Name| !before.contains(name) && !names.is_gone_since(name, stream.began);
            stream.entries.extend(new.into_iter().filter(|(name, _)| is_new(name)));
        }
        let shown = stream.entries.get(before..).unwrap_or_default();
        self.note_siblings(dir, stream.began, shown.iter().filter(|(name, _)| !stream.archived.contains(name)));
        if stream.progress == Progress::End {
            self.end_listing(dir, stream)?;
        }
        Ok(())
    }

    /// The listing is whole: it is kept for lookups, and what exists only here is added.
    fn end_listing(self: &Arc<Self>, dir: Ino, stream: &mut DirStream) -> Result<()> {
        let inode = self.table.get_plain(dir)?;
        // What was listed before a move is of versions that are no more.
        if stream.before_move.is_empty() && DirNames::may_keep(stream.entries.len()) {
            self.table.keep_listing(&inode, stream.entries.iter().cloned().collect(), stream.began)?;
        }
        self.add_local(dir, stream);
        Ok(())
    }

    /// What exists only here.
    fn add_local(self: &Arc<Self>, dir: Ino, stream: &mut DirStream) {
        let shown: HashSet<&Name> = stream.entries.iter().map(|(name, _)| name).collect();
        let local = self
            .table
            .children(dir)
            .into_iter()
            .filter(|(name, child)| !shown.contains(name) && child.lock().may_be_missed_since(stream.began));
        let local: Vec<(Name, Listed)> =
            local.map(|(name, child)| (name, Listed { kind: child.kind(), version: None })).collect();
        stream.entries.extend(local);
    }

    /// The last listing, while it is fresh and nothing was changed here since.
    fn kept_listing(&self, dir: Ino) -> Result<Option<KeptListing>> {
        let inode = self.table.get_plain(dir)?;
        let mut data = inode.lock();
        Ok(data.dir()?.names.kept(Instant::now(), self.settings.freshness.dir_min))
    }

    /// Who reads a directory reads on: S3 takes its time for a page, and so does whoever looks at a thousand names.
    fn ask_next_page(self: &Arc<Self>, dir: Ino, passage: &Arc<Passage>, stream: &mut DirStream) {
        let Progress::More(token) = &stream.progress else { return };
        let Ok(prefix) = self.table.prefix_of(dir) else { return };
        let request = names_below(&prefix, Some(token.clone()));
        let (store, passage) = (self.store.clone(), passage.clone());
        let page = self.runtime.spawn(async move {
            let page = store.list(request).await;
            // No directory above is moved meanwhile.
            drop(passage);
            page
        });
        stream.next = Some(PageAhead::new((prefix, token.clone()), page));
    }

    async fn with_attributes(
        self: &Arc<Self>,
        dir: Ino,
        begin: u64,
        names: Vec<(Name, Listed)>,
        listing: (Instant, bool),
    ) -> Result<Vec<DirEntry>> {
        let work = names.into_iter().zip(begin + 1..).map(|((name, listed), next)| {
            let fs = self.clone();
            async move {
                let pin = fs.entry_of(dir, &name, &listed, listing).await?;
                Ok(pin.map(|pin| DirEntry {
                    next,
                    ino: pin.ino(),
                    kind: pin.inode().kind(),
                    file_type: Some(pin.inode().file_type()),
                    name: EntryName::Name(name),
                    attr: Some((pin.inode().attr(), Some(pin))),
                }))
            }
        });
        let found: Vec<Result<Option<DirEntry>>> = stream::iter(work).buffered(HEADS_AT_ONCE).collect().await;
        found.into_iter().filter_map(Result::transpose).collect()
    }

    /// The inode of a listed name; `None` when it went meanwhile. An object whose attributes may not be read shows with
    /// those that the listing gives.
    pub(super) async fn entry_of(
        self: &Arc<Self>,
        dir: Ino,
        name: &Name,
        listed: &Listed,
        (began, trusted): (Instant, bool),
    ) -> Result<Option<Pin>> {
        match self.resolve_listed(dir, name, listed, began, trusted).await {
            Ok(pin) => Ok(Some(pin)),
            Err(Error::NotFound | Error::Stale) => Ok(None),
            // HEAD of what is encrypted with a customer's key is 400.
            Err(Error::AccessDenied(_) | Error::CustomerKey(_) | Error::Server { status: 400, .. }) => {
                match &listed.version {
                    Some(version) => self.take_in_file(dir, name, (version.clone(), None), began).map(Some),
                    None => self.take_in_dir(dir, name, None, began).map(Some),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The kernel was told of an entry with its attributes: one lookup, which it will forget one day.
    pub fn told(&self, ino: Ino) {
        self.table.count_lookup(ino);
    }
}

/// Asks for the names in a directory, from a page on.
fn names_below(prefix: &DirPrefix, continuation: Option<String>) -> ListRequest {
    ListRequest { prefix: prefix.as_str().to_owned(), by_directory: true, continuation, ..ListRequest::default() }
}
