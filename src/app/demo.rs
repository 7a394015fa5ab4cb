//! `pailfs demo`: a mount to try, of a bucket that is in this process and forgotten at the end.
//!
//! Owns the example objects, and what is made for the demonstration and undone by `Drop`: the directory, the stage,
//! the server. The mount itself is an ordinary one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::daemon::Readiness;
use super::mount;
use super::process::complete_environment;
use super::sentence::{Failure, Status};
use super::signals::{HangUp, Signals};
use crate::config::{Config, DemoRequest, DemoServer, Request, parse};
use crate::demo::{Bucket, Server, ServerOptions, Shape};

/// Variables that would lead the mount to another store than the one in this process, or by way of another machine.
const FOREIGN_VARIABLES: [&str; 9] = [
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Runs the demonstration until a signal ends it.
pub fn run(request: &DemoRequest) -> ExitCode {
    complete_environment();
    let done = match &request.directory {
        None => serve_alone(&request.server),
        Some(directory) => mount_example(request, directory),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The server alone, in the foreground.
fn serve_alone(wanted: &DemoServer) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::system("starting threads", &e))?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen(HangUp::Ends).map_err(|e| Failure::system("listening for signals", &e))?
    };
    let server = start(wanted)?;
    fill(&server.bucket(&wanted.bucket));
    print(&format!("Serving S3 from memory. In another shell:\n\n{}\nCtrl-C ends it.\n", access(&server, wanted)));
    runtime.block_on(signals.next());
    Ok(())
}

fn mount_example(request: &DemoRequest, directory: &Path) -> Result<(), Failure> {
    use_own_keys(&request.server);
    let made = MadeDirectory::at(directory)?;
    let stage = tempfile::Builder::new()
        .prefix("pailfs-demo-")
        .tempdir()
        .map_err(|e| Failure::system("making a directory for staged files", &e))?;
    let server = start(&request.server)?;
    fill(&server.bucket(&request.server.bucket));
    let config = config(request, directory, stage.path(), &server)?;
    let text = welcome(directory, &server, &request.server);
    let served = mount::serve(&config, &mut Readiness::then(move || print(&text)));
    drop(server);
    drop(made);
    served
}

/// The mount's credentials come from the environment, as anywhere else. Must be called before any thread was started.
fn use_own_keys(wanted: &DemoServer) {
    // SAFETY: no other thread exists that could read the environment meanwhile.
    unsafe {
        FOREIGN_VARIABLES.iter().for_each(|name| std::env::remove_var(name));
        std::env::set_var("AWS_ACCESS_KEY_ID", &wanted.access_key);
        std::env::set_var("AWS_SECRET_ACCESS_KEY", &wanted.secret_key);
    }
}

fn start(wanted: &DemoServer) -> Result<Server, Failure> {
    let defaults = ServerOptions::default();
    let options = ServerOptions {
        listen: wanted.listen.unwrap_or(defaults.listen),
        access_key: wanted.access_key.clone(),
        secret_key: wanted.secret_key.clone(),
        ..defaults
    };
    let listen = options.listen;
    let server = Server::start(options)
        .map_err(|e| Failure::new(Status::System, format!("the demo's server can't listen on {listen}: {e}")))?;
    server.set_shape(Shape { first_byte: wanted.first_byte_delay, per_connection: wanted.bandwidth, total: None });
    Ok(server)
}

/// The mount as its own command line would ask for it; what the user gave with `-o` comes last and wins.
fn config(request: &DemoRequest, directory: &Path, stage: &Path, server: &Server) -> Result<Box<Config>, Failure> {
    let source = format!("s3://{}", request.server.bucket);
    let own = ["pailfs", "mount", &source].map(OsString::from);
    let mut line: Vec<_> = own.into_iter().chain([directory.into(), "--stage-dir".into(), stage.into()]).collect();
    let mut lists = vec![format!("foreground,region={},endpoint_url={}", server.region(), server.endpoint())];
    lists.extend(request.options.iter().cloned());
    line.extend(lists.into_iter().flat_map(|list| ["-o".into(), OsString::from(list)]));
    match parse(line)? {
        Request::Mount(config) => Ok(config),
        _ => Err(Failure::new(Status::Usage, "demo takes options of 'pailfs mount' only")),
    }
}

/// A directory that goes when the demonstration goes, if it came with it.
struct MadeDirectory(Option<PathBuf>);

impl MadeDirectory {
    fn at(path: &Path) -> Result<Self, Failure> {
        match fs::create_dir(path) {
            Ok(()) => Ok(Self(Some(path.to_owned()))),
            // What it is, and whether it can be mounted on, is looked at when mounting.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self(None)),
            Err(error) => Err(Failure::system(&format!("making the directory {}", path.display()), &error)),
        }
    }
}

impl Drop for MadeDirectory {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_dir(path)
        {
            super::say(&format!("the directory {} stays: {error}", path.display()));
        }
    }
}

/// Objects as other tools would have written them: no directory markers, some with metadata.
fn fill(bucket: &Bucket) {
    bucket.put("README.txt", README);
    bucket.put("notes/monday.txt", "Buy a bigger pail.\n");
    bucket.put("notes/tuesday.txt", "The pail is still too small.\n");
    bucket.put("photos/2026/harbour.svg", PICTURE);
    bucket.put("data/measurements.csv", measurements());
    bucket.put("data/deep/er/and/deeper/still.txt", "Here at last.\n");
    let written = BTreeMap::from([("file-mtime".to_owned(), "1767225600000".to_owned())]);
    bucket.put_with("photos/2026/caption.txt", "The harbour on New Year's Day.\n", written);
}

const README: &str = "This directory is a bucket. Every file is one object; every object is one file.\n\
    Change something here and list the bucket, or put an object there and look here.\n";

const PICTURE: &str = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 6'>\
    <path fill='teal' d='M0 3h9v3H0z'/><path d='M3 3l1-2 1 2z'/></svg>\n";

/// A file of a few megabytes, so that there is something to read for longer than a moment.
fn measurements() -> String {
    use std::fmt::Write as _;
    const ROWS: u64 = 150_000;
    let mut text = String::from("time,litres\n");
    for row in 0..ROWS {
        // Writing into a String can't fail.
        let _ = writeln!(
            text,
            "2026-01-01T{:02}:{:02}:{:02}Z,{}",
            row / 3600 % 24,
            row / 60 % 60,
            row % 60,
            row * 7919 % 1000
        );
    }
    text
}

/// What to type to reach the server, for a shell.
fn access(server: &Server, wanted: &DemoServer) -> String {
    format!(
        "  export AWS_ACCESS_KEY_ID={}\n  export AWS_SECRET_ACCESS_KEY={}\n  export AWS_REGION={}\n  \
         aws s3 ls --recursive --endpoint-url {} s3://{}/\n",
        wanted.access_key,
        wanted.secret_key,
        server.region(),
        server.endpoint(),
        wanted.bucket
    )
}

fn welcome(directory: &Path, server: &Server, wanted: &DemoServer) -> String {
    let at = directory.display();
    format!(
        "The bucket {} is mounted at {at}; it lives in this process only. Try:\n\n  \
         ls -lR {at}\n  cat {at}/README.txt\n  wc -l {at}/data/measurements.csv\n  \
         echo 'Empty it.' >> {at}/notes/monday.txt\n  mv {at}/notes {at}/diary\n\n\
         And the same objects through S3:\n\n{}\nCtrl-C unmounts it and forgets everything.\n",
        wanted.bucket,
        access(server, wanted)
    )
}

/// A reader that stops reading is no failure.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
