//! Intents: where a credential's audit is strict, the log has each request before it goes out.
//!
//! Each one is a callout of its own: what one request announces never lets another go. The number of an
//! intent names its request among those of this worker; its record says it too, so that the log tells
//! which intents came to nothing.

use super::grant::member;
use super::records::{number, request_members};
use super::{Grant, Worker};
use crate::refusal::Reason;
use crate::request::{Asked, Snapshot};
use crate::time::Millis;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

/// Most intents in the air. Together with questions for grants, which must not keep them out, four
/// workers fill the connections that the broker takes, and no more.
const MOST_IN_AIR: usize = 64;

/// How often one request is announced: anew each time that its grant has changed meanwhile.
const MOST_TIMES: u8 = 4;

/// What the log holds of one request ahead of it. It lives with the request.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    number: Option<u64>,
    times: u8,
    /// The lease for which it is on disk.
    lease: Option<Rc<str>>,
}

impl Announced {
    /// Whether a request may go out with this grant.
    pub fn covers(&self, grant: &Grant) -> bool {
        !grant.is_strict || self.lease.as_ref().is_some_and(|lease| *lease == grant.lease_id)
    }

    /// The log holds it, for this lease.
    pub fn is_recorded(&mut self, lease: Rc<str>) {
        self.lease = Some(lease);
    }

    /// Its number, if it was announced at all.
    pub fn number(&self) -> Option<u64> {
        self.number
    }
}

/// A request that is about to go out.
pub struct Intended<'a> {
    /// Its context.
    pub context: u32,
    /// Its headers.
    pub snapshot: &'a Snapshot,
    /// What it asks for.
    pub asked: &'a Asked,
    /// The grant it would go out with.
    pub grant: &'a Grant,
    /// When it arrived: Unix milliseconds.
    pub at_ms: u64,
    /// Since when it is on its way.
    pub since: Millis,
}

/// Who is held until its intent is on disk.
#[derive(Default)]
pub(super) struct Intents {
    last: u64,
    held: HashMap<u32, Held>,
    by_time: BTreeSet<(Millis, u32)>,
    /// What is to be sent, oldest first; some may be gone.
    queue: VecDeque<u32>,
    /// What was sent and when, by nonce, whoever still waits for it.
    air: HashMap<String, (Millis, u32)>,
}

pub(super) struct Held {
    pub since: Millis,
    pub lease: Rc<str>,
    /// The intent, but for its beginning.
    pub members: String,
    nonce: Option<String>,
}

impl Worker {
    /// Holds a request until the log has its intent, if there is time for that.
    pub fn announce(&mut self, announced: &mut Announced, intended: &Intended<'_>, now: Millis) -> Result<(), Reason> {
        if announced.times >= MOST_TIMES || now.since(intended.since) >= self.settings.callout_timeout {
            return Err(self.why_unanswered(now));
        }
        announced.times += 1;
        let number = *announced.number.get_or_insert_with(|| {
            self.intents.last += 1;
            self.intents.last
        });
        let (lease, members) = (Rc::clone(&intended.grant.lease_id), members(intended, number));
        let held = Held { since: intended.since, lease, members, nonce: None };
        self.intents.hold(intended.context, held);
        Ok(())
    }
}

impl Intents {
    fn hold(&mut self, context: u32, held: Held) {
        self.by_time.insert((held.since, context));
        self.queue.push_back(context);
        self.held.insert(context, held);
    }

    /// The next one to send, while there is room in the air.
    pub fn next(&mut self) -> Option<(u32, &Held)> {
        if self.air.len() >= MOST_IN_AIR {
            return None;
        }
        let Self { queue, held, .. } = self;
        let unsent = |context: &u32| held.get(context).is_some_and(|held| held.nonce.is_none());
        let context = std::iter::from_fn(|| queue.pop_front()).find(unsent)?;
        Some((context, self.held.get(&context)?))
    }

    /// Whether there is something to send, and room for it.
    pub fn is_queued(&self) -> bool {
        self.air.len() < MOST_IN_AIR && !self.queue.is_empty()
    }

    /// It is sent, with this nonce.
    pub fn send(&mut self, context: u32, nonce: &str, now: Millis) {
        self.air.insert(nonce.to_owned(), (now, context));
        if let Some(held) = self.held.get_mut(&context) {
            held.nonce = Some(nonce.to_owned());
        }
    }

    /// What was sent with this nonce is answered. Who has been held for it no longer is.
    pub fn land(&mut self, context: u32, nonce: &str) -> Option<Held> {
        self.air.remove(nonce)?;
        self.held.get(&context).filter(|held| held.nonce.as_deref() == Some(nonce))?;
        self.leave(context)
    }

    /// A context that is gone waits no more.
    pub fn leave(&mut self, context: u32) -> Option<Held> {
        let held = self.held.remove(&context)?;
        self.by_time.remove(&(held.since, context));
        Some(held)
    }

    /// Takes out those who have been on their way since `deadline` or longer.
    pub fn take_late(&mut self, deadline: Millis) -> Vec<u32> {
        let mut late = Vec::new();
        while let Some((since, context)) = self.by_time.first().copied().filter(|(since, _)| *since <= deadline) {
            self.by_time.remove(&(since, context));
            self.held.remove(&context);
            late.push(context);
        }
        late
    }

    /// Gives up what was sent before `deadline`: the proxy has lost its answer.
    pub fn give_up(&mut self, deadline: Millis) {
        self.air.retain(|_, (sent, _)| *sent >= deadline);
    }
}

/// The members of [`crate::wire::Intent`] after nonce and worker.
fn members(intended: &Intended<'_>, intent: u64) -> String {
    let Intended { snapshot, asked, grant, at_ms, .. } = intended;
    let mut out = String::new();
    number(&mut out, ",\"intent\":", intent);
    number(&mut out, ",\"at_ms\":", *at_ms);
    request_members(&mut out, snapshot, Some(asked));
    out.push_str(&grant.record_members);
    out.push('}');
    out
}

/// The whole of it.
pub(super) fn body(nonce: &str, worker: &str, members: &str) -> Vec<u8> {
    let mut out = String::from("{\"nonce\":\"");
    out.push_str(nonce);
    out.push('"');
    member(&mut out, "worker", worker);
    out.push_str(members);
    out.into_bytes()
}
