//! Whether the warm path stays as it is with many destinations and many sessions.
//!
//! One broker and one Envoy for each size, all idle but the one that is measured; each size is held
//! against slices of the smallest around its own. Of many destinations one is asked for, in their
//! middle: the others stand in the policy and in Envoy's routes. Of many sessions all ask in turn, so
//! that the worker finds each grant among those of the others; of more than it can hold grants for, as
//! many as those, from all over the list.

mod report;
mod world;

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::client::Client;
use crate::counters::Probe;
use crate::estimate::{CPU_US, Held, RPS, RULE, Samples};
use crate::instance::Ground;
use crate::load::Wrk;
use crate::machine::{self, Cores, Machine};
use crate::plan::is_quick;
use crate::slices::{BARE, Runner};
use crate::upstream::Upstream;
use crate::{envoy, target_dir};
use report::{Row, Series};
use world::{Axis, Way, World};

/// How many there are; the first is what the others are held against.
const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Longer ones, not where time is short.
const MANY_DESTINATIONS: [usize; 2] = [30_000, 100_000];
const MANY_SESSIONS: [usize; 1] = [100_000];
/// What Envoy and the broker take for a destination, as measured here, and some more: in bytes.
const A_DESTINATION: u64 = 140_000;
/// As in the throughput series of `bench`.
const CONNECTIONS: u32 = 16;
/// The length of a slice: wrk's shortest.
const SLICE_SECONDS: u64 = 1;
/// With more grants than this for each request, the path was not warm.
const MOST_RENEWED: f64 = 0.01;
/// Fewer clean slices than this, and a figure is marked as rough.
const ENOUGH: usize = 6;

/// Measures, prints a table and writes `bench-scale.json`.
pub fn run() -> Result<()> {
    let seconds = if is_quick() { 9 } else { 45 };
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    // Everything started from here on serves or loads Envoy, and inherits this.
    machine::pin(cores.load)?;
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let (wrk, client, upstream) = (Wrk::find(dir.path())?, Client::new()?, Upstream::start()?);
    let ground =
        Ground { dir: dir.path(), target: &target, core: cores.envoy, upstream_port: upstream.port, client: &client };

    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    for axis in [Axis::Destinations, Axis::Sessions] {
        let mut worlds = Vec::new();
        for size in sizes(axis) {
            let (takes, free) = (memory_of(axis, size), machine::available_memory()?);
            if takes > free {
                let [takes, free] = [takes, free].map(|bytes| bytes / 1_000_000);
                left_out.push(format!("{size} {}: left out, they take {takes} MB, and {free} are free", axis.as_str()));
                continue;
            }
            eprintln!("{size} {}: starting", axis.as_str());
            let mut world = World::start(&ground, axis, size)?;
            Way::ALL.iter().try_for_each(|way| world.prove(*way, &client, &upstream))?;
            world.warm(&wrk, CONNECTIONS)?;
            worlds.push(world);
        }
        for way in Way::ALL {
            eprintln!("{}, by {}: {seconds} s", axis.as_str(), way.as_str());
            all.push(measure(&worlds, (axis, way), cores, &wrk, Duration::from_secs(seconds))?);
        }
    }

    let path = target.join("bench-scale.json");
    fs::write(&path, serde_json::to_vec_pretty(&told(&machine, seconds, &all, &left_out)?)?)?;
    println!("{}\n\n{}\n", machine.to_line(), report::table(&all));
    left_out.iter().for_each(|what| println!("{what}\n"));
    println!("{}", path.display());
    Ok(())
}

/// What a size takes beside the others, in bytes; nothing worth asking for where it is sessions.
fn memory_of(axis: Axis, size: usize) -> u64 {
    if axis == Axis::Destinations { size as u64 * A_DESTINATION } else { 0 }
}

fn sizes(axis: Axis) -> impl Iterator<Item = usize> {
    let longer: &[usize] = match axis {
        _ if is_quick() => &[],
        Axis::Destinations => &MANY_DESTINATIONS,
        Axis::Sessions => &MANY_SESSIONS,
    };
    SIZES.into_iter().chain(longer.iter().copied())
}

/// All sizes of one series, each slice between two of the smallest.
fn measure(worlds: &[World], (axis, way): (Axis, Way), cores: Cores, wrk: &Wrk, budget: Duration) -> Result<Series> {
    let targets = worlds.iter().map(|world| world.target(way)).collect::<Result<Vec<_>>>()?;
    let (on_envoy_core, on_load_core) = worlds.iter().map(|world| (world.envoy(), world.broker())).unzip();
    let probe = Probe { cores, on_envoy_core, on_load_core };
    let runner = Runner { wrk, probe: &probe, targets: &targets, seconds: SLICE_SECONDS };
    runner.warm(CONNECTIONS)?;
    let issued = worlds.iter().map(World::grants_issued).collect::<Result<Vec<_>>>()?;
    let slices = runner.rounds(CONNECTIONS, budget)?;
    let mut rows = Vec::new();
    for (index, (world, before)) in worlds.iter().zip(issued).enumerate() {
        let mine = slices.iter().filter(|slice| slice.target == index);
        let requests: u64 = mine.map(|slice| slice.count.requests).sum();
        // A grant is renewed in its time; a worker that lost sight of its broker asks for all anew.
        let renewed = world.grants_issued()? - before;
        ensure!(renewed as f64 <= MOST_RENEWED * requests as f64, "{renewed} grants for {requests} requests: not warm");
        let samples = Samples::of(&slices, index, ENOUGH);
        rows.push(Row {
            size: world.size,
            cpu: samples.figure(CPU_US, Held::Alone),
            cpu_ratio: samples.figure(CPU_US, Held::Ratio),
            rps_ratio: samples.figure(RPS, Held::Ratio),
            counts: samples.counts(),
            is_base: index == BARE,
            requests,
            renewed,
            broker_started: world.broker_started(),
            envoy_started: world.envoy_started(),
            envoy_bytes: world.envoy_bytes,
            broker_bytes: world.broker_bytes,
            asking: world.asking,
        });
    }
    Ok(Series { axis: axis.as_str(), way: way.as_str(), rows })
}

fn told(machine: &Machine, seconds: u64, all: &[Series], left_out: &[String]) -> Result<Value> {
    Ok(json!({
        "machine": machine,
        "envoy": envoy::version()?,
        "method": {
            "seconds_a_series": seconds,
            "connections": CONNECTIONS,
            "slices": "smallest, another, smallest, another, …; the others in a new random order each round",
            "figures": "medians; each slice against the mean of its two neighbours of the smallest size",
            "error": "half of the median's 95 % interval by order statistics",
            "rejected": {"rule": "the slice or a neighbour exceeds one of these shares", "limits": RULE},
            "smallest": "its slices against those of its own before and after: the method's own error",
        },
        "left_out": left_out,
        "series": all.iter().map(Series::to_json).collect::<Vec<_>>(),
    }))
}
