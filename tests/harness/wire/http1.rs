//! HTTP/1 heads and bodies, read leniently (RFC 9112).

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use super::Event;
use crate::fields::Fields;

/// The longest head that is waited for before the bytes count as garbage.
const LONGEST_HEAD: usize = 4 << 20;

/// A first line and the header lines after it.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line, without its line end.
    pub start: Bytes,
    /// Every header line.
    pub fields: Fields,
}

impl Head {
    /// Takes a complete head off the front of `buffer`.
    pub fn take(buffer: &mut BytesMut) -> Option<Self> {
        let end = memmem::find(buffer, b"\r\n\r\n")?;
        let head = buffer.split_to(end + 4).freeze();
        let mut lines = split_lines(&head[..end]);
        let start = head.slice_ref(lines.next().unwrap_or_default());
        Some(Self { start, fields: lines.map(split_field).collect() })
    }

    /// The three words of a request line; a target keeps the spaces inside it.
    #[must_use]
    pub fn request_line(&self) -> (Bytes, Bytes) {
        let line = &self.start[..];
        let method = memchr::memchr(b' ', line).unwrap_or(line.len());
        let version = memchr::memrchr(b' ', line).unwrap_or(line.len()).max(method);
        let target = line.get(method + 1..version).unwrap_or_default();
        (self.start.slice(..method), self.start.slice_ref(target))
    }

    /// The status code of a status line.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        std::str::from_utf8(self.start.get(9..12)?).ok()?.parse().ok()
    }
}

fn split_lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    (&line[..colon], line.get(colon + 1..).unwrap_or_default().trim_ascii())
}

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything until the connection closes, or a tunnel.
    UntilClose,
}

impl Framing {
    /// By the header lines alone; `otherwise` when they say nothing.
    #[must_use]
    pub fn of(fields: &Fields, otherwise: Self) -> Self {
        let chunked = |value: &[u8]| value.to_ascii_lowercase().ends_with(b"chunked");
        if fields.all("transfer-encoding").into_iter().any(chunked) {
            return Self::Chunked;
        }
        let length = fields.text("content-length").and_then(|text| text.parse().ok());
        length.map_or(otherwise, Self::Length)
    }

    /// Of an answer to a request with this method (RFC 9112, 6.3).
    #[must_use]
    pub fn of_answer(method: &[u8], status: u16, fields: &Fields) -> Self {
        let tunnel = status == 101 || (method == b"CONNECT" && (200..300).contains(&status));
        match status {
            _ if tunnel => Self::UntilClose,
            204 | 304 => Self::Length(0),
            _ if method == b"HEAD" => Self::Length(0),
            _ => Self::of(fields, Self::UntilClose),
        }
    }
}

/// Removes the framing from a body that arrives in pieces.
#[derive(Debug)]
pub struct Body {
    state: State,
    trailers: Fields,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Data(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
    Broken,
}

impl Body {
    /// What there is of a stream's body becomes events; at its end there is none any more.
    pub fn drain(of: &mut Option<Self>, buffer: &mut BytesMut, stream: u32, events: &mut Vec<Event>) {
        let Some(body) = of else { return };
        while let Some(bytes) = body.take(buffer) {
            events.push(Event::Data { stream, bytes });
        }
        if body.broken() {
            events.push(Event::Garbage(buffer.split().freeze()));
        }
        if body.done() {
            let fields = body.trailers().clone();
            if !fields.0.is_empty() {
                events.push(Event::Trailers { stream, fields });
            }
            events.push(Event::End { stream });
            *of = None;
        }
    }

    /// A body at its beginning.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Data(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, trailers: Fields::default() }
    }

