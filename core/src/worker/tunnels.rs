//! Ways through the door of a forward proxy: asked for, remembered and voided like grants.

use super::cache::Entry;
use super::feed::AsOf;
use super::flights::{Flight, Waiter, What};
use super::{Wake, Wakeup, Worker, put_part};
use crate::door::{Call, Inside, LONGEST_TTL_MS, Passage};
use crate::names::Name;
use crate::time::Millis;
use crate::wire::{Change, EvidenceDigests, TunnelAnswer, TunnelGranted};
use core::net::{IpAddr, SocketAddr};
use std::rc::Rc;

/// What the keys of ways begin with, where those of grants have their destination's index.
const MARK: u32 = u32::MAX - 1;

/// A way to a host, as one worker keeps it.
#[derive(Debug)]
pub struct Tunnel {
    /// The session's id.
    pub session_id: String,
    /// The session's name.
    pub session: Name,
    /// The one address that may be dialled.
    pub address: SocketAddr,
    /// `host:port`.
    pub id: String,
    /// The host alone.
    pub host: String,
    /// How its traffic travels.
    pub passage: Passage,
    /// From then on it is not entered any more.
    pub expires: Millis,
    /// What listeners behind the door are told ([`Inside`]).
    pub inside: String,
    /// The evidence that was shown, as records say it.
    pub evidence: String,
    /// Whether a token named the session, rather than the connection alone.
    pub is_named: bool,
    as_of: AsOf,
}

impl Tunnel {
    /// Takes an answer to a question that was sent then. `None`: it cannot be used.
    pub fn accept(
        granted: TunnelGranted,
        call: &Call,
        evidence: &EvidenceDigests,
        sent: Millis,
        life: u32,
    ) -> Option<Self> {
        if !(1..=LONGEST_TTL_MS).contains(&granted.ttl_ms) || granted.address.port() == 0 {
            return None;
        }
        let id = call.id();
        let inside = Inside {
            session_token: evidence.session_token,
            id: id.clone(),
            source: evidence.source,
            peer: evidence.peer.clone(),
            listener: evidence.listener.clone(),
        };
        Some(Self {
            inside: inside.to_string(),
            host: call.host.to_string(),
            expires: sent + Millis(granted.ttl_ms),
            session_id: granted.session_id,
            session: granted.session,
            address: granted.address,
            passage: call.passage,
            evidence: evidence.word(),
            is_named: evidence.is_named(),
            as_of: AsOf { life, cursor: granted.as_of },
            id,
        })
    }

    /// Whether a change makes it void: it concerns this session, and the broker did not know of it yet.
    pub fn is_voided_by(&self, change: &Change) -> bool {
        self.may_miss(change, self.as_of.life)
    }

    /// The same of a change that was told in this life of the broker.
    pub fn may_miss(&self, change: &Change, life: u32) -> bool {
        self.as_of.may_miss(life, change.cursor) && change.concerns_session(&self.session_id)
    }
}

impl Worker {
    /// What is known of the asker's way there, if it may be believed now.
    pub fn find_tunnel(&mut self, call: &Call, evidence: &EvidenceDigests, now: Millis) -> Option<Entry> {
        self.write_tunnel_key(call, evidence);
        if !self.feed.is_fresh(now) {
            return None;
        }
        self.cache.find(&self.key, now).cloned()
    }

    /// Holds a request, which is on its way since then, until the answer arrives.
    pub fn hold_for_tunnel(&mut self, context: u32, call: &Call, evidence: &EvidenceDigests, since: Millis) {
        self.write_tunnel_key(call, evidence);
        let begin = || Flight::new(What::Tunnel(call.clone()), evidence.clone(), None);
        self.flights.join(&self.key, Some(Waiter { context, since }), begin);
    }

    pub(super) fn settle_tunnel(
        &mut self,
        key: &[u8],
        nonce: &str,
        answer: Option<TunnelAnswer>,
        now: Millis,
    ) -> Vec<Wakeup> {
        let Some(landed) = self.flights.land(key, nonce) else { return Vec::new() };
        let What::Tunnel(call) = &landed.flight.what else { return Vec::new() };
        let wake = |wake| super::callouts::wake(landed.contexts.clone(), wake);
        if landed.flight.void || !self.has_policy() {
            return wake(Wake::Again);
        }
        let answer = answer.filter(|answer| self.is_in_time(landed.sent, now) && answer.nonce == nonce);
        match answer.map(|answer| (answer.granted, answer.denied)) {
            Some((Some(granted), None)) => {
                let as_of = granted.as_of;
                let is_void = |tunnel: &Tunnel| self.feed.voids(as_of, |change| tunnel.is_voided_by(change));
                match Tunnel::accept(granted, call, &landed.flight.evidence, landed.sent, self.feed.life()) {
                    Some(tunnel) if is_void(&tunnel) || tunnel.expires <= now => wake(Wake::Again),
                    Some(tunnel) => {
                        let tunnel = Rc::new(tunnel);
                        self.cache.insert(key.to_vec(), Entry::Tunnel(Rc::clone(&tunnel)), now);
                        wake(Wake::Tunnel(tunnel))
                    }
                    None => wake(Wake::Refused(self.why_unanswered(now))),
                }
            }
            Some((None, Some(denied))) => {
                self.cache.refuse(key.to_vec(), denied.reason, now);
                wake(Wake::Refused(denied.reason))
            }
            _ => wake(Wake::Refused(self.why_unanswered(now))),
        }
    }

    fn write_tunnel_key(&mut self, call: &Call, evidence: &EvidenceDigests) {
        self.key.clear();
        self.key.extend_from_slice(&MARK.to_le_bytes());
        self.key.push(match call.passage {
            Passage::Intercepted => 0,
            Passage::Opaque => 1,
            Passage::Plain => 2,
        });
        put_part(&mut self.key, call.id().as_bytes());
        let token = evidence.session_token.as_ref().map(|digest| digest.as_bytes().as_slice());
        put_part(&mut self.key, token.unwrap_or_default());
        put_part(&mut self.key, evidence.peer.as_deref().unwrap_or_default().as_bytes());
        match evidence.source {
            None => put_part(&mut self.key, b""),
            Some(IpAddr::V4(address)) => put_part(&mut self.key, &address.octets()),
            Some(IpAddr::V6(address)) => put_part(&mut self.key, &address.octets()),
        }
        put_part(&mut self.key, evidence.listener.as_ref().map(Name::as_str).unwrap_or_default().as_bytes());
    }
}
