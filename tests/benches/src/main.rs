//! What the filter costs, in ratios: one Envoy with one worker, one listener
//! per variant, one upstream behind all of them, measured in interleaved
//! slices of a second.
//!
//! It never fails on speed, never measures a variant that has not shown that
//! it does its work, and never compares figures of different moments.

mod client;
mod counters;
mod envoy;
mod estimate;
mod exports;
mod load;
mod machine;
mod plan;
mod proof;
mod report;
mod rules;
mod slices;
mod stats;
mod upstream;
mod variants;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use client::Client;
use counters::{Meter, Probe};
use envoy::Envoy;
use estimate::Samples;
use load::Wrk;
use machine::{Cores, Machine};
use plan::Plan;
use proof::Prover;
use report::{Measured, Report};
use rules::Rules;
use slices::{Runner, Slice, Target};
use upstream::Upstream;
use variants::{Absent, Part, Workbench};

fn main() -> Result<()> {
    let plan = Plan::from_env();
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    machine::pin(cores.load)?;
    let dir = tempfile::tempdir()?;
    let wrk = Wrk::find(dir.path())?;
    let client = Client::new()?;
    let upstream = Upstream::start()?;
    let bench = Workbench {
        dir: dir.path().to_owned(),
        target: target_dir()?,
        upstream_port: upstream.port,
        rules: Rules::random(),
    };

    let (names, mut parts, absent) = sort_out(variants::all(&bench)?);
    let bootstrap = envoy::bootstrap(upstream.port, &mut parts)?;
    let envoy = Envoy::start(dir.path(), &bootstrap, cores.envoy, &client)?;
    let mut targets = Vec::new();
    for (name, part) in &parts {
        let port = envoy.port(name)?;
        let prover = Prover { client: &client, upstream: &upstream, port };
        prover.prove(&part.claim, &part.placeholder).with_context(|| format!("{name} does not do its work"))?;
        let (placeholder, service) = (part.placeholder.clone(), part.service.clone());
        targets.push(Target { name, port, placeholder, service });
    }

    let services = parts.iter().flat_map(|(_, part)| &part.alive);
    let probe = Probe {
        cores,
        envoy: Meter::Process(envoy.pid()),
        processes: services.map(|service| Meter::Process(service.0.id())).collect(),
    };
    let runner = Runner { wrk: &wrk, probe: &probe, targets: &targets, seconds: plan.slice_seconds };
    eprintln!("warming {} variants, then {} s", targets.len(), plan.measured_seconds());
    runner.warm(plan.connections)?;
    let throughput = runner.rounds(plan.connections, Duration::from_secs(plan.throughput_seconds))?;
    let latency = runner.rounds(1, Duration::from_secs(plan.latency_seconds))?;

    let measure = |target: usize| Measured {
        throughput: Samples::of(&throughput, target, plan.enough),
        latency: Samples::of(&latency, target, plan.enough),
        has_service: targets[target].service.is_some(),
    };
    let position = |name| targets.iter().position(|target| target.name == name);
    let variants = names.into_iter().map(|name| {
        let reason = || absent.iter().find(|(other, _)| *other == name).map(|(_, reason)| reason.clone());
        let measured = position(name).map(measure);
        (name, measured.ok_or_else(|| reason().unwrap_or(Absent(String::new()))))
    });
    let report = Report {
        machine,
        envoy: envoy::version()?,
        plan,
        rounds: (rounds(&throughput), rounds(&latency)),
        variants: variants.collect(),
        module_bytes: variants::module_bytes(&bench),
    };
    let path = bench.target.join("bench.json");
    fs::write(&path, serde_json::to_vec_pretty(&report.to_json())?)?;
    println!("{}\n\n{}", report.to_text(), path.display());
    Ok(())
}

type Present = Vec<(&'static str, Part)>;

/// All names in order, the parts that are there, and why the others are not.
fn sort_out(all: Vec<variants::Variant>) -> (Vec<&'static str>, Present, Vec<(&'static str, Absent)>) {
    let names = all.iter().map(|(name, _)| *name).collect();
    let (mut parts, mut absent) = (Vec::new(), Vec::new());
    for (name, variant) in all {
        match variant {
            Ok(part) => parts.push((name, part)),
            Err(reason) => absent.push((name, reason)),
        }
    }
    (names, parts, absent)
}

fn rounds(series: &[Slice]) -> usize {
    series.last().map_or(0, |slice| slice.round + 1)
}

/// This binary is `TARGET/PROFILE/bench`.
fn target_dir() -> Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let target = binary.ancestors().nth(2).context("the benchmark is not in a target directory")?;
    Ok(target.to_owned())
}
