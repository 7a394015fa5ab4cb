//! Server-side copies: one request up to 5 GiB, parts above. No bytes pass through this machine.
//!
//! Owns that nothing is copied over what is not expected, also on stores whose CopyObject does not look at its target: there a copy
//! is an upload of copied parts, at whose end every store looks.

use std::sync::Arc;

use bytes::Bytes;

use super::multipart::{Multipart, Parts};
use super::plan::{Plan, plan_copy, plan_copy_by_parts};
use super::{Shared, tags, tasks};
use crate::error::{Error, Result};
use crate::store::{Attributes, CopyAttributes, CopyRequest, ObjectInfo, PartSource, UploadBody, UploadedPart};
use crate::types::{ByteRange, Expect, ObjectKey, Version};

/// True when one request looks at the target before it copies.
pub(super) fn is_guarded(shared: &Shared, expect: &Expect) -> bool {
    *expect == Expect::Any || shared.store.capabilities().conditional_copy
}

/// How a copy is made.
#[derive(Clone, Copy)]
enum Way {
    OneRequest,
    Parts(Plan),
    /// Of no bytes there is no part to be copied: an object like the source is put there.
    Anew,
}

#[derive(Clone)]
pub(super) struct Copy {
    pub(super) shared: Arc<Shared>,
    pub(super) source: ObjectKey,
    pub(super) version: Version,
    pub(super) target: ObjectKey,
    /// `None` is what the source has, whatever its class.
    pub(super) attributes: Option<CopyAttributes>,
    pub(super) expect: Expect,
}

impl Copy {
    /// In one request where its size allows, and the store then looks at the target.
    pub(super) async fn start(self) -> Result<Version> {
        let way = self.way()?;
        let runtime = self.shared.runtime.clone();
        tasks::run(&runtime, async move { self.run(way).await }).await
    }

    fn way(&self) -> Result<Way> {
        Ok(match (is_guarded(&self.shared, &self.expect), self.version.size) {
            (true, size) => match plan_copy(size)? {
                Plan::Single => Way::OneRequest,
                parts => Way::Parts(parts),
            },
            (false, 0) => Way::Anew,
            (false, size) => Way::Parts(plan_copy_by_parts(size)?),
        })
    }

    async fn run(&self, way: Way) -> Result<Version> {
        let patience = self.shared.patience;
        let mut attempt = 1;
        loop {
            let done = match way {
                Way::OneRequest => self.in_one_request().await,
                Way::Parts(plan) => self.by_parts(plan).await,
                Way::Anew => self.anew().await,
            };
            match done {
                Err(Error::ConcurrentWrite | Error::UploadGone) if attempt < patience.redo => {
                    tokio::time::sleep(patience.before(attempt)).await;
                    attempt += 1;
                }
                Ok(version) => return Ok(Version { size: self.version.size, ..version }),
                Err(error) => return Err(error),
            }
        }
    }

    async fn in_one_request(&self) -> Result<Version> {
        let attributes = match &self.attributes {
            Some(known) => known.clone(),
            None => CopyAttributes::keep(&self.look_at_source().await?.attributes),
        };
        let request = CopyRequest {
            source: self.source.clone(),
            source_etag: self.version.etag.clone(),
            target: self.target.clone(),
            expect: self.expect.clone(),
            attributes,
        };
        match self.shared.store.copy(request).await {
            Err(Error::PreconditionFailed) => self.own_work().await?.ok_or(Error::PreconditionFailed),
            done => done,
        }
    }

    async fn by_parts(&self, plan: Plan) -> Result<Version> {
        let info = self.look_at_source().await?;
        let attributes = self.attributes_to_send(info.attributes).await?;
        let mut multipart = Multipart::create(&self.shared, &self.target, &attributes, PartSource::Copies).await?;
        let done = self.parts_and_completion(&mut multipart, plan, info.crc64nvme).await;
        if done.is_err() {
            multipart.abort().await;
        }
        done
    }

