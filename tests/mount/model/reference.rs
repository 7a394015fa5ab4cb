//! The model: a tree of names and files in memory, with Linux's answers to each operation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::operation::{Flags, LARGE, Operation, SLOTS, Way, bytes_of};

/// What an operation answers, on either side.
#[derive(Clone, PartialEq)]
pub enum Answer {
    Done,
    /// The slot has no open file: nothing is done.
    NoFile,
    Errno(i32),
    Bytes(Vec<u8>),
    Copied(usize),
    Names(Vec<String>),
    Stat(Entry),
    Target(String),
    /// A sync told that it failed, as it should.
    Unstored,
    /// A sync told nothing, while the store refused everything.
    Stored,
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
            Answer::Target(target) => write!(f, "-> {target}"),
            Answer::Unstored => f.write_str("Unstored"),
            Answer::Stored => f.write_str("Stored"),
        }
    }
}

/// A time that a program has set, in seconds and nanoseconds. That of a change is not known, and like any other.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub Option<(i64, i64)>);

impl PartialEq for Time {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_none() || other.0.is_none() || self.0 == other.0
    }
}

/// What stands under a name.
#[derive(Clone, PartialEq)]
pub enum Entry {
    Dir { mode: u32, owner: (u32, u32) },
    Link { target: String, size: u64 },
    File { mode: u32, owner: (u32, u32), time: Time, size: u64, bytes: Option<Vec<u8>> },
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Entry::Dir { mode, owner } => write!(f, "directory {mode:o} of {owner:?}"),
            Entry::Link { target, size } => write!(f, "link to {target}, {size} bytes"),
            Entry::File { mode, owner, time, size, bytes } => {
                let head = bytes.as_ref().map(|bytes| bytes[..bytes.len().min(8)].to_vec());
                write!(f, "file {mode:o} of {owner:?}, {:?}, of {size} bytes {head:?}", time.0)
            }
        }
    }
}

#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    time: Time,
}

#[derive(Clone, Debug)]
enum Node {
    Dir(u32, (u32, u32)),
    File(Rc<RefCell<Content>>),
    Link(String),
}

