//! One request, from its head to its record.

use crate::echoes::Echoes;
use crate::host;
use attache_core::Millis;
use attache_core::access::Body;
use attache_core::door::Call;
use attache_core::policy::Policy;
use attache_core::refusal::Reason;
use attache_core::request::{Asked, Snapshot, is_read, stands};
use attache_core::worker::{Announced, Cut, Grant, Outcome};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// Filter state that the judge writes: a request's body, or that it is too large.
pub const BODY: &str = "attache_body";
/// Marks the two things the judge can say.
pub const BODY_WHOLE: u8 = b'=';
pub const BODY_TOO_LARGE: u8 = b'>';

/// Requests by their contexts.
pub type Flows = HashMap<u32, Box<Flow>, BuildHasherDefault<Spread>>;

/// Hashes the numbers of contexts, which the proxy gives out: nobody has them collide.
#[derive(Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // 2⁶⁴ by the golden ratio (Knuth).
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// One request on its way.
#[derive(Default)]
pub struct Flow {
    pub snapshot: Snapshot,
    pub asked: Option<Asked>,
    pub outcome: Outcome,
    /// What the log holds of it already.
    pub announced: Announced,
    /// The policy it was let through by: `asked` means something by no other.
    pub policy: Option<Rc<Policy>>,
    /// Why it was ended before its end.
    pub cut: Option<Reason>,
    /// How often Envoy has failed to do what was decided: to answer, end or resume it.
    pub failures: u8,
    /// What came back of the credential.
    pub echoes: Echoes,
    /// Whether it was counted as one that the worker knew enough of, or not.
    pub looked_up: bool,
    pub started: Millis,
    /// Whether no judge stands before the gate that could have read the body.
    pub unjudged: bool,
}

impl Flow {
    /// The grant it was let through with.
    pub fn grant(&self) -> Option<&Grant> {
        if let Outcome::Forwarded(grant) = &self.outcome { Some(grant) } else { None }
    }

    /// Whether the verdict let it go, and nothing has taken that back.
    pub fn is_released(&self) -> bool {
        matches!(self.outcome, Outcome::Forwarded(_) | Outcome::Passed | Outcome::Tunnelled(_)) && self.cut.is_none()
    }

    /// Why it is not to go on, once that is decided.
    pub fn is_over(&self) -> Option<Reason> {
        match &self.outcome {
            Outcome::Refused(reason, _) => Some(*reason),
            _ => self.cut,
        }
    }

    /// Why it may go on no longer, if so.
    pub fn ends(&self, context: u32, cuts: &[Cut], stale_since: Option<Millis>) -> Option<Reason> {
        if self.cut.is_some() {
            return None;
        }
        let stale = stale_since.filter(|since| self.started <= *since).map(|_| Reason::Stale);
        let grant = match &self.outcome {
            Outcome::Forwarded(grant) => grant,
            Outcome::Tunnelled(tunnel) => {
                let leads = |policy: &Policy| Call::read(&self.snapshot, policy).map(|call| call.passage);
                return cuts.iter().find_map(|cut| cut.ends_way(tunnel, leads)).or(stale);
            }
            _ => return None,
        };
        let is_read = || {
            let (Some(policy), Some(asked)) = (&self.policy, &self.asked) else { return false };
            let mut body = Vec::new();
            is_read(policy, &self.snapshot, asked, grant, || self.body_of(context, &mut body))
        };
        let stands = |policy: &Policy| {
            let mut body = Vec::new();
            stands(policy, &self.snapshot, grant, || self.body_of(context, &mut body))
        };
        cuts.iter().find_map(|cut| cut.ends(grant, is_read, stands)).or(stale)
    }

    fn body_of<'b>(&self, context: u32, bytes: &'b mut Vec<u8>) -> Body<'b> {
        match host::act_for(context) {
            Ok(()) => read_body(self.unjudged, bytes),
            Err(_) => Body::Unread,
        }
    }
}

/// What the judge said of the body of the request that is acted for. Without a judge nobody is believed: any other
/// plugin of this Envoy writes beside it.
pub fn read_body(unjudged: bool, bytes: &mut Vec<u8>) -> Body<'_> {
    if unjudged {
        return Body::Unread;
    }
    let Ok(Some(said)) = host::property(BODY) else { return Body::Unread };
    *bytes = said;
    match bytes.split_first() {
        Some((&BODY_WHOLE, body)) => Body::Whole(body),
        Some((&BODY_TOO_LARGE, _)) => Body::TooLarge,
        _ => Body::Unread,
    }
}
