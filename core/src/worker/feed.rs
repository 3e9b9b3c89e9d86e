//! Staying in touch: the change feed, and how fresh this worker is.

use crate::time::Millis;
use crate::wire::{CHANGES_PATH, Change, Changes};
use std::collections::VecDeque;

/// A failed poll is repeated after this.
const RETRY: Millis = Millis(200);

/// Changes remembered to void grants that were under way when they arrived.
const REMEMBERED: usize = 256;

/// Up to which change whoever granted something knew: cursors of two lives of the broker are not to be compared.
#[derive(Clone, Copy, Debug)]
pub struct AsOf {
    /// The life of the broker, as the worker counted when the grant arrived.
    pub life: u32,
    /// The last change.
    pub cursor: u64,
}

impl AsOf {
    /// Whether a change of this life is not known to have been known.
    pub fn may_miss(self, life: u32, cursor: u64) -> bool {
        life != self.life || cursor > self.cursor
    }
}

pub(super) struct Feed {
    stale_after: Millis,
    epoch: String,
    /// Counts the epochs.
    life: u32,
    cursor: u64,
    sent: Option<Millis>,
    fresh_since: Option<Millis>,
    retry_at: Millis,
    recent: VecDeque<Change>,
    forgotten: u64,
}

/// What an answered poll means.
pub(super) enum News {
    /// Another life of the broker: nothing cached holds. What it has taken away, as far as it knows.
    NewEpoch(Vec<Change>),
    /// These changes.
    Changes(Vec<Change>),
}

impl Feed {
    pub fn new(stale_after: Millis) -> Self {
        Self {
            stale_after,
            epoch: String::new(),
            life: 0,
            cursor: 0,
            sent: None,
            fresh_since: None,
            retry_at: Millis(0),
            recent: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Whether what is cached may be believed: the last answered poll was sent recently enough.
    pub fn is_fresh(&self, now: Millis) -> bool {
        self.fresh_since.is_some_and(|sent| now.since(sent) < self.stale_after)
    }

    /// Since when nobody has said that what was allowed is allowed still; `None` while in touch.
    pub fn stale_since(&self, now: Millis) -> Option<Millis> {
        (now >= self.stale_after && !self.is_fresh(now)).then(|| now.since(self.stale_after))
    }

    /// Whether a poll was ever answered.
    pub fn was_fresh(&self) -> bool {
        self.fresh_since.is_some()
    }

    /// The longest the broker may hold a poll.
    pub fn hold(&self) -> Millis {
        Millis(self.stale_after.0 / 3)
    }

    /// The next poll, if none is under way and none failed just now.
    pub fn poll(&mut self, worker: &str, now: Millis) -> Option<String> {
        if self.sent.is_some() || now < self.retry_at {
            return None;
        }
        self.sent = Some(now);
        let (Self { epoch, cursor, .. }, hold) = (&*self, self.hold().0);
        Some(format!("{CHANGES_PATH}?worker={worker}&epoch={epoch}&after={cursor}&wait_ms={hold}"))
    }

    pub fn failed(&mut self, now: Millis) {
        self.sent = None;
        self.retry_at = now + RETRY;
    }

    pub fn answered(&mut self, answer: Changes) -> News {
        self.fresh_since = self.sent.take();
        if answer.epoch != self.epoch {
            self.epoch = answer.epoch;
            self.life = self.life.wrapping_add(1);
            self.cursor = answer.cursor;
            self.recent.clear();
            self.forgotten = 0;
            return News::NewEpoch(answer.changes);
        }
        self.cursor = self.cursor.max(answer.cursor);
        for change in &answer.changes {
            if self.recent.len() >= REMEMBERED
                && let Some(old) = self.recent.pop_front()
            {
                self.forgotten = old.cursor;
            }
            self.recent.push_back(change.clone());
        }
        News::Changes(answer.changes)
    }

    /// Which life of the broker this is, as this worker counts them.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// Whether what knows changes up to `as_of` only is void already; `is_voided` says it of one change.
    pub fn voids(&self, as_of: u64, is_voided: impl Fn(&Change) -> bool) -> bool {
        as_of < self.forgotten || self.recent.iter().any(is_voided)
    }
}
