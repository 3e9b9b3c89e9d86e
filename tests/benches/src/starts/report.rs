//! What was found, as tables and as JSON.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::envoy;
use crate::estimate::{CPU_US, Quantity, RPS};
use crate::machine::Machine;
use crate::slices::Slice;
use crate::stats::{median, median_interval, slope};

/// Most that the module may add to a start, in ms.
const START_TARGET: f64 = 400.0;
/// Most that it may add to a further worker, in MiB.
const WORKER_TARGET: f64 = 1.5;

/// A pair of starts: until live, until the first answer, and Envoy's CPU time until then, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Cold {
    /// Without the filter.
    pub bare: [f64; 3],
    /// With it.
    pub ours: [f64; 3],
}

/// One Envoy's resident memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Its workers.
    pub workers: u32,
    /// Whether the filter was in it.
    pub is_ours: bool,
    /// After its first answer, and after a second of load.
    pub bytes: [u64; 2],
}

/// A median, and the ends of its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    median: f64,
    interval: Option<(f64, f64)>,
}

/// One worker against two.
#[derive(Debug)]
pub struct Scaled {
    rounds: usize,
    /// Requests a second: bare and ours of one worker, bare and ours of two.
    rps: [Option<Spread>; 4],
    /// Envoy's CPU for each, in µs.
    cpu: [Option<Spread>; 4],
    /// Ours over bare, of one worker and of two.
    over_bare: [Option<Spread>; 2],
    /// Two workers over one, of bare and of ours.
    over_one: [Option<Spread>; 2],
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// By whether Envoy had one core.
    pub cold: Vec<(bool, Vec<Cold>)>,
    /// One by one.
    pub memory: Vec<Memory>,
    /// One worker and two.
    pub scaled: Scaled,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        Some(Self { median: median(values)?, interval: median_interval(values) })
    }

    fn text(self, decimals: usize) -> String {
        let interval = self.interval.map(|(low, high)| format!(" ({low:.decimals$}–{high:.decimals$})"));
        format!("{:.decimals$}{}", self.median, interval.unwrap_or_default())
    }

    fn to_json(self) -> Value {
        json!({"median": self.median, "interval": self.interval.map(|(low, high)| [low, high])})
    }
}

impl Scaled {
    /// From slices whose targets are bare and ours of one worker, bare and ours of two.
    pub fn of(slices: &[Slice]) -> Self {
        let rounds = slices.last().map_or(0, |slice| slice.round + 1);
        // Bare of one worker has several slices in a round.
        let in_round = |target: usize, round: usize, quantity: Quantity| {
            let mine = slices.iter().filter(|slice| slice.target == target && slice.round == round);
            let values: Vec<f64> = mine.map(quantity).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let all = |quantity: Quantity| {
            [0, 1, 2, 3].map(|target| {
                let values: Vec<_> = (0..rounds).map(|round| in_round(target, round, quantity)).collect();
                Spread::of(&values)
            })
        };
        let ratio = |this: usize, that: usize| {
            let ratio = |round| in_round(this, round, RPS) / in_round(that, round, RPS);
            Spread::of(&(0..rounds).map(ratio).collect::<Vec<_>>())
        };
        let (over_bare, over_one) = ([ratio(1, 0), ratio(3, 2)], [ratio(2, 0), ratio(3, 1)]);
        Self { rounds, rps: all(RPS), cpu: all(CPU_US), over_bare, over_one }
    }
}

impl Report {
    fn cold_of(pairs: &[Cold], until: usize) -> [Option<Spread>; 3] {
        let of = |value: &dyn Fn(&Cold) -> f64| Spread::of(&pairs.iter().map(value).collect::<Vec<_>>());
        [of(&|one| one.bare[until]), of(&|one| one.ours[until]), of(&|one| one.ours[until] - one.bare[until])]
    }

    fn bytes(&self, workers: u32, is_ours: bool, when: usize) -> Option<f64> {
        let mine = self.memory.iter().filter(|one| one.workers == workers && one.is_ours == is_ours);
        median(&mine.map(|one| one.bytes[when] as f64).collect::<Vec<_>>())
    }

    fn slope_of(&self, is_ours: bool, when: usize) -> Option<f64> {
        let mine = self.memory.iter().filter(|one| one.is_ours == is_ours);
        slope(&mine.map(|one| (f64::from(one.workers), one.bytes[when] as f64)).collect::<Vec<_>>())
    }

    /// What the filter adds to a further worker, in MiB.
    fn further_worker(&self, when: usize) -> Option<f64> {
        Some(mib(self.slope_of(true, when)? - self.slope_of(false, when)?))
    }

    fn workers(&self) -> Vec<u32> {
        let mut workers: Vec<_> = self.memory.iter().map(|one| one.workers).collect();
        workers.sort_unstable();
        workers.dedup();
        workers
    }

