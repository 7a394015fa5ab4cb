//! Uploads that are begun, and their parts.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::Fake;
use crate::config::ChecksumAlgorithm;
use crate::error::{Error, Result};
use crate::store::{Attributes, ListedPart, PartSource, PartsPage, Sum, UploadBody};
use crate::types::{ETag, ObjectKey, PartNumber, UploadId};

/// Parts on one page, so that a few are more than that.
const PAGE: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Upload {
    pub(super) key: Option<ObjectKey>,
    pub(super) attributes: Attributes,
    pub(super) source: Option<PartSource>,
    pub(super) parts: BTreeMap<PartNumber, Bytes>,
}

impl Fake {
    pub(super) fn content(&self, body: UploadBody) -> Bytes {
        match body {
            UploadBody::Memory(bytes) | UploadBody::Summed { bytes, .. } => bytes,
            UploadBody::File { file, range } => {
                self.state().puts_from_file += 1;
                let mut bytes = vec![0; range.len() as usize];
                file.read_exact_at(&mut bytes, range.start).expect("the file has the range");
                bytes.into()
            }
        }
    }

    pub(crate) fn bodies_from_file(&self) -> usize {
        self.state().puts_from_file
    }

    pub(super) fn open_upload(&self, upload: Upload) -> UploadId {
        let mut state = self.state();
        state.versions += 1;
        let id = UploadId::new(format!("u{}", state.versions));
        state.uploads.insert(id.clone(), upload);
        id
    }

    pub(super) fn parts_page(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        after: Option<PartNumber>,
        most: u16,
    ) -> Result<PartsPage> {
        let state = self.state();
        let upload = state.uploads.get(upload).filter(|upload| upload.key.as_ref() == Some(key));
        let upload = upload.ok_or(Error::UploadGone)?;
        let listed = |(number, bytes): (&PartNumber, &Bytes)| ListedPart {
            number: *number,
            etag: ETag::parse("part"),
            size: bytes.len() as u64,
            sum: (!self.tells_no_sums).then(|| Sum::of(ChecksumAlgorithm::Crc64Nvme, bytes)),
        };
        let mut rest = upload.parts.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let most = if most == 0 { PAGE } else { PAGE.min(most.into()) };
        let parts: Vec<_> = rest.by_ref().take(most).map(listed).collect();
        let next = parts.last().map(|part| part.number).filter(|_| rest.next().is_some());
        Ok(PartsPage { parts, next })
    }

    /// Another client, or a rule of the bucket, aborts every upload.
    pub(crate) fn forget_uploads(&self) {
        self.state().uploads.clear();
    }

    /// Puts other bytes in the place of a part, counted from 0.
    pub(crate) fn spoil_part(&self, index: u64, bytes: impl Into<Bytes>) {
        let number = PartNumber::from_index(index).expect("a number");
        let mut state = self.state();
        let upload = state.uploads.values_mut().next().expect("an upload");
        upload.parts.insert(number, bytes.into());
    }
}
