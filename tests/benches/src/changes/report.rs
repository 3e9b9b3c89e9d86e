//! What was measured, as a table and as JSON. Times are milliseconds.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::Change;
use crate::load::Count;
use crate::stats::quantile;

/// The targets for the 99th percentile of what a command reports, idle and loaded, in milliseconds.
const TARGETS: (f64, f64) = (50.0, 150.0);

/// One Envoy, idle or loaded.
#[derive(Debug)]
pub struct Row {
    /// Its worker threads.
    pub workers: u32,
    /// What the load made, and how many of its requests failed.
    pub load: Option<(Count, u64)>,
    /// Changes of an access mode.
    pub mode: Series,
    /// Changes of a secret.
    pub credential: Series,
}

/// Many changes of one kind.
#[derive(Debug, Default)]
pub struct Series {
    /// From the question until the answer that every worker has confirmed.
    confirmed: Vec<Duration>,
    /// How much of that the broker waited for workers, in its own words.
    waited_ms: Vec<u64>,
    /// From the question until the first answer that refused.
    pub first_refused: Vec<Duration>,
    /// From the question until the last request began that was let through.
    pub last_passed: Vec<Duration>,
    /// Between two probes.
    pub gaps: Vec<Duration>,
    /// Probes that nobody could decide about in time.
    pub unavailable: usize,
}

impl Series {
    /// One more.
    pub fn confirmed(&mut self, change: &Change) {
        self.confirmed.push(change.returned - change.began);
        self.waited_ms.push(change.took_ms);
    }

    fn waited(&self) -> Vec<f64> {
        self.waited_ms.iter().map(|ms| *ms as f64).collect()
    }
}

impl Row {
    /// The row with all that was found.
    pub fn to_json(&self) -> Value {
        json!({
            "workers": self.workers,
            "load_rps": self.load.map(|(count, _)| count.rps),
            "load_failed": self.load.map(|(_, failed)| failed),
            "unavailable": self.mode.unavailable,
            "changes": self.mode.confirmed.len(),
            "confirmed_ms": spread(&ms(&self.mode.confirmed)),
            "broker_waited_ms": spread(&self.mode.waited()),
            "first_refused_ms": spread(&ms(&self.mode.first_refused)),
            "last_let_through_ms": spread(&ms(&self.mode.last_passed)),
            "between_probes_ms": spread(&ms(&self.mode.gaps)),
            "credential_changes": self.credential.confirmed.len(),
            "credential_confirmed_ms": spread(&ms(&self.credential.confirmed)),
            "target_met": self.meets_target(),
        })
    }

    fn meets_target(&self) -> bool {
        let target = if self.load.is_none() { TARGETS.0 } else { TARGETS.1 };
        quantile(&self.mode.waited(), 0.99).is_some_and(|p99| p99 <= target)
    }
}

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| workers | load | on every worker | the whole command | first refused | last let through | a secret | target |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let load = row.load.map_or("idle".to_owned(), |(count, _)| format!("{:.0} requests/s", count.rps));
        let mode = &row.mode;
        let cells = [&mode.confirmed, &mode.first_refused, &mode.last_passed, &row.credential.confirmed];
        let [confirmed, refused, passed, secret] = cells.map(|times| cell(&ms(times)));
        let target = if row.meets_target() { "met" } else { "missed" };
        let waited = cell(&mode.waited());
        let workers = row.workers;
        lines.push(format!(
            "| {workers} | {load} | {waited} | {confirmed} | {refused} | {passed} | {secret} | {target} |"
        ));
    }
    lines.push("\np50 / p99 / most, in ms.".to_owned());
    lines.join("\n")
}

fn cell(values: &[f64]) -> String {
    let at = |p| quantile(values, p).map_or("-".to_owned(), |value| format!("{value:.1}"));
    format!("{} / {} / {}", at(0.5), at(0.99), at(1.0))
}

fn spread(values: &[f64]) -> Value {
    json!({"p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "most": quantile(values, 1.0)})
}

fn ms(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1e3).collect()
}
