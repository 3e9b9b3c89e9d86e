//! What was issued and may have been used without a record of it.
//!
//! A worker keeps the records of its uses until the log has them. One that dies takes them along, and
//! nobody knows how many: only that there were no more than it was allowed. That is what the log then
//! says, once for each lease that the worker may have used last. Where each use is announced, the log
//! knows which: it says so once for each intent. Issues and intents stand in the log, so the broker's own
//! death makes it forget none.

mod intents;

pub use intents::announced_in;

use crate::audit::{AuditLog, Decision, Files, Kind, Record};
use crate::changes::Feed;
use crate::clock::Now;
use crate::endings::LONGEST_STREAM;
use crate::fair::share;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use intents::Ended;
use serde::Deserialize;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A use that began while its lease lived is on record when it ends: no stream of ours lives longer.
pub const LONGEST_USE: Duration = LONGEST_STREAM;
/// No lease of a life before lives longer than `limits.grant_ttl` allows.
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// Leases and intents that are remembered, some 700 bytes each; of more, the oldest are told of at once: those of the
/// Envoys that have most.
const MOST: usize = 262_144;
/// How often it looks for workers that are gone.
const TICK: Duration = Duration::from_millis(500);
/// How often it looks at every lease though no worker is gone: at those that are over.
const ALL: Duration = Duration::from_secs(10);
/// How many records wait for the disk together.
const TOGETHER: usize = 256;
/// The `decision` of a `stop` before which every worker had delivered all its records.
pub const DELIVERED: &str = Decision::Delivered.as_str();

/// The leases of one instance that somebody may still tell of.
pub struct Outstanding {
    feed: Arc<Feed>,
    audit: Arc<AuditLog>,
    stale_after: Duration,
    open: Mutex<Open>,
}

/// What nobody has told of yet.
#[derive(Default)]
struct Open {
    issues: VecDeque<Issue>,
    ended: Ended,
    /// Whoever has one of them that nobody has told of. Workers are few, and leases many.
    workers: HashSet<WorkerId>,
    /// When all of them were looked at.
    looked: Option<Instant>,
}

/// What the log says of the lives before.
#[derive(Default)]
pub struct Past {
    open: Open,
    /// How many lives have begun since one ended whose workers had ended before it; `None`: none did.
    since_delivered: Option<u32>,
}

impl Past {
    /// Reads the log at `path`, in which this life has recorded its start.
    pub fn read(path: &Path, now: Now) -> std::io::Result<Self> {
        left_by_others(path, now)
    }

    /// Whether the workers of the life before this one have ended, too: nobody believes what it granted.
    pub fn has_no_workers(&self) -> bool {
        self.since_delivered == Some(1)
    }
}

impl Open {
    fn add(&mut self, issue: Issue) {
        self.workers.insert(issue.worker);
        self.issues.push_back(issue);
    }
}

/// A worker's id, 8 hex digits; `None`: something else, which is no worker that lives.
type WorkerId = Option<[u8; 8]>;

/// A lease; or an intent, which is the issue of one use.
struct Issue {
    facts: Arc<Facts>,
    /// To whom, beside the rest of what is known of it: it is looked for at every tick.
    worker: WorkerId,
    /// When it was issued; for one of a life before, when this one began.
    since: Instant,
    /// Until when a use of it may be without a record.
    until: Instant,
    /// Whether it was issued by this life of the broker.
    ours: bool,
    told: Arc<AtomicBool>,
}

impl Issue {
    fn new(facts: Facts, (since, until): (Instant, Instant), ours: bool) -> Self {
        let worker = facts.issued_to.as_ref().and_then(|worker| worker.as_bytes().try_into().ok());
        Self { facts: Arc::new(facts), worker, since, until, ours, told: Arc::default() }
    }

    fn untold(&self) -> Untold {
        (self.facts.clone(), self.told.clone())
    }

    fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}

/// What is told of next, and where it is noted that it was.
type Untold = (Arc<Facts>, Arc<AtomicBool>);

/// What the record of an issue or an intent says.
#[derive(Clone, Debug, Default, Deserialize)]
struct Facts {
    timestamp: String,
    kind: String,
    worker: String,
    decision: Option<String>,
    session_id: Option<String>,
    service: Option<String>,
    session: Option<Name>,
    destination: Option<String>,
    access_mode: Option<AccessMode>,
    credential: Option<Name>,
    lease_id: Option<String>,
    fingerprint: Option<String>,
    issued_to: Option<String>,
    asked_by: Option<String>,
    count: Option<u64>,
    intent: Option<u64>,
    request_id: Option<String>,
    method: Option<String>,
    authority: Option<String>,
    path: Option<String>,
}

