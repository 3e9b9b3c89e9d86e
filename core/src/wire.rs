//! What filter and broker say to each other, version 1: one module for both sides.
//!
//! Lifetimes are relative and in milliseconds, counted by the reader from the time it *sent* its
//! call, so that neither a wrong clock nor a slow answer extends anything. Structs refuse unknown
//! and duplicate fields; nothing here is an internally tagged enum, which would let duplicates by.

use crate::digest::Digest;
use crate::names::Name;
use crate::object::{object, object_or_null};
use crate::policy::AccessMode;
use crate::refusal::Reason;
use crate::secret::{Secret, all_onto_the_wire, onto_the_wire};
use core::net::{IpAddr, SocketAddr};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `GET /v1/policy` → [`crate::policy::Spec`], with an `ETag`.
pub const POLICY_PATH: &str = "/v1/policy";
/// The longest policy, in bytes: Envoy keeps no more of an answer for whoever asked
/// (`http.async_response_buffer_limit`, 32 MiB by default).
pub const MOST_POLICY_BYTES: usize = 32 << 20;
/// Any other answer is no longer, in bytes.
pub const MOST_ANSWER_BYTES: usize = 16 << 20;
/// `POST /v1/grants` [`GrantRequest`] → [`GrantAnswer`].
pub const GRANTS_PATH: &str = "/v1/grants";
/// `POST /v1/tunnels` [`TunnelRequest`] → [`TunnelAnswer`].
pub const TUNNELS_PATH: &str = "/v1/tunnels";
/// `GET /v1/changes?worker=&epoch=&after=&wait_ms=` → [`Changes`].
pub const CHANGES_PATH: &str = "/v1/changes";
/// `POST /v1/intents` [`Intent`] → [`IntentAnswer`].
pub const INTENTS_PATH: &str = "/v1/intents";
/// `POST /v1/audit?worker=` with lines of [`UseRecord`] → [`AuditAnswer`].
pub const AUDIT_PATH: &str = "/v1/audit";
/// The most a batch of records may weigh, in bytes. No single record comes near it.
pub const MOST_AUDIT_BYTES: usize = 2 << 20;
/// The media type of every answer with a meaning.
pub const JSON: &str = "application/json";

/// A plugin's configuration in Envoy. No secret may ever stand in it: `/config_dump` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Which entry of the filter chain this is.
    pub role: Role,
    /// The instance it serves.
    pub instance: Name,
    /// The cluster that leads to the broker's data plane.
    pub broker_cluster: String,
    /// How long a worker believes its cache without an answered poll, in milliseconds.
    pub stale_after_ms: u64,
    /// How long a callout may take, in milliseconds.
    pub callout_timeout_ms: u64,
    /// How much of a body the judge reads, in bytes.
    pub body_limit: u32,
    /// Whether Envoy's routes match on the verdict, so that a request can only take the cluster
    /// that was decided on (`docs/decisions/0002`). Where they do not, the gate compares the
    /// cluster of the route that stands before it injects.
    pub guarded: bool,
    /// The listener's name, for sessions that are bound to one. Each listener's gate has its own
    /// configuration, and so its own root context and cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Name>,
    /// How requests reach this entry.
    #[serde(default, skip_serializing_if = "Transport::is_gateway")]
    pub transport: Transport,
    /// What is not to be had around this entry, because whoever configures this Envoy cannot say it: what takes it
    /// is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Lack>,
}

/// What may be missing around an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lack {
    /// No judge stands before the gate: nobody reads a body, and whatever seems to say what one holds is not
    /// believed.
    Judge,
}

/// How requests reach an entry, and so what names their destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// By a base URL: authority or route prefix.
    #[default]
    Gateway,
    /// By a forward proxy, as `http://`: the authority, on which the door has let it in.
    Plain,
    /// By a forward proxy, out of a tunnel that is intercepted: the authority, which is the tunnel's
    /// and that of the TLS handshake.
    Intercepted,
}

impl Transport {
    fn is_gateway(&self) -> bool {
        *self == Self::Gateway
    }
}

/// An entry of the filter chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Decides, strips, injects.
    Gate,
    /// Reads bounded bodies before the gate.
    Judge,
    /// Lets requests into a forward proxy: who asks, and the one address that the host leads to.
    Door,
}

/// Asks for a grant.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantRequest {
    /// Fresh for each call, 32 hex digits; the answer must carry it back.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9A-Fa-f]{32}$"))]
    pub nonce: String,
    /// The worker that asks, 8 hex digits.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{8}$"))]
    pub worker: String,
    /// [`crate::policy::DestinationSpec::id`].
    pub destination: String,
    /// Who asks.
    #[serde(deserialize_with = "object")]
    pub evidence: EvidenceDigests,
}

/// Asks for a way to a host, for a client of a forward proxy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TunnelRequest {
    /// Fresh for each call, 32 hex digits; the answer must carry it back.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9A-Fa-f]{32}$"))]
    pub nonce: String,
    /// The worker that asks, 8 hex digits.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{8}$"))]
    pub worker: String,
    /// The host, canonical ([`crate::matching::host::Host`]).
    pub host: String,
    /// The port.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 65_535))]
    pub port: u16,
    /// Whether the client asks by `http://`, rather than for a tunnel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
    /// Who asks. A placeholder never comes with a `CONNECT`.
    #[serde(deserialize_with = "object")]
    pub evidence: EvidenceDigests,
}

