//! The change feed: what filters must forget, and who has been told.
//!
//! A filter acknowledges a change by polling with its cursor. One that has not polled for
//! `stale_after` injects nothing any more, whatever it still has cached: counted from the arrival
//! of its last poll, that is when a change is in force there even without an acknowledgement.

mod history;

pub use history::{Follower, Told};

use crate::clock::millis;
use crate::meters::Seconds;
use crate::random::{self, NoRandomness};
use attache_core::names::Name;
use attache_core::wire::{self, Left};
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How many changes are kept for workers that are behind; one further behind forgets everything.
const KEPT: usize = 1024;

/// Most workers at once. One more is turned away, and so never becomes fresh.
const MOST_WORKERS: usize = 4096;

/// The feed of one life of the broker.
pub struct Feed {
    epoch: String,
    stale_after: Duration,
    /// Until then workers that only the life before has heard of may believe what it granted them.
    strangers: Option<Instant>,
    state: Mutex<State>,
    published: watch::Sender<Published>,
    acknowledged: watch::Sender<()>,
    /// Up to which change all are written down.
    written: watch::Sender<u64>,
    applied_in: Seconds,
    lost: Counter,
}

struct State {
    policy: String,
    /// What was told before anybody could hear it, however much that is: the rest is told after it.
    first: Vec<wire::Change>,
    kept: VecDeque<wire::Change>,
    /// The last change that is kept no longer.
    forgotten: u64,
    /// When each of those was published.
    published: VecDeque<(u64, Instant)>,
    workers: HashMap<String, Worker>,
    unwritten: VecDeque<Told>,
}

#[derive(Clone, Copy)]
struct Worker {
    acked: u64,
    first_poll: Instant,
    last_poll: Instant,
}

#[derive(Clone, Copy, Default)]
struct Published {
    cursor: u64,
    closed: bool,
}

/// Whose grants a change voids, and what becomes of streams that are open on them.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Those of one session, which has got more rights. Streams go on.
    Widened(&'a str),
    /// Those of one session, which has another secret of its own. Streams go on.
    Renewed(&'a str),
    /// Those of one session, which may only read from now on. Streams that write end.
    Narrowed(&'a str),
    /// Those of one session, which is over. Its streams end.
    Ended(&'a str),
    /// Those of one session that nothing but a connection named: another session is bound to the same.
    /// Such streams end.
    Rivalled(&'a str),
    /// Those that draw on one credential, whose secret is another. Streams go on.
    Credential(&'a Name),
    /// Those for one credential at one destination, where nobody may do more than read. Streams that
    /// write end.
    Capped(&'a Name, &'a str),
}

impl Scope<'_> {
    /// The change, as it is told under this cursor.
    fn change(self, cursor: u64) -> wire::Change {
        let none = wire::Change { cursor, ..wire::Change::default() };
        let of = |id: &str, left| wire::Change { session_id: Some(id.to_owned()), left, ..none.clone() };
        match self {
            Scope::Widened(id) | Scope::Renewed(id) => of(id, None),
            Scope::Narrowed(id) => of(id, Some(Left::Reads)),
            Scope::Ended(id) => of(id, Some(Left::Nothing)),
            Scope::Rivalled(id) => of(id, Some(Left::Named)),
            Scope::Credential(name) => wire::Change { credential: Some(name.clone()), ..none },
            Scope::Capped(name, destination) => {
                let destination = Some(destination.to_owned());
                wire::Change { credential: Some(name.clone()), destination, left: Some(Left::Reads), ..none }
            }
        }
    }
}

/// One poll.
#[derive(Clone, Copy, Debug)]
pub struct Poll<'a> {
    /// Who polls.
    pub worker: &'a str,
    /// The epoch it knows.
    pub epoch: &'a str,
    /// The last change it has applied.
    pub after: u64,
    /// How long it would wait.
    pub wait: Duration,
}

/// Where a change is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Applied {
    /// How many live workers have acknowledged it.
    pub applied: usize,
    /// How many workers were alive when it was published.
    pub total: usize,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
    /// The workers that have not acknowledged it. After a full wait they are stale and inject nothing.
    pub waiting: Vec<String>,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "applied on {}/{} workers in {} ms", self.applied, self.total, self.took_ms)?;
        if self.waiting.is_empty() { Ok(()) } else { write!(f, "\nnot heard from: {}", self.waiting.join(", ")) }
    }
}

/// How far a change has got by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spread {
    /// How many live workers have acknowledged it.
    pub applied: usize,
    /// How many workers are alive.
    pub total: usize,
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.applied, self.total)
    }
}

/// A feed with `MOST_WORKERS` workers takes no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many workers poll this instance")]
pub struct TooManyWorkers;

