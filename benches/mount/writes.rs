//! Writing: one large file beside the same SDK sending the same bytes in parallel parts without a file system, small writes
//! beside large ones, and many small files by one thread and by many.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pailfs::demo::{Server, Shape};
use pailfs::store::{Attributes, ObjectStore, PartSource, UploadBody};
use pailfs::types::{ByteRange, Expect, ObjectKey, PartNumber};

use super::mounts::Program;
use super::reads::{in_threads, step, step_with};
use super::table::{Row, Table};
use super::wire::{CONNECTIONS, PART, RATE, runtime, store};
use super::{Failure, Plan, content, write_large};

const MIB: u64 = 1 << 20;

/// Files that are stored one after the other to tell how long a round trip is.
const ROUND_TRIPS: u32 = 50;

/// Threads that make small files.
const THREADS: usize = 16;

/// All steps with one program.
pub fn measure(program: Program, plan: &Plan, server: &Server, table: &mut Table) -> Result<(), Failure> {
    let limited = Shape { first_byte: plan.latency, per_connection: Some(RATE), ..Shape::default() };
    for (what, shape) in [("write, no latency", Shape::default()), ("write, 90 MB/s a connection", limited)] {
        server.set_shape(shape);
        large((program, server, table), (what, plan.size), shape)?;
    }
    server.set_shape(Shape::default());
    small_writes((program, server, table), plan.size / 4)?;
    server.set_shape(Shape { first_byte: plan.latency, ..Shape::default() });
    small_files((program, server, table), plan)?;
    Ok(())
}

type Where<'a> = (Program, &'a Server, &'a mut Table);

fn large((program, server, table): Where<'_>, (what, size): (&str, u64), shape: Shape) -> Result<(), Failure> {
    let bare = in_parts(server, size)?;
    if program == Program::Pailfs {
        table.add(Row {
            what: what.to_owned(),
            program: "SDK",
            time: bare,
            bytes: size,
            requests: Vec::new(),
            figure: format!("{CONNECTIONS} parts of 8 MiB at once, from memory"),
        });
    }
    let figure = |time: Duration| {
        let share = bare.as_secs_f64() / time.as_secs_f64();
        // Each part's answer is waited for before its connection carries the next.
        let turn = shape.first_byte.as_secs_f64() + PART as f64 / RATE as f64;
        let carried = (CONNECTIONS * PART) as f64 / turn;
        match shape.per_connection {
            None => format!("{share:.2} of the SDK's rate"),
            Some(_) => format!(
                "{share:.2} of the SDK's rate, {:.2} of what {CONNECTIONS} connections carry",
                size as f64 / time.as_secs_f64() / carried
            ),
        }
    };
    let write = |root: &Path| write_large(&root.join("written"), size);
    step((program, server, table), (what, size), write, |outcome| figure(outcome.time))?;
    server.bucket("bench").delete("written");
    if program == Program::Pailfs && shape.per_connection.is_none() {
        stays_here((program, server, table), size, bare)?;
    }
    Ok(())
}

/// The same write of a file that goes nowhere, since its first part never gets full and it is cut before it is stored: what the
/// kernel's FUSE and the staging leave. Server, writer and mount share the processors here, and the SDK keeps all of them busy.
fn stays_here((program, server, table): Where<'_>, size: u64, bare: Duration) -> Result<(), Failure> {
    let write = |root: &Path| {
        let (mut file, piece) = (File::create(root.join("stays"))?, content(MIB));
        for _ in 0..size / MIB {
            file.write_all(&piece)?;
        }
        Ok(file.set_len(0)?)
    };
    let place = (program, server, &mut *table);
    step_with(place, ("as above, but sent nowhere", size), ",part_size=5GiB", write, |outcome| {
        let both = bare + outcome.time;
        format!("then sent by the SDK it would be {:.2} of its rate", bare.as_secs_f64() / both.as_secs_f64())
    })?;
    server.bucket("bench").delete("stays");
    Ok(())
}

/// How long the SDK alone takes for so many bytes that lie in memory.
fn in_parts(server: &Server, size: u64) -> Result<Duration, Failure> {
    // All of them: one part that is sent again and again would come out of the processor's caches.
    let bytes = Bytes::from(content(size));
    let time = runtime()?.block_on(async {
        let store = store(server).await?;
        let key = ObjectKey::from_store("written".to_owned());
        let start = Instant::now();
        let upload = store.create_upload(&key, &Attributes::default(), PartSource::Bodies).await?;
        let parts =
            (0..size.div_ceil(PART)).map(|index| {
                let range = ByteRange::at(index * PART, PART).intersect(ByteRange::new(0, size));
                let bytes = bytes.slice(range.start as usize..range.end as usize);
                let (store, key, upload) = (&store, &key, &upload);
                async move {
                    store.upload_part(key, upload, PartNumber::from_index(index)?, UploadBody::Memory(bytes)).await
                }
            });
        let sent: Vec<_> = stream::iter(parts).buffered(CONNECTIONS as usize).try_collect().await?;
        store.complete_upload(&key, &upload, &sent, size, None, &Expect::Any).await?;
        Ok::<_, Failure>(start.elapsed())
    })?;
    server.bucket("bench").delete("written");
    Ok(time)
}

