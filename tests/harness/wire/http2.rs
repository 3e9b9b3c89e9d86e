//! Reads one direction of an HTTP/2 connection, whoever else speaks on it.

use std::collections::BTreeSet;

use bytes::{Buf as _, BytesMut};

use super::Event;
use super::frames::{Frame, PREFACE, flag, kind};
use crate::fields::Fields;

/// The largest dynamic table a peer may have been offered.
const LARGEST_TABLE: usize = 1 << 20;

/// A reader of frames and header blocks.
pub struct Http2 {
    buffer: BytesMut,
    preface: bool,
    decoder: loona_hpack::Decoder<'static>,
    block: Option<(u32, BytesMut, bool)>,
    begun: BTreeSet<u32>,
}

impl Http2 {
    /// A reader of what a client sends, preface first.
    #[must_use]
    pub fn of_client() -> Self {
        Self { preface: true, ..Self::of_server() }
    }

    /// A reader of what a server sends.
    #[must_use]
    pub fn of_server() -> Self {
        let mut decoder = loona_hpack::Decoder::new();
        decoder.set_max_allowed_table_size(LARGEST_TABLE);
        let (buffer, begun) = (BytesMut::new(), BTreeSet::new());
        Self { buffer, preface: false, decoder, block: None, begun }
    }

    /// What these bytes say.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.feed_frames(bytes).into_iter().flat_map(|(_, events)| events).collect()
    }

    /// Every frame in these bytes with what it says: for one who must also answer frames.
    pub fn feed_frames(&mut self, bytes: &[u8]) -> Vec<(Frame, Vec<Event>)> {
        self.buffer.extend_from_slice(bytes);
        if self.preface {
            if self.buffer.len() < PREFACE.len() {
                return Vec::new();
            }
            self.buffer.advance(PREFACE.len());
            self.preface = false;
        }
        let mut frames = Vec::new();
        while let Some(frame) = Frame::take(&mut self.buffer) {
            let events = self.frame(&frame);
            frames.push((frame, events));
        }
        frames
    }

    fn frame(&mut self, frame: &Frame) -> Vec<Event> {
        let stream = frame.stream;
        let Some(content) = frame.content() else {
            return vec![Event::Garbage(frame.payload.clone())];
        };
        match frame.kind {
            kind::DATA => {
                let mut events = Vec::new();
                if !content.is_empty() {
                    events.push(Event::Data { stream, bytes: content });
                }
                if frame.has(flag::END_STREAM) {
                    events.push(Event::End { stream });
                }
                events
            }
            kind::HEADERS => {
                let block = BytesMut::from(&content[..]);
                self.block = Some((stream, block, frame.has(flag::END_STREAM)));
                self.end_of_block(frame)
            }
            kind::CONTINUATION => {
                if let Some((_, block, _)) = &mut self.block {
                    block.extend_from_slice(&content);
                }
                self.end_of_block(frame)
            }
            kind::RST_STREAM => {
                vec![Event::Reset { stream, code: (&content[..]).try_get_u32().unwrap_or(0) }]
            }
            kind::GOAWAY => {
                let code = content.get(4..8).and_then(|mut code| code.try_get_u32().ok());
                vec![Event::GoAway { code: code.unwrap_or(0) }]
            }
            _ => Vec::new(),
        }
    }

    fn end_of_block(&mut self, frame: &Frame) -> Vec<Event> {
        if !frame.has(flag::END_HEADERS) {
            return Vec::new();
        }
        let Some((stream, block, end)) = self.block.take() else { return Vec::new() };
        let Ok(lines) = self.decoder.decode(&block) else {
            return vec![Event::Garbage(block.freeze())];
        };
        let fields: Fields = lines.into_iter().collect();
        let informational = fields.first(":status").is_some_and(|status| status.starts_with(b"1"));
        let mut events = match self.begun.contains(&stream) {
            true => vec![Event::Trailers { stream, fields }],
            false => vec![Event::Head { stream, fields }],
        };
        if !informational {
            self.begun.insert(stream);
        }
        if end {
            events.push(Event::End { stream });
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{headers, literals};
    use super::*;

    #[test]
    fn reads_what_a_library_refuses() {
        let head = literals(&[(&b":method"[..], &b"get"[..]), (b":path", b"/\xff"), (b"x", b"\xff\xfe")]);
        let trailers = literals(&[("t", vec![b'v'; 20_000])]);
        let mut wire = PREFACE.to_vec();
        wire.extend(headers(1, &head, false));
        wire.extend(Frame::encode(kind::DATA, 0, 1, b"body"));
        wire.extend(headers(1, &trailers, true));
        let (mut reader, mut events) = (Http2::of_client(), Vec::new());
        for byte in &wire {
            events.extend(reader.feed(&[*byte]));
        }
        let [Event::Head { fields, .. }, Event::Data { .. }, Event::Trailers { .. }, Event::End { .. }] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(fields.first(":path"), Some(&b"/\xff"[..]));
    }
}
