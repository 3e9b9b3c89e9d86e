//! What arrived, as it arrived.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::fields::Fields;
use crate::rotated;
use crate::secrets::{Scanner, Secrets};

/// One request, complete or not.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// When its head was complete.
    pub at: Instant,
    /// The same moment, milliseconds since the epoch.
    pub wall_ms: u64,
    /// The connection it came on; see [`Connection::id`].
    pub connection: usize,
    /// The HTTP/2 stream, or the HTTP/1 request counted from 1.
    pub stream: u32,
    /// Spoken on the connection.
    pub protocol: Protocol,
    /// The port it came in at.
    pub door: u16,
    /// The name the TLS client asked for; `None` without TLS or without SNI.
    pub sni: Option<String>,
    pub method: Bytes,
    /// The target with its query, as written.
    pub path: Bytes,
    /// `:authority`, or the first `Host` line of HTTP/1.
    pub authority: Bytes,
    /// Every header line, in order; HTTP/1 names in their own case; no pseudo-fields.
    pub fields: Fields,
    /// The body as far as it is kept.
    pub body: Bytes,
    /// The length of the body, kept or not.
    pub body_len: u64,
    pub trailers: Fields,
    pub progress: Progress,
    /// Names of the secrets it carries: in path, headers, trailers or body, in any form.
    pub secrets: BTreeSet<String>,
    /// Length of the witness file, with what was rotated away, when the head arrived.
    pub witness_len: Option<u64>,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Open,
    Complete,
    /// Reset, or its connection closed, before the end.
    Aborted,
    /// Bytes that are not HTTP; they stand in `body`.
    Garbage,
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// One accepted connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub id: usize,
    pub at: Instant,
    pub sni: Option<String>,
    pub alpn: Option<String>,
    /// Why the TLS handshake failed.
    pub handshake_error: Option<String>,
}

impl Recorded {
    /// The path as text, bytes that are not UTF-8 replaced.
    #[must_use]
    pub fn path_text(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }

    /// The first header line of that name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.fields.text(name)
    }

    /// The id Envoy gave the request: joins it with its audit record.
    #[must_use]
    pub fn request_id(&self) -> Option<String> {
        self.header("x-request-id")
    }
}

/// The shared book of one upstream.
pub struct Records {
    book: Mutex<Book>,
    /// Told whenever a record changes.
    pub changed: Notify,
    watch: RwLock<Watch>,
    keep_body: usize,
    next_connection: AtomicUsize,
}

/// What is looked for, and noted, whenever a request arrives.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    pub(crate) secrets: Secrets,
    pub(crate) witness: Option<PathBuf>,
}

#[derive(Default)]
struct Book {
    connections: Vec<Connection>,
    requests: Vec<Entry>,
}

pub(super) struct Entry {
    pub(super) record: Recorded,
    body: BytesMut,
    scanner: Scanner,
}

impl Records {
    pub(super) fn new(watch: Watch, keep_body: usize) -> Self {
        let (book, changed, next_connection) = (Mutex::default(), Notify::new(), AtomicUsize::new(0));
        Self { book, changed, watch: RwLock::new(watch), keep_body, next_connection }
    }

    /// Looks for these secrets, and notes the length of this file, from now on.
    ///
    /// # Panics
    /// When requests have come already, which were not looked at.
    pub(crate) fn watch(&self, watch: Watch) {
        let mut own = self.watch.write().unwrap_or_else(PoisonError::into_inner);
        let seen = self.book().requests.len();
        assert!(seen == 0 || own.witness == watch.witness, "{seen} requests have come unwatched");
        *own = watch;
    }

    fn watching(&self) -> Watch {
        self.watch.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn secrets(&self) -> Secrets {
        self.watching().secrets
    }

    pub(super) fn next_connection(&self) -> usize {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        let finished = |entry: &Entry| Recorded { body: entry.body.clone().freeze(), ..entry.record.clone() };
        self.book().requests.iter().map(finished).collect()
    }

    /// The same without their bodies.
    pub(crate) fn heads(&self) -> Vec<Recorded> {
        self.book().requests.iter().map(|entry| entry.record.clone()).collect()
    }

    pub(super) fn connections(&self) -> Vec<Connection> {
        self.book().connections.clone()
    }

    pub(super) fn connection(&self, id: usize, alpn: Option<String>, sni: Option<String>, error: Option<String>) {
        let connection = Connection { id, at: Instant::now(), sni, alpn, handshake_error: error };
        self.book().connections.push(connection);
        self.changed.notify_waiters();
    }

    /// Enters a request whose head has arrived.
    pub(super) fn begin(&self, record: Recorded) {
        let scanner = Scanner::new(&self.secrets());
        self.book().requests.push(Entry { record, body: BytesMut::new(), scanner });
        self.changed.notify_waiters();
    }

    /// Adds a piece to a body: counted and searched in any case, kept while there is room.
    pub(super) fn append(&self, connection: usize, stream: u32, bytes: &[u8]) {
        self.change(connection, stream, |entry| {
            entry.record.body_len += bytes.len() as u64;
            let room = self.keep_body.saturating_sub(entry.body.len());
            entry.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            let found = entry.scanner.feed(bytes);
            entry.record.secrets.extend(found.into_iter().map(|finding| finding.name));
        });
    }

    /// The present length of the witness file, with what was rotated away.
    pub(super) fn witness_len(&self) -> Option<u64> {
        self.watching().witness.as_deref().map(rotated::len)
    }

    pub(super) fn change(&self, connection: usize, stream: u32, change: impl FnOnce(&mut Entry)) {
        let mut book = self.book();
        let same = |entry: &&mut Entry| entry.record.connection == connection && entry.record.stream == stream;
        if let Some(entry) = book.requests.iter_mut().rev().find(same) {
            change(entry);
        }
        drop(book);
        self.changed.notify_waiters();
    }
}
