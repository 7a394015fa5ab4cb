//! One large file read in order, beside the same SDK fetching the same object in parallel parts without a file system: how
//! much of the wire's rate arrives at the program that reads.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use pailfs::demo::{Server, Shape};
use pailfs::error::Error;
use pailfs::store::{AccessKeys, ObjectStore, StoreOptions, connect};
use pailfs::types::{ByteRange, ObjectKey};

use super::mounts::{Mounted, Program};
use super::reads::{forget_clean_pages, step};
use super::table::{Row, Table};
use super::{Failure, Plan, content, read_large};

const MIB: u64 = 1 << 20;

/// Largest piece that pailfs fetches with one request.
pub const PART: u64 = 8 * MIB;

/// Connections of the default window: `read_ahead` in such pieces.
pub const CONNECTIONS: u64 = 8;

/// What one connection carries where that is limited, in bytes a second.
pub const RATE: u64 = 90_000_000;

/// Without a limit, then with latency and limited connections.
pub fn measure(program: Program, plan: &Plan, server: &Server, table: &mut Table) -> Result<(), Failure> {
    server.bucket("bench").put("wire", content(plan.size));
    let limited = Shape { first_byte: plan.latency, per_connection: Some(RATE), ..Shape::default() };
    for (what, shape) in [("read, no latency", Shape::default()), ("read, 90 MB/s a connection", limited)] {
        server.set_shape(shape);
        let bare = in_parts(server, plan.size)?;
        if program == Program::Pailfs {
            table.add(Row {
                what: what.to_owned(),
                program: "SDK",
                time: bare,
                bytes: plan.size,
                requests: Vec::new(),
                figure: format!("{CONNECTIONS} parts of 8 MiB at once, no file system"),
            });
        }
        let figure = |time: Duration| {
            let share = bare.as_secs_f64() / time.as_secs_f64();
            // Each part waits for its first byte before its connection carries anything.
            let turn = plan.latency.as_secs_f64() + PART as f64 / RATE as f64;
            let carried = (CONNECTIONS * PART) as f64 / turn;
            match shape.per_connection {
                None => format!("{share:.2} of the SDK's rate"),
                Some(_) => format!(
                    "{share:.2} of the SDK's rate, {:.2} of what {CONNECTIONS} connections carry",
                    plan.size as f64 / time.as_secs_f64() / carried
                ),
            }
        };
        let read = |root: &std::path::Path| read_large(&root.join("wire"), plan.size);
        step((program, server, table), (what, plan.size), read, |outcome| figure(outcome.time))?;
    }
    server.set_shape(Shape::default());
    if program == Program::Pailfs {
        without_s3(server, plan.size, table)?;
    }
    server.set_shape(Shape { first_byte: plan.latency, ..Shape::default() });
    server.bucket("bench").delete("wire");
    Ok(())
}

/// The same read of a file whose bytes are all in the local machine's memory: what the kernel's FUSE alone leaves. Server,
/// daemon, kernel and reader share the processors, so that with few of them a read from S3 takes the time of both together.
fn without_s3(server: &Server, size: u64, table: &mut Table) -> Result<(), Failure> {
    let bare = in_parts(server, size)?;
    let mounted = Mounted::start(Program::Pailfs, server)?;
    let path = mounted.root().join("held");
    let mut held = File::create(&path)?;
    let block = content(MIB);
    for _ in 0..size / MIB {
        held.write_all(&block)?;
    }
    // The kernel's own pages of the file go; those of the staged file wait to be written to the disk, and stay.
    if !forget_clean_pages() {
        eprintln!("the kernel's caches can't be dropped: reading without S3 is left out");
        return Ok(());
    }
    let start = Instant::now();
    read_large(&path, size / MIB * MIB)?;
    let time = start.elapsed();
    let both = bare.as_secs_f64() / (bare + time).as_secs_f64();
    table.add(Row {
        what: "read, staged, without S3".to_owned(),
        program: Program::Pailfs.name(),
        time,
        bytes: size,
        requests: Vec::new(),
        figure: format!("{both:.2} of the SDK's rate is what both leave one after the other"),
    });
    Ok(())
}

/// What the SDK runs on: as many workers as a mount has.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The SDK alone. Its connections are made before a clock runs, as a mount's are.
pub async fn store(server: &Server) -> Result<impl ObjectStore + use<>, Failure> {
    let options = StoreOptions {
        bucket: "bench".to_owned(),
        region: Some(server.region().to_owned()),
        endpoint_url: Some(server.endpoint()),
        keys: Some(AccessKeys {
            access_key: server.access_key().to_owned(),
            secret_key: server.secret_key().to_owned(),
        }),
        ..StoreOptions::default()
    };
    let store = connect(&options).await?;
    match store.head(&ObjectKey::from_store("nothing".to_owned())).await {
        Ok(_) | Err(Error::NotFound) => Ok(store),
        Err(error) => Err(error.into()),
    }
}

/// How long the SDK alone takes.
fn in_parts(server: &Server, size: u64) -> Result<Duration, Failure> {
    runtime()?.block_on(async {
        let store = store(server).await?;
        let key = ObjectKey::from_store("wire".to_owned());
        let start = Instant::now();
        let parts = (0..size.div_ceil(PART)).map(|index| {
            let range = ByteRange::at(index * PART, PART).intersect(ByteRange::new(0, size));
            let (store, key) = (&store, &key);
            async move {
                let reply = store.get(key, Some(range), None).await?;
                reply.body.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len() as u64) }).await
            }
        });
        let came: u64 =
            stream::iter(parts).buffered(CONNECTIONS as usize).try_fold(0, |a, b| async move { Ok(a + b) }).await?;
        if came == size { Ok(start.elapsed()) } else { Err(format!("{came} bytes came instead of {size}").into()) }
    })
}
