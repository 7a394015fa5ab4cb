//! Two writers of one file: what becomes of a change whose version another client has replaced (option `conflict`).
//!
//! Owns the names of conflict copies and the second commit. What a conflict is, and that one's own lost reply is none, is
//! told apart before, by `commit`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;

use super::Filesystem;
use crate::config::ConflictPolicy;
use crate::error::{Error, Result};
use crate::inode::{Draft, Inode, Kind, Listed, Owned};
use crate::store::Attributes;
use crate::types::{DirPrefix, Expect, NAME_MAX, Name, ObjectKey, Version};

/// Times that the other writer may be faster again before the change is refused.
const ROUNDS: usize = 8;

/// Names that are tried for one conflict copy: all of them were made by this host in the same second.
const NAMES: u32 = 100;

/// The last second of the year 9999: RFC 3339 knows no later one, and a file's time may be any.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// A conflict that has been put right.
pub(super) enum Resolved {
    /// The bytes stand under the file's own name, as this version.
    Replaced(Version, Box<Attributes>),
    /// They stand beside it; the file is the other writer's.
    Beside(Version),
}

impl Filesystem {
    /// Does with a change that has lost its base what the option `conflict` says.
    ///
    /// # Errors
    /// `Stale` where it says `fail`, or where some of the bytes would have to come from the version that is gone; what S3
    /// answers.
    pub(super) async fn resolve_conflict(&self, inode: &Arc<Inode>, draft: &Draft, path: &str) -> Result<Resolved> {
        let policy = self.settings.conflict;
        let away = draft.staged.has_away();
        if policy == ConflictPolicy::Fail || !(away || draft.staged.is_complete()) {
            return Err(Error::Stale);
        }
        if away && policy == ConflictPolicy::KeepBoth {
            tracing::warn!(
                path,
                "parts of the file are only in an upload for this name: it can't be stored beside the other version"
            );
            return Err(Error::Stale);
        }
        let key = self.table.key_of(inode.ino())?;
        for _ in 0..ROUNDS {
            let theirs = match self.store.head(&key).await {
                Ok(info) => Some(info),
                Err(Error::NotFound) => None,
                Err(error) => return Err(error),
            };
            let expect = match theirs {
                Some(theirs) if policy == ConflictPolicy::KeepBoth => {
                    let kept = self.keep_beside(inode, draft, &key).await?;
                    tracing::warn!(path, ours = %kept, "another client changed the file too; both versions are kept");
                    return Ok(Resolved::Beside(theirs.version));
                }
                Some(theirs) => Expect::Is(theirs.version.etag),
                // A name that is gone holds nothing that could be overwritten.
                None => Expect::Absent,
            };
            let attributes = self.attributes_to_commit(inode, &key, draft).await?;
            match self.transfer.upload(&key, &draft.staged, &attributes, &expect).await {
                Ok(version) => {
                    tracing::warn!(path, "another client changed the file too; its version was replaced");
                    return Ok(Resolved::Replaced(version, Box::new(attributes)));
                }
                Err(Error::PreconditionFailed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Stale)
    }

    /// Stores the bytes under a name of their own, and returns its key.
    async fn keep_beside(&self, inode: &Arc<Inode>, draft: &Draft, file: &ObjectKey) -> Result<ObjectKey> {
        let attributes = self.attributes_to_send(inode, file, &draft.origin).await?;
        // Parts that are in S3 already are of another object.
        self.transfer.call_back(&draft.staged);
        let place = self.table.place(inode.ino()).ok_or(Error::Stale)?;
        let dir = self.table.prefix_of(place.parent)?;
        // Not the time of this try, so that one after a lost reply finds its own work.
        let written = inode.lock().ownership.mtime;
        for number in 1..=NAMES {
            let suffix = conflict_suffix(&self.settings.host, written, number);
            let (name, key) = conflict_name(&dir, place.name.as_str(), &suffix).ok_or(Error::Stale)?;
            match self.transfer.upload(&key, &draft.staged, &attributes, &Expect::Absent).await {
                Ok(version) => {
                    self.note_name(place.parent, &name, Some(Listed { kind: Kind::File, version: Some(version) }));
                    return Ok(key);
                }
                Err(Error::PreconditionFailed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Stale)
    }

    /// From here on the name is the other writer's. Whoever has the file open still meant what was there before.
    pub(super) fn settle_beside(&self, owned: Owned, draft: &Draft, theirs: Version) -> Result<()> {
        draft.staged.clean();
        self.give_name_away(owned, Some(theirs), Ok(()))
    }
}

/// `.conflict-HOST-TIME`, the time in UTC, and a number when that name is taken.
fn conflict_suffix(host: &str, written: SystemTime, number: u32) -> String {
    let since = written.duration_since(UNIX_EPOCH).unwrap_or_default().min(LATEST);
    // A name without colons is one on other systems too.
    let time = format_rfc3339_seconds(UNIX_EPOCH + since).to_string().replace(['-', ':'], "");
    let number = if number > 1 { format!("-{number}") } else { String::new() };
    format!(".conflict-{host}-{time}{number}")
}

/// The name with its suffix, cut at its end until name and key are short enough. `None` when not even a letter is left.
fn conflict_name(dir: &DirPrefix, name: &str, suffix: &str) -> Option<(Name, ObjectKey)> {
    let most = NAME_MAX.checked_sub(suffix.len())?;
    let ends = name.char_indices().map(|(at, letter)| at + letter.len_utf8()).filter(|end| *end <= most);
    ends.rev().find_map(|end| {
        let name = Name::parse(format!("{}{suffix}", name.get(..end)?).as_bytes()).ok()?;
        let key = dir.file(&name).ok()?;
        Some((name, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(seconds: u64) -> String {
        conflict_suffix("host", UNIX_EPOCH + Duration::from_secs(seconds), 1)
    }

    #[test]
    fn the_suffix_tells_host_and_time() {
        // As `date -u -d @SECONDS +%Y%m%dT%H%M%SZ` says.
        assert_eq!(suffix(0), ".conflict-host-19700101T000000Z");
        assert_eq!(suffix(951_782_400), ".conflict-host-20000229T000000Z");
        assert_eq!(suffix(1_795_265_022), ".conflict-host-20261121T124342Z");
        assert_eq!(suffix(4_107_542_399), ".conflict-host-21000228T235959Z");
        assert_eq!(suffix(253_402_300_799), ".conflict-host-99991231T235959Z");
        assert_eq!(conflict_suffix("h", UNIX_EPOCH, 3), ".conflict-h-19700101T000000Z-3");
    }

    #[test]
    fn times_that_rfc_3339_does_not_know_are_cut() {
        assert_eq!(suffix(253_402_300_800), suffix(253_402_300_799));
        assert_eq!(suffix(i64::MAX as u64), suffix(253_402_300_799));
        assert_eq!(conflict_suffix("host", UNIX_EPOCH - Duration::from_secs(1), 1), suffix(0));
    }

    #[test]
    fn a_long_name_or_key_is_cut_at_a_letter() {
        let dir = DirPrefix::normalize("p");
        let named =
            |dir: &DirPrefix, name: &str| conflict_name(dir, name, ".conflict").map(|(name, _)| name.to_string());
        assert_eq!(named(&dir, "f").as_deref(), Some("f.conflict"));
        let long = named(&dir, &"ü".repeat(127)).unwrap_or_default();
        assert_eq!((long.len(), long.chars().filter(|c| *c == 'ü').count()), (255, 123));
        let deep = DirPrefix::normalize(&"d".repeat(1003));
        assert_eq!(named(&deep, "a name of some length").as_deref(), Some("a name of s.conflict"));
        assert_eq!(named(&DirPrefix::normalize(&"d".repeat(1020)), "f"), None);
    }
}
