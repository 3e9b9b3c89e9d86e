//! Reads the HTTP/1 answers of a connection, whoever else speaks on it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Event;
use super::http1::{Body, Framing, Head};
use crate::fields::Fields;

/// Reads the answers of one connection. An answer has the number of its request, counted from 1.
#[derive(Debug, Default)]
pub struct Answers {
    buffer: BytesMut,
    asked: VecDeque<Bytes>,
    body: Option<Body>,
    stream: u32,
}

impl Answers {
    /// A request with this method was sent: an answer's length depends on it.
    pub fn asked(&mut self, method: Bytes) {
        self.asked.push_back(method);
    }

    /// What these bytes say. An interim answer (1xx) is a head without an end.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while self.body.is_some() || self.head(&mut events) {
            Body::drain(&mut self.body, &mut self.buffer, self.stream, &mut events);
            if self.body.is_some() {
                break;
            }
        }
        events
    }

    /// What it means that the connection ends here.
    pub fn closed(&mut self) -> Option<Event> {
        let ended = self.body.take().is_some_and(|body| body.until_close());
        ended.then_some(Event::End { stream: self.stream })
    }

    fn head(&mut self, events: &mut Vec<Event>) -> bool {
        let Some(head) = Head::take(&mut self.buffer) else { return false };
        let Some(status) = head.status() else {
            events.push(Event::Garbage(head.start));
            return false;
        };
        let pseudo = [(Bytes::from_static(b":status"), Bytes::from(status.to_string()))];
        let mut fields: Fields = pseudo.into_iter().collect();
        fields.0.extend(head.fields.0.iter().cloned());
        let stream = self.stream + 1;
        events.push(Event::Head { stream, fields });
        if (100..200).contains(&status) && status != 101 {
            return true;
        }
        self.stream = stream;
        let method = self.asked.pop_front().unwrap_or_default();
        self.body = Some(Body::new(Framing::of_answer(&method, status, &head.fields)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers_byte_by_byte() {
        let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
            HTTP/1.1 403 Forbidden\r\n\r\nto the end";
        let mut reader = Answers::default();
        ["POST", "HEAD", "GET", "GET"].into_iter().for_each(|method| reader.asked(Bytes::from(method)));
        let mut events: Vec<Event> = wire.iter().flat_map(|byte| reader.feed(&[*byte])).collect();
        events.extend(reader.closed());
        let told = |event: &Event| match event {
            Event::Head { stream, fields } => Some(format!("{stream} {}", fields.text(":status").unwrap_or_default())),
            Event::End { stream } => Some(format!("{stream} end")),
            _ => None,
        };
        let told: Vec<_> = events.iter().filter_map(told).collect();
        let heads_and_ends = ["1 100", "1 200", "1 end", "2 200", "2 end", "3 200", "3 end", "4 403", "4 end"];
        assert_eq!(told, heads_and_ends);
        let last = events.iter().rev().find(|event| matches!(event, Event::Data { .. }));
        assert_eq!(last, Some(&Event::Data { stream: 4, bytes: Bytes::from_static(b"d") }));
        assert_eq!(Answers::default().closed(), None);
    }
}
