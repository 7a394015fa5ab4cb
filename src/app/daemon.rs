//! Going to the background: fork before any thread exists, do the work in the child, and let the parent wait until
//! the child says that it is ready, or why it is not.
//!
//! Over a pipe goes one message: `READY`, or the exit code and the sentence. A pipe that ends without one is a child
//! that died.

use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use super::sentence::{Failure, Status};

/// First byte of the message of success; no [`Status`] has this number.
const READY: u8 = 0;

/// The child's end: says once that the work can be used.
#[derive(Default)]
pub struct Readiness {
    pipe: Option<PipeWriter>,
    then: Option<Box<dyn FnOnce()>>,
}

impl Readiness {
    /// For work in the foreground: there is nobody to tell.
    pub fn foreground() -> Self {
        Readiness::default()
    }

    /// For work in the foreground: `then` runs once it can be used.
    pub fn then(then: impl FnOnce() + 'static) -> Self {
        Readiness { pipe: None, then: Some(Box::new(then)) }
    }

    /// Tells the parent, and leaves the terminal.
    ///
    /// # Errors
    /// The parent is gone (interrupted, say): then nobody wants this mount any more.
    pub fn announce(&mut self) -> Result<(), Failure> {
        if let Some(then) = self.then.take() {
            then();
        }
        let Some(mut pipe) = self.pipe.take() else { return Ok(()) };
        leave_terminal().map_err(|e| Failure::system("leaving the terminal", &e))?;
        pipe.write_all(&[READY]).map_err(|e| Failure::system("telling the caller that the mount is ready", &e))
    }

    fn fail(&mut self, failure: &Failure) {
        if let Some(mut pipe) = self.pipe.take() {
            let mut message = vec![failure.status().code()];
            message.extend_from_slice(failure.sentence().as_bytes());
            // Without a parent there is nobody left who could be told.
            let _ = pipe.write_all(&message);
        }
    }
}

/// Runs `work` in a child of its own session. Must be called before any thread was started.
pub fn detach(work: impl FnOnce(&mut Readiness) -> Result<(), Failure>) -> ExitCode {
    close_inherited();
    let (reader, writer) = match io::pipe() {
        Ok(ends) => ends,
        Err(error) => return Failure::system("making a pipe", &error).report(),
    };
    // SAFETY: no other thread exists, so that the child may go on as an ordinary process.
    match unsafe { libc::fork() } {
        -1 => Failure::system("forking", &io::Error::last_os_error()).report(),
        0 => {
            drop(reader);
            // SAFETY: takes nothing; it can only fail for a process group leader, which a new child is not.
            unsafe { libc::setsid() };
            let mut readiness = Readiness { pipe: Some(writer), then: None };
            match work(&mut readiness) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => {
                    readiness.fail(&failure);
                    ExitCode::from(failure.status().code())
                }
            }
        }
        child => {
            drop(writer);
            wait_for(child, reader)
        }
    }
}

fn wait_for(child: libc::pid_t, mut reader: PipeReader) -> ExitCode {
    let mut message = Vec::new();
    let mut first = [0u8; 1];
    // Not to the end of the pipe: after READY there is no reason to wait for it to be closed.
    match reader.read_exact(&mut first) {
        Ok(()) if first[0] == READY => return ExitCode::SUCCESS,
        Ok(()) => {
            let _ = reader.read_to_end(&mut message);
            super::say(&String::from_utf8_lossy(&message));
            return ExitCode::from(first[0]);
        }
        Err(_) => {}
    }
    let mut status = 0;
    // SAFETY: `status` lives until the call returns; the child is ours and was not waited for.
    unsafe { libc::waitpid(child, &mut status, 0) };
    let how = if libc::WIFSIGNALED(status) {
        format!("was ended by signal {}", libc::WTERMSIG(status))
    } else {
        "ended unexpectedly".to_owned()
    };
    let sentence = format!("the background process {how}; run it with --foreground to see more");
    Failure::new(Status::Mount, sentence).report()
}

/// Whoever called us may have left files open, a pipe say, that would never end while a daemon holds it.
fn close_inherited() {
    // SAFETY: nothing in this process has opened anything yet; a kernel without the call (before 5.9) refuses it.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// To `/`, which no unmount needs, with standard streams that lead nowhere.
fn leave_terminal() -> io::Result<()> {
    std::env::set_current_dir("/")?;
    io::stdout().flush()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for stream in 0..=2 {
        // SAFETY: both are open file descriptors, or `stream` becomes one.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
