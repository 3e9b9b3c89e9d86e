//! The filters' door over a network: mutual TLS. Who asks is whom a verified certificate names, and nobody
//! else comes as far as HTTP. Files are picked up when they change; connections of whom they name no more end.

mod connected;
mod files;
mod verifier;
mod workers;

pub use connected::Connected;
pub use files::{File, TlsError};
pub use verifier::NotAPeer;
pub use workers::{NotYours, Workers};

use crate::clock::{Now, rfc3339};
use crate::config::MutualTls;
use crate::config::data_plane::Peer;
use files::{Files, Stamps};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use verifier::PeerVerifier;

/// What is spoken behind TLS: Envoy's calls, and its stream for certificates. The last is all that Istio's own clusters
/// offer, whichever HTTP they speak.
const ALPN: [&[u8]; 3] = [b"h2", b"http/1.1", OF_THE_MESH];
/// Sidecars put it around what the processes of their pod send, too: no peer that is held to sessions gets in by it.
const OF_THE_MESH: &[u8] = b"istio";
/// What one reason is told of this often: a client tries again and again.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Reasons that are remembered as told; there are as many as there are IDs that our authorities sign.
const MOST_TOLD: usize = 64;
/// How often files are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Most connections of one peer at once. The door has room for those of all: no workload keeps the others out.
pub const MOST_OF_PEER: usize = 256;
/// The same of a peer that is held to sessions.
pub const MOST_OF_SIDECAR: usize = 32;

/// Why a client was turned away, in words of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something else than TLS 1.2 or 1.3, or it broke off.
    #[error("no TLS came about")]
    NoTls,
    /// No certificate.
    #[error("it shows no certificate")]
    NoCertificate,
    /// It breaks off, for it does not believe who we are.
    #[error(
        "it does not believe the broker's certificate: on its side, look at the ID that it demands (broker_id) and at who \
         signs for the broker"
    )]
    NotBelieved,
    /// Signed by nobody whom we trust.
    #[error("no authority of client_ca that is in time has signed its certificate")]
    Untrusted,
    /// Past its time, or before it.
    #[error("its certificate is not valid at this time: look at both clocks, and at what renews it")]
    Untimely,
    /// A certificate that is good, and names no peer.
    #[error(transparent)]
    NotAPeer(#[from] NotAPeer),
    /// Not an Envoy's own call.
    #[error(
        "it comes by a cluster of the mesh's, by which every process of a pod can call in its sidecar's name: a sidecar \
         asks by an EnvoyFilter's cluster"
    )]
    OfTheMesh,
    /// One too many.
    #[error("it has as many connections as it may")]
    TooMany,
}

/// Accepts connections by mutual TLS.
pub struct Acceptor {
    files: Files,
    peers: Vec<Peer>,
    current: RwLock<Arc<Loaded>>,
    generation: watch::Sender<u64>,
    trouble: Mutex<Option<String>>,
    /// How many connections each peer has.
    open: Mutex<HashMap<String, usize>>,
    /// Why clients were turned away: when it was told, and how often it was not since.
    told: Mutex<HashMap<String, (Instant, u64)>>,
}

/// What the files said.
struct Loaded {
    tls: Arc<ServerConfig>,
    verifier: Arc<PeerVerifier>,
    /// When the broker's own certificate ends, in Unix milliseconds.
    not_after_ms: u64,
    stamps: Stamps,
}

/// How the door is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is wrong.
    Well,
    /// What was read before is in use: the files are no good now.
    Kept(String),
    /// The broker's own certificate is over, so that no peer believes it; or every authority of theirs.
    Over(String),
}

