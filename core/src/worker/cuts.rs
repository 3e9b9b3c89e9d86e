//! Which open streams a change ends.
//!
//! A stream outlives the decision that let it through. When something is taken away from its
//! session, the shell holds every open stream against that, before it polls again: so what a worker
//! has acknowledged holds for its open streams, too. Another policy takes away what it no longer
//! allows. A worker that is out of touch keeps no stream for longer than it would have believed the
//! grant ([`Worker::stale_since`]).

use super::{Grant, Tunnel, Worker};
use crate::door::Passage;
use crate::policy::Policy;
use crate::refusal::Reason;
use crate::time::Millis;
use crate::wire::{Change, Left};
use std::rc::Rc;

/// Something was taken away.
pub struct Cut(What);

enum What {
    /// From whoever the change concerns that was told in this life of the broker.
    Told(Change, Left, u32),
    /// From whatever this policy does not allow.
    Policy(Rc<Policy>),
}

impl Cut {
    /// What this change takes away, if it does, from what was granted before it, in this life of the broker or another.
    pub(super) fn of(change: Change, life: u32) -> Option<Self> {
        change.left.map(|left| Self(What::Told(change, left, life)))
    }

    /// What another policy takes away.
    pub(super) fn by(policy: Rc<Policy>) -> Self {
        Self(What::Policy(policy))
    }

    /// Why a stream that was let through with this grant ends, if it does. `is_read` is called only
    /// where reads go on; `stands` only for another policy: whether that lets the stream through.
    pub fn ends(
        &self,
        grant: &Grant,
        is_read: impl FnOnce() -> bool,
        stands: impl FnOnce(&Policy) -> Result<(), Reason>,
    ) -> Option<Reason> {
        match &self.0 {
            What::Policy(policy) => stands(policy).err(),
            What::Told(change, _, life) if !grant.may_miss(change, *life) => None,
            What::Told(_, Left::Nothing, _) => Some(Reason::SessionExpired),
            What::Told(_, Left::Reads, _) => (!is_read()).then_some(Reason::ReadOnly),
            What::Told(_, Left::Named, _) => (!grant.is_named).then_some(Reason::EvidenceConflict),
        }
    }
}

impl Cut {
    /// Why a way through the door ends, if it does. What is intercepted is decided on request by
    /// request; so, and where nobody looks in, only the end of the session ends it, or another policy.
    pub fn ends_way(
        &self,
        tunnel: &Tunnel,
        still_leads: impl FnOnce(&Policy) -> Result<Passage, Reason>,
    ) -> Option<Reason> {
        match &self.0 {
            What::Policy(policy) => match still_leads(policy) {
                Ok(passage) if passage == tunnel.passage => None,
                Ok(_) => Some(Reason::DestinationMismatch),
                Err(reason) => Some(reason),
            },
            What::Told(change, _, life) if !tunnel.may_miss(change, *life) => None,
            What::Told(_, Left::Nothing, _) => Some(Reason::SessionExpired),
            What::Told(_, Left::Named, _) => (!tunnel.is_named).then_some(Reason::EvidenceConflict),
            What::Told(_, Left::Reads, _) => None,
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
