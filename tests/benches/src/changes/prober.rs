//! An agent that writes all the time, on one connection to each worker in turn: what it is answered
//! says where a change is in force.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::exchange::exchange;
use super::world::{SOON, World};
use crate::rules::HOST;

/// Between two probes: they are no load.
const PAUSE: Duration = Duration::from_millis(1);
/// Connections that are tried until each worker has one: the kernel spreads them.
const MOST: usize = 500;

/// One connection to each worker.
#[derive(Debug)]
pub struct Prober {
    connections: Vec<TcpStream>,
    request: Vec<u8>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Before its first byte was written.
    pub sent: Instant,
    /// After its answer was read.
    pub answered: Instant,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was let through.
    Passed,
    /// It was refused for what the session may do.
    Refused,
    /// Nobody could say in time: on a machine that has too much to do.
    Unavailable,
}

impl Prober {
    /// Opens connections until each worker has one, warm: a worker that is reached for the first time
    /// asks for a grant, which stands in the audit log.
    pub fn open(world: &World) -> Result<Self> {
        let placeholder = &world.writer;
        let request = format!(
            "POST /v1/items HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {placeholder}\r\ncontent-length: 0\r\n\r\n"
        );
        let mut prober = Self { connections: Vec::new(), request: request.into_bytes() };
        let mut known = BTreeSet::new();
        for _ in 0..MOST {
            let stream = TcpStream::connect(world.proxy)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SOON))?;
            prober.connections.push(stream);
            let last = prober.connections.len() - 1;
            ensure!(prober.probe(last)?.verdict == Verdict::Passed, "a write is refused before anything was changed");
            let workers = world.workers_with_grants()?;
            if workers.len() == known.len() {
                prober.connections.pop();
            }
            known = workers;
            if prober.connections.len() == world.workers as usize {
                return Ok(prober);
            }
        }
        bail!("only {} of {} workers were reached by {MOST} connections", prober.connections.len(), world.workers)
    }

    fn probe(&mut self, connection: usize) -> Result<Probe> {
        let count = self.connections.len();
        let stream = self.connections.get_mut(connection % count).context("no connection")?;
        let sent = Instant::now();
        let (status, body) = exchange(stream, &self.request)?;
        let answered = Instant::now();
        match status {
            200 => Ok(Probe { sent, answered, verdict: Verdict::Passed }),
            403 => Ok(Probe { sent, answered, verdict: Verdict::Refused }),
            503 => Ok(Probe { sent, answered, verdict: Verdict::Unavailable }),
            _ => bail!("a probe was answered {status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Probes until every worker lets one through again.
    pub fn wait_until_let_through(&mut self) -> Result<()> {
        let until = Instant::now() + SOON;
        for connection in 0..self.connections.len() {
            while self.probe(connection)?.verdict != Verdict::Passed {
                ensure!(Instant::now() < until, "a write is refused long after it was allowed");
            }
        }
        Ok(())
    }

    /// Begins to probe, and comes back when every worker has let one through.
    pub fn watch(&mut self) -> Result<Watch> {
        let mut prober = Self { connections: Vec::new(), request: self.request.clone() };
        for stream in &self.connections {
            prober.connections.push(stream.try_clone()?);
        }
        let (begun, begins) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let count = prober.connections.len();
            let mut seen = Vec::new();
            let mut after = 0;
            // Once it has ended, one more on each connection: those that say whether it holds.
            for n in 0.. {
                if has_ended.load(Ordering::SeqCst) {
                    after += 1;
                }
                seen.push(prober.probe(n)?);
                if after >= count {
                    break;
                }
                if n + 1 == count {
                    let _ = begun.send(());
                }
                thread::sleep(PAUSE);
            }
            Ok(seen)
        });
        begins.recv_timeout(SOON).context("no probe is answered")?;
        Ok(Watch { thread, ended })
    }
}

/// Probing under way.
pub struct Watch {
    thread: thread::JoinHandle<Result<Vec<Probe>>>,
    ended: Arc<AtomicBool>,
}

impl Watch {
    /// Probes each worker once more, and ends. All probes, in order.
    pub fn end(self) -> Result<Vec<Probe>> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the prober panicked"))?
    }
}
