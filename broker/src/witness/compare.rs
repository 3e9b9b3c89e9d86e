//! Holds Envoy's access log against what the filters recorded. Pure: it is told what came, and when.
//!
//! An entry with a verdict is of a request that the filter decided on, and its record comes, before or
//! after. An entry without one is of a request that no filter decided on: filter state is nothing that an
//! agent can write.

use super::entry::Entry;
use super::shelf::Shelves;
use crate::fair::Fair;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// How long an entry waits for its record, and a record for its entry. Records come within 100 ms,
/// entries within 500 ms, and either comes late when the broker, or the disk, was slow.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Entries that wait at most, in memory; with their texts, some 20 MB.
const ENTRIES: usize = 16_384;
/// Records that wait at most.
const RECORDS: usize = 1 << 17;
/// Findings that are kept until somebody asks; more are counted. Of requests that went by the filter, as many
/// again: a flood of others must not hide one, nor one Envoy's those of another.
const FINDINGS: usize = 16_384;
/// Workers whose numbers are remembered; beyond, all are forgotten.
const WORKERS: usize = 4096;
/// How much of a request's id counts.
const ID: usize = 128;

/// What an entry says that no record does.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// Envoy answered it itself, or the agent left: no filter had decided on it.
    NotDecided(Box<Entry>),
    /// It went to an upstream, and no filter had decided on it.
    Bypassed(Box<Entry>),
    /// The filter had decided on it, and its record did not come.
    Unrecorded(Box<Entry>),
}

/// A request's record, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Its number among the worker's.
    pub seq: u64,
    /// [`Comparison::key`] of its request id.
    pub key: Option<u64>,
    /// When the request ended: Unix milliseconds.
    pub ended_ms: u64,
}

/// What was found lately.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Requests that went by the filter last.
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub dropped: u64,
    /// How many lines a record explains.
    pub explained: u64,
    /// How many requests on record have no entry.
    pub without_entry: u64,
}

/// The comparison, of one life of the broker.
pub struct Comparison {
    /// When the broker began: who ended before told of it in the life before.
    began_ms: u64,
    hasher: RandomState,
    entries: Shelves<Box<Entry>>,
    records: Shelves<()>,
    /// The last record of each worker that was noted.
    noted: HashMap<String, u64>,
    news: News,
    findings: Fair<Finding>,
    bypassed: Fair<Finding>,
    /// Whether an entry has ever come.
    heard: bool,
    /// Nothing is missing before this.
    patient_until: Option<Instant>,
}

impl Comparison {
    /// Nothing was heard yet.
    pub fn new(began_ms: u64) -> Self {
        Self {
            began_ms,
            hasher: RandomState::new(),
            entries: Shelves::new(ENTRIES),
            records: Shelves::new(RECORDS),
            noted: HashMap::new(),
            news: News::default(),
            findings: Fair::new(FINDINGS),
            bypassed: Fair::new(FINDINGS),
            heard: false,
            patient_until: None,
        }
    }

    /// Whether an entry has ever come.
    pub fn has_heard(&self) -> bool {
        self.heard
    }

    /// How many lines and records wait for each other.
    pub fn waiting(&self) -> usize {
        self.entries.waiting() + self.records.waiting()
    }

    /// What a request is found by, among those of one Envoy. Only letters, digits and hyphens count, which no
    /// escaping changes.
    pub fn key(&self, from: &str, request_id: &str) -> Option<u64> {
        let id: String = request_id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(ID).collect();
        (!id.is_empty()).then(|| self.hasher.hash_one((from, id)))
    }

    /// An entry came.
    pub fn saw(&mut self, entry: Entry, now: Instant) {
        self.heard = true;
        let entry = Box::new(entry);
        if entry.verdict.is_empty() {
            undecided(entry).into_iter().for_each(|finding| self.found(finding));
            return;
        }
        if entry.went_elsewhere() {
            self.found(Finding::Bypassed(entry));
            return;
        }
        let Some(key) = self.key(&entry.from, &entry.request_id) else {
            if !entry.upstream.is_empty() {
                self.found(Finding::Unrecorded(entry));
            }
            return;
        };
        if self.records.take(&entry.from, key).is_some() {
            self.news.explained += 1;
        } else {
            let from = entry.from.clone();
            let pushed = self.entries.put(&from, key, now, entry);
            pushed.into_iter().for_each(|entry| self.found(Finding::Unrecorded(entry)));
        }
    }

    /// Records of a worker of this Envoy's came, and those up to number `durable` are on disk. Some came before.
    pub fn recorded(&mut self, (from, worker): (&str, &str), records: &[Recorded], durable: u64, now: Instant) {
        let before = self.noted.get(worker).copied().unwrap_or(0);
        for record in records.iter().filter(|record| record.seq > before && record.seq <= durable) {
            let Some(key) = record.key else { continue };
            if self.entries.take(from, key).is_some() {
                self.news.explained += 1;
            } else if record.ended_ms >= self.began_ms {
                self.news.without_entry += u64::from(self.records.put(from, key, now, ()).is_some());
            }
        }
        if self.noted.len() >= WORKERS && !self.noted.contains_key(worker) {
            self.noted.clear();
        }
        self.noted.insert(worker.to_owned(), durable.max(before));
    }

    /// Whatever is missing may yet come: something was slow.
    pub fn be_patient(&mut self, now: Instant) {
        self.patient_until = Some(now + WINDOW);
    }

    /// What was found since the last time.
    pub fn news(&mut self, now: Instant) -> News {
        let waits = self.patient_until.is_some_and(|until| now < until);
        if let Some(deadline) = now.checked_sub(WINDOW).filter(|_| !waits) {
            while let Some(entry) = self.entries.overdue(deadline) {
                self.found(Finding::Unrecorded(entry));
            }
            while self.records.overdue(deadline).is_some() {
                self.news.without_entry += 1;
            }
        }
        let findings = self.findings.by_ref().chain(self.bypassed.by_ref()).collect();
        News { findings, ..std::mem::take(&mut self.news) }
    }

    fn found(&mut self, finding: Finding) {
        let (kept, from) = match &finding {
            Finding::Bypassed(entry) => (&mut self.bypassed, entry.from.clone()),
            Finding::NotDecided(entry) | Finding::Unrecorded(entry) => (&mut self.findings, entry.from.clone()),
        };
        self.news.dropped += u64::from(kept.push(&from, finding).is_some());
    }
}

/// What became of a request that no filter decided on.
fn undecided(entry: Box<Entry>) -> Option<Finding> {
    // Of an agent that left before it had said what it wants, there is nothing to tell.
    let said_nothing = entry.response_code == 0 && entry.method.is_empty() && entry.route != super::HANDSHAKE_ROUTE;
    if !entry.upstream.is_empty() {
        Some(Finding::Bypassed(entry))
    } else if said_nothing || entry.route == super::HEALTH_ROUTE {
        None
    } else {
        Some(Finding::NotDecided(entry))
    }
}

#[cfg(test)]
mod tests;
