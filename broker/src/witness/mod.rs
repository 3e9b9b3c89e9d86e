//! The witness: Envoy's own access log, held against the records of the filters.
//!
//! It sees what no filter can: requests that Envoy answered before any filter, or while its VM was down,
//! and requests that went by the filter. It carries nothing: lines of it may be lost, and are counted
//! ([decision 10](../../../docs/decisions/0010-witness.md)).

mod compare;
mod entry;
pub mod grpc;
mod record;
mod shelf;

pub use entry::{Entry, FIELDS, decode};
pub use record::{Told, session_of};

use crate::audit::{AuditLog, Kind, Record};
use crate::clock::{Now, rfc3339};
use crate::config::PeerId;
use crate::fair::Fair;
use crate::meters::WitnessMeters;
use attache_core::wire::{UseKind, UseRecord};
use compare::{Comparison, Finding, News, Recorded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where Envoy sends its access log: OTLP over HTTP.
pub const ACCESS_LOG_PATH: &str = "/v1/access-log";
/// The route on which Envoy answers `GET /health`, by itself and to anybody.
pub const HEALTH_ROUTE: &str = "health";
/// Stands for the route where a TLS handshake with a client failed.
pub const HANDSHAKE_ROUTE: &str = "attache:handshake";
/// The member of an entry that says how long its handshake took, if it was over; of a handshake alone.
pub const HANDSHAKE_MS: &str = "handshake_ms";
/// Longest batch, in bytes. Envoy's are of 128 KiB and one entry more.
pub const MOST_BYTES: usize = 256 << 10;
/// Most lines of one: each takes much more room when it is read than on its way.
const MOST_LINES: usize = 4096;

/// How often findings are written down.
const TICK: Duration = Duration::from_millis(250);
/// After a longer pause than this, the machine or this process stood still: nothing that did not come
/// meanwhile is missing.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// Lost lines are told of this often.
const TELL: Duration = Duration::from_secs(60);
/// Findings that wait for the disk; more are counted.
const QUEUE: usize = 16_384;
/// Findings that share a sync.
const BATCH: usize = 512;

/// The witness of one broker.
pub struct Witness {
    audit: Arc<AuditLog>,
    meters: WitnessMeters,
    state: Mutex<State>,
}

struct State {
    comparison: Comparison,
    /// To be written.
    records: Fair<Record>,
    /// Findings that were not kept.
    dropped: u64,
    /// Requests on record without an entry, not told of yet.
    without_entry: u64,
    told: Option<Instant>,
    bypasses: Option<Bypasses>,
}

/// Requests that went by every filter.
struct Bypasses {
    count: u64,
    last_ms: u64,
    route: String,
    cluster: String,
}

/// How the witness is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is wrong.
    Well,
    /// Requests are recorded, and no Envoy has sent a line of its access log.
    Silent,
    /// Requests went to an upstream by every filter.
    Bypassed(String),
}

impl Witness {
    /// The witness of a broker that begins now.
    pub fn new(audit: Arc<AuditLog>, now: Now) -> Self {
        let state = State {
            comparison: Comparison::new(now.wall_ms),
            records: Fair::new(QUEUE),
            dropped: 0,
            without_entry: 0,
            told: None,
            bypasses: None,
        };
        Self { audit, meters: WitnessMeters::default(), state: Mutex::new(state) }
    }

    /// Envoy sent lines of its access log. They are held against records of the same peer's workers.
    pub fn saw(&self, entries: impl IntoIterator<Item = Entry>, peer: Option<&PeerId>) {
        let (now, from) = (Instant::now(), of(peer));
        let comparison = &mut self.state().comparison;
        entries.into_iter().for_each(|entry| comparison.saw(Entry { from: from.clone(), ..entry }, now));
    }

    /// What matters of a worker's records, before they are written.
    pub fn note(&self, records: &[UseRecord], peer: Option<&PeerId>) -> Vec<Recorded> {
        let from = of(peer);
        let state = self.state();
        let of_requests = records.iter().filter(|record| record.kind != UseKind::Gap);
        let noted = of_requests.map(|record| Recorded {
            seq: record.seq,
            key: state.comparison.key(&from, &record.request_id),
            ended_ms: record.at_ms.saturating_add(record.duration_ms),
        });
        noted.collect()
    }

    /// Of these records of a worker, those up to number `durable` are on disk.
    pub fn recorded(&self, worker: &str, peer: Option<&PeerId>, records: &[Recorded], durable: u64) {
        self.state().comparison.recorded((&of(peer), worker), records, durable, Instant::now());
    }