    /// As tables of Markdown.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            self.machine.to_line() + "\n",
            "| start, ms | pairs | bare | with the filter | difference |".to_owned(),
            "|---|---|---|---|---|".to_owned(),
        ];
        for (is_one_core, pairs) in &self.cold {
            for (until, what) in
                ["until it is live", "until the first answer", "its CPU time until then"].iter().enumerate()
            {
                let cells = Self::cold_of(pairs, until).map(|spread| show(spread, 0)).join(" | ");
                let cores = if *is_one_core { "one core" } else { "all cores" };
                lines.push(format!("| {what}, {cores} | {} | {cells} |", pairs.len()));
            }
        }
        lines.push(
            "\n| workers | bare, MiB | with the filter | bare, after load | with the filter, after load |".to_owned(),
        );
        lines.push("|---|---|---|---|---|".to_owned());
        let row = |first: String, of: &dyn Fn(bool, usize) -> Option<f64>| {
            let cells = [(false, 0), (true, 0), (false, 1), (true, 1)]
                .map(|(is_ours, when)| of(is_ours, when).map_or("-".to_owned(), |bytes| format!("{:.1}", mib(bytes))));
            format!("| {first} | {} |", cells.join(" | "))
        };
        for workers in self.workers() {
            lines.push(row(workers.to_string(), &|is_ours, when| self.bytes(workers, is_ours, when)));
        }
        lines.push(row("each further worker".to_owned(), &|is_ours, when| self.slope_of(is_ours, when)));
        lines.push("\n| workers | bare, requests/s | with the filter | with the filter vs bare | bare, CPU µs | with the filter, CPU µs |".to_owned());
        lines.push("|---|---|---|---|---|---|".to_owned());
        let Scaled { rps, cpu, over_bare, over_one, .. } = &self.scaled;
        for (index, workers) in [1, 2].iter().enumerate() {
            let [bare, ours] = [rps[2 * index], rps[2 * index + 1]].map(|spread| show(spread, 0));
            let [bare_cpu, ours_cpu] = [cpu[2 * index], cpu[2 * index + 1]].map(|spread| show(spread, 0));
            let ratio = show(over_bare[index], 2);
            lines.push(format!("| {workers} | {bare} | {ours} | {ratio} | {bare_cpu} | {ours_cpu} |"));
        }
        let [bare, ours] = over_one.map(|spread| show(spread, 2));
        lines.push(format!("| 2 vs 1 | {bare} | {ours} | | | |"));
        lines.push("\nMedians, in brackets their 95 % intervals.".to_owned());
        lines.join("\n")
    }

    /// All that was found.
    pub fn to_json(&self) -> Result<Value> {
        let spreads = |all: &[Option<Spread>]| Value::from_iter(all.iter().map(|one| json!(one.map(Spread::to_json))));
        let cold = self.cold.iter().map(|(is_one_core, pairs)| {
            let [live, first, cpu] = [0, 1, 2].map(|until| {
                let [bare, ours, over] = Self::cold_of(pairs, until).map(|one| one.map(Spread::to_json));
                json!({"bare_ms": bare, "attache_ms": ours, "over_bare_ms": over})
            });
            let over = Self::cold_of(pairs, 0)[2].map(|one| one.median <= START_TARGET);
            json!({"one_core": is_one_core, "pairs": pairs.len(), "live": live, "first_answer": first, "cpu": cpu, "target_met": over})
        });
        let memory = self.workers().into_iter().flat_map(|workers| [false, true].map(|is_ours| (workers, is_ours)));
        let memory = memory.map(|(workers, is_ours)| {
            let [live, loaded] = [0, 1].map(|when| self.bytes(workers, is_ours, when));
            json!({"workers": workers, "filter": is_ours, "bytes": live, "bytes_after_load": loaded})
        });
        let further = [0, 1].map(|when| self.further_worker(when));
        Ok(json!({
            "machine": self.machine,
            "load_average_after": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
            "envoy": envoy::version()?,
            "starts": cold.collect::<Vec<_>>(),
            "memory": memory.collect::<Vec<_>>(),
            "further_worker_mib": further[0],
            "further_worker_after_load_mib": further[1],
            "further_worker_target_met": further[1].map(|mib| mib <= WORKER_TARGET),
            "workers": {
                "rounds": self.scaled.rounds,
                "targets": ["bare, 1", "attache, 1", "bare, 2", "attache, 2"],
                "rps": spreads(&self.scaled.rps),
                "cpu_us": spreads(&self.scaled.cpu),
                "attache_vs_bare": spreads(&self.scaled.over_bare),
                "two_vs_one": spreads(&self.scaled.over_one),
            },
        }))
    }
}

fn show(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or("-".to_owned(), |spread| spread.text(decimals))
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_compared_pair_by_pair() {
        // The machine is twice as slow from half-way on.
        let pair = |n: usize| {
            let speed = if n < 5 { 1.0 } else { 2.0 };
            Cold { bare: [100.0 * speed; 3], ours: [100.0 * speed + 50.0; 3] }
        };
        let [_, _, over] = Report::cold_of(&(0..11).map(pair).collect::<Vec<_>>(), 1);
        assert_eq!(over.unwrap(), Spread { median: 50.0, interval: Some((50.0, 50.0)) });
    }
}
