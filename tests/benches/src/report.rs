//! The table, the comparison with the targets, and `bench.json`.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::bodies::{self, Bodies};
use crate::connections::{self, Connections};
use crate::estimate::{CPU_US, Disturbed, Figure, Held, LOAD_CORE, P50_US, RPS, RULE, SERVICE_US, Samples};
use crate::graphql::Graphql;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::variants::Absent;

/// One variant's samples in both series.
#[derive(Debug)]
pub struct Measured {
    /// At many connections.
    pub throughput: Samples,
    /// At one connection.
    pub latency: Samples,
    /// It asks a service, whose CPU time is worth a column.
    pub has_service: bool,
}

/// Everything that a run found out.
#[derive(Debug)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// Envoy's version.
    pub envoy: String,
    /// How long it ran.
    pub plan: Plan,
    /// Rounds of the throughput and of the latency series.
    pub rounds: (usize, usize),
    /// What disturbed the slices of both series.
    pub disturbed: Disturbed,
    /// The variants in the order of the table.
    pub variants: Vec<(&'static str, Measured)>,
    /// Those that could not be measured.
    pub absent: Vec<(&'static str, Absent)>,
    /// The size of the filter's module.
    pub module_bytes: Option<u64>,
    /// What masking costs by the size of an answer.
    pub bodies: Vec<Bodies>,
    /// At few and at many connections.
    pub connections: Vec<Connections>,
    /// What judging GraphQL costs.
    pub graphql: Option<Graphql>,
}

/// A target, and whether it is met. A missed one fails nothing: speed is
/// judged by people.
#[derive(Debug, Serialize)]
struct Verdict {
    target: &'static str,
    measured: String,
    verdict: &'static str,
}

/// Whose figures are held to the targets.
const OURS: &str = "attache";
/// What each of our variants adds to the one before it: the two, and what it is.
const STEPS: [(&str, &str, &str); 4] = [
    ("attache_inject_log", "attache_inject", "Envoy's access log in place of audit"),
    ("attache_audit", "attache_inject", "audit"),
    ("attache", "attache_audit", "masking"),
    ("attache_logged", "attache", "Envoy's access log"),
];

/// A module above this many bytes misses its target.
const MODULE_LIMIT: u64 = 600_000;

impl Report {
    /// The machine-readable result.
    pub fn to_json(&self) -> Value {
        let measured = self.variants.iter().map(|(name, measured)| (*name, measured.to_json()));
        let absent = self.absent.iter().map(|(name, absent)| (*name, json!({"absent": absent.to_string()})));
        let variants: BTreeMap<_, _> = measured.chain(absent).collect();
        json!({
            "machine": self.machine,
            "envoy": self.envoy,
            "method": {
                "plan": self.plan,
                "slices": "bare, variant, bare, variant, …; variants in a new random order each round",
                "figures": "medians; each slice against the mean of its two bare neighbours",
                "error": "half of the median's 95 % interval by order statistics",
                "rejected": {
                    "rule": "the slice or a bare neighbour exceeds one of these shares",
                    "limits": RULE,
                },
                "rough": "fewer clean slices than plan.enough: all slices were used",
                "bare": "each bare slice against the bare slices before and after: the method's own error",
            },
            "rounds": {"throughput": self.rounds.0, "latency": self.rounds.1},
            "disturbed_slices": self.disturbed,
            "variants": variants,
            "steps_cpu_us": self.steps().map(|(what, step)| json!({"adds": what, "figure": step.map(Figure::to_json)})),
            "targets": self.verdicts(),
            "module_bytes": self.module_bytes,
            "bodies": self.bodies.iter().map(Bodies::to_json).collect::<Vec<_>>(),
            "connections": self.connections.iter().map(Connections::to_json).collect::<Vec<_>>(),
            "graphql": self.graphql.as_ref().map(Graphql::to_json),
        })
    }

    /// The same for people.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            self.machine.to_line(),
            format!(
                "Envoy {}, one worker; {} rounds of throughput, {} of latency",
                self.envoy, self.rounds.0, self.rounds.1
            ),
            String::new(),
            format!(
                "{:<20} {:>15} {:>17} {:>12} {:>20} {:>9}",
                "variant", "rps vs bare", "CPU µs over bare", "elsewhere", "p50 µs at 1 (over)", "clean"
            ),
        ];
        lines.extend(self.variants.iter().map(|(name, measured)| measured.to_row(name)));
        lines.extend(self.absent.iter().map(|(name, absent)| format!("{name:<20} absent, {absent}")));
        let Disturbed { slices, envoy_core_foreign, stolen, load_core_foreign } = self.disturbed;
        lines.push(format!(
            "\nof {slices} slices, others used Envoy's core in {envoy_core_foreign}, the hypervisor took time in \
             {stolen}, others used the load core in {load_core_foreign}\n"
        ));
        for (what, step) in self.steps() {
            let step = step.map_or("-".to_owned(), |step| step.to_text(1));
            lines.push(format!("{:<52} {step:>18}", format!("CPU µs that {what} adds, round by round")));
        }
        lines.push(
            "\nattache_logged is the filter as it is shipped; the targets are attache's, without the log:".to_owned(),
        );
        for Verdict { target, measured, verdict } in self.verdicts() {
            lines.push(format!("{target:<52} {measured:>18}  {verdict}"));
        }
        if !self.bodies.is_empty() {
            lines.push(bodies::head());
            lines.extend(self.bodies.iter().map(Bodies::to_row));
        }
        lines.push(connections::head());
        lines.extend(self.connections.iter().map(Connections::to_text));
        lines.extend(self.graphql.iter().map(Graphql::to_text));
        if self.any_rough() {
            lines.push("\n~ rough: too few clean slices, all were used".to_owned());
        }
        lines.join("\n")
    }

    /// Fails if a variant was there and could not be prepared. Speed fails
    /// nothing.
    pub fn complete(&self) -> Result<()> {
        for (name, absent) in &self.absent {
            ensure!(matches!(absent, Absent::NotBuilt(_)), "{name} is {absent}");
        }
        Ok(())
    }

    fn steps(&self) -> [(&'static str, Option<Figure>); STEPS.len()] {
        STEPS.map(|(with, without, what)| (what, self.compared((with, without), CPU_US, Held::Over, |a, b| a - b)))
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let over = |other, quantity| self.compared((OURS, other), quantity, Held::Over, |a, b| a - b);
        let times = |other| self.compared((OURS, other), RPS, Held::Ratio, |a, b| a / b);
        let cpu = |figure: &Figure| format!("{:+.1}{} µs", figure.median, plus_minus(figure, 1));
        let ratio = |figure: &Figure| format!("{:.2}{}×", figure.median, plus_minus(figure, 2));
        vec![
            at_most("CPU: attache ≤ noop_wasm + 8 µs", over("noop_wasm", CPU_US), 8.0, cpu),
            at_most("CPU: attache ≤ lua", over("lua", CPU_US), 0.0, cpu),
            at_least("throughput: attache ≥ lua", times("lua"), 1.0, ratio),
            at_least("throughput: attache ≥ 1.7 × ext_authz", times("ext_authz"), 1.7, ratio),
            at_least("throughput: attache ≥ 1.7 × ext_authz_grpc", times("ext_authz_grpc"), 1.7, ratio),
            at_least("throughput: attache ≥ 1.7 × ext_proc", times("ext_proc"), 1.7, ratio),
            Verdict {
                target: "module ≤ 600,000 bytes",
                measured: self.module_bytes.map_or("-".to_owned(), |bytes| format!("{} KB", bytes / 1000)),
                verdict: self.module_bytes.map_or(NOT_MEASURED, |bytes| verdict(bytes <= MODULE_LIMIT)),
            },
        ]
    }

    fn compared(
        &self,
        (one, other): (&str, &str),
        quantity: fn(&crate::slices::Slice) -> f64,
        held: Held,
        compare: fn(f64, f64) -> f64,
    ) -> Option<Figure> {
        let throughput = |wanted: &str| {
            self.variants.iter().find(|(name, _)| *name == wanted).map(|(_, measured)| &measured.throughput)
        };
        throughput(one)?.against(throughput(other)?, quantity, held, compare)
    }

    fn any_rough(&self) -> bool {
        self.variants.iter().flat_map(|(_, measured)| measured.figures()).any(|figure| figure.rough)
    }
}