impl Outstanding {
    /// Goes on with what lives before have left.
    pub fn new(past: Past, stale_after: Duration, feed: Arc<Feed>, audit: Arc<AuditLog>) -> Self {
        Self { feed, audit, stale_after, open: Mutex::new(past.open) }
    }

    /// A lease was issued, and may be used for `ttl`.
    pub fn issued(&self, issue: &Record, ttl: Duration) {
        if issue.count == Some(0) {
            // Intents tell of its uses.
            return;
        }
        let since = Instant::now();
        let until = since + ttl + LONGEST_USE;
        let issue = Issue::new(Facts::of(issue), (since, until), true);
        self.open().add(issue);
    }

    /// A lease did not leave the broker after all.
    pub fn withdrawn(&self, lease_id: &str) {
        let issues = &mut self.open().issues;
        // It is one of the last, however many there are.
        let at = issues.iter().rposition(|issue| issue.facts.lease_id.as_deref() == Some(lease_id));
        at.map(|at| issues.remove(at));
    }

    /// How many leases have left and may still be in use.
    pub fn leases(&self) -> usize {
        self.open().issues.len()
    }

    /// Looks for workers that are gone, over and over.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look().await;
        }
    }

    /// Tells of the workers that are gone.
    pub async fn look(&self) {
        let now = Instant::now();
        let gone = {
            let mut open = self.open();
            let Open { issues, workers, looked, .. } = &mut *open;
            let is_recent = looked.is_some_and(|at| now < at + ALL);
            if is_recent && issues.len() <= MOST && workers.iter().all(|worker| self.is_alive(*worker)) {
                return;
            }
            *looked = Some(now);
            workers.clear();
            issues.retain(|issue| issue.until > now);
            let mut excess = excess(issues, MOST);
            // Few workers, and many leases.
            let mut alive = HashMap::new();
            let mut gone = Vec::new();
            let mut is_gone = |worker| !*alive.entry(worker).or_insert_with(|| self.is_alive(worker));
            // Of most, nothing is looked at but what stands in the queue itself.
            for issue in issues.iter() {
                let too_many = takes(&mut excess, issue);
                if issue.is_told() {
                    continue;
                }
                workers.insert(issue.worker);
                let silent = issue.since + self.stale_after <= now;
                if too_many || silent && is_gone(issue.worker) {
                    gone.push(issue.untold());
                }
            }
            gone
        };
        self.tell(gone).await;
        let issues = &mut self.open().issues;
        let mut excess = excess(issues, MOST);
        if !excess.is_empty() {
            issues.retain(|issue| !(takes(&mut excess, issue) && issue.is_told()));
        }
    }

    /// The workers have ended, having delivered every record: nothing that this life issued is
    /// outstanding. What others left is told of.
    pub async fn delivered(&self) {
        self.open().issues.retain(|issue| !issue.ours);
        self.ended().await;
    }

    /// The workers have ended: tells of everything that is outstanding.
    pub async fn ended(&self) {
        let all = self.open().issues.iter().filter(|issue| !issue.is_told()).map(Issue::untold).collect();
        self.tell(all).await;
    }

    async fn tell(&self, gone: Vec<Untold>) {
        for some in gone.chunks(TOGETHER) {
            let records = some.iter().map(|(facts, _)| facts.record()).collect();
            let done = self.audit.append_all(records).await;
            // What the log did not take is told of at the next look.
            for ((_, told), done) in some.iter().zip(done) {
                told.fetch_or(done.is_ok(), Ordering::Relaxed);
            }
        }
    }

    fn is_alive(&self, worker: WorkerId) -> bool {
        let id = worker.as_ref().and_then(|worker| std::str::from_utf8(worker).ok());
        id.is_some_and(|worker| self.feed.is_alive(worker))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn of(issue: &Record) -> Self {
        Self {
            session_id: issue.session_id.clone(),
            service: issue.service.clone(),
            session: issue.session.clone(),
            destination: issue.destination.clone(),
            access_mode: issue.access_mode,
            credential: issue.credential.clone(),
            lease_id: issue.lease_id.clone(),
            fingerprint: issue.fingerprint.clone(),
            issued_to: issue.issued_to.clone(),
            asked_by: issue.asked_by.clone(),
            count: issue.count,
            intent: issue.intent,
            request_id: issue.request_id.clone(),
            method: issue.method.clone(),
            authority: issue.authority.clone(),
            path: issue.path.clone(),
            ..Self::default()
        }
    }

    /// Who the Envoy is, as far as that is known.
    fn from(&self) -> &str {
        self.asked_by.as_deref().unwrap_or_default()
    }

    /// Whether both are about the same lease and, where there is one, the same intent.
    fn is_of_same_use(&self, other: &Self) -> bool {
        (&self.lease_id, self.intent, &self.issued_to) == (&other.lease_id, other.intent, &other.issued_to)
    }

    fn record(&self) -> Record {
        let facts = self.clone();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (worker, lease) = (text(&facts.issued_to), text(&facts.lease_id));
        let (count, reason) = match facts.intent {
            Some(intent) => {
                let what = format!("what became of its intent {intent}, with lease {lease}, has no record");
                (Some(1), format!("worker {worker} is gone; {what}"))
            }
            None => {
                let count = facts.count.unwrap_or_default();
                let what = format!("at most {count} uses of lease {lease} have no record");
                (facts.count, format!("worker {worker} is gone; {what}"))
            }
        };
        Record {
            session_id: facts.session_id,
            service: facts.service,
            session: facts.session,
            destination: facts.destination,
            reason: Some(reason),
            access_mode: facts.access_mode,
            credential: facts.credential,
            lease_id: facts.lease_id,
            fingerprint: facts.fingerprint,
            issued_to: facts.issued_to,
            asked_by: facts.asked_by,
            intent: facts.intent,
            request_id: facts.request_id,
            method: facts.method,
            authority: facts.authority,
            path: facts.path,
            count,
            ..Record::new(Kind::Unaccounted, Now::read().wall_ms)
        }
    }
}

