//! Single flight: one callout for each question, however many requests ask it, and no more in the
//! air at once than a broker has room for. Whoever makes placeholders up makes questions up; what
//! that costs here is bounded by who waits, and none of it is gone through for each request.

use crate::door::Call;
use crate::time::Millis;
use crate::trace::TraceParent;
use crate::wire::EvidenceDigests;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;

/// Most callouts for grants in the air; further questions queue, first come, first served. With the
/// intents of strict credentials, four workers fill the connections that the broker takes, and no more.
const MOST_IN_AIR: usize = 192;

/// A question's cache key, shared by all lists it stands in.
type Key = Rc<[u8]>;

/// One question to the broker, and who waits for its answer.
pub(super) struct Flight {
    /// What is asked for.
    pub what: What,
    /// Who asks.
    pub evidence: EvidenceDigests,
    /// The trace of the request that asked first.
    pub trace: Option<TraceParent>,
    /// Set when it is under way and must be asked again.
    pub void: bool,
    /// The nonce and the send time of the callout that is under way.
    sent: Option<(String, Millis)>,
    /// Contexts that were held; some may have left.
    waiters: Vec<u32>,
    /// How many of them have not.
    waiting: usize,
    /// Whether it is asked ahead of need, whoever waits.
    ahead: bool,
}

/// A held request, and since when it is on its way.
pub(super) struct Waiter {
    pub context: u32,
    pub since: Millis,
}

/// A flight that has ended.
pub(super) struct Landed {
    /// What was asked.
    pub flight: Flight,
    /// When.
    pub sent: Millis,
    /// Who waited for it.
    pub contexts: Vec<u32>,
}

/// Held requests whose time is up.
#[derive(Default)]
pub(super) struct Late {
    /// Those whose question was sent.
    pub unanswered: Vec<u32>,
    /// Those whose question was not.
    pub unasked: Vec<u32>,
}

#[derive(Default)]
pub(super) struct Flights {
    by_key: HashMap<Key, Flight>,
    /// What is to be sent, oldest first; some may be gone. As what is in the air is given up in time,
    /// the queue moves on, and holds no more than comes in that time.
    queue: VecDeque<Key>,
    /// What was sent, with its nonce, oldest first; some may have landed.
    air: VecDeque<(Millis, Key, String)>,
    in_air: usize,
    /// For what each held request waits, and since when.
    waiting: HashMap<u32, (Millis, Key)>,
    /// The same by time; some may have left.
    by_time: BinaryHeap<Reverse<(Millis, u32)>>,
}

/// What a question asks for.
#[derive(Clone)]
pub(super) enum What {
    /// A grant at a destination, by its index in the policy.
    Grant(usize),
    /// A way through the door of a forward proxy.
    Tunnel(Call),
}

impl Flight {
    pub fn new(what: What, evidence: EvidenceDigests, trace: Option<TraceParent>) -> Self {
        let (sent, waiters) = (None, Vec::new());
        Self { what, evidence, trace, void: false, sent, waiters, waiting: 0, ahead: false }
    }
}

impl Flights {
    /// Joins the flight for this question, or begins one; without a waiter, ahead of need.
    pub fn join(&mut self, key: &[u8], waiter: Option<Waiter>, begin: impl FnOnce() -> Flight) {
        let known = self.by_key.get_key_value(key).map(|(key, _)| Rc::clone(key));
        let key = known.unwrap_or_else(|| self.begin(key.into(), begin()));
        let Some(flight) = self.by_key.get_mut(&key) else { return };
        match waiter {
            None => flight.ahead = true,
            Some(Waiter { context, since }) => {
                flight.waiters.push(context);
                flight.waiting += 1;
                self.by_time.push(Reverse((since, context)));
                self.waiting.insert(context, (since, key));
            }
        }
    }

    fn begin(&mut self, key: Key, flight: Flight) -> Key {
        self.queue.push_back(Rc::clone(&key));
        self.by_key.insert(Rc::clone(&key), flight);
        key
    }

