//! The gate between changes in directories and the renames of whole directories.
//!
//! A change (create, commit, unlink, …) passes the gate with the directories it works in; a rename of a directory closes
//! the gate for everything below it, waits until the changes under way there are done, and opens it again. Owns
//! counters only, behind the table's lock; waiting happens on a watch, after the lock is released.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::table::{InodeTable, Rows};
use crate::types::Ino;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Gate {
    changes: HashMap<Ino, usize>,
    moving: HashSet<Ino>,
}

/// Held while a change is under way in some directories.
#[derive(Debug)]
pub struct Passage {
    table: Arc<InodeTable>,
    dirs: Vec<Ino>,
}

/// Held while a directory is being moved: everything below it waits.
#[derive(Debug)]
pub struct Closed {
    table: Arc<InodeTable>,
    top: Ino,
}

impl Passage {
    /// True when changes in `dir` may be made.
    pub fn is_through(&self, dir: Ino) -> bool {
        self.dirs.contains(&dir)
    }
}

impl Closed {
    /// The directory that may be moved now.
    pub(super) fn top(&self) -> Ino {
        self.top
    }
}

impl Rows {
    fn is_closed(&self, dir: Ino) -> bool {
        self.gate.moving.iter().any(|top| self.is_at_or_below(dir, *top))
    }

    fn is_busy_below(&self, top: Ino) -> bool {
        self.gate.changes.keys().any(|dir| self.is_at_or_below(*dir, top))
    }
}

impl InodeTable {
    /// Passes the gate with these directories, waiting while one of them is being moved. A holder must not pass again: it
    /// hands its passage on instead.
    pub async fn pass(self: &Arc<Self>, dirs: &[Ino]) -> Passage {
        let mut changed = self.gate_changed.subscribe();
        loop {
            if let Some(passage) = self.try_pass(dirs) {
                return passage;
            }
            // The sender lives in the table, which this holds: the wait can't fail.
            let _ = changed.changed().await;
        }
    }

    fn try_pass(self: &Arc<Self>, dirs: &[Ino]) -> Option<Passage> {
        let mut rows = self.rows();
        if dirs.iter().any(|dir| rows.is_closed(*dir)) {
            return None;
        }
        for dir in dirs {
            *rows.gate.changes.entry(*dir).or_default() += 1;
        }
        Some(Passage { table: self.clone(), dirs: dirs.to_vec() })
    }

    /// Closes the gate for everything at and below `top`, and waits until no change is under way there. The caller holds a
    /// passage for the directories that `top` moves between, which are not below it.
    pub async fn close_below(self: &Arc<Self>, top: Ino) -> Closed {
        let mut changed = self.gate_changed.subscribe();
        self.rows().gate.moving.insert(top);
        let closed = Closed { table: self.clone(), top };
        while self.rows().is_busy_below(top) {
            let _ = changed.changed().await;
        }
        closed
    }

    fn gate_moved(&self) {
        self.gate_changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let mut rows = self.table.rows();
        for dir in &self.dirs {
            if let Some(count) = rows.gate.changes.get_mut(dir) {
                *count -= 1;
                if *count == 0 {
                    rows.gate.changes.remove(dir);
                }
            }
        }
        drop(rows);
        self.table.gate_moved();
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.table.rows().gate.moving.remove(&self.top);
        self.table.gate_moved();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::FutureExt;

    use super::*;
    use crate::inode::attr::{Kind, Ownership};
    use crate::inode::node::{Body, Inode};
    use crate::inode::table::Pin;
    use crate::types::{DirPrefix, Name};

    fn table_with_nested_dirs() -> (Arc<InodeTable>, Pin, Pin) {
        let time = SystemTime::UNIX_EPOCH;
        let ownership = Ownership {
            file_type: Default::default(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: time,
            atime: time,
            ctime: time,
        };
        let table = InodeTable::new(DirPrefix::normalize(""), ownership);
        let add = |parent, text: &str| {
            let name = Name::parse(text.as_bytes()).expect("a name");
            let make = |ino| Inode::new(ino, Kind::Dir, ownership, Body::Dir(Box::default()));
            table.attach(parent, &name, Kind::Dir, make).expect("a directory")
        };
        let outer = add(Ino::ROOT, "outer");
        let inner = add(outer.ino(), "inner");
        (table, outer, inner)
    }

    #[test]
    fn a_change_below_a_moving_directory_waits_and_others_do_not() {
        let (table, outer, inner) = table_with_nested_dirs();
        let closed = table.close_below(outer.ino()).now_or_never().expect("nothing is under way");
        assert!(table.pass(&[inner.ino()]).now_or_never().is_none(), "a change went into a moving directory");
        assert!(table.pass(&[Ino::ROOT]).now_or_never().is_some(), "a change elsewhere had to wait");
        drop(closed);
        assert!(table.pass(&[inner.ino()]).now_or_never().is_some(), "the gate stayed closed");
    }

    #[test]
    fn a_move_waits_for_the_changes_under_way_below() {
        let (table, outer, inner) = table_with_nested_dirs();
        let passage = table.try_pass(&[inner.ino()]).expect("the gate is open");
        let mut closing = Box::pin(table.close_below(outer.ino()));
        assert!(closing.as_mut().now_or_never().is_none(), "a move did not wait");
        drop(passage);
        assert!(closing.now_or_never().is_some(), "a move waited for nothing");
        assert!(table.pass(&[inner.ino()]).now_or_never().is_some(), "a move that was dropped left the gate closed");
    }
}
