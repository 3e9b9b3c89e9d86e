//! Everything that can fail to add up.

use std::fmt;

/// One broken promise. A `hit` is an upstream request that carries a secret, described for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A secret stands where it must not: something an agent received, a log, a dump.
    Leak { place: String, secret: String, form: &'static str, offset: usize },
    /// A credential arrived where it is not bound to.
    Astray { hit: String, secret: String, how: &'static str },
    /// A hit that no agent's request accounts for: what it showed is not what the record says.
    Unasked { hit: String, why: &'static str },
    /// A hit of a request that began after the end of its session was acknowledged.
    Revoked { hit: String, session: String },
    /// A hit without `x-request-id`: nothing can account for it.
    Unidentified { hit: String },
    /// A hit with no use record.
    Unrecorded { hit: String },
    /// A hit with more than one use record.
    RecordedTwice { hit: String, records: usize },
    /// A use record that says something else than what happened.
    Misrecorded { hit: String, field: &'static str, happened: String, recorded: String },
    /// A hit on a lease that was never issued to that session for that credential.
    Unissued { hit: String, lease: String },
    /// An issue record that says something else than the use of its lease.
    Misissued { hit: String, field: &'static str, issued: String, used: String },
    /// A hit on a lease whose time was over, by so many milliseconds.
    Expired { hit: String, lease: String, late_ms: u64 },
    /// A hit on a lease whose issue record does not say how long it lives.
    Endless { lease: String },
    /// A lease with more than one issue record.
    IssuedTwice { lease: String, records: usize },
    /// A hit that came before its lease's issue record was in the log.
    IssuedLate { hit: String, lease: String, how: &'static str },
    /// A hit on a strict lease without one intent of its own in the log before it, or on another with one.
    Unannounced { hit: String, how: &'static str },
    /// One use record, but several hits.
    SentTwice { request_id: String, hits: usize },
    /// A request that got no answer; `why` is `None` while it may still get one.
    Unanswered { what: String, why: Option<String> },
    /// The audit log cannot be trusted from this line on.
    AuditBroken { line: usize, why: String },
}

impl Violation {
    /// Whether waiting could mend it: records and answers may still be on their way, and the record of an
    /// answer that was cut says that it was cut on purpose.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        match self {
            Self::Unrecorded { .. } | Self::Unanswered { why: None, .. } => true,
            Self::Unanswered { why: Some(why), .. } => why.ends_with(CUT),
            _ => false,
        }
    }
}

/// How the violation of an answer without its end is told.
pub(super) const CUT: &str = "was cut off";

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leak { place, secret, form, offset } => {
                write!(f, "{place} holds the secret of {secret}, {form}, at byte {offset}")
            }
            Self::Astray { hit, secret, how } => {
                write!(f, "the secret of {secret} went where it is not bound ({how}): {hit}")
            }
            Self::Unasked { hit, why } => write!(f, "{why}: {hit}"),
            Self::Revoked { hit, session } => write!(f, "session {session} was over before it was asked for: {hit}"),
            Self::Unidentified { hit } => write!(f, "no x-request-id on {hit}"),
            Self::Unrecorded { hit } => write!(f, "no use record for {hit}"),
            Self::RecordedTwice { hit, records } => write!(f, "{records} use records for {hit}"),
            Self::Misrecorded { hit, field, happened, recorded } => {
                write!(f, "the record's {field} is {recorded:?}, but it was {happened:?}: {hit}")
            }
            Self::Unissued { hit, lease } => write!(f, "no issue record of lease {lease:?} fits {hit}"),
            Self::Misissued { hit, field, issued, used } => {
                write!(f, "its lease was issued for the {field} {issued:?}, but used for {used:?}: {hit}")
            }
            Self::Expired { hit, lease, late_ms } => write!(f, "lease {lease:?} was over for {late_ms} ms: {hit}"),
            Self::Endless { lease } => write!(f, "the issue record of lease {lease:?} has no ttl_ms"),
            Self::IssuedTwice { lease, records } => write!(f, "{records} issue records of lease {lease:?}"),
            Self::IssuedLate { hit, lease, how } => {
                write!(f, "lease {lease:?} was on record only after it was used ({how}): {hit}")
            }
            Self::Unannounced { hit, how } => write!(f, "{how}: {hit}"),
            Self::SentTwice { request_id, hits } => {
                write!(f, "{hits} requests carried a secret under one use record, {request_id}")
            }
            Self::Unanswered { what, why: Some(why) } => write!(f, "unanswered, {why}: {what}"),
            Self::Unanswered { what, why: None } => write!(f, "still unanswered: {what}"),
            Self::AuditBroken { line, why } => write!(f, "audit log, line {line}: {why}"),
        }
    }
}
