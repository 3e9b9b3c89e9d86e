//! HTTP/2 whose frames are written by hand: everything a library refuses to send.
//!
//! It reads properly (acknowledges SETTINGS and PING, opens windows) and checks nothing that it
//! writes. It does not wait for send windows: keep bodies below 64 KB, or use [`super::H2`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::transcript::{Open, Outcome, Transcript};
use super::{Response, Unanswered, Wire};
use crate::fields::Fields;
use crate::wire::Event;
use crate::wire::frames::{self, Frame, PREFACE, flag, kind};
use crate::wire::http2::Http2;

/// The largest window there is (RFC 9113, section 6.9.1).
const WINDOW: u32 = 0x7fff_ffff;
const DEFAULT_WINDOW: u32 = 65_535;

/// One HTTP/2 connection, frame by frame.
pub struct RawH2 {
    wire: Wire,
    transcript: Arc<Transcript>,
    reader: Http2,
    next_stream: u32,
    streams: BTreeMap<u32, Stream>,
    /// Why nothing more will come.
    over: Option<Unanswered>,
}

struct Stream {
    open: Open,
    answer: Response,
    reset: Option<u32>,
}

impl RawH2 {
    /// Sends preface and SETTINGS on a connection that stands.
    pub async fn over(wire: Wire, transcript: Arc<Transcript>) -> Self {
        let (reader, streams) = (Http2::of_server(), BTreeMap::new());
        let mut client = Self { wire, transcript, reader, next_stream: 1, streams, over: None };
        const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
        let settings = [&INITIAL_WINDOW_SIZE[..], &WINDOW.to_be_bytes()].concat();
        let more = (WINDOW - DEFAULT_WINDOW).to_be_bytes();
        let mut opening = PREFACE.to_vec();
        opening.extend(Frame::encode(kind::SETTINGS, 0, 0, &settings));
        opening.extend(Frame::encode(kind::WINDOW_UPDATE, 0, 0, &more));
        client.send(&opening).await.ok();
        client
    }

    /// Sends these bytes as they are.
    ///
    /// # Errors
    /// When the peer has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await?;
        self.wire.flush().await
    }

    /// Sends one frame of any kind.
    ///
    /// # Errors
    /// When the peer has closed.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.send(&Frame::encode(kind, flags, stream, payload)).await
    }

    /// Begins a request: these fields, pseudo-fields included, in this order, as they are.
    /// Returns its stream. A peer that is gone shows when the answer is read.
    pub async fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, fields: &[(N, V)], end: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let what = fields.iter().take(5).map(|(_, value)| value.as_ref().escape_ascii().to_string());
        let what = what.collect::<Vec<_>>().join(" ");
        let open = self.transcript.begin(what.chars().take(200).collect::<String>());
        open.sent(&fields.iter().map(|(name, value)| (name, value)).collect::<Fields>().to_lines());
        self.streams.insert(stream, Stream { open, answer: Response::default(), reset: None });
        let block = frames::literals(fields);
        self.send(&frames::headers(stream, &block, end)).await.ok();
        stream
    }

    /// Sends a piece of a body.
    ///
    /// # Errors
    /// When the peer has closed.
    pub async fn data(&mut self, stream: u32, piece: &[u8], end: bool) -> io::Result<()> {
        self.frame(kind::DATA, if end { flag::END_STREAM } else { 0 }, stream, piece).await
    }

    /// Sends trailers and so ends the body.
    ///
    /// # Errors
    /// When the peer has closed.
    pub async fn trailers<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, stream: u32, fields: &[(N, V)]) -> io::Result<()> {
        self.send(&frames::headers(stream, &frames::literals(fields), true)).await
    }

    /// Resets a stream with this HTTP/2 error code.
    ///
    /// # Errors
    /// When the peer has closed.
    pub async fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        if let Some(stream) = self.streams.remove(&stream) {
            stream.open.settle(Outcome::Aborted);
        }
        self.frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes()).await
    }

    /// Breaks the connection with a TCP reset, now.
    pub fn abort(self) {
        self.wire.tcp().expect("a connection of its own").set_zero_linger().expect("a socket accepts SO_LINGER");
    }

    /// The answer on a stream.
    ///
    /// # Errors
    /// When there is none: a reset stream, an ended connection, or silence.
    pub async fn response(&mut self, stream: u32, deadline: Duration) -> Result<Response, Unanswered> {
        let end = Instant::now() + deadline;
        loop {
            let known = self.streams.get(&stream).expect("a stream that was begun and not yet taken");
            if let Some(answer) = known.answered(self.over.as_ref()) {
                let known = self.streams.remove(&stream).expect("present a moment ago");
                return known.open.settled(answer);
            }
            let mut bytes = BytesMut::with_capacity(64 << 10);
            match timeout_at(end, self.wire.read_buf(&mut bytes)).await {
                Err(_) => {
                    let known = self.streams.remove(&stream).expect("present a moment ago");
                    return known.open.settled(Err(Unanswered::TimedOut(deadline)));
                }
                Ok(Ok(size)) if size > 0 => self.read(&bytes).await,
                Ok(_) => self.over = Some(self.over.take().unwrap_or(Unanswered::Closed)),
            }
        }
    }

    /// The bytes received on this connection and their meaning.
    #[must_use]
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    async fn read(&mut self, bytes: &[u8]) {
        self.transcript.received(bytes);
        for (frame, events) in self.reader.feed_frames(bytes) {
            match frame.kind {
                kind::SETTINGS | kind::PING if !frame.has(flag::ACK) => {
                    let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
                    self.frame(frame.kind, flag::ACK, 0, payload).await.ok();
                }
                kind::DATA if !frame.payload.is_empty() => {
                    let size = u32::try_from(frame.payload.len()).expect("24 bits").to_be_bytes();
                    self.frame(kind::WINDOW_UPDATE, 0, 0, &size).await.ok();
                }
                _ => {}
            }
            for event in events {
                self.transcript.note(&event);
                self.event(event);
            }
        }
    }

    fn event(&mut self, event: Event) {
        let (stream, event) = match event {
            Event::GoAway { code } => {
                self.over = (code != 0).then_some(Unanswered::GoAway(code));
                return;
            }
            Event::Garbage(bytes) => {
                self.over = Some(Unanswered::Broken(format!("unreadable frame: {bytes:?}")));
                return;
            }
            Event::Head { stream, .. }
            | Event::Data { stream, .. }
            | Event::Trailers { stream, .. }
            | Event::End { stream }
            | Event::Reset { stream, .. } => (stream, event),
        };
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let answer = &mut known.answer;
        match event {
            Event::Head { mut fields, .. } => {
                let status = fields.take(b":status").unwrap_or_default();
                let status = std::str::from_utf8(&status).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                if (100..200).contains(&status) {
                    answer.informational.push(status);
                } else {
                    (answer.status, answer.fields) = (status, fields);
                }
            }
            Event::Data { bytes, .. } => answer.body.extend_from_slice(&bytes),
            Event::Trailers { fields, .. } => answer.trailers = fields,
            Event::End { .. } => answer.complete = true,
            Event::Reset { code, .. } => known.reset = Some(code),
            Event::GoAway { .. } | Event::Garbage(_) => {}
        }
    }
}

impl Stream {
    fn answered(&self, over: Option<&Unanswered>) -> Option<Result<Response, Unanswered>> {
        if self.answer.complete {
            return Some(Ok(self.answer.clone()));
        }
        let why = self.reset.map(Unanswered::Reset).or_else(|| over.cloned())?;
        Some(if self.answer.status == 0 { Err(why) } else { Ok(self.answer.clone()) })
    }
}
