//! Which open streams a change ends.
//!
//! A stream outlives the decision that let it through. When something is taken away from its
//! session, the shell holds every open stream against that, before it polls again: so what a worker
//! has acknowledged holds for its open streams, too. A worker that is out of touch keeps none for
//! longer than it would have believed the grant ([`Worker::stale_since`]).

use super::{Grant, Worker};
use crate::refusal::Reason;
use crate::time::Millis;
use crate::wire::{Change, Left};

/// Something was taken away from whoever the change concerns.
pub struct Cut {
    change: Change,
    left: Left,
}

impl Cut {
    /// What this change takes away, if it does.
    pub(super) fn of(change: Change) -> Option<Self> {
        change.left.map(|left| Self { change, left })
    }

    /// Likewise, told by a broker that has begun anew: its cursors say nothing about older grants.
    pub(super) fn across_epochs(change: Change) -> Option<Self> {
        Self::of(Change { cursor: u64::MAX, ..change })
    }

    /// Why a stream that was let through with this grant ends, if it does. `is_read` is called only
    /// where reads go on.
    pub fn ends(&self, grant: &Grant, is_read: impl FnOnce() -> bool) -> Option<Reason> {
        let Change { cursor, session_id, credential, .. } = &self.change;
        if !grant.is_voided_by(*cursor, session_id.as_deref(), credential.as_ref()) {
            return None;
        }
        match self.left {
            Left::Nothing => Some(Reason::SessionExpired),
            Left::Reads => (!is_read()).then_some(Reason::ReadOnly),
        }
    }
}

impl Worker {
    /// What was taken away since this was last asked.
    pub fn take_cuts(&mut self) -> Vec<Cut> {
        std::mem::take(&mut self.cuts)
    }

    /// Streams that were let through before this moment, or at it, go on no longer: nobody has said
    /// since that they may. `None` while in touch with the broker.
    pub fn stale_since(&self, now: Millis) -> Option<Millis> {
        self.feed.stale_since(now)
    }
}
