//! The filters' door. Every route, health and wrong paths included, asks who it is first: for the token, or over a
//! network for a certificate.

use super::answer::{ApiError, Failure, json, json_with, parse, secret_json};
use super::entrance::{Admission, Entrance};
use super::health::{self, Readiness};
use super::{Health, Metrics};
use crate::audit::AuditLog;
use crate::changes::{Feed, Poll};
use crate::config::PeerId;
use crate::grants::{Asker, Grants};
use crate::leases::Leases;
use crate::mutual_tls::Workers;
use crate::outstanding::announced_in;
use crate::publication::Publication;
use crate::sds::Sds;
use crate::sessions::Sessions;
use crate::tunnels::Tunnels;
use crate::witness::{self, Witness};
use attache_core::trace::{TRACEPARENT, TraceParent};
use attache_core::wire::{self, AuditAnswer, Changes, GrantAnswer, GrantRequest, Intent, IntentAnswer};
use attache_core::wire::{TunnelAnswer, TunnelRequest, UseRecord, WireInjection};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// What an answer with a grant takes without its injections, in bytes: members, numbers, and names of 63 bytes at most.
const GRANT_ANSWER: usize = 1024;
/// What stands around a name, a secret to inject or one to mask, in bytes, and more.
const AROUND_SECRET: usize = 32;

/// What the filters' door leads to.
pub struct DataPlane {
    /// Whose worker is whose.
    pub workers: Workers,
    /// Whose sessions they are.
    pub sessions: Arc<Sessions>,
    /// What filters decide by.
    pub policy: Arc<Publication>,
    /// Who may use a credential where.
    pub grants: Grants,
    /// What hears of secrets that services reject.
    pub leases: Arc<Leases>,
    /// Who may go where through a forward proxy.
    pub tunnels: Tunnels,
    /// What has changed.
    pub feed: Arc<Feed>,
    /// Where uses are recorded.
    pub audit: Arc<AuditLog>,
    /// What Envoy's access log is held against.
    pub witness: Arc<Witness>,
    /// Certificates on demand.
    pub sds: Arc<Sds>,
    /// How this instance is.
    pub health: Health,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl DataPlane {
    /// All routes, behind the entrance.
    pub fn behind(self, admission: Admission) -> Entrance {
        let door = Arc::new(self);
        let routes = Router::new()
            .route(wire::POLICY_PATH, get(policy))
            .route(wire::GRANTS_PATH, post(grants))
            .route(wire::TUNNELS_PATH, post(tunnels))
            .route(wire::INTENTS_PATH, post(intents))
            .route(wire::CHANGES_PATH, get(changes))
            .route(wire::AUDIT_PATH, post(audit))
            .route(witness::ACCESS_LOG_PATH, post(access_log))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(async || ApiError::NotFound)
            .with_state(door.clone())
            .merge(door.sds.router())
            .merge(witness::grpc::router(&door.witness));
        Entrance::new(admission, routes)
    }

    /// Whether this is a worker, and of whom asks.
    fn check_worker(&self, worker: &str, asker: &Asker) -> Result<(), ApiError> {
        check_worker(worker)?;
        if let Some(peer) = &asker.peer {
            self.workers
                .claim(worker, peer, asker.sight.is_narrow())
                .inspect_err(|why| tracing::warn!(worker, %peer, %why, "refused"))?;
        }
        Ok(())
    }
}

/// That the broker lives, and no more.
#[utoipa::path(get, path = "/healthz", security(("token" = [])), responses(
    (status = 200, body = String, content_type = "text/plain"), (status = 401, body = Failure),
))]
pub(super) async fn healthz() -> &'static str {
    health::healthz().await
}

/// What each thing is like that a grant depends on.
#[utoipa::path(get, path = "/readyz", security(("token" = [])), responses(
    (status = 200, body = Readiness), (status = 503, body = Readiness), (status = 401, body = Failure),
))]
pub(super) async fn readyz(State(door): State<Arc<DataPlane>>) -> Response {
    door.health.readyz().await
}

