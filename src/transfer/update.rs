//! Changing a large object: what was changed goes up, the rest is copied within the store.
//!
//! Owns the guard of such a copy. Its parts are copied from one version, named by ETag; some stores do not look at that, so what
//! stands there is asked for once more after the last copy: another version in between is a conflict, never a mix of both.

use std::sync::Arc;
use std::time::SystemTime;

use super::multipart::{Multipart, Parts};
use super::plan::Piece;
use super::upload::{SentPart, StagedBytes, Upload, send_part};
use super::{Shared, tasks};
use crate::error::{Error, Result};
use crate::stage::{NotedUpload, StagedFile};
use crate::store::{Attributes, PartSource, UploadedPart};
use crate::types::{Expect, ObjectKey, Version};

pub(super) async fn update(
    shared: &Arc<Shared>,
    key: &ObjectKey,
    base: &Version,
    file: &Arc<StagedFile>,
    attributes: &Attributes,
    pieces: Vec<Piece>,
) -> Result<Version> {
    let sent = pieces.iter().filter(|piece| matches!(piece, Piece::Send(_)));
    if sent.clone().any(|piece| !file.missing(piece.range()).is_empty()) {
        return Err(Error::Internal("a staged file with missing bytes can't be uploaded"));
    }
    let upload = Upload {
        bytes: StagedBytes::new(shared, file),
        key: key.clone(),
        attributes: attributes.clone(),
        expect: Expect::Is(base.etag.clone()),
        size: file.size(),
        started: SystemTime::now(),
    };
    let update = Update { upload, base: base.clone(), pieces };
    tasks::run(&shared.runtime, async move { update.run().await }).await
}

struct Update {
    upload: Upload,
    base: Version,
    pieces: Vec<Piece>,
}

/// What became of a piece.
enum Part {
    Sent(SentPart),
    Copied(UploadedPart),
}

impl Update {
    async fn run(&self) -> Result<Version> {
        let shared = &self.upload.bytes.shared;
        let mut attempt = 1;
        loop {
            let error = match self.one_upload().await {
                Err(error @ (Error::ConcurrentWrite | Error::UploadGone)) => error,
                done => return done,
            };
            if attempt >= shared.patience.redo {
                return Err(error);
            }
            tokio::time::sleep(shared.patience.before(attempt)).await;
            attempt += 1;
        }
    }

    async fn one_upload(&self) -> Result<Version> {
        let Upload { bytes, key, attributes, .. } = &self.upload;
        let mut multipart = Multipart::create(&bytes.shared, key, attributes, PartSource::Copies).await?;
        // Another run does not go on with copies: it can't compare them with anything.
        self.upload.note_upload(Some(NotedUpload { id: multipart.id().clone(), mark: None }));
        let done = self.parts_and_completion(&mut multipart).await;
        if done.is_err() && multipart.abort().await {
            self.upload.note_upload(None);
        }
        done
    }

    async fn parts_and_completion(&self, multipart: &mut Multipart) -> Result<Version> {
        let Upload { bytes, key, size, expect, .. } = &self.upload;
        let shared = &bytes.shared;
        let jobs = self.pieces.iter().enumerate().map(|(index, piece)| {
            let (bytes, key, base) = (bytes.clone(), key.clone(), self.base.clone());
            make_part(bytes, key, multipart.parts().clone(), base, index as u64, *piece)
        });
        let parts = tasks::run_all(&shared.runtime, shared.settings.concurrency, jobs).await?;
        match shared.store.head(key).await {
            Ok(info) if info.version.etag == self.base.etag => {}
            Ok(_) | Err(Error::NotFound) => return Err(Error::PreconditionFailed),
            Err(error) => return Err(error),
        }
        let (mut uploaded, mut sums) = (Vec::with_capacity(parts.len()), Vec::new());
        for part in parts {
            match part {
                Part::Sent(sent) => {
                    sums.push((sent.range, sent.crc));
                    uploaded.push(sent.uploaded);
                }
                Part::Copied(copied) => uploaded.push(copied),
            }
        }
        match multipart.complete(uploaded, *size, None, expect).await {
            Err(error @ (Error::PreconditionFailed | Error::UploadGone)) => {
                self.upload.own_work(&sums).await?.ok_or(error)
            }
            done => done,
        }
    }
}

async fn make_part(
    bytes: StagedBytes,
    key: ObjectKey,
    parts: Parts,
    base: Version,
    index: u64,
    piece: Piece,
) -> Result<Part> {
    match piece {
        Piece::Send(range) => send_part(bytes, parts, index, range).await.map(Part::Sent),
        Piece::Copy(range) => match parts.copy(index, &key, &base.etag, Some(range)).await {
            Ok(part) => Ok(Part::Copied(part)),
            Err(Error::NotFound) => Err(Error::PreconditionFailed),
            Err(error) => Err(error),
        },
    }
}