/// How long the SDK alone takes to store one file of 4 KiB that is new, connected already: what a round trip is here, with
/// the timers of the server.
fn round_trip(server: &Server) -> Result<Duration, Failure> {
    let key = |number: u32| ObjectKey::from_store(format!("round-trip/{number}"));
    let time = runtime()?.block_on(async {
        let store = store(server).await?;
        let bytes = Bytes::from(content(4096));
        let start = Instant::now();
        for number in 0..ROUND_TRIPS {
            let body = UploadBody::Memory(bytes.clone());
            store.put(&key(number), body, &Attributes::default(), &Expect::Absent).await?;
        }
        Ok::<_, Failure>(start.elapsed())
    })?;
    for number in 0..ROUND_TRIPS {
        server.bucket("bench").delete(key(number).as_str());
    }
    Ok(time / ROUND_TRIPS)
}

/// The same bytes in pieces of 1 MiB and of 4 KiB.
fn small_writes((program, server, table): Where<'_>, size: u64) -> Result<(), Failure> {
    let before = Cell::new(None);
    for (what, piece) in [("writes of 1 MiB", MIB), ("writes of 4 KiB", 4096)] {
        let write = |root: &Path| {
            let (mut file, piece) = (File::create(root.join("written"))?, content(piece));
            for _ in 0..size / piece.len() as u64 {
                file.write_all(&piece)?;
            }
            Ok(file.sync_all()?)
        };
        step((program, server, table), (what, size), write, |outcome| match before.replace(Some(outcome.time)) {
            Some(larger) => {
                format!("{:.2} of the rate of writes of 1 MiB", larger.as_secs_f64() / outcome.time.as_secs_f64())
            }
            None => String::new(),
        })?;
        server.bucket("bench").delete("written");
    }
    if program != Program::Pailfs {
        return Ok(());
    }
    // As many, all over the same 4 KiB: what the kernel's way to the daemon and back takes, with next to nothing to store.
    let again = |root: &Path| {
        let (file, piece) = (File::create(root.join("written"))?, content(4096));
        for _ in 0..size / 4096 {
            file.write_all_at(&piece, 0)?;
        }
        Ok(file.sync_all()?)
    };
    step((program, server, table), ("as many over each other", size), again, |outcome| {
        let share = before.get().map_or(0.0, |other| outcome.time.as_secs_f64() / other.as_secs_f64());
        format!("{share:.2} of the time of writes of 4 KiB that are stored")
    })?;
    server.bucket("bench").delete("written");
    Ok(())
}

/// Files of 4 KiB, each made, written and closed.
fn small_files((program, server, table): Where<'_>, plan: &Plan) -> Result<(), Failure> {
    if !program.stores_at_close() {
        return Ok(());
    }
    let (files, trip) = (plan.files, round_trip(server)?.as_secs_f64());
    let alone = Cell::new(Duration::ZERO);
    let what = format!("make {files} files of 4 KiB");
    let make = |name: &'static str, threads: usize| {
        move |root: &Path| {
            let (dir, next) = (root.join(name), AtomicUsize::new(0));
            std::fs::create_dir(&dir)?;
            in_threads(threads, |_| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= files {
                        return Ok(());
                    }
                    std::fs::write(dir.join(format!("file-{number}")), [number as u8; 4096])?;
                }
            })
        }
    };
    step((program, server, table), (&what, 0), make("by-one", 1), |outcome| {
        alone.set(outcome.time);
        let trips = outcome.time.as_secs_f64() / files as f64 / trip;
        format!("{trips:.2} round trips of {:.1} ms a file", trip * 1e3)
    })?;
    let times = |time: Duration| alone.get().as_secs_f64() / time.as_secs_f64();
    let what = format!("as above, made by {THREADS} threads");
    step((program, server, table), (&what, 0), make("by-many", THREADS), |outcome| {
        let rate = files as f64 / outcome.time.as_secs_f64();
        format!("{rate:.0} files a second, {:.1} times as fast as one thread", times(outcome.time))
    })?;
    if program == Program::Pailfs {
        let what = "as above, commit=async";
        step_with((program, server, table), (what, 0), ",commit=async", make("by-one-meanwhile", 1), |outcome| {
            format!("{:.1} times as fast as commit=close", times(outcome.time))
        })?;
    }
    Ok(())
}
