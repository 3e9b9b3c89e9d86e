//! Connections that are open already, and a request on each of them at once.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::LIMIT;

/// Longest head and body of an answer together.
const MOST: usize = 16 << 10;

/// In place of a status where there was no answer.
const NO_STATUS: u16 = 0;

/// Connections with their requests, nothing sent yet.
#[derive(Debug)]
pub struct Burst {
    runtime: Runtime,
    loaded: Vec<(TcpStream, Vec<u8>)>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Shot {
    /// When it was written, in ms after the first.
    pub written: f64,
    /// When its answer was there, in ms after the first was written.
    pub answered: f64,
    /// The status; zero where there was no answer.
    pub status: u16,
    /// Why it was refused, or what went wrong; empty where it was served.
    pub reason: String,
}

impl Burst {
    /// Opens a connection for each request.
    pub fn open(port: u16, requests: &[Vec<u8>]) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let open = async {
            let mut loaded = Vec::with_capacity(requests.len());
            for request in requests {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                stream.set_nodelay(true)?;
                loaded.push((stream, request.clone()));
            }
            anyhow::Ok(loaded)
        };
        let loaded =
            runtime.block_on(async { timeout(LIMIT, open).await.context("connections are not open in time")? })?;
        Ok(Self { runtime, loaded })
    }

    /// Writes all requests, and then reads all answers.
    pub fn fire(self) -> Result<Vec<Shot>> {
        let Self { runtime, loaded } = self;
        let count = loaded.len();
        runtime.block_on(async {
            let began = Instant::now();
            let mut written = Vec::with_capacity(count);
            for (mut stream, request) in loaded {
                // It fits the socket's buffer: this does not wait.
                stream.write_all(&request).await?;
                written.push((stream, began.elapsed()));
            }
            let mut reading = Vec::with_capacity(count);
            for (mut stream, written) in written {
                reading.push(tokio::spawn(async move {
                    let found = timeout(LIMIT, answer(&mut stream)).await;
                    let (status, reason) = match found {
                        Ok(Ok(found)) => found,
                        Ok(Err(error)) => (NO_STATUS, format!("{error:#}")),
                        Err(_) => (NO_STATUS, "no answer in time".to_owned()),
                    };
                    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
                    anyhow::Ok((Shot { written: ms(written), answered: ms(began.elapsed()), status, reason }, stream))
                }));
            }
            let mut shots = Vec::with_capacity(count);
            // None is closed before the last is answered.
            let mut open = Vec::with_capacity(count);
            for one in reading {
                let (shot, stream) = one.await??;
                shots.push(shot);
                open.push(stream);
            }
            Ok(shots)
        })
    }
}

impl Shot {
    /// It came from the upstream.
    pub fn is_served(&self) -> bool {
        self.status == 200
    }
}

/// The status of an answer that is read to its end, and why it refuses.
async fn answer(stream: &mut TcpStream) -> Result<(u16, String)> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the connection ended before its answer");
        ensure!(bytes.len() < MOST, "an answer without an end");
        if let Some(found) = parse(&bytes)? {
            return Ok(found);
        }
    }
}

/// Status and reason, once all of it is there.
fn parse(bytes: &[u8]) -> Result<Option<(u16, String)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: usize = field("content-length:").ok_or_else(|| anyhow!("an answer without a length"))?.parse()?;
    if bytes.len() < end + 4 + length {
        return Ok(None);
    }
    let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
    Ok(Some((status, field("x-attache-reason:").unwrap_or_default().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_all_of_it_is_there() {
        let refusal =
            b"HTTP/1.1 429 Too Many Requests\r\nx-attache-reason: rate_limited\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(&refusal[..40]).unwrap(), None);
        assert_eq!(parse(&refusal[..refusal.len() - 1]).unwrap(), None);
        assert_eq!(parse(refusal).unwrap(), Some((429, "rate_limited".to_owned())));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap(), Some((200, String::new())));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