impl Feed {
    /// A feed that tells of `policy` and believes that a silent worker is dead after `stale_after`.
    pub fn new(policy: String, stale_after: Duration) -> Result<Self, NoRandomness> {
        Ok(Self {
            epoch: random::id()?,
            stale_after,
            strangers: None,
            state: Mutex::new(State {
                policy,
                first: Vec::new(),
                kept: VecDeque::new(),
                forgotten: 0,
                published: VecDeque::new(),
                workers: HashMap::new(),
                unwritten: VecDeque::new(),
            }),
            published: watch::Sender::default(),
            acknowledged: watch::Sender::default(),
            written: watch::Sender::default(),
            applied_in: Seconds::default(),
            lost: Counter::default(),
        })
    }

    /// A feed whose broker has lived before. It does not know who followed it then: a change is in
    /// force everywhere only when all of them have found this feed, or have become stale.
    pub fn of_another_life(self) -> Self {
        Self { strangers: Some(Instant::now() + self.stale_after), ..self }
    }

    /// The newest change. Read it *before* the state that a grant is made from.
    pub fn cursor(&self) -> u64 {
        self.published.borrow().cursor
    }

    /// Publishes a change, *after* the state has changed. Answers with its cursor.
    pub fn publish(&self, scope: Scope<'_>) -> u64 {
        self.push(&mut self.state(), |cursor| scope.change(cursor))
    }

    /// Publishes what the life before may have told nobody, before there is anybody to hear it. It is
    /// kept for as long as this life lasts: a worker that comes late must not end more than that.
    pub fn publish_first(&self, scope: Scope<'_>) -> u64 {
        let mut state = self.state();
        let cursor = self.cursor() + 1;
        let change = scope.change(cursor);
        state.tell(change.clone());
        state.first.push(change);
        self.published.send_modify(|published| published.cursor = cursor);
        cursor
    }

    /// Tells of another policy, under which nothing that was granted before holds. Streams go on: they
    /// were decided when they began, and no session has less than before.
    pub fn publish_policy(&self, version: &str) -> u64 {
        let mut state = self.state();
        version.clone_into(&mut state.policy);
        self.push(&mut state, |cursor| wire::Change { cursor, ..wire::Change::default() })
    }

    fn push(&self, state: &mut State, change: impl FnOnce(u64) -> wire::Change) -> u64 {
        let cursor = self.cursor() + 1;
        let change = change(cursor);
        state.tell(change.clone());
        state.kept.push_back(change);
        state.published.push_back((cursor, Instant::now()));
        if state.kept.len() > KEPT {
            state.forgotten = state.kept.pop_front().map_or(0, |oldest| oldest.cursor);
            state.published.pop_front();
        }
        self.published.send_modify(|published| published.cursor = cursor);
        cursor
    }

    /// Answers a poll: at once when there is something to say, else when there is or the wait is over.
    pub async fn poll(&self, poll: Poll<'_>) -> Result<wire::Changes, TooManyWorkers> {
        let mut published = self.published.subscribe();
        // A cursor that we never gave out is as foreign as another epoch.
        let knows_us = poll.epoch == self.epoch && poll.after <= self.cursor();
        self.hear(poll.worker, if knows_us { poll.after } else { 0 })?;
        if knows_us {
            // A third: a poll may be lost, and the next, before anybody becomes stale.
            let hold = poll.wait.min(self.stale_after / 3);
            let news = published.wait_for(|now| now.closed || now.cursor > poll.after);
            // Nothing new in that time is an answer, too.
            let _ = tokio::time::timeout(hold, news).await;
        }
        let state = self.state();
        let cursor = self.cursor();
        let mut changes = state.since(if knows_us { poll.after } else { 0 }, cursor);
        if !knows_us {
            // It forgets all grants by itself. Its streams may be older than this life.
            changes.retain(|change| change.left.is_some());
        }
        Ok(wire::Changes { epoch: self.epoch.clone(), cursor, policy: state.policy.clone(), changes })
    }

    /// Waits until all workers that are alive now have acknowledged `cursor` or are stale, but no
    /// longer than `most`.
    pub async fn applied(&self, cursor: u64, most: Duration) -> Applied {
        let began = Instant::now();
        let mut acknowledged = self.acknowledged.subscribe();
        let strangers = self.strangers.map(|until| until.min(began + most));
        let mut alive = self.alive(began + most);
        loop {
            acknowledged.mark_unchanged();
            let now = Instant::now();
            if strangers.is_some_and(|until| until > now) {
                // They are counted as they come: what this life has told them is in force there.
                alive = self.alive(began + most);
            }
            let waiting = self.waiting(&alive, cursor);
            let deadlines = waiting.iter().map(|(_, deadline)| *deadline).chain(strangers);
            let Some(deadline) = deadlines.filter(|at| *at > now).min() else {
                let waiting: Vec<_> = waiting.into_iter().map(|(id, _)| id).collect();
                let applied = alive.len() - waiting.len();
                return Applied { applied, total: alive.len(), took_ms: millis(began.elapsed()), waiting };
            };
            // Whichever comes first: somebody acknowledges, or somebody becomes stale.
            let _ = tokio::time::timeout_at(deadline.into(), acknowledged.changed()).await;
        }
    }

