//! Whose request this is: all evidence must agree on one live session, and meet its demands.

use super::index::Index;
use super::{Session, Sessions, Sight};
use crate::clock::Now;
use crate::config::{Bind, peers};
use attache_core::names::Name;
use attache_core::refusal::Reason;
use attache_core::wire::EvidenceDigests;
use std::sync::{Arc, PoisonError};

/// Who asks, as the evidence shows.
#[derive(Debug)]
pub struct Identified {
    /// The session, alive.
    pub session: Arc<Session>,
    /// The credential whose placeholder was shown.
    pub credential: Option<Name>,
    /// Whether a rule of the config names the session: of a provider's JWTs, or of workloads.
    pub by_rule: bool,
}

impl Sessions {
    /// Whose evidence this is; `named` is the session that a verified JWT names.
    ///
    /// What a request shows by itself (placeholder, token, JWT) must name one session, and so must the rule
    /// for its peer, where there is one. Where nothing does, the one live session whose bindings its
    /// connection meets is meant. Either way all of the session's demands must be met: one that is not
    /// shown is `identity_required`, one that is shown otherwise `evidence_conflict`. What is out of sight
    /// of whoever asks is not there.
    pub fn identify(
        &self,
        evidence: &EvidenceDigests,
        named: Option<&Name>,
        sight: &Sight,
        now: Now,
    ) -> Result<Identified, Reason> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let seen = |digest| index.holder(digest).filter(|(session, _)| sight.has(&session.name));
        let known = |digest| seen(digest).ok_or(Reason::PlaceholderUnknown);
        let placeholder = evidence.placeholder.as_ref().map(known).transpose()?;
        let token = evidence.session_token.as_ref().map(known).transpose()?;
        let (mut shown, mut credential) = (Vec::new(), None);
        for holder in [placeholder, token].into_iter().zip([true, false]) {
            match holder {
                (Some((session, Some(of))), true) => {
                    shown.push(session);
                    credential = Some(of);
                }
                (Some((session, None)), false) => shown.push(session),
                // A placeholder in a token's place, or the other way round.
                (Some(_), _) => return Err(Reason::PlaceholderMisplaced),
                (None, _) => {}
            }
        }
        let by_rules = [named, self.workload(evidence)];
        for name in by_rules.into_iter().flatten() {
            shown.push(named_by_rule(&index, name, sight)?);
        }
        let session = match shown.as_slice() {
            [] => bound_to(&index, evidence, sight, now)?,
            [first, others @ ..] if others.iter().all(|other| other.id == first.id) => first.clone(),
            _ => return Err(Reason::EvidenceConflict),
        };
        if !session.is_live(now) {
            return Err(Reason::SessionExpired);
        }
        meets(&session.bind, evidence)?;
        Ok(Identified { session, credential, by_rule: by_rules.iter().any(Option::is_some) })
    }

    /// The session that a rule says the peer is.
    fn workload(&self, evidence: &EvidenceDigests) -> Option<&Name> {
        peers::session(&self.peers, &evidence.peer.as_ref()?.parse().ok()?)
    }
}

/// The session that a rule names.
fn named_by_rule(index: &Index, name: &Name, sight: &Sight) -> Result<Arc<Session>, Reason> {
    if !sight.has(name) {
        return Err(Reason::IdentityRequired);
    }
    // One that is no longer there: the rule names nobody that lives.
    index.named(name).ok_or(Reason::SessionExpired)
}

/// The one live session that a connection names by itself.
fn bound_to(index: &Index, evidence: &EvidenceDigests, sight: &Sight, now: Now) -> Result<Arc<Session>, Reason> {
    let named = |session: &Session| {
        let bind = &session.bind;
        // An address is shared by many: it narrows a session and names none.
        let names = bind.peer.is_some() || bind.listener.is_some();
        names && sight.has(&session.name) && session.is_live(now) && meets(bind, evidence).is_ok()
    };
    match index.which(named).as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Reason::IdentityRequired),
        _ => Err(Reason::EvidenceConflict),
    }
}

/// Whether the evidence meets what a session demands. Each demand is named here, so that none is
/// forgotten.
fn meets(bind: &Bind, evidence: &EvidenceDigests) -> Result<(), Reason> {
    let Bind { peer, source, listener, session_token } = bind;
    let demands = [
        peer.as_ref().map(|wanted| evidence.peer.as_ref().map(|shown| shown == wanted.as_str())),
        source.as_ref().map(|wanted| evidence.source.map(|shown| wanted.contains(shown))),
        listener.as_ref().map(|wanted| evidence.listener.as_ref().map(|shown| shown == wanted)),
        // Whose token it is has been looked at already.
        session_token.as_ref().map(|_| evidence.session_token.as_ref().map(|_| true)),
    ];
    let demands = demands.into_iter().flatten();
    if demands.clone().any(|shown| shown == Some(false)) {
        return Err(Reason::EvidenceConflict);
    }
    if demands.clone().all(|shown| shown == Some(true)) { Ok(()) } else { Err(Reason::IdentityRequired) }
}