/// What is counted, as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", security(("token" = [])), responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"), (status = 401, body = Failure),
))]
pub(super) async fn metrics(State(door): State<Arc<DataPlane>>) -> Result<Response, ApiError> {
    door.metrics.page()
}

/// Everything that a filter decides by, besides grants. Its fields are `core/src/policy/spec.rs`.
#[utoipa::path(get, path = wire::POLICY_PATH, security(("token" = [])), responses(
    (status = 200, body = Object, headers(("etag" = String))), (status = 304), (status = 401, body = Failure),
))]
pub(super) async fn policy(State(door): State<Arc<DataPlane>>, headers: HeaderMap) -> Response {
    let published = door.policy.current();
    // A version is hex digits: this cannot fail.
    let etag = HeaderValue::from_str(&format!("\"{}\"", published.version()));
    let etag = etag.unwrap_or(HeaderValue::from_static("\"\""));
    let known = headers.get(header::IF_NONE_MATCH) == Some(&etag);
    let etag = [(header::ETAG, etag)];
    if known {
        return (StatusCode::NOT_MODIFIED, etag).into_response();
    }
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static(wire::JSON))];
    (etag, json, published.body).into_response()
}

/// A grant, or why there is none; after the record of it is on disk.
#[utoipa::path(post, path = wire::GRANTS_PATH, security(("token" = [])), request_body = GrantRequest, responses(
    (status = 200, body = GrantAnswer), (status = 400, body = Failure), (status = 401, body = Failure),
    (status = 413, body = Failure), (status = 503),
))]
pub(super) async fn grants(
    State(door): State<Arc<DataPlane>>,
    Traced(trace): Traced,
    Extension(asker): Extension<Asker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request: GrantRequest = parse(&body?)?;
    door.check_worker(&request.worker, &asker)?;
    check_nonce(&request.nonce)?;
    let answer = door.grants.answer(request, &asker, trace).await;
    Ok(secret_json(&answer, room_of(&answer)))
}

/// The trace that a request belongs to, if any. A filter has read it; it is read again.
pub(super) struct Traced(Option<TraceParent>);

impl<S: Sync> FromRequestParts<S> for Traced {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut told = parts.headers.get_all(TRACEPARENT).iter();
        Ok(Self(match (told.next(), told.next()) {
            (Some(one), None) => TraceParent::parse(one.as_bytes()),
            _ => None,
        }))
    }
}

/// How many bytes of JSON it is at most: a byte that is escaped takes six.
fn room_of(answer: &GrantAnswer) -> usize {
    let text = |text: &str| AROUND_SECRET + text.bytes().map(|byte| if is_plain(byte) { 1 } else { 6 }).sum::<usize>();
    let injection = |one: &WireInjection| {
        let names = one.header.iter().chain(&one.query).map(|name| text(name));
        // Exposed to be measured.
        names.sum::<usize>() + text(one.value.expose())
    };
    let granted = answer.granted.iter();
    let secrets = granted.map(|granted| {
        let masked = granted.mask.iter().map(|secret| text(secret.expose()));
        granted.injections.iter().map(injection).chain(masked).sum::<usize>()
    });
    GRANT_ANSWER + secrets.sum::<usize>()
}

/// Whether JSON writes a byte as it is.
fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// A way through the door of a forward proxy, or why there is none.
#[utoipa::path(post, path = wire::TUNNELS_PATH, security(("token" = [])), request_body = TunnelRequest, responses(
    (status = 200, body = TunnelAnswer), (status = 400, body = Failure), (status = 401, body = Failure),
    (status = 413, body = Failure), (status = 503),
))]
pub(super) async fn tunnels(
    State(door): State<Arc<DataPlane>>,
    Extension(asker): Extension<Asker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request: TunnelRequest = parse(&body?)?;
    door.check_worker(&request.worker, &asker)?;
    check_nonce(&request.nonce)?;
    if request.port == 0 {
        return Err(ApiError::Field("port"));
    }
    Ok(json(&door.tunnels.answer(request).await))
}