/// How many each Envoy has that there is no room for, where there are more than `most` in all.
fn excess(issues: &VecDeque<Issue>, most: usize) -> HashMap<String, usize> {
    if issues.len() <= most {
        return HashMap::new();
    }
    let mut counts = HashMap::<String, usize>::new();
    for issue in issues {
        match counts.get_mut(issue.facts.from()) {
            Some(count) => *count += 1,
            None => drop(counts.insert(issue.facts.from().to_owned(), 1)),
        }
    }
    let share = share(counts.values().copied(), most);
    counts.retain(|_, count| *count > share);
    counts.values_mut().for_each(|count| *count -= share);
    counts
}

/// Whether this is one too many of its Envoy's: the oldest are.
fn takes(excess: &mut HashMap<String, usize>, issue: &Issue) -> bool {
    let left = excess.get_mut(issue.facts.from()).filter(|left| **left > 0);
    left.map(|left| *left -= 1).is_some()
}

/// The issues and intents of lives before that may still be outstanding.
fn left_by_others(path: &Path, now: Now) -> std::io::Result<Past> {
    let most = LONGEST_TTL + LONGEST_USE;
    let mut left = Past::default();
    for opened in Files::of(path)? {
        let (_, file) = opened?;
        let changed = file.metadata()?.modified()?;
        if SystemTime::now().duration_since(changed).is_ok_and(|age| age > most) {
            continue;
        }
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            // Damage is told of where the log is opened; what is left of the line is no record.
            let text = std::str::from_utf8(&line).unwrap_or_default();
            // Quotes in values are escaped, so only kinds look like this.
            let of_kind = |kind: &&str| text.contains(&format!("\"kind\":\"{kind}\""));
            if ["issue", "unaccounted", "start", "stop"].iter().any(of_kind) || text.contains("\"intent\":") {
                follow(text, now, most, &mut left);
            }
            line.clear();
        }
    }
    Ok(left)
}

fn follow(line: &str, now: Now, most: Duration, left: &mut Past) {
    let Ok(facts) = serde_json::from_str::<Facts>(line) else { return };
    let Past { open, since_delivered } = left;
    let Open { issues, ended, .. } = &mut *open;
    match facts.kind.as_str() {
        "start" => *since_delivered = since_delivered.map(|lives| lives.saturating_add(1)),
        "stop" if facts.decision.as_deref() == Some(DELIVERED) => {
            issues.clear();
            *since_delivered = Some(0);
        }
        "unaccounted" => issues.retain(|issue| !issue.facts.is_of_same_use(&facts)),
        "use" | "deny" => {
            ended.end(issues, (&facts.worker, facts.from()), &facts.intent.into_iter().collect::<HashSet<_>>())
        }
        "issue" if facts.count == Some(0) => {}
        "intent" if ended.take(&facts) => {}
        "issue" | "intent" => {
            let at = facts.timestamp.parse().map_or(0, |at: jiff::Timestamp| at.as_millisecond());
            let age = Duration::from_millis(now.wall_ms.saturating_sub(u64::try_from(at).unwrap_or(0)));
            if let Some(rest) = most.checked_sub(age).filter(|rest| !rest.is_zero()) {
                let until = now.mono + rest;
                open.add(Issue::new(facts, (now.mono, until), false));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
