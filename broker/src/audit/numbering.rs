//! Up to which record of each worker the log holds: nothing twice, and no hole that is not recorded.

use std::collections::HashMap;

/// How many workers are remembered; the one not heard of for longest is forgotten first.
const MOST: usize = 4096;

/// The last durable record of each worker.
#[derive(Debug, Default)]
pub struct Numbering {
    last: HashMap<String, Last>,
    clock: u64,
    /// What the entries were before what is not settled yet, oldest first.
    unsettled: Vec<(String, Option<Last>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    seq: u64,
    heard: u64,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Next,
    /// The first from a worker we know nothing of, and not its first: what came before is missing.
    FirstHeard,
    /// The log has it already.
    Duplicate,
    /// One before it is missing.
    BehindHole,
}

impl Numbering {
    /// Judges a record by its number.
    pub fn judge(&self, worker: &str, seq: u64) -> Verdict {
        match self.last.get(worker).map(|last| last.seq) {
            None if seq == 1 => Verdict::Next,
            None => Verdict::FirstHeard,
            Some(last) if seq <= last => Verdict::Duplicate,
            Some(last) if seq == last.saturating_add(1) => Verdict::Next,
            Some(_) => Verdict::BehindHole,
        }
    }

    /// The number of the worker's last record; 0 if there is none.
    pub fn last(&self, worker: &str) -> u64 {
        self.last.get(worker).map_or(0, |last| last.seq)
    }

    /// Takes note of a record.
    pub fn note(&mut self, worker: &str, seq: u64) {
        self.clock += 1;
        let heard = self.clock;
        let before = self.last.insert(worker.to_owned(), Last { seq, heard });
        self.unsettled.push((worker.to_owned(), before));
        if self.last.len() > MOST {
            let oldest = self.last.iter().min_by_key(|(_, last)| last.heard).map(|(worker, _)| worker.clone());
            if let Some((worker, last)) = oldest.and_then(|worker| self.last.remove_entry(&worker)) {
                self.unsettled.push((worker, Some(last)));
            }
        }
    }

    /// What was noted is durable.
    pub fn settle(&mut self) {
        self.unsettled.clear();
    }

    /// What was noted since the last [`Self::settle`] is not durable: forget it.
    pub fn take_back(&mut self) {
        while let Some((worker, before)) = self.unsettled.pop() {
            match before {
                Some(last) => drop(self.last.insert(worker, last)),
                None => drop(self.last.remove(&worker)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_up_without_gaps() {
        let mut numbering = Numbering::default();
        assert_eq!(numbering.judge("w", 1), Verdict::Next);
        assert_eq!(numbering.judge("w", 7), Verdict::FirstHeard);
        numbering.note("w", 7);
        assert_eq!(numbering.judge("w", 7), Verdict::Duplicate);
        assert_eq!(numbering.judge("w", 8), Verdict::Next);
        assert_eq!(numbering.judge("w", 9), Verdict::BehindHole);
        assert_eq!((numbering.last("w"), numbering.last("x")), (7, 0));
    }

    #[test]
    fn what_is_not_durable_is_taken_back() {
        let mut numbering = Numbering::default();
        numbering.note("w", 1);
        numbering.settle();
        for seq in 2..5 {
            numbering.note("w", seq);
        }
        numbering.note("x", 1);
        numbering.take_back();
        assert_eq!((numbering.last("w"), numbering.last("x")), (1, 0));
    }

    #[test]
    fn the_longest_silent_worker_is_forgotten_first() {
        let mut numbering = Numbering::default();
        for n in 0..MOST {
            numbering.note(&format!("w{n}"), 1);
        }
        numbering.note("w0", 2);
        numbering.note("new", 1);
        assert_eq!((numbering.last("w0"), numbering.last("w1"), numbering.last("new")), (2, 0, 1));
        assert_eq!(numbering.last.len(), MOST);
    }
}
