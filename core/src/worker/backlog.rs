//! Records on their way to the broker: numbered, kept until acknowledged, bounded.

use crate::time::Millis;
use crate::wire::MOST_AUDIT_BYTES;

/// Records travel at least this often.
const INTERVAL: Millis = Millis(100);

/// A failed delivery is repeated after this.
const RETRY: Millis = Millis(200);

/// Refusals beyond this are counted in one gap record instead of being kept.
const MOST_REFUSALS: u64 = 16_384;

/// Nor are they kept while more than this waits, in bytes: long paths must not fill the VM.
const MOST_REFUSED_BYTES: usize = 16 << 20;

/// With more than this waiting, in bytes, no use is admitted either.
const MOST_BYTES: usize = 32 << 20;

/// What marks the record of a use. One that passed is of the same kind, but no grant bounds it.
const USE: &[u8] = b"\"auth_injected\":true";

/// What has become of a worker's records, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Records that were made.
    pub made: u64,
    /// Records that the broker holds durably.
    pub acknowledged: u64,
    /// Refusals of which none was made, as too many waited.
    pub dropped: u64,
}

#[derive(Default)]
pub(super) struct Backlog {
    last_seq: u64,
    acked: u64,
    lines: Vec<u8>,
    uses: u64,
    travelling: Option<Batch>,
    under_way: bool,
    dropped: u64,
    all_dropped: u64,
    next: Millis,
}

struct Batch {
    lines: Vec<u8>,
    last_seq: u64,
    uses: u64,
}

impl Backlog {
    /// How many records the broker has not acknowledged.
    pub fn unacked(&self) -> u64 {
        self.last_seq - self.acked
    }

    /// How many records there were, how many of them the broker holds, and how many were dropped instead.
    pub fn counts(&self) -> Records {
        Records { made: self.last_seq, acknowledged: self.acked, dropped: self.all_dropped }
    }

    /// How many of them are uses: refusals, which anybody can cause, never count against a grant.
    pub fn unacked_uses(&self) -> u64 {
        self.uses + self.travelling.as_ref().map_or(0, |batch| batch.uses)
    }

    /// Adds the record of a use.
    pub fn push_use(&mut self, write: impl FnOnce(&mut Vec<u8>, u64)) {
        self.uses += 1;
        self.push(write);
    }

    /// Whether there is room for the record of one more use.
    pub fn has_room(&self) -> bool {
        self.waiting() < MOST_BYTES
    }

    fn waiting(&self) -> usize {
        self.lines.len() + self.travelling.as_ref().map_or(0, |batch| batch.lines.len())
    }

