//! The architecture as a test: who may import whom, where foreign crates may be named, how long a file may be.
//!
//! It reads `src/**/*.rs` as text: a path `crate::x` (and `super::` that climbs out of its folder) is an edge from
//! the file's layer to that of `x`. Comments and test modules are read too: they have no reason to differ.

use std::path::{Path, PathBuf};

/// Most lines of a file.
const LINES_MAX: usize = 450;

/// Layer of each top-level module; a file imports its own module and lower layers, never sideways, never up.
const LAYERS: &[(&str, u8)] = &[
    ("backoff", 0),
    ("latency", 0),
    ("types", 0),
    ("error", 0),
    ("config", 0),
    ("store", 1),
    ("stage", 1),
    ("cache", 1),
    ("inode", 2),
    ("transfer", 3),
    ("fs", 4),
    ("fuse", 5),
    ("app", 6),
    ("lib", 7),
    ("main", 8),
];

/// Words that only some modules may name. The last column says why.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("fuser::", &["fuse"], "the kernel bridge alone knows the kernel's protocol"),
    ("use fuser", &["fuse"], "the kernel bridge alone knows the kernel's protocol"),
    ("aws_", &["store"], "the store alone knows the SDK"),
    ("clap::", &["config", "app"], "the command line is read once"),
    ("use clap", &["config", "app"], "the command line is read once"),
    ("libc::E", &["error", "fuse"], "errno is chosen in one place"),
];

struct Source {
    path: String,
    /// First folder or file below `src`, without `.rs`.
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "only {} files under {}", files.len(), root.display());
    let source = |path: PathBuf| {
        let relative = path.strip_prefix(&root).expect("below src").to_str().expect("UTF-8").to_owned();
        let module = relative.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        Source { module, text: std::fs::read_to_string(&path).expect("a source file"), path: relative }
    };
    files.into_iter().map(source).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Top-level modules that the text names, as `crate::x`, `crate::{x, y}` or `pailfs::x`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "pailfs::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "_:\"".contains(c)) {
                continue;
            }
            let rest = &text[at + start.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                found.extend(group_heads(group));
            } else {
                found.push(identifier(rest));
            }
        }
    }
    found.retain(|name| layer(name).is_some() || name == "demo");
    found
}

/// First words of the members of a `{...}` group, whose opening brace is cut off.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && depth == 0 && (c.is_alphabetic() || c == '_') => {
                heads.push(identifier(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The text without comment lines.
fn code(text: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_module_has_its_layer() {
    for source in sources() {
        assert!(source.module == "demo" || layer(&source.module).is_some(), "src/{} is in no layer", source.path);
    }
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "demo") {
        let own = layer(&source.module).expect("a layer");
        for import in imports(&source.text) {
            let allowed = match layer(&import) {
                _ if import == source.module => true,
                // The three of the ground floor know each other; the command `demo` runs the server.
                Some(0) if own == 0 => true,
                Some(other) => other < own,
                None => source.module == "app" || source.module == "lib",
            };
            if !allowed {
                wrong.push(format!("src/{} imports {import}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_server_of_demo_knows_nothing_of_the_rest() {
    for source in sources().iter().filter(|source| source.module == "demo") {
        let others: Vec<_> = imports(&source.text).into_iter().filter(|name| name != "demo").collect();
        assert!(others.is_empty(), "src/{} imports {others:?}", source.path);
    }
}

#[test]
fn foreign_names_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "demo") {
        let code = code(&source.text);
        for (word, places, why) in CONFINED {
            if !places.contains(&source.module.as_str()) && named(&code, word) {
                wrong.push(format!("src/{} names {word}: {why}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// True if `word` stands in `code` at the beginning of a path, as code and not as text of a message.
fn named(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        // libc::EXIT_SUCCESS and libc::EPOLLIN are no errors of a system call.
        let errno = word != "libc::E"
            || after.is_some_and(char::is_uppercase)
                && !["XIT_", "POLL"].iter().any(|no| code[at + 7..].starts_with(no));
        !before.is_some_and(|c| c.is_alphanumeric() || "_\"`'-".contains(c)) && errno
    })
}

#[test]
fn files_are_short() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), source.path.clone()))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn every_folder_says_what_it_owns() {
    for source in sources().iter().filter(|source| source.path.ends_with("mod.rs") || source.path == "lib.rs") {
        let docs = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!((3..=12).contains(&docs), "src/{} opens with {docs} lines of documentation", source.path);
    }
}

#[test]
fn there_are_no_other_layouts() {
    // A module `x` is `x.rs` or `x/mod.rs`, never `x.rs` beside `x/`.
    for source in sources() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source.path.trim_end_matches(".rs"));
        assert!(!folder.is_dir(), "src/{} stands beside a folder of its name", source.path);
    }
}

#[test]
fn no_promise_is_left_open_in_the_sources() {
    for source in sources() {
        for word in ["todo!(", "unimplemented!(", "allow(dead_code)", "dbg!("] {
            assert!(!code(&source.text).contains(word), "src/{} holds {word}", source.path);
        }
    }
}

#[test]
fn groups_of_imports_are_read() {
    assert_eq!(imports("use crate::{types::{Ino, Fh}, error::Result, fs};"), ["types", "error", "fs"]);
    assert_eq!(imports("use crate::stage::Stage; let x = crate::fuse::mount();"), ["stage", "fuse"]);
    assert_eq!(imports("mycrate::fs::x; not_pailfs::fs"), Vec::<String>::new());
    assert!(named("Err(libc::EIO)", "libc::E") && !named("libc::EPOLLIN", "libc::E"));
}
