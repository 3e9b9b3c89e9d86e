//! Where a credential may arrive, from the test's own table.

use std::sync::Arc;

use crate::upstream::{Recorded, Upstream};

/// An upstream and the credentials that may arrive there.
pub(super) struct WatchedUpstream {
    pub(super) name: String,
    tls: bool,
    bound: Vec<Bound>,
    pub(super) requests: Arc<dyn Fn() -> Vec<Recorded> + Send + Sync>,
}

/// One credential at one place.
struct Bound {
    credential: String,
    host: String,
    port: u16,
    /// The upstream's port for this host: another cluster's connection comes in at another.
    door: Option<u16>,
}

impl WatchedUpstream {
    /// `bound` is made of (credential, `host:port`).
    ///
    /// # Panics
    /// When a place has no port.
    pub(super) fn new(name: &str, upstream: &Upstream, bound: &[(&str, &str)]) -> Self {
        let (records, doors) = (upstream.records(), upstream.named_doors());
        let bound = bound.iter().map(|(credential, place)| {
            let (host, port) = place.rsplit_once(':').expect("a place is host:port");
            let door = doors.iter().find(|(name, _)| name == host).map(|(_, port)| *port);
            assert!(door.is_some() || doors.is_empty(), "no door for {host}");
            let (credential, host) = ((*credential).to_owned(), host.to_owned());
            Bound { credential, host, port: port.parse().expect("a port is a number"), door }
        });
        let (name, tls, bound) = (name.to_owned(), upstream.speaks_tls(), bound.collect());
        Self { name, tls, bound, requests: Arc::new(move || records.heads()) }
    }

    /// Why this credential should not have arrived with this request.
    pub(super) fn astray(&self, credential: &str, request: &Recorded) -> Option<&'static str> {
        let bound: Vec<&Bound> = self.bound.iter().filter(|bound| bound.credential == credential).collect();
        if bound.is_empty() {
            return Some("it is not bound to anything here");
        }
        let authority = String::from_utf8_lossy(&request.authority).into_owned();
        let scheme_port = if self.tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host.to_owned(), port),
            _ => (authority.clone(), scheme_port),
        };
        let Some(place) = bound.into_iter().find(|bound| bound.host == host && bound.port == port) else {
            return Some("another authority");
        };
        if self.tls && request.sni.as_deref() != Some(&place.host) {
            return Some("TLS with another name");
        }
        if place.door.is_some_and(|door| door != request.door) {
            return Some("another cluster's connection");
        }
        None
    }
}
