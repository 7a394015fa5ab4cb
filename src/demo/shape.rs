//! How slow the server is: first-byte delay and bandwidth.
//!
//! Owns the clock arithmetic of the limits. A limiter is a queue of bytes at a fixed rate: whoever sends reserves its
//! place and waits until its turn is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Latency and bandwidth of the server. The default is as fast as it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// From the end of a request to the first byte of its reply.
    pub first_byte: Duration,
    /// Bytes a second on one connection, each way.
    pub per_connection: Option<u64>,
    /// Bytes a second over all connections, each way.
    pub total: Option<u64>,
}

/// The shape in force and the queue that all connections share.
#[derive(Debug, Default)]
pub(super) struct Shaper {
    shape: Mutex<Shape>,
    total_in: Lane,
    total_out: Lane,
}

/// Whoever sends wakes up later than its turn was over, by the timer's step and more on a busy machine. Within this it is made
/// up for: else small pieces at a high rate would come at a fraction of it.
const LATE: Duration = Duration::from_millis(10);

/// Bytes that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Lane(Mutex<Option<Instant>>);

impl Lane {
    /// Queues bytes and says when they are through.
    fn reserve(&self, now: Instant, bytes: usize, rate: u64) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |at| at.max(now.checked_sub(LATE).unwrap_or(now)));
        let end = start + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        *free = Some(end);
        end
    }
}

/// The two queues of one connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    input: Lane,
    output: Lane,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

impl Shaper {
    pub(super) fn set(&self, shape: Shape) {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = shape;
    }

    pub(super) fn get(&self) -> Shape {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When these bytes may go on; None when nothing holds them.
    pub(super) fn pass(&self, connection: &Connection, way: Way, bytes: usize) -> Option<Instant> {
        let shape = self.get();
        let now = Instant::now();
        let (own, all) = match way {
            Way::In => (&connection.input, &self.total_in),
            Way::Out => (&connection.output, &self.total_out),
        };
        let own = shape.per_connection.map(|rate| own.reserve(now, bytes, rate));
        let all = shape.total.map(|rate| all.reserve(now, bytes, rate));
        own.max(all)
    }
}

/// The shaper and the connection a body passes through.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) shaper: Arc<Shaper>,
    pub(super) connection: Arc<Connection>,
}

impl Path {
    /// Whether any bandwidth limit is in force.
    pub(super) fn is_limited(&self) -> bool {
        let shape = self.shaper.get();
        shape.per_connection.is_some() || shape.total.is_some()
    }

    pub(super) fn pass(&self, way: Way, bytes: usize) -> Option<Instant> {
        self.shaper.pass(&self.connection, way, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_queue_behind_each_other() {
        let (lane, now) = (Lane::default(), Instant::now());
        assert_eq!(lane.reserve(now, 500, 1000), now + Duration::from_millis(500));
        assert_eq!(lane.reserve(now, 500, 1000), now + Duration::from_millis(1000));
        // A sender that is late has its rate all the same; one that had nothing to send for long has only its rate.
        let late = now + Duration::from_millis(1005);
        assert_eq!(lane.reserve(late, 500, 1000), now + Duration::from_millis(1500));
        let later = now + Duration::from_secs(5);
        assert_eq!(lane.reserve(later, 1000, 1000), later - LATE + Duration::from_secs(1));
    }

    #[test]
    fn the_slower_limit_holds() {
        let shaper = Shaper::default();
        let connection = Connection::default();
        assert_eq!(shaper.pass(&connection, Way::Out, 1000), None);
        shaper.set(Shape { per_connection: Some(1000), total: Some(100), ..Shape::default() });
        let before = Instant::now();
        let through = shaper.pass(&connection, Way::Out, 1000);
        assert!(through.is_some_and(|at| at >= before + Duration::from_secs(10)));
    }
}