/// The broker's answer: exactly one of `granted` and `denied`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TunnelAnswer {
    /// The nonce of the request this answers.
    pub nonce: String,
    /// The way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<TunnelGranted>,
    /// Or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Denied>,
}

/// A way to a host: for whom, to which address, until when it may be entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TunnelGranted {
    /// The change cursor up to which this is known. A change with a later one voids it.
    pub as_of: u64,
    /// The session's unique id.
    pub session_id: String,
    /// The session's name.
    pub session: Name,
    /// The one address that the proxy may dial: resolved once, and vetted.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: SocketAddr,
    /// How long it may be entered, counted from the send time of the request.
    pub ttl_ms: u64,
}

/// Everything a request shows about who asks: tokens that we gave out as digests, the rest as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EvidenceDigests {
    /// SHA-256 of the placeholder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<Digest>,
    /// SHA-256 of the session token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Digest>,
    /// The JWT.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_null")]
    pub jwt: Option<ShownJwt>,
    /// The URI in the certificate of the connection's peer, which Envoy has verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Where the connection comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = address))]
    pub source: Option<IpAddr>,
    /// The listener it came in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Name>,
}

/// An IP address or `null`, as OpenAPI says it.
#[cfg(feature = "openapi")]
fn address() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, Type};
    let text = |format| ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)));
    let kinds = OneOfBuilder::new().item(text(KnownFormat::Ipv4)).item(text(KnownFormat::Ipv6));
    kinds.item(ObjectBuilder::new().schema_type(Type::Null)).build().into()
}

/// A JWT as a request shows it. Whoever holds it is whom it names until it expires, so no `Debug`
/// prints it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShownJwt {
    /// The header it stands in, lower-case.
    pub header: String,
    /// The token, as it stands there.
    pub token: String,
}

impl fmt::Debug for ShownJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownJwt").field("header", &self.header).finish_non_exhaustive()
    }
}

impl EvidenceDigests {
    /// Whether something that was shown names a session by itself, rather than the connection alone.
    pub fn is_named(&self) -> bool {
        self.placeholder.is_some() || self.session_token.is_some() || self.jwt.is_some()
    }

    /// Which evidence was shown, as records say it.
    pub fn word(&self) -> String {
        let Self { placeholder, session_token, jwt, peer, source, listener } = self;
        evidence_word([
            placeholder.is_some(),
            session_token.is_some(),
            jwt.is_some(),
            peer.is_some(),
            source.is_some(),
            listener.is_some(),
        ])
    }
}

/// Which evidence was shown, as records say it: `placeholder+peer`, or `none`.
pub(crate) fn evidence_word(shown: [bool; 6]) -> String {
    const KINDS: [&str; 6] = ["placeholder", "session_token", "jwt", "peer", "source", "listener"];
    let kinds: Vec<_> = KINDS.into_iter().zip(shown).filter(|(_, shown)| *shown).map(|(kind, _)| kind).collect();
    if kinds.is_empty() { "none".into() } else { kinds.join("+") }
}

/// The broker's answer: exactly one of `granted` and `denied`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantAnswer {
    /// The nonce of the request this answers.
    pub nonce: String,
    /// The grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Granted>,
    /// Or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Denied>,
}

/// A grant: what may be injected, for whom, until when.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Granted {
    /// The change cursor up to which this grant knows. A change with a later one voids it.
    pub as_of: u64,
    /// The session's unique id.
    pub session_id: String,
    /// The session's name.
    pub session: Name,
    /// The credential.
    pub credential: Name,
    /// What the session may do.
    pub access_mode: AccessMode,
    /// The lease this grant draws on.
    pub lease: Lease,
    /// A worker with this many uses not yet acknowledged refuses more.
    pub max_unacked_uses: u32,
    /// Whether each use must be on record before it begins ([`Intent`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// What enters the request.
    pub injections: Vec<WireInjection>,
    /// What the agent must not get back ([`crate::masking`]); none where masking is off.
    #[serde(serialize_with = "all_onto_the_wire")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub mask: Vec<Secret>,
}

/// The bounded right to use one version of a secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// Unique id.
    pub id: String,
    /// [`crate::digest::fingerprint`] of the secret.
    pub fingerprint: String,
    /// How long the grant may be used, counted from the send time of the request.
    pub ttl_ms: u64,
    /// When a grant in use is asked for anew, counted likewise.
    pub refresh_after_ms: u64,
}

/// One change to a request: exactly one of `header` and `query`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WireInjection {
    /// Set this header, by its lower-case name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Set this query parameter; the value is already percent-encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The value, the secret in it, encoded for its position.
    #[serde(serialize_with = "onto_the_wire")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub value: Secret,
}

/// A refusal by the broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Denied {
    /// Why.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: Reason,
}

