//! The model: a tree of names and files in memory, with Linux's answers to each operation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::operation::{Flags, Operation, SLOTS, Way, bytes_of};

/// What an operation answers, on either side.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The slot has no open file: nothing is done.
    NoFile,
    Errno(i32),
    Bytes(Vec<u8>),
    Copied(usize),
    Names(Vec<String>),
    Stat(Entry),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Done => f.write_str("Done"),
            Answer::NoFile => f.write_str("NoFile"),
            Answer::Errno(number) => write!(f, "{}", std::io::Error::from_raw_os_error(*number)),
            Answer::Bytes(bytes) => write!(f, "{} bytes {:?}…", bytes.len(), &bytes[..bytes.len().min(8)]),
            Answer::Copied(count) => write!(f, "{count} bytes copied"),
            Answer::Names(names) => write!(f, "{names:?}"),
            Answer::Stat(entry) => write!(f, "{entry:?}"),
        }
    }
}

/// What stands under a name.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    Dir { mode: u32 },
    File { mode: u32, size: u64, bytes: Option<Vec<u8>> },
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Entry::Dir { mode } => write!(f, "directory {mode:o}"),
            Entry::File { mode, size, bytes } => {
                let head = bytes.as_ref().map(|bytes| bytes[..bytes.len().min(8)].to_vec());
                write!(f, "file {mode:o} of {size} bytes {head:?}")
            }
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
}

#[derive(Clone, Debug)]
enum Node {
    Dir(u32),
    File(Rc<RefCell<Content>>),
}

struct Handle {
    content: Rc<RefCell<Content>>,
    flags: Flags,
}

/// The whole model. Paths have no leading slash; the case's directory is `""`.
#[derive(Default)]
pub struct Reference {
    nodes: BTreeMap<String, Node>,
    handles: [Option<Handle>; SLOTS],
}

type Outcome<T = Answer> = Result<T, i32>;

impl Reference {
    pub fn apply(&mut self, operation: &Operation) -> Answer {
        self.attempt(operation).unwrap_or_else(Answer::Errno)
    }

    pub fn close_all(&mut self) {
        self.handles = Default::default();
    }

