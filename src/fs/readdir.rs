//! readdir and readdirplus: a directory's names, page by page as S3 lists them, together with what exists only here.
//!
//! Owns the snapshot behind one open directory: offsets stay good, each name shows once, a directory wins over a file of its
//! name. A listing that was read to its end is left with the directory's inode, for lookups.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};

use super::Filesystem;
use super::handle::DirHandle;
use super::open::is_archived;
use super::readdir_ahead::AttributesAhead;
use super::reply::{DirEntry, EntryName};
use crate::error::{Error, Result};
use crate::inode::{FileState, FileType, Kind, Listed, Pin, TARGET_MAX};
use crate::store::{ListPage, ListRequest};
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

/// How far the listing has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    Start,
    More(String),
    End,
}

/// The listing of one open directory.
#[derive(Debug)]
pub(super) struct DirStream {
    entries: Vec<(Name, Listed)>,
    /// Files whose name a directory further on in the listing may still take: `a` before `a-b` before `a/`.
    held_back: BTreeMap<Name, Listed>,
    progress: Progress,
    began: Instant,
    changes: u64,
    /// Where the keys of the pages so far begin.
    prefix: Option<DirPrefix>,
    /// Names from before the directory was moved: its listing began anew then.
    before_move: HashSet<Name>,
    /// Files that can't be read before they are restored.
    archived: HashSet<Name>,
    ahead: AttributesAhead,
}

impl DirStream {
    pub fn new() -> Self {
        DirStream {
            entries: Vec::new(),
            held_back: BTreeMap::new(),
            progress: Progress::Start,
            began: Instant::now(),
            changes: 0,
            prefix: None,
            before_move: HashSet::new(),
            archived: HashSet::new(),
            ahead: AttributesAhead::default(),
        }
    }

    /// True when all names are there.
    pub fn is_whole(&self) -> bool {
        self.progress == Progress::End
    }

    /// The listing goes on below `prefix`: anew, where that is another one than before.
    fn go_on(&mut self, prefix: &DirPrefix) {
        let before = self.prefix.replace(prefix.clone());
        if before.is_some_and(|before| before != *prefix) && matches!(self.progress, Progress::More(_)) {
            self.progress = Progress::Start;
            self.held_back.clear();
            self.before_move = self.entries.iter().map(|(name, _)| name.clone()).collect();
        }
    }

