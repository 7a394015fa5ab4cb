//! How a file is cut into the parts of a multipart upload. Pure.
//!
//! Limits are those of the S3 User Guide, "Amazon S3 multipart upload limits": 10,000 parts of 5 MiB to 5 GiB (the
//! last may be smaller), objects of at most 50 TB, one PUT or CopyObject of at most 5 GiB.

use crate::error::{Error, Result};
use crate::types::{ByteRange, PARTS_MAX};

const MIB: u64 = 1 << 20;
/// Smallest part that is not the last. Ranges are copied only of objects that are larger (S3 API, "UploadPartCopy").
pub(super) const PART_MIN: u64 = 5 * MIB;
/// Largest part, single PUT and single CopyObject.
pub(super) const PART_MAX: u64 = 5 << 30;
const OBJECT_MAX: u64 = 50_000_000_000_000;
/// Parts aimed at for large files: some below the limit of 10,000, to stay under it after rounding.
const PARTS_AIM: u64 = 9000;
/// A file of this size goes up in one request, if that is no more than two parts: a second connection
/// would not pay for the two requests that a multipart upload has on top.
const SINGLE_MAX: u64 = 16 * MIB;
/// Server-side copies take no bytes through this machine, so their parts are few and large.
const COPY_PART: u64 = 512 * MIB;

/// How a file goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// In one request.
    Single,
    /// In `count` parts of `part_size` bytes, the last with what is left.
    Parts {
        /// Bytes of a part.
        part_size: u64,
        /// Number of parts.
        count: u64,
    },
}

impl Plan {
    /// The bytes of each part of a file of `size` bytes, in order.
    pub fn parts(self, size: u64) -> impl Iterator<Item = ByteRange> {
        let (part_size, count) = match self {
            Plan::Single => (size, 1),
            Plan::Parts { part_size, count } => (part_size, count),
        };
        (0..count).map(move |index| ByteRange::new(index * part_size, size.min((index + 1) * part_size)))
    }
}

/// The plan for an upload of `size` bytes in parts of at least `part_size` bytes.
///
/// # Errors
/// `FileTooLarge` above 50 TB.
pub fn plan_upload(size: u64, part_size: u64) -> Result<Plan> {
    let part_size = part_size.clamp(PART_MIN, PART_MAX);
    plan(size, part_size, single_max(part_size))
}

/// The largest file that goes up in one request.
fn single_max(part_size: u64) -> u64 {
    SINGLE_MAX.max(part_size).min(part_size * 2).min(PART_MAX)
}

/// How a file is cut that goes up while it is still written, and so of a size that nobody knows: equal parts at first (some
/// stores want that), which double every thousand, so that ten thousand of them hold 8 TB of the default size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    part_size: u64,
    /// Parts before they double.
    step: u64,
}

impl Grid {
    /// Parts between equal ones and twice as large ones. PARTS_MAX is a multiple of it.
    const STEP: u64 = 1000;

    /// A grid whose first parts have `part_size` bytes, within S3's limits.
    pub fn new(part_size: u64) -> Self {
        Grid { part_size: part_size.clamp(PART_MIN, PART_MAX), step: Self::STEP }
    }

    /// A grid of equal parts, as [`Plan`] cuts a file.
    pub fn even(part_size: u64) -> Self {
        Grid { step: PARTS_MAX.into(), ..Grid::new(part_size) }
    }

    /// Bytes of the first parts.
    pub fn part_size(self) -> u64 {
        self.part_size
    }

    /// A file up to this size is not cut.
    pub fn uncut(self) -> u64 {
        single_max(self.part_size)
    }

    fn size_of(self, index: u64) -> u64 {
        // At most 5 GiB × 2^9: it fits.
        (self.part_size << (index / self.step).min(9)).min(PART_MAX)
    }

    /// The bytes of part number `index`, counted from 0; `None` past the last part that S3 takes.
    pub fn part(self, index: u64) -> Option<ByteRange> {
        if index >= u64::from(PARTS_MAX) {
            return None;
        }
        let before: u64 = (0..index / self.step).map(|step| self.step * self.size_of(step * self.step)).sum();
        Some(ByteRange::at(before + index % self.step * self.size_of(index), self.size_of(index)))
    }

