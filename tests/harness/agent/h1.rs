//! HTTP/1 as raw bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::transcript::{Open, Transcript};
use super::{PATIENCE, Response, Unanswered, Wire};
use crate::fields::Fields;
use crate::wire::Event;
use crate::wire::http1::{Body, Framing, Head};

/// One HTTP/1 connection. The first bytes sent after an answer begin a new request.
pub struct H1 {
    wire: Option<Wire>,
    transcript: Arc<Transcript>,
    buffer: BytesMut,
    begun: Vec<u8>,
    open: Option<Open>,
    /// The request whose answer is being read.
    answered: Option<Open>,
    answers: u32,
    body: Option<Body>,
    /// Set once the peer has closed its side.
    closed: bool,
}

impl H1 {
    /// Speaks on a connection that stands.
    #[must_use]
    pub fn over(wire: Wire, transcript: Arc<Transcript>) -> Self {
        let (buffer, begun) = (BytesMut::new(), Vec::new());
        let (open, answered) = (None, None);
        Self { wire: Some(wire), transcript, buffer, begun, open, answered, answers: 0, body: None, closed: false }
    }

    /// Sends these bytes as they are.
    ///
    /// # Errors
    /// When the peer has closed: an answer may be waiting all the same.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        if self.open.is_none() && self.body.is_none() {
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            self.open = Some(self.transcript.begin(line.escape_ascii().to_string()));
            self.begun.clear();
        }
        self.open.iter().for_each(|open| open.sent(bytes));
        const LONGEST_METHOD: usize = 16;
        let room = LONGEST_METHOD.saturating_sub(self.begun.len());
        self.begun.extend(bytes.iter().take(room));
        let wire = self.wire();
        wire.write_all(bytes).await?;
        wire.flush().await
    }

    /// Sends one chunk of a chunked body; an empty one ends it, without trailers.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        self.send(framed).await
    }

    /// One well-formed request, and its answer within [`PATIENCE`].
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn request(
        &mut self,
        method: &str,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Unanswered> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        // A peer that refuses early closes while we send; what it answered is still to be read.
        if self.send(head).await.is_ok() {
            self.send(body).await.ok();
        }
        self.response(PATIENCE).await
    }

    /// Asks a proxy for a tunnel: CONNECT, and the head of its answer. After a 2xx the connection
    /// is the tunnel; see [`Self::into_tls`].
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn connect(&mut self, authority: &str, headers: &[(&str, &str)]) -> Result<Response, Unanswered> {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{lines}\r\n");
        self.send(head).await.map_err(|error| Unanswered::Broken(error.to_string()))?;
        self.head(PATIENCE).await
    }

    /// Reads until the answer is complete or the connection closed.
    ///
    /// # Errors
    /// When the head, or the rest, does not come in time.
    pub async fn response(&mut self, deadline: Duration) -> Result<Response, Unanswered> {
        let start = self.transcript.raw_len() - self.buffer.len();
        let end = Instant::now() + deadline;
        let mut response = self.head(deadline).await?;
        loop {
            match self.piece_until(end, deadline).await {
                Ok(Some(piece)) => response.body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(why) => {
                    let lost = self.transcript.begin(format!("the rest of an answer {}", response.status));
                    return lost.settled(Err(why));
                }
            }
        }
        let body = self.body.take().unwrap_or_else(|| Body::new(Framing::Length(0)));
        response.complete = body.done() || (body.until_close() && self.closed);
        response.trailers = body.trailers().clone();
        if !response.trailers.0.is_empty() {
            self.transcript.note(&Event::Trailers { stream: self.answers, fields: response.trailers.clone() });
        }
        let stop = self.transcript.raw_len() - self.buffer.len();
        response.raw = self.transcript.raw_between(start, stop);
        Ok(response)
    }

    /// Reads the head of the answer alone: for streams and tunnels. Then read with [`Self::piece`].
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn head(&mut self, deadline: Duration) -> Result<Response, Unanswered> {
        let transcript = Arc::clone(&self.transcript);
        let open = self.open.take().unwrap_or_else(|| {
            let open = transcript.begin("an answer to what was sent before");
            open.sent_before();
            open
        });
        let answer = open.begun(self.read_head(Instant::now() + deadline, deadline).await);
        self.answered = Some(open);
        answer
    }

    /// The status of the next head, if it is one that comes before the answer (1xx). The answer is still to be read.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn interim(&mut self, deadline: Duration) -> Result<u16, Unanswered> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(head) = Head::take(&mut self.buffer) {
                return head.status().ok_or_else(|| Unanswered::Broken(format!("{:?}", head.start)));
            }
            if !self.fill(end, deadline).await? {
                return Err(Unanswered::Closed);
            }
        }
    }

    /// The next piece of the body or tunnel, as it comes; `None` at its end.
    ///
    /// # Errors
    /// When nothing comes in time.
    pub async fn piece(&mut self, deadline: Duration) -> Result<Option<Bytes>, Unanswered> {
        self.piece_until(Instant::now() + deadline, deadline).await
    }

    /// Reads whatever still comes until the peer closes; returns those bytes.
    ///
    /// # Errors
    /// When the peer does not close in time.
    pub async fn rest(&mut self, deadline: Duration) -> Result<Vec<u8>, Unanswered> {
        let end = Instant::now() + deadline;
        while self.fill(end, deadline).await? {}
        Ok(self.buffer.split().to_vec())
    }

    /// Ends the sending side; the answer can still be read.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.wire().shutdown().await
    }

    /// Breaks the connection with a TCP reset, now.
    pub fn abort(mut self) {
        let tcp = self.wire().tcp().expect("a connection of its own");
        tcp.set_zero_linger().expect("a socket accepts SO_LINGER");
    }

    /// Begins TLS inside the tunnel that a CONNECT opened, on the same connection.
    ///
    /// # Errors
    /// What the handshake ended with.
    pub async fn into_tls(mut self, name: &str, tls: Arc<ClientConfig>) -> io::Result<Wire> {
        let wire = self.wire.take().expect("present until the connection is given away");
        wire.secured(name, tls).await
    }

    /// The bytes received on this connection and their meaning.
    #[must_use]
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    async fn read_head(&mut self, end: Instant, deadline: Duration) -> Result<Response, Unanswered> {
        let mut informational = Vec::new();
        loop {
            let head = loop {
                if let Some(head) = Head::take(&mut self.buffer) {
                    break head;
                }
                if !self.fill(end, deadline).await? {
                    return Err(Unanswered::Closed);
                }
            };
            let status = head.status().ok_or_else(|| Unanswered::Broken(format!("{:?}", head.start)))?;
            self.answers += u32::from(informational.is_empty());
            let lines: Fields = [(&b":status"[..], &head.start[..])].into_iter().chain(head.fields.iter()).collect();
            self.transcript.note(&Event::Head { stream: self.answers, fields: lines });
            if (100..200).contains(&status) && status != 101 {
                informational.push(status);
                continue;
            }
            self.body = Some(Body::new(self.framing(status, &head.fields)));
            return Ok(Response { status, informational, fields: head.fields, ..Response::default() });
        }
    }

    fn framing(&self, status: u16, fields: &Fields) -> Framing {
        let method = self.begun.split(|byte| *byte == b' ').next().unwrap_or_default();
        Framing::of_answer(method, status, fields)
    }

    async fn piece_until(&mut self, end: Instant, deadline: Duration) -> Result<Option<Bytes>, Unanswered> {
        loop {
            let Some(body) = &mut self.body else { return Ok(None) };
            if let Some(bytes) = body.take(&mut self.buffer) {
                self.transcript.note(&Event::Data { stream: self.answers, bytes: bytes.clone() });
                return Ok(Some(bytes));
            }
            if body.done() {
                self.ended();
                return Ok(None);
            }
            let (broken, until_close) = (body.broken(), body.until_close());
            if broken || !self.fill(end, deadline).await? {
                if broken || !until_close {
                    self.cut();
                }
                self.ended();
                return Ok(None);
            }
        }
    }

    /// Nothing more of the answer comes.
    fn ended(&self) {
        if let Some(open) = &self.answered {
            open.ended(std::time::Instant::now());
        }
    }

    /// The answer has broken off.
    fn cut(&self) {
        if let Some(open) = &self.answered {
            open.cut();
        }
    }

    /// Reads once; false when the peer has closed.
    async fn fill(&mut self, end: Instant, deadline: Duration) -> Result<bool, Unanswered> {
        if self.closed {
            return Ok(false);
        }
        let before = self.buffer.len();
        let wire = self.wire.as_mut().expect("present until the connection is given away");
        let read = timeout_at(end, wire.read_buf(&mut self.buffer)).await;
        // A reset after bytes is a close: what came before it counts.
        let size = read.map_err(|_| Unanswered::TimedOut(deadline))?.unwrap_or(0);
        self.transcript.received(&self.buffer[before..]);
        self.closed = size == 0;
        Ok(!self.closed)
    }

    fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("present until the connection is given away")
    }
}

impl Drop for H1 {
    /// What has arrived unread is evidence too.
    fn drop(&mut self) {
        let Some(Wire::Plain(tcp)) = &self.wire else { return };
        let mut bytes = [0; 16 << 10];
        for _ in 0..1024 {
            match tcp.try_read(&mut bytes) {
                Ok(size) if size > 0 => self.transcript.received(&bytes[..size]),
                _ => return,
            }
        }
    }
}
