//! What was measured, as a table and as JSON. Times are milliseconds after the first request was written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Kind;
use super::client::Shot;
use crate::stats::{median, median_interval, quantile};

/// Of those that were served: the first, half, 99 % and all had their answers after these.
const SHARES: [f64; 4] = [0.0, 0.5, 0.99, 1.0];

/// Bursts of one kind.
#[derive(Debug)]
pub struct Row {
    kind: Kind,
    size: usize,
    agents: usize,
    bursts: usize,
    /// For each of [`SHARES`], of each burst.
    times: [Vec<f64>; 4],
    /// Until the last request was written, of each burst.
    written: Vec<f64>,
    /// When the last answer was there, refusals among them.
    ended: Vec<f64>,
    served: usize,
    refused: BTreeMap<String, usize>,
    /// Grants of each burst.
    issued: Vec<f64>,
}

impl Row {
    /// Of all bursts of a kind: their requests, and the grants that were issued for each.
    pub fn of(kind: Kind, (size, agents): (usize, usize), bursts: &[(Vec<Shot>, usize)]) -> Self {
        let mut row = Self {
            kind,
            size,
            agents,
            bursts: bursts.len(),
            times: Default::default(),
            written: Vec::new(),
            ended: Vec::new(),
            served: 0,
            refused: BTreeMap::new(),
            issued: Vec::new(),
        };
        for (shots, issued) in bursts {
            let served: Vec<f64> = shots.iter().filter(|shot| shot.is_served()).map(|shot| shot.answered).collect();
            for (times, share) in row.times.iter_mut().zip(SHARES) {
                times.extend(quantile(&served, share));
            }
            let most = |of: fn(&Shot) -> f64| shots.iter().map(of).fold(0.0, f64::max);
            row.written.push(most(|shot| shot.written));
            row.ended.push(most(|shot| shot.answered));
            row.served += served.len();
            for shot in shots.iter().filter(|shot| !shot.is_served()) {
                *row.refused.entry(shot.reason.clone()).or_default() += 1;
            }
            row.issued.push(*issued as f64);
        }
        row
    }

    /// All that was found.
    pub fn to_json(&self) -> Value {
        let [first, p50, p99, last] = [0, 1, 2, 3].map(|share| spread(&self.times[share]));
        json!({
            "requests": self.size, "agents": self.agents, "kind": self.kind.as_str(), "bursts": self.bursts,
            "first_ms": first, "p50_ms": p50, "p99_ms": p99, "last_ms": last,
            "written_ms": spread(&self.written), "ended_ms": spread(&self.ended),
            "served": self.served, "refused": self.refused, "grants": spread(&self.issued),
        })
    }

    fn to_line(&self) -> String {
        let [first, p50, p99, last] = [0, 1, 2, 3].map(|share| text(&self.times[share]));
        let written = text(&self.written);
        let issued = median(&self.issued).map_or("-".to_owned(), |issued| format!("{issued:.0}"));
        let all = self.served + self.refused.values().sum::<usize>();
        let refused = self.refused.iter().map(|(reason, count)| format!("{count} `{reason}`"));
        let refused = refused.collect::<Vec<_>>().join(", ");
        format!(
            "| {} | {} | {} | {written} | {first} | {p50} | {p99} | {last} | {issued} | {}/{all} | {refused} |",
            self.size,
            self.agents,
            self.kind.as_str(),
            self.served,
        )
    }
}

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| requests | agents | worker | all written, ms | first | p50 | p99 | last | grants | served | refused |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(Row::to_line));
    lines.push("\nMedians over the bursts, in brackets their 95 % intervals.".to_owned());
    lines.join("\n")
}

fn text(values: &[f64]) -> String {
    let Some(median) = median(values) else { return "-".to_owned() };
    match median_interval(values) {
        Some((low, high)) => format!("{median:.1} ({low:.1}–{high:.1})"),
        None => format!("{median:.1} (?)"),
    }
}

fn spread(values: &[f64]) -> Value {
    json!({"median": median(values), "interval": median_interval(values).map(|(low, high)| [low, high])})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_and_their_times_are_not_those_of_answers() {
        let shot = |answered: f64, reason: &str| Shot {
            written: 1.0,
            answered,
            status: if reason.is_empty() { 200 } else { 429 },
            reason: reason.to_owned(),
        };
        let burst = vec![shot(5.0, ""), shot(7.0, ""), shot(2_000.0, "rate_limited")];
        let row = Row::of(Kind::Cold, (3, 3), &[(burst, 2)]);
        assert_eq!(row.times.each_ref().map(|times| times[0]), [5.0, 5.0, 7.0, 7.0]);
        assert_eq!((row.served, row.refused["rate_limited"], row.ended[0]), (2, 1, 2_000.0));
    }
}
