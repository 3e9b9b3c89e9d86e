//! What the filter costs, in ratios: one Envoy with one worker, one listener
//! per variant, one upstream behind all of them, measured in interleaved
//! slices of a second.
//!
//! It never fails on speed, never measures a variant that has not shown that
//! it does its work, and never compares figures of different moments.
//!
//! `bench intercept`, `bench broker`, `bench changes`, `bench scale`, `bench starts`, `bench bursts`, `bench feeds`,
//! `bench counts`, `bench profile` and `bench modules` measure other things: [`intercept`], [`broker`], [`changes`],
//! [`scale`], [`starts`], [`bursts`], [`feeds`], [`counts`], [`profile`], [`modules`]. `bench plots` draws what they wrote: [`plots`].

mod bodies;
mod broker;
mod bursts;
mod changes;
mod client;
mod connections;
mod counters;
mod counts;
mod envoy;
mod estimate;
mod exports;
mod feeds;
mod graphql;
mod instance;
mod intercept;
mod load;
mod machine;
mod modules;
mod plan;
mod plots;
mod profile;
mod proof;
mod report;
mod rules;
mod scale;
mod slices;
mod starts;
mod stats;
mod upstream;
mod variants;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use client::Client;
use counters::{Meter, Probe};
use envoy::Envoy;
use estimate::{Disturbed, Samples};
use instance::Ground;
use load::{Ask, Wrk};
use machine::{Cores, Machine};
use plan::Plan;
use proof::Prover;
use report::{Measured, Report};
use rules::{HOST, LOAD_PATH, Rules};
use slices::{Runner, Slice, Target};
use upstream::Upstream;
use variants::{Absent, Part, Workbench};

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        None => run(),
        Some("intercept") => intercept::run(),
        Some("broker") => broker::run(),
        // What `bench broker` starts beside the broker.
        Some("bare-handler") => match &std::env::args().skip(2).collect::<Vec<_>>()[..] {
            [port, answer, log @ ..] => broker::bare::serve(port, answer.clone(), log.first().map(String::as_str)),
            _ => Err(anyhow!("bench bare-handler PORT ANSWER [LOG]")),
        },
        Some("changes") => changes::run(),
        Some("scale") => {
            let only: Result<Vec<usize>, _> = std::env::args().skip(2).map(|size| size.parse()).collect();
            only.context("bench scale [SIZE …]").and_then(|only| scale::run(&only))
        }
        Some("plots") => target_dir().and_then(|target| plots::run(&target)),
        Some("profile") => profile::run(),
        Some("starts") => starts::run(),
        Some("bursts") => bursts::run(),
        Some("feeds") => feeds::run(),
        Some("counts") => counts::run(),
        Some("modules") => modules::run(&std::env::args_os().skip(2).map(PathBuf::from).collect::<Vec<_>>()),
        Some(other) => Err(anyhow!(
            "there is `bench`, and with `intercept`, `broker`, `changes`, `scale`, `starts`, `bursts`, `feeds`, `modules`, \
             `counts`, `profile` or `plots` behind it, but not {other}"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let plan = Plan::from_env();
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    // Everything started from here on serves or loads Envoy, and inherits this.
    machine::pin(cores.load)?;
    let dir = tempfile::tempdir()?;
    let wrk = Wrk::find(dir.path())?;
    let client = Client::new()?;
    let upstream = Upstream::start()?;
    let (upstream_port, rules) = (upstream.port, Rules::random());
    let gateway = envoy::listener();
    let bench = Workbench { dir: dir.path().to_owned(), target: target_dir()?, upstream_port, rules, gateway };
    let module_bytes = variants::module_bytes(&bench);

    let (mut parts, absent) = sort_out(variants::all(bench)?);
    let bootstrap = envoy::bootstrap(upstream_port, &mut parts)?;
    let envoy = Envoy::start(dir.path(), &bootstrap, cores.envoy, &client)?;
    let targets = prove(&parts, &envoy, &upstream, &client)?;

    let probe = Probe { cores, on_envoy_core: vec![Meter::Process(envoy.pid())], on_load_core: processes(&parts) };
    let runner = Runner { wrk: &wrk, probe: &probe, targets: &targets, seconds: plan.slice_seconds };
    eprintln!("{} variants; measuring for {} s", targets.len(), plan.measured_seconds());
    runner.warm(plan.connections)?;
    let throughput = runner.rounds(plan.connections, Duration::from_secs(plan.throughput_seconds))?;
    let latency = runner.rounds(1, Duration::from_secs(plan.latency_seconds))?;

    // Like Attaché itself: absent where it is not built, and said so there.
    let is_there = parts.iter().any(|(name, _)| *name == "attache");
    let target = target_dir()?;
    let ground = Ground { dir: dir.path(), target: &target, core: cores.envoy, upstream_port, client: &client };
    let graphql = is_there.then(|| graphql::measure(&ground, &probe, &upstream, &wrk, &plan)).transpose()?;

    let bodies = bodies::measure(&runner, &plan)?;
    let connections = connections::measure(&runner, &plan)?;

    let measured = targets.iter().enumerate().map(|(index, target)| {
        let of = |series| Samples::of(series, index, plan.enough);
        let has_service = target.service.is_some();
        (target.name, Measured { throughput: of(&throughput), latency: of(&latency), has_service })
    });
    let report = Report {
        machine,
        envoy: envoy::version()?,
        plan,
        rounds: (rounds(&throughput), rounds(&latency)),
        disturbed: Disturbed::count(throughput.iter().chain(&latency)),
        variants: measured.collect(),
        absent,
        module_bytes,
        bodies,
        connections,
        graphql,
    };
    let path = target_dir()?.join("bench.json");
    fs::write(&path, serde_json::to_vec_pretty(&report.to_json())?)?;
    println!("{}\n\n{}", report.to_text(), path.display());
    report.complete()
}

type Present = Vec<(&'static str, Part)>;
type Missing = Vec<(&'static str, Absent)>;

/// The parts that are there, and why the others are not.
fn sort_out(all: Vec<variants::Variant>) -> (Present, Missing) {
    let (mut parts, mut absent) = (Vec::new(), Vec::new());
    for (name, variant) in all {
        match variant {
            Ok(part) => parts.push((name, part)),
            Err(reason) => absent.push((name, reason)),
        }
    }
    (parts, absent)
}

/// The variants as targets, once each has shown what it claims.
fn prove(parts: &[(&'static str, Part)], envoy: &Envoy, upstream: &Upstream, client: &Client) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for (name, part) in parts {
        let port = envoy.port(name)?;
        let prover = Prover { client, upstream, port, host: HOST, prefix: part.prefix };
        let proven = prover.prove(&part.claim, &part.placeholder);
        let audited = proven.and_then(|()| part.audit.iter().try_for_each(|log| prover.prove_audit(log)));
        audited.with_context(|| format!("{name} does not do its work"))?;
        let ask = Ask { path: format!("{}{LOAD_PATH}", part.prefix), ..Ask::of(&part.placeholder) };
        let service = part.service.clone();
        targets.push(Target { name, port, ask, envoy: Meter::Process(envoy.pid()), service });
    }
    Ok(targets)
}

fn processes(parts: &[(&'static str, Part)]) -> Vec<Meter> {
    parts.iter().flat_map(|(_, part)| &part.alive).map(|process| Meter::Process(process.0.id())).collect()
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
