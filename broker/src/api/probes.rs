//! The door of probes and of Prometheus: three pages of plain HTTP, for anybody. It holds no secret and takes
//! nothing in; what a page costs, and how long a connection lasts, is bounded.

use super::answer::ApiError;
use super::health::healthz;
use super::{Health, Metrics};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tower_http::timeout::TimeoutLayer;

/// How long an answer may take.
const LONGEST: Duration = Duration::from_secs(5);

/// What the door leads to.
pub struct Probes {
    /// How this instance is. One asks at a time: readiness takes the database's lock.
    pub health: Mutex<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Probes {
    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(async || ApiError::NotFound)
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, LONGEST))
            .with_state(Arc::new(self))
    }
}

async fn readyz(State(door): State<Arc<Probes>>) -> Response {
    let mut readiness = door.health.lock().await.readiness().await;
    // They name files and servers, which is the operator's to know: `attache ready` tells.
    for dependency in &mut readiness.dependencies {
        (dependency.reason, dependency.fix) = (None, None);
    }
    readiness.answer()
}

async fn metrics(State(door): State<Arc<Probes>>) -> Result<Response, ApiError> {
    door.metrics.page()
}
