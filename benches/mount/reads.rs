//! Reading otherwise than in one stream: small files one after the other, random reads, a footer and its ranges, many
//! files at once, and again. Each row says the figure that it is about.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pailfs::demo::{Operation, Server};

use super::mounts::{Mounted, Program};
use super::table::{Row, Table};
use super::{Failure, Plan, content, read_large, requests};

const MIB: u64 = 1 << 20;

/// What pailfs rounds random reads to.
const BLOCK: u64 = 128 << 10;

/// Reads of one kind at places that nobody could guess.
const READS: u64 = 100;

/// Files that are read at once.
const AT_ONCE: usize = 64;

/// Large files that are read at once.
const STREAMS: usize = 4;

/// Threads that read small files.
const THREADS: usize = 16;

/// What is known after a step, for its figure.
pub struct Outcome {
    pub time: Duration,
    /// Bytes that S3 sent.
    came: u64,
    /// Most memory of the daemon, in bytes.
    pub memory: u64,
    /// Requests.
    pub asked: u64,
}

/// Runs one step on a mount of its own.
pub fn step(
    place: (Program, &Server, &mut Table),
    what: (&str, u64),
    work: impl Fn(&Path) -> Result<(), Failure>,
    figure: impl Fn(&Outcome) -> String,
) -> Result<(), Failure> {
    step_with(place, what, "", work, figure)
}

/// As [`step`], with more options of the mount, each after a comma.
pub fn step_with(
    (program, server, table): (Program, &Server, &mut Table),
    (what, bytes): (&str, u64),
    more: &str,
    work: impl Fn(&Path) -> Result<(), Failure>,
    figure: impl Fn(&Outcome) -> String,
) -> Result<(), Failure> {
    let mounted = Mounted::start_with(program, server, more)?;
    server.reset_counters();
    let start = Instant::now();
    work(mounted.root())?;
    let time = start.elapsed();
    let memory = mounted.peak_memory();
    drop(mounted);
    let counters = server.counters();
    let came = counters.of(Operation::GetObject).bytes_out;
    let outcome = Outcome { time, came, memory, asked: counters.total().requests };
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
    bucket.put("large", content(size));
    for (dir, files) in [("many", AT_ONCE), ("streams", STREAMS)] {
        for number in 0..files {
            bucket.put(&format!("{dir}/{number}"), content(size / files as u64));
        }
        bucket.put(&format!("{dir}/"), "");
    }

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
    let what = format!("as above, {THREADS} threads");
    let many = |root: &Path| read_by_threads(&root.join("small"), files);
    step((program, server, table), (&what, 0), many, |outcome| {
        format!("{:.0} files a second", files as f64 / outcome.time.as_secs_f64())
    })?;
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
    let what = format!("{STREAMS} streams");
    let streams = |root: &Path| at_once(&root.join("streams"), STREAMS, size / STREAMS as u64);
    step((program, server, table), (&what, size), streams, |_| String::new())?;
    step(
        (program, server, table),
        ("64 files at once", size / 64 * 64),
        |root| at_once(&root.join("many"), AT_ONCE, size / 64),
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
    if program == Program::Pailfs {
        from_the_disk(server, size, table)?;
    }
    bucket.delete("large");
    Ok(())
}

/// Reading a file that is whole in the disk cache, with nothing of it in the kernel's caches, beside the same file read where
/// it lies: so many times each, one after the other, of which the best count.
const TURNS: usize = 3;

fn from_the_disk(server: &Server, size: u64, table: &mut Table) -> Result<(), Failure> {
    if !drop_caches() {
        eprintln!("the kernel's caches can't be dropped: reading from the disk cache is left out");
        return Ok(());
    }
    let home = tempfile::tempdir()?;
    let dir = home.path().join("cache");
    let options = format!(",ro,cache_min_free=0,cache_dir={}", dir.display());
    let fill = Mounted::start_with(Program::Pailfs, server, &options)?;
    read_large(&fill.root().join("large"), size)?;
    drop(fill);
    let local = largest_below(&dir)?.ok_or("nothing was kept")?;
    let mounted = Mounted::start_with(Program::Pailfs, server, &options)?;
    // Compared with its checksums meanwhile, for the next open.
    read_large(&mounted.root().join("large"), size)?;
    std::thread::sleep(Duration::from_secs(2));
    server.reset_counters();
    let (mut through, mut beside) = (Duration::MAX, Duration::MAX);
    for _ in 0..TURNS {
        for (path, best) in [(mounted.root().join("large"), &mut through), (local.clone(), &mut beside)] {
            drop_caches();
            let start = Instant::now();
            read_large(&path, size)?;
            *best = (*best).min(start.elapsed());
        }
    }
    drop(mounted);
    let counters = server.counters();
    table.add(Row {
        what: "from the disk cache".to_owned(),
        program: Program::Pailfs.name(),
        time: through,
        bytes: size,
        requests: requests(&counters),
        figure: format!(
            "{:.2} of the rate of the local file; {} bytes came",
            beside.as_secs_f64() / through.as_secs_f64(),
            counters.of(Operation::GetObject).bytes_out
        ),
    });
    Ok(())
}

/// What waits to be written would stay.
fn drop_caches() -> bool {
    let written = std::process::Command::new("sync").status().is_ok_and(|status| status.success());
    written && forget_clean_pages()
}

/// Drops what the kernel can read again.
pub fn forget_clean_pages() -> bool {
    std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}

fn largest_below(dir: &Path) -> Result<Option<PathBuf>, Failure> {
    let mut found = None;
    for shard in std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()? {
        if shard.file_type()?.is_dir() {
            for file in std::fs::read_dir(shard.path())?.collect::<Result<Vec<_>, _>>()? {
                found = found.max(Some((file.metadata()?.len(), file.path())));
            }
        }
    }
    Ok(found.map(|(_, path)| path))
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

/// Reads so many files of a directory, each in a thread.
fn at_once(dir: &Path, files: usize, size: u64) -> Result<(), Failure> {
    in_threads(files, |number| read_large(&dir.join(number.to_string()), size))
}

/// Each thread takes the next file that nobody has taken.
fn read_by_threads(dir: &Path, files: usize) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    in_threads(THREADS, |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= files {
                return Ok(());
            }
            if std::fs::read(dir.join(format!("file-{number}")))? != [number as u8; 4096] {
                return Err(format!("wrong bytes in file-{number}").into());
            }
        }
    })
}

/// So many threads, each with its number; the first failure is given.
pub fn in_threads(count: usize, work: impl Fn(usize) -> Result<(), Failure> + Sync) -> Result<(), Failure> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..count).map(|number| scope.spawn(move || work(number).map_err(|error| error.to_string()))).collect();
        for thread in threads {
            thread.join().map_err(|_| "a reader panicked")??;
        }
        Ok(())
    })
}
