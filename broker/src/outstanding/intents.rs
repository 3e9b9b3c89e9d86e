//! Uses that were announced one by one: each may be without a record until one says what became of it.

use super::{Facts, Issue, LONGEST_TTL, LONGEST_USE, Outstanding};
use crate::audit::Record;
use crate::config::PeerId;
use crate::fair::Fair;
use attache_core::wire::UseRecord;
use std::collections::{HashSet, VecDeque};
use std::time::Instant;

/// Requests that ended before their intents came, of which is remembered that they did. Calls overtake
/// each other where an agent leaves while a broker stands still.
const MOST_ENDED: usize = 4096;

/// Numbers of requests, each with its worker; by who its Envoy is.
pub(super) struct Ended(Fair<(String, u64)>);

impl Default for Ended {
    fn default() -> Self {
        Self(Fair::new(MOST_ENDED))
    }
}

impl Ended {
    /// What a record of `worker` says: the request that it announced under this number has ended.
    pub fn end(&mut self, issues: &mut VecDeque<Issue>, (worker, from): (&str, &str), numbers: &HashSet<u64>) {
        let mut open = HashSet::new();
        issues.retain(|issue| {
            let number = issue.facts.intent.filter(|_| issue.facts.issued_to.as_deref() == Some(worker));
            let ended = number.filter(|number| numbers.contains(number));
            open.extend(ended);
            ended.is_none()
        });
        for number in numbers.difference(&open) {
            self.0.push(from, (worker.to_owned(), *number));
        }
    }

    /// Whether the request that this intent announces has ended already. It is asked about once.
    pub fn take(&mut self, intent: &Facts) -> bool {
        let (worker, number) = (intent.issued_to.as_deref(), intent.intent);
        let is_it = |(of, ended): &(String, u64)| Some(of.as_str()) == worker && Some(*ended) == number;
        self.0.remove(intent.from(), is_it).is_some()
    }
}

impl Outstanding {
    /// A request is about to go out: tell it before the worker is told that it may.
    pub fn announced(&self, intent: &Record) {
        let (since, facts) = (Instant::now(), Facts::of(intent));
        let mut open = self.open();
        if !open.ended.take(&facts) {
            let until = since + LONGEST_TTL + LONGEST_USE;
            open.add(Issue::new(facts, (since, until), true));
        }
    }

    /// The worker was told that it may not go out.
    pub fn not_announced(&self, intent: &Record) {
        let facts = Facts::of(intent);
        let issues = &mut self.open().issues;
        // It is one of the last, however many there are.
        let at = issues.iter().rposition(|issue| issue.facts.is_of_same_use(&facts));
        at.map(|at| issues.remove(at));
    }

    /// These requests have ended: what became of them is on disk.
    pub fn ended_uses(&self, (worker, peer): (&str, Option<&PeerId>), numbers: &HashSet<u64>) {
        if !numbers.is_empty() {
            let mut open = self.open();
            let super::Open { issues, ended, .. } = &mut *open;
            ended.end(issues, (worker, peer.map(PeerId::as_str).unwrap_or_default()), numbers);
        }
    }
}

/// Those of a worker's records that tell what became of an announced request, each by its number.
pub fn announced_in(records: &[UseRecord]) -> Vec<(u64, u64)> {
    records.iter().filter_map(|record| Some((record.seq, record.intent?))).collect()
}