    /// The next question to send, while there is room in the air.
    pub fn next(&mut self) -> Option<Key> {
        if self.in_air >= MOST_IN_AIR {
            return None;
        }
        let unsent = |flight: &Flight| flight.sent.is_none();
        std::iter::from_fn(|| self.queue.pop_front()).find(|key| self.by_key.get(key).is_some_and(unsent))
    }

    /// Whether there is something to send, and room for it.
    pub fn is_queued(&self) -> bool {
        self.in_air < MOST_IN_AIR && !self.queue.is_empty()
    }

    pub fn get(&self, key: &[u8]) -> Option<&Flight> {
        self.by_key.get(key)
    }

    /// A question is sent, with this nonce.
    pub fn send(&mut self, key: &Key, nonce: &str, now: Millis) {
        let Some(flight) = self.by_key.get_mut(key) else { return };
        flight.sent = Some((nonce.to_owned(), now));
        self.in_air += 1;
        self.air.push_back((now, Rc::clone(key), nonce.to_owned()));
    }

    /// Ends the flight that was sent with this nonce.
    pub fn land(&mut self, key: &[u8], nonce: &str) -> Option<Landed> {
        let (_, sent) = self.by_key.get(key)?.sent.as_ref().filter(|(own, _)| own == nonce)?;
        let sent = *sent;
        let mut flight = self.by_key.remove(key)?;
        self.in_air = self.in_air.saturating_sub(1);
        let contexts = std::mem::take(&mut flight.waiters);
        let contexts = contexts.into_iter().filter(|context| self.is_here(*context, key)).collect();
        Some(Landed { flight, sent, contexts })
    }

    /// Whether this context waits for this question; it does so no more.
    fn is_here(&mut self, context: u32, key: &[u8]) -> bool {
        let here = self.waiting.get(&context).is_some_and(|(_, own)| **own == *key);
        here && self.waiting.remove(&context).is_some()
    }

    /// Flights sent before `deadline` that nobody answered.
    pub fn overdue(&mut self, deadline: Millis) -> Vec<(Key, String)> {
        let mut overdue = Vec::new();
        while self.air.front().is_some_and(|(sent, ..)| *sent < deadline)
            && let Some((_, key, nonce)) = self.air.pop_front()
        {
            if self.by_key.get(&key).is_some_and(|flight| flight.was_sent_as(&nonce)) {
                overdue.push((key, nonce));
            }
        }
        overdue
    }

    /// Takes out those who have waited since `deadline` or longer, in whichever flights.
    pub fn take_late(&mut self, deadline: Millis) -> Late {
        let mut late = Late::default();
        while let Some(Reverse((since, context))) =
            self.by_time.peek().copied().filter(|Reverse((t, _))| *t <= deadline)
        {
            self.by_time.pop();
            if self.waiting.get(&context).is_none_or(|(own, _)| *own != since) {
                continue;
            }
            match self.leave(context) {
                true => late.unasked.push(context),
                false => late.unanswered.push(context),
            }
        }
        late
    }

    /// A context that is gone waits no more. Says whether its question was still to be sent; one that
    /// nobody else waits for no longer is.
    pub fn leave(&mut self, context: u32) -> bool {
        let Some((_, key)) = self.waiting.remove(&context) else { return false };
        let Some(flight) = self.by_key.get_mut(&key) else { return false };
        flight.waiting = flight.waiting.saturating_sub(1);
        let queued = flight.sent.is_none();
        if queued && flight.waiting == 0 && !flight.ahead {
            self.by_key.remove(&key);
        }
        queued
    }

    /// Ends every flight; returns who waited.
    pub fn take_all(&mut self) -> Vec<u32> {
        std::mem::take(self).waiting.into_keys().collect()
    }

    /// Whatever is under way must be asked again.
    pub fn void_all(&mut self) {
        self.by_key.values_mut().for_each(|flight| flight.void = flight.sent.is_some());
    }
}

impl Flight {
    fn was_sent_as(&self, nonce: &str) -> bool {
        self.sent.as_ref().is_some_and(|(own, _)| own == nonce)
    }
}
