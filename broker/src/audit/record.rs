//! One record: its fields, in the order in which they stand in a line.

use crate::clock::rfc3339;
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use attache_core::wire::{Intent, UseKind, UseRecord};
use serde::{Serialize, Serializer};

/// What a record records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Kind {
    /// A request that was forwarded.
    Use,
    /// A client that was let in at the door of a forward proxy.
    Tunnel,
    /// A request that was refused.
    Deny,
    /// What may have been used without a record of it: the worker that would tell is gone.
    Unaccounted,
    /// Records that are missing from here on, or before here; `reason` says which.
    Gap,
    /// A secret left the broker, for one worker and one lease.
    Issue,
    /// A request is about to go out with a credential whose audit is strict.
    Intent,
    /// A session was ended.
    Revoke,
    /// A session began, or its access mode was set.
    Mode,
    /// A certificate authority was made.
    Ca,
    /// A secret took the place of another, or the one of before was retired.
    Renew,
    /// What an operator has to look into: somebody may have had what was meant for the broker, or a rotation
    /// fails; `reason` says what was noticed, and where.
    Alarm,
    /// The broker began.
    Start,
    /// The broker ended as it was told to.
    Stop,
    /// The log up to here, signed.
    Checkpoint,
}

/// One record. The first nine fields stand in every line (`null` where they mean nothing), the
/// others where they say something; `prev` and `hash` follow when the line is sealed.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// When: Unix time in milliseconds, written as RFC 3339.
    #[serde(rename = "timestamp", serialize_with = "as_rfc3339")]
    pub at_ms: u64,
    /// The instance. Set by the writer.
    pub instance: Option<Name>,
    /// The session's id.
    pub session_id: Option<String>,
    /// [`crate::config::Credential::service`].
    pub service: Option<String>,
    /// The request's method.
    pub method: Option<String>,
    /// The request's path, without its query.
    pub path: Option<String>,
    /// Whether a credential went upstream.
    pub auth_injected: bool,
    /// The status that the agent got.
    pub response_code: Option<u16>,
    /// How long the request took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// What this records.
    pub kind: Kind,
    /// Counts the records of one worker.
    pub seq: u64,
    /// The worker that saw the request; `broker` for the broker's own records.
    pub worker: String,
    /// Envoy's `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The session's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Name>,
    /// The request's authority, as sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// The destination, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// `forward`, `pass`, `refuse`; `create`, `set` for a mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Why: [`attache_core::refusal::Reason`], or what is missing at a gap; of an
    /// authority, from when on it signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the session might do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// The credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Name>,
    /// The lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The secret's fingerprint; of an authority, the SHA-256 of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The fingerprint of the secret whose place it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// Which evidence was shown, joined by `+`: `placeholder`, `session_token`, `jwt`, `peer`, `source`,
    /// `listener`; or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// What went through a tunnel from the agent, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// What went through it to the agent, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// The upstream's address, of a tunnel and where Envoy alone tells of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Envoy's word for what became of a request, where Envoy alone tells of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// How often the answer held the credential, which was masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked: Option<u64>,
    /// The worker that a lease was issued to, or that announced a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_to: Option<String>,
    /// The SPIFFE ID of the Envoy that asked, or told of it, where the broker has verified its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// The number under which a worker announced a request: at its intent, and at the record of what
    /// became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    /// How long the lease lives, in milliseconds from when it was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// At an issue: how many uses of it may await their record; 0 where intents tell of each. Unaccounted: how many there may have
    /// been. At a checkpoint: how many records stand before it, in all files. At a gap: how many records
    /// are there that were not noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Which key signed a checkpoint: [`super::key::PublicKey::id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A checkpoint's Ed25519 signature, base64url: [`super::head::Head::message`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// The `worker` of the broker's own records.
pub const BROKER: &str = "broker";

impl Record {
    /// A record of the broker's own, still to be filled in.
    pub fn new(kind: Kind, at_ms: u64) -> Self {
        Self {
            at_ms,
            instance: None,
            session_id: None,
            service: None,
            method: None,
            path: None,
            auth_injected: false,
            response_code: None,
            duration_ms: None,
            kind,
            seq: 0,
            worker: BROKER.into(),
            request_id: None,
            session: None,
            authority: None,
            destination: None,
            decision: None,
            reason: None,
            access_mode: None,
            credential: None,
            lease_id: None,
            fingerprint: None,
            replaced: None,
            evidence: None,
            bytes_in: None,
            bytes_out: None,
            upstream: None,
            details: None,
            masked: None,
            issued_to: None,
            asked_by: None,
            intent: None,
            ttl_ms: None,
            count: None,
            key: None,
            signature: None,
        }
    }

    /// The record of a request, as `worker` saw it.
    pub fn of_use(worker: &str, seen: UseRecord) -> Self {
        let kind = match seen.kind {
            UseKind::Use => Kind::Use,
            UseKind::Tunnel => Kind::Tunnel,
            UseKind::Deny => Kind::Deny,
            UseKind::Gap => Kind::Gap,
        };
        Self {
            session_id: seen.session_id,
            service: seen.service,
            method: Some(seen.method),
            path: Some(without_query(&seen.path)),
            auth_injected: seen.auth_injected,
            response_code: Some(seen.response_code),
            duration_ms: Some(seen.duration_ms),
            seq: seen.seq,
            worker: worker.to_owned(),
            request_id: Some(seen.request_id),
            session: seen.session,
            authority: Some(seen.authority),
            destination: seen.destination,
            decision: Some(seen.decision),
            reason: seen.reason,
            access_mode: seen.access_mode,
            credential: seen.credential,
            lease_id: seen.lease_id,
            fingerprint: seen.fingerprint,
            evidence: Some(seen.evidence),
            bytes_in: seen.bytes_in,
            bytes_out: seen.bytes_out,
            upstream: seen.upstream,
            masked: seen.masked,
            intent: seen.intent,
            ..Self::new(kind, seen.at_ms)
        }
    }

    /// The record of a request that is about to go out.
    pub fn of_intent(seen: Intent) -> Self {
        Self {
            session_id: Some(seen.session_id),
            service: Some(seen.service),
            method: Some(seen.method),
            path: Some(without_query(&seen.path)),
            request_id: Some(seen.request_id),
            session: Some(seen.session),
            authority: Some(seen.authority),
            destination: Some(seen.destination),
            access_mode: Some(seen.access_mode),
            credential: Some(seen.credential),
            lease_id: Some(seen.lease_id),
            fingerprint: Some(seen.fingerprint),
            evidence: Some(seen.evidence),
            issued_to: Some(seen.worker),
            intent: Some(seen.intent),
            ..Self::new(Kind::Intent, seen.at_ms)
        }
    }
}

/// The filter cuts the query off; whatever it does, no query value gets into the log.
fn without_query(path: &str) -> String {
    path.split('?').next().unwrap_or_default().to_owned()
}

fn as_rfc3339<S: Serializer>(at_ms: &u64, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&rfc3339(*at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_stand_in_their_order() {
        let mut record = Record::new(Kind::Issue, 0);
        record.lease_id = Some("l-1".into());
        record.ttl_ms = Some(5);
        assert_eq!(
            super::super::ascii::to_line(&mut Vec::new(), &record).unwrap(),
            concat!(
                r#"{"timestamp":"1970-01-01T00:00:00.000Z","instance":null,"session_id":null,"service":null,"#,
                r#""method":null,"path":null,"auth_injected":false,"response_code":null,"duration_ms":null,"#,
                r#""kind":"issue","seq":0,"worker":"broker","lease_id":"l-1","ttl_ms":5}"#
            )
        );
    }
}
