//! What a mount does in a second, and what it asks of S3 for it: sequential writing and reading, small files, names,
//! random reads, many files at once, the disk cache, on the in-process server with a chosen latency; `--peers` runs s3fs and rclone beside it.
//!
//! Each step has a mount of its own, so that nothing is read from a cache that the step before filled.

mod mounts;
mod names;
mod reads;
mod table;
mod wire;
mod writes;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use pailfs::demo::{Counters, Server, ServerOptions, Shape};

use mounts::{Mounted, Program};
use table::{Row, Table};

const HELP: &str = "cargo bench --bench mount -- [--size 1GiB] [--latency 20ms] [--files 1000] [--names 10000] [--peers] \
                    [--small] [--only names|wire|writes]";

const BLOCK: usize = 1 << 20;

type Failure = Box<dyn std::error::Error>;

/// A part of the table that can be asked for alone.
#[derive(Clone, Copy, Debug)]
enum Section {
    Names,
    Wire,
    Writes,
}

/// How much of everything.
#[derive(Clone, Debug)]
struct Plan {
    size: u64,
    latency: Duration,
    files: usize,
    names: usize,
    peers: bool,
    /// Names of one large directory.
    many: usize,
    /// Names of one that is larger than anything that is kept, if it is measured.
    most: Option<usize>,
    /// Directories of a tree, each with so many files when it is walked, and so many when it is made and removed.
    tree: (usize, usize, usize),
    /// Only this section.
    only: Option<Section>,
}

fn main() -> Result<(), Failure> {
    let Some(plan) = plan(std::env::args().skip(1))? else {
        println!("{HELP}");
        return Ok(());
    };
    let mut table = Table::default();
    for program in Program::all(plan.peers) {
        if program.is_installed() {
            match measure(program, &plan, &mut table) {
                Err(error) if program != Program::Pailfs => eprintln!("{} failed: {error}", program.name()),
                outcome => outcome?,
            }
        } else {
            eprintln!("{} is not installed: left out", program.name());
        }
    }
    println!(
        "first byte after {:?}, {} bytes, {} small files, {} names",
        plan.latency, plan.size, plan.files, plan.names
    );
    print!("{table}");
    Ok(())
}

/// Reads the arguments; `None` asks for help.
fn plan(arguments: impl Iterator<Item = String>) -> Result<Option<Plan>, Failure> {
    let mut plan = Plan {
        size: 1 << 30,
        latency: Duration::from_millis(20),
        files: 1000,
        names: 10_000,
        peers: false,
        many: 100_000,
        most: Some(1_000_000),
        tree: (100, 100, 20),
        only: None,
    };
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--size" => plan.size = bytes(&value()?)?,
            "--latency" => plan.latency = milliseconds(&value()?)?,
            "--files" => plan.files = value()?.parse()?,
            "--names" => plan.names = value()?.parse()?,
            "--peers" => plan.peers = true,
            "--only" => match value()?.as_str() {
                "names" => plan.only = Some(Section::Names),
                "wire" => plan.only = Some(Section::Wire),
                "writes" => plan.only = Some(Section::Writes),
                other => return Err(format!("there is no section {other}; {HELP}").into()),
            },
            "--small" => {
                let latency = Duration::from_millis(2);
                let few = Plan { size: 32 << 20, latency, files: 50, names: 500, ..plan };
                plan = Plan { many: 2500, most: None, tree: (10, 10, 5), ..few };
            }
            // cargo adds it.
            "--bench" => {}
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other}; {HELP}").into()),
        }
    }
    Ok(Some(plan))
}

fn bytes(text: &str) -> Result<u64, Failure> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(format!("unknown unit {unit}; KiB, MiB and GiB are known").into()),
    };
    Ok(digits.parse::<u64>()? * factor)
}

fn milliseconds(text: &str) -> Result<Duration, Failure> {
    Ok(Duration::from_millis(text.trim_end_matches("ms").parse()?))
}

