//! Going on with a multipart upload of a process that is gone.
//!
//! Owns which parts of it count. A part is worth a look if it lies where the file is cut, with the size of its place, and the
//! store tells a checksum of it. It counts if that is the checksum of the bytes that are staged for this place now: an ETag is
//! no such sum where objects are encrypted. All others are sent, in the place of what is there, and at the end the store
//! compares ETags and sums of all parts with those that count: one that arrives late breaks the upload, and never the object.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::multipart::Parts;
use super::plan::{Grid, Plan, plan_upload};
use super::upload::{SentPart, StagedBytes, send_part};
use super::{Shared, away};
use crate::error::Result;
use crate::stage::StagedFile;
use crate::store::{ListedPart, UploadedPart};
use crate::types::{ByteRange, ObjectKey, UploadId};

/// Parts that the store has told of, by index.
pub(super) type Known = BTreeMap<u64, ListedPart>;

/// The parts of an upload that are worth a look for a file of `size` bytes, and how it is cut then; `None` when there are none.
pub(super) async fn look(
    shared: &Arc<Shared>,
    key: &ObjectKey,
    id: &UploadId,
    file: &StagedFile,
) -> Result<Option<(Grid, Known)>> {
    let (part_size, size) = (shared.settings.part_size, file.size());
    if file.has_away() {
        // These can't be cut in another way, and need no look: the store compares them when the upload is completed.
        let grid = away::grid(file)?;
        return Ok(Some((grid, fitting(grid, size, &all_parts(shared, key, id).await?))));
    }
    let planned = match plan_upload(size, part_size)? {
        Plan::Single => return Ok(None),
        Plan::Parts { part_size, .. } => Grid::even(part_size),
    };
    let all = all_parts(shared, key, id).await?;
    // A file that goes up while it is written is cut by the one, any other by the other: they differ from the thousandth part on.
    Ok(best_of([Grid::new(part_size), planned], size, &all))
}

async fn all_parts(shared: &Arc<Shared>, key: &ObjectKey, id: &UploadId) -> Result<Vec<ListedPart>> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = shared.store.list_parts(key, id, after, 0).await?;
        all.extend(page.parts);
        // Numbers grow from page to page, and there are ten thousand at most: this ends.
        if page.next.is_none() || page.next <= after {
            break;
        }
        after = page.next;
    }
    Ok(all)
}

fn best_of(grids: [Grid; 2], size: u64, parts: &[ListedPart]) -> Option<(Grid, Known)> {
    let known = grids.map(|grid| (grid, fitting(grid, size, parts)));
    let best = known.into_iter().rev().max_by_key(|(_, known)| known.len());
    best.filter(|(_, known)| !known.is_empty())
}

fn fitting(grid: Grid, size: u64, parts: &[ListedPart]) -> Known {
    let file = ByteRange::new(0, size);
    let fits = |part: &&ListedPart| {
        let place = grid.part(part.number.index()).map_or(0, |place| place.intersect(file).len());
        part.sum.is_some() && place > 0 && part.size == place
    };
    parts.iter().filter(fits).map(|part| (part.number.index(), part.clone())).collect()
}

/// A part that is in the store: as `known`, if that holds the bytes that are staged; else they are sent.
pub(super) async fn bring_part(
    bytes: StagedBytes,
    parts: Parts,
    (index, range): (u64, ByteRange),
    known: Option<ListedPart>,
) -> Result<SentPart> {
    if let Some(known) = known
        && let Some(sent) = taken_over(&bytes, range, known).await?
    {
        return Ok(sent);
    }
    send_part(bytes, parts, index, range).await
}

async fn taken_over(bytes: &StagedBytes, range: ByteRange, known: ListedPart) -> Result<Option<SentPart>> {
    let ListedPart { number, etag, size, sum: Some(sum) } = known else { return Ok(None) };
    if size != range.len() {
        return Ok(None);
    }
    let (crc, staged) = bytes.checksum_and(range, sum.algorithm).await?;
    let uploaded = UploadedPart { number, etag, size, checksum: Some(sum.text.clone()) };
    Ok((staged == sum).then_some(SentPart { range, crc, uploaded }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ChecksumAlgorithm;
    use crate::store::Sum;
    use crate::types::{ETag, PartNumber};

    const MIB: u64 = 1 << 20;

    fn parts(places: impl Iterator<Item = ByteRange>) -> Vec<ListedPart> {
        let part = |(index, place): (u64, ByteRange)| ListedPart {
            number: PartNumber::from_index(index).expect("a number"),
            etag: ETag::parse("x"),
            size: place.len(),
            sum: Some(Sum::of(ChecksumAlgorithm::Crc64Nvme, b"")),
        };
        (0..).zip(places).map(part).collect()
    }

    #[test]
    fn a_file_of_more_than_a_thousand_parts_is_cut_as_it_was() {
        let size = 12_000 * MIB + 5;
        let plan = plan_upload(size, 5 * MIB).expect("a plan");
        let Plan::Parts { part_size, count } = plan else { panic!("one part") };
        let grids = [Grid::new(5 * MIB), Grid::even(part_size)];
        assert_eq!(count, 2401);
        let in_one_go = parts(plan.parts(size));
        let (grid, known) = best_of(grids, size, &in_one_go).expect("parts");
        assert_eq!((grid, known.len()), (grids[1], 2401));
        let while_written = parts(grids[0].parts(size).expect("it fits").into_iter());
        let (grid, known) = best_of(grids, size, &while_written).expect("parts");
        assert_eq!((grid, known.len()), (grids[0], while_written.len()));
    }

    #[test]
    fn what_lies_elsewhere_or_has_no_sum_is_not_looked_at() {
        let (size, grid) = (23 * MIB, Grid::new(5 * MIB));
        let mut listed = parts(grid.parts(size).expect("it fits").into_iter());
        assert_eq!(fitting(grid, size, &listed).len(), 5);
        listed[1].sum = None;
        listed[2].size -= 1;
        listed[4].size = 5 * MIB;
        listed.extend(parts((0..6).map(|_| ByteRange::at(0, 5 * MIB))).pop());
        assert_eq!(fitting(grid, size, &listed).into_keys().collect::<Vec<_>>(), [0, 3]);
        assert!(best_of([grid, grid], size, &listed[1..2]).is_none());
    }
}