    /// How far `cursor` has got by now. Waits for nobody.
    pub fn spread(&self, cursor: u64) -> Spread {
        let mut state = self.state();
        self.bury(&mut state);
        let applied = state.workers.values().filter(|worker| worker.acked >= cursor).count();
        Spread { applied, total: state.workers.len() }
    }

    /// Says in the log when `cursor` is in force everywhere, or where it is not: for a change that no
    /// command waits for.
    pub fn follow(self: &Arc<Self>, cursor: u64, what: String) {
        let feed = self.clone();
        tokio::spawn(async move {
            let Applied { applied, total, took_ms, waiting } = feed.applied(cursor, feed.stale_after).await;
            if waiting.is_empty() {
                tracing::info!(applied, total, took_ms, "{what}");
            } else {
                tracing::warn!(applied, total, took_ms, ?waiting, "{what}");
            }
        });
    }

    /// Answers all polls, now and from now on, at once: the broker ends.
    pub fn close(&self) {
        self.published.send_modify(|published| published.closed = true);
    }

    /// Whether a worker has polled within the staleness limit.
    pub fn is_alive(&self, worker: &str) -> bool {
        self.state().workers.get(worker).is_some_and(|worker| worker.last_poll.elapsed() <= self.stale_after)
    }

    /// How long a change takes until a worker has acknowledged it.
    pub fn applied_in(&self) -> &Seconds {
        &self.applied_in
    }

    /// Workers that have not polled for too long: they inject nothing, or are gone.
    pub fn lost(&self) -> &Counter {
        &self.lost
    }

    /// How many workers are alive.
    pub fn workers(&self) -> usize {
        let mut state = self.state();
        self.bury(&mut state);
        state.workers.len()
    }

    fn hear(&self, worker: &str, acked: u64) -> Result<(), TooManyWorkers> {
        let mut state = self.state();
        self.bury(&mut state);
        if state.workers.len() >= MOST_WORKERS && !state.workers.contains_key(worker) {
            return Err(TooManyWorkers);
        }
        let last_poll = Instant::now();
        let entry =
            state.workers.entry(worker.to_owned()).or_insert(Worker { acked, first_poll: last_poll, last_poll });
        let before = entry.acked;
        *entry = Worker { acked: before.max(acked), last_poll, ..*entry };
        for (_, at) in state.published.iter().filter(|(cursor, _)| (before + 1..=acked).contains(cursor)) {
            self.applied_in.observe(last_poll.saturating_duration_since(*at));
        }
        self.acknowledged.send_replace(());
        Ok(())
    }

    /// The workers that are alive, and until when each may be waited for.
    fn alive(&self, most: Instant) -> Vec<(String, Instant)> {
        let mut state = self.state();
        self.bury(&mut state);
        let deadline = |worker: &Worker| (worker.last_poll + self.stale_after).min(most);
        state.workers.iter().map(|(id, worker)| (id.clone(), deadline(worker))).collect()
    }

    fn waiting(&self, alive: &[(String, Instant)], cursor: u64) -> Vec<(String, Instant)> {
        let state = self.state();
        let has_not = |id: &str| state.workers.get(id).is_none_or(|worker| worker.acked < cursor);
        alive.iter().filter(|(id, _)| has_not(id)).cloned().collect()
    }

    fn bury(&self, state: &mut State) {
        let before = state.workers.len();
        state.workers.retain(|_, worker| worker.last_poll.elapsed() <= self.stale_after);
        self.lost.inc_by((before - state.workers.len()) as u64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The changes after `after`; one that voids and ends everything, when some of them are no longer kept.
    fn since(&self, after: u64, cursor: u64) -> Vec<wire::Change> {
        if after < self.forgotten {
            return vec![wire::Change { cursor, left: Some(Left::Nothing), ..wire::Change::default() }];
        }
        let all = self.first.iter().chain(&self.kept);
        let mut changes: Vec<_> = all.filter(|change| change.cursor > after).cloned().collect();
        changes.sort_by_key(|change| change.cursor);
        changes
    }
}

#[cfg(test)]
mod tests;