/// The change feed's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changes {
    /// Names one life of the broker. Another epoch voids everything cached.
    pub epoch: String,
    /// The newest change; the next poll's `after`, which acknowledges it.
    pub cursor: u64,
    /// The policy in force.
    pub policy: String,
    /// Changes after the poll's cursor, oldest first.
    pub changes: Vec<Change>,
}

/// One change: grants of this session, or of this credential, are void. With neither, all are.
/// Streams that are open go on, unless something was taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Its place in the feed.
    pub cursor: u64,
    /// The session whose grants are void ([`Granted::session_id`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The credential whose grants are void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Name>,
    /// Only those at this destination ([`crate::policy::DestinationSpec::id`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What is left to streams that are open on those grants; absent: all that they had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

impl Change {
    /// Whether it is about ways that this session was let through by.
    pub fn concerns_session(&self, session_id: &str) -> bool {
        match (&self.session_id, &self.credential) {
            (None, None) => true,
            (session, _) => session.as_deref() == Some(session_id),
        }
    }

    /// Whether it is about grants of this session, for this credential, at this destination.
    pub fn concerns(&self, session_id: &str, credential: &Name, destination: &str) -> bool {
        let whose = match (&self.session_id, &self.credential) {
            (None, None) => true,
            (session, of) => {
                session.as_deref().is_some_and(|s| s == session_id) || of.as_ref().is_some_and(|c| c == credential)
            }
        };
        whose && self.destination.as_deref().is_none_or(|at| at == destination)
    }
}

/// What a session that was narrowed may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Left {
    /// Proven reads.
    Reads,
    /// What names its session by itself, rather than by its connection alone: another session is bound
    /// to the same.
    Named,
    /// Nothing: it is over.
    Nothing,
}

/// Announces one use of a grant that is `strict`: the request goes out once this is on disk.
///
/// Text fields are as in [`UseRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Intent {
    /// Fresh for each call, 32 hex digits; the answer must carry it back.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9A-Fa-f]{32}$"))]
    pub nonce: String,
    /// The worker that asks, 8 hex digits.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{8}$"))]
    pub worker: String,
    /// Names the request among those that this worker has announced, from 1.
    pub intent: u64,
    /// When the request arrived: Unix time in milliseconds, by the worker's wall clock.
    pub at_ms: u64,
    /// Envoy's `x-request-id`.
    pub request_id: String,
    /// The method.
    pub method: String,
    /// The authority, as sent.
    pub authority: String,
    /// The path without its query.
    pub path: String,
    /// Which evidence was shown: [`EvidenceDigests::word`].
    pub evidence: String,
    /// The destination's id.
    pub destination: String,
    /// [`crate::policy::BindingSpec::service`].
    pub service: String,
    /// The session's id.
    pub session_id: String,
    /// The session's name.
    pub session: Name,
    /// What the session may do.
    pub access_mode: AccessMode,
    /// The credential.
    pub credential: Name,
    /// The lease that would be used.
    pub lease_id: String,
    /// The secret's fingerprint.
    pub fingerprint: String,
}

/// Whether an [`Intent`] is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntentAnswer {
    /// The nonce of the intent this answers.
    pub nonce: String,
    /// `false`: the log cannot be written, or is too far behind.
    pub recorded: bool,
}

/// Says up to which record the broker holds durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditAnswer {
    /// [`UseRecord::seq`] of the last record written.
    pub acked: u64,
}

/// One request, as the filter saw it: a line of `POST /v1/audit`.
///
/// Text fields are printable ASCII; everything else is escaped by [`crate::audit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UseRecord {
    /// Counts this worker's records from 1, without gaps.
    pub seq: u64,
    /// `use`, `tunnel`, `deny` or `gap`.
    pub kind: UseKind,
    /// When the request arrived: Unix time in milliseconds, by the worker's wall clock.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Envoy's `x-request-id`.
    pub request_id: String,
    /// The method.
    pub method: String,
    /// The authority, as sent.
    pub authority: String,
    /// The path without its query.
    pub path: String,
    /// `forward`, `pass` or `refuse`; of a tunnel, `intercept` or `tunnel`.
    pub decision: String,
    /// [`Reason`], for a refusal and for a use that was cut short; for a gap, how many records were
    /// dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The status the agent got; 0 if it left before there was one.
    #[cfg_attr(feature = "openapi", schema(maximum = 65_535))]
    pub response_code: u16,
    /// How often the answer held the credential, which was masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<u64>,
    /// Whether a credential went upstream.
    pub auth_injected: bool,
    /// [`Intent::intent`], where the request was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    /// What went through a tunnel from the agent, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// What went through it to the agent, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// The address that was vetted for a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Which evidence was shown: [`EvidenceDigests::word`].
    pub evidence: String,
    /// The destination's id, where one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// [`crate::policy::BindingSpec::service`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The session's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Name>,
    /// What the session was allowed to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// The credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Name>,
    /// The lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The secret's fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// What a [`UseRecord`] records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum UseKind {
    /// A request that was forwarded.
    Use,
    /// A request that was refused.
    Deny,
    /// A client that was let in at the door of a forward proxy.
    Tunnel,
    /// Refusals that were dropped because too many awaited the broker.
    Gap,
}

#[cfg(test)]
mod tests;
