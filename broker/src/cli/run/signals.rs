//! The signals that are meant for a child, and reach us in its place.
//!
//! They are read with who sent them: what a terminal sends (Ctrl-C, a new size) goes to its whole
//! foreground process group, of which the child is one; passed on, it would reach the child twice.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use tokio::sync::mpsc;

/// What is passed on. A stop (Ctrl-Z) is not: it stops us all, and a shell goes on.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// What ends whoever does not catch it.
const DEADLY: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// `si_code` of what the kernel itself sent (sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// A child has changed its state.
    Child,
    /// A signal.
    Signal {
        /// Its number.
        number: i32,
        /// Whether the terminal sent it, and has sent it to the child, too.
        by_terminal: bool,
    },
}

/// A stream of signals.
pub struct Signals(mpsc::UnboundedReceiver<io::Result<Came>>);

fn ours() -> SigSet {
    PASSED_ON.into_iter().chain([Signal::SIGCHLD]).collect()
}

/// Masks them for this thread and all that it makes, until they [`unmask`].
pub fn mask() -> io::Result<()> {
    Ok(ours().thread_block()?)
}

/// Takes every signal again: a program that we become would not know that it has to.
pub fn unmask() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

impl Signals {
    /// From now on, and what has come since [`mask`]. A thread waits for them.
    pub fn new() -> io::Result<Self> {
        let signals = SignalFd::with_flags(&ours(), SfdFlags::SFD_CLOEXEC)?;
        let (tell, come) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while let Some(came) = read(&signals).transpose() {
                let over = came.is_err();
                if tell.send(came).is_err() || over {
                    return;
                }
            }
        });
        Ok(Self(come))
    }

    /// The next one.
    pub async fn next(&mut self) -> io::Result<Came> {
        self.0.recv().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// The next one that ends whoever does not catch it.
    pub async fn deadly(&mut self) -> u8 {
        loop {
            match self.next().await {
                Ok(Came::Signal { number, .. }) if DEADLY.iter().any(|deadly| *deadly as i32 == number) => {
                    return u8::try_from(number).unwrap_or_default();
                }
                Ok(_) => {}
                // Never so far; a command that cannot be interrupted is better than none.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

fn read(signals: &SignalFd) -> io::Result<Option<Came>> {
    let Some(info) = signals.read_signal()? else { return Ok(None) };
    let number = i32::try_from(info.ssi_signo).unwrap_or_default();
    if number == Signal::SIGCHLD as i32 {
        return Ok(Some(Came::Child));
    }
    Ok(Some(Came::Signal { number, by_terminal: info.ssi_code == SI_KERNEL }))
}
