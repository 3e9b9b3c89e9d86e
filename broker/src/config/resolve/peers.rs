//! Rules for workloads: they name sessions that exist, and contradict no binding.

use super::{Around, Problems};
use crate::config::error::Problem;
use crate::config::peers::{self, PeerRule};
use crate::config::reader::join;
use crate::config::spec::Spec;

/// Resolves all rules.
pub(super) fn resolve_all(spec: &Spec, around: &Around<'_>, problems: &mut Problems) -> Vec<PeerRule> {
    let kept = (0..).map(|index| format!("peers[{index}]")).filter(|at| !around.left_out.contains(at));
    for (at, rule) in kept.zip(&spec.peers) {
        let is_declared = spec.sessions.iter().any(|session| session.name == rule.session);
        if !is_declared && !around.is_incomplete("sessions") {
            problems.add(join(&at, "session"), Problem::UnknownSession);
        }
    }
    let kept = (0..).map(|index| format!("sessions[{index}]")).filter(|at| !around.left_out.contains(at));
    for (at, session) in kept.zip(&spec.sessions) {
        let named = session.bind.peer.as_ref().and_then(|peer| peers::session(&spec.peers, peer));
        if let Some(named) = named.filter(|named| **named != session.name) {
            problems.add(join(&at, "bind.peer"), Problem::NamedByRule(named.clone()));
        }
    }
    spec.peers.clone()
}
