//! Bodies that break, end or go silent as the fault says.

use bytes::Bytes;
use futures_util::StreamExt;

use super::Fault;
use crate::error::{Error, Result};
use crate::store::BodyStream;

const CHUNK: usize = 64 << 10;

pub(super) fn body(mut bytes: Bytes, fault: &Option<Fault>) -> BodyStream {
    if let Some(Fault::Flip(at)) = fault {
        let mut wrong = bytes.to_vec();
        wrong[*at as usize] ^= 1;
        bytes = wrong.into();
    }
    let good = match fault {
        Some(Fault::Cut(after) | Fault::End(after) | Fault::Stall(after)) => bytes.len().min(*after as usize),
        _ => bytes.len(),
    };
    let starts = (0..good).step_by(CHUNK);
    let chunks: Vec<Result<Bytes>> = starts.map(|at| Ok(bytes.slice(at..good.min(at + CHUNK)))).collect();
    let chunks = futures_util::stream::iter(chunks);
    match fault {
        Some(Fault::Cut(_)) => {
            let broken = Err(Error::Unreachable("the connection broke".into()));
            chunks.chain(futures_util::stream::iter([broken])).boxed()
        }
        Some(Fault::Stall(_)) => chunks.chain(futures_util::stream::pending()).boxed(),
        _ => chunks.boxed(),
    }
}
