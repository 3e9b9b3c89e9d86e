//! Writes what a connection carries into the book, as a mere onlooker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::records::{Progress, Protocol, Recorded, Records};
use crate::fields::Fields;
use crate::secrets::Secrets;
use crate::util;
use crate::wire::tap::Onlooker;
use crate::wire::{Event, http1, http2};

/// Writes one connection into the book.
pub struct Recorder {
    records: Arc<Records>,
    connection: usize,
    door: u16,
    sni: Option<String>,
    reader: Reader,
    open: BTreeSet<u32>,
}

enum Reader {
    Undecided(Vec<u8>),
    Http1(http1::Requests),
    Http2(http2::Http2),
}

impl Recorder {
    pub(super) fn new(records: Arc<Records>, (connection, door): (usize, u16), sni: Option<String>) -> Self {
        Self { records, connection, door, sni, reader: Reader::Undecided(Vec::new()), open: BTreeSet::new() }
    }

    fn note(&mut self, event: Event) {
        let (records, connection) = (Arc::clone(&self.records), self.connection);
        match event {
            Event::Head { stream, fields } => self.head(stream, fields),
            Event::Data { stream, bytes } => records.append(connection, stream, &bytes),
            Event::Trailers { stream, fields } => records.change(connection, stream, |entry| {
                entry.record.secrets.extend(carried(&records.secrets(), &[], &fields));
                entry.record.trailers = fields;
            }),
            Event::End { stream } => self.ended(stream, Progress::Complete),
            Event::Reset { stream, .. } => self.ended(stream, Progress::Aborted),
            Event::GoAway { .. } => {}
            Event::Garbage(bytes) => self.garbage(&bytes),
        }
    }

    fn head(&mut self, stream: u32, mut fields: Fields) {
        let mut pseudo = |name: &[u8]| fields.take(name).unwrap_or_default();
        let (method, path) = (pseudo(b":method"), pseudo(b":path"));
        let authority = pseudo(b":authority");
        fields.take(b":scheme");
        self.open.insert(stream);
        let records = &self.records;
        let record = Recorded {
            at: Instant::now(),
            wall_ms: util::wall_ms(),
            connection: self.connection,
            stream,
            protocol: match self.reader {
                Reader::Http2(_) => Protocol::Http2,
                _ => Protocol::Http1,
            },
            door: self.door,
            sni: self.sni.clone(),
            secrets: carried(&records.secrets(), &[&method, &path, &authority], &fields),
            method,
            path,
            authority,
            fields,
            body: Bytes::new(),
            body_len: 0,
            trailers: Fields::default(),
            progress: Progress::Open,
            witness_len: records.witness_len(),
        };
        records.begin(record);
    }

    fn ended(&mut self, stream: u32, how: Progress) {
        if self.open.remove(&stream) {
            self.records.change(self.connection, stream, |entry| entry.record.progress = how);
        }
    }

    fn garbage(&mut self, bytes: &Bytes) {
        const NO_STREAM: u32 = 0;
        self.head(NO_STREAM, Fields::default());
        self.note(Event::Data { stream: NO_STREAM, bytes: bytes.clone() });
        self.ended(NO_STREAM, Progress::Garbage);
    }
}

impl Onlooker for Recorder {
    fn read(&mut self, bytes: &[u8]) {
        let mut first = Vec::new();
        let mut bytes = bytes;
        if let Reader::Undecided(begun) = &mut self.reader {
            begun.extend_from_slice(bytes);
            if begun.len() < 3 {
                return;
            }
            first = std::mem::take(begun);
            bytes = &first;
            self.reader = match first.starts_with(b"PRI") {
                true => Reader::Http2(http2::Http2::of_client()),
                false => Reader::Http1(http1::Requests::default()),
            };
        }
        let events = match &mut self.reader {
            Reader::Undecided(_) => Vec::new(),
            Reader::Http1(reader) => reader.feed(bytes),
            Reader::Http2(reader) => reader.feed(bytes),
        };
        drop(first);
        for event in events {
            self.note(event);
        }
    }

    fn written(&mut self, bytes: &[u8]) {
        if let (Reader::Http1(reader), true) = (&mut self.reader, bytes.starts_with(b"HTTP/1.1 101")) {
            reader.tunnel();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        for stream in std::mem::take(&mut self.open) {
            self.records.change(self.connection, stream, |entry| entry.record.progress = Progress::Aborted);
        }
    }
}

fn carried(secrets: &Secrets, words: &[&[u8]], fields: &Fields) -> BTreeSet<String> {
    let mut text = words.join(&b'\n');
    text.push(b'\n');
    text.extend(fields.to_lines());
    for (_, value) in fields.iter() {
        if let Some(decoded) = basic(value) {
            text.extend(decoded);
            text.push(b'\n');
        }
    }
    secrets.find(&text).into_iter().map(|finding| finding.name).collect()
}

fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = value.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then(|| STANDARD.decode(credentials.trim_ascii()).ok())?
}
