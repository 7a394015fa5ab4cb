//! The server as a thing to hold: its socket, its thread, and the handles that steer it.
//!
//! Owns the lifetime: a runtime on a thread of its own (a mount in the same process may block the caller's threads
//! while it waits for this server), stopped by Drop.

use super::backend::Backend;
use super::bucket::Bucket;
use super::checksums::ETags;
use super::counters::{Counters, Tally};
use super::faults::{Fault, Faults};
use super::operation::Operation;
use super::service::{Gate, Keys, Shared, handle};
use super::shape::{Connection, Shape, Shaper};
use super::state::State;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::service::{S3Service, S3ServiceBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How to start a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where it listens; port 0 takes any free port.
    pub listen: SocketAddr,
    /// The access key it knows.
    pub access_key: String,
    /// The secret of that key.
    pub secret_key: String,
    /// The region it says its buckets are in.
    pub region: String,
    /// What faults with a probability are drawn from.
    pub seed: u64,
    /// ETags say nothing of the bytes, as in S3 for objects that a KMS key encrypts, instead of being their MD5, which takes
    /// more of a processor than everything else that a large body needs.
    pub opaque_etags: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            access_key: "demo".to_owned(),
            secret_key: "demo-secret".to_owned(),
            region: "us-east-1".to_owned(),
            seed: 1,
            opaque_etags: false,
        }
    }
}

/// A running server. Dropping it stops it and forgets all data.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    options: ServerOptions,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Worker threads of the server's runtime: a second one so that summing a large body does not hold up the others.
const WORKERS: usize = 2;

/// How long a stop waits for work that can't be interrupted.
const STOP_WAIT: Duration = Duration::from_secs(1);

impl Server {
    /// Starts a server; it answers when this returns.
    ///
    /// # Errors
    /// The address is taken or not ours, or the system has no thread left.
    pub fn start(options: ServerOptions) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: State::default(),
            faults: Faults::new(options.seed),
            shaper: Arc::new(Shaper::default()),
            tally: Arc::new(Tally::default()),
            region: options.region.clone(),
            etags: if options.opaque_etags { ETags::Opaque } else { ETags::Md5 },
            clock_ahead: AtomicI64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("demo-s3")
            .enable_all()
            .build()?;
        let service = service(&options, &shared);
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let accepting = accept(listener, service, shared.clone());
        let thread = std::thread::Builder::new().name("demo-s3".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! { () = accepting => {}, _ = stopped => {} }
            });
            runtime.shutdown_timeout(STOP_WAIT);
        })?;
        Ok(Self { address, options, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// The URL to give to S3 clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The access key it knows.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.options.access_key
    }

    /// The secret of that key.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.options.secret_key
    }

    /// The region its buckets are in.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.options.region
    }

    /// A bucket, made if it is absent, to look at and to fill without HTTP.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::open(self.shared.clone(), name)
    }

    /// What was asked so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.tally.read()
    }

    /// Counts from zero again.
    pub fn reset_counters(&self) {
        self.shared.tally.reset();
    }

    /// Sets latency and bandwidth from now on.
    pub fn set_shape(&self, shape: Shape) {
        self.shared.shaper.set(shape);
    }

    /// Puts the server's clock so many seconds ahead of the machine's, or behind. Beyond 15 minutes every request is refused.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.clock_ahead.store(seconds, Ordering::SeqCst);
    }

    /// Adds a fault behind those that are there.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// How many requests were hit by a fault.
    #[must_use]
    pub fn faults_fired(&self) -> u64 {
        self.shared.faults.fired()
    }

    /// Denies an operation (any when None) on keys with this prefix to the holder of the keys.
    pub fn deny(&self, operation: Option<Operation>, key_prefix: &str) {
        self.shared.faults.deny(operation, key_prefix);
    }

    /// Takes all denials back.
    pub fn allow_all(&self) {
        self.shared.faults.allow_all();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread ends by itself; whether it panicked is of no use to anybody now.
            let _ = thread.join();
        }
    }
}

fn service(options: &ServerOptions, shared: &Arc<Shared>) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Backend::new(shared.clone()));
    builder.set_auth(Keys { access_key: options.access_key.clone(), secret_key: options.secret_key.clone() });
    builder.set_access(Gate(shared.clone()));
    builder.build()
}

async fn accept(listener: TcpListener, service: S3Service, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, service.clone(), shared.clone()));
            }
            // Out of descriptors, mostly: wait for connections to end instead of spinning.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, s3: S3Service, shared: Arc<Shared>) {
    // Without it small replies wait for the peer's delayed acknowledgement; a socket that refuses is only slower.
    let _ = stream.set_nodelay(true);
    let connection = Arc::new(Connection::default());
    let answer =
        hyper::service::service_fn(move |request| handle(s3.clone(), shared.clone(), connection.clone(), request));
    // A connection that ends in an error was broken by its client or, on demand, by a fault.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}
