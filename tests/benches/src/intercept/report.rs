//! The tables, in Markdown as docs/performance.md has them.

use serde_json::{Value, json};

use super::handshakes::{self, Share};
use super::slices;
use crate::estimate::Figure;

/// Slices of one kind of work.
#[derive(Debug)]
pub struct Series {
    /// What it is, in the table and in the file.
    pub name: &'static str,
    /// Direct first.
    pub rows: Vec<slices::Row>,
    /// What went wrong meanwhile, and was tried anew.
    pub failed: Vec<String>,
}

/// How tunnels begin.
pub fn handshakes(rows: &[handshakes::Row]) -> String {
    let mut lines = vec![
        "| way | name | handshake, ms | vs direct | first answer, ms | vs direct | proxy CPU, ms | broker CPU, ms | proxy KB a name | broker KB a name | upstream | clean |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let name = if row.is_first { "never seen" } else { "seen" };
        let [handshake, answer] = [&row.handshake, &row.answer].map(|all| all.map(share).join(", "));
        let ([ratio, answer_ratio], [proxy, broker]) =
            (row.ratios.map(|one| show(one, 2)), row.cpu.map(|one| show(one, 2)));
        // Each name is there once, however often it is asked for.
        let bytes = row.of_a_name.map(|bytes| bytes.filter(|_| row.is_first));
        let [memory, of_broker] = bytes.map(|bytes| bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes / 1e3)));
        let (clean, all) = row.counts;
        lines.push(format!(
            "| {} | {name} | {handshake} | {ratio} | {answer} | {answer_ratio} | {proxy} | {broker} | {memory} | {of_broker} \
             | {:.2} | {clean}/{all} |",
            row.way, row.upstream
        ));
    }
    lines.push(
        "\np50, p95, p99, each with half of its 95 % interval; upstream: its handshakes for each tunnel.".to_owned(),
    );
    lines.join("\n")
}

/// Bodies through tunnels.
pub fn streams(all: &[Series]) -> String {
    let mut lines = vec![
        "| body | way | MB/s | vs direct | proxy CPU, ms/MB | load core busy | clean |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for series in all {
        for row in &series.rows {
            let [rate, ratio, busy] = [(row.rate, 0), (row.ratio, 2), (row.load_core, 2)].map(|(one, n)| show(one, n));
            let cpu = show(row.cpu.map(|us| us.times(1e-3)), 2);
            let (clean, all) = row.counts;
            let (body, way) = (series.name, row.name);
            lines.push(format!("| {body} | {way} | {rate} | {ratio} | {cpu} | {busy} | {clean}/{all} |"));
        }
    }
    lines.join("\n")
}

/// Small requests inside of tunnels.
pub fn requests(series: &Series) -> String {
    let mut lines = vec![
        "| way | requests/s | vs direct | p50, µs | proxy CPU, µs | broker CPU, µs | load core busy | clean |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in &series.rows {
        let cells = [(row.rate, 0), (row.ratio, 2), (row.p50, 0), (row.cpu, 0), (row.service, 1), (row.load_core, 2)];
        let cells = cells.map(|(one, n)| show(one, n)).join(" | ");
        lines.push(format!("| {} | {cells} | {}/{} |", row.name, row.counts.0, row.counts.1));
    }
    lines.join("\n")
}

/// A figure for machines.
pub fn figure(figure: Option<Figure>) -> Value {
    json!(figure.map(Figure::to_json))
}

fn share(share: Option<Share>) -> String {
    share.map_or("-".to_owned(), |share| with_error(share.value, share.error, 1))
}

fn show(figure: Option<Figure>, decimals: usize) -> String {
    figure.map_or(String::new(), |figure| {
        let rough = if figure.rough { "~" } else { "" };
        format!("{rough}{}", with_error(figure.median, figure.error(), decimals))
    })
}

fn with_error(value: f64, error: Option<f64>, decimals: usize) -> String {
    let error = error.map_or("?".to_owned(), |error| format!("{error:.decimals$}"));
    format!("{value:.decimals$} ±{error}")
}
