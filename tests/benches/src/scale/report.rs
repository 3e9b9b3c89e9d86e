//! What was measured, as a table and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::estimate::Figure;

/// All sizes of one axis, reached in one way.
#[derive(Debug)]
pub struct Series {
    /// What there are many of.
    pub axis: &'static str,
    /// How a destination is named.
    pub way: &'static str,
    /// By size.
    pub rows: Vec<Row>,
}

/// One size.
#[derive(Debug)]
pub struct Row {
    /// How many.
    pub size: usize,
    /// Envoy's CPU in µs for each request.
    pub cpu: Option<Figure>,
    /// The same, over that of the smallest.
    pub cpu_ratio: Option<Figure>,
    /// Throughput over that of the smallest.
    pub rps_ratio: Option<Figure>,
    /// Clean slices, and all.
    pub counts: (usize, usize),
    /// What the others are held against; its ratios are the method's own error.
    pub is_base: bool,
    /// All requests of its slices.
    pub requests: u64,
    /// Grants that were issued meanwhile.
    pub renewed: usize,
    /// Until the broker served.
    pub broker_started: Duration,
    /// Until Envoy was live.
    pub envoy_started: Duration,
    /// Envoy's memory.
    pub envoy_bytes: u64,
    /// The broker's.
    pub broker_bytes: u64,
    /// Envoy's CPU time while nobody asks, of each second.
    pub idle: Duration,
    /// Sessions that ask: no more than a worker keeps grants for.
    pub asking: usize,
}

impl Series {
    /// All that was found.
    pub fn to_json(&self) -> Value {
        json!({"many": self.axis, "by": self.way, "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>()})
    }
}

impl Row {
    /// Whether both ratios could be those of no difference.
    fn is_flat(&self) -> Option<bool> {
        let holds_one = |figure: Option<Figure>| figure?.interval.map(|(low, high)| low <= 1.0 && 1.0 <= high);
        Some(holds_one(self.cpu_ratio)? && holds_one(self.rps_ratio)?)
    }

    fn to_json(&self) -> Value {
        let figure = |figure: Option<Figure>| figure.map(Figure::to_json);
        json!({
            "size": self.size,
            "cpu_us": figure(self.cpu),
            "cpu_vs_smallest": figure(self.cpu_ratio),
            "rps_vs_smallest": figure(self.rps_ratio),
            "within_the_error": self.is_flat(),
            "slices_clean": self.counts.0,
            "slices_total": self.counts.1,
            "requests": self.requests,
            "grants_renewed": self.renewed,
            "broker_started_ms": self.broker_started.as_millis() as u64,
            "envoy_started_ms": self.envoy_started.as_millis() as u64,
            "envoy_bytes": self.envoy_bytes,
            "broker_bytes": self.broker_bytes,
            "idle_cpu_ms_a_second": self.idle.as_secs_f64() * 1e3,
            "sessions_asking": self.asking,
        })
    }

    fn to_line(&self, series: &Series) -> String {
        let show =
            |figure: Option<Figure>, decimals: usize| figure.map_or("-".to_owned(), |figure| figure.to_text(decimals));
        let flat = match (self.is_base, self.is_flat()) {
            (true, _) => "is the error",
            (false, Some(true)) => "within the error",
            (false, Some(false)) => "outside",
            (false, None) => "-",
        };
        let (clean, total) = self.counts;
        let [broker, envoy] = [self.broker_started, self.envoy_started].map(|time| time.as_secs_f64());
        format!(
            "| {} {} | {} | {} | {} | {} | {flat} | {clean}/{total} | {broker:.1} s, {envoy:.1} s | {} MB | {} MB | {:.0} |",
            self.size,
            series.axis,
            series.way,
            show(self.cpu, 0),
            show(self.cpu_ratio, 2),
            show(self.rps_ratio, 2),
            self.envoy_bytes / 1_000_000,
            self.broker_bytes / 1_000_000,
            self.idle.as_secs_f64() * 1e3,
        )
    }
}

/// The table, in Markdown.
pub fn table(all: &[Series]) -> String {
    let mut lines = vec![
        "| | by | CPU µs | CPU vs smallest | rps vs smallest | | clean | broker, Envoy start in | Envoy has | broker has | Envoy idle, ms/s |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(all.iter().flat_map(|series| series.rows.iter().map(|row| row.to_line(series))));
    if all.iter().flat_map(|series| &series.rows).any(|row| row.cpu_ratio.is_some_and(|figure| figure.rough)) {
        lines.push("\n~ rough: too few clean slices, all were used".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_is_what_could_be_no_difference() {
        let figure = |low: f64, high: f64| {
            Some(Figure { median: (low + high) / 2.0, interval: Some((low, high)), rough: false })
        };
        let row = |cpu_ratio, rps_ratio| Row {
            size: 1,
            cpu: None,
            cpu_ratio,
            rps_ratio,
            counts: (6, 6),
            is_base: false,
            requests: 1,
            renewed: 0,
            broker_started: Duration::ZERO,
            envoy_started: Duration::ZERO,
            envoy_bytes: 0,
            broker_bytes: 0,
            idle: Duration::ZERO,
            asking: 1,
        };
        assert_eq!(row(figure(0.9, 1.1), figure(0.95, 1.02)).is_flat(), Some(true));
        assert_eq!(row(figure(1.05, 1.1), figure(0.95, 1.02)).is_flat(), Some(false));
        assert_eq!(row(figure(0.9, 1.1), None).is_flat(), None);
    }
}
