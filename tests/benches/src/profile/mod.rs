//! Where the CPU time of a request goes: Envoy is sampled with call chains while a listener is under load, and each
//! sample is counted by whether WebAssembly stands in its chain, and whose code was running.
//!
//! The shipped Envoy has no symbols; what V8 has compiled is told by its lying in memory that belongs to no file.
//! Envoy and V8 keep frame pointers, so the chains are whole.

mod samples;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::client::Client;
use crate::envoy::{self, Envoy};
use crate::estimate::Figure;
use crate::load::Wrk;
use crate::machine::{self, Cores, Machine};
use crate::plan::is_quick;
use crate::rules::Rules;
use crate::slices::Target;
use crate::upstream::Upstream;
use crate::variants::{self, Workbench};
use crate::{prove, sort_out, target_dir};
use samples::{Counts, Part};

/// Which are sampled: nothing, what an empty filter costs, another language, ours, and what asks a service.
const SAMPLED: [&str; 7] = [variants::BARE, "noop_wasm", "lua", "attache", "ext_authz", "ext_authz_grpc", "ext_proc"];
/// As in the throughput series of `bench`.
const CONNECTIONS: u32 = 16;
/// Of one sampling.
const SECONDS: u64 = 3;
/// Connections and caches, before it is sampled.
const WARM: Duration = Duration::from_millis(500);
/// Samples a second: no multiple of a timer's.
const HERTZ: &str = "1999";

/// What one variant was seen to do.
#[derive(Debug)]
struct Seen {
    name: &'static str,
    /// Round by round, Envoy's CPU time for a request in µs, and the samples.
    rounds: Vec<(f64, Counts)>,
}

/// Samples, prints a table and writes `bench-profile.json`.
pub fn run() -> Result<()> {
    let rounds = if is_quick() { 2 } else { 10 };
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    // Everything started from here on serves or loads Envoy, and inherits this.
    machine::pin(cores.load)?;
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let (wrk, client, upstream) = (Wrk::find(dir.path())?, Client::new()?, Upstream::start()?);
    let (upstream_port, rules) = (upstream.port, Rules::random());
    let bench = Workbench {
        dir: dir.path().to_owned(),
        target: target.clone(),
        upstream_port,
        rules,
        gateway: envoy::listener(),
    };

    let (mut parts, absent) = sort_out(variants::all(bench)?);
    if let Some((name, reason)) = absent.iter().find(|(name, _)| SAMPLED.contains(name)) {
        bail!("{name}: {reason}");
    }
    parts.retain(|(name, _)| SAMPLED.contains(name));
    let bootstrap = envoy::bootstrap(upstream_port, &mut parts)?;
    let envoy = Envoy::start(dir.path(), &bootstrap, cores.envoy, &client)?;
    let targets = prove(&parts, &envoy, &upstream, &client)?;

    let mut all: Vec<Seen> = targets.iter().map(|target| Seen { name: target.name, rounds: Vec::new() }).collect();
    let mut order: Vec<usize> = (0..targets.len()).collect();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        fastrand::shuffle(&mut order);
        for &index in &order {
            let (Some(target), Some(seen)) = (targets.get(index), all.get_mut(index)) else { continue };
            seen.sample(target, &envoy, &wrk, &dir.path().join("perf.data"))?;
        }
    }

    let path = target.join("bench-profile.json");
    fs::write(&path, serde_json::to_vec_pretty(&to_json(&machine, rounds, &all)?)?)?;
    println!("{}\n\n{}\n\n{}", machine.to_line(), table(&all), path.display());
    Ok(())
}

impl Seen {
    /// One sampling under load.
    fn sample(&mut self, target: &Target, envoy: &Envoy, wrk: &Wrk, data: &Path) -> Result<()> {
        let before = target.envoy.read()?;
        let load = wrk.begin(target.port, &target.ask, CONNECTIONS)?;
        thread::sleep(WARM);
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "--event", "cpu-clock", "--call-graph", "fp", "--freq", HERTZ])
            .args(["--pid", &envoy.pid().to_string(), "--output"])
            .arg(data)
            .args(["--", "sleep", &SECONDS.to_string()]);
        said(perf, "recording")?;
        let (count, failures) = load.end()?;
        ensure!(failures == 0, "{failures} of {} requests failed", count.requests);
        let cpu = (target.envoy.read()? - before).as_secs_f64() * 1e6 / count.requests as f64;

        let mut perf = Command::new("perf");
        perf.args(["script", "--fields", "ip,sym,dso", "--input"]).arg(data);
        let counts = Counts::of(&said(perf, "reading")?);
        ensure!(counts.total() > 0, "perf saw nothing of {}", self.name);
        self.rounds.push((cpu, counts));
        Ok(())
    }

    /// Envoy's CPU time for a request, µs.
    fn cpu(&self) -> Option<Figure> {
        figure(self.rounds.iter().map(|(cpu, _)| *cpu).collect())
    }

    /// What one part has of it.
    fn part(&self, part: Part) -> Option<Figure> {
        figure(self.rounds.iter().map(|(cpu, counts)| cpu * counts.share(part)).collect())
    }

    fn samples(&self) -> usize {
        self.rounds.iter().map(|(_, counts)| counts.total()).sum()
    }
}

/// What it prints.
fn said(mut perf: Command, doing: &str) -> Result<String> {
    let output = perf.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{doing} samples: perf (apt-get install linux-perf)"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{doing} samples: perf ended with {}: {}", output.status, error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn figure(values: Vec<f64>) -> Option<Figure> {
    Figure::of(|_| values.clone(), 0)
}

/// The table, in Markdown; µs of Envoy's CPU time for a request.
fn table(all: &[Seen]) -> String {
    let show = |figure: Option<Figure>| figure.map_or("-".to_owned(), |figure| figure.to_text(1));
    let titles = Part::ALL.map(Part::as_str).join(" | ");
    let mut lines = vec![format!("| CPU µs | all | {titles} | samples |"), "|---|---|---|---|---|---|---|".to_owned()];
    lines.extend(all.iter().map(|seen| {
        let parts = Part::ALL.map(|part| show(seen.part(part))).join(" | ");
        format!("| {} | {} | {parts} | {} |", seen.name, show(seen.cpu()), seen.samples())
    }));
    lines.join("\n")
}

fn to_json(machine: &Machine, rounds: usize, all: &[Seen]) -> Result<Value> {
    let told = |figure: Option<Figure>| figure.map(Figure::to_json);
    let variants = all.iter().map(|seen| {
        let parts = Part::ALL.map(|part| json!({"part": part.as_str(), "cpu_us": told(seen.part(part))}));
        json!({"name": seen.name, "samples": seen.samples(), "cpu_us": told(seen.cpu()), "parts": parts})
    });
    Ok(json!({
        "machine": machine,
        "envoy": envoy::version()?,
        "method": {
            "rounds": rounds,
            "seconds_each": SECONDS,
            "samples_a_second": HERTZ,
            "connections": CONNECTIONS,
            "figures": "medians over the rounds of a part's share of the samples, times the CPU time of a request",
            "error": "half of the median's 95 % interval by order statistics",
        },
        "variants": variants.collect::<Vec<_>>(),
    }))
}
