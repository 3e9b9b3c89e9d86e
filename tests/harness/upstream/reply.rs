//! What an upstream answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::fields::Fields;

/// A complete request as the handler sees it (what is on record is read off the wire instead).
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// The path without its query.
    pub path: String,
    pub query: String,
    pub authority: String,
    pub fields: Fields,
    pub body: Bytes,
    pub trailers: Fields,
}

/// A piece of an answer's body, or what happens instead of one.
#[derive(Clone, Debug)]
pub enum Part {
    Data(Bytes),
    /// The same bytes so many times over.
    Repeat(Bytes, u64),
    Pause(Duration),
    /// Nothing more ever comes; the connection stays open.
    Hang,
    /// What follows comes when it is let go.
    Held(Arc<Held>),
    /// The connection (HTTP/1) or the stream (HTTP/2) breaks here.
    Reset,
}

/// Where answers wait half-way.
#[derive(Debug)]
pub struct Held {
    pub(super) gate: Semaphore,
    pub(super) waiting: AtomicUsize,
    pub(super) left: AtomicUsize,
}

impl Default for Held {
    fn default() -> Self {
        Self { gate: Semaphore::new(0), waiting: AtomicUsize::default(), left: AtomicUsize::default() }
    }
}

impl Held {
    /// Lets all go on, now and from now on.
    pub fn go(&self) {
        self.gate.close();
    }

    /// How many answers have come here.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many of them lost their reader here.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: Fields,
    pub parts: Vec<Part>,
    pub trailers: Fields,
    /// What happens before the head is sent.
    pub before: Option<Part>,
    /// Without Content-Length even when the length is known.
    pub chunked: bool,
}

impl Reply {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        let (fields, trailers) = (Fields::default(), Fields::default());
        Self { status, fields, parts: Vec::new(), trailers, before: None, chunked: false }
    }

    /// An answer that never comes.
    #[must_use]
    pub fn hang() -> Self {
        Self { before: Some(Part::Hang), ..Self::new(200) }
    }

    /// A connection or stream broken before any answer.
    #[must_use]
    pub fn reset() -> Self {
        Self { before: Some(Part::Reset), ..Self::new(200) }
    }

    /// 101 and a tunnel that says the pieces of the body, and then returns every byte.
    #[must_use]
    pub fn upgrade(protocol: &str) -> Self {
        Self::new(101).field("connection", "upgrade").field("upgrade", protocol)
    }

    /// Adds a header line.
    #[must_use]
    pub fn field(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.fields.push(name, value);
        self
    }

    /// Adds a piece of the body.
    #[must_use]
    pub fn body(self, bytes: impl Into<Bytes>) -> Self {
        self.part(Part::Data(bytes.into()))
    }

    /// Adds a piece of the body, or what happens instead.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// Adds a trailer line.
    #[must_use]
    pub fn trailer(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.trailers.push(name, value);
        self
    }

    /// Waits before the head is sent.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.before = Some(Part::Pause(pause));
        self
    }

    /// Leaves Content-Length out.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The length of the body, when every part has one.
    pub(super) fn length(&self) -> Option<u64> {
        let length = |part: &Part| match part {
            Part::Data(bytes) => Some(bytes.len() as u64),
            Part::Repeat(bytes, times) => Some(bytes.len() as u64 * times),
            Part::Pause(_) => Some(0),
            Part::Hang | Part::Held(_) | Part::Reset => None,
        };
        self.parts.iter().map(length).sum()
    }
}

/// The default answers: by path, a small body that echoes nothing for all others.
///
/// `/status/N` · `/slow?ms=N` · `/echo` (request line, headers, body; each header also as
/// `x-echo-NAME`, all headers in a trailer with `?trailers`) · `/bytes/N` · `/sse?n=N` ·
/// `/chunked?n=N` · `/hang` · `/reset` · `/truncated` · `/upgrade` · `/redirect?to=URL`
#[must_use]
pub fn magic(asked: &Asked) -> Reply {
    let mut segments = asked.path.split('/').skip(1);
    let word = segments.next().unwrap_or_default();
    let number = segments.next().and_then(|text| text.parse::<u64>().ok());
    let parameter = |name: &str| asked.parameter(name).and_then(|text| text.parse::<u64>().ok());
    match word {
        "status" => Reply::new(number.and_then(|n| u16::try_from(n).ok()).unwrap_or(500)).body("status\n"),
        "slow" => Reply::new(200).body("slow\n").after(Duration::from_millis(parameter("ms").unwrap_or(100))),
        "echo" => echo(asked),
        "bytes" => bytes(number.unwrap_or(0)),
        "sse" => sse(parameter("n").unwrap_or(3)),
        "chunked" => {
            let pieces = (0..parameter("n").unwrap_or(3)).map(|n| Part::Data(format!("piece {n}\n").into()));
            Reply { parts: pieces.collect(), ..Reply::new(200) }.chunked()
        }
        "hang" => Reply::hang(),
        "reset" => Reply::reset(),
        "truncated" => Reply::new(200).field("content-length", "1000").body("short").part(Part::Reset),
        "upgrade" => Reply::upgrade(asked.fields.text("upgrade").as_deref().unwrap_or("websocket")),
        "redirect" => Reply::new(302).field("location", asked.parameter("to").unwrap_or("/")),
        _ => Reply::new(200).field("content-type", "text/plain").body("ok\n"),
    }
}

impl Asked {
    /// A query parameter as written, not decoded; empty when it has no value.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(|(own, _)| *own == name).map(|(_, value)| value).next()
    }
}

fn echo(asked: &Asked) -> Reply {
    let mut text = format!("{} {}?{}\n", asked.method, asked.path, asked.query).into_bytes();
    text.extend(asked.fields.to_lines());
    text.push(b'\n');
    text.extend_from_slice(&asked.body);
    let mut reply = Reply::new(200).field("content-type", "text/plain").body(text);
    for (name, value) in asked.fields.iter() {
        let echoed = [b"x-echo-", name].concat();
        if asked.parameter("trailers").is_some() {
            reply = reply.trailer(&echoed, value);
        }
        reply = reply.field(echoed, value);
    }
    reply
}

fn bytes(size: u64) -> Reply {
    const PIECE: u64 = 64 << 10;
    let piece = Bytes::from(vec![b'x'; usize::try_from(PIECE).expect("fits")]);
    let rest = piece.slice(..usize::try_from(size % PIECE).expect("below a piece"));
    Reply::new(200).part(Part::Repeat(piece, size / PIECE)).part(Part::Data(rest))
}

fn sse(events: u64) -> Reply {
    let mut reply = Reply::new(200).field("content-type", "text/event-stream").chunked();
    for n in 0..events {
        let event = format!("id: {n}\ndata: event {n}\n\n");
        reply = reply.body(event).part(Part::Pause(Duration::from_millis(10)));
    }
    reply
}