    /// Takes in one page. Returns how many keys can't be shown.
    fn take_page(&mut self, prefix: &DirPrefix, page: ListPage, ordered: bool) -> u64 {
        let mut hidden = 0;
        let mut reached = String::new();
        for object in page.objects {
            let rest = object.key.as_str().strip_prefix(prefix.as_str()).unwrap_or_default();
            if rest > reached.as_str() {
                reached = rest.to_owned();
            }
            match Name::from_key_segment(rest) {
                Some(name) => {
                    if is_archived(object.storage_class.as_deref()) {
                        self.archived.insert(name.clone());
                    }
                    self.held_back.insert(name, Listed { kind: Kind::File, version: Some(object.version) });
                }
                // The directory's own marker has an empty rest.
                None => hidden += u64::from(!rest.is_empty()),
            }
        }
        for common in page.prefixes {
            let rest = common.strip_prefix(prefix.as_str()).unwrap_or_default();
            if rest > reached.as_str() {
                reached = rest.to_owned();
            }
            match Name::from_key_segment(rest.strip_suffix('/').unwrap_or(rest)) {
                Some(name) => {
                    hidden += u64::from(self.held_back.remove(&name).is_some());
                    self.entries.push((name, Listed { kind: Kind::Dir, version: None }));
                }
                None => hidden += 1,
            }
        }
        self.progress = page.next.map_or(Progress::End, Progress::More);
        let all = self.progress == Progress::End;
        let held = std::mem::take(&mut self.held_back);
        for (name, listed) in held {
            if all || (ordered && format!("{name}/").as_str() < reached.as_str()) {
                self.entries.push((name, listed));
            } else {
                self.held_back.insert(name, listed);
            }
        }
        hidden
    }
}

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
            true => PLUS_AT_ONCE,
            false if self.keeps_metadata() => PAGE_AT_ONCE,
            false => PLAIN_AT_ONCE,
        };
        let mut stream = handle.stream.lock().await;
        let passage = Arc::new(self.table.pass(&[handle.ino]).await);
        if offset == 0 && stream.progress != Progress::Start {
            *stream = DirStream::new();
        }
        let until = offset.saturating_add(at_once);
        while (stream.entries.len() as u64 + DOTS) < until && stream.progress != Progress::End {
            self.next_page(handle.ino, &mut stream).await?;
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
        let request = ListRequest {
            prefix: prefix.as_str().to_owned(),
            by_directory: true,
            continuation,
            ..ListRequest::default()
        };
        let page = self.store.list(request).await?;
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
        if stream.before_move.is_empty() {
            let mut data = inode.lock();
            let names = &mut data.dir()?.names;
            names.keep_listing(stream.entries.iter().cloned().collect(), stream.began);
        }
        let shown: HashSet<&Name> = stream.entries.iter().map(|(name, _)| name).collect();
        let local = self
            .table
            .children(dir)
            .into_iter()
            .filter(|(name, child)| !shown.contains(name) && child.lock().may_be_missed_since(stream.began));
        let local: Vec<(Name, Listed)> =
            local.map(|(name, child)| (name, Listed { kind: child.kind(), version: None })).collect();
        stream.entries.extend(local);
        Ok(())
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
            Err(Error::AccessDenied(_) | Error::Server { status: 400, .. }) => match &listed.version {
                Some(version) => self.take_in_file(dir, name, (version.clone(), None), began).map(Some),
                None => self.take_in_dir(dir, name, None, began).map(Some),
            },
            Err(error) => Err(error),
        }
    }

    /// The kernel was told of an entry with its attributes: one lookup, which it will forget one day.
    pub fn told(&self, ino: Ino) {
        self.table.count_lookup(ino);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::store::ListedObject;
    use crate::types::{ETag, ObjectKey, Version};

    fn page(objects: &[&str], prefixes: &[&str], next: bool) -> ListPage {
        let version = Version { etag: ETag::parse("e"), size: 1, modified: SystemTime::UNIX_EPOCH };
        let object = |key: &&str| ListedObject {
            key: ObjectKey::from_store(*key),
            version: version.clone(),
            storage_class: None,
        };
        ListPage {
            objects: objects.iter().map(object).collect(),
            prefixes: prefixes.iter().map(|text| text.to_string()).collect(),
            next: next.then(|| "token".to_owned()),
        }
    }

    fn shown(stream: &DirStream) -> Vec<(String, Kind)> {
        let mut names: Vec<_> = stream.entries.iter().map(|(name, listed)| (name.to_string(), listed.kind)).collect();
        names.sort_by(|one, two| one.0.cmp(&two.0));
        names
    }

    #[test]
    fn a_directory_on_a_later_page_wins_over_the_file_of_its_name() {
        let prefix = DirPrefix::normalize("p");
        let mut stream = DirStream::new();
        assert_eq!(stream.take_page(&prefix, page(&["p/a", "p/a-b"], &[], true), true), 0);
        assert_eq!(shown(&stream), [], "`a` was shown before `a/` could come");
        assert_eq!(stream.take_page(&prefix, page(&["p/b"], &["p/a/"], false), true), 1);
        let expected = [("a".to_owned(), Kind::Dir), ("a-b".to_owned(), Kind::File), ("b".to_owned(), Kind::File)];
        assert_eq!(shown(&stream), expected);
    }

    #[test]
    fn names_are_shown_as_soon_as_no_directory_can_take_them() {
        let prefix = DirPrefix::normalize("p");
        let mut stream = DirStream::new();
        stream.take_page(&prefix, page(&["p/a", "p/b", "p/c"], &[], true), true);
        assert_eq!(shown(&stream), [("a".to_owned(), Kind::File), ("b".to_owned(), Kind::File)]);
        let mut unordered = DirStream::new();
        unordered.take_page(&prefix, page(&["p/a", "p/b", "p/c"], &[], true), false);
        assert_eq!(shown(&unordered), []);
    }

    #[test]
    fn keys_that_cannot_be_shown_are_counted_and_the_marker_is_not_one() {
        let prefix = DirPrefix::normalize("p");
        let mut stream = DirStream::new();
        let hidden = stream.take_page(&prefix, page(&["p/", "p/.", "p/ok"], &["p//", "p/../"], false), true);
        assert_eq!(hidden, 3);
        assert_eq!(shown(&stream), [("ok".to_owned(), Kind::File)]);
    }
}
