//! A store in memory that does as it is told, also wrongly: each call may meet a fault that waits for it.
//!
//! Owns objects, uploads, the faults to come and the calls that were made. Knows nothing of who calls.

mod body;
mod listing;
mod uploads;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use self::body::body;
use self::uploads::Upload;
use crate::error::{Error, Result};
use crate::store::*;
use crate::types::{ByteRange, ETag, Expect, ObjectKey, PartNumber, UploadId, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Head,
    Tags,
    Get,
    Put,
    Create,
    Part,
    PartCopy,
    ListParts,
    Complete,
    Abort,
    Copy,
    List,
    Delete,
}

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing is done.
    Fail(Error),
    /// It is done, and the answer is an error.
    DoneBut(Error),
    /// The body breaks after so many bytes.
    Cut(u64),
    /// The body ends after so many bytes as if that were all.
    End(u64),
    /// The body goes silent after so many bytes.
    Stall(u64),
    /// The byte at this place in the body is another one.
    Flip(u64),
    /// The answer is of other bytes than those asked for.
    WrongRange,
    /// It never answers.
    Hang,
    /// Nothing is done, and it is answered when the test says so.
    FailLate(Arc<Notify>, Error),
    /// It is done at once, and answered when the test says so.
    Late(Arc<Notify>),
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    info: ObjectInfo,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Object>,
    uploads: HashMap<UploadId, Upload>,
    faults: Vec<(Call, Fault)>,
    calls: Vec<Call>,
    gets: Vec<ByteRange>,
    lists: Vec<ListRequest>,
    puts_from_file: usize,
    versions: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Fake {
    state: Mutex<State>,
    running: AtomicUsize,
    /// Most part uploads that ran at once.
    pub(crate) most_at_once: AtomicUsize,
    reading: AtomicUsize,
    /// Most GETs that ran at once.
    pub(crate) most_gets_at_once: AtomicUsize,
    /// Objects are made without checksums.
    without_checksums: bool,
    /// It tells no checksums of parts.
    tells_no_sums: bool,
    /// It renames objects, as directory buckets do.
    renames: bool,
    /// Its listings come in no order, as those of directory buckets do.
    lists_in_no_order: bool,
    /// Its copies are made whatever stands at the target, as MinIO's are.
    pub(crate) copies_over: bool,
    /// Parts are copied of whatever stands at the source, as some stores do.
    pub(crate) copies_any_source: bool,
}

impl Fake {
    pub(crate) fn new(without_checksums: bool) -> Self {
        Fake { without_checksums, ..Fake::default() }
    }

    pub(crate) fn renaming() -> Self {
        Fake { renames: true, ..Fake::default() }
    }

    pub(crate) fn without_sums_of_parts() -> Self {
        Fake { tells_no_sums: true, ..Fake::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in it")
    }

    pub(crate) fn set(&self, key: &str, bytes: impl Into<Bytes>) -> Version {
        self.store(&ObjectKey::from_store(key), bytes.into(), &Attributes::default(), SystemTime::now())
    }

    pub(crate) fn set_with(&self, key: &str, bytes: Bytes, attributes: &Attributes, made: SystemTime) -> Version {
        self.store(&ObjectKey::from_store(key), bytes, attributes, made)
    }

    fn store(&self, key: &ObjectKey, bytes: Bytes, attributes: &Attributes, modified: SystemTime) -> Version {
        assert_ne!(attributes.tags, Tags::Some, "tags that nobody has read would be lost");
        let mut state = self.state();
        state.versions += 1;
        let etag = ETag::parse(&format!("v{}", state.versions));
        let version = Version { etag, size: bytes.len() as u64, modified };
        let (crc64nvme, otherwise_encrypted) = ((!self.without_checksums).then(|| crc_fast::crc64_nvme(&bytes)), false);
        let (attributes, version_id) = (attributes.clone(), Some(format!("id-{}", state.versions)));
        let info = ObjectInfo { version: version.clone(), attributes, crc64nvme, version_id, otherwise_encrypted };
        state.objects.insert(key.clone(), Object { bytes, info });
        version
    }

    pub(crate) fn bytes(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(&ObjectKey::from_store(key)).map(|object| object.bytes.clone())
    }

    pub(crate) fn attributes(&self, key: &str) -> Option<Attributes> {
        self.state().objects.get(&ObjectKey::from_store(key)).map(|object| object.info.attributes.clone())
    }

    /// The next such call meets the fault; several wait in line.
    pub(crate) fn next(&self, call: Call, fault: Fault) {
        self.state().faults.push((call, fault));
    }

    /// No call meets a fault any more.
    pub(crate) fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Another client removes an object.
    pub(crate) fn remove(&self, key: &str) {
        self.state().objects.remove(&ObjectKey::from_store(key));
    }

    /// Requests since the last time this was asked.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    pub(crate) fn count(&self, call: Call) -> usize {
        self.state().calls.iter().filter(|made| **made == call).count()
    }

