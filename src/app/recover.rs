//! `pailfs recover`: what killed mounts left in the stage is listed, stored, exported or thrown away.
//!
//! Owns the choice of files and what is said of each. All but storing works without S3. A session in use is left alone: its
//! lock is held by whoever uses it, and ours by us.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::{Builder, Runtime};

use super::process::complete_environment;
use super::sentence::{Failure, Status};
use super::{logging, mount, recover_rename, say};
use crate::config::{Config, RecoverAction, RecoverRequest};
use crate::error::Error;
use crate::inode::Attempt;
use crate::stage::{AwayPart, Doubt, LeftMoves, Leftover, RangeMap, Remaining, remaining};
use crate::store::{Attributes, ObjectStore};
use crate::transfer::{Need, Transfer};
use crate::types::{ByteRange, Expect, Name, ObjectKey};

/// Does it.
pub fn run(request: &RecoverRequest) -> ExitCode {
    complete_environment();
    match carry_out(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn carry_out(request: &RecoverRequest) -> Result<(), Failure> {
    let identity = request.config.as_ref().map(|config| config.identity());
    let dir = request.stage.dir.display();
    let sources = remaining(&request.stage.dir, identity.as_deref()).map_err(|error| {
        Failure::new(Status::System, format!("the stage directory {dir} can't be looked through: {error}"))
    })?;
    let Some(config) = &request.config else { return list_all(&sources) };
    let live: usize = sources.iter().map(|source| source.live.len()).sum();
    for session in sources.iter().flat_map(|source| &source.live) {
        say(&format!("a running mount uses the session {}, which is left alone", name_of(session)));
    }
    let prefix = config.source.prefix().as_str();
    let (mut found, mut renames) = (Vec::new(), Vec::new());
    for source in sources {
        found.extend(source.leftovers.into_iter().map(|left| Item::new(left, prefix)));
        renames.extend(source.renames);
    }
    let (chosen, renames) = choose(found, renames, &request.files, live)?;
    if request.action != RecoverAction::List && !renames.is_empty() {
        recover_rename::each(&renames, request.action == RecoverAction::Discard, prefix)?;
        if chosen.is_empty() {
            return Ok(());
        }
    }
    match &request.action {
        RecoverAction::List => list(&chosen, &renames, prefix),
        RecoverAction::Upload { force, to } => {
            let named = !request.files.is_empty();
            upload(config, chosen, &Upload { force: *force, to: to.as_deref(), named })
        }
        RecoverAction::Export(dir) => each(chosen, |item| export(item, dir)),
        RecoverAction::Discard => discard(config, chosen),
    }
}

/// A leftover and what it is called.
struct Item {
    left: Leftover,
    /// Below the prefix; empty without a readable record.
    path: String,
}

impl Item {
    fn new(left: Leftover, prefix: &str) -> Self {
        let key = left.key.as_ref().map(|key| key.as_str()).unwrap_or_default();
        let path = key.strip_prefix(prefix).unwrap_or(key).to_owned();
        Item { left, path }
    }

    fn name(&self) -> String {
        if self.path.is_empty() { self.left.id() } else { self.path.clone() }
    }

    /// What there is to say of it, as a part of a sentence.
    fn state(&self) -> String {
        let gaps: u64 = self.left.missing().iter().map(ByteRange::len).sum();
        let state = match (self.left.whole(), gaps) {
            (Ok(_), 0) => "whole, not stored yet".to_owned(),
            (Ok(_), gaps) => format!("whole, not stored yet; {gaps} bytes of it are those of the version it changed"),
            (Err(Doubt::Open), gaps) if gaps > 0 => {
                "it was still open, and not synced; only changed bytes are here".to_owned()
            }
            (Err(doubt), _) => doubt.to_string(),
        };
        match self.away() {
            0 => state,
            away => format!("{state}; {away} bytes of it are only in the unfinished upload of it in the bucket"),
        }
    }

    /// Bytes that are only in an upload that may still be there.
    fn away(&self) -> u64 {
        let has_upload = self.left.record.as_ref().is_ok_and(|record| record.upload_id.is_some());
        if has_upload { self.left.away().iter().map(|part| part.range.len()).sum() } else { 0 }
    }
}

fn list_all(sources: &[Remaining]) -> Result<(), Failure> {
    let mut text = String::new();
    let is_empty =
        |source: &Remaining| source.leftovers.is_empty() && source.renames.is_empty() && source.live.is_empty();
    for source in sources.iter().filter(|source| !is_empty(source)) {
        let (endpoint, url) = source.identity.split_once(' ').unwrap_or(("aws", &source.identity));
        let at = if endpoint == "aws" { String::new() } else { format!(" at {endpoint}") };
        text += &format!("{url}{at}\n");
        for session in &source.live {
            text += &format!("  {}  in use by a running mount\n", name_of(session));
        }
        let prefix = url.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).map_or("", |(_, prefix)| prefix);
        for left in &source.leftovers {
            text += &format!("  {}\n", line(&Item::new(left.clone(), prefix)));
        }
        for rename in &source.renames {
            text += &format!("  {}\n", recover_rename::line(rename, prefix));
        }
    }
    print(if text.is_empty() { "nothing is left\n" } else { &text });
    Ok(())
}

fn list(items: &[Item], renames: &[LeftMoves], prefix: &str) -> Result<(), Failure> {
    let mut text: String = items.iter().map(|item| line(item) + "\n").collect();
    text.extend(renames.iter().map(|rename| recover_rename::line(rename, prefix) + "\n"));
    print(if text.is_empty() { "nothing is left\n" } else { &text });
    Ok(())
}

fn line(item: &Item) -> String {
    format!("{}  {} bytes  {}: {}", item.left.id(), item.left.size, item.name(), item.state())
}

/// Sessions are named after the process that made them; a later mount may be at work on what it left.
fn name_of(session: &Path) -> String {
    session.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Those that were named, or all. A rename is named by its id.
fn choose(
    found: Vec<Item>,
    renames: Vec<LeftMoves>,
    named: &[String],
    live: usize,
) -> Result<(Vec<Item>, Vec<LeftMoves>), Failure> {
    if named.is_empty() {
        return Ok((found, renames));
    }
    for name in named {
        let matching = found.iter().filter(|item| item.left.id() == *name || item.path == *name).count()
            + renames.iter().filter(|rename| rename.file.id() == *name).count();
        let why = match (matching, live) {
            (1, _) => continue,
            (0, 0) => "nothing of that name is left; 'pailfs recover SOURCE' lists what is",
            (0, _) => "nothing of that name is left, as far as no running mount uses it",
            _ => "several files of that name are left; name one by its id, as 'pailfs recover SOURCE' shows it",
        };
        return Err(Failure::new(Status::Usage, format!("{name}: {why}")));
    }
    let is_meant = |item: &Item| named.contains(&item.left.id()) || named.contains(&item.path);
    let renames = renames.into_iter().filter(|rename| named.contains(&rename.file.id())).collect();
    Ok((found.into_iter().filter(is_meant).collect(), renames))
}

/// Does it to each, says so, and fails at the end if one of them failed.
fn each(items: Vec<Item>, mut act: impl FnMut(&Item) -> Result<String, String>) -> Result<(), Failure> {
    let mut failed = 0;
    for item in &items {
        match act(item) {
            Ok(done) => print(&format!("{}: {done}\n", item.name())),
            Err(why) => {
                failed += 1;
                say(&format!("{}: {why}", item.name()));
            }
        }
    }
    match failed {
        0 if items.is_empty() => print("nothing is left\n"),
        0 => {}
        _ => {
            return Err(Failure::new(Status::System, format!("{failed} file(s) are still in the stage, as they were")));
        }
    }
    Ok(())
}

/// Copies one file; what is there already is never replaced.
fn export(item: &Item, dir: &Path) -> Result<String, String> {
    if item.away() > 0 {
        return Err(format!("{}; --upload completes it", item.state()));
    }
    let segments: Option<Vec<Name>> = item.path.split('/').map(Name::from_key_segment).collect();
    let relative: PathBuf = match segments {
        Some(names) => names.iter().map(Name::as_str).collect(),
        // Without a name that can be a path: under its id.
        None => format!("unnamed-{}", item.left.id().replace('/', "-")).into(),
    };
    let target = dir.join(relative);
    let copy = || -> io::Result<()> {
        fs::create_dir_all(target.parent().unwrap_or(dir))?;
        let mut from = fs::File::open(&item.left.file)?;
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        let copied = io::copy(&mut from, &mut to).and_then(|_| to.sync_all());
        // Half a copy must not be taken for a whole one.
        copied.inspect_err(|_| _ = fs::remove_file(&target))
    };
    copy().map_err(|error| format!("it can't be copied to {}: {error}", target.display()))?;
    let lost = item.left.away();
    let note = match (lost.is_empty(), item.left.missing().is_empty()) {
        (false, _) => format!("; these bytes are lost, and read as zeros there: {}", places(&lost)),
        (true, true) => String::new(),
        (true, false) => {
            "; what is missing in it reads as zeros there: those bytes are only in the version that it changed"
                .to_owned()
        }
    };
    Ok(format!("copied to {}{note}", target.display()))
}

/// Where these parts lie, those that touch as one.
fn places(parts: &[AwayPart]) -> String {
    let map: RangeMap = parts.iter().map(|part| part.range).collect();
    let places: Vec<String> = map.iter().map(|range| format!("{} to {}", range.start, range.end - 1)).collect();
    places.join(", ")
}

/// Throws files away. Needs S3 only where an upload has bytes of one: who would abort it later?
fn discard(config: &Config, items: Vec<Item>) -> Result<(), Failure> {
    let reached = match items.iter().any(|item| item.away() > 0) {
        true => Some(reach(config)?),
        false => None,
    };
    each(items, |item| {
        if let (Some((runtime, store)), Ok(record)) = (&reached, &item.left.record)
            && let (Some(id), true) = (&record.upload_id, item.away() > 0)
        {
            match runtime.block_on(store.abort_upload(&record.key, id)) {
                Ok(()) | Err(Error::UploadGone | Error::NotFound) => {}
                Err(error) => return Err(format!("its unfinished upload can't be aborted: {error}")),
            }
        }
        item.left.clone().discard();
        Ok("discarded".to_owned())
    })
}

fn reach(config: &Config) -> Result<(Runtime, Arc<dyn ObjectStore>), Failure> {
    logging::start(&config.log, false)?;
    let runtime =
        Builder::new_multi_thread().enable_all().build().map_err(|e| Failure::system("starting threads", &e))?;
    let store: Arc<dyn ObjectStore> = Arc::new(runtime.block_on(mount::reach_bucket(config))?);
    Ok((runtime, store))
}

/// How to store.
struct Upload<'a> {
    force: bool,
    to: Option<&'a str>,
    /// The files were named: also those that were still open are meant.
    named: bool,
}

fn upload(config: &Config, items: Vec<Item>, how: &Upload) -> Result<(), Failure> {
    let (runtime, store) = reach(config)?;
    let transfer = Transfer::new(store.clone(), config.fs.transfer, runtime.handle().clone());
    let to = how.to.map(|path| key_of(config, path)).transpose()?;
    each(items, |item| runtime.block_on(store_one(item, (&store, &transfer), how, to.as_ref())))
}

fn key_of(config: &Config, path: &str) -> Result<ObjectKey, Failure> {
    let refused =
        || Failure::new(Status::Usage, format!("'{path}' can't be a path below the prefix; give another with --to"));
    let names: Option<Vec<Name>> = path.split('/').map(Name::from_key_segment).collect();
    let names = names.ok_or_else(refused)?;
    let (file, dirs) = names.split_last().ok_or_else(refused)?;
    let dir = dirs.iter().try_fold(config.source.prefix().clone(), |dir, name| dir.dir(name));
    dir.and_then(|dir| dir.file(file)).map_err(|_| refused())
}

async fn store_one(
    item: &Item,
    (store, transfer): (&Arc<dyn ObjectStore>, &Arc<Transfer>),
    how: &Upload<'_>,
    to: Option<&ObjectKey>,
) -> Result<String, String> {
    let left = &item.left;
    let record = left.record.as_ref().map_err(|fault| format!("{fault}; export it, or discard it"))?;
    match left.whole() {
        Err(doubt @ (Doubt::Open | Doubt::Restarted)) if !how.named => {
            return Err(format!("{doubt}, so it may be half a file; name it to store it as it is"));
        }
        Err(Doubt::Open) if !left.missing().is_empty() => {
            return Err("it was still open, and only changed bytes are here; export it, or discard it".to_owned());
        }
        Ok(_) | Err(Doubt::Open | Doubt::Restarted) => {}
        Err(doubt) => return Err(format!("{doubt}; export it, or discard it")),
    }
    if to.is_some() && item.away() > 0 {
        return Err(
            "parts of it are only in an unfinished upload under its own name: store it there, without --to".to_owned()
        );
    }
    let staged = Arc::new(left.open().map_err(|error| error.to_string())?);
    if let (false, Some(base)) = (staged.is_complete(), left.base()) {
        let whole = ByteRange::new(0, base.size);
        transfer.hydrate(&record.key, base, &staged, whole, Need::Must).await.map_err(|error| match error {
            Error::Stale | Error::NotFound | Error::PreconditionFailed => {
                "the version that it changed is gone, and with it the bytes that are missing here; export it".to_owned()
            }
            other => other.to_string(),
        })?;
    }
    let key = to.unwrap_or(&record.key);
    let attributes = Attributes::from(&record.attributes);
    let told = |error: Error| error.to_string();
    let sums = transfer.sums(&staged).await.map_err(told)?;
    let attempt = Attempt {
        size: staged.size(),
        sums,
        attributes: attributes.clone(),
        began: left.recorded,
        refuted: AtomicBool::new(false),
    };
    let expect = match (to, how.force) {
        (Some(_), _) => Expect::Absent,
        (None, true) => Expect::Any,
        (None, false) => expected(store, left, &record.expect, key).await.map_err(told)?,
    };
    match transfer.upload(key, &staged, &attributes, &expect).await {
        Ok(_) => {}
        Err(Error::PreconditionFailed) => {
            let ours = transfer.made_before(key, &staged, &attempt, &expect).await.map_err(told)?;
            ours.ok_or_else(|| conflict(to.is_some()))?;
        }
        Err(error) => return Err(error.to_string()),
    }
    if let Some(id) = &record.upload_id
        && let Err(error) = store.abort_upload(&record.key, id).await
        && !matches!(error, Error::UploadGone | Error::NotFound)
    {
        tracing::warn!(key = %record.key, %error, "an upload of the killed run is still in the bucket");
    }
    // Stored: nothing of it is needed here any more.
    staged.clean();
    Ok(format!("stored as {key}"))
}

fn conflict(elsewhere: bool) -> String {
    match elsewhere {
        true => "there is an object of that name already; give another path with --to",
        false => "another writer has changed or removed the object since; --force stores it all the same, --to PATH beside it",
    }
    .to_owned()
}

/// What was to replace anything at all is some time old: what was stored since is newer, and not replaced without being asked.
async fn expected(
    store: &Arc<dyn ObjectStore>,
    left: &Leftover,
    recorded: &Expect,
    key: &ObjectKey,
) -> crate::error::Result<Expect> {
    if *recorded != Expect::Any {
        return Ok(recorded.clone());
    }
    let known = left.record.as_ref().ok().and_then(|record| record.base.as_ref());
    match store.head(key).await {
        Err(Error::NotFound) => Ok(Expect::Absent),
        Ok(info) => {
            let seen = known.is_some_and(|base| base.same_bytes(&info.version));
            let older = info.version.modified <= left.recorded;
            Ok(if seen || older { Expect::Is(info.version.etag) } else { Expect::Absent })
        }
        Err(error) => Err(error),
    }
}

/// A reader that stops reading is no failure.
pub(super) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
