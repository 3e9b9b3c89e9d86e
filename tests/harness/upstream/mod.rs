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

pub(crate) use records::Watch;
pub use records::{Connection, Progress, Protocol, Recorded};
pub use reply::{Asked, Held, Part, Reply, magic};
pub use serve::RECORDED_AS;

use crate::ca::{Ca, Leaf};
use crate::secrets::Secrets;
use crate::util;
use records::Records;

/// Decides the answer to a complete request.
pub type Handler = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A running upstream; dropping it closes its ports and its connections.
pub struct Upstream {
    doors: Vec<(String, SocketAddr)>,
    /// The real server behind each door, if there is one.
    behind: Vec<Arc<RwLock<Option<SocketAddr>>>>,
    tls: bool,
    records: Arc<Records>,
    handler: Arc<RwLock<Handler>>,
    accepting: Vec<AbortHandle>,
}

/// An upstream about to start.
pub struct Builder {
    leaf: Option<Leaf>,
    alpn: Vec<&'static str>,
    doors: Vec<String>,
    watch: Watch,
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
            doors: vec![String::new()],
            watch: Watch::default(),
            keep_body: 100 << 20,
            handler: Arc::new(magic),
        }
    }

    /// Where it listens: 127.0.0.1 and a random port; with several doors, the first.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.doors[0].1
    }

    /// The door of this name.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn door(&self, name: &str) -> SocketAddr {
        let own = self.doors.iter().find(|(own, _)| own == name);
        own.unwrap_or_else(|| panic!("no door {name} among {:?}", self.doors)).1
    }

    /// The doors that have a name, each with its port.
    pub(crate) fn named_doors(&self) -> Vec<(String, u16)> {
        let named = self.doors.iter().filter(|(name, _)| !name.is_empty());
        named.map(|(name, addr)| (name.clone(), addr.port())).collect()
    }

    /// Whether it speaks TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls
    }

    /// Where it listens, as JSON for an Envoy endpoint.
    #[must_use]
    pub fn endpoint(&self) -> serde_json::Value {
        let (address, port) = (self.addr().ip().to_string(), self.addr().port());
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

    /// Hands what comes in at this door from now on to a real server that speaks plain HTTP/1 on
    /// loopback, and its answers back. Requests are on record as before.
    ///
    /// # Panics
    /// When there is no such door.
    pub fn lead(&self, door: &str, server: SocketAddr) {
        let at = self.doors.iter().position(|(own, _)| own == door);
        let at = at.unwrap_or_else(|| panic!("no door {door} among {:?}", self.doors));
        *self.behind[at].write().expect("no panic while it is set") = Some(server);
    }

    /// The records themselves, for the oracle: they outlive the upstream.
    pub(crate) fn records(&self) -> Arc<Records> {
        Arc::clone(&self.records)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.iter().for_each(AbortHandle::abort);
    }
}

impl Builder {
    /// The secrets to look for in every request.
    #[must_use]
    pub fn secrets(mut self, secrets: &Secrets) -> Self {
        self.watch.secrets = secrets.clone();
        self
    }

    /// Notes the length of this file (the audit log) whenever a request arrives.
    #[must_use]
    pub fn witness(mut self, file: impl Into<PathBuf>) -> Self {
        self.watch.witness = Some(file.into());
        self
    }

    /// Listens at one port for each of these names: where a request came in is then on record.
    #[must_use]
    pub fn doors<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.doors = names.into_iter().map(Into::into).collect();
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

    /// Binds a random port of 127.0.0.1 for each door and serves.
    pub async fn start(self) -> Upstream {
        let records = Arc::new(Records::new(self.watch, self.keep_body));
        let handler = Arc::new(RwLock::new(self.handler));
        let tls = self.leaf.map(|leaf| leaf.server_config(&self.alpn));
        let (mut doors, mut behind, mut accepting) = (Vec::new(), Vec::new(), Vec::new());
        for name in self.doors {
            let listener = TcpListener::bind(util::any_port()).await.expect("loopback accepts a bind");
            doors.push((name, listener.local_addr().expect("a bound socket has an address")));
            let server = Arc::new(RwLock::new(None));
            behind.push(Arc::clone(&server));
            let serving = serve::run(listener, tls.clone(), Arc::clone(&records), Arc::clone(&handler), server);
            accepting.push(tokio::spawn(serving).abort_handle());
        }
        Upstream { doors, behind, tls: tls.is_some(), records, handler, accepting }
    }
}