/// Whether a request that is about to go out is on disk.
#[utoipa::path(post, path = wire::INTENTS_PATH, security(("token" = [])), request_body = Intent, responses(
    (status = 200, body = IntentAnswer), (status = 400, body = Failure), (status = 401, body = Failure),
    (status = 413, body = Failure), (status = 503),
))]
pub(super) async fn intents(
    State(door): State<Arc<DataPlane>>,
    Extension(asker): Extension<Asker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let intent: Intent = parse(&body?)?;
    door.check_worker(&intent.worker, &asker)?;
    check_nonce(&intent.nonce)?;
    Ok(json(&door.grants.announce(intent, &asker).await))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// The worker that asks, 8 hex digits.
    #[param(pattern = "^[0-9a-f]{8}$")]
    worker: String,
    /// The life of the broker that it knows.
    #[serde(default)]
    epoch: String,
    /// The last change that it has applied.
    #[serde(default)]
    after: u64,
    /// How long it would wait, in milliseconds.
    #[serde(default)]
    wait_ms: u64,
}

/// What is void since the cursor, as soon as there is something or the wait is over.
#[utoipa::path(get, path = wire::CHANGES_PATH, security(("token" = [])), params(ChangesQuery), responses(
    (status = 200, body = Changes), (status = 400, body = Failure), (status = 401, body = Failure),
    (status = 503, body = Failure),
))]
pub(super) async fn changes(
    State(door): State<Arc<DataPlane>>,
    Extension(asker): Extension<Asker>,
    query: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ChangesQuery { worker, epoch, after, wait_ms }) = query?;
    door.check_worker(&worker, &asker)?;
    let poll = Poll { worker: &worker, epoch: &epoch, after, wait: Duration::from_millis(wait_ms) };
    let mut changes = door.feed.poll(poll).await?;
    // What concerns others is none of its business; the cursor tells that there was something.
    changes
        .changes
        .retain(|change| change.session_id.as_ref().is_none_or(|id| door.sessions.is_in_sight(&asker.sight, id)));
    Ok(json(&changes))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// The worker whose records these are, 8 hex digits.
    #[param(pattern = "^[0-9a-f]{8}$")]
    worker: String,
}

/// Up to which of a worker's records the log holds. The body has one record a line.
#[utoipa::path(post, path = wire::AUDIT_PATH, security(("token" = [])), params(AuditQuery),
    request_body(content = UseRecord, content_type = "application/x-ndjson"), responses(
    (status = 200, body = AuditAnswer), (status = 400, body = Failure), (status = 401, body = Failure),
    (status = 413, body = Failure), (status = 503, body = Failure),
))]
pub(super) async fn audit(
    State(door): State<Arc<DataPlane>>,
    Extension(asker): Extension<Asker>,
    query: Result<Query<AuditQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Query(AuditQuery { worker }) = query?;
    door.check_worker(&worker, &asker)?;
    let records = use_records(&body?)?;
    let may_tell = |record: &UseRecord| {
        // Of a use of a credential, whose it was is known.
        let names_one = record.session_id.is_some() || record.session.is_some();
        let is_of_one = record.auth_injected || record.credential.is_some() || record.lease_id.is_some();
        (names_one || !is_of_one || !asker.sight.is_narrow())
            && door.sessions.may_tell_of(&asker.sight, record.session_id.as_deref(), record.session.as_ref())
    };
    if !records.iter().all(may_tell) {
        tracing::warn!(worker, "records of a session that their peer may not ask for");
        return Err(ApiError::NotForThisPeer);
    }
    records.iter().for_each(|record| door.leases.heard(record));
    let noted = door.witness.note(&records, asker.peer.as_ref());
    let announced = announced_in(&records);
    let asked_by = asker.peer.as_ref().map(PeerId::to_string);
    let acked = door.audit.append_uses(worker.clone(), asked_by, records).await?;
    door.witness.recorded(&worker, asker.peer.as_ref(), &noted, acked);
    let ended = announced.into_iter().filter(|(seq, _)| *seq <= acked).map(|(_, intent)| intent).collect();
    door.grants.outstanding.ended_uses((&worker, asker.peer.as_ref()), &ended);
    Ok(json_with(StatusCode::OK, &AuditAnswer { acked }))
}

