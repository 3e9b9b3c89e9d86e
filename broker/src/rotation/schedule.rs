//! When something is due. The wall clock says when a rotation is; of one that jumps, a life of the broker believes no
//! more than one. How long something waits is counted on the other clock.

use crate::clock::{Now, millis};
use crate::random::share;
use crate::store::{RotationRow, Step};
use std::time::{Duration, Instant};

/// After the first failure.
const RETRY: Duration = Duration::from_secs(60);
/// After many.
const RETRY_MOST: Duration = Duration::from_secs(3600);
/// Those that were due while the broker was away come within this time after its start, not all at once.
const SPREAD: Duration = Duration::from_secs(300);

/// What a life of the broker remembers of one rotation.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    began: Now,
    /// How long one that was due at the start waits.
    jitter: Duration,
    /// When there was a new secret, in this life.
    rotated: Option<Instant>,
    /// Nothing before.
    retry: Option<Instant>,
    /// When the old one is retired.
    retire: Option<Instant>,
}

impl Life {
    /// A life that begins now, with what the one before has left.
    pub fn new(row: &RotationRow, every: Option<Duration>, overlap: Duration, now: Now) -> Self {
        let left = |until: Option<u64>, most: Duration| {
            let left = Duration::from_millis(until?.saturating_sub(now.wall_ms)).min(most);
            now.mono.checked_add(left)
        };
        let jitter = every.map_or(Duration::ZERO, |every| (every / 20).min(SPREAD)).mul_f64(share());
        let (retry, retire) = (left(row.retry_ms, RETRY_MOST), left(row.retire_ms, overlap));
        Self { began: now, jitter, rotated: None, retry, retire }
    }

    /// Whether there is something to do now.
    pub fn wants(&self, row: &RotationRow, every: Option<Duration>, now: Now) -> bool {
        if self.retry.is_some_and(|retry| now.mono < retry) {
            return false;
        }
        match row.step {
            Step::Idle => every.is_some_and(|every| self.is_due(row.since_ms, every, now)),
            Step::Asking | Step::Telling => true,
            Step::Overlap => self.is_over(now),
        }
    }

    /// Whether the old secret's time is over.
    pub fn is_over(&self, now: Now) -> bool {
        self.retire.is_none_or(|retire| now.mono >= retire)
    }

    fn is_due(&self, since_ms: u64, every: Duration, now: Now) -> bool {
        let due = due(since_ms, every);
        let passed = |since: Instant| now.mono.saturating_duration_since(since);
        // A clock that was set ahead is believed once.
        let is_early = self.rotated.is_some_and(|rotated| passed(rotated) < every);
        let waits = due <= self.began.wall_ms && passed(self.began.mono) < self.jitter;
        now.wall_ms >= due && !is_early && !waits
    }

    /// There is a new secret.
    pub fn rotated(&mut self, now: Now) {
        self.rotated = Some(now.mono);
        self.retry = None;
    }

    /// The old one is good for so long yet.
    pub fn overlaps(&mut self, now: Now, overlap: Duration) -> u64 {
        self.retire = now.mono.checked_add(overlap);
        self.retry = None;
        now.plus(overlap).wall_ms
    }

    /// It has failed so many times. Answers with when it is tried again, in Unix milliseconds.
    pub fn failed(&mut self, failures: u32, now: Now) -> u64 {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let wait = RETRY.saturating_mul(doubled).min(RETRY_MOST).mul_f64(1.0 - share() / 5.0);
        self.retry = now.mono.checked_add(wait);
        now.plus(wait).wall_ms
    }

    /// Something went well.
    pub fn went_well(&mut self) {
        self.retry = None;
    }
}

/// When the next one is due, in Unix milliseconds.
pub fn due(since_ms: u64, every: Duration) -> u64 {
    since_ms.saturating_add(millis(every))
}

#[cfg(test)]
mod tests {
    use super::*;
    use attache_core::names::Name;

    const DAY: Duration = Duration::from_secs(86_400);
    const EVERY: Option<Duration> = Some(DAY);