impl Acceptor {
    /// Reads the files: bad ones are an error now, and kept out later.
    pub fn open(config: &MutualTls) -> Result<Self, TlsError> {
        let files = Files::of(config);
        let loaded = load(&files, &config.peers)?;
        Ok(Self {
            files,
            peers: config.peers.clone(),
            current: RwLock::new(Arc::new(loaded)),
            generation: watch::Sender::new(0),
            trouble: Mutex::default(),
            open: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// Shakes hands. Takes as long as the other side likes: whoever calls bounds it.
    pub async fn accept<S>(self: &Arc<Self>, io: S) -> Result<(TlsStream<S>, Connected), Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Before the files: what changes meanwhile is a later one.
        let generation = *self.generation.borrow();
        let loaded = self.current();
        let stream = TlsAcceptor::from(loaded.tls.clone()).accept(io).await.map_err(|error| refused(&error))?;
        // Verified already: there is one, or the handshake had failed.
        let chain = stream.get_ref().1.peer_certificates().ok_or(Refused::NoCertificate)?;
        let chain: Vec<CertificateDer<'static>> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let peer = chain.first().ok_or(Refused::NoCertificate).and_then(|own| Ok(loaded.verifier.peer(own)?))?;
        if peer.sessions.is_some() && stream.get_ref().1.alpn_protocol() == Some(OF_THE_MESH) {
            return Err(Refused::OfTheMesh);
        }
        let place = connected::Place::take(self.clone(), &peer).ok_or(Refused::TooMany)?;
        Ok((stream, Connected::new(peer, chain, generation, place)))
    }

    /// How many connections all peers may have together.
    pub fn most(&self) -> usize {
        self.peers.iter().map(connected::most_of).sum()
    }

    /// Tells why a client was turned away: once a minute for each reason.
    pub fn turned_away(&self, why: &Refused) {
        if let Some(more) = self.is_news(why, Instant::now()) {
            tracing::info!(%why, more, "a client of the data plane was turned away");
        }
    }

    /// Whether it is told now, and how often it was not since the last time.
    fn is_news(&self, why: &Refused, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |at: Instant| now.duration_since(at) < TELL_AGAIN;
        let why = why.to_string();
        if let Some((_, more)) = told.get_mut(&why).filter(|(at, _)| is_fresh(*at)) {
            *more += 1;
            return None;
        }
        if told.len() >= MOST_TOLD && !told.contains_key(&why) {
            told.retain(|_, (at, _)| is_fresh(*at));
            if told.len() >= MOST_TOLD {
                return None;
            }
        }
        Some(told.insert(why, (now, 0)).map_or(0, |(_, more)| more))
    }

    /// Looks at the files, over and over.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut failed, mut over_at) = (None, 0);
        loop {
            tick.tick().await;
            let (stamps, current) = (self.files.stamps(), self.current());
            let (ends_ms, _) = current.verifier.ends_ms();
            let ended = ends_ms <= Now::read().wall_ms;
            if ended && over_at != ends_ms {
                // Whoever is connected by that authority is nobody any more, whatever the files say now.
                (over_at, failed) = (ends_ms, None);
                self.generation.send_modify(|generation| *generation += 1);
            }
            if stamps == current.stamps && !ended {
                // What was bad is gone again.
                if failed.take().is_some() {
                    *self.trouble() = None;
                }
                continue;
            }
            if failed.as_ref() != Some(&stamps) {
                failed = self.look().then_some(stamps);
            }
        }
    }

    /// Takes what the files say now; whether they are no good.
    fn look(&self) -> bool {
        match load(&self.files, &self.peers) {
            Ok(loaded) => {
                tracing::info!(until = rfc3339(loaded.not_after_ms), "the data plane's certificates were read anew");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                *self.trouble() = None;
                self.generation.send_modify(|generation| *generation += 1);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "the data plane's certificates were not read: those of before stay in use");
                *self.trouble() = Some(error.to_string());
                true
            }
        }
    }

    /// How it is.
    pub fn standing(&self) -> Standing {
        let current = self.current();
        let trouble = self.trouble().clone();
        let ends = [
            ("the broker's certificate", current.not_after_ms),
            ("the last authority of client_ca", current.verifier.ends_ms().1),
        ];
        if let Some((what, ended_ms)) = ends.into_iter().find(|(_, ends_ms)| *ends_ms <= Now::read().wall_ms) {
            let why = trouble.map(|why| format!(", and {why}")).unwrap_or_default();
            return Standing::Over(format!("{what} ended at {}{why}", rfc3339(ended_ms)));
        }
        trouble.map_or(Standing::Well, Standing::Kept)
    }

    fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(files: &Files, peers: &[Peer]) -> Result<Loaded, TlsError> {
    let files::Read { chain, key, authorities, not_after_ms, stamps } = files.read()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(PeerVerifier::new(authorities, provider.clone(), peers)?);
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| TlsError::NoPair)?;
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut tls = versions
        .map_err(|_| TlsError::NoPair)?
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    tls.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    // A session that is taken up again is not verified again.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(Loaded { tls: Arc::new(tls), verifier, not_after_ms, stamps })
}

/// Why a handshake failed. What the other side sent is not repeated.
fn refused(error: &std::io::Error) -> Refused {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => Refused::NoCertificate,
        Some(Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError
            | Alert::AccessDenied,
        )) => Refused::NotBelieved,
        Some(Error::InvalidCertificate(why)) => match why {
            Certificate::Other(other) => match other.0.downcast_ref::<NotAPeer>() {
                Some(why) => Refused::NotAPeer(why.clone()),
                None => Refused::Untrusted,
            },
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. } => Refused::Untimely,
            _ => Refused::Untrusted,
        },
        _ => Refused::NoTls,
    }
}

#[cfg(test)]
mod tests;
