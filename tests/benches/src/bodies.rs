//! What masking costs by the size of an answer: Attaché with it and without it, against bare.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::estimate::{CPU_US, Figure, Held, P50_US, Samples};
use crate::load::Ask;
use crate::plan::Plan;
use crate::rules::{BODY_OF, UNMASKED};
use crate::slices::{Runner, Target};

/// Bytes of an answer.
const SIZES: [usize; 3] = [1_000, 100_000, 10_000_000];
/// Two answers at a time: enough to keep Envoy busy, few enough for ten megabytes each.
const CONNECTIONS: u32 = 2;

/// A slice of the largest.
const LONG_SECONDS: u64 = 5;

/// What was found for one size.
#[derive(Debug)]
pub struct Bodies {
    size: usize,
    /// Median latency over bare in µs: masked, unmasked.
    p50_over: [Option<Figure>; 2],
    /// CPU of Envoy for each answer over bare in µs: masked, unmasked.
    cpu_over: [Option<Figure>; 2],
    /// What masking alone takes of it.
    masking: Option<Figure>,
}

/// Measures all sizes with these two of the targets, if Attaché is one of them.
pub fn measure(runner: &Runner<'_>, plan: &Plan) -> Result<Vec<Bodies>> {
    let find = |name: &str| runner.targets.iter().find(|target| target.name == name);
    let (Some(bare), Some(attache), Some(plain)) = (find("bare"), find("attache"), find("attache_audit")) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for size in SIZES {
        let at = |target: &Target, prefix: &str| {
            let ask = Ask { path: format!("{prefix}/v1/x{BODY_OF}{size}"), ..target.ask.clone() };
            Target { ask, ..target.clone() }
        };
        let targets = [at(bare, ""), at(attache, ""), at(plain, UNMASKED)];
        // A slice must hold some whole answers.
        let seconds = if size > 1_000_000 { LONG_SECONDS } else { runner.seconds };
        let runner = Runner { targets: &targets, seconds, ..*runner };
        runner.warm(CONNECTIONS)?;
        let slices = runner.rounds(CONNECTIONS, Duration::from_secs(plan.bodies_seconds / SIZES.len() as u64))?;
        let [masked, unmasked] = [1, 2].map(|target| Samples::of(&slices, target, plan.enough));
        let over = |quantity| [&masked, &unmasked].map(|samples| samples.figure(quantity, Held::Over));
        let masking = masked.against(&unmasked, CPU_US, Held::Over, |a, b| a - b);
        found.push(Bodies { size, p50_over: over(P50_US), cpu_over: over(CPU_US), masking });
    }
    Ok(found)
}

impl Bodies {
    /// Bytes that are searched in a second of CPU time, in MB.
    fn megabytes_a_second(&self) -> Option<f64> {
        self.masking.filter(|figure| figure.median > 0.0).map(|figure| self.size as f64 / figure.median)
    }

    /// One row for people.
    pub fn to_row(&self) -> String {
        let show = |figure: &Option<Figure>| {
            figure.map_or("-".to_owned(), |figure| {
                let error = figure.error().map_or("?".to_owned(), |error| format!("{error:.0}"));
                format!("{}{:+.0} \u{b1}{error}", if figure.rough { "~" } else { "" }, figure.median)
            })
        };
        let [p50, p50_unmasked] = self.p50_over.each_ref().map(show);
        let [cpu, cpu_unmasked] = self.cpu_over.each_ref().map(show);
        let rate = self.megabytes_a_second().map_or("-".to_owned(), |rate| format!("{rate:.0} MB/s"));
        format!(
            "{:>10} {cpu:>16} {cpu_unmasked:>16} {:>16} {rate:>12} {p50:>16} {p50_unmasked:>16}",
            self.size,
            show(&self.masking)
        )
    }

    /// The same for machines.
    pub fn to_json(&self) -> Value {
        let figure = |figure: &Option<Figure>| json!(figure.map(Figure::to_json));
        json!({
            "bytes": self.size,
            "cpu_us_over_bare": figure(&self.cpu_over[0]),
            "cpu_us_over_bare_unmasked": figure(&self.cpu_over[1]),
            "cpu_us_of_masking": figure(&self.masking),
            "masking_mb_per_cpu_second": self.megabytes_a_second(),
            "p50_us_over_bare": figure(&self.p50_over[0]),
            "p50_us_over_bare_unmasked": figure(&self.p50_over[1]),
        })
    }
}

/// The head of the table.
pub fn head() -> String {
    format!(
        "\nby size of the answer (\u{b5}s)\n{:>10} {:>16} {:>16} {:>16} {:>12} {:>16} {:>16}",
        "bytes", "CPU over bare", "without masking", "masking alone", "", "p50 over bare", "without masking"
    )
}
