//! How the filter stands at few and at many connections: ours, and what decides elsewhere, against bare.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::estimate::{CPU_US, Figure, Held, P50_US, RPS, Samples};
use crate::plan::Plan;
use crate::slices::{Runner, Target};

/// Connections of a slice.
const SIZES: [u32; 7] = [1, 4, 16, 64, 128, 256, 512];
/// Which of the variants, `bare` first.
const VARIANTS: [&str; 4] = ["bare", "noop_wasm", "attache", "ext_authz"];

/// What was found at one number of connections.
#[derive(Debug)]
pub struct Connections {
    size: u32,
    /// In the order of the targets.
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    rps: Option<Figure>,
    cpu: Option<Figure>,
    p50: Option<Figure>,
    counts: (usize, usize),
}

/// Measures those of the variants that are there.
pub fn measure(runner: &Runner<'_>, plan: &Plan) -> Result<Vec<Connections>> {
    let there = VARIANTS.iter().filter_map(|name| runner.targets.iter().find(|target| target.name == *name));
    let targets: Vec<Target> = there.cloned().collect();
    let runner = Runner { targets: &targets, ..*runner };
    let budget = Duration::from_secs(plan.connections_seconds / SIZES.len() as u64);
    SIZES.iter().map(|size| at(&runner, *size, budget, plan.enough)).collect()
}

fn at(runner: &Runner<'_>, size: u32, budget: Duration, enough: usize) -> Result<Connections> {
    runner.warm(size)?;
    let slices = runner.rounds(size, budget)?;
    let rows = runner.targets.iter().enumerate().map(|(index, target)| {
        let samples = Samples::of(&slices, index, enough);
        Row {
            name: target.name,
            rps: samples.figure(RPS, Held::Ratio),
            cpu: samples.figure(CPU_US, Held::Over),
            p50: samples.figure(P50_US, Held::Alone),
            counts: samples.counts(),
        }
    });
    Ok(Connections { size, rows: rows.collect() })
}

/// The head of the table.
pub fn head() -> String {
    let head = ["rps vs bare", "CPU µs over bare", "p50 µs", "clean"];
    format!("\nby connections\n{:>11} {:<20} {:>15} {:>17} {:>12} {:>9}", "", "", head[0], head[1], head[2], head[3])
}

impl Connections {
    /// Some rows for people.
    pub fn to_text(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let (clean, total) = row.counts;
            format!(
                "{:>11} {:<20} {:>15} {:>17} {:>12} {:>9}",
                self.size,
                row.name,
                show(row.rps, 2),
                show(row.cpu, 1),
                show(row.p50, 0),
                format!("{clean}/{total}"),
            )
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    /// The same for machines.
    pub fn to_json(&self) -> Value {
        let figure = |figure: Option<Figure>| figure.map(Figure::to_json);
        let rows = self.rows.iter().map(|row| {
            json!({
                "variant": row.name,
                "rps_vs_bare": figure(row.rps),
                "cpu_us_over_bare": figure(row.cpu),
                "p50_us": figure(row.p50),
                "slices_clean": row.counts.0,
                "slices_total": row.counts.1,
            })
        });
        json!({"connections": self.size, "variants": rows.collect::<Vec<_>>()})
    }
}

fn show(figure: Option<Figure>, decimals: usize) -> String {
    figure.map_or("-".to_owned(), |figure| figure.to_text(decimals))
}
