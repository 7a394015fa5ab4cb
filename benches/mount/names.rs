//! Names: listing large directories beside the same SDK listing them without a file system, walking, making and removing
//! trees, and the memory that a million names take. Each row says the figure that it is about.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pailfs::demo::{Server, Shape};
use pailfs::store::{ListRequest, ObjectStore};

use super::mounts::Program;
use super::reads::{step, step_with};
use super::table::{Row, Table};
use super::wire::{runtime, store};
use super::{Failure, Plan};

type Where<'a> = (Program, &'a Server, &'a mut Table);

/// All steps with one program; the others list and look only.
pub fn measure(program: Program, plan: &Plan, server: &Server, table: &mut Table) -> Result<(), Failure> {
    let bucket = server.bucket("bench");
    // s3fs takes a directory for one only when it has a marker.
    bucket.put("names/", "");
    bucket.put_all((0..plan.names).map(|number| format!("names/name-{number:06}")), "x");
    server.set_shape(Shape { first_byte: plan.latency, ..Shape::default() });
    let names = plan.names;
    let what = format!("list {names} names");
    step((program, server, table), (&what, 0), |root| list(&root.join("names"), names), |_| String::new())?;
    let one_by_one = plan.latency * u32::try_from(names)?;
    let what = format!("ls -l of {names} names");
    step(
        (program, server, table),
        (&what, 0),
        |root| ls(root, "-l", "names", names),
        |outcome| {
            let times = one_by_one.as_secs_f64() / outcome.time.as_secs_f64();
            format!("{times:.1} times faster than one HEAD after another")
        },
    )?;
    if program == Program::Pailfs {
        large((program, server, table), plan.many)?;
        tree((program, server, table), plan.tree)?;
        if let Some(most) = plan.most {
            million((program, server, table), most, plan.latency)?;
        }
    }
    Ok(())
}

/// One large directory, with what a listing says and no metadata.
fn large((program, server, table): Where<'_>, count: usize) -> Result<(), Failure> {
    server.bucket("bench").put_all((0..count).map(|number| format!("many/object-{number:06}")), "x");
    let what = format!("ls of {count} names");
    let (bare, pages) = by_the_sdk(server, "many/", count)?;
    table.add(Row {
        what: what.clone(),
        program: "SDK",
        time: bare,
        bytes: 0,
        requests: vec![("ListObjectsV2".to_owned(), pages)],
        figure: "no file system".to_owned(),
    });
    let share = |time: Duration| format!("{:.2} of the SDK's time", time.as_secs_f64() / bare.as_secs_f64());
    let basic = ",metadata=basic";
    let plain = |root: &Path| ls(root, "-1", "many", count);
    step_with((program, server, table), (&what, 0), basic, plain, |outcome| share(outcome.time))?;
    let what = format!("ls -l of {count}, basic");
    let long = |root: &Path| ls(root, "-l", "many", count);
    step_with((program, server, table), (&what, 0), basic, long, |outcome| share(outcome.time))?;
    let second = Cell::new(Duration::ZERO);
    let twice = |root: &Path| {
        long(root)?;
        // The second one is what the figure is about.
        server.reset_counters();
        let start = Instant::now();
        long(root)?;
        second.set(start.elapsed());
        Ok(())
    };
    // Longer than both take.
    let lasting = ",metadata=basic,actimeo=600";
    step_with((program, server, table), ("as above, twice", 0), lasting, twice, |outcome| {
        format!("the second time {} requests, {:.3} s", outcome.asked, second.get().as_secs_f64())
    })
}

