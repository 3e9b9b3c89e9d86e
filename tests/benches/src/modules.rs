//! What one build of the filter costs against another: the modules named on the command line, each with a listener
//! of its own in one Envoy, behind one broker.
//!
//! This is how costs are told apart: a module that leaves one thing out, beside one that does not.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::Client;
use crate::counters::{Meter, Probe};
use crate::envoy::{self, Envoy};
use crate::estimate::{CPU_US, Figure, Held, RPS, Samples};
use crate::load::Wrk;
use crate::machine::{self, Cores, Machine};
use crate::plan::Plan;
use crate::rules::Rules;
use crate::slices::Runner;
use crate::upstream::Upstream;
use crate::variants::attache::bootstrap::with_module;
use crate::variants::{self, Part, Workbench};

/// Beside which the modules are measured, if they are there.
const BESIDE: [&str; 3] = [variants::BARE, "noop_wasm", "lua"];

/// Measures the modules, the first of which the others are held against.
pub fn run(modules: &[PathBuf]) -> Result<()> {
    ensure!(!modules.is_empty(), "bench modules FILE.wasm …");
    let plan = Plan::from_env();
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    machine::pin(cores.load)?;
    let dir = tempfile::tempdir()?;
    let (wrk, client, upstream) = (Wrk::find(dir.path())?, Client::new()?, Upstream::start()?);
    let bench = Workbench {
        dir: dir.path().to_owned(),
        target: crate::target_dir()?,
        upstream_port: upstream.port,
        rules: Rules::random(),
        gateway: envoy::listener(),
    };
    let mut parts = Vec::new();
    for (name, variant) in variants::all(bench)? {
        match variant {
            Ok(part) if name == "attache" => parts.extend(one_each(part, modules)?),
            Ok(part) if BESIDE.contains(&name) => parts.push((name, part)),
            Err(absent) if name == "attache" => anyhow::bail!("{absent}"),
            _ => {}
        }
    }
    let bootstrap = envoy::bootstrap(upstream.port, &mut parts)?;
    let envoy = Envoy::start(dir.path(), &bootstrap, cores.envoy, &client)?;
    let targets = crate::prove(&parts, &envoy, &upstream, &client)?;

    let on_envoy_core = vec![Meter::Process(envoy.pid())];
    let probe = Probe { cores, on_envoy_core, on_load_core: crate::processes(&parts) };
    let runner = Runner { wrk: &wrk, probe: &probe, targets: &targets, seconds: plan.slice_seconds };
    runner.warm(plan.connections)?;
    let slices = runner.rounds(plan.connections, Duration::from_secs(plan.throughput_seconds))?;
    let samples: Vec<_> = (0..targets.len()).map(|index| Samples::of(&slices, index, plan.enough)).collect();
    let first = parts.iter().position(|(name, _)| !BESIDE.contains(name)).context("no module")?;
    println!(
        "{}\n\n{:<32} {:>14} {:>18} {:>22} {:>8}",
        machine.to_line(),
        "module",
        "rps vs bare",
        "CPU µs over bare",
        "over the first",
        "clean"
    );
    for (target, own) in targets.iter().zip(&samples) {
        let over_first = own.against(&samples[first], CPU_US, Held::Alone, |a, b| a - b);
        let (clean, total) = own.counts();
        println!(
            "{:<32} {:>14} {:>18} {:>22} {:>8}",
            target.name,
            show(own.figure(RPS, Held::Ratio), 2),
            show(own.figure(CPU_US, Held::Over), 1),
            show(over_first, 1),
            format!("{clean}/{total}"),
        );
    }
    Ok(())
}

fn show(figure: Option<Figure>, decimals: usize) -> String {
    figure.map_or_else(String::new, |figure| figure.to_text(decimals))
}

/// The part of Attaché once for each module. What the listeners share stands in the first.
fn one_each(part: Part, modules: &[PathBuf]) -> Result<Vec<(&'static str, Part)>> {
    let mut parts = Vec::new();
    for module in modules {
        let name = module.file_stem().context("no file")?.to_string_lossy().into_owned();
        let listener = with_module(part.listener.clone(), &module.canonicalize()?.to_string_lossy());
        // Names of targets live as long as the run.
        parts.push((&*name.leak(), part.beside(listener)));
    }
    if let Some((_, first)) = parts.first_mut() {
        *first = Part { listener: first.listener.take(), ..part };
    }
    Ok(parts)
}
