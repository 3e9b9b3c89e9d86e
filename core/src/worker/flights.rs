//! Single flight: one callout for each question, however many requests ask it.

use crate::time::Millis;
use crate::wire::EvidenceDigests;
use std::collections::HashMap;

/// One question to the broker, and who waits for its answer.
pub(super) struct Flight {
    /// The destination's index in the policy.
    pub destination: usize,
    /// Who asks.
    pub evidence: EvidenceDigests,
    /// The evidence's word for records.
    pub evidence_word: String,
    /// Contexts that are held.
    pub waiters: Vec<Waiter>,
    /// The nonce and the send time of the callout that is under way.
    pub sent: Option<(String, Millis)>,
    /// Set when all that is under way must be asked again.
    pub void: bool,
}

/// A held request, and since when it is on its way.
pub(super) struct Waiter {
    pub context: u32,
    pub since: Millis,
}

impl Flight {
    /// Who waits for it.
    pub fn contexts(self) -> Vec<u32> {
        self.waiters.into_iter().map(|waiter| waiter.context).collect()
    }
}

#[derive(Default)]
pub(super) struct Flights {
    by_key: HashMap<Vec<u8>, Flight>,
}

impl Flights {
    /// Joins the flight for this question, or begins one.
    pub fn join(&mut self, key: &[u8], waiter: Option<Waiter>, begin: impl FnOnce() -> Flight) {
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.to_vec(), begin());
        }
        if let Some(flight) = self.by_key.get_mut(key) {
            flight.waiters.extend(waiter);
        }
    }

    /// Flights whose callout has not been sent.
    pub fn queued(&mut self) -> impl Iterator<Item = (&Vec<u8>, &mut Flight)> {
        self.by_key.iter_mut().filter(|(_, flight)| flight.sent.is_none())
    }

    pub fn is_queued(&self) -> bool {
        self.by_key.values().any(|flight| flight.sent.is_none())
    }

    /// Ends the flight that was sent with this nonce; says when it was sent.
    pub fn land(&mut self, key: &[u8], nonce: &str) -> Option<(Flight, Millis)> {
        let (_, sent) = self.by_key.get(key)?.sent.as_ref().filter(|(own, _)| own == nonce)?;
        let sent = *sent;
        self.by_key.remove(key).map(|flight| (flight, sent))
    }

    /// Flights sent before `deadline` that nobody answered.
    pub fn overdue(&self, deadline: Millis) -> Vec<(Vec<u8>, String)> {
        let sent = |(key, flight): (&Vec<u8>, &Flight)| Some((key.clone(), flight.sent.clone()?));
        let late = |(key, (nonce, sent)): (Vec<u8>, (String, Millis))| (sent < deadline).then_some((key, nonce));
        self.by_key.iter().filter_map(sent).filter_map(late).collect()
    }

    /// Takes out those who have waited since `deadline` or longer, in whichever flights.
    pub fn take_late(&mut self, deadline: Millis) -> Vec<u32> {
        let flights = self.by_key.values_mut();
        flights.flat_map(|flight| flight.waiters.extract_if(.., |w| w.since <= deadline)).map(|w| w.context).collect()
    }

    /// A context that is gone waits no more.
    pub fn leave(&mut self, waiter: u32) {
        for flight in self.by_key.values_mut() {
            flight.waiters.retain(|w| w.context != waiter);
        }
    }

    /// Ends every flight; returns who waited.
    pub fn take_all(&mut self) -> Vec<u32> {
        self.by_key.drain().flat_map(|(_, flight)| flight.contexts()).collect()
    }

    pub fn void_all(&mut self) {
        self.by_key.values_mut().for_each(|flight| flight.void = true);
    }
}
