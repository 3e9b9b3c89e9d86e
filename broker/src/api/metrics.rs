//! `GET /metrics`: what was counted, and how things stand at this moment, as OpenMetrics text, which
//! Prometheus reads.

use super::answer::ApiError;
use crate::audit::AuditLog;
use crate::changes::Feed;
use crate::clock::Now;
use crate::leases::Leases;
use crate::meters::{Door, GrantMeters, OfCredential};
use crate::rotation::Rotations;
use crate::sessions::Sessions;
use crate::witness::Witness;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// The media type of the answer.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is told, and where it is read.
pub struct Metrics {
    registry: Registry,
    sessions: Arc<Sessions>,
    leases: Arc<Leases>,
    feed: Arc<Feed>,
    audit: Arc<AuditLog>,
    rotations: Option<Arc<Rotations>>,
    gauges: Gauges,
}

/// What is not counted but looked at when somebody asks.
#[derive(Default)]
struct Gauges {
    live: Gauge,
    elevated: Gauge,
    usable: Family<OfCredential, Gauge>,
    workers: Gauge,
    writable: Gauge,
    rotation_due: Family<OfCredential, Gauge>,
}

impl Metrics {
    /// The metrics of one broker.
    pub fn new(
        [grants, tunnels]: [&GrantMeters; 2],
        sessions: Arc<Sessions>,
        leases: Arc<Leases>,
        feed: Arc<Feed>,
        audit: Arc<AuditLog>,
        witness: &Witness,
        connections: &Family<Door, Gauge>,
    ) -> Self {
        let (gauges, of_leases, of_audit) = (Gauges::default(), leases.meters(), audit.meters());
        let mut all = Registry::with_prefix("attache");
        all.register("grants", "Questions for a grant, by how they were answered", grants.answered.clone());
        all.register("grant_seconds", "From such a question to its answer", grants.took.0.clone());
        let ways = "Questions for a way through the door of a forward proxy, by how they were answered";
        all.register("tunnels", ways, tunnels.answered.clone());
        all.register("tunnel_seconds", "From such a question to its answer", tunnels.took.0.clone());
        all.register("leases_issued", "Leases that were issued", of_leases.issued.clone());
        all.register("credential_usable", "Whether a credential can be used (1) or not (0)", gauges.usable.clone());
        let errors = "How often a credential has become unusable, or unusable for another reason";
        all.register("source_errors", errors, of_leases.errors.clone());
        let questions = "How often a source that has to be asked was asked for a secret, by what came of it";
        all.register("source_questions", questions, of_leases.questions.clone());
        all.register("sessions_live", "Sessions that are neither revoked nor expired", gauges.live.clone());
        all.register("sessions_elevated", "Those of them that may write for a time", gauges.elevated.clone());
        all.register("workers", "Workers that poll the change feed", gauges.workers.clone());
        let applied = "From a change to its acknowledgement by one worker";
        all.register("change_applied_seconds", applied, feed.applied_in().0.clone());
        all.register("audit_records", "Audit records on disk, of this life", of_audit.records.clone());
        all.register("audit_sync_seconds", "Writing and syncing one batch of them", of_audit.synced.0.clone());
        all.register("audit_queue", "Appends that wait for the disk", of_audit.queued.clone());
        all.register("audit_faults", "How often the audit log has become unwritable", of_audit.faults.clone());
        all.register("audit_writable", "Whether it can be written (1) or not (0)", gauges.writable.clone());
        let of_witness = witness.meters();
        let explained = "Lines of Envoy's access log that a record explains";
        all.register("witness_explained", explained, of_witness.explained.clone());
        let waiting = "Lines and records that wait for each other";
        all.register("witness_waiting", waiting, of_witness.waiting.clone());
        all.register("witness_found", "Requests that only Envoy saw", of_witness.found.clone());
        all.register(
            "witness_lost",
            "Lines that are missing, and requests too many to record",
            of_witness.lost.clone(),
        );
        all.register("connections", "Connections to a door that are open", connections.clone());
        Self { registry: all, sessions, leases, feed, audit, rotations: None, gauges }
    }

    /// And those of rotations.
    pub fn with(mut self, rotations: Arc<Rotations>) -> Self {
        let attempts = rotations.meters().attempts.clone();
        self.registry.register("rotations", "Attempts to replace a secret, or to retire one, by result", attempts);
        let due = "When the next rotation is due, in Unix seconds";
        self.registry.register("rotation_due_timestamp_seconds", due, self.gauges.rotation_due.clone());
        self.rotations = Some(rotations);
        self
    }

    /// `GET /metrics`.
    pub fn page(&self) -> Result<Response, ApiError> {
        self.look(Now::read());
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(|_| ApiError::Failed)?;
        let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS)), no_store], text).into_response())
    }

    fn look(&self, now: Now) {
        let sessions = self.sessions.all();
        let live = || sessions.iter().filter(|session| session.state(now) == "live");
        self.gauges.live.set(count(live().count()));
        self.gauges.elevated.set(count(live().filter(|one| one.elevation(now) > Duration::ZERO).count()));
        for standing in self.leases.standings() {
            let usable = self.gauges.usable.get_or_create(&OfCredential::from(&standing.name)).clone();
            usable.set(standing.error.is_none().into());
        }
        for (name, standing) in self.rotations.iter().flat_map(|rotations| rotations.standings()) {
            if let Some(next_ms) = standing.next_ms {
                let due = self.gauges.rotation_due.get_or_create(&name.into()).clone();
                due.set(i64::try_from(next_ms / 1000).unwrap_or(i64::MAX));
            }
        }
        self.gauges.workers.set(count(self.feed.workers()));
        self.gauges.writable.set(self.audit.fault().is_none().into());
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
