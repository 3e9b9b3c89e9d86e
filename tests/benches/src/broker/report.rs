//! What was measured, as tables and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CONNECTIONS, CREDENTIALS, OF_ONE_SLICE};
use crate::estimate::{CPU_US, Figure, Held, LOAD_CORE, P50_US, RPS, RULE, Samples};
use crate::machine::Machine;
use crate::slices::Slice;

/// Fewer clean slices than this, and a figure is marked as rough.
const ENOUGH: usize = 6;

/// One series.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Answers a second.
    pub rps: Option<Figure>,
    /// The same over that of the bare handler in its round.
    pub ratio: Option<Figure>,
    /// CPU time of the process in µs for each answer.
    pub cpu: Option<Figure>,
    /// The median latency in µs.
    pub p50: Option<Figure>,
    /// How busy the core was that makes the load.
    pub load_core: Option<Figure>,
    /// Clean slices, and all.
    pub counts: (usize, usize),
}

/// What is kept in memory.
#[derive(Debug)]
pub struct Memory {
    /// So many sessions, and the broker's bytes.
    pub few: (usize, u64),
    /// The same of many.
    pub many: (usize, u64),
    /// Bytes of one session.
    pub session: f64,
    /// Bytes of one lease that is out.
    pub lease: f64,
    /// How many leases that was taken from.
    pub leases: u64,
}

/// All of it.
#[derive(Debug)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// How long the slices took together.
    pub seconds: u64,
    /// The series.
    pub rows: Vec<Row>,
    /// Memory.
    pub memory: Memory,
    /// Until the broker of all sessions served.
    pub started: Duration,
}

impl Report {
    /// As tables of Markdown.
    pub fn to_text(&self) -> String {
        let head = "| | answers a second | vs the bare handler of its round | CPU µs each | p50 µs | load core busy | clean slices |\n\
                    |---|---|---|---|---|---|---|";
        let rows: Vec<_> = self.rows.iter().map(Row::to_line).collect();
        let Memory { few, many, session, lease, leases } = &self.memory;
        format!(
            "{}\n\n{head}\n{}\n\n| memory | |\n|---|---|\n| broker with {} sessions of {CREDENTIALS} credentials | {:.1} MiB |\n\
             | with {} | {:.1} MiB |\n| each session | {session:.0} B |\n| each lease that is out, of {leases} | {lease:.0} B |\n\
             | start with {} sessions | {:.1} s |",
            self.machine.to_line(),
            rows.join("\n"),
            few.0,
            mib(few.1),
            many.0,
            mib(many.1),
            many.0,
            self.started.as_secs_f64(),
        )
    }

    /// All that was found.
    pub fn to_json(&self) -> Value {
        let Memory { few, many, session, lease, leases } = &self.memory;
        json!({
            "machine": self.machine,
            "method": {
                "seconds": self.seconds,
                "connections": CONNECTIONS,
                "pairs_of_a_cold_slice": OF_ONE_SLICE,
                "slices": "bare, a series, bare, the other, …, in a new random order each round",
                "figures": "medians; ratios are held against the mean of the two bare neighbours",
                "error": "half of the median's 95 % interval by order statistics",
                "rejected": RULE,
            },
            "series": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "memory": {
                "broker_bytes": {few.0.to_string(): few.1, many.0.to_string(): many.1},
                "session_bytes": session,
                "lease_bytes": lease,
                "leases": leases,
            },
            "started_ms": self.started.as_millis() as u64,
        })
    }
}

impl Row {
    /// What the slices of one series say, by its place.
    pub fn of(name: &'static str, slices: &[Slice], series: usize) -> Self {
        let samples = Samples::of(slices, series, ENOUGH);
        Self {
            name,
            rps: samples.figure(RPS, Held::Alone),
            ratio: samples.figure(RPS, Held::Ratio),
            cpu: samples.figure(CPU_US, Held::Alone),
            p50: samples.figure(P50_US, Held::Alone),
            load_core: samples.figure(LOAD_CORE, Held::Alone),
            counts: samples.counts(),
        }
    }

    fn to_line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} | {} of {} |",
            self.name,
            text(self.rps, 0),
            text(self.ratio, 2),
            text(self.cpu, 0),
            text(self.p50, 0),
            text(self.load_core.map(|share| share.times(100.0)), 0) + " %",
            self.counts.0,
            self.counts.1,
        )
    }

    fn to_json(&self) -> Value {
        let figure = |figure: Option<Figure>| figure.map(Figure::to_json);
        json!({
            "name": self.name,
            "answers_a_second": figure(self.rps),
            "vs_bare": figure(self.ratio),
            "cpu_us": figure(self.cpu),
            "p50_us": figure(self.p50),
            "load_core": figure(self.load_core),
            "slices_clean": self.counts.0,
            "slices_total": self.counts.1,
        })
    }
}

fn text(figure: Option<Figure>, digits: usize) -> String {
    let Some(figure) = figure else { return "–".to_owned() };
    let error = figure.error().map(|error| format!(" ±{error:.digits$}")).unwrap_or_default();
    let rough = if figure.rough { "~" } else { "" };
    format!("{rough}{:.digits$}{error}", figure.median)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}
