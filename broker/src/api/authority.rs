//! The certificate authority, as operators ask for it. No answer holds a key.

use super::answer::{Failure, json, parse};
use super::control::{Answer, Body, Door, whole};
use super::view::RotateAuthority;
use crate::ca::{AuthorityView, OVERLAP, bundle};
use crate::envoy::find;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse as _;
use std::time::Duration;

/// The media type of certificates in PEM (RFC 8555, 9.1).
const PEM: &str = "application/pem-certificate-chain";

/// All authorities that clients have to trust. The first one is made, if there is none.
#[utoipa::path(get, path = "/v1/ca", responses(
    (status = 200, body = Vec<AuthorityView>), (status = 503, body = Failure),
))]
pub(super) async fn show(State(door): Door) -> Answer {
    Ok(json(&whole(async move { door.ca.show().await }).await??))
}

/// What a client's CA variable points to: the certificates that the system trusts, and ours.
#[utoipa::path(get, path = "/v1/ca/bundle", responses(
    (status = 200, body = String, content_type = "application/pem-certificate-chain"),
    (status = 503, body = Failure),
))]
pub(super) async fn trusted(State(door): Door) -> Answer {
    let ours = whole(async move { door.ca.export().await }).await??;
    let all = bundle(&find::system_roots()?, &ours)?;
    Ok(([(header::CONTENT_TYPE, PEM), (header::CACHE_CONTROL, "no-store")], all).into_response())
}

/// Makes the next authority. Both are trusted from now on; it signs when the overlap is over.
#[utoipa::path(post, path = "/v1/ca/rotate", request_body = RotateAuthority, responses(
    (status = 200, body = Vec<AuthorityView>), (status = 400, body = Failure), (status = 409, body = Failure),
    (status = 413, body = Failure), (status = 503, body = Failure),
))]
pub(super) async fn rotate(State(door): Door, body: Body) -> Answer {
    let RotateAuthority { overlap_ms } = parse(&body?)?;
    let overlap = overlap_ms.map_or(OVERLAP, Duration::from_millis);
    Ok(json(&whole(async move { door.ca.rotate(overlap).await }).await??))
}
