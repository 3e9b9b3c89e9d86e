//! Uses that were announced one by one: each may be without a record until one says what became of it.

use super::{Facts, Issue, LONGEST_TTL, LONGEST_USE, Outstanding};
use crate::audit::Record;
use attache_core::wire::UseRecord;
use std::collections::{HashSet, VecDeque};
use std::time::Instant;

/// Requests that ended before their intents came, of which is remembered that they did. Calls overtake
/// each other where an agent leaves while a broker stands still.
const MOST_ENDED: usize = 4096;

/// Numbers of requests, each with its worker.
#[derive(Default)]
pub(super) struct Ended(VecDeque<(String, u64)>);

impl Ended {
    /// What a record of `worker` says: the request that it announced under this number has ended.
    pub fn end(&mut self, issues: &mut VecDeque<Issue>, worker: &str, numbers: &HashSet<u64>) {
        let mut open = HashSet::new();
        issues.retain(|issue| {
            let number = issue.facts.intent.filter(|_| issue.facts.issued_to.as_deref() == Some(worker));
            let ended = number.filter(|number| numbers.contains(number));
            open.extend(ended);
            ended.is_none()
        });
        self.0.extend(numbers.difference(&open).map(|number| (worker.to_owned(), *number)));
        let excess = self.0.len().saturating_sub(MOST_ENDED);
        self.0.drain(..excess);
    }

    /// Whether the request that this intent announces has ended already. It is asked about once.
    pub fn take(&mut self, intent: &Facts) -> bool {
        let (worker, number) = (intent.issued_to.as_deref(), intent.intent);
        let at = self.0.iter().position(|(of, ended)| Some(of.as_str()) == worker && Some(*ended) == number);
        at.and_then(|at| self.0.remove(at)).is_some()
    }
}

impl Outstanding {
    /// A request is about to go out: tell it before the worker is told that it may.
    pub fn announced(&self, intent: &Record) {
        let (since, facts) = (Instant::now(), Facts::of(intent));
        let mut open = self.open();
        if !open.ended.take(&facts) {
            let until = since + LONGEST_TTL + LONGEST_USE;
            open.issues.push_back(Issue::new(facts, (since, until), true));
        }
    }

    /// The worker was told that it may not go out.
    pub fn not_announced(&self, intent: &Record) {
        let facts = Facts::of(intent);
        self.open().issues.retain(|issue| !issue.facts.is_of_same_use(&facts));
    }

    /// These requests have ended: what became of them is on disk.
    pub fn ended_uses(&self, worker: &str, numbers: &HashSet<u64>) {
        if !numbers.is_empty() {
            let mut open = self.open();
            let super::Open { issues, ended } = &mut *open;
            ended.end(issues, worker, numbers);
        }
    }
}

/// Those of a worker's records that tell what became of an announced request, each by its number.
pub fn announced_in(records: &[UseRecord]) -> Vec<(u64, u64)> {
    records.iter().filter_map(|record| Some((record.seq, record.intent?))).collect()
}
