//! Health: alive, and ready or not, and what is wrong.

use super::answer::json_with;
use crate::audit::AuditLog;
use crate::changes::Feed;
use crate::leases::Leases;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What health is judged by.
pub struct Health {
    /// Without it nothing is granted.
    pub audit: Arc<AuditLog>,
    /// A credential that cannot be used is told, and is no reason to stop the others.
    pub leases: Arc<Leases>,
    /// Who listens.
    pub feed: Arc<Feed>,
}

/// `GET /readyz`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether grants can be made.
    pub ready: bool,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// How many workers poll the change feed.
    pub workers: usize,
}

impl Health {
    /// Whether grants can be made, and what is wrong.
    pub fn readiness(&self) -> Readiness {
        let fault = self.audit.fault();
        let standings = self.leases.standings();
        let broken = standings.iter().filter_map(|s| Some(format!("credential {}: {}", s.name, s.error.as_ref()?)));
        Readiness {
            ready: fault.is_none(),
            problems: fault.iter().map(|fault| format!("audit log: {fault}")).chain(broken).collect(),
            workers: self.feed.workers(),
        }
    }

    /// `GET /readyz`: 503 when no grant can be made.
    pub fn readyz(&self) -> Response {
        let readiness = self.readiness();
        json_with(if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &readiness)
    }
}