    /// Ranges of all GETs, in order of their coming.
    pub(crate) fn gets(&self) -> Vec<ByteRange> {
        self.state().gets.clone()
    }

    pub(crate) fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Notes the call; `Fail` and `Hang` act at once, other faults are for the caller.
    async fn enter(&self, call: Call) -> Result<Option<Fault>> {
        let fault = {
            let mut state = self.state();
            state.calls.push(call);
            let waiting = state.faults.iter().position(|(meant, _)| *meant == call);
            waiting.map(|index| state.faults.remove(index).1)
        };
        match fault {
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::FailLate(word, error)) => {
                word.notified().await;
                Err(error)
            }
            other => Ok(other),
        }
    }

    fn object(&self, key: &ObjectKey) -> Result<Object> {
        self.state().objects.get(key).cloned().ok_or(Error::NotFound)
    }

    fn check(&self, key: &ObjectKey, expect: &Expect) -> Result<()> {
        let there = self.state().objects.get(key).map(|object| object.info.version.etag.clone());
        match expect {
            Expect::Absent if there.is_some() => Err(Error::PreconditionFailed),
            Expect::Is(etag) if there.as_ref() != Some(etag) => Err(Error::PreconditionFailed),
            _ => Ok(()),
        }
    }
}

async fn late(fault: &Option<Fault>) {
    if let Some(Fault::Late(word)) = fault {
        word.notified().await;
    }
}

/// What HEAD and GET tell: of tags only that there are some.
fn told(object: Object) -> ObjectInfo {
    let mut info = object.info;
    info.attributes.tags = Tags::counted(Some(info.attributes.tags.known().len() as i32));
    info
}

/// Done, unless the fault says that the answer gets lost.
fn answer<T>(value: T, fault: Option<Fault>) -> Result<T> {
    if let Some(Fault::DoneBut(error)) = fault { Err(error) } else { Ok(value) }
}

