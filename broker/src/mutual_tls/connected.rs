//! One connection's peer, for as long as its certificate is good.

use super::{Acceptor, MOST_OF_PEER, MOST_OF_SIDECAR};
use crate::clock::Now;
use crate::config::data_plane::Peer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

/// A connection ends so long before its certificate, at most: Envoy comes back with the next one.
const AHEAD: Duration = Duration::from_secs(60);
/// How often the wall clock is looked at: it may have been set.
const LOOK: Duration = Duration::from_secs(60);

/// The peer of one connection.
pub struct Connected {
    peer: Arc<Peer>,
    chain: Vec<CertificateDer<'static>>,
    /// When the first certificate of the chain ends, in Unix milliseconds.
    until_ms: u64,
    /// When the connection ends, ahead of that.
    ends_ms: u64,
    /// Which files the certificate was last held against.
    generation: AtomicU64,
    over: AtomicBool,
    place: Place,
}

impl Connected {
    pub(super) fn new(peer: Peer, chain: Vec<CertificateDer<'static>>, generation: u64, place: Place) -> Self {
        let until_ms = chain.iter().map(not_after_ms).min().unwrap_or_default();
        let ahead = AHEAD.min(Duration::from_millis(until_ms.saturating_sub(Now::read().wall_ms)) / 10);
        let ends_ms = until_ms.saturating_sub(crate::clock::millis(ahead));
        let (generation, over) = (AtomicU64::new(generation), AtomicBool::new(false));
        Self { peer: Arc::new(peer), chain, until_ms, ends_ms, generation, over, place }
    }

    /// Who it is, if that is still so: its certificate is in time, and signed by an authority of now.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        let acceptor = &self.place.acceptor;
        let generation = *acceptor.generation.borrow();
        if self.generation.load(Ordering::Acquire) != generation {
            let (own, others) = self.chain.split_first()?;
            let verified = acceptor.current().verifier.verify_client_cert(own, others, UnixTime::now());
            self.over.fetch_or(verified.is_err(), Ordering::AcqRel);
            self.generation.store(generation, Ordering::Release);
        }
        let good = !self.over.load(Ordering::Acquire) && Now::read().wall_ms < self.until_ms;
        good.then_some(&self.peer)
    }

    /// Ready when the connection should end: its certificate is about to, or names nobody any more.
    pub async fn over(&self) {
        let mut changes = self.place.acceptor.generation.subscribe();
        loop {
            let left = self.ends_ms.saturating_sub(Now::read().wall_ms);
            if left == 0 || self.peer().is_none() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK.min(Duration::from_millis(left))) => {}
                _ = changes.changed() => {}
            }
        }
    }
}

/// When a certificate ends, in Unix milliseconds; one that cannot be read has ended.
pub(super) fn not_after_ms(certificate: &CertificateDer<'_>) -> u64 {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let seconds = parsed.map_or(0, |(_, parsed)| parsed.validity().not_after.timestamp());
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

/// How many connections a peer may have.
pub(super) fn most_of(peer: &Peer) -> usize {
    if peer.sessions.is_some() { MOST_OF_SIDECAR } else { MOST_OF_PEER }
}

/// One of the connections that a peer may have.
pub(super) struct Place {
    acceptor: Arc<Acceptor>,
    id: String,
}

impl Place {
    pub fn take(acceptor: Arc<Acceptor>, peer: &Peer) -> Option<Self> {
        let id = peer.id.as_str().to_owned();
        let most = most_of(peer);
        let mut open = open(&acceptor);
        let count = open.entry(id.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Self { acceptor, id })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(count) = open(&self.acceptor).get_mut(&self.id) {
            *count = count.saturating_sub(1);
        }
    }
}

fn open(acceptor: &Acceptor) -> MutexGuard<'_, HashMap<String, usize>> {
    acceptor.open.lock().unwrap_or_else(PoisonError::into_inner)
}