/// A batch of Envoy's access log. It is held against the records, and what only Envoy saw is recorded.
#[utoipa::path(post, path = witness::ACCESS_LOG_PATH, security(("token" = [])),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf",
        description = "OTLP: ExportLogsServiceRequest"), responses(
    (status = 200, body = Vec<u8>, content_type = "application/x-protobuf"), (status = 400, body = Failure),
    (status = 401, body = Failure), (status = 413, body = Failure), (status = 503),
))]
pub(super) async fn access_log(
    State(door): State<Arc<DataPlane>>,
    Extension(asker): Extension<Asker>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let entries = witness::decode(&body?).ok_or(ApiError::Field("body"))?;
    let may_tell = |of: &witness::Told| door.sessions.may_tell_of(&asker.sight, of.id.as_deref(), of.name.as_ref());
    if asker.sight.is_narrow() && !entries.iter().map(witness::session_of).all(|of| may_tell(&of)) {
        return Err(ApiError::NotForThisPeer);
    }
    door.witness.saw(entries, asker.peer.as_ref());
    // An ExportLogsServiceResponse in which nothing is rejected has no bytes.
    Ok([(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))].into_response())
}

/// One record a line; the first bad line is named.
fn use_records(body: &[u8]) -> Result<Vec<UseRecord>, ApiError> {
    let lines = body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(at, line)| parse(line).map_err(|_| ApiError::Body { line: at + 1, column: 0 })).collect()
}

fn check_nonce(nonce: &str) -> Result<(), ApiError> {
    if is_hex(nonce, 32) { Ok(()) } else { Err(ApiError::Field("nonce")) }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// In one spelling: what is counted by worker is counted once.
fn check_worker(worker: &str) -> Result<(), ApiError> {
    let is_lower = !worker.bytes().any(|b| b.is_ascii_uppercase());
    if is_hex(worker, 8) && is_lower { Ok(()) } else { Err(ApiError::Field("worker")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attache_core::Secret;
    use attache_core::names::Name;
    use attache_core::policy::AccessMode;
    use attache_core::wire::{Granted, Lease};

    #[test]
    fn an_answer_with_secrets_never_outgrows_its_room() {
        let name = || Name::parse(&"n".repeat(Name::MAX_LEN)).unwrap();
        for text in ["plain", "\"\\", "\u{1}\u{1f}\u{7f}", "\n\t\r", "ü€\u{1f511}", ""] {
            let secret = || Secret::new(text.repeat(1000));
            let injection = |header, query| WireInjection { header, query, value: secret() };
            let granted = Granted {
                as_of: u64::MAX,
                session_id: "f".repeat(32),
                session: name(),
                credential: name(),
                access_mode: AccessMode::ReadWrite,
                lease: Lease {
                    id: "l-0123456789abcdef".into(),
                    fingerprint: "0123456789abcdef".into(),
                    ttl_ms: u64::MAX,
                    refresh_after_ms: u64::MAX,
                },
                max_unacked_uses: u32::MAX,
                strict: true,
                injections: vec![injection(Some("x".repeat(256)), None), injection(None, Some("\"".repeat(256)))],
                mask: vec![secret(), secret()],
            };
            let answer = GrantAnswer { nonce: "0".repeat(32), granted: Some(granted), denied: None };
            assert!(serde_json::to_vec(&answer).unwrap().len() <= room_of(&answer), "{text:?}");
        }
    }
}