    /// What is counted here.
    pub fn meters(&self) -> &WitnessMeters {
        &self.meters
    }

    /// How it is.
    pub fn standing(&self) -> Standing {
        let state = self.state();
        match &state.bypasses {
            Some(Bypasses { count, last_ms, route, cluster }) => Standing::Bypassed(format!(
                "{count} requests reached an upstream without a decision, the last at {} by route {route:?} to \
                 cluster {cluster:?}",
                rfc3339(*last_ms)
            )),
            None if state.without_entry > 0 && !state.comparison.has_heard() => Standing::Silent,
            None => Standing::Well,
        }
    }

    /// Writes what is found, over and over.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(TICK);
        let mut before = Instant::now();
        loop {
            tick.tick().await;
            let now = Instant::now();
            let broken = self.audit.fault().is_some();
            self.state().look(now, broken || now.duration_since(before) > STOOD_STILL, &self.meters);
            before = now;
            while !broken && self.write(now).await {}
        }
    }

    /// Writes some of what is found; whether there may be more.
    async fn write(&self, now: Instant) -> bool {
        let (records, told) = self.state().batch(now);
        let all = records.len();
        if all == 0 {
            return false;
        }
        let written = self.audit.append_all(records).await;
        let failed = written.iter().filter(|one| one.is_err()).count();
        // They are not tried again: one whose disk was slow may stand there all the same. But what a
        // record counts is counted again, rather twice than never.
        let mut state = self.state();
        state.dropped += failed as u64;
        if let (Some(lost), Some(Err(_))) = (told, written.first()) {
            state.untell(lost);
        }
        drop(state);
        failed == 0 && all == BATCH
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who an Envoy is, as far as that is known.
fn of(peer: Option<&PeerId>) -> String {
    peer.map(PeerId::to_string).unwrap_or_default()
}

/// What one `gap` record counts.
#[derive(Clone, Copy)]
struct Lost {
    without_entry: u64,
    dropped: u64,
}

impl State {
    fn look(&mut self, now: Instant, slow: bool, meters: &WitnessMeters) {
        if slow {
            self.comparison.be_patient(now);
        }
        let News { findings, dropped, explained, without_entry } = self.comparison.news(now);
        self.dropped += dropped;
        self.without_entry += without_entry;
        meters.explained.inc_by(explained);
        meters.waiting.set(i64::try_from(self.comparison.waiting()).unwrap_or(i64::MAX));
        meters.found.inc_by(findings.len() as u64);
        meters.lost.inc_by(dropped + without_entry);
        for finding in findings {
            if let Finding::Bypassed(entry) = &finding {
                tracing::error!(
                    route = entry.route,
                    from = entry.from,
                    cluster = entry.cluster,
                    "a request reached an upstream without a decision"
                );
                let count = self.bypasses.as_ref().map_or(0, |so_far| so_far.count) + 1;
                let (route, cluster) = (entry.route.clone(), entry.cluster.clone());
                self.bypasses = Some(Bypasses { count, last_ms: entry.at_ms, route, cluster });
            }
            let record = record::record(finding);
            let from = record.asked_by.clone().unwrap_or_default();
            self.dropped += u64::from(self.records.push(&from, record).is_some());
        }
    }

    /// What to write next, what was lost first.
    fn batch(&mut self, now: Instant) -> (Vec<Record>, Option<Lost>) {
        let (gap, told) = self.lost(now).unzip();
        let mut batch: Vec<_> = gap.into_iter().collect();
        let more = BATCH - batch.len();
        batch.extend(self.records.by_ref().take(more));
        (batch, told)
    }

    /// Counts once more what a record that was not written counted.
    fn untell(&mut self, lost: Lost) {
        self.without_entry += lost.without_entry;
        self.dropped += lost.dropped;
        self.told = None;
    }

    fn lost(&mut self, now: Instant) -> Option<(Record, Lost)> {
        let due = self.told.is_none_or(|told| now.duration_since(told) >= TELL);
        // An Envoy that sends no access log at all is no loss: health tells of it.
        let without_entry = if self.comparison.has_heard() { self.without_entry } else { 0 };
        if !due || self.dropped + without_entry == 0 {
            return None;
        }
        let reason = format!(
            "Envoy's access log, the witness, is not whole: {without_entry} requests on record have no line in it, \
             and {} findings were too many to keep",
            self.dropped
        );
        let lost = Lost { without_entry, dropped: self.dropped };
        self.without_entry -= without_entry;
        (self.dropped, self.told) = (0, Some(now));
        Some((Record { reason: Some(reason), ..Record::new(Kind::Gap, Now::read().wall_ms) }, lost))
    }
}
