//! Signals: those that end a process, and those that ask a running mount for something.
//!
//! Owns which signal means what. What is done then is told in [`super::ending`] and [`super::requests`].

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What SIGHUP means to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// The terminal has gone, and all that it has started ends.
    Ends,
    /// The log file was moved, and is opened again.
    ReopensLog,
}

/// The signals that end a process well.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// What a terminal sends when it goes, to all that it has started.
    pub const HANG_UP: &'static str = "SIGHUP";

    /// From now on they no longer end the process by themselves. Must be called within a runtime.
    ///
    /// # Errors
    /// What sigaction(2) answers.
    pub fn listen(hang_up: HangUp) -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: (hang_up == HangUp::Ends).then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Name of the next one. Can be dropped and called again without losing any.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = received(&mut self.hang_up) => Self::HANG_UP,
        }
    }
}

/// What a running mount can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGUSR1
    DropCaches,
    /// SIGUSR2
    CycleLevel,
    /// SIGHUP, with a log file.
    ReopenLog,
}

/// The signals that ask for something and don't end the process.
#[derive(Debug)]
pub struct RequestSignals {
    first: Signal,
    second: Signal,
    hang_up: Option<Signal>,
}

impl RequestSignals {
    /// From now on each is told of once, until the process ends. Must be called within a runtime.
    ///
    /// # Errors
    /// What sigaction(2) answers.
    pub fn listen(hang_up: HangUp) -> io::Result<Self> {
        Ok(RequestSignals {
            first: signal(SignalKind::user_defined1())?,
            second: signal(SignalKind::user_defined2())?,
            hang_up: (hang_up == HangUp::ReopensLog).then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// What is asked for next.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.first.recv() => Asked::DropCaches,
            _ = self.second.recv() => Asked::CycleLevel,
            () = received(&mut self.hang_up) => Asked::ReopenLog,
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Until somebody listens, the signals that ask for something are ignored instead of deadly: a mount that is just being made has
/// nothing to drop. By a handler, since what is ignored would be so in the programs that are started too.
///
/// # Errors
/// What sigaction(2) answers.
pub fn ignore_requests(hang_up: HangUp) -> io::Result<()> {
    let asks = (hang_up == HangUp::ReopensLog).then_some(libc::SIGHUP);
    [libc::SIGUSR1, libc::SIGUSR2].into_iter().chain(asks).try_for_each(ignore)
}

fn ignore(number: libc::c_int) -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the action is a plain C struct that lives until the call returns; its handler does nothing, which is safe at any time.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(number, &action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
