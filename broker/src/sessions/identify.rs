//! Whose request this is: all evidence must agree on one live session, and meet its demands.

use super::{Session, Sessions};
use crate::clock::Now;
use crate::config::Bind;
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
}

impl Sessions {
    /// Whose evidence this is; `named` is the session that a verified JWT names.
    ///
    /// What a request shows by itself (placeholder, token, JWT) must name one session. Where it shows
    /// nothing, the one live session whose bindings its connection meets is meant. Either way all of
    /// the session's demands must be met: one that is not shown is `identity_required`, one that is
    /// shown otherwise `evidence_conflict`.
    pub fn identify(&self, evidence: &EvidenceDigests, named: Option<&Name>, now: Now) -> Result<Identified, Reason> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let known = |digest| index.holder(digest).ok_or(Reason::PlaceholderUnknown);
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
        if let Some(name) = named {
            // A session that is no longer there: its token names nobody that lives.
            shown.push(index.named(name).ok_or(Reason::SessionExpired)?);
        }
        let session = match shown.as_slice() {
            [] => bound_to(&index.all(), evidence, now)?,
            [first, others @ ..] if others.iter().all(|other| other.id == first.id) => first.clone(),
            _ => return Err(Reason::EvidenceConflict),
        };
        if !session.is_live(now) {
            return Err(Reason::SessionExpired);
        }
        meets(&session.bind, evidence)?;
        Ok(Identified { session, credential })
    }
}

/// The one live session that a connection names by itself.
fn bound_to(all: &[Arc<Session>], evidence: &EvidenceDigests, now: Now) -> Result<Arc<Session>, Reason> {
    let named = |session: &&Arc<Session>| {
        let bind = &session.bind;
        // An address is shared by many: it narrows a session and names none.
        (bind.peer.is_some() || bind.listener.is_some()) && session.is_live(now) && meets(bind, evidence).is_ok()
    };
    let mut candidates = all.iter().filter(named);
    match (candidates.next(), candidates.next()) {
        (Some(one), None) => Ok(one.clone()),
        (None, _) => Err(Reason::IdentityRequired),
        (Some(_), Some(_)) => Err(Reason::EvidenceConflict),
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
