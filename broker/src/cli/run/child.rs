//! The child, from its start to its end: signals are passed on, and where it stops, so do we.

use super::cell::Confined;
use super::signals::{Came, Signals};
use crate::cli::common::complain;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// The command was not found.
const NOT_FOUND: u8 = 127;
/// It was found and could not be started.
const NOT_STARTED: u8 = 126;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// By itself.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

/// A child that runs.
pub enum Child {
    /// As our own child.
    Plain(std::process::Child),
    /// In namespaces of its own.
    Confined(Confined),
}

/// What a child has done.
enum Did {
    Ended(End),
    Stopped,
    Nothing,
}

impl Child {
    /// Stays with it until it ends.
    pub async fn run(mut self, signals: &mut Signals) -> io::Result<End> {
        loop {
            let did = tokio::select! {
                biased;
                came = signals.next() => match came? {
                    Came::Child => self.look()?,
                    Came::Signal { number, by_terminal } => {
                        if !by_terminal {
                            self.tell(number);
                        }
                        Did::Nothing
                    }
                },
                told = self.told() => told?,
            };
            match did {
                Did::Ended(end) => return Ok(end),
                // A shell sees that we have stopped, and lets us go on with SIGCONT, which is passed on.
                Did::Stopped => kill_process(getpid(), Signal::STOP)?,
                Did::Nothing => {}
            }
        }
    }

    /// Whether a child of ours has changed its state. One that stopped and has gone on is not seen.
    fn look(&self) -> io::Result<Did> {
        let Self::Plain(child) = self else { return Ok(Did::Nothing) };
        let pid = pid(child.id())?;
        match waitpid(Some(pid), WaitOptions::UNTRACED | WaitOptions::NOHANG)? {
            Some((_, status)) if status.stopped() => Ok(Did::Stopped),
            Some((_, status)) => Ok(ended(status).map_or(Did::Nothing, Did::Ended)),
            None => Ok(Did::Nothing),
        }
    }

    async fn told(&mut self) -> io::Result<Did> {
        match self {
            Self::Plain(_) => std::future::pending().await,
            Self::Confined(confined) => match confined.told().await? {
                super::cell::Told::Ended(end) => Ok(Did::Ended(end)),
                super::cell::Told::Stands(true) => Ok(Did::Stopped),
                // Asked, for it may be long ago: we have been stopped since, and so was it.
                super::cell::Told::Stopped => {
                    confined.ask();
                    Ok(Did::Nothing)
                }
                _ => Ok(Did::Nothing),
            },
        }
    }

    /// Passes a signal on. One that is gone needs none.
    fn tell(&self, number: i32) {
        match self {
            Self::Plain(child) => {
                if let (Ok(pid), Some(signal)) = (pid(child.id()), Signal::from_named_raw(number)) {
                    let _ = kill_process(pid, signal);
                }
            }
            Self::Confined(confined) => confined.signal(number),
        }
    }
}

/// A process id of this system's.
pub fn pid(id: u32) -> io::Result<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// How it ended, if it has.
pub fn ended(status: rustix::process::WaitStatus) -> Option<End> {
    let number = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    let signal = || status.terminating_signal().map(|signal| End::Signal(number(signal)));
    status.exit_status().map(|code| End::Code(number(code))).or_else(signal)
}

/// Says why a command was not started, with the exit code that shells have for it.
pub fn not_started(command: &[OsString], error: &io::Error) -> ExitCode {
    let name = command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    complain(not_started_code(error), format_args!("{name}: {error}"))
}

/// The exit code that shells have for it.
pub fn not_started_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED }
}
