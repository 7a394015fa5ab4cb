//! The journal record beside a staged file: what it is, what it was based on, and whether it is sealed.
//!
//! Owns the format (one line of JSON, one line with its CRC-64/NVME) and its atomic writing. A record is
//! read back whole or not at all: what is torn, foreign or of another format is named so, never guessed at.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::away::{AwayLine, AwayPart};
use super::ranges::RangeMap;
use crate::error::{Error, Result};
use crate::types::{ByteRange, ETag, Expect, ObjectKey, UploadId, Version};

/// Number of the format below; another one is not read.
const FORMAT: u32 = 1;
/// Number of the format of a file of which some bytes are only in an upload: who does not know that must not read it.
const FORMAT_AWAY: u32 = 2;

/// What is known of a staged file beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it belongs.
    pub key: ObjectKey,
    /// The version whose bytes fill what is missing; `None` for a new file.
    pub base: Option<Version>,
    /// What must stand under the key when it is committed.
    pub expect: Expect,
    /// Whether it may be committed by somebody else.
    pub state: RecordState,
    /// Size of the file when the record was written.
    pub size: u64,
    /// What travels with the bytes.
    pub attributes: RecordAttributes,
    /// The multipart upload that is under way.
    pub upload_id: Option<UploadId>,
    /// What that upload makes, if its parts are bytes of the file ([`RecordAttributes::mark`]).
    pub upload_mark: Option<u64>,
    /// The parts whose bytes are only in that upload. Lost where it names none.
    pub away: Vec<AwayPart>,
}

/// Whether a staged file is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// A program still had it open: half a file, perhaps.
    Open,
    /// Closed, synced or being committed: a whole file.
    Sealed,
}

/// An object's attributes, as the record keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAttributes {
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// Storage class.
    pub storage_class: Option<String>,
    /// How it is encrypted. Older records have no word of it, nor of tags.
    #[serde(default)]
    pub encryption: Option<RecordEncryption>,
    /// Names and values of its tags.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
}

impl RecordAttributes {
    /// Tells what is made of a file with these attributes under `key` from all that is made of it otherwise: an upload takes
    /// both when it begins, and must not be completed for another file than that.
    pub fn mark(&self, key: &ObjectKey) -> Option<u64> {
        serde_json::to_vec(&(key.as_str(), self)).ok().map(|text| crc_fast::crc64_nvme(&text))
    }
}

/// An object's encryption, as the record keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordEncryption {
    /// As S3 names it.
    pub algorithm: String,
    /// The KMS key.
    pub key: Option<String>,
    /// A key of the bucket stands between.
    pub bucket_key: bool,
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// There is none.
    #[error("there is no record")]
    Missing,
    /// It is cut short, or its checksum does not match.
    #[error("the record is torn")]
    Torn,
    /// It is whole, but not of a format that this program knows.
    #[error("the record is of another program or version")]
    Foreign,
    /// The local file system failed.
    #[error("the record can't be read: {0}")]
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
struct Line {
    pailfs_record: u32,
    key: String,
    base: Option<BaseLine>,
    expect: ExpectLine,
    state: RecordState,
    size: u64,
    attributes: RecordAttributes,
    upload_id: Option<String>,
    #[serde(default)]
    upload_mark: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    away: Vec<AwayLine>,
    /// Start and end of what is here.
    present: Vec<(u64, u64)>,
    /// The run of the kernel in which it was written: what was not synced outlives processes, but not that.
    #[serde(default)]
    boot: String,
    /// The data was synced before it was written.
    #[serde(default)]
    synced: bool,
    /// When it was written, since 1970.
    #[serde(default)]
    written: Duration,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub record: Record,
    /// The bytes that were here then.
    pub present: Vec<ByteRange>,
    /// The data beside it is as it was then, also after a loss of power.
    pub durable: bool,
    /// When it was written.
    pub written: SystemTime,
}