/// A tree that is walked, and one that is made and removed.
fn tree((program, server, table): Where<'_>, (dirs, walked, made): (usize, usize, usize)) -> Result<(), Failure> {
    let keys = |files: usize| (0..dirs * files).map(move |number| format!("tree/dir-{:03}/{number}", number / files));
    server.bucket("bench").put_all(keys(walked), "x");
    let what = format!("find in {dirs} x {walked}");
    let find = |root: &Path| {
        let output = Command::new("find").arg(root.join("tree")).output()?;
        let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        let expected = 1 + dirs + dirs * walked;
        if lines == expected { Ok(()) } else { Err(format!("find told {lines} names instead of {expected}").into()) }
    };
    step((program, server, table), (&what, 0), find, |outcome| format!("{} requests", outcome.asked))?;

    let home = tempfile::tempdir()?;
    for dir in 0..dirs {
        let dir = home.path().join(format!("made/dir-{dir:03}"));
        std::fs::create_dir_all(&dir)?;
        for number in 0..made {
            std::fs::write(dir.join(format!("file-{number}")), [number as u8; 4096])?;
        }
    }
    let archive = home.path().join("made.tar");
    run(Command::new("tar").arg("-C").arg(home.path()).arg("-cf").arg(&archive).arg("made"))?;
    let files = dirs * made;
    let a_file = |asked: u64| format!("{:.2} requests a file", asked as f64 / files as f64);
    let untar = |root: &Path| run(Command::new("tar").arg("-C").arg(root).arg("-xf").arg(&archive));
    let what = format!("untar {files} files, {dirs} dirs");
    step_with((program, server, table), (&what, 0), ",commit=async", untar, |outcome| a_file(outcome.asked))?;
    let what = format!("rm -r of {files} files");
    step(
        (program, server, table),
        (&what, 0),
        |root| run(Command::new("rm").arg("-r").arg(root.join("made"))),
        |outcome| a_file(outcome.asked),
    )?;
    match server.bucket("bench").keys().iter().find(|key| key.starts_with("made/")) {
        Some(key) => Err(format!("rm left {key}").into()),
        None => Ok(()),
    }
}

/// More names than are kept: how long the first one takes, and what the daemon needs for all.
fn million((program, server, table): Where<'_>, count: usize, latency: Duration) -> Result<(), Failure> {
    server.bucket("bench").put_all((0..count).map(|number| format!("most/object-{number:07}")), "x");
    let first = Cell::new(Duration::ZERO);
    let walk = |root: &Path| {
        let start = Instant::now();
        let mut entries = std::fs::read_dir(root.join("most"))?;
        let mut found = usize::from(entries.next().transpose()?.is_some());
        first.set(start.elapsed());
        for entry in entries {
            entry?;
            found += 1;
        }
        if found == count { Ok(()) } else { Err(format!("{found} names instead of {count}").into()) }
    };
    let what = format!("list {count} names");
    step((program, server, table), (&what, 0), walk, |outcome| {
        let trips = first.get().as_secs_f64() / latency.as_secs_f64();
        format!("the first after {trips:.1} round trips, the daemon had at most {} MiB", outcome.memory >> 20)
    })
}

/// How long the SDK alone takes for the names below a prefix, and how many pages they are.
fn by_the_sdk(server: &Server, prefix: &str, count: usize) -> Result<(Duration, u64), Failure> {
    runtime()?.block_on(async {
        let store = store(server).await?;
        let mut request = ListRequest { prefix: prefix.to_owned(), by_directory: true, ..ListRequest::default() };
        let (mut found, mut pages, start) = (0, 0, Instant::now());
        loop {
            let page = store.list(request.clone()).await?;
            found += page.objects.len();
            pages += 1;
            match page.next {
                Some(token) => request.continuation = Some(token),
                None if found == count => return Ok((start.elapsed(), pages)),
                None => return Err(format!("{found} names instead of {count}").into()),
            }
        }
    })
}

/// `ls` of a directory, with its lines counted. In the C locale, or it would sort longer than it lists.
fn ls(root: &Path, form: &str, dir: &str, count: usize) -> Result<(), Failure> {
    let output = Command::new("ls").env("LC_ALL", "C").arg(form).arg(root.join(dir)).output()?;
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    // The first line of `ls -l` tells blocks.
    let expected = count + usize::from(form == "-l");
    if output.status.success() && lines == expected { Ok(()) } else { Err(format!("ls told {lines} lines").into()) }
}

fn list(dir: &Path, count: usize) -> Result<(), Failure> {
    let found = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?.len();
    if found == count { Ok(()) } else { Err(format!("{found} names instead of {count}").into()) }
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{:?} ended with {status}", command.get_program()).into()) }
}
