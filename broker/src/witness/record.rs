//! What an entry becomes in the audit log.

use super::HANDSHAKE_ROUTE;
use super::compare::Finding;
use super::entry::Entry;
use crate::audit::{Kind, Record};
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use serde::Deserialize;

/// The reason of a request that no filter decided on.
pub const NOT_DECIDED: &str = "not_decided";
/// The reason of a client with which TLS did not come about.
const HANDSHAKE_FAILED: &str = "handshake_failed";
/// The reason of one whose agent left before.
const ABORTED: &str = "aborted";

/// The filter's verdict, as far as it could say.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Verdict {
    decision: Option<String>,
    reason: Option<String>,
    evidence: Option<String>,
    destination: Option<String>,
    service: Option<String>,
    session_id: Option<String>,
    session: Option<Name>,
    access_mode: Option<AccessMode>,
    credential: Option<Name>,
    lease_id: Option<String>,
    fingerprint: Option<String>,
}

/// The session that an entry's verdict names.
#[derive(Debug, Default)]
pub struct Told {
    /// By its id.
    pub id: Option<String>,
    /// By its name.
    pub name: Option<Name>,
}

/// Of which session an entry tells.
pub fn session_of(entry: &Entry) -> Told {
    let verdict: Verdict = serde_json::from_str(&entry.verdict).unwrap_or_default();
    Told { id: verdict.session_id, name: verdict.session }
}

/// The record of what was found.
pub fn record(finding: Finding) -> Record {
    match finding {
        Finding::NotDecided(entry) => {
            let reason = match entry.response_code {
                _ if entry.route == HANDSHAKE_ROUTE => HANDSHAKE_FAILED,
                0 => ABORTED,
                _ => NOT_DECIDED,
            };
            told(*entry, Kind::Deny, "refuse", Some(reason.into()))
        }
        Finding::Bypassed(entry) => told(*entry, Kind::Unaccounted, "forward", Some(NOT_DECIDED.into())),
        Finding::Unrecorded(entry) => unrecorded(*entry),
    }
}

fn unrecorded(entry: Entry) -> Record {
    let verdict: Verdict = serde_json::from_str(&entry.verdict).unwrap_or_default();
    let went = matches!(verdict.decision.as_deref(), Some("forward" | "pass")) || !entry.upstream.is_empty();
    let (kind, decision, reason) = match went {
        true => (Kind::Unaccounted, "forward", Some("its worker has no record of it".into())),
        false => (Kind::Deny, "refuse", verdict.reason.or(Some(ABORTED.into()))),
    };
    let decision = verdict.decision.filter(|decision| decision == "pass").unwrap_or(decision.into());
    Record {
        evidence: verdict.evidence,
        destination: verdict.destination,
        service: verdict.service,
        session_id: verdict.session_id,
        session: verdict.session,
        access_mode: verdict.access_mode,
        credential: verdict.credential,
        lease_id: verdict.lease_id,
        fingerprint: verdict.fingerprint,
        ..told(entry, kind, &decision, reason)
    }
}

fn told(entry: Entry, kind: Kind, decision: &str, reason: Option<String>) -> Record {
    let text = |text: String| (!text.is_empty()).then_some(text);
    Record {
        method: text(entry.method),
        path: text(entry.path),
        response_code: Some(entry.response_code),
        duration_ms: Some(entry.duration_ms),
        request_id: text(entry.request_id),
        authority: text(entry.authority),
        decision: Some(decision.to_owned()),
        reason,
        count: (kind == Kind::Unaccounted).then_some(1),
        upstream: text(entry.upstream),
        asked_by: text(entry.from),
        details: text(entry.details),
        ..Record::new(kind, entry.at_ms)
    }
}
