//! Workers that do nothing but follow: each a connection of its own, a poll that waits, and the next at once, as the
//! filter does it.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use attache_core::wire::{CHANGES_PATH, Changes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// How long the broker may hold a poll: a third of `limits.stale_after`, as the filter has it.
const HOLD: u64 = 3_333;
/// How long the last of them may take to be told what the broker says that all know.
const SOON: Duration = Duration::from_secs(5);

/// All of them, on a thread of their own.
#[derive(Debug)]
pub struct Followers {
    runtime: Runtime,
    port: u16,
    token: String,
    heard: Arc<Mutex<Heard>>,
}

/// What they were told.
#[derive(Debug, Default)]
struct Heard {
    /// For each, the last change it knows and when it was told of it.
    last: Vec<Option<(u64, Instant)>>,
    /// Why one of them ended.
    ended: Option<String>,
}

impl Followers {
    /// None yet.
    pub fn new(port: u16, token: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, port, token: token.to_owned(), heard: Arc::default() })
    }

    /// So many more.
    pub fn add(&mut self, more: usize) -> Result<()> {
        for _ in 0..more {
            let mut heard = lock(&self.heard);
            let me = heard.last.len();
            heard.last.push(None);
            let (port, token, all) = (self.port, self.token.clone(), Arc::clone(&self.heard));
            self.runtime.spawn(async move {
                let Err(error) = follow(port, &token, me, &all).await;
                lock(&all).ended.get_or_insert(format!("follower {me}: {error:#}"));
            });
        }
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.heard).last.len()
    }

    /// Whether each has been answered once.
    pub fn are_told(&self) -> Result<bool> {
        Ok(self.sound()?.last.iter().all(Option::is_some))
    }

    /// The newest change that any of them knows.
    pub fn newest(&self) -> Result<u64> {
        let heard = self.sound()?;
        heard.last.iter().flatten().map(|(cursor, _)| *cursor).max().context("nobody was told anything")
    }

    /// When the last of them was told of what came after `known`, at the latest `SOON` from now.
    pub fn told_after(&self, known: u64, since: Instant) -> Result<Instant> {
        let deadline = Instant::now() + SOON;
        loop {
            let last = self.sound()?.told_after(known);
            if let Some(at) = last {
                ensure!(at >= since, "a change was told before it was asked for");
                return Ok(at);
            }
            ensure!(Instant::now() < deadline, "a follower was not told of what the broker says that all know");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn sound(&self) -> Result<MutexGuard<'_, Heard>> {
        let heard = lock(&self.heard);
        if let Some(why) = &heard.ended {
            bail!("{why}");
        }
        Ok(heard)
    }
}

impl Heard {
    /// When the last heard of a change after `known`, once all have.
    fn told_after(&self, known: u64) -> Option<Instant> {
        let times = self.last.iter().map(|last| last.filter(|(cursor, _)| *cursor > known).map(|(_, at)| at));
        times.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// Polls until something goes wrong; the broker's end does, too.
async fn follow(port: u16, token: &str, me: usize, all: &Mutex<Heard>) -> Result<std::convert::Infallible> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let (mut epoch, mut cursor) = (String::new(), 0);
    loop {
        let query = format!("worker={me:08x}&epoch={epoch}&after={cursor}&wait_ms={HOLD}");
        let head =
            format!("GET {CHANGES_PATH}?{query} HTTP/1.1\r\nhost: attache\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let told: Changes = serde_json::from_slice(&answer(&mut stream).await?)?;
        let at = Instant::now();
        ensure!(epoch.is_empty() || told.epoch == epoch, "another life of the broker");
        if epoch.is_empty() || told.cursor > cursor {
            lock(all).last[me] = Some((told.cursor, at));
        }
        (epoch, cursor) = (told.epoch, told.cursor);
    }
}

/// The body of an answer 200.
async fn answer(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the broker ended the connection");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200 "), "a poll is answered {}", head.lines().next().unwrap_or_default());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.ok_or_else(|| anyhow!("an answer without a length"))?.trim().parse()?;
        while bytes.len() < end + 4 + length {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the broker ended the connection");
        }
        return Ok(bytes.split_off(end + 4));
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_has_arrived_when_the_last_one_knows_it() {
        let (first, later) = (Instant::now(), Instant::now() + Duration::from_millis(5));
        let mut heard = Heard { last: vec![Some((7, later)), Some((6, first)), None], ended: None };
        assert_eq!(heard.told_after(6), None);
        heard.last[1] = Some((7, first));
        assert_eq!(heard.told_after(6), None, "one has not been told anything");
        heard.last[2] = Some((8, first));
        assert_eq!(heard.told_after(6), Some(later));
        assert_eq!(heard.told_after(7), None);
    }
}