    /// Takes the next piece of content off `buffer`; `None` when more bytes are needed or it ended.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Option<Bytes> {
        loop {
            match self.state {
                State::Done | State::Broken => return None,
                State::UntilClose if buffer.is_empty() => return None,
                State::UntilClose => return Some(buffer.split().freeze()),
                State::Data(left) | State::Chunk(left) => {
                    let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    if size == 0 {
                        return None;
                    }
                    let rest = left - size as u64;
                    self.state = match (&self.state, rest) {
                        (State::Chunk(_), 0) => State::ChunkEnd,
                        (State::Chunk(_), _) => State::Chunk(rest),
                        (_, 0) => State::Done,
                        _ => State::Data(rest),
                    };
                    return Some(buffer.split_to(size).freeze());
                }
                State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let line = take_line(buffer)?;
                    self.line(&line);
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.state = match self.state {
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkSize => match chunk_size(line) {
                Some(0) => State::Trailers,
                Some(size) => State::Chunk(size),
                None => State::Broken,
            },
            State::Trailers if line.is_empty() => State::Done,
            State::Trailers => {
                let (name, value) = split_field(line);
                self.trailers.push(name, value);
                State::Trailers
            }
            _ => State::Broken,
        };
    }

    /// Whether the end has been seen.
    #[must_use]
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the framing made no sense.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether only the end of the connection ends this body.
    #[must_use]
    pub fn until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// The trailer lines, once the end has been seen.
    #[must_use]
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }
}

fn take_line(buffer: &mut BytesMut) -> Option<Bytes> {
    let end = memchr::memchr(b'\n', buffer)?;
    let line = buffer.split_to(end + 1).freeze();
    let text = &line[..end];
    Some(line.slice_ref(text.strip_suffix(b"\r").unwrap_or(text)))
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Reads the requests of one connection.
#[derive(Debug, Default)]
pub struct Requests {
    buffer: BytesMut,
    body: Option<Body>,
    stream: u32,
}

impl Requests {
    /// What these bytes say.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        loop {
            if self.body.is_none() && !self.head(&mut events) {
                return events;
            }
            Body::drain(&mut self.body, &mut self.buffer, self.stream, &mut events);
            if self.body.is_some() {
                return events;
            }
        }
    }

    /// The connection became a tunnel: all further bytes belong to the last request.
    pub fn tunnel(&mut self) {
        self.body = Some(Body::new(Framing::UntilClose));
    }

    fn head(&mut self, events: &mut Vec<Event>) -> bool {
        let Some(head) = Head::take(&mut self.buffer) else {
            if self.buffer.len() > LONGEST_HEAD {
                events.push(Event::Garbage(self.buffer.split().freeze()));
            }
            return false;
        };
        self.stream += 1;
        let (method, target) = head.request_line();
        let authority = Bytes::copy_from_slice(head.fields.first("host").unwrap_or_default());
        let pseudo = [(":method", method), (":path", target), (":authority", authority)];
        let mut fields: Fields = pseudo.into_iter().collect();
        fields.0.extend(head.fields.0.iter().cloned());
        self.body = Some(Body::new(Framing::of(&head.fields, Framing::Length(0))));
        events.push(Event::Head { stream: self.stream, fields });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pipelined_requests_byte_by_byte() {
        let wire = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
            3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\nGET /b c HTTP/1.1\r\nX: \xff\xfe\r\n\r\n";
        let (mut reader, mut events) = (Requests::default(), Vec::new());
        for byte in wire {
            events.extend(reader.feed(&[*byte]));
        }
        let heads = events.iter().filter_map(|event| match event {
            Event::Head { fields, .. } => fields.first(":path").map(<[u8]>::to_vec),
            _ => None,
        });
        assert_eq!(heads.collect::<Vec<_>>(), [b"/a".to_vec(), b"/b c".to_vec()]);
        let trailers = [("T", "v")].into_iter().collect();
        assert!(events.contains(&Event::Trailers { stream: 1, fields: trailers }), "{events:?}");
        assert_eq!(events.last(), Some(&Event::End { stream: 2 }));
    }

    #[test]
    fn broken_framing_is_kept_as_garbage() {
        let mut reader = Requests::default();
        let events = reader.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nrest");
        assert_eq!(events.last(), Some(&Event::Garbage(Bytes::from_static(b"rest"))));
    }
}