impl Measured {
    fn figures(&self) -> impl Iterator<Item = Figure> {
        let throughput = self.throughput.figure(RPS, Held::Ratio);
        throughput.into_iter().chain(self.latency.figure(P50_US, Held::Over))
    }

    fn to_json(&self) -> Value {
        let (clean, total) = self.throughput.counts();
        let (latency_clean, latency_total) = self.latency.counts();
        let rps = self.throughput.figure(RPS, Held::Ratio);
        let cpu = self.throughput.figure(CPU_US, Held::Over);
        let p50 = self.latency.figure(P50_US, Held::Alone);
        let p50_over = self.latency.figure(P50_US, Held::Over);
        let service = self.throughput.figure(SERVICE_US, Held::Alone).filter(|_| self.has_service);
        let alone = |quantity| median(self.throughput.figure(quantity, Held::Alone));
        json!({
            "rps_vs_bare": median(rps),
            "cpu_us_over_bare": median(cpu),
            "p50_us": median(p50),
            "p50_us_over_bare": median(p50_over),
            "service_cpu_us": median(service),
            "rps": alone(RPS),
            "cpu_us": alone(CPU_US),
            "load_core_busy": alone(LOAD_CORE),
            "slices_clean": clean,
            "slices_total": total,
            "latency_slices_clean": latency_clean,
            "latency_slices_total": latency_total,
            "rough": self.figures().any(|figure| figure.rough),
            "error": {
                "rps_vs_bare": error(rps),
                "cpu_us_over_bare": error(cpu),
                "p50_us": error(p50),
                "p50_us_over_bare": error(p50_over),
                "service_cpu_us": error(service),
            },
        })
    }