/// Runs every step with one program on a server of its own.
fn measure(program: Program, plan: &Plan, table: &mut Table) -> Result<(), Failure> {
    // An MD5 of each body would take the processors that the programs need. rclone compares it with what it read.
    let opaque_etags = program != Program::Rclone;
    let server = Server::start(ServerOptions { opaque_etags, ..ServerOptions::default() })?;
    let bucket = server.bucket("bench");
    match plan.only {
        Some(Section::Names) => return names::measure(program, plan, &server, table),
        Some(Section::Wire) => return wire::measure(program, plan, &server, table),
        Some(Section::Writes) => return writes::measure(program, plan, &server, table),
        None => {}
    }
    // s3fs takes a directory for one only when it has a marker.
    bucket.put("small/", "");
    server.set_shape(Shape { first_byte: plan.latency, ..Shape::default() });
    type Work<'a> = &'a dyn Fn(&Path) -> Result<(), Failure>;
    let mut step = |what: &str, bytes: u64, more: &str, work: Work<'_>| -> Result<(), Failure> {
        let mounted = Mounted::start_with(program, &server, more)?;
        server.reset_counters();
        let start = Instant::now();
        work(mounted.root())?;
        let time = start.elapsed();
        // The daemon may still finish what nobody waits for; that counts, too.
        drop(mounted);
        let behind = format!("stored and unmounted after {:.3} s", start.elapsed().as_secs_f64());
        let counters = server.counters();
        let moved = counters.total().bytes_in + counters.total().bytes_out;
        table.add(Row {
            what: what.to_owned(),
            program: program.name(),
            time,
            bytes,
            requests: requests(&counters),
            figure: match (more.is_empty(), bytes) {
                (false, _) => behind,
                (true, 0) => String::new(),
                (true, _) => format!("{moved} body bytes"),
            },
        });
        Ok(())
    };
    let small = plan.files;
    if program.stores_at_close() {
        step("sequential write", plan.size, "", &|root| write_large(&root.join("large"), plan.size))?;
        step(&format!("write {small} files of 4 KiB"), 0, "", &|root| write_small(&root.join("small"), small))?;
        if program == Program::Pailfs {
            step("the same, commit=async", 0, ",commit=async", &|root| {
                let dir = root.join("meanwhile");
                std::fs::create_dir(&dir)?;
                write_small(&dir, small)
            })?;
        }
    } else {
        bucket.put("large", content(plan.size));
        for number in 0..small {
            bucket.put(&format!("small/file-{number}"), vec![number as u8; 4096]);
        }
    }
    step("sequential read", plan.size, "", &|root| read_large(&root.join("large"), plan.size))?;
    step(&format!("cp of {} MiB within the mount", plan.size >> 20), plan.size, "", &|root| copy_large(root))?;
    bucket.delete("copied");
    bucket.delete("large");
    names::measure(program, plan, &server, table)?;
    reads::measure(program, plan, &server, table)?;
    wire::measure(program, plan, &server, table)?;
    writes::measure(program, plan, &server, table)
}

fn requests(counters: &Counters) -> Vec<(String, u64)> {
    let asked = counters.iter().filter(|(_, count)| count.requests > 0);
    asked.map(|(operation, count)| (format!("{operation:?}"), count.requests)).collect()
}

fn pattern() -> Vec<u8> {
    (0..BLOCK).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn content(size: u64) -> Vec<u8> {
    pattern().iter().copied().cycle().take(size as usize).collect()
}

fn write_large(path: &Path, size: u64) -> Result<(), Failure> {
    let block = pattern();
    let mut file = File::create(path)?;
    let mut left = size;
    while left > 0 {
        let count = left.min(BLOCK as u64);
        file.write_all(&block[..count as usize])?;
        left -= count;
    }
    // The close stores the file; only an fsync before it tells whether that worked.
    Ok(file.sync_all()?)
}

fn read_large(path: &Path, size: u64) -> Result<(), Failure> {
    let (expected, mut block) = (pattern(), vec![0; BLOCK]);
    let mut file = File::open(path)?;
    let mut total = 0;
    loop {
        let mut filled = 0;
        while filled < BLOCK {
            match file.read(&mut block[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if block[..filled] != expected[..filled] {
            return Err(format!("wrong bytes near {total}").into());
        }
        total += filled as u64;
        if filled < BLOCK {
            break;
        }
    }
    if total == size { Ok(()) } else { Err(format!("{total} bytes instead of {size}").into()) }
}

fn copy_large(root: &Path) -> Result<(), Failure> {
    let status = std::process::Command::new("cp").args(["large", "copied"]).current_dir(root).status()?;
    if status.success() { Ok(()) } else { Err(format!("cp ended with {status}").into()) }
}

fn write_small(dir: &Path, count: usize) -> Result<(), Failure> {
    for number in 0..count {
        std::fs::write(dir.join(format!("file-{number}")), [number as u8; 4096])?;
    }
    Ok(())
}