    fn row(since_ms: u64) -> RotationRow {
        RotationRow::new(Name::parse("it").unwrap(), since_ms)
    }

    /// The wall clock alone goes on.
    fn jumped(now: Now, ahead: Duration) -> Now {
        Now { wall_ms: now.wall_ms + millis(ahead), ..now }
    }

    #[test]
    fn one_is_due_after_its_time_and_none_without_one() {
        let now = Now::read();
        let row = row(now.wall_ms);
        let life = Life::new(&row, EVERY, DAY, now);
        assert!(!life.wants(&row, EVERY, now.plus(DAY - Duration::from_secs(1))));
        assert!(life.wants(&row, EVERY, now.plus(DAY)));
        assert!(!life.wants(&row, None, now.plus(1000 * DAY)));
    }

    #[test]
    fn what_was_due_while_the_broker_was_away_comes_soon_after_the_start_and_not_all_at_once() {
        let now = Now::read();
        let row = row(now.wall_ms - millis(3 * DAY));
        let lives: Vec<_> = (0..64).map(|_| Life::new(&row, EVERY, DAY, now)).collect();
        let after = |wait: Duration| lives.iter().filter(|life| life.wants(&row, EVERY, now.plus(wait))).count();
        assert_eq!(after(SPREAD), 64);
        let half = after(SPREAD / 2);
        assert!((1..64).contains(&half), "{half}");
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_brings_one_rotation_a_life() {
        let now = Now::read();
        let mut row = row(now.wall_ms);
        let mut life = Life::new(&row, EVERY, DAY, now);
        let ahead = jumped(now, 400 * DAY);
        assert!(life.wants(&row, EVERY, ahead));
        life.rotated(ahead);
        row.since_ms = ahead.wall_ms;
        for days in [401, 800, 2000] {
            assert!(!life.wants(&row, EVERY, jumped(now, days * DAY)), "{days}");
        }
        // A day that has passed on both clocks counts.
        assert!(life.wants(&row, EVERY, ahead.plus(DAY)));
    }

    #[test]
    fn an_overlap_lasts_whatever_the_wall_clock_says_and_is_never_longer_than_it_is_to_be() {
        let now = Now::read();
        let mut row = row(now.wall_ms);
        let mut life = Life::new(&row, EVERY, DAY, now);
        row.step = Step::Overlap;
        row.retire_ms = Some(life.overlaps(now, DAY));
        assert!(!life.wants(&row, EVERY, jumped(now, 30 * DAY)));
        assert!(life.wants(&row, EVERY, Now { wall_ms: 0, ..now.plus(DAY) }));
        // After a restart with a clock that was set back.
        let back = Now { wall_ms: now.wall_ms - millis(100 * DAY), ..now };
        let life = Life::new(&row, EVERY, DAY, back);
        assert!(!life.wants(&row, EVERY, back.plus(DAY / 2)));
        assert!(life.wants(&row, EVERY, back.plus(DAY)));
    }

    #[test]
    fn failures_are_further_and_further_apart_and_at_most_an_hour() {
        let now = Now::read();
        let mut row = row(now.wall_ms);
        row.step = Step::Asking;
        let mut life = Life::new(&row, EVERY, DAY, now);
        for (failures, seconds) in [(1, 60), (2, 120), (3, 240), (7, 3600), (40, 3600)] {
            row.retry_ms = Some(life.failed(failures, now));
            let at = |share: f64| now.plus(Duration::from_secs(seconds).mul_f64(share));
            assert!(!life.wants(&row, EVERY, at(0.79)), "{failures}");
            assert!(life.wants(&row, EVERY, at(1.0)), "{failures}");
            let restarted = Life::new(&row, EVERY, DAY, now);
            assert!(!restarted.wants(&row, EVERY, at(0.79)), "{failures}: a restart is no reason to hurry");
        }
        life.went_well();
        assert!(life.wants(&row, EVERY, now));
    }
}