/// This run of the kernel; empty where that can't be known.
static BOOT: LazyLock<String> = LazyLock::new(|| {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
});

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BaseLine {
    etag: String,
    size: u64,
    modified: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectLine {
    Any,
    Absent,
    Is(String),
}

impl BaseLine {
    pub(super) fn new(version: &Version) -> Self {
        BaseLine {
            etag: version.etag.as_str().to_owned(),
            size: version.size,
            modified: version.modified.duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// `None` for a time that can't be.
    pub(super) fn into_version(self) -> Option<Version> {
        let modified = UNIX_EPOCH.checked_add(self.modified)?;
        Some(Version { etag: ETag::parse(&self.etag), size: self.size, modified })
    }
}

impl Line {
    fn new(record: &Record, present: &[ByteRange]) -> Self {
        Line {
            pailfs_record: if record.away.is_empty() { FORMAT } else { FORMAT_AWAY },
            key: record.key.as_str().to_owned(),
            base: record.base.as_ref().map(BaseLine::new),
            expect: match &record.expect {
                Expect::Any => ExpectLine::Any,
                Expect::Absent => ExpectLine::Absent,
                Expect::Is(etag) => ExpectLine::Is(etag.as_str().to_owned()),
            },
            state: record.state,
            size: record.size,
            attributes: record.attributes.clone(),
            upload_id: record.upload_id.as_ref().map(|id| id.as_str().to_owned()),
            upload_mark: record.upload_mark,
            away: record.away.iter().map(AwayLine::new).collect(),
            present: present.iter().map(|range| (range.start, range.end)).collect(),
            boot: BOOT.clone(),
            synced: false,
            written: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    fn ranges(&self) -> Vec<ByteRange> {
        self.present.iter().map(|&(start, end)| ByteRange::new(start, end)).collect()
    }

    fn into_noted(self) -> Option<Noted> {
        let durable = self.synced || (!self.boot.is_empty() && self.boot == *BOOT);
        let present = self.ranges();
        let written = UNIX_EPOCH.checked_add(self.written)?;
        self.into_record().map(|record| Noted { record, present, durable, written })
    }

    fn into_record(self) -> Option<Record> {
        let base = match self.base {
            None => None,
            Some(base) => Some(base.into_version()?),
        };
        Some(Record {
            key: ObjectKey::from_store(self.key),
            base,
            expect: match self.expect {
                ExpectLine::Any => Expect::Any,
                ExpectLine::Absent => Expect::Absent,
                ExpectLine::Is(etag) => Expect::Is(ETag::parse(&etag)),
            },
            state: self.state,
            size: self.size,
            attributes: self.attributes,
            upload_id: self.upload_id.map(UploadId::new),
            upload_mark: self.upload_mark,
            away: self.away.iter().map(AwayLine::part).collect::<Option<_>>()?,
        })
    }
}

/// A line of JSON, and one with its checksum.
pub(super) fn encode(line: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line).map_err(|_| Error::Internal("encoding a record"))?;
    text.push(b'\n');
    let sum = crc_fast::crc64_nvme(&text);
    text.extend_from_slice(format!("{sum:016x}\n").as_bytes());
    Ok(text)
}

fn decode(text: &[u8]) -> Result<Line, RecordFault> {
    let line: Line = unsealed(text)?;
    if [FORMAT, FORMAT_AWAY].contains(&line.pailfs_record) { Ok(line) } else { Err(RecordFault::Foreign) }
}

/// What [`encode`] has made, if it is whole.
pub(super) fn unsealed<L: DeserializeOwned>(text: &[u8]) -> Result<L, RecordFault> {
    // 16 digits and the last line end.
    let split = text.len().checked_sub(17).ok_or(RecordFault::Torn)?;
    let (json, sum) = text.split_at(split);
    if sum != format!("{:016x}\n", crc_fast::crc64_nvme(json)).as_bytes() {
        return Err(RecordFault::Torn);
    }
    serde_json::from_slice(json).map_err(|_| RecordFault::Foreign)
}

/// Writes the record in one step: into a file beside it, which is then renamed over it. The data was `synced` before.
pub(super) fn save(path: &Path, record: &Record, present: &[ByteRange], synced: bool) -> Result<()> {
    write(path, &Line { synced, ..Line::new(record, present) })
}

fn write(path: &Path, line: &Line) -> Result<()> {
    let text = encode(line)?;
    let beside = path.with_extension("json.new");
    write_beside(&beside, path, &text)
        .inspect_err(|_| _ = std::fs::remove_file(&beside))
        .map_err(|err| Error::local("writing a journal record", err))
}

/// Changes what a record says of where its file belongs, and nothing of its bytes. A file without a record is left so.
pub(super) fn change(path: &Path, change: impl FnOnce(&mut Record)) -> Result<()> {
    let Ok(line) = read(path) else { return Ok(()) };
    let (boot, synced, written, present) = (line.boot.clone(), line.synced, line.written, line.ranges());
    let Some(mut record) = line.into_record() else { return Ok(()) };
    change(&mut record);
    write(path, &Line { boot, synced, written, ..Line::new(&record, &present) })
}

/// The data is on the disk now, with these bytes of it here: notes so, if there is a record.
pub(super) fn note_synced(path: &Path, size: u64, present: &[ByteRange]) -> Result<()> {
    let Ok(line) = read(path) else { return Ok(()) };
    let present = present.iter().map(|range| (range.start, range.end)).collect();
    write(path, &Line { synced: true, size, present, ..line })
}

/// These bytes are not here from now on: notes so, if there is a record.
pub(super) fn note_gone(path: &Path, gone: &[ByteRange]) -> Result<()> {
    let line = match read(path) {
        Ok(line) => line,
        Err(RecordFault::Missing) => return Ok(()),
        Err(fault) => return Err(Error::local("changing a journal record", std::io::Error::other(fault))),
    };
    let mut present: RangeMap = line.ranges().into_iter().collect();
    gone.iter().for_each(|range| present.remove(*range));
    let present = present.iter().map(|range| (range.start, range.end)).collect();
    write(path, &Line { present, ..line })
}

fn write_beside(beside: &Path, path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(beside)?;
    file.write_all(text)?;
    std::fs::rename(beside, path)
}

/// Brings a record to the disk, if there is one, and the names in its directory.
pub(super) fn sync(path: &Path) -> std::io::Result<()> {
    match File::open(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
        Err(_) => {}
        Ok(record) => record.sync_all()?,
    }
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn read(path: &Path) -> Result<Line, RecordFault> {
    match std::fs::read(path) {
        Ok(text) => decode(&text),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Err(RecordFault::Missing),
        Err(err) => Err(RecordFault::Unreadable(err.to_string())),
    }
}

/// Reads a record.
pub(super) fn load(path: &Path) -> Result<Noted, RecordFault> {
    read(path)?.into_noted().ok_or(RecordFault::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_record() -> Record {
        let version = Version { etag: ETag::parse("\"abc\""), size: 7, modified: UNIX_EPOCH + Duration::from_secs(9) };
        Record {
            key: ObjectKey::from_store("dir/ä\nb"),
            base: Some(version.clone()),
            expect: Expect::Is(version.etag),
            state: RecordState::Sealed,
            size: 12,
            attributes: RecordAttributes {
                content_type: Some("text/plain".into()),
                encryption: Some(RecordEncryption {
                    algorithm: "aws:kms".into(),
                    key: Some("key".into()),
                    bucket_key: true,
                }),
                tags: vec![("team".into(), "blue".into())],
                ..Default::default()
            },
            upload_id: Some(UploadId::new("u")),
            upload_mark: Some(u64::MAX),
            away: vec![AwayPart {
                index: 1,
                range: ByteRange::new(3, 5),
                crc: u64::MAX,
                etag: ETag::parse("\"part\""),
                checksum: Some("sum".into()),
            }],
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let present = vec![ByteRange::new(0, 3), ByteRange::new(5, 12)];
        let line = Line { written: Duration::from_secs(9), ..Line::new(&a_record(), &present) };
        let read = decode(&encode(&line).expect("encodes")).expect("decodes").into_noted();
        let written = UNIX_EPOCH + Duration::from_secs(9);
        assert_eq!(read, Some(Noted { record: a_record(), present, durable: true, written }));
    }

    #[test]
    fn what_was_not_synced_is_not_trusted_after_another_start_of_the_machine() {
        for (synced, durable) in [(false, false), (true, true)] {
            let line = Line { boot: "another".into(), synced, ..Line::new(&a_record(), &[]) };
            let read = decode(&encode(&line).expect("encodes")).expect("decodes").into_noted();
            assert_eq!(read.map(|noted| noted.durable), Some(durable));
        }
    }

    #[test]
    fn a_record_of_a_version_that_knew_no_tags_is_read() {
        let mut json = serde_json::to_value(Line::new(&a_record(), &[])).expect("encodes");
        assert!(
            ["upload_mark", "away"].into_iter().all(|name| json
                .as_object_mut()
                .expect("a record")
                .remove(name)
                .is_some())
        );
        let attributes = json["attributes"].as_object_mut().expect("attributes");
        assert!(attributes.remove("encryption").is_some() && attributes.remove("tags").is_some());
        let mut text = format!("{json}\n").into_bytes();
        text.extend_from_slice(format!("{:016x}\n", crc_fast::crc64_nvme(&text)).as_bytes());
        let read = decode(&text).expect("decodes").into_record().expect("a record").attributes;
        assert_eq!((read.encryption, read.tags), (None, Vec::new()));
        assert_eq!(read.content_type.as_deref(), Some("text/plain"));
    }

    #[test]
    fn a_record_cut_anywhere_is_torn() {
        let text = encode(&Line::new(&a_record(), &[])).expect("encodes");
        for len in 0..text.len() {
            assert_eq!(decode(&text[..len]).err(), Some(RecordFault::Torn), "cut at {len}");
        }
    }

    #[test]
    fn a_record_with_a_changed_byte_is_torn() {
        let text = encode(&Line::new(&a_record(), &[])).expect("encodes");
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed).err(), Some(RecordFault::Torn), "changed at {at}");
        }
    }

    #[test]
    fn a_record_of_another_format_is_foreign() {
        let json = b"{\"pailfs_record\":3}\n".to_vec();
        let text = [json.clone(), format!("{:016x}\n", crc_fast::crc64_nvme(&json)).into_bytes()].concat();
        assert_eq!(decode(&text).err(), Some(RecordFault::Foreign));
    }
}
