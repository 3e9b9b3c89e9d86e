//! Ways through the door of a forward proxy: asked for, remembered and voided like grants.

use super::cache::Entry;
use super::flights::{Flight, Waiter, What};
use super::{Wake, Wakeup, Worker};
use crate::door::{Call, Passage, Tunnel};
use crate::time::Millis;
use crate::wire::{EvidenceDigests, TunnelAnswer};
use std::rc::Rc;

/// What the keys of ways begin with, where those of grants have their destination's index.
const MARK: u32 = u32::MAX - 1;

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
        let begin = || Flight::new(What::Tunnel(call.clone()), evidence.clone());
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
                match Tunnel::accept(granted, call, &landed.flight.evidence, landed.sent) {
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
        let id = call.id();
        let listener = evidence.listener.as_ref().map(|name| name.as_str()).unwrap_or_default();
        let source = evidence.source.map(|address| address.to_string()).unwrap_or_default();
        let token = evidence.session_token.as_ref().map(|digest| digest.as_bytes().as_slice()).unwrap_or_default();
        let peer = evidence.peer.as_deref().unwrap_or_default();
        for part in [id.as_bytes(), token, peer.as_bytes(), source.as_bytes(), listener.as_bytes()] {
            self.key.extend_from_slice(&(part.len() as u32).to_le_bytes());
            self.key.extend_from_slice(part);
        }
    }
}
