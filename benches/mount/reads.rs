//! Reading otherwise than in one stream: small files one after the other, random reads, a footer and its ranges, many
//! files at once, and again. Each row says the figure that it is about.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pailfs::demo::{Operation, Server};

use super::mounts::{Mounted, Program};
use super::table::{Row, Table};
use super::{Failure, Plan, pattern, read_large, requests};

const MIB: u64 = 1 << 20;

/// What pailfs rounds random reads to.
const BLOCK: u64 = 128 << 10;

/// Reads of one kind at places that nobody could guess.
const READS: u64 = 100;

/// Files that are read at once.
const AT_ONCE: usize = 64;

/// What is known after a step, for its figure.
pub struct Outcome {
    pub time: Duration,
    /// Bytes that S3 sent.
    came: u64,
    /// Most memory of the daemon.
    memory: u64,
}

/// Runs one step on a mount of its own.
pub fn step(
    (program, server, table): (Program, &Server, &mut Table),
    (what, bytes): (&str, u64),
    work: impl Fn(&Path) -> Result<(), Failure>,
    figure: impl Fn(&Outcome) -> String,
) -> Result<(), Failure> {
    let mounted = Mounted::start(program, server)?;
    server.reset_counters();
    let start = Instant::now();
    work(mounted.root())?;
    let time = start.elapsed();
    let memory = mounted.peak_memory();
    drop(mounted);
    let counters = server.counters();
    let outcome = Outcome { time, came: counters.of(Operation::GetObject).bytes_out, memory };
    table.add(Row {
        what: what.to_owned(),
        program: program.name(),
        time,
        bytes,
        requests: requests(&counters),
        figure: figure(&outcome),
    });
    Ok(())
}

/// All steps with one program.
pub fn measure(program: Program, plan: &Plan, server: &Server, table: &mut Table) -> Result<(), Failure> {
    let bucket = server.bucket("bench");
    let size = (plan.size / 2).max(4 * MIB);
    let content: Vec<u8> = pattern().iter().copied().cycle().take(size as usize).collect();
    bucket.put("large", content);
    for number in 0..AT_ONCE {
        let content: Vec<u8> = pattern().iter().copied().cycle().take((size / 64) as usize).collect();
        bucket.put(&format!("many/{number}"), content);
    }
    bucket.put("many/", "");

    let files = plan.files;
    let serial = plan.latency * u32::try_from(files)?;
    let faster = |outcome: &Outcome| {
        format!("{:.1} times faster than one round trip a file", serial.as_secs_f64() / outcome.time.as_secs_f64())
    };
    let asked = |asked: u64| {
        move |outcome: &Outcome| format!("{:.2} times the bytes asked came", outcome.came as f64 / asked as f64)
    };
    let what = format!("read {files} files of 4 KiB");
    step((program, server, table), (&what, 0), |root| read_listed(&root.join("small")), faster)?;
    let random = |len: u64| {
        move |root: &Path| {
            let file = File::open(root.join("large"))?;
            let mut bytes = vec![0; len as usize];
            for at in places(size, len.max(BLOCK)) {
                file.read_exact_at(&mut bytes, at)?;
            }
            Ok(())
        }
    };
    let blocks = READS.min(size / BLOCK) * BLOCK;
    step((program, server, table), ("random reads of 4 KiB", 0), random(4096), |outcome| {
        format!("{} of blocks of 128 KiB", asked(blocks)(outcome))
    })?;
    let parts = READS.min(size / MIB) * MIB;
    step((program, server, table), ("random reads of 1 MiB", parts), random(MIB), asked(parts))?;
    step((program, server, table), ("a footer and 3 ranges", 0), |root| footer(root, size), asked(3 * MIB + 65_544))?;
    step(
        (program, server, table),
        ("64 files at once", size / 64 * 64),
        |root| at_once(root, size / 64),
        |outcome| format!("the daemon had at most {} MiB", outcome.memory >> 20),
    )?;
    let twice = |root: &Path| {
        read_large(&root.join("large"), size)?;
        // The second pass is what the figure is about.
        server.reset_counters();
        read_large(&root.join("large"), size)
    };
    step((program, server, table), ("read twice", 2 * size), twice, |outcome| {
        format!("the second time {} bytes came", outcome.came)
    })?;
    bucket.delete("large");
    Ok(())
}

/// Reads all files of a directory in the order in which it lists them.
fn read_listed(dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()? {
        let name = entry.file_name().into_string().unwrap_or_default();
        let Some(number) = name.strip_prefix("file-") else { continue };
        if std::fs::read(entry.path())? != [number.parse::<usize>()? as u8; 4096] {
            return Err(format!("wrong bytes in {name}").into());
        }
    }
    Ok(())
}

/// Different places, none beside the one before it.
fn places(size: u64, len: u64) -> impl Iterator<Item = u64> {
    let steps = size / len;
    (0..READS.min(steps)).map(move |index| (index * 7919 + 13) % steps * len)
}

/// As a reader of a Parquet file does.
fn footer(root: &Path, size: u64) -> Result<(), Failure> {
    let file = File::open(root.join("large"))?;
    let mut bytes = vec![0; MIB as usize];
    file.read_exact_at(&mut bytes[..8], size - 8)?;
    file.read_exact_at(&mut bytes[..65_536], size - 65_536)?;
    for share in [5, 1, 3] {
        file.read_exact_at(&mut bytes, size / 8 * share / MIB * MIB)?;
    }
    Ok(())
}

fn at_once(root: &Path, size: u64) -> Result<(), Failure> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let path = root.join(format!("many/{number}"));
                scope.spawn(move || read_large(&path, size).map_err(|error| error.to_string()))
            })
            .collect();
        for reader in readers {
            reader.join().map_err(|_| "a reader panicked")??;
        }
        Ok(())
    })
}