    async fn anew(&self) -> Result<Version> {
        let info = self.look_at_source().await?;
        let attributes = self.attributes_to_send(info.attributes).await?;
        let body = UploadBody::Memory(Bytes::new());
        match self.shared.store.put(&self.target, body, &attributes, &self.expect).await {
            Err(Error::PreconditionFailed) => self.own_work().await?.ok_or(Error::PreconditionFailed),
            done => done,
        }
    }

    /// Those of the target, where they are not copied with the bytes.
    async fn attributes_to_send(&self, source: Attributes) -> Result<Attributes> {
        let attributes = self.replaced().unwrap_or(&source).clone();
        // The tags are the source's in any case, as with CopyObject.
        let attributes = Attributes { tags: source.tags, ..attributes };
        tags::with_tags(self.shared.store.as_ref(), &self.source, attributes).await
    }

    /// What HEAD tells of the source, which still is the one asked for.
    async fn look_at_source(&self) -> Result<ObjectInfo> {
        let info = self.shared.store.head(&self.source).await?;
        if info.version.etag == self.version.etag && info.version.size == self.version.size {
            Ok(info)
        } else {
            Err(Error::PreconditionFailed)
        }
    }

    /// The attributes that take the place of the source's.
    fn replaced(&self) -> Option<&Attributes> {
        match &self.attributes {
            Some(CopyAttributes::Replace(attributes)) => Some(attributes),
            Some(CopyAttributes::Keep { .. }) | None => None,
        }
    }

    async fn parts_and_completion(&self, multipart: &mut Multipart, plan: Plan, crc: Option<u64>) -> Result<Version> {
        let jobs = plan.parts(self.version.size).enumerate();
        let jobs = jobs.map(|(index, range)| copy_part(self.clone(), multipart.parts().clone(), index as u64, range));
        let parts = tasks::run_all(&self.shared.runtime, self.shared.settings.concurrency, jobs).await?;
        match multipart.complete(parts, self.version.size, crc, &self.expect).await {
            Err(error @ (Error::PreconditionFailed | Error::UploadGone)) => self.own_work().await?.ok_or(error),
            done => done,
        }
    }

    /// What stands under the target, if it is what this copy made: the answer may have been lost on its way.
    /// Only where the target was to be replaced: an equal file that stood there before looks the same, and
    /// then nothing is lost, while "absent" would be a lie, and so would "the source was still the one asked for".
    async fn own_work(&self) -> Result<Option<Version>> {
        let on_itself = self.source == self.target && self.replaced().is_some();
        if !on_itself && !matches!(self.expect, Expect::Is(_)) {
            return Ok(None);
        }
        let Some(target) = self.look_at(&self.target).await? else { return Ok(None) };
        let same_attributes = self.replaced().is_none_or(|asked| same_attributes(asked, &target.attributes));
        if target.version.size != self.version.size || !same_attributes {
            return Ok(None);
        }
        // A copy onto itself has another ETag where the source was made of parts; nothing is lost by taking it.
        if on_itself || target.version.etag == self.version.etag {
            return Ok(Some(target.version));
        }
        let Some(source) = self.look_at(&self.source).await? else { return Ok(None) };
        let unchanged = source.version.etag == self.version.etag;
        let same_bytes = target.crc64nvme.is_some() && target.crc64nvme == source.crc64nvme;
        Ok((unchanged && same_bytes).then_some(target.version))
    }

    async fn look_at(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        match self.shared.store.head(key).await {
            Ok(info) => Ok(Some(info)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Stores add a content type of their own where none is given, and name or leave out the default class.
fn same_attributes(asked: &Attributes, found: &Attributes) -> bool {
    asked.metadata == found.metadata && (asked.content_type.is_none() || asked.content_type == found.content_type)
}

async fn copy_part(copy: Copy, parts: Parts, index: u64, range: ByteRange) -> Result<UploadedPart> {
    let range = (range.len() < copy.version.size).then_some(range);
    parts.copy(index, &copy.source, &copy.version.etag, range).await
}
