//! Agents: raw clients that keep every byte they receive and account for every request they sent.
//!
//! They never retry, never follow a redirect, never normalise what they are told to send.

mod h1;
mod h2;
mod port;
mod raw_h2;
mod transcript;
mod tunnel;
mod wire;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

pub use h1::H1;
pub use h2::{H2, H2Exchange, extended, head};
pub use port::{Port, Relay};
pub use raw_h2::RawH2;
pub use transcript::{Decoded, Exchange, Ledger, Outcome, Transcript};
pub use wire::Wire;

use crate::fields::Fields;

/// How long an agent waits for an answer unless told otherwise: past every bound that is promised.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How it is told that nothing came in time.
pub const SILENCE: &str = "no answer within";

/// A client of the proxy. Clones write into the same ledger.
#[derive(Clone, Default)]
pub struct Agent {
    ledger: Ledger,
}

/// An answer, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Status codes of the 1xx heads that came first.
    pub informational: Vec<u16>,
    pub fields: Fields,
    /// The body, transfer coding removed.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// HTTP/1: the bytes of this answer as received.
    pub raw: Vec<u8>,
    /// Whether it came to its proper end.
    pub complete: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nothing within this time.
    TimedOut(Duration),
    /// The peer closed the connection.
    Closed,
    /// The peer reset the stream, with this HTTP/2 error code.
    Reset(u32),
    /// The peer ended the HTTP/2 connection, with this error code.
    GoAway(u32),
    /// The connection broke, or what came was not HTTP.
    Broken(String),
}

impl Agent {
    /// An agent with a ledger of its own; [`crate::Oracle::agent`] makes one that is watched.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An agent that writes into this ledger.
    #[must_use]
    pub fn writing_to(ledger: &Ledger) -> Self {
        Self { ledger: ledger.clone() }
    }

    /// Opens an HTTP/1 connection.
    pub async fn h1(&self, addr: SocketAddr) -> H1 {
        self.h1_over(Wire::plain(addr).await, format!("HTTP/1 to {addr}"))
    }

    /// Opens an HTTP/1 connection over TLS (see [`crate::ca::client_trusting`]).
    pub async fn h1_tls(&self, addr: SocketAddr, name: &str, tls: Arc<ClientConfig>) -> H1 {
        let wire = Wire::plain(addr).await.secured(name, tls).await.expect("a TLS handshake");
        self.h1_over(wire, format!("HTTP/1 over TLS to {name}"))
    }

    /// Speaks HTTP/1 on a connection that stands.
    #[must_use]
    pub fn h1_over(&self, wire: Wire, label: impl Into<String>) -> H1 {
        H1::over(wire, self.ledger.open(label))
    }

    /// Opens an HTTP/2 connection with prior knowledge.
    pub async fn h2(&self, addr: SocketAddr) -> H2 {
        self.h2_over(Wire::plain(addr).await, format!("HTTP/2 to {addr}")).await
    }

    /// Speaks HTTP/2 on a connection that stands: TLS, or inside a CONNECT tunnel.
    pub async fn h2_over(&self, wire: Wire, label: impl Into<String>) -> H2 {
        H2::over(wire, self.ledger.open(label)).await
    }

    /// Opens an HTTP/2 connection whose frames are written by hand.
    pub async fn raw_h2(&self, addr: SocketAddr) -> RawH2 {
        RawH2::over(Wire::plain(addr).await, self.ledger.open(format!("raw HTTP/2 to {addr}"))).await
    }

    /// One HTTP/1 GET on a connection of its own.
    ///
    /// # Panics
    /// When no answer comes within [`PATIENCE`].
    pub async fn get(&self, addr: SocketAddr, host: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request(addr, "GET", host, path, headers, b"").await
    }

    /// One HTTP/1 request on a connection of its own.
    ///
    /// # Panics
    /// When no answer comes within [`PATIENCE`].
    pub async fn request(
        &self,
        addr: SocketAddr,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let answer = self.h1(addr).await.request(method, host, path, headers, body).await;
        answer.unwrap_or_else(|why| panic!("{method} http://{host}{path} at {addr}: {why}"))
    }

    /// The ledger this agent writes into.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Response {
    /// The first header line of that name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.fields.text(name)
    }

    /// The body as text, bytes that are not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(deadline) => write!(f, "{SILENCE} {deadline:?}"),
            Self::Closed => f.write_str("the connection was closed without an answer"),
            Self::Reset(code) => write!(f, "the stream was reset with code {code}"),
            Self::GoAway(code) => write!(f, "the connection was ended with code {code}"),
            Self::Broken(what) => write!(f, "the connection broke: {what}"),
        }
    }
}

impl std::error::Error for Unanswered {}