#[async_trait]
impl ObjectStore for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            rename: self.renames,
            ordered_listing: !self.lists_in_no_order,
            conditional_copy: !self.copies_over,
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo> {
        let fault = self.enter(Call::Head).await?;
        let found = self.object(key);
        late(&fault).await;
        found.map(told)
    }

    async fn tags(&self, key: &ObjectKey) -> Result<Vec<(String, String)>> {
        self.enter(Call::Tags).await?;
        Ok(self.object(key)?.info.attributes.tags.known().to_vec())
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        let fault = self.enter(Call::List).await?;
        let page = self.page(&request);
        late(&fault).await;
        Ok(page)
    }

    async fn get(&self, key: &ObjectKey, range: Option<ByteRange>, if_match: Option<&ETag>) -> Result<GetReply> {
        let running = self.reading.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_gets_at_once.fetch_max(running, Ordering::Relaxed);
        // Long enough for others to begin, were they meant to.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.reading.fetch_sub(1, Ordering::Relaxed);
        let fault = self.enter(Call::Get).await?;
        let object = self.object(key)?;
        if if_match.is_some_and(|etag| *etag != object.info.version.etag) {
            return Err(Error::PreconditionFailed);
        }
        let all = ByteRange::new(0, object.bytes.len() as u64);
        let mut range = range.unwrap_or(all).intersect(all);
        self.state().gets.push(range);
        if matches!(fault, Some(Fault::WrongRange)) {
            range = ByteRange::new(range.start + 1, range.end);
        }
        let bytes = object.bytes.slice(range.start as usize..range.end as usize);
        late(&fault).await;
        Ok(GetReply { info: told(object), range, body: body(bytes, &fault) })
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: UploadBody,
        attributes: &Attributes,
        expect: &Expect,
    ) -> Result<Version> {
        let fault = self.enter(Call::Put).await?;
        self.check(key, expect)?;
        let bytes = self.content(body);
        let version = self.store(key, bytes, attributes, SystemTime::now());
        late(&fault).await;
        answer(Version { size: 0, ..version }, fault)
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: &Attributes, parts: PartSource) -> Result<UploadId> {
        let fault = self.enter(Call::Create).await?;
        let upload =
            Upload { key: Some(key.clone()), attributes: attributes.clone(), source: Some(parts), ..Upload::default() };
        let id = self.open_upload(upload);
        late(&fault).await;
        Ok(id)
    }

    async fn upload_part(
        &self,
        _: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        body: UploadBody,
    ) -> Result<UploadedPart> {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(running, Ordering::Relaxed);
        // Long enough for others to begin, were they allowed to.
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.running.fetch_sub(1, Ordering::Relaxed);
        let fault = self.enter(Call::Part).await?;
        let size = body.len();
        let bytes = self.content(body);
        self.state().uploads.get_mut(upload).ok_or(Error::UploadGone)?.parts.insert(number, bytes);
        late(&fault).await;
        Ok(UploadedPart { number, etag: ETag::parse("part"), size, checksum: None })
    }

    async fn upload_part_copy(
        &self,
        _: &ObjectKey,
        upload: &UploadId,
        number: PartNumber,
        source: &ObjectKey,
        source_etag: &ETag,
        range: Option<ByteRange>,
    ) -> Result<UploadedPart> {
        let fault = self.enter(Call::PartCopy).await?;
        let there = self.object(source)?;
        if *source_etag != there.info.version.etag && !self.copies_any_source {
            return Err(Error::PreconditionFailed);
        }
        late(&fault).await;
        let len = there.bytes.len() as u64;
        // Sources of more than 5 GiB are not really there: a part stands for its range.
        let is_there = range.is_none_or(|range| len >= range.end && len > 0);
        assert!(range.is_none() || !is_there || len > 5 << 20, "S3 copies no range of so small an object");
        let range = range.unwrap_or(ByteRange::new(0, len));
        let text = if is_there {
            there.bytes.slice(range.start as usize..range.end as usize)
        } else {
            Bytes::from(format!("{}-{};", range.start, range.end))
        };
        let mut state = self.state();
        let upload = state.uploads.get_mut(upload).ok_or(Error::UploadGone)?;
        assert_eq!(upload.source, Some(PartSource::Copies));
        upload.parts.insert(number, text);
        answer(UploadedPart { number, etag: ETag::parse("part"), size: range.len(), checksum: None }, fault)
    }

    async fn list_parts(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage> {
        let fault = self.enter(Call::ListParts).await?;
        let page = self.parts_page(key, upload, after, most);
        late(&fault).await;
        page
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[UploadedPart],
        size: u64,
        crc64nvme: Option<u64>,
        expect: &Expect,
    ) -> Result<Version> {
        let fault = self.enter(Call::Complete).await?;
        self.check(key, expect)?;
        let made = self.state().uploads.remove(upload).ok_or(Error::UploadGone)?;
        assert_eq!(made.key.as_ref(), Some(key));
        assert!(parts.is_sorted_by(|one, next| one.number < next.number), "in order");
        // Parts that are not named are dropped, as S3 does.
        let named = parts.iter().map(|part| made.parts.get(&part.number).expect("a part that went up").as_ref());
        let bytes = Bytes::from(named.collect::<Vec<&[u8]>>().concat());
        if bytes.len() as u64 == size {
            let summed = crc64nvme.is_none_or(|crc| crc == crc_fast::crc64_nvme(&bytes));
            assert!(summed, "the checksum is that of the whole");
            assert!(crc64nvme.is_some() || made.source == Some(PartSource::Copies), "bodies alone are summed");
        }
        answer(self.store(key, bytes, &made.attributes, SystemTime::now()), fault)
    }

    async fn abort_upload(&self, _: &ObjectKey, upload: &UploadId) -> Result<()> {
        self.enter(Call::Abort).await?;
        self.state().uploads.remove(upload);
        Ok(())
    }

    async fn copy(&self, request: CopyRequest) -> Result<Version> {
        let fault = self.enter(Call::Copy).await?;
        let source = self.object(&request.source)?;
        if source.info.version.etag != request.source_etag {
            return Err(Error::PreconditionFailed);
        }
        let expect = if self.copies_over { Expect::Any } else { request.expect };
        self.check(&request.target, &expect)?;
        let attributes = match request.attributes {
            CopyAttributes::Keep { storage_class, encryption } => {
                Attributes { storage_class, encryption, ..source.info.attributes }
            }
            CopyAttributes::Replace(attributes) => Attributes { tags: source.info.attributes.tags, ..attributes },
        };
        let made = self.store(&request.target, source.bytes, &attributes, SystemTime::now());
        late(&fault).await;
        answer(Version { size: 0, ..made }, fault)
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> Result<()> {
        let fault = self.enter(Call::Delete).await?;
        if let Some(etag) = if_match
            && self.object(key).is_ok_and(|there| there.info.version.etag != *etag)
        {
            return Err(Error::PreconditionFailed);
        }
        self.state().objects.remove(key);
        late(&fault).await;
        answer((), fault)
    }

    async fn delete_many(&self, _: &[ObjectKey]) -> Result<Vec<(ObjectKey, Error)>> {
        Err(Error::Unsupported("delete"))
    }

    async fn rename(&self, from: &ObjectKey, etag: &ETag, to: &ObjectKey, expect: &Expect) -> Result<()> {
        self.check(from, &Expect::Is(etag.clone()))?;
        self.check(to, expect)?;
        let mut state = self.state();
        let object = state.objects.remove(from).ok_or(Error::NotFound)?;
        state.objects.insert(to.clone(), object);
        Ok(())
    }
}
