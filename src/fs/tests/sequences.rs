//! Random operations on one open file, against a plain vector.
//!
//! Owns the operations and the comparison: what is read on the way, and what stands in the store after the close. The sequences
//! are the same in every run, and one that fails is made shorter. Which operations are worth trying says the test that asks.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::send_ahead::{MIB, content, until, write};
use super::*;
use crate::fs::SetAttributes;

/// Sequences that one test tries.
const CASES: u32 = 6;

/// Tries to make a sequence shorter that has failed.
const SHORTER: u32 = 40;

/// Bytes that are read at once.
const READ_LEN: u32 = 100_000;

/// One operation. A place is a share of what the file is long by then.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// To a size of up to a quarter more.
    Resize(Index),
    Append(Piece),
    /// Anywhere, and up to so many bytes behind the end.
    Write(Index, u64, Piece),
    Read(Index),
    Sync,
    /// What goes up in the background may get on meanwhile.
    Pause(Duration),
}

/// Bytes to write: how many, and which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    len: u64,
    seed: u8,
}

/// Up to `most` bytes.
pub(super) fn piece(most: u64) -> impl Strategy<Value = Piece> {
    (1..=most, any::<u8>()).prop_map(|(len, seed)| Piece { len, seed })
}

/// A file that is open for reading and writing, and what it must hold.
pub(super) struct Compared {
    pub(super) rig: Rig,
    pub(super) ino: Ino,
    pub(super) fh: Fh,
    pub(super) model: Vec<u8>,
}

impl Compared {
    async fn step(&mut self, step: Step) {
        let len = self.model.len() as u64;
        match step {
            Step::Resize(share) => {
                let size = share.index(len as usize * 5 / 4 + 1);
                let size_change = Some(size as u64);
                let change = SetAttributes { size: size_change, handle: Some(self.fh), ..SetAttributes::default() };
                self.rig.fs.setattr(self.ino, change).await.expect("resized");
                self.model.resize(size, 0);
            }
            Step::Append(piece) => self.write(len, piece).await,
            Step::Write(share, beyond, piece) => {
                let at = share.index((len + beyond) as usize + 1) as u64;
                self.write(at, piece).await;
            }
            Step::Read(share) => {
                let at = share.index(self.model.len() + 1);
                let there = self.rig.fs.read(self.fh, at as u64, READ_LEN).await.expect("a read");
                let end = self.model.len().min(at + READ_LEN as usize);
                assert!(there[..] == self.model[at..end], "other bytes than were written at {at}");
            }
            Step::Sync => {
                self.rig.fs.fsync(self.fh).await.expect("stored");
                assert!(self.rig.object("p/f").as_ref() == Some(&self.model), "another object than was synced");
            }
            Step::Pause(time) => tokio::time::sleep(time).await,
        }
    }

    async fn write(&mut self, at: u64, piece: Piece) {
        let bytes = content(piece.len, piece.seed);
        write(&self.rig, self.fh, at, &bytes).await;
        let (at, end) = (at as usize, at as usize + bytes.len());
        self.model.resize(self.model.len().max(end), 0);
        self.model[at..end].copy_from_slice(&bytes);
    }

    async fn end(self) {
        self.rig.close(self.fh).await.expect("a close");
        assert!(self.rig.object("p/f") == Some(self.model), "another object than was written");
        until("no upload is left", || self.rig.store.open_uploads() == 0).await;
    }
}

/// Does sequences of up to `most` such steps with files that `open` sets up.
pub(super) fn each_agrees_with_a_vector(
    step: impl Strategy<Value = Step>,
    most: usize,
    open: impl AsyncFn() -> Compared,
) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config { cases: CASES, max_shrink_iters: SHORTER, failure_persistence: None, ..Config::default() };
    let done = TestRunner::new_with_rng(config, rng).run(&prop::collection::vec(step, 1..=most), |steps| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut compared = open().await;
            for step in steps {
                compared.step(step).await;
            }
            compared.end().await;
        });
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
}

/// Steps that cross, repeat and cut parts of a file while they go up.
pub(super) fn of_a_new_file() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<Index>().prop_map(Step::Resize),
        5 => piece(18 * MIB).prop_map(Step::Append),
        5 => (any::<Index>(), piece(18 * MIB)).prop_map(|(at, piece)| Step::Write(at, 0, piece)),
        4 => (0..10_u64).prop_map(|millis| Step::Pause(Duration::from_millis(millis))),
    ]
}

/// Steps that change some of a large object, and store and read it in between.
pub(super) fn of_a_large_object() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<Index>().prop_map(Step::Resize),
        1 => Just(Step::Sync),
        1 => any::<Index>().prop_map(Step::Read),
        3 => (any::<Index>(), piece(3 * MIB)).prop_map(|(at, piece)| Step::Write(at, MIB, piece)),
    ]
}
