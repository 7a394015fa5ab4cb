//! The files of a directory in the two orders in which programs open them: as they were listed, and by inode number.
//!
//! cp(1) sorts what it lists by inode number, since that is faster on disks; tar(1), grep(1) and most others don't sort, or
//! sort by name, which is the order of the listing. Knows nothing of requests.

use std::ops::Range;
use std::time::Instant;

use super::order::{Limits, Run};
use crate::types::{Ino, Name};

/// A file as it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sibling {
    pub ino: Ino,
    pub name: Name,
    /// Bytes; what is not to be fetched at all has none of it.
    pub size: Option<u64>,
}

/// The files of one directory, and how they are being opened.
#[derive(Debug)]
pub(super) struct Siblings {
    pub dir: Ino,
    /// When the listing began.
    pub listed_at: Instant,
    files: Vec<Sibling>,
    /// Positions in `files`, by number; shorter than `files` until somebody asks.
    numbered: Vec<(Ino, u32)>,
    by_name: Run,
    by_number: Run,
}

impl Siblings {
    pub fn new(dir: Ino, listed_at: Instant) -> Self {
        Siblings {
            dir,
            listed_at,
            files: Vec::new(),
            numbered: Vec::new(),
            by_name: Run::default(),
            by_number: Run::default(),
        }
    }

    /// Adds what the next page of the listing shows.
    pub fn extend(&mut self, files: impl IntoIterator<Item = Sibling>) {
        self.files.extend(files);
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The files to fetch now that `ino` is opened. `used` says that it had been fetched ahead.
    pub fn opened(&mut self, ino: Ino, used: bool, trusted: bool, now: Instant, limits: Limits) -> Vec<Sibling> {
        self.sort();
        let Ok(rank) = self.numbered.binary_search_by_key(&ino, |(ino, _)| *ino) else { return Vec::new() };
        let Some((_, position)) = self.numbered.get(rank) else { return Vec::new() };
        self.by_name.opened(*position as usize, used, trusted, now, limits);
        self.by_number.opened(rank, used, trusted, now, limits);
        // Where both are in order, as at the beginning, the listing's own is the likelier one.
        if self.by_name.length() >= self.by_number.length() {
            let wanted = self.by_name.wanted();
            self.files.get(cut(wanted, self.files.len())).unwrap_or_default().to_vec()
        } else {
            let wanted = self.by_number.wanted();
            let wanted = self.numbered.get(cut(wanted, self.files.len())).unwrap_or_default();
            wanted.iter().filter_map(|(_, position)| self.files.get(*position as usize).cloned()).collect()
        }
    }

    /// Bytes of a file that was listed and may be fetched.
    pub fn size_of(&mut self, ino: Ino) -> Option<u64> {
        self.sort();
        let rank = self.numbered.binary_search_by_key(&ino, |(ino, _)| *ino).ok()?;
        let (_, position) = self.numbered.get(rank)?;
        self.files.get(*position as usize)?.size
    }

    /// True when the last open was in order.
    pub fn in_order(&self) -> bool {
        self.by_name.is_under_way() || self.by_number.is_under_way()
    }

    /// True when enough guesses were right.
    pub fn is_proven(&self) -> bool {
        self.by_name.is_proven() || self.by_number.is_proven()
    }

    /// A file that was fetched ahead was not opened.
    pub fn wasted(&mut self) {
        self.by_name.wasted();
        self.by_number.wasted();
    }

    fn sort(&mut self) {
        if self.numbered.len() < self.files.len() {
            let from = self.numbered.len();
            let new = self.files.iter().zip(0u32..).skip(from).map(|(file, position)| (file.ino, position));
            self.numbered.extend(new);
            self.numbered.sort_unstable();
        }
    }
}

fn cut(range: Range<usize>, len: usize) -> Range<usize> {
    range.start.min(len)..range.end.min(len)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits { files: 8, within: Duration::from_millis(500) };

    /// Twenty files whose numbers have nothing to do with their names.
    fn siblings() -> Siblings {
        let mut siblings = Siblings::new(Ino::ROOT, Instant::now());
        siblings.extend((0..20u64).map(|index| Sibling {
            ino: Ino::new(100 + index * 7 % 20),
            name: Name::parse(format!("f{index:02}").as_bytes()).expect("a name"),
            size: Some(1),
        }));
        siblings
    }

    fn open(siblings: &mut Siblings, inos: impl IntoIterator<Item = u64>) -> Vec<String> {
        let now = Instant::now();
        let mut fetched = Vec::new();
        for ino in inos {
            let wanted = siblings.opened(Ino::new(ino), false, false, now, LIMITS);
            fetched.extend(wanted.into_iter().map(|file| file.name.to_string()));
        }
        fetched
    }

    #[test]
    fn files_opened_as_listed_are_followed_by_those_listed_next() {
        assert_eq!(open(&mut siblings(), [100, 107]), ["f02", "f03"]);
    }

    #[test]
    fn files_opened_by_number_are_followed_by_the_next_numbers() {
        // Number 102 is that of the sixth file (6 * 7 = 42), 103 that of the ninth.
        assert_eq!(open(&mut siblings(), [100, 101]), ["f06", "f09"]);
    }

    #[test]
    fn other_orders_and_the_end_of_the_directory_fetch_nothing() {
        assert!(open(&mut siblings(), [100, 105, 118, 111, 103]).is_empty());
        assert!(open(&mut siblings(), [126, 113]).is_empty());
        assert!(open(&mut siblings(), [999]).is_empty());
    }
}
