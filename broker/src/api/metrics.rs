//! `GET /metrics`: what was counted, and how things stand at this moment, as OpenMetrics text, which
//! Prometheus reads.

use super::answer::ApiError;
use super::process::Process;
use crate::audit::AuditLog;
use crate::ca::Ca;
use crate::changes::Feed;
use crate::clock::Now;
use crate::leases::Leases;
use crate::meters::{Door, GrantMeters, OfCredential, SpanMeters};
use crate::outstanding::Outstanding;
use crate::rotation::Rotations;
use crate::sessions::Sessions;
use crate::witness::Witness;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

/// The media type of the answer.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is told, and where it is read.
pub struct Metrics {
    registry: Registry,
    watched: Watched,
    gauges: Gauges,
}

/// What is looked at when somebody asks.
pub struct Watched {
    /// Who may use what.
    pub sessions: Arc<Sessions>,
    /// The secrets.
    pub leases: Arc<Leases>,
    /// Who listens.
    pub feed: Arc<Feed>,
    /// The log.
    pub audit: Arc<AuditLog>,
    /// What has left.
    pub outstanding: Arc<Outstanding>,
    /// The authority.
    pub ca: Arc<Ca>,
    /// What is replaced.
    pub rotations: Arc<Rotations>,
    /// Whether what is secret in the state directory is sealed.
    pub sealed: bool,
    /// When the broker began.
    pub began: Now,
}

/// What is counted where it happens.
pub struct Counted<'a> {
    /// Grants.
    pub grants: &'a GrantMeters,
    /// Ways through the door of a forward proxy.
    pub tunnels: &'a GrantMeters,
    /// Spans for a collector.
    pub spans: &'a SpanMeters,
    /// Envoy's access log.
    pub witness: &'a Witness,
    /// Connections.
    pub connections: &'a Family<Door, Gauge>,
}

/// What is not counted but looked at when somebody asks.
#[derive(Default)]
struct Gauges {
    live: Gauge,
    elevated: Gauge,
    usable: Family<OfCredential, Gauge>,
    trouble: Family<OfCredential, Gauge>,
    expires: Family<OfCredential, Gauge>,
    outstanding: Gauge,
    workers: Gauge,
    behind: Gauge,
    writable: Gauge,
    sealed: Gauge,
    ca_expires: Family<[(&'static str, &'static str); 0], Gauge>,
    rotation_due: Family<OfCredential, Gauge>,
    rotation_failures: Family<OfCredential, Gauge>,
}

impl Metrics {
    /// The metrics of one broker.
    pub fn new(watched: Watched, counted: &Counted<'_>) -> Self {
        let gauges = Gauges::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process { began: seconds(watched.began.wall_ms) }));
        let all = registry.sub_registry_with_prefix("attache");
        all.register("build", "Which broker this is", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        answers(all, counted);
        credentials(all, &watched, &gauges);
        followers(all, &watched, &gauges);
        log(all, &watched, &gauges, counted.witness);
        all.register("state_sealed", "Whether the state directory is sealed (1) or not (0)", gauges.sealed.clone());
        let ends = "When the authority that signs for decrypted hosts ends, in Unix seconds";
        all.register("ca_expires_timestamp_seconds", ends, gauges.ca_expires.clone());
        all.register("connections", "Connections to a door that are open", counted.connections.clone());
        all.register("spans", "Spans for a collector, by what became of them", counted.spans.ended.clone());
        Self { registry, watched, gauges }
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
        let (Watched { sessions, feed, .. }, gauges) = (&self.watched, &self.gauges);
        let sessions = sessions.all();
        let live = || sessions.iter().filter(|session| session.state(now) == "live");
        gauges.live.set(count(live().count()));
        gauges.elevated.set(count(live().filter(|one| one.elevation(now) > Duration::ZERO).count()));
        self.look_at_credentials();
        let spread = feed.spread(feed.cursor());
        gauges.workers.set(count(spread.total));
        gauges.behind.set(count(spread.total.saturating_sub(spread.applied)));
        gauges.outstanding.set(count(self.watched.outstanding.leases()));
        gauges.writable.set(self.watched.audit.fault().is_none().into());
        gauges.sealed.set(self.watched.sealed.into());
        if let Some(ends_ms) = self.watched.ca.ends_ms() {
            gauges.ca_expires.get_or_create(&[]).set(timestamp(ends_ms));
        }
    }

    fn look_at_credentials(&self) {
        let gauges = &self.gauges;
        for standing in self.watched.leases.standings() {
            let of = OfCredential::from(&standing.name);
            let set = |family: &Family<OfCredential, Gauge>, value| {
                family.get_or_create(&of).set(value);
            };
            set(&gauges.usable, standing.error.is_none().into());
            set(&gauges.trouble, standing.trouble.is_some().into());
            match standing.expires_ms {
                Some(expires_ms) => set(&gauges.expires, timestamp(expires_ms)),
                // Another secret, of which nobody says when it ends.
                None => drop(gauges.expires.remove(&of)),
            }
        }
        for (name, standing) in self.watched.rotations.standings() {
            let of = OfCredential::from(name);
            gauges.rotation_failures.get_or_create(&of).set(standing.failures.into());
            if let Some(next_ms) = standing.next_ms {
                gauges.rotation_due.get_or_create(&of).set(timestamp(next_ms));
            }
        }
    }
}

