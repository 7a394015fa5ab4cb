//! The listing of one open directory, as its pages come.
//!
//! Owns the order in which names may show: offsets stay good, each name shows once, a directory wins over a file of its name. Knows
//! nothing of requests: pages are given to it.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::open::is_archived;
use super::readdir_ahead::AttributesAhead;
use crate::error::Result;
use crate::inode::{KeptListing, Kind, Listed};
use crate::store::ListPage;
use crate::types::{DirPrefix, Name};

/// How far the listing has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Start,
    More(String),
    End,
}

/// The listing of one open directory.
#[derive(Debug)]
pub(super) struct DirStream {
    pub entries: Vec<(Name, Listed)>,
    /// Files whose name a directory further on in the listing may still take: `a` before `a-b` before `a/`.
    held_back: BTreeMap<Name, Listed>,
    pub progress: Progress,
    pub began: Instant,
    pub changes: u64,
    /// Where the keys of the pages so far begin.
    prefix: Option<DirPrefix>,
    /// Names from before the directory was moved: its listing began anew then.
    pub before_move: HashSet<Name>,
    /// Files that can't be read before they are restored.
    pub archived: HashSet<Name>,
    pub ahead: AttributesAhead,
    /// The page that comes next.
    pub next: Option<PageAhead>,
}

/// A page that is asked for before the reader gets to it.
#[derive(Debug)]
pub(super) struct PageAhead {
    /// What it is a page of: below a prefix, after a token.
    place: (DirPrefix, String),
    page: JoinHandle<Result<ListPage>>,
}

impl PageAhead {
    pub fn new(place: (DirPrefix, String), page: JoinHandle<Result<ListPage>>) -> Self {
        PageAhead { place, page }
    }

    /// The page, if it is the one after this token; `None` also when it did not come.
    pub async fn arrive(mut self, prefix: &DirPrefix, token: Option<&str>) -> Option<ListPage> {
        if self.place.0 != *prefix || Some(self.place.1.as_str()) != token {
            return None;
        }
        // Of a failure the reader is told when it asks itself.
        (&mut self.page).await.ok()?.ok()
    }
}

impl Drop for PageAhead {
    fn drop(&mut self) {
        self.page.abort();
    }
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
            next: None,
        }
    }

    /// True when all names are there.
    pub fn is_whole(&self) -> bool {
        self.progress == Progress::End
    }

    /// A listing that was read to its end before, and still holds.
    pub fn of_kept(kept: KeptListing) -> Self {
        let KeptListing { entries, began, changes } = kept;
        DirStream { entries, began, changes, progress: Progress::End, ..DirStream::new() }
    }

    /// The listing goes on below `prefix`: anew, where that is another one than before.
    pub fn go_on(&mut self, prefix: &DirPrefix) {
        let before = self.prefix.replace(prefix.clone());
        if before.is_some_and(|before| before != *prefix) && matches!(self.progress, Progress::More(_)) {
            self.progress = Progress::Start;
            self.held_back.clear();
            self.before_move = self.entries.iter().map(|(name, _)| name.clone()).collect();
        }
    }

    /// Takes in one page. Returns how many keys can't be shown.
    pub fn take_page(&mut self, prefix: &DirPrefix, page: ListPage, ordered: bool) -> u64 {
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
