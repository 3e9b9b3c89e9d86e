//! What was measured, as a table and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::stats::{spread, spread_cell};

/// One size.
#[derive(Debug, Default)]
pub struct Row {
    /// How many follow.
    pub followers: usize,
    /// One by one.
    pub changes: Vec<Change>,
    /// The broker's CPU for a change, beyond what it spends on polls that nothing comes of.
    pub cpu: Duration,
    /// And what it spends on those in a second.
    pub idle: Duration,
    /// Its memory with one follower.
    pub alone: u64,
    /// And with all.
    pub bytes: u64,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// From the question until the command returned.
    pub confirmed: Duration,
    /// From the question until the last follower was told.
    pub told: Duration,
    /// How long the broker waited for them, in its own words.
    pub waited_ms: u64,
}

impl Row {
    /// Bytes of the broker for each follower beyond the first.
    fn of_one(&self) -> Option<f64> {
        let others = self.followers.checked_sub(1).filter(|others| *others > 0)?;
        Some(self.bytes.saturating_sub(self.alone) as f64 / others as f64)
    }

    fn ms(&self, of: fn(&Change) -> f64) -> Vec<f64> {
        self.changes.iter().map(of).collect()
    }

    fn confirmed(&self) -> Vec<f64> {
        self.ms(|change| change.confirmed.as_secs_f64() * 1e3)
    }

    fn told(&self) -> Vec<f64> {
        self.ms(|change| change.told.as_secs_f64() * 1e3)
    }

    fn waited(&self) -> Vec<f64> {
        self.ms(|change| change.waited_ms as f64)
    }

    /// All that was found.
    pub fn to_json(&self) -> Value {
        json!({
            "followers": self.followers,
            "changes": self.changes.len(),
            "last_told_ms": spread(&self.told()),
            "confirmed_ms": spread(&self.confirmed()),
            "broker_waited_ms": spread(&self.waited()),
            "cpu_us_a_change": self.cpu.as_secs_f64() * 1e6,
            "cpu_ms_a_second_idle": self.idle.as_secs_f64() * 1e3,
            "bytes_with_one": self.alone,
            "bytes": self.bytes,
            "bytes_a_follower": self.of_one(),
        })
    }
}

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| followers | last one told | the whole command | broker waited | CPU a change, ms | CPU idle, ms/s | memory each |"
            .to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let [told, confirmed] = [row.told(), row.confirmed()].map(|values| spread_cell(&values, 1));
        let waited = spread_cell(&row.waited(), 0);
        let [cpu, idle] = [row.cpu, row.idle].map(|time| time.as_secs_f64() * 1e3);
        let memory = row.of_one().map_or("-".to_owned(), |bytes| format!("{:.1} KiB", bytes / 1024.0));
        let followers = row.followers;
        lines.push(format!("| {followers} | {told} | {confirmed} | {waited} | {cpu:.2} | {idle:.1} | {memory} |"));
    }
    lines.push("\np50 / p99 / most, in ms; the first two with half of their 95 % interval.".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_followers_beyond_the_first() {
        let row = |followers, alone, bytes| Row { followers, alone, bytes, ..Row::default() };
        assert_eq!(row(1, 500, 500).of_one(), None);
        assert_eq!(row(11, 1_000, 21_000).of_one(), Some(2_000.0));
    }
}