fn answers(all: &mut Registry, counted: &Counted<'_>) {
    let Counted { grants, tunnels, .. } = counted;
    all.register("grants", "Questions for a grant, by how they were answered", grants.answered.clone());
    all.register("grant_seconds", "From such a question to its answer", grants.took.0.clone());
    let ways = "Questions for a way through the door of a forward proxy, by how they were answered";
    all.register("tunnels", ways, tunnels.answered.clone());
    all.register("tunnel_seconds", "From such a question to its answer", tunnels.took.0.clone());
}

fn credentials(all: &mut Registry, watched: &Watched, gauges: &Gauges) {
    let of_leases = watched.leases.meters();
    all.register("leases_issued", "Leases that were issued", of_leases.issued.clone());
    let outstanding = "Leases that have left the broker and may be in use, or have uses without a record";
    all.register("leases_outstanding", outstanding, gauges.outstanding.clone());
    all.register("credential_usable", "Whether a credential can be used (1) or not (0)", gauges.usable.clone());
    let expires = "When a credential ends, in Unix seconds, where its source or itself says so";
    all.register("credential_expires_timestamp_seconds", expires, gauges.expires.clone());
    let errors = "How often a credential has become unusable, or unusable for another reason";
    all.register("source_errors", errors, of_leases.errors.clone());
    let trouble = "Whether a source could not be asked, the last time, while what it said before holds (1) or not (0)";
    all.register("source_trouble", trouble, gauges.trouble.clone());
    let questions = "How often a source that has to be asked was asked for a secret, by what came of it";
    all.register("source_questions", questions, of_leases.questions.clone());
    let attempts = watched.rotations.meters().attempts.clone();
    all.register("rotations", "Attempts to replace a secret, or to retire one, by result", attempts);
    let failures = "How often a rotation has failed since something went well";
    all.register("rotation_failures", failures, gauges.rotation_failures.clone());
    let due = "When the next rotation is due, in Unix seconds";
    all.register("rotation_due_timestamp_seconds", due, gauges.rotation_due.clone());
}

fn followers(all: &mut Registry, watched: &Watched, gauges: &Gauges) {
    all.register("sessions_live", "Sessions that are neither revoked nor expired", gauges.live.clone());
    all.register("sessions_elevated", "Those of them that may write for a time", gauges.elevated.clone());
    all.register("workers", "Workers that poll the change feed", gauges.workers.clone());
    let behind = "Those of them that have not acknowledged the newest change";
    all.register("workers_behind", behind, gauges.behind.clone());
    let lost = "Workers that have fallen silent for longer than limits.stale_after: gone, or out of touch";
    all.register("workers_lost", lost, watched.feed.lost().clone());
    let applied = "From a change to its acknowledgement by one worker";
    all.register("change_applied_seconds", applied, watched.feed.applied_in().0.clone());
}

fn log(all: &mut Registry, watched: &Watched, gauges: &Gauges, witness: &Witness) {
    let (of_audit, of_witness) = (watched.audit.meters(), witness.meters());
    all.register("audit_records", "Audit records on disk, of this life", of_audit.records.clone());
    all.register("audit_sync_seconds", "Writing and syncing one batch of them", of_audit.synced.0.clone());
    all.register("audit_queue", "Appends that wait for the disk", of_audit.queued.clone());
    all.register("audit_faults", "How often the audit log has become unwritable", of_audit.faults.clone());
    all.register("audit_writable", "Whether it can be written (1) or not (0)", gauges.writable.clone());
    let explained = "Lines of Envoy's access log that a record explains";
    all.register("witness_explained", explained, of_witness.explained.clone());
    all.register("witness_waiting", "Lines and records that wait for each other", of_witness.waiting.clone());
    all.register("witness_found", "Requests that only Envoy saw", of_witness.found.clone());
    let lost = "Lines that are missing, and requests too many to record";
    all.register("witness_lost", lost, of_witness.lost.clone());
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Unix milliseconds as whole seconds.
fn timestamp(wall_ms: u64) -> i64 {
    i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX)
}

fn seconds(wall_ms: u64) -> f64 {
    Duration::from_millis(wall_ms).as_secs_f64()
}