    fn to_row(&self, name: &str) -> String {
        let rps = self.throughput.figure(RPS, Held::Ratio);
        let cpu = self.throughput.figure(CPU_US, Held::Over);
        let service = self.throughput.figure(SERVICE_US, Held::Alone).filter(|_| self.has_service);
        let p50 = self.latency.figure(P50_US, Held::Alone);
        let over = self.latency.figure(P50_US, Held::Over);
        let (clean, total) = self.throughput.counts();
        format!(
            "{name:<20} {:>15} {:>17} {:>12} {:>20} {:>9}",
            cell(rps, |f| format!("{:.2}{}", f.median, plus_minus(f, 2))),
            cell(cpu, |f| format!("{:+.1}{}", f.median, plus_minus(f, 1))),
            cell(service, |f| format!("{:.1}", f.median)),
            cell(p50, |f| {
                let over = over.map(|over| format!(" ({:+.0}{})", over.median, plus_minus(&over, 0)));
                format!("{:.0}{}", f.median, over.unwrap_or_default())
            }),
            format!("{clean}/{total}"),
        )
    }
}

const NOT_MEASURED: &str = "not measured";

fn at_most(target: &'static str, figure: Option<Figure>, limit: f64, show: impl Fn(&Figure) -> String) -> Verdict {
    judge(target, figure, |value| value <= limit, show)
}

fn at_least(target: &'static str, figure: Option<Figure>, limit: f64, show: impl Fn(&Figure) -> String) -> Verdict {
    judge(target, figure, |value| value >= limit, show)
}

/// By the median; where the interval's ends disagree, that is said.
fn judge(
    target: &'static str,
    figure: Option<Figure>,
    meets: impl Fn(f64) -> bool,
    show: impl Fn(&Figure) -> String,
) -> Verdict {
    let Some(figure) = figure else {
        return Verdict { target, measured: "-".to_owned(), verdict: NOT_MEASURED };
    };
    let certain = figure.interval.is_some_and(|(low, high)| meets(low) == meets(high));
    let verdict = match (meets(figure.median), figure.rough, certain) {
        (met, false, true) => verdict(met),
        (true, false, false) => "met, within the error",
        (false, false, false) => "missed, within the error",
        (true, true, _) => "met, roughly",
        (false, true, _) => "missed, roughly",
    };
    Verdict { target, measured: show(&figure), verdict }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

fn median(figure: Option<Figure>) -> Option<f64> {
    figure.map(|figure| rounded(figure.median))
}

fn error(figure: Option<Figure>) -> Option<f64> {
    figure.and_then(|figure| figure.error()).map(rounded)
}

/// Three decimals: more would be noise in a file that is compared by eye.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// ` ±error`, or ` ±?` where there are too few values to tell.
fn plus_minus(figure: &Figure, decimals: usize) -> String {
    figure.error().map_or(" ±?".to_owned(), |error| format!(" ±{error:.decimals$}"))
}

fn cell(figure: Option<Figure>, show: impl Fn(&Figure) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), |f| if f.rough { format!("~{}", show(&f)) } else { show(&f) })
}
