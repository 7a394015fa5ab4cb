//! `metrics_addr`: what a mount counts, for Prometheus; and `stats_interval`: the most of it, for the log.
//!
//! Owns the socket that is asked at, the little of HTTP that a scraper needs, and the names of the metrics. Counts nothing itself:
//! each answer is made of what the layers below have counted by then. Labels are kinds of calls and requests, never names of files,
//! keys or people.

mod http;
mod page;
mod stats;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use self::page::Page;
pub use self::stats::Stats;
use super::control::Subject;
use super::sentence::{Failure, Status};

/// So many connections at a time; further ones are closed. One scraper has one, and some may be stuck.
const CONNECTIONS: usize = 16;

/// Takes the address, before anything is mounted: who watches mounts must not miss one in silence.
///
/// # Errors
/// It is taken, is not of this machine, or this user may not have it.
pub fn bind(address: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|error| {
        let sentence = format!("no metrics at {address}: {error}; name another address with -o metrics_addr=HOST:PORT");
        Failure::new(Status::System, sentence)
    })
}

/// Answers scrapers until this is dropped.
#[derive(Debug)]
pub struct Metrics(AbortHandle);

impl Metrics {
    /// Answers at a socket of [`bind`].
    ///
    /// # Errors
    /// The socket can't be watched.
    pub fn serve(listener: TcpListener, subject: Arc<Subject>, runtime: &Handle) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (page, places) = (Arc::new(Page::of(subject)), Arc::new(Semaphore::new(CONNECTIONS)));
        let task = runtime.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        if let Ok(place) = places.clone().try_acquire_owned() {
                            let page = page.clone();
                            drop(tokio::spawn(async move {
                                http::answer(stream, &page).await;
                                drop(place);
                            }));
                        }
                    }
                    Err(error) => {
                        // Too many open files, perhaps: that passes.
                        tracing::debug!(%error, "a scraper could not be let in");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Metrics(task.abort_handle()))
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.0.abort();
    }
}
