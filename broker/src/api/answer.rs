//! Answers: JSON, and one mapping from errors to statuses.

use crate::audit::Unavailable;
use crate::ca::{BundleError, CaError};
use crate::changes::TooManyWorkers;
use crate::envoy::find::NotFound;
use crate::leases::LeaseError;
use crate::mutual_tls::NotYours;
use crate::operator::OperatorError;
use crate::rotation::{RotateError, RotationError};
use crate::sessions::SessionError;
use attache_core::names::Name;
use attache_core::object::object;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The body of every answer that is an error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Failure {
    /// What is wrong, for people. Never quotes what was sent.
    error: String,
}

/// Why a call was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The body is not what this call takes. Says where, never what stands there.
    #[error("the body is not valid: line {line}, column {column}")]
    Body {
        /// The line, from 1.
        line: usize,
        /// The column, from 1; 0 for the line as a whole.
        column: usize,
    },
    /// The body is too long, or did not arrive.
    #[error("{}", .0.body_text())]
    Unread(#[from] BytesRejection),
    /// The query is not what this call takes.
    #[error("the query is not valid")]
    Query,
    /// A worker, nonce or name of another form.
    #[error("{0} is not valid")]
    Field(&'static str),
    /// No such credential, where the path names one.
    #[error("no credential is called {0}: see `attache credential list`")]
    NoSuchCredential(Name),
    /// A public field of a bundle that is nowhere to be had.
    #[error("credential {0} cannot be used, and agents of this session need a field of it: {1}; {fix}", fix = .1.fix())]
    NoPublicField(Name, Arc<LeaseError>),
    /// No such route.
    #[error("there is nothing here")]
    NotFound,
    /// No, wrong or more than one token: the same answer for all.
    #[error("unauthorized")]
    Unauthorized,
    /// Somebody who may come in, and may not ask for this.
    #[error("this peer may not ask for it")]
    NotForThisPeer,
    /// A worker that is another peer's.
    #[error(transparent)]
    Worker(#[from] NotYours),
    /// The audit log is broken.
    #[error(transparent)]
    Audit(#[from] Unavailable),
    /// One worker too many.
    #[error(transparent)]
    Workers(#[from] TooManyWorkers),
    /// The session cannot be made or changed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The secret is not replaced.
    #[error(transparent)]
    Rotate(#[from] RotateError),
    /// The system's certificates are nowhere.
    #[error(transparent)]
    NoRoots(#[from] NotFound),
    /// Or cannot be read.
    #[error(transparent)]
    Roots(#[from] BundleError),
    /// What was asked for ended half-way.
    #[error("the broker failed: its log says where")]
    Failed,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::Body { .. } | ApiError::Query | ApiError::Field(_) => StatusCode::BAD_REQUEST,
            ApiError::Unread(rejection) => rejection.status(),
            ApiError::NotFound | ApiError::NoSuchCredential(_) => StatusCode::NOT_FOUND,
            ApiError::Unauthorized => StatusCode::UNAUTHORIZED,
            ApiError::NotForThisPeer | ApiError::Worker(_) => StatusCode::FORBIDDEN,
            ApiError::Audit(_) | ApiError::Workers(_) | ApiError::NoPublicField(..) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Ca(CaError::Audit(_)) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Ca(CaError::UnderWay(_)) => StatusCode::CONFLICT,
            ApiError::Ca(CaError::Overlap) => StatusCode::BAD_REQUEST,
            ApiError::Rotate(error) => match error {
                RotateError::UnderWay
                | RotateError::OldWaits(_)
                | RotateError::Failed(RotationError::RejectedWaits(_)) => StatusCode::CONFLICT,
                RotateError::Failed(RotationError::Audit(_) | RotationError::Store(_)) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                // Whoever makes the secret, or a file: the operator's own, either way.
                RotateError::Failed(_) => StatusCode::BAD_GATEWAY,
            },
            ApiError::Ca(_) | ApiError::NoRoots(_) | ApiError::Roots(_) | ApiError::Failed => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ApiError::Session(error) => match error {
                SessionError::Unknown(_) => StatusCode::NOT_FOUND,
                SessionError::Declared(_)
                // Well said; the config knows none of that name.
                | SessionError::NoSuchCredential(_)
                // Nor one that could give so much.
                | SessionError::ScopeUnused(_)
                | SessionError::NotScopable(_)
                | SessionError::NotWithin { .. }
                | SessionError::NameTaken(_)
                | SessionError::NothingToElevate(_)
                | SessionError::NothingToHold(_)
                | SessionError::ChangedMeanwhile(_) => StatusCode::CONFLICT,
                SessionError::NoCredential
                | SessionError::NoTime
                | SessionError::NoElevation => StatusCode::BAD_REQUEST,
                SessionError::Store(_) | SessionError::NoRandomness(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

impl From<OperatorError> for ApiError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Session(error) => error.into(),
            OperatorError::Audit(error) => error.into(),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(_: QueryRejection) -> Self {
        ApiError::Query
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        json_with(self.status(), &Failure { error: self.to_string() })
    }
}

/// Reads a JSON object: unknown and duplicate fields, lists of members, depth and trailing text are refused.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // The error's own text may quote the body.
    let read = || {
        let mut input = serde_json::Deserializer::from_slice(body);
        let value = object(&mut input)?;
        input.end().map(|()| value)
    };
    read().map_err(|error: serde_json::Error| ApiError::Body { line: error.line(), column: error.column() })
}

/// 200, in JSON.
pub fn json(value: &impl Serialize) -> Response {
    json_with(StatusCode::OK, value)
}

/// Any status, in JSON.
pub fn json_with(status: StatusCode, value: &impl Serialize) -> Response {
    // Plain structs with text keys cannot fail to serialise.
    answer(status, serde_json::to_vec(value).unwrap_or_default().into())
}

/// 200, in JSON that holds secrets, in `room` bytes at most: a buffer that grows leaves copies behind, and this one is
/// zeroed when it is sent.
pub fn secret_json(value: &impl Serialize, room: usize) -> Response {
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    let _ = serde_json::to_writer(&mut *body, value);
    answer(StatusCode::OK, Bytes::from_owner(body))
}

/// Nobody may keep an answer.
fn answer(status: StatusCode, body: Bytes) -> Response {
    let json = HeaderValue::from_static(attache_core::wire::JSON);
    let no_store = HeaderValue::from_static("no-store");
    (status, [(header::CONTENT_TYPE, json), (header::CACHE_CONTROL, no_store)], body).into_response()
}
