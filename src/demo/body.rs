//! The bodies on the wire: counted, paced, and broken on demand.
//!
//! Owns what happens between the socket and the S3 service, byte by byte. A request body is shared, so that what the
//! service left unread can still be drained; a reply body can be cut, stalled or corrupted at a chosen place.

use super::counters::Tally;
use super::operation::Operation;
use super::shape::{Path, Way};
use bytes::Bytes;
use futures_util::ready;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep, sleep_until};

/// Any failure of a body.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The most that passes at once when the bandwidth is limited: small enough that a trickle is even.
const PACED_PIECE: usize = 16 * 1024;

/// Before a connection is cut: time for the bytes that were promised to leave.
const BEFORE_CUT: Duration = Duration::from_millis(5);

/// Where bodies report to.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    pub(super) operation: Operation,
    pub(super) tally: Arc<Tally>,
    pub(super) path: Path,
}

/// A request body, held in common by the service and by whoever drains the rest of it.
#[derive(Debug, Clone)]
pub(super) struct RequestBody(Arc<Mutex<Receiving>>);

#[derive(Debug)]
struct Receiving {
    incoming: Incoming,
    meter: Meter,
    held: Option<(Pin<Box<Sleep>>, Frame<Bytes>)>,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, meter: Meter) -> Self {
        Self(Arc::new(Mutex::new(Receiving { incoming, meter, held: None })))
    }

    /// Reads and drops what is left, so that a client that still sends gets to read an early reply.
    pub(super) async fn drain(mut self) {
        while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {}
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        let receiving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        receiving.held.is_none() && receiving.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).incoming.size_hint()
    }
}

impl Receiving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some((turn, _)) = &mut self.held {
                ready!(turn.as_mut().poll(cx));
                return Poll::Ready(self.held.take().map(|(_, frame)| Ok(frame)));
            }
            let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            };
            let len = frame.data_ref().map_or(0, Bytes::len);
            self.meter.tally.bytes_in(self.meter.operation, len);
            match self.meter.path.pass(Way::In, len) {
                Some(turn) => self.held = Some((Box::pin(sleep_until(turn)), frame)),
                None => return Poll::Ready(Some(Ok(frame))),
            }
        }
    }
}

/// What is wrong with a reply body, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Cut { after: u64 },
    Stall { after: u64, pause: Duration },
    Corrupt { at: u64 },
}

/// A reply body.
pub(super) struct ReplyBody {
    inner: s3s::Body,
    meter: Meter,
    flaw: Option<Flaw>,
    /// Received from the service and not sent yet.
    rest: Bytes,
    sent: u64,
    turn: Option<Pin<Box<Sleep>>>,
    /// Goes out when its turn has come.
    piece: Option<Bytes>,
    cut: bool,
}

impl ReplyBody {
    pub(super) fn new(inner: s3s::Body, meter: Meter, flaw: Option<Flaw>) -> Self {
        Self { inner, meter, flaw, rest: Bytes::new(), sent: 0, turn: None, piece: None, cut: false }
    }

    /// Takes the next piece off `rest`; None when the flaw's place is reached, which then takes effect.
    fn next_piece(&mut self) -> Option<Bytes> {
        let mut len = self.rest.len();
        match self.flaw {
            Some(Flaw::Cut { after }) if after <= self.sent => {
                self.cut = true;
                self.turn = Some(Box::pin(sleep(BEFORE_CUT)));
                return None;
            }
            Some(Flaw::Stall { after, pause }) if after <= self.sent => {
                self.flaw = None;
                self.turn = Some(Box::pin(sleep(pause)));
                return None;
            }
            Some(Flaw::Cut { after } | Flaw::Stall { after, .. }) => {
                len = len.min(usize::try_from(after - self.sent).unwrap_or(usize::MAX));
            }
            _ => {}
        }
        if self.meter.path.is_limited() {
            len = len.min(PACED_PIECE);
        }
        let piece = self.rest.split_to(len);
        Some(match self.flaw {
            Some(Flaw::Corrupt { at }) if (self.sent..self.sent + len as u64).contains(&at) => {
                let mut bytes = piece.to_vec();
                bytes[(at - self.sent) as usize] ^= 0xff;
                bytes.into()
            }
            _ => piece,
        })
    }

    fn send(&mut self, piece: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.sent += piece.len() as u64;
        self.meter.tally.bytes_out(self.meter.operation, piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            if let Some(turn) = &mut this.turn {
                ready!(turn.as_mut().poll(cx));
                this.turn = None;
            }
            if this.cut {
                return Poll::Ready(Some(Err("the connection is cut here on demand".into())));
            }
            if let Some(piece) = this.piece.take() {
                return this.send(piece);
            }
            if this.rest.is_empty() {
                match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(frame)) => this.rest = frame.into_data().unwrap_or_default(),
                }
                continue;
            }
            let Some(piece) = this.next_piece() else { continue };
            match this.meter.path.pass(Way::Out, piece.len()) {
                None => return this.send(piece),
                Some(at) => {
                    this.turn = Some(Box::pin(sleep_until(at)));
                    this.piece = Some(piece);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.piece.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
