//! A grant as one worker keeps it.

use super::feed::AsOf;
use crate::audit::{Json, escape_into};
use crate::masking::Masker;
use crate::names::Name;
use crate::policy::AccessMode;
use crate::secret::Secret;
use crate::time::Millis;
use crate::verdict::verdict_prefix;
use crate::wire::{Change, EvidenceDigests, Granted, WireInjection};
use std::cell::Cell;
use std::rc::Rc;

/// A renewal that failed is tried again after this: a broker in trouble is not asked at every tick
/// for every grant in use.
const RENEWAL_RETRY: Millis = Millis(1_000);

/// No lease is believed to last longer, whatever the broker says.
const LONGEST_TTL_MS: u64 = 24 * 60 * 60 * 1000;

/// What may be injected, for whom, until when. It never leaves the VM it was issued to.
pub struct Grant {
    /// The credential.
    pub credential: Name,
    /// The session's id.
    pub session_id: String,
    /// What the session may do.
    pub access_mode: AccessMode,
    /// A worker with this many uses not yet acknowledged refuses more.
    pub max_unacked_uses: u32,
    /// The lease it draws on.
    pub lease_id: Rc<str>,
    /// Whether each use of it is on record before it begins ([`super::Announced`]).
    pub is_strict: bool,
    /// From then on it is void.
    pub expires: Millis,
    /// From then on, a use asks for the next one ahead.
    refresh_at: Cell<Millis>,
    /// The id of the destination it is for.
    pub destination: String,
    /// Whether a placeholder, a token or a JWT named its session, rather than the connection alone.
    pub is_named: bool,
    /// The only cluster it may be used towards.
    pub cluster: String,
    /// The JSON members that every record of this grant shares, each with a comma before it.
    pub record_members: String,
    /// The decision for Envoy's own eyes: its route guard matches the beginning, its access log
    /// prints the whole.
    pub verdict: String,
    /// Finds the credential in what comes back; `None` where masking is off.
    pub masker: Option<Rc<Masker>>,
    as_of: AsOf,
    injections: Vec<WireInjection>,
}

impl Grant {
    /// Takes a grant from the wire. `None` if it contradicts itself: nothing to inject, no time
    /// left, or a value that is no header value.
    pub fn accept(granted: Granted, sent: Millis, facts: Facts<'_>) -> Option<Self> {
        let lease = &granted.lease;
        let usable = |i: &WireInjection| {
            // Exposed to look for characters that would end the header or the parameter.
            let value = i.value.expose().as_bytes();
            let printable = !value.is_empty() && value.iter().all(|b| (0x20..0x7f).contains(b));
            match (&i.header, &i.query) {
                (Some(name), None) => printable && is_header_name(name),
                (None, Some(name)) => printable && is_plain(name) && !value.iter().any(|b| b" &#".contains(b)),
                _ => false,
            }
        };
        let evidence = facts.evidence.word();
        let in_time = (1..=LONGEST_TTL_MS).contains(&lease.ttl_ms);
        if !in_time || granted.injections.is_empty() || !granted.injections.iter().all(usable) {
            return None;
        }
        Some(Self {
            lease_id: lease.id.as_str().into(),
            is_strict: granted.strict,
            expires: sent + Millis(lease.ttl_ms),
            refresh_at: Cell::new(sent + Millis(lease.refresh_after_ms.min(lease.ttl_ms))),
            destination: facts.destination.to_owned(),
            is_named: facts.evidence.is_named(),
            cluster: facts.cluster.to_owned(),
            record_members: members(&granted, &facts, &evidence),
            verdict: verdict(&granted, &facts, &evidence),
            masker: facts.masker,
            credential: granted.credential,
            session_id: granted.session_id,
            access_mode: granted.access_mode,
            max_unacked_uses: granted.max_unacked_uses,
            as_of: AsOf { life: facts.life, cursor: granted.as_of },
            injections: granted.injections,
        })
    }

    /// Whether a change makes it void: it concerns this grant, and the broker did not know of it yet.
    pub fn is_voided_by(&self, change: &Change) -> bool {
        self.may_miss(change, self.as_of.life)
    }

    /// The same of a change that was told in this life of the broker.
    pub fn may_miss(&self, change: &Change, life: u32) -> bool {
        self.as_of.may_miss(life, change.cursor)
            && change.concerns(&self.session_id, &self.credential, &self.destination)
    }

    /// Whether it is time to ask for the next one. Whoever is told so asks; nobody else is told for a while.
    pub fn claims_renewal(&self, now: Millis) -> bool {
        let due = now >= self.refresh_at.get();
        if due {
            self.refresh_at.set(now + RENEWAL_RETRY);
        }
        due
    }

    /// Headers to set.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.injections.iter().filter_map(|i| Some((i.header.as_deref()?, &i.value)))
    }

    /// Query parameters to set; values are percent-encoded.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.injections.iter().filter_map(|i| Some((i.query.as_deref()?, &i.value)))
    }
}

/// What the worker adds to the broker's answer.
pub struct Facts<'a> {
    /// The destination's id.
    pub destination: &'a str,
    /// Its cluster.
    pub cluster: &'a str,
    /// The binding's service.
    pub service: &'a str,
    /// The evidence that was shown.
    pub evidence: &'a EvidenceDigests,
    /// Finds the credential in what comes back.
    pub masker: Option<Rc<Masker>>,
    /// Which life of the broker has granted it, as far as the worker knows.
    pub life: u32,
}

fn members(granted: &Granted, facts: &Facts<'_>, evidence: &str) -> String {
    let mut out = String::new();
    for (name, value) in shared(granted, facts, evidence) {
        member(&mut out, name, value);
    }
    out
}

fn verdict(granted: &Granted, facts: &Facts<'_>, evidence: &str) -> String {
    let mut out = verdict_prefix(facts.cluster);
    member(&mut out, "decision", "forward");
    for (name, value) in shared(granted, facts, evidence) {
        member(&mut out, name, value);
    }
    out.push('}');
    out
}

fn shared<'a>(granted: &'a Granted, facts: &Facts<'a>, evidence: &'a str) -> [(&'static str, &'a str); 9] {
    [
        ("evidence", evidence),
        ("destination", facts.destination),
        ("service", facts.service),
        ("session_id", &granted.session_id),
        ("session", granted.session.as_str()),
        ("access_mode", granted.access_mode.as_str()),
        ("credential", granted.credential.as_str()),
        ("lease_id", &granted.lease.id),
        ("fingerprint", &granted.lease.fingerprint),
    ]
}

/// Appends `,"name":"value"`.
pub(crate) fn member(out: &mut impl Json, name: &str, value: &str) {
    for part in [",\"", name, "\":\""] {
        out.push_word(part);
    }
    escape_into(out, value.as_bytes());
    out.push_word("\"");
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}