    /// Adds a record; `write` appends it, given its number, without a line break.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>, u64)) {
        self.last_seq += 1;
        write(&mut self.lines, self.last_seq);
        self.lines.push(b'\n');
    }

    /// Whether a refusal may still be kept; counts it if not.
    pub fn admits_refusal(&mut self) -> bool {
        let admits = self.unacked() < MOST_REFUSALS && self.waiting() < MOST_REFUSED_BYTES;
        self.dropped += u64::from(!admits);
        self.all_dropped += u64::from(!admits);
        admits
    }

    /// The next batch to deliver, if it is time.
    pub fn batch(&mut self, now: Millis, gap: impl FnOnce(&mut Vec<u8>, u64, u64)) -> Option<Vec<u8>> {
        if self.under_way || now < self.next {
            return None;
        }
        if self.travelling.is_none() {
            if self.dropped > 0 {
                let dropped = std::mem::take(&mut self.dropped);
                self.push(|out, seq| gap(out, seq, dropped));
            }
            if self.lines.is_empty() {
                return None;
            }
            self.travelling = Some(self.cut());
        }
        self.under_way = true;
        self.next = now + INTERVAL;
        self.travelling.as_ref().map(|batch| batch.lines.clone())
    }

    /// The oldest records, as many as one batch holds.
    fn cut(&mut self) -> Batch {
        let head = self.lines.get(..MOST_AUDIT_BYTES);
        let kept = match head.and_then(|head| memchr::memrchr(b'\n', head)) {
            Some(end) => self.lines.split_off(end + 1),
            None => Vec::with_capacity(self.lines.len()),
        };
        let lines = std::mem::replace(&mut self.lines, kept);
        let left = memchr::memchr_iter(b'\n', &self.lines).count() as u64;
        // Quotes are escaped in whatever a request says, so only members are counted.
        let uses_left = memchr::memmem::find_iter(&self.lines, USE).count() as u64;
        let uses = std::mem::replace(&mut self.uses, uses_left).saturating_sub(uses_left);
        Batch { lines, last_seq: self.last_seq - left, uses }
    }

    pub fn failed(&mut self, now: Millis) {
        self.under_way = false;
        self.next = now + RETRY;
    }

    /// The broker holds everything up to `acked` durably.
    pub fn acknowledged(&mut self, acked: u64, now: Millis) {
        self.under_way = false;
        match &self.travelling {
            Some(batch) if acked >= batch.last_seq => {
                self.acked = batch.last_seq;
                self.travelling = None;
                // What did not fit into this batch waits for nothing.
                if self.lines.len() > MOST_AUDIT_BYTES / 2 {
                    self.next = now;
                }
            }
            _ => self.next = now + RETRY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn backlog(records: u64) -> Backlog {
        let mut backlog = Backlog::default();
        (0..records).for_each(|_| backlog.push(|out, seq| out.extend_from_slice(seq.to_string().as_bytes())));
        backlog
    }

    #[test]
    fn a_batch_is_repeated_until_it_is_acknowledged() {
        let mut backlog = backlog(2);
        assert_eq!(backlog.batch(Millis(0), |_, _, _| ()).as_deref(), Some(&b"1\n2\n"[..]));
        assert_eq!(backlog.batch(Millis(1000), |_, _, _| ()), None, "one at a time");
        backlog.push(|out, seq| out.extend_from_slice(seq.to_string().as_bytes()));
        backlog.failed(Millis(1000));
        assert_eq!(backlog.batch(Millis(1100), |_, _, _| ()), None, "not at once");
        assert_eq!(backlog.batch(Millis(1200), |_, _, _| ()).as_deref(), Some(&b"1\n2\n"[..]));
        backlog.acknowledged(2, Millis(1200));
        assert_eq!(backlog.unacked(), 1);
        assert_eq!(backlog.batch(Millis(1300), |_, _, _| ()).as_deref(), Some(&b"3\n"[..]));
    }

    #[test]
    fn a_batch_holds_whole_records_and_no_more_than_the_broker_takes() {
        let mut backlog = Backlog::default();
        let record = [b'r'; 300_000];
        (0..10).for_each(|_| backlog.push(|out, _| out.extend_from_slice(&record)));
        let mut batches = Vec::new();
        while let Some(batch) = backlog.batch(Millis(batches.len() as u64 * 1000), |_, _, _| ()) {
            assert!(
                batch.len() <= MOST_AUDIT_BYTES
                    && batch.split(|b| *b == b'\n').all(|line| line.is_empty() || line == record)
            );
            batches.push(batch.iter().filter(|b| **b == b'\n').count());
            let sent = batches.iter().sum::<usize>() as u64;
            backlog.acknowledged(sent, Millis(0));
            assert_eq!(backlog.unacked(), 10 - sent);
        }
        assert_eq!(batches, [6, 4]);
    }

    #[test]
    fn long_refusals_do_not_fill_the_vm() {
        let mut backlog = Backlog::default();
        let mut kept = 0;
        while backlog.admits_refusal() {
            backlog.push(|out, _| out.extend_from_slice(&[b'r'; 4096]));
            kept += 1;
        }
        assert!(kept < 4200 && backlog.has_room());
    }

    #[test]
    fn a_bound_in_bytes_is_met_to_the_byte() {
        for (bytes, refusals, uses) in [
            (MOST_REFUSED_BYTES - 1, true, true),
            (MOST_REFUSED_BYTES, false, true),
            (MOST_BYTES - 1, false, true),
            (MOST_BYTES, false, false),
        ] {
            // What travels waits, too.
            let batch = Batch { lines: vec![0; bytes - 1], last_seq: 0, uses: 0 };
            for (lines, travelling) in [(vec![0; bytes], None), (vec![0], Some(batch))] {
                let mut backlog = Backlog { lines, travelling, ..Backlog::default() };
                assert_eq!((backlog.admits_refusal(), backlog.has_room()), (refusals, uses), "{bytes}");
            }
        }
    }

    #[test]
    fn what_a_batch_left_behind_is_sent_at_once_if_it_fills_half_of_the_next_and_soon_if_not() {
        let next_after = |left: usize| {
            let mut backlog = Backlog::default();
            for length in [MOST_AUDIT_BYTES, left] {
                backlog.push(|out, _| out.extend_from_slice(&vec![b'r'; length - 1]));
            }
            assert_eq!(backlog.batch(Millis(10), |_, _, _| ()).map(|batch| batch.len()), Some(MOST_AUDIT_BYTES));
            backlog.acknowledged(1, Millis(20));
            (20..200).find(|at| backlog.batch(Millis(*at), |_, _, _| ()).is_some())
        };
        assert_eq!(next_after(MOST_AUDIT_BYTES / 2 + 1), Some(20));
        assert_eq!(next_after(MOST_AUDIT_BYTES / 2), Some(110));
    }

    #[test]
    fn dropped_refusals_are_counted() {
        let mut backlog = backlog(MOST_REFUSALS);
        assert!(!backlog.admits_refusal() && !backlog.admits_refusal());
        let sent = backlog.batch(Millis(0), |out, seq, dropped| {
            out.extend_from_slice(format!("{seq}: {dropped} dropped").as_bytes())
        });
        assert!(sent.unwrap().ends_with(b"\n16385: 2 dropped\n"));
    }
}
