//! A recording upstream: it answers as told and remembers everything it was sent.
//!
//! What it remembers is read off the wire by a passive reader, before and apart from the library
//! that answers: a request that the library refuses is on record all the same. It knows the
//! secrets of the test and which record carries one. It never shows a request to a client unless
//! asked to echo.

mod recorder;
mod records;
mod reply;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub use records::{Connection, Progress, Protocol, Recorded};
pub use reply::{Asked, Held, Part, Reply, magic};

use crate::ca::{Ca, Leaf};
use crate::secrets::Secrets;
use crate::util;
use records::Records;

/// Decides the answer to a complete request.
pub type Handler = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A running upstream; dropping it closes its port and its connections.
pub struct Upstream {
    addr: SocketAddr,
    records: Arc<Records>,
    handler: Arc<RwLock<Handler>>,
    accepting: AbortHandle,
}

/// An upstream about to start.
pub struct Builder {
    leaf: Option<Leaf>,
    alpn: Vec<&'static str>,
    secrets: Secrets,
    witness: Option<PathBuf>,
    keep_body: usize,
    handler: Handler,
}

impl Upstream {
    /// Speaks TLS with a certificate for these names and offers `h2` and `http/1.1`.
    #[must_use]
    pub fn tls(ca: &Ca, names: &[&str]) -> Builder {
        Builder { leaf: Some(ca.issue(names)), ..Self::plain() }
    }

    /// Speaks plaintext, HTTP/1 or HTTP/2 by what the client begins with.
    #[must_use]
    pub fn plain() -> Builder {
        Builder {
            leaf: None,
            alpn: vec!["h2", "http/1.1"],
            secrets: Secrets::default(),
            witness: None,
            keep_body: 100 << 20,
            handler: Arc::new(magic),
        }
    }

    /// Where it listens: 127.0.0.1 and a random port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens, as JSON for an Envoy endpoint.
    #[must_use]
    pub fn endpoint(&self) -> serde_json::Value {
        let (address, port) = (self.addr.ip().to_string(), self.addr.port());
        serde_json::json!({"socket_address": {"address": address, "port_value": port}})
    }

    /// Everything recorded so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.records.requests()
    }

    /// The requests that carried a secret anywhere.
    #[must_use]
    pub fn hits(&self) -> Vec<Recorded> {
        self.requests().into_iter().filter(|request| !request.secrets.is_empty()).collect()
    }

    /// Every connection accepted so far, failed handshakes included.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.records.connections()
    }

    /// Forgets all requests and connections.
    pub fn clear(&self) {
        self.records.clear();
    }

    /// Waits for `n` requests that have ended, and returns all records.
    ///
    /// # Panics
    /// When they do not come in time; shows what came.
    pub async fn wait_for(&self, n: usize, deadline: Duration) -> Vec<Recorded> {
        let ended = |all: &[Recorded]| all.iter().filter(|request| request.progress != Progress::Open).count();
        let end = tokio::time::Instant::now() + deadline;
        loop {
            let changed = self.records.changed.notified();
            let all = self.requests();
            if ended(&all) >= n {
                return all;
            }
            if tokio::time::timeout_at(end, changed).await.is_err() {
                let all = self.requests();
                assert!(ended(&all) >= n, "{n} requests did not arrive within {deadline:?}, but only: {all:#?}");
                return all;
            }
        }
    }

    /// Answers by this handler from now on.
    pub fn answer_with(&self, handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.handler.write().expect("handlers never panic while replaced") = Arc::new(handler);
    }

    /// The records themselves, for the oracle: they outlive the upstream.
    pub(crate) fn records(&self) -> Arc<Records> {
        Arc::clone(&self.records)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Builder {
    /// The secrets to look for in every request.
    #[must_use]
    pub fn secrets(mut self, secrets: &Secrets) -> Self {
        self.secrets = secrets.clone();
        self
    }

    /// Notes the length of this file (the audit log) whenever a request arrives.
    #[must_use]
    pub fn witness(mut self, file: impl Into<PathBuf>) -> Self {
        self.witness = Some(file.into());
        self
    }

    /// Keeps at most so many bytes of each body (default 100 MB); all bytes are counted and searched.
    #[must_use]
    pub fn keep_body(mut self, bytes: usize) -> Self {
        self.keep_body = bytes;
        self
    }

    /// Shows this certificate instead.
    #[must_use]
    pub fn certificate(mut self, leaf: Leaf) -> Self {
        self.leaf = Some(leaf);
        self
    }

    /// Offers these protocols by ALPN instead of both.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&'static str]) -> Self {
        self.alpn = protocols.to_vec();
        self
    }

    /// Answers by this handler instead of [`magic`] paths.
    #[must_use]
    pub fn handler(mut self, handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        self.handler = Arc::new(handler);
        self
    }

    /// Binds a random port of 127.0.0.1 and serves.
    pub async fn start(self) -> Upstream {
        let listener = TcpListener::bind(util::any_port()).await.expect("loopback accepts a bind");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let records = Arc::new(Records::new(self.secrets, self.witness, self.keep_body));
        let handler = Arc::new(RwLock::new(self.handler));
        let tls = self.leaf.map(|leaf| leaf.server_config(&self.alpn));
        let serving = serve::run(listener, tls, Arc::clone(&records), Arc::clone(&handler));
        let accepting = tokio::spawn(serving).abort_handle();
        Upstream { addr, records, handler, accepting }
    }
}