/// Links that Linux follows on the way to a file (path_resolution(7)).
const LINKS_MAX: u32 = 40;

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

    /// Every file with its bytes, and every link with its target.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let file = |(path, node): (&String, &Node)| match node {
            Node::File(content) => Some((path.clone(), content.borrow().bytes.clone())),
            Node::Link(target) => Some((path.clone(), target.clone().into_bytes())),
            Node::Dir(..) => None,
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
            Open { slot, path, flags, mode } => {
                self.handles[*slot] = None;
                let content = self.open(path, *flags, *mode)?;
                self.handles[*slot] = Some(Handle { content, flags: *flags });
                Ok(Answer::Done)
            }
            CopyFile { from, to, .. } => {
                let flags = Flags { way: Way::Write, create: true, exclusive: false, truncate: true, append: false };
                let source = self.file(from)?;
                let target = self.open(to, flags, 0o644)?;
                let bytes = source.borrow().bytes.clone();
                target.borrow_mut().bytes = bytes;
                Ok(Answer::Done)
            }
            Put { path, len, seed } => {
                let flags = Flags { way: Way::Write, create: true, exclusive: false, truncate: true, append: false };
                self.open(path, flags, 0o644)?.borrow_mut().bytes = bytes_of(*seed, 0, *len);
                Ok(Answer::Done)
            }
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
            CopyOn { from, to, along, len } => {
                let end = self.handles[*to].as_ref().map_or(0, |to| to.content.borrow().bytes.len());
                if self.handles[*from].is_none() || end as u64 > LARGE {
                    return Ok(Answer::NoFile);
                }
                self.copy((*from, if *along { end } else { 0 }), (*to, end), *len)
            }
            Sync { slot } => Ok(if self.handles[*slot].is_some() { Answer::Done } else { Answer::NoFile }),
            Close { slot } => Ok(self.handles[*slot].take().map_or(Answer::NoFile, |_| Answer::Done)),
            Truncate { path, size } => {
                let content = self.file(path)?;
                let mut content = content.borrow_mut();
                content.bytes.resize(*size as usize, 0);
                content.time = Time(None);
                Ok(Answer::Done)
            }
            MakeDir { path, mode } => self.make(path, Node::Dir(*mode, me())),
            RemoveDir { path } => self.remove_dir(path),
            Unlink { path } => match self.at(path, false)? {
                (_, Node::Dir(..)) => Err(libc::EISDIR),
                (path, _) => {
                    self.nodes.remove(&path);
                    Ok(Answer::Done)
                }
            },
            MakeLink { target, path } => self.make(path, Node::Link(target.clone())),
            ReadLink { path } => match self.at(path, false)? {
                (_, Node::Link(target)) => Ok(Answer::Target(target)),
                _ => Err(libc::EINVAL),
            },
            Rename { from, to, replace } => self.rename(from, to, *replace),
            SetMode { path, mode } => self.set(path, |there, _| *there = *mode),
            SetOwner { path, uid, gid } => self.set(path, |_, there| *there = (*uid, *gid)),
            SetTime { path, seconds, nanoseconds } => {
                if let (_, Node::File(content)) = self.at(path, true)? {
                    content.borrow_mut().time = Time(Some((*seconds, *nanoseconds)));
                }
                Ok(Answer::Done)
            }
            Stat { path } => Ok(Answer::Stat(entry(&self.at(path, false)?.1, false))),
            List { path } => self.list(path),
            ReadWhole { path } => Ok(Answer::Bytes(self.file(path)?.borrow().bytes.clone())),
            Restart => {
                self.close_all();
                Ok(Answer::Done)
            }
            WriteUnstored { .. } => Ok(Answer::Done),
        }
    }

    /// What a sync says that can't store what was just written.
    pub fn sync_in_vain(&self, slot: usize) -> Answer {
        let Some(handle) = &self.handles[slot] else { return Answer::NoFile };
        let is_it = |node: &Node| matches!(node, Node::File(content) if Rc::ptr_eq(content, &handle.content));
        if self.nodes.values().any(is_it) { Answer::Unstored } else { Answer::Done }
    }

    /// Where a path leads, through links: also to a name that is free, in a directory that is there. The last name is followed
    /// if `follow` says so.
    fn resolve(&self, path: &str, follow: bool) -> Outcome<String> {
        let (mut at, mut links) = (String::new(), 0);
        let mut names: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        while let Some(name) = names.pop() {
            let next = if at.is_empty() { name } else { format!("{at}/{name}") };
            match self.nodes.get(&next) {
                Some(Node::Link(target)) if follow || !names.is_empty() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(libc::ELOOP);
                    }
                    names.extend(target.rsplit('/').map(str::to_owned));
                }
                Some(Node::Dir(..)) => at = next,
                _ if names.is_empty() => return Ok(next),
                Some(_) => return Err(libc::ENOTDIR),
                None => return Err(libc::ENOENT),
            }
        }
        Ok(at)
    }

    /// What is there, and its own path.
    fn at(&self, path: &str, follow: bool) -> Outcome<(String, Node)> {
        let path = self.resolve(path, follow)?;
        let node = self.nodes.get(&path).cloned().ok_or(libc::ENOENT)?;
        Ok((path, node))
    }

    fn file(&self, path: &str) -> Outcome<Rc<RefCell<Content>>> {
        match self.at(path, true)?.1 {
            Node::File(content) => Ok(content),
            _ => Err(libc::EISDIR),
        }
    }

    fn make(&mut self, path: &str, node: Node) -> Outcome {
        let path = self.resolve(path, false)?;
        if self.nodes.contains_key(&path) {
            return Err(libc::EEXIST);
        }
        self.nodes.insert(path, node);
        Ok(Answer::Done)
    }

    fn open(&mut self, path: &str, flags: Flags, mode: u32) -> Outcome<Rc<RefCell<Content>>> {
        let path = self.resolve(path, !flags.exclusive)?;
        let content = match self.nodes.get(&path) {
            Some(_) if flags.exclusive => return Err(libc::EEXIST),
            Some(Node::File(content)) => content.clone(),
            Some(_) => return Err(libc::EISDIR),
            None if !flags.create => return Err(libc::ENOENT),
            None => {
                let content = Content { bytes: Vec::new(), mode, owner: me(), time: Time(None) };
                let content = Rc::new(RefCell::new(content));
                self.nodes.insert(path, Node::File(content.clone()));
                content
            }
        };
        if flags.truncate {
            let mut content = content.borrow_mut();
            content.bytes.clear();
            content.time = Time(None);
        }
        Ok(content)
    }

    fn with_writer(&mut self, slot: usize, refused: i32, change: impl FnOnce(&mut Content, bool)) -> Outcome {
        let Some(handle) = &self.handles[slot] else { return Ok(Answer::NoFile) };
        if handle.flags.way == Way::Read {
            return Err(refused);
        }
        let mut content = handle.content.borrow_mut();
        change(&mut content, handle.flags.append);
        content.time = Time(None);
        drop(content);
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
        let size = from.content.borrow().bytes.len();
        let count = size.saturating_sub(from_at).min(len);
        if Rc::ptr_eq(&from.content, &to.content) && to_at + count > from_at && to_at < from_at + count {
            return Err(libc::EINVAL);
        }
        if count > 0 {
            let copied = from.content.borrow().bytes[from_at..from_at + count].to_vec();
            let mut content = to.content.borrow_mut();
            content.time = Time(None);
            grow(&mut content, to_at + count);
            content.bytes[to_at..to_at + count].copy_from_slice(&copied);
        }
        Ok(Answer::Copied(count))
    }

    fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.nodes.range(below.clone()..).next().is_some_and(|(there, _)| there.starts_with(&below))
    }

    fn remove_dir(&mut self, path: &str) -> Outcome {
        match self.at(path, false)? {
            (path, Node::Dir(..)) if self.has_children(&path) => return Err(libc::ENOTEMPTY),
            (path, Node::Dir(..)) => self.nodes.remove(&path),
            _ => return Err(libc::ENOTDIR),
        };
        Ok(Answer::Done)
    }

    /// In the order in which Linux looks (fs/namei.c): parents, source, NOREPLACE, ancestors, kinds, emptiness.
    fn rename(&mut self, from: &str, to: &str, replace: bool) -> Outcome {
        let (from, to) = (self.resolve(from, false)?, self.resolve(to, false)?);
        let (from, to) = (from.as_str(), to.as_str());
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
            (Node::Dir(..), Some(Node::Dir(..))) if self.has_children(to) => return Err(libc::ENOTEMPTY),
            (Node::Dir(..), Some(Node::Dir(..)) | None) => {}
            (Node::Dir(..), Some(_)) => return Err(libc::ENOTDIR),
            (_, Some(Node::Dir(..))) => return Err(libc::EISDIR),
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

    /// Changes mode or owner of what a path leads to.
    fn set(&mut self, path: &str, change: impl FnOnce(&mut u32, &mut (u32, u32))) -> Outcome {
        let (path, _) = self.at(path, true)?;
        match self.nodes.get_mut(&path) {
            Some(Node::Dir(mode, owner)) => change(mode, owner),
            Some(Node::File(content)) => {
                let mut content = content.borrow_mut();
                let Content { mode, owner, .. } = &mut *content;
                change(mode, owner);
            }
            _ => {}
        }
        Ok(Answer::Done)
    }

    fn list(&self, path: &str) -> Outcome {
        let path = match path {
            "" => String::new(),
            path => match self.at(path, true)? {
                (path, Node::Dir(..)) => path,
                _ => return Err(libc::ENOTDIR),
            },
        };
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
        Node::Dir(mode, owner) => Entry::Dir { mode: *mode, owner: *owner },
        Node::Link(target) => Entry::Link { target: target.clone(), size: target.len() as u64 },
        Node::File(content) => {
            let content = content.borrow();
            let Content { mode, owner, time, .. } = *content;
            let bytes = with_bytes.then(|| content.bytes.clone());
            Entry::File { mode, owner, time, size: content.bytes.len() as u64, bytes }
        }
    }
}

/// Whom new files belong to.
pub fn me() -> (u32, u32) {
    // SAFETY: neither has preconditions, nor can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}
