//! The commands, and the process they run in.
//!
//! Owns: what happens in which order when a mount starts and ends, going to the background, signals, the log, and
//! the sentences and exit codes that a user gets. Knows nothing of single operations or of S3 requests.

mod check;
pub mod control;
pub mod daemon;
#[cfg(feature = "demo")]
mod demo;
mod ending;
mod logging;
mod metrics;
mod mount;
mod notify;
mod process;
mod recover;
mod recover_rename;
mod requests;
pub mod sentence;
mod signals;
mod status;
mod sync;
mod umount;
mod unit;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Request, parse};
use sentence::Failure;

/// Runs the command that `args` (with the program's name first) ask for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Behind the name of a mount(8) helper comes a source.
    let program = args.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default();
    let is_helper = program.as_encoded_bytes().starts_with(b"mount.");
    let checks = !is_helper && args.get(1).is_some_and(|command| command == "check");
    match parse(args) {
        Ok(Request::Mount(config)) => mount::run(&config),
        Ok(Request::Fake) => ExitCode::SUCCESS,
        Ok(Request::Umount(request)) => umount::run(&request),
        Ok(Request::Status(request)) => status::run(&request),
        Ok(Request::Sync(request)) => sync::run(&request),
        Ok(Request::Check(request)) => check::run(&request),
        Ok(Request::Recover(request)) => recover::run(&request),
        Ok(Request::Unit(request)) => unit::run(&request),
        #[cfg(feature = "demo")]
        Ok(Request::Demo(request)) => demo::run(&request),
        #[cfg(not(feature = "demo"))]
        Ok(Request::Demo(_)) => Failure::new(
            sentence::Status::Usage,
            "this pailfs was built without its demo; build it with --features demo",
        )
        .report(),
        Ok(Request::Show(text)) => {
            // A reader that stops reading (`| head`) is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        // Its 1 says that something is refused.
        Err(error) if checks => Failure::new(sentence::Status::System, error.to_string()).report(),
        Err(error) => Failure::from(error).report(),
    }
}

/// One line on standard error, which may be closed.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "pailfs: {text}");
}
