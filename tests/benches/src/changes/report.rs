//! What was measured, as a table and as JSON. Times are milliseconds.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::Change;
use crate::load::Count;
use crate::stats::{quantile, spread, spread_cell};

/// The targets for the 99th percentile, idle and loaded, in milliseconds.
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
            "target_met_seen_outside": self.is_seen_in_time(),
            "target_met_broker_reported": self.is_reported_in_time(),
        })
    }

    /// By the agent that asked all the while: what was refused first, and what was let through last.
    fn is_seen_in_time(&self) -> bool {
        [&self.mode.first_refused, &self.mode.last_passed].iter().all(|times| self.is_in_time(&ms(times)))
    }

    /// By the broker's own stopwatch.
    fn is_reported_in_time(&self) -> bool {
        self.is_in_time(&self.mode.waited())
    }

    fn is_in_time(&self, values: &[f64]) -> bool {
        let target = if self.load.is_none() { TARGETS.0 } else { TARGETS.1 };
        quantile(values, 0.99).is_some_and(|p99| p99 <= target)
    }
}

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| workers | load | on every worker (broker-reported) | the whole command | first refused | last let through \
         | a secret | target, seen outside | target, broker-reported |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let load = row.load.map_or("idle".to_owned(), |(count, _)| format!("{:.0} requests/s", count.rps));
        let mode = &row.mode;
        let cells = [&mode.confirmed, &mode.first_refused, &mode.last_passed, &row.credential.confirmed];
        let [confirmed, refused, passed, secret] = cells.map(|times| spread_cell(&ms(times), 1));
        let verdicts = [row.is_seen_in_time(), row.is_reported_in_time()];
        let [seen, reported] = verdicts.map(|is_met| if is_met { "met" } else { "missed" });
        let waited = spread_cell(&mode.waited(), 0);
        let workers = row.workers;
        lines.push(format!(
            "| {workers} | {load} | {waited} | {confirmed} | {refused} | {passed} | {secret} | {seen} | {reported} |"
        ));
    }
    lines.push(format!(
        "\np50 / p99 / most, in ms; the first two with half of their 95 % interval. Target: p99 of {} ms idle, {} ms loaded; \
         seen outside it is that of `first refused` \
         and of `last let through`, broker-reported that of the broker's own stopwatch.",
        TARGETS.0, TARGETS.1
    ));
    lines.join("\n")
}

fn ms(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1e3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_reports_does_not_meet_the_target_for_who_looks_from_outside() {
        let verdicts = |waited_ms: u64, first_refused: u64, last_passed: u64, load| {
            let mode = Series {
                waited_ms: vec![waited_ms],
                first_refused: vec![Duration::from_millis(first_refused)],
                last_passed: vec![Duration::from_millis(last_passed)],
                ..Series::default()
            };
            let row = Row { workers: 1, load, mode, credential: Series::default() };
            (row.is_seen_in_time(), row.is_reported_in_time())
        };
        let load = Some((Count { requests: 1, rps: 1.0, p50_us: 1.0 }, 0));
        assert_eq!(verdicts(10, 50, 50, None), (true, true));
        assert_eq!(verdicts(10, 51, 50, None), (false, true));
        assert_eq!(verdicts(10, 50, 51, None), (false, true), "another worker may be later than the first");
        assert_eq!(verdicts(51, 50, 50, None), (true, false));
        assert_eq!(verdicts(10, 150, 150, load), (true, true));
        assert_eq!(verdicts(10, 151, 150, load), (false, true));
        let nothing = Row { workers: 1, load, mode: Series::default(), credential: Series::default() };
        assert_eq!((nothing.is_seen_in_time(), nothing.is_reported_in_time()), (false, false));
    }
}
