//! The filters' door. Every route, health and wrong paths included, asks for the token first.

use super::Health;
use super::answer::{ApiError, json, json_with, parse};
use crate::audit::AuditLog;
use crate::changes::{Feed, Poll};
use crate::grants::Grants;
use crate::publication::Publication;
use attache_core::Secret;
use attache_core::wire::{self, AuditAnswer, GrantRequest, MOST_AUDIT_BYTES, UseRecord};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tower_http::timeout::TimeoutLayer;

/// Longest request for a grant, in bytes.
const GRANT_BODY: usize = 64 * 1024;
/// How long a body may take to arrive and be answered.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What the filters' door leads to.
pub struct DataPlane {
    token: Secret,
    policy: Arc<Publication>,
    grants: Grants,
    feed: Arc<Feed>,
    audit: Arc<AuditLog>,
    health: Health,
}

impl DataPlane {
    /// The door to one instance.
    pub fn new(
        token: Secret,
        policy: Arc<Publication>,
        grants: Grants,
        feed: Arc<Feed>,
        audit: Arc<AuditLog>,
        health: Health,
    ) -> Self {
        Self { token, policy, grants, feed, audit, health }
    }

    /// All routes.
    pub fn router(self) -> Router {
        let door = Arc::new(self);
        let timeout = TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, BODY_TIME);
        let bodies = Router::new()
            .route(wire::GRANTS_PATH, post(grants).layer(DefaultBodyLimit::max(GRANT_BODY)))
            .route(wire::AUDIT_PATH, post(audit).layer(DefaultBodyLimit::max(MOST_AUDIT_BYTES)))
            .layer(timeout);
        let routes = Router::new()
            .route(wire::POLICY_PATH, get(policy))
            .route(wire::CHANGES_PATH, get(changes))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(async |State(door): State<Arc<DataPlane>>| door.health.readyz()))
            .merge(bodies)
            .fallback(async || ApiError::NotFound)
            .with_state(door.clone());
        // Around the router, not on its routes: not even which methods a path takes shows without the token.
        Router::new().fallback_service(routes).layer(middleware::from_fn_with_state(door, authenticate))
    }
}

async fn authenticate(State(door): State<Arc<DataPlane>>, request: Request, next: Next) -> Response {
    let mut shown = request.headers().get_all(header::AUTHORIZATION).iter();
    let token = match (shown.next(), shown.next()) {
        (Some(one), None) => one.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default(),
        _ => &[],
    };
    // Exposed to the comparison, which takes as long for any token of this length.
    if bool::from(token.ct_eq(door.token.expose().as_bytes())) {
        next.run(request).await
    } else {
        // Strangers hold no connection.
        ([(header::CONNECTION, "close")], ApiError::Unauthorized).into_response()
    }
}

async fn policy(State(door): State<Arc<DataPlane>>, headers: HeaderMap) -> Response {
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

async fn grants(State(door): State<Arc<DataPlane>>, body: Result<Bytes, BytesRejection>) -> Result<Response, ApiError> {
    let request: GrantRequest = parse(&body?)?;
    check_worker(&request.worker)?;
    if !is_hex(&request.nonce, 32) {
        return Err(ApiError::Field("nonce"));
    }
    Ok(json(&door.grants.answer(request).await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangesQuery {
    worker: String,
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn changes(
    State(door): State<Arc<DataPlane>>,
    query: Result<Query<ChangesQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ChangesQuery { worker, epoch, after, wait_ms }) = query?;
    check_worker(&worker)?;
    let poll = Poll { worker: &worker, epoch: &epoch, after, wait: Duration::from_millis(wait_ms) };
    Ok(json(&door.feed.poll(poll).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    worker: String,
}

async fn audit(
    State(door): State<Arc<DataPlane>>,
    query: Result<Query<AuditQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Query(AuditQuery { worker }) = query?;
    check_worker(&worker)?;
    let records = use_records(&body?)?;
    let acked = door.audit.append_uses(worker, records).await?;
    Ok(json_with(StatusCode::OK, &AuditAnswer { acked }))
}

/// One record a line; the first bad line is named.
fn use_records(body: &[u8]) -> Result<Vec<UseRecord>, ApiError> {
    let lines = body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(at, line)| parse(line).map_err(|_| ApiError::Body { line: at + 1, column: 0 })).collect()
}

fn check_worker(worker: &str) -> Result<(), ApiError> {
    if is_hex(worker, 8) { Ok(()) } else { Err(ApiError::Field("worker")) }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}