    /// The part that holds byte `offset`; one past the last where none does.
    pub fn index_at(self, offset: u64) -> u64 {
        let mut before = 0;
        for first in (0..u64::from(PARTS_MAX)).step_by(self.step as usize) {
            let size = self.size_of(first);
            if offset < before + self.step * size {
                return first + (offset - before) / size;
            }
            before += self.step * size;
        }
        PARTS_MAX.into()
    }

    /// The parts of a file of `size` bytes, the last with what is left; `None` for a file that this grid can't hold.
    pub fn parts(self, size: u64) -> Option<Vec<ByteRange>> {
        let cut = |index| self.part(index).map(|part| part.intersect(ByteRange::new(0, size)));
        (0..=self.index_at(size.saturating_sub(1))).map(cut).collect()
    }
}

/// One part of a change of a large object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Goes up.
    Send(ByteRange),
    /// Is copied from the version that was changed, where it has the same place.
    Copy(ByteRange),
}

impl Piece {
    /// The bytes.
    pub fn range(self) -> ByteRange {
        match self {
            Piece::Send(range) | Piece::Copy(range) => range,
        }
    }
}

/// How a file of `size` bytes goes up of which the ranges `kept`, in order and apart, are the same as in the object; `None` when
/// it had better go up whole: it is small, nothing of it can be copied, or it would take too many parts.
pub fn plan_update(size: u64, kept: &[ByteRange], part_size: u64) -> Option<Vec<Piece>> {
    let part_size = part_size.clamp(PART_MIN, PART_MAX);
    if size > OBJECT_MAX || size <= single_max(part_size) {
        return None;
    }
    // Where the file outgrows ten thousand parts of that size, the parts that go up grow too.
    let part_size = part_size.max(size.div_ceil(PARTS_AIM).next_multiple_of(MIB)).min(PART_MAX);
    let (mut pieces, mut at) = (Vec::new(), 0);
    for kept in kept {
        let end = kept.end.min(size);
        // A part that is not the last has at least 5 MiB: one that is shorter takes some of what is kept.
        let start = if kept.start > at { kept.start.max(at + PART_MIN) } else { at };
        let copied = end.saturating_sub(start);
        if copied == 0 || (copied < PART_MIN && end < size) {
            continue;
        }
        cut(ByteRange::new(at, start), part_size, |range| pieces.push(Piece::Send(range)));
        cut(ByteRange::new(start, end), PART_MAX / 2, |range| pieces.push(Piece::Copy(range)));
        at = end;
    }
    cut(ByteRange::new(at, size), part_size, |range| pieces.push(Piece::Send(range)));
    let copies = pieces.iter().any(|piece| matches!(piece, Piece::Copy(_)));
    (copies && pieces.len() <= PARTS_MAX as usize).then_some(pieces)
}

/// Cuts `range` into like pieces of `least` bytes or some more; a shorter one stays whole.
fn cut(range: ByteRange, least: u64, mut piece: impl FnMut(ByteRange)) {
    let count = range.len() / least;
    let (mut at, len) = (range.start, range.len() / count.max(1));
    for _ in 1..count {
        piece(ByteRange::at(at, len));
        at += len;
    }
    if at < range.end {
        piece(ByteRange::new(at, range.end));
    }
}

/// The plan for a server-side copy of `size` bytes.
///
/// # Errors
/// `FileTooLarge` above 50 TB.
pub fn plan_copy(size: u64) -> Result<Plan> {
    plan(size, COPY_PART, PART_MAX)
}

/// As [`plan_copy`], in parts whatever the size: at their end every store looks at the target.
///
/// # Errors
/// `FileTooLarge` above 50 TB.
pub fn plan_copy_by_parts(size: u64) -> Result<Plan> {
    plan(size, COPY_PART, 0)
}

/// The parts that a range of an object of `size` bytes is copied in: few and alike, so that none but a short range makes a short part,
/// and so large that all of the object would fit into one upload.
pub(super) fn cut_copy(range: ByteRange, size: u64) -> Vec<ByteRange> {
    let most = size.div_ceil(PARTS_AIM).next_multiple_of(MIB).clamp(COPY_PART, PART_MAX);
    let count = range.len().div_ceil(most).max(1);
    let part_size = range.len().div_ceil(count);
    (0..count).map(|index| ByteRange::at(range.start + index * part_size, part_size).intersect(range)).collect()
}

