//! What was issued and may have been used without a record of it.
//!
//! A worker keeps the records of its uses until the log has them. One that dies takes them along, and
//! nobody knows how many: only that there were no more than it was allowed. That is what the log then
//! says, once for each lease that the worker may have used last. Issues stand in the log, so the
//! broker's own death makes it forget none.

use crate::audit::{AuditLog, Files, Kind, Record};
use crate::changes::Feed;
use crate::clock::Now;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use serde::Deserialize;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A use that began while its lease lived is on record when it ends: no stream of ours lives longer.
pub const LONGEST_USE: Duration = Duration::from_secs(3600);
/// No lease of a life before lives longer than `limits.grant_ttl` allows.
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// Leases that are remembered; of more, the oldest are told of at once.
const MOST: usize = 65_536;
/// How often it looks for workers that are gone.
const TICK: Duration = Duration::from_millis(500);
/// How many records wait for the disk together.
const TOGETHER: usize = 256;
/// The `decision` of a `stop` before which every worker had delivered all its records.
pub const DELIVERED: &str = "delivered";

/// The leases of one instance that somebody may still tell of.
pub struct Outstanding {
    feed: Arc<Feed>,
    audit: Arc<AuditLog>,
    stale_after: Duration,
    issues: Mutex<VecDeque<Issue>>,
}

struct Issue {
    facts: Arc<Facts>,
    /// When it was issued; for one of a life before, when this one began.
    since: Instant,
    /// Until when a use of it may be without a record.
    until: Instant,
    /// Whether it was issued by this life of the broker.
    ours: bool,
    told: bool,
}

/// What an issue's record says.
#[derive(Clone, Debug, Default, Deserialize)]
struct Facts {
    timestamp: String,
    kind: String,
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
    count: Option<u64>,
}

impl Outstanding {
    /// Reads from the log at `path` what lives before have issued.
    pub fn rebuild(
        path: &Path,
        now: Now,
        stale_after: Duration,
        feed: Arc<Feed>,
        audit: Arc<AuditLog>,
    ) -> std::io::Result<Self> {
        let issues = Mutex::new(left_by_others(path, now)?);
        Ok(Self { feed, audit, stale_after, issues })
    }

    /// A lease was issued, and may be used for `ttl`.
    pub fn issued(&self, issue: &Record, ttl: Duration) {
        let since = Instant::now();
        let until = since + ttl + LONGEST_USE;
        let facts = Arc::new(Facts::of(issue));
        self.issues().push_back(Issue { facts, since, until, ours: true, told: false });
    }

    /// A lease did not leave the broker after all.
    pub fn withdrawn(&self, lease_id: &str) {
        self.issues().retain(|issue| issue.facts.lease_id.as_deref() != Some(lease_id));
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
            let mut issues = self.issues();
            issues.retain(|issue| issue.until > now);
            let excess = issues.len().saturating_sub(MOST);
            let is_gone = |issue: &Issue| {
                let silent = issue.since + self.stale_after <= now;
                let worker = issue.facts.issued_to.as_deref().unwrap_or_default();
                silent && !self.feed.is_alive(worker)
            };
            let told_of = |(index, issue): &(usize, &Issue)| !issue.told && (*index < excess || is_gone(issue));
            issues.iter().enumerate().filter(told_of).map(|(_, issue)| issue.facts.clone()).collect()
        };
        self.tell(gone).await;
        let mut issues = self.issues();
        while issues.len() > MOST && issues.front().is_some_and(|issue| issue.told) {
            issues.pop_front();
        }
    }

    /// The workers have ended, having delivered every record: nothing that this life issued is
    /// outstanding. What others left is told of.
    pub async fn delivered(&self) {
        self.issues().retain(|issue| !issue.ours);
        self.ended().await;
    }

    /// The workers have ended: tells of everything that is outstanding.
    pub async fn ended(&self) {
        let all = self.issues().iter().filter(|issue| !issue.told).map(|issue| issue.facts.clone()).collect();
        self.tell(all).await;
    }

    async fn tell(&self, gone: Vec<Arc<Facts>>) {
        for some in gone.chunks(TOGETHER) {
            let records = some.iter().map(|facts| facts.record()).collect();
            let done = self.audit.append_all(records).await;
            // What the log did not take is told of at the next look.
            let told: Vec<_> = some.iter().zip(done).filter(|(_, done)| done.is_ok()).map(|(facts, _)| facts).collect();
            for issue in self.issues().iter_mut() {
                issue.told |= told.iter().any(|facts| Arc::ptr_eq(facts, &issue.facts));
            }
        }
    }

    fn issues(&self) -> MutexGuard<'_, VecDeque<Issue>> {
        self.issues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    fn of(issue: &Record) -> Self {
        let issue = issue.clone();
        Self {
            session_id: issue.session_id,
            service: issue.service,
            session: issue.session,
            destination: issue.destination,
            access_mode: issue.access_mode,
            credential: issue.credential,
            lease_id: issue.lease_id,
            fingerprint: issue.fingerprint,
            issued_to: issue.issued_to,
            count: issue.count,
            ..Self::default()
        }
    }

    fn record(&self) -> Record {
        let facts = self.clone();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let reason = format!(
            "worker {} is gone; at most {} uses of lease {} have no record",
            text(&facts.issued_to),
            facts.count.unwrap_or_default(),
            text(&facts.lease_id)
        );
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
            count: facts.count,
            ..Record::new(Kind::Unaccounted, Now::read().wall_ms)
        }
    }
}

/// The issues of lives before that may still be outstanding.
fn left_by_others(path: &Path, now: Now) -> std::io::Result<VecDeque<Issue>> {
    let most = LONGEST_TTL + LONGEST_USE;
    let mut left = VecDeque::<Issue>::new();
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
            if ["issue", "unaccounted", "stop"].iter().any(|kind| text.contains(&format!("\"kind\":\"{kind}\""))) {
                follow(text, now, most, &mut left);
            }
            line.clear();
        }
    }
    Ok(left)
}

fn follow(line: &str, now: Now, most: Duration, left: &mut VecDeque<Issue>) {
    let Ok(facts) = serde_json::from_str::<Facts>(line) else { return };
    match facts.kind.as_str() {
        "stop" if facts.decision.as_deref() == Some(DELIVERED) => left.clear(),
        "unaccounted" => {
            left.retain(|issue| (&issue.facts.issued_to, &issue.facts.lease_id) != (&facts.issued_to, &facts.lease_id))
        }
        "issue" => {
            let at = facts.timestamp.parse().map_or(0, |at: jiff::Timestamp| at.as_millisecond());
            let age = Duration::from_millis(now.wall_ms.saturating_sub(u64::try_from(at).unwrap_or(0)));
            if let Some(rest) = most.checked_sub(age).filter(|rest| !rest.is_zero()) {
                let until = now.mono + rest;
                left.push_back(Issue { facts: Arc::new(facts), since: now.mono, until, ours: false, told: false });
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
