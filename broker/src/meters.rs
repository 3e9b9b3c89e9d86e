//! What is counted where it happens, for `GET /metrics`.
//!
//! Each part of the broker has its own meters; nothing is global, so two brokers of one process count
//! apart. A label is one of few known words or a credential's name, which the config bounds: no
//! session, no worker, no lease, and nothing that an agent showed.

use crate::sources::Questions;
use attache_core::names::Name;
use attache_core::refusal::Reason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

/// The upper bounds of all histograms, in seconds: from a grant that is in memory to the longest wait
/// for a worker.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How a question for a grant, or for a way, was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    outcome: &'static str,
    /// The word of the refusal; empty where there is none.
    reason: &'static str,
}

/// A credential of the config.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfCredential {
    credential: String,
}

impl From<&Name> for OfCredential {
    fn from(name: &Name) -> Self {
        Self { credential: name.to_string() }
    }
}

/// A door of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Door {
    /// `data-plane`, `control` or `health`.
    pub door: &'static str,
}

/// How long something takes, in seconds.
#[derive(Clone, Debug)]
pub struct Seconds(pub Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Self(Histogram::new(SECONDS))
    }
}

impl Seconds {
    /// It took so long.
    pub fn observe(&self, length: Duration) {
        self.0.observe(length.as_secs_f64());
    }
}

/// Grants, or ways through the door of a forward proxy.
#[derive(Clone, Debug, Default)]
pub struct GrantMeters {
    /// Answers, by outcome.
    pub answered: Family<Outcome, Counter>,
    /// From the question to the answer; for a grant, the record on disk included.
    pub took: Seconds,
}

impl GrantMeters {
    /// A question was answered: with what was asked for, or with a refusal.
    pub fn answered(&self, refused: Option<Reason>, took: Duration) {
        let outcome = if refused.is_some() { "denied" } else { "granted" };
        let reason = refused.map_or("", Reason::as_str);
        self.answered.get_or_create(&Outcome { outcome, reason }).inc();
        self.took.observe(took);
    }
}

/// Leases and the sources they draw on.
#[derive(Clone, Debug, Default)]
pub struct LeaseMeters {
    /// Leases, by credential.
    pub issued: Family<OfCredential, Counter>,
    /// How often a credential has become unusable, or unusable for another reason.
    pub errors: Family<OfCredential, Counter>,
    /// How often a source that has to be asked was asked for a secret.
    pub questions: Questions,
}

/// Envoy's access log, held against the records.
#[derive(Clone, Debug, Default)]
pub struct WitnessMeters {
    /// Lines that a record explains.
    pub explained: Counter,
    /// Lines, and records, that wait for each other.
    pub waiting: Gauge,
    /// What was found and is recorded.
    pub found: Counter,
    /// Lines that are missing, and findings that were not kept.
    pub lost: Counter,
}

/// What became of a span.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SpanEnd {
    /// `exported`, `rejected` or `dropped`.
    pub result: &'static str,
}

/// Spans for a collector.
#[derive(Clone, Debug, Default)]
pub struct SpanMeters {
    /// Spans, by what became of them.
    pub ended: Family<SpanEnd, Counter>,
}

impl SpanMeters {
    /// That became of so many.
    pub fn ended(&self, result: &'static str, many: usize) {
        self.ended.get_or_create(&SpanEnd { result }).inc_by(many as u64);
    }
}

/// The audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditMeters {
    /// Records on disk.
    pub records: Counter,
    /// Writing and syncing one batch.
    pub synced: Seconds,
    /// Appends that wait for the disk.
    pub queued: Gauge,
    /// How often the log has become unwritable.
    pub faults: Counter,
}
