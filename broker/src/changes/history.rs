//! What is to be written down of the feed: what it told, and who follows it. The writing itself is
//! for [`crate::ledger`], off the path of polls and changes.

use super::{Feed, KEPT, State};
use crate::clock::{Now, millis};
use attache_core::wire;
use std::time::Duration;

/// A change that was told and is not written down yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The change.
    pub change: wire::Change,
    /// When, in Unix milliseconds.
    pub told_ms: u64,
}

/// A worker that follows the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Its id.
    pub id: String,
    /// When this life of the broker first heard of it, in Unix milliseconds.
    pub first_seen_ms: u64,
    /// When it polled last, in Unix milliseconds.
    pub last_seen_ms: u64,
    /// The last change it has applied.
    pub acked: u64,
}

impl State {
    pub(super) fn tell(&mut self, change: wire::Change) {
        self.unwritten.push_back(Told { change, told_ms: Now::read().wall_ms });
        // Nobody writes: what can be told no more is not remembered for ever.
        if self.unwritten.len() > KEPT {
            self.unwritten.pop_front();
        }
    }
}

impl Feed {
    /// Names this life of the broker.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The workers that are alive.
    pub fn followers(&self, now: Now) -> Vec<Follower> {
        let mut state = self.state();
        self.bury(&mut state);
        let workers = state.workers.iter();
        let seen = |at| now.wall_ms.saturating_sub(millis(now.mono.saturating_duration_since(at)));
        let follower = workers.map(|(id, worker)| Follower {
            id: id.clone(),
            first_seen_ms: seen(worker.first_poll),
            last_seen_ms: seen(worker.last_poll),
            acked: worker.acked,
        });
        follower.collect()
    }

    /// Waits until something is told that is not written down, but no longer than `most`.
    pub async fn unwritten(&self, most: Duration) -> Vec<Told> {
        let written = *self.written.borrow();
        let mut published = self.published.subscribe();
        let _ = tokio::time::timeout(most, published.wait_for(|now| now.cursor > written)).await;
        self.state().unwritten.iter().cloned().collect()
    }

    /// Everything up to `cursor` is written down.
    pub fn wrote(&self, cursor: u64) {
        self.state().unwritten.retain(|told| told.change.cursor > cursor);
        self.written.send_replace(cursor);
    }

    /// Waits until `cursor` is written down, but no longer than `most`: a database that hangs is no
    /// reason to keep an operator from hearing what is in force.
    pub async fn written(&self, cursor: u64, most: Duration) {
        let mut written = self.written.subscribe();
        let _ = tokio::time::timeout(most, written.wait_for(|written| *written >= cursor)).await;
    }
}
