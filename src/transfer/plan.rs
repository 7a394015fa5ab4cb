//! How a file is cut into the parts of a multipart upload. Pure.
//!
//! Limits are those of the S3 User Guide, "Amazon S3 multipart upload limits": 10,000 parts of 5 MiB to 5 GiB (the
//! last may be smaller), objects of at most 50 TB, one PUT or CopyObject of at most 5 GiB.

use crate::error::{Error, Result};
use crate::types::{ByteRange, PARTS_MAX};

const MIB: u64 = 1 << 20;
const PART_MIN: u64 = 5 * MIB;
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
    plan(size, part_size, SINGLE_MAX.max(part_size).min(part_size * 2).min(PART_MAX))
}

/// The plan for a server-side copy of `size` bytes.
///
/// # Errors
/// `FileTooLarge` above 50 TB.
pub fn plan_copy(size: u64) -> Result<Plan> {
    plan(size, COPY_PART, PART_MAX)
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