fn plan(size: u64, least: u64, single: u64) -> Result<Plan> {
    if size > OBJECT_MAX {
        return Err(Error::FileTooLarge);
    }
    if size <= single {
        return Ok(Plan::Single);
    }
    let part_size = size.div_ceil(PARTS_AIM).next_multiple_of(MIB).clamp(least, PART_MAX);
    let count = size.div_ceil(part_size);
    if count > u64::from(PARTS_MAX) { Err(Error::FileTooLarge) } else { Ok(Plan::Parts { part_size, count }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_plan_is_within_the_limits(bits in 0..46u32, noise in any::<u64>(), part_size in 0..6u64 << 30) {
            let size = ((1u64 << bits) + noise % (1u64 << bits)).min(OBJECT_MAX);
            for plan in [plan_upload(size, part_size), plan_copy(size)] {
                let plan = plan.expect("no file up to 50 TB is too large");
                match plan {
                    Plan::Single => prop_assert!(size <= PART_MAX),
                    Plan::Parts { part_size, count } => {
                        prop_assert!((2..=u64::from(PARTS_MAX)).contains(&count));
                        prop_assert!((PART_MIN..=PART_MAX).contains(&part_size));
                    }
                }
                let mut end = 0;
                for part in plan.parts(size) {
                    prop_assert_eq!(part.start, end);
                    prop_assert!(!part.is_empty());
                    end = part.end;
                }
                prop_assert_eq!(end, size);
            }
        }
    }

    proptest! {
        #[test]
        fn a_grid_cuts_every_file_it_can_hold(bits in 0..43u32, noise in any::<u64>(), part_size in 0..64u64 << 20) {
            let (grid, size) = (Grid::new(part_size), (1u64 << bits) + noise % (1u64 << bits));
            match grid.parts(size) {
                None => prop_assert!(size > grid.part(u64::from(PARTS_MAX) - 1).map_or(0, |last| last.end)),
                Some(parts) => {
                    let mut end = 0;
                    for (index, part) in parts.iter().enumerate() {
                        prop_assert_eq!(part.start, end);
                        prop_assert!(!part.is_empty() && part.len() <= PART_MAX);
                        prop_assert!(part.len() >= PART_MIN || part.end == size);
                        prop_assert_eq!(grid.index_at(part.start), index as u64);
                        prop_assert_eq!(grid.index_at(part.end - 1), index as u64);
                        end = part.end;
                    }
                    prop_assert_eq!(end, size);
                }
            }
        }
    }

    /// Ranges in order and apart.
    fn any_ranges() -> impl Strategy<Value = Vec<ByteRange>> {
        let step = (1..40_u64, 1..40_u64, any::<u16>());
        prop::collection::vec(step, 0..12).prop_map(|steps| {
            let mut at = 0;
            let range = |(gap, len, odd): (u64, u64, u16)| {
                let start = at + if gap > 20 { u64::from(odd) + 1 } else { gap * MIB };
                at = start + if len > 20 { u64::from(odd) + 1 } else { len * MIB + u64::from(odd) };
                ByteRange::new(start, at)
            };
            steps.into_iter().map(range).collect()
        })
    }

    proptest! {
        #[test]
        fn an_update_is_within_the_limits_and_copies_only_what_is_kept(
            kept in any_ranges(), size in 1..500 * MIB, first in any::<bool>(), part_size in 0..16 * MIB
        ) {
            let mut kept = kept;
            if first && let Some(range) = kept.first_mut() {
                range.start = 0;
            }
            if let Some(pieces) = plan_update(size, &kept, part_size) {
                let mut end = 0;
                for piece in &pieces {
                    let range = piece.range();
                    prop_assert_eq!(range.start, end);
                    prop_assert!(range.len() <= PART_MAX && !range.is_empty());
                    prop_assert!(range.len() >= PART_MIN || range.end == size, "{:?} of {}", piece, size);
                    if matches!(piece, Piece::Copy(_)) {
                        prop_assert!(kept.iter().any(|kept| kept.intersect(range) == range), "{:?} is not kept", piece);
                    }
                    end = range.end;
                }
                prop_assert_eq!(end, size);
                // What goes up is what was changed, and what the limits of parts cost at each change.
                let sent: u64 = pieces.iter().filter(|piece| matches!(piece, Piece::Send(_))).map(|p| p.range().len()).sum();
                let same: u64 = kept.iter().map(|kept| kept.intersect(ByteRange::new(0, size)).len()).sum();
                prop_assert!(sent <= size - same + (kept.len() as u64 + 1) * 2 * PART_MIN);
            }
        }
    }

    #[test]
    fn an_append_to_a_large_object_sends_what_was_appended() {
        let old = 5 << 30;
        let pieces = plan_update(old + 1024, &[ByteRange::new(0, old)], 8 * MIB).expect("copies");
        assert_eq!(pieces.last(), Some(&Piece::Send(ByteRange::at(old, 1024))));
        assert!(pieces.len() <= 3 && pieces[..pieces.len() - 1].iter().all(|piece| matches!(piece, Piece::Copy(_))));
    }

    #[test]
    fn a_change_in_the_middle_sends_one_least_part() {
        let kept = [ByteRange::new(0, 50 * MIB), ByteRange::new(50 * MIB + 4096, 100 * MIB)];
        let cut = 50 * MIB + PART_MIN;
        let copy = |start, end| Piece::Copy(ByteRange::new(start, end));
        let expected = [copy(0, 50 * MIB), Piece::Send(ByteRange::new(50 * MIB, cut)), copy(cut, 100 * MIB)];
        assert_eq!(plan_update(100 * MIB, &kept, 8 * MIB), Some(expected.to_vec()));
        assert_eq!(plan_update(16 * MIB, &kept, 8 * MIB), None, "a small one goes up whole");
        assert_eq!(plan_update(100 * MIB, &[], 8 * MIB), None, "nothing to copy");
    }

    #[test]
    fn a_grid_ends_where_s3_does() {
        let grid = Grid::new(8 * MIB);
        assert_eq!(grid.part(PARTS_MAX.into()), None);
        assert_eq!(grid.parts(OBJECT_MAX), None);
        assert_eq!(grid.part(1000), Some(ByteRange::at(8000 * MIB, 16 * MIB)));
        assert_eq!(Grid::new(u64::MAX).part(u64::from(PARTS_MAX) - 1).map(|last| last.len()), Some(PART_MAX));
    }

    #[test]
    fn small_files_go_in_one_request() {
        for size in [0, 1, 16 * MIB] {
            assert_eq!(plan_upload(size, 8 * MIB).expect("fits"), Plan::Single);
        }
        let two = Plan::Parts { part_size: 8 * MIB, count: 3 };
        assert_eq!(plan_upload(16 * MIB + 1, 8 * MIB).expect("fits"), two);
        assert_eq!(plan_upload(64 * MIB, 64 * MIB).expect("fits"), Plan::Single);
    }

    #[test]
    fn an_empty_file_is_one_empty_part() {
        assert_eq!(Plan::Single.parts(0).collect::<Vec<_>>(), [ByteRange::new(0, 0)]);
    }

    proptest! {
        #[test]
        fn a_copied_range_is_cut_into_parts_that_may_be_followed(start in 0..1u64 << 40, len in 1..1u64 << 34, more in 0..1u64 << 45) {
            let range = ByteRange::at(start, len);
            let parts = cut_copy(range, range.end + more);
            let mut end = range.start;
            for part in &parts {
                prop_assert_eq!(part.start, end);
                prop_assert!(part.len() <= PART_MAX && part.len() >= len.min(PART_MIN));
                end = part.end;
            }
            prop_assert_eq!(end, range.end);
            prop_assert!(parts.len() as u64 <= 1 + len / COPY_PART);
        }
    }

    #[test]
    fn what_s3_does_not_take_is_refused() {
        assert!(matches!(plan_upload(OBJECT_MAX + 1, 8 * MIB), Err(Error::FileTooLarge)));
        assert!(matches!(plan_copy(u64::MAX), Err(Error::FileTooLarge)));
    }

    #[test]
    fn copies_up_to_5_gib_are_one_request() {
        assert_eq!(plan_copy(PART_MAX).expect("fits"), Plan::Single);
        assert_eq!(plan_copy(PART_MAX + 1).expect("fits"), Plan::Parts { part_size: COPY_PART, count: 11 });
    }
}
