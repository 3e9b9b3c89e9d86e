//! Ways through the door of a forward proxy: the broker's answer to (evidence, host).
//!
//! A way carries no secret. It says whose traffic comes in by it, and to which one address it goes. Who
//! asks is looked at before any name is resolved, and once more after: strangers resolve nothing, and
//! who has lost a session meanwhile gets no way.

use crate::changes::Feed;
use crate::clock::{Now, millis};
use crate::egress::Egress;
use crate::meters::GrantMeters;
use crate::sessions::{Sessions, Sight};
use attache_core::door::{self, Passage};
use attache_core::matching::host::Host;
use attache_core::policy::Policy;
use attache_core::refusal::Reason;
use attache_core::wire::{Denied, EvidenceDigests, TunnelAnswer, TunnelGranted, TunnelRequest};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest that a way may be entered.
const LONGEST: Duration = Duration::from_millis(door::LONGEST_TTL_MS);
/// The shortest, however short a name's TTL: a page of requests is one question.
const SHORTEST: Duration = Duration::from_secs(1);

/// Everything a way is made from.
pub struct Tunnels {
    /// Which hosts are let through, and how: what the filter decides by, too.
    pub policy: Policy,
    /// Where they lead.
    pub egress: Egress,
    /// Who may ask.
    pub sessions: Arc<Sessions>,
    /// What has changed.
    pub feed: Arc<Feed>,
    /// What is counted here.
    pub meters: GrantMeters,
}

impl Tunnels {
    /// Answers a request for a way. Who serves some sessions alone is no proxy, and is not let in so far.
    pub async fn answer(&self, request: TunnelRequest) -> TunnelAnswer {
        let TunnelRequest { nonce, worker, host, port, plaintext, evidence } = request;
        let began = Instant::now();
        let settled = match canonical(&host) {
            Some(host) => self.settled(&host, port, plaintext, &evidence).await,
            None => Err(Reason::AuthorityMalformed),
        };
        self.meters.answered(settled.as_ref().err().copied(), began.elapsed());
        match settled {
            Ok(granted) => TunnelAnswer { nonce, granted: Some(granted), denied: None },
            Err(reason) => {
                tracing::info!(%worker, ?host, port, reason = reason.as_str(), "no way");
                TunnelAnswer { nonce, granted: None, denied: Some(Denied { reason }) }
            }
        }
    }

    async fn settled(
        &self,
        host: &Host,
        port: u16,
        plaintext: bool,
        evidence: &EvidenceDigests,
    ) -> Result<TunnelGranted, Reason> {
        self.check(evidence).await?;
        Passage::of(&self.policy, host, port, !plaintext)?;
        let way = self.egress.way(host, port).await?;
        // From here on there is no await: what changes meanwhile has a later cursor.
        let as_of = self.feed.cursor();
        let now = Now::read();
        let session = self.sessions.identify(evidence, None, &Sight::All, now)?.session;
        // Counted by the worker from when it asked: what the name has taken is lost, and nothing is gained.
        let ttl_ms = millis(way.ttl.clamp(SHORTEST, LONGEST).min(session.remaining(now)));
        if ttl_ms == 0 {
            return Err(Reason::SessionExpired);
        }
        Ok(TunnelGranted {
            as_of,
            session_id: session.id.clone(),
            session: session.name.clone(),
            address: way.address,
            ttl_ms,
        })
    }

    /// Whether this is a session's evidence.
    async fn check(&self, evidence: &EvidenceDigests) -> Result<(), Reason> {
        // These belong to requests behind the door, which say so for themselves.
        if evidence.placeholder.is_some() || evidence.jwt.is_some() {
            return Err(Reason::PlaceholderMisplaced);
        }
        match self.sessions.identify(evidence, None, &Sight::All, Now::read()) {
            Ok(_) => Ok(()),
            Err(Reason::PlaceholderUnknown) => Err(self.sessions.unknown(evidence, &Sight::All).await),
            Err(reason) => Err(reason),
        }
    }
}

/// A host in its one spelling: what a resolver could read otherwise is none.
fn canonical(text: &str) -> Option<Host> {
    Host::parse(text.as_bytes()).ok().filter(|host| host.to_string() == text)
}