    /// Every file with its bytes.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let file = |(path, node): (&String, &Node)| match node {
            Node::File(content) => Some((path.clone(), content.borrow().bytes.clone())),
            Node::Dir(_) => None,
        };
        self.nodes.iter().filter_map(file).collect()
    }

    /// Everything, for a comparison.
    pub fn tree(&self) -> BTreeMap<String, Entry> {
        self.nodes.iter().map(|(path, node)| (path.clone(), entry(node, true))).collect()
    }

    fn attempt(&mut self, operation: &Operation) -> Outcome {
        use Operation::*;
        match operation {
            Open { slot, path, flags, mode } => self.open(*slot, path, *flags, *mode),
            Write { slot, at, len, seed } => self.with_writer(*slot, libc::EBADF, |content, append| {
                let start = if append { content.bytes.len() } else { *at as usize };
                grow(content, start + len);
                content.bytes[start..start + len].copy_from_slice(&bytes_of(*seed, *at, *len));
            }),
            Read { slot, at, len } => self.read(*slot, *at as usize, *len),
            Resize { slot, size } => {
                self.with_writer(*slot, libc::EINVAL, |content, _| content.bytes.resize(*size as usize, 0))
            }
            Allocate { slot, at, len, keep_size } => self.with_writer(*slot, libc::EBADF, |content, _| {
                if !keep_size {
                    grow(content, (at + len) as usize);
                }
            }),
            Punch { slot, at, len } => self.with_writer(*slot, libc::EBADF, |content, _| {
                let size = content.bytes.len();
                content.bytes[size.min(*at as usize)..size.min((at + len) as usize)].fill(0);
            }),
            Copy { from, to, from_at, to_at, len } => {
                self.copy((*from, *from_at as usize), (*to, *to_at as usize), *len)
            }
            Sync { slot } => Ok(if self.handles[*slot].is_some() { Answer::Done } else { Answer::NoFile }),
            Close { slot } => Ok(self.handles[*slot].take().map_or(Answer::NoFile, |_| Answer::Done)),
            Truncate { path, size } => {
                let content = self.file(path)?;
                content.borrow_mut().bytes.resize(*size as usize, 0);
                Ok(Answer::Done)
            }
            MakeDir { path, mode } => self.make(path, Node::Dir(*mode)),
            RemoveDir { path } => self.remove_dir(path),
            Unlink { path } => {
                self.file(path)?;
                self.nodes.remove(path);
                Ok(Answer::Done)
            }
            Rename { from, to, replace } => self.rename(from, to, *replace),
            SetMode { path, mode } => self.set_mode(path, *mode),
            SetTime { path, .. } => self.node(path).map(|_| Answer::Done),
            Stat { path } => Ok(Answer::Stat(entry(self.node(path)?, false))),
            List { path } => self.list(path),
            ReadWhole { path } => Ok(Answer::Bytes(self.file(path)?.borrow().bytes.clone())),
            Restart => {
                self.close_all();
                Ok(Answer::Done)
            }
        }
    }

    /// ENOENT or ENOTDIR for a path whose parents are not all directories.
    fn check_parents(&self, path: &str) -> Outcome<()> {
        for (at, _) in path.match_indices('/') {
            match self.nodes.get(&path[..at]) {
                Some(Node::Dir(_)) => {}
                Some(Node::File(_)) => return Err(libc::ENOTDIR),
                None => return Err(libc::ENOENT),
            }
        }
        Ok(())
    }

    fn node(&self, path: &str) -> Outcome<&Node> {
        self.check_parents(path)?;
        self.nodes.get(path).ok_or(libc::ENOENT)
    }

    fn file(&self, path: &str) -> Outcome<Rc<RefCell<Content>>> {
        match self.node(path)? {
            Node::File(content) => Ok(content.clone()),
            Node::Dir(_) => Err(libc::EISDIR),
        }
    }

    fn make(&mut self, path: &str, node: Node) -> Outcome {
        self.check_parents(path)?;
        if self.nodes.contains_key(path) {
            return Err(libc::EEXIST);
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(Answer::Done)
    }

    fn open(&mut self, slot: usize, path: &str, flags: Flags, mode: u32) -> Outcome {
        self.handles[slot] = None;
        self.check_parents(path)?;
        let content = match self.nodes.get(path) {
            Some(_) if flags.exclusive => return Err(libc::EEXIST),
            Some(Node::Dir(_)) => return Err(libc::EISDIR),
            Some(Node::File(content)) => content.clone(),
            None if !flags.create => return Err(libc::ENOENT),
            None => {
                let content = Rc::new(RefCell::new(Content { bytes: Vec::new(), mode }));
                self.nodes.insert(path.to_owned(), Node::File(content.clone()));
                content
            }
        };
        if flags.truncate {
            content.borrow_mut().bytes.clear();
        }
        self.handles[slot] = Some(Handle { content, flags });
        Ok(Answer::Done)
    }

    fn with_writer(&mut self, slot: usize, refused: i32, change: impl FnOnce(&mut Content, bool)) -> Outcome {
        let Some(handle) = &self.handles[slot] else { return Ok(Answer::NoFile) };
        if handle.flags.way == Way::Read {
            return Err(refused);
        }
        change(&mut handle.content.borrow_mut(), handle.flags.append);
        Ok(Answer::Done)
    }

    fn read(&self, slot: usize, at: usize, len: usize) -> Outcome {
        let Some(handle) = &self.handles[slot] else { return Ok(Answer::NoFile) };
        if handle.flags.way == Way::Write {
            return Err(libc::EBADF);
        }
        let bytes = &handle.content.borrow().bytes;
        let end = bytes.len().min(at + len);
        Ok(Answer::Bytes(bytes[at.min(end)..end].to_vec()))
    }

    /// In the order in which Linux looks (fs/read_write.c, generic_copy_file_checks): ways, the source's end, overlaps.
    fn copy(&mut self, (from, from_at): (usize, usize), (to, to_at): (usize, usize), len: usize) -> Outcome {
        let (Some(from), Some(to)) = (&self.handles[from], &self.handles[to]) else { return Ok(Answer::NoFile) };
        if from.flags.way == Way::Write || to.flags.way == Way::Read || to.flags.append {
            return Err(libc::EBADF);
        }
        let source = from.content.borrow().bytes.clone();
        let count = source.len().saturating_sub(from_at).min(len);
        if Rc::ptr_eq(&from.content, &to.content) && to_at + count > from_at && to_at < from_at + count {
            return Err(libc::EINVAL);
        }
        if count > 0 {
            let mut content = to.content.borrow_mut();
            grow(&mut content, to_at + count);
            content.bytes[to_at..to_at + count].copy_from_slice(&source[from_at..from_at + count]);
        }
        Ok(Answer::Copied(count))
    }

    fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.nodes.range(below.clone()..).next().is_some_and(|(there, _)| there.starts_with(&below))
    }

    fn remove_dir(&mut self, path: &str) -> Outcome {
        match self.node(path)? {
            Node::File(_) => return Err(libc::ENOTDIR),
            Node::Dir(_) if self.has_children(path) => return Err(libc::ENOTEMPTY),
            Node::Dir(_) => self.nodes.remove(path),
        };
        Ok(Answer::Done)
    }

    /// In the order in which Linux looks (fs/namei.c): parents, source, NOREPLACE, ancestors, kinds, emptiness.
    fn rename(&mut self, from: &str, to: &str, replace: bool) -> Outcome {
        self.check_parents(from)?;
        self.check_parents(to)?;
        let source = self.nodes.get(from).cloned().ok_or(libc::ENOENT)?;
        let target = self.nodes.get(to);
        if !replace && target.is_some() {
            return Err(libc::EEXIST);
        }
        if to.starts_with(&format!("{from}/")) {
            return Err(libc::EINVAL);
        }
        if from.starts_with(&format!("{to}/")) {
            return Err(libc::ENOTEMPTY);
        }
        if from == to {
            return Ok(Answer::Done);
        }
        match (&source, target) {
            (Node::Dir(_), Some(Node::File(_))) => return Err(libc::ENOTDIR),
            (Node::File(_), Some(Node::Dir(_))) => return Err(libc::EISDIR),
            (Node::Dir(_), Some(Node::Dir(_))) if self.has_children(to) => return Err(libc::ENOTEMPTY),
            _ => {}
        }
        let below = format!("{from}/");
        let moved: Vec<_> =
            self.nodes.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        for path in moved {
            if let Some(node) = self.nodes.remove(&path) {
                self.nodes.insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        Ok(Answer::Done)
    }

    fn set_mode(&mut self, path: &str, mode: u32) -> Outcome {
        self.node(path)?;
        match self.nodes.get_mut(path) {
            Some(Node::Dir(there)) => *there = mode,
            Some(Node::File(content)) => content.borrow_mut().mode = mode,
            None => {}
        }
        Ok(Answer::Done)
    }

    fn list(&self, path: &str) -> Outcome {
        if !path.is_empty() && matches!(self.node(path)?, Node::File(_)) {
            return Err(libc::ENOTDIR);
        }
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let name = |there: &String| there.strip_prefix(&below).filter(|rest| !rest.contains('/')).map(str::to_owned);
        Ok(Answer::Names(self.nodes.keys().filter_map(name).collect()))
    }
}

fn grow(content: &mut Content, size: usize) {
    if content.bytes.len() < size {
        content.bytes.resize(size, 0);
    }
}

fn entry(node: &Node, with_bytes: bool) -> Entry {
    match node {
        Node::Dir(mode) => Entry::Dir { mode: *mode },
        Node::File(content) => {
            let content = content.borrow();
            let bytes = with_bytes.then(|| content.bytes.clone());
            Entry::File { mode: content.mode, size: content.bytes.len() as u64, bytes }
        }
    }
}
