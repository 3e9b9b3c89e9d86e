//! One worker: a VM's memory of the world. Cache, single flight, intents, freshness, change feed, backlog.
//!
//! It performs nothing. The shell asks what is [`Worker::due`], performs it, and hands back what
//! came of it ([`Worker::sent`], [`Worker::unsent`], [`Worker::answered`]); each of those may name
//! held requests to wake. What became of streams that are open it asks with [`Worker::take_cuts`]
//! and [`Worker::stale_since`].

mod backlog;
mod cache;
mod callouts;
mod cuts;
mod feed;
mod flights;
mod grant;
mod intents;
mod records;
mod tunnels;

pub use backlog::Records;
pub use cache::Entry;
pub use callouts::{Answer, Call, Dispatch, Wake, Wakeup};
pub use cuts::Cut;
pub use grant::{Facts, Grant};
pub use intents::{Announced, Intended};
pub use records::{Outcome, Report, verdict};
pub use tunnels::Tunnel;

use crate::evidence::Evidence;
use crate::masking::Maskers;
use crate::names::Name;
use crate::policy::Policy;
use crate::request::Snapshot;
use crate::time::Millis;
use crate::trace::TraceParent;
use backlog::Backlog;
use cache::Cache;
use feed::Feed;
use flights::{Flight, Flights, Waiter, What};
use intents::Intents;
use std::collections::HashMap;
use std::rc::Rc;

/// How often a worker looks around when nothing presses.
const IDLE_TICK: Millis = Millis(50);

/// What a worker is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance it serves; a policy of another one is refused.
    pub instance: Name,
    /// How long a worker may go without an answered poll before it believes nothing it cached.
    pub stale_after: Millis,
    /// How long a callout may take; the bound of every decision.
    pub callout_timeout: Millis,
}

/// Who asks for a grant, and where.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The request.
    pub snapshot: &'a Snapshot,
    /// The destination's index in the policy in force.
    pub destination: usize,
    /// What the request shows.
    pub evidence: &'a Evidence,
}

/// How the policy at hand stands to the one that the broker publishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// None has arrived.
    None,
    /// It is the one, as far as is known.
    InForce,
    /// The feed has named another one, which is not here yet.
    Outdated,
}

/// One worker's state.
pub struct Worker {
    settings: Settings,
    id: String,
    policy: Rc<Policy>,
    standing: Standing,
    /// The version that the feed named last.
    announced: Option<String>,
    policy_wanted: bool,
    policy_retry_at: Millis,
    waiting_for_policy: Vec<(u32, Millis)>,
    cache: Cache,
    flights: Flights,
    intents: Intents,
    feed: Feed,
    backlog: Backlog,
    uses_under_way: u64,
    /// What each callout that is under way asks for, and when it was sent.
    calls: HashMap<u32, (Call, Millis)>,
    /// How many of them Envoy has lost.
    lost: u64,
    /// Why the last policy is not taken.
    complaint: Option<String>,
    cuts: Vec<Cut>,
    maskers: Maskers,
    key: Vec<u8>,
}

impl Worker {
    /// A worker that knows nothing yet. `id` is unique among the instance's workers.
    pub fn new(settings: Settings, id: String) -> Self {
        Self {
            policy: Rc::new(Policy::empty(settings.instance.clone())),
            feed: Feed::new(settings.stale_after),
            settings,
            id,
            standing: Standing::None,
            announced: None,
            policy_wanted: true,
            policy_retry_at: Millis(0),
            waiting_for_policy: Vec::new(),
            cache: Cache::default(),
            flights: Flights::default(),
            intents: Intents::default(),
            backlog: Backlog::default(),
            uses_under_way: 0,
            calls: HashMap::new(),
            lost: 0,
            complaint: None,
            cuts: Vec::new(),
            maskers: Maskers::default(),
            key: Vec::new(),
        }
    }

    /// The policy in force; an empty one before the first arrives.
    pub fn policy(&self) -> Rc<Policy> {
        Rc::clone(&self.policy)
    }

    /// Whether a policy may be decided by: one has arrived, and the feed names no other.
    pub fn has_policy(&self) -> bool {
        self.standing == Standing::InForce
    }

    /// What is known of the asker at this destination, if it may be believed now. A hit that is
    /// due for renewal asks for the next grant ahead, without holding anybody.
    pub fn find(&mut self, question: Question<'_>, now: Millis) -> Option<Entry> {
        self.write_key(question);
        if !self.feed.is_fresh(now) {
            return None;
        }
        let entry = self.cache.find(&self.key, now)?.clone();
        if let Entry::Granted(grant) = &entry
            && grant.claims_renewal(now)
        {
            self.flights.join(&self.key, None, || question.begin());
        }
        Some(entry)
    }

    /// Holds a request, which is on its way since then, until its grant arrives.
    pub fn hold(&mut self, context: u32, question: Question<'_>, since: Millis) {
        self.write_key(question);
        self.flights.join(&self.key, Some(Waiter { context, since }), || question.begin());
    }

    /// Holds a request, which is on its way since then, until a policy arrives.
    pub fn hold_for_policy(&mut self, context: u32, since: Millis) {
        self.waiting_for_policy.push((context, since));
    }

    /// A request is gone: nobody wakes it any more.
    pub fn leave(&mut self, context: u32) {
        self.flights.leave(context);
        self.intents.leave(context);
        self.waiting_for_policy.retain(|(waiting, _)| *waiting != context);
    }

    /// Whether this grant may be used once more: uses under way and uses whose records nobody has
    /// acknowledged are bounded together.
    pub fn admits(&self, grant: &Grant) -> bool {
        let unaccounted = self.uses_under_way + self.backlog.unacked_uses();
        self.backlog.has_room() && unaccounted < u64::from(grant.max_unacked_uses)
    }

    /// Whether there is room for one more record.
    pub fn has_room(&self) -> bool {
        self.backlog.has_room()
    }

    /// What has become of the records of requests.
    pub fn records(&self) -> Records {
        self.backlog.counts()
    }

    /// A request goes out with a credential; [`Worker::end_use`] ends that.
    pub fn begin_use(&mut self) {
        self.uses_under_way += 1;
    }

    /// A request that went out is over.
    pub fn end_use(&mut self) {
        self.uses_under_way = self.uses_under_way.saturating_sub(1);
    }

    /// When to look around next: at once if somebody waits for a callout that is not sent yet.
    pub fn next_tick(&self) -> Millis {
        if self.flights.is_queued() || self.intents.is_queued() { Millis(1) } else { IDLE_TICK }
    }

    fn write_key(&mut self, question: Question<'_>) {
        self.key.clear();
        self.key.extend_from_slice(&(question.destination as u32).to_le_bytes());
        question.evidence.for_each_part(question.snapshot, |part| put_part(&mut self.key, part));
    }
}

impl Question<'_> {
    fn begin(self) -> Flight {
        let digests = self.evidence.digests(self.snapshot);
        Flight::new(What::Grant(self.destination), digests, TraceParent::of(self.snapshot))
    }
}

/// Appends one part of a key, its length before it: no two lists of parts read alike.
fn put_part(key: &mut Vec<u8>, part: &[u8]) {
    key.extend_from_slice(&(part.len() as u32).to_le_bytes());
    key.extend_from_slice(part);
}

#[cfg(test)]
mod tests;
