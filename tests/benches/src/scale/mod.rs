//! Whether the warm path stays as it is with many destinations and many sessions.
//!
//! One broker and one Envoy for the smallest size, and one for each other, which is there only while it
//! is measured: slices of either in turn, each size held against those of the smallest around its own. Of
//! many destinations one is asked for, in their middle: the others stand in the policy and in Envoy's
//! routes. Of many sessions all ask in turn, so that the worker finds each grant among those of the
//! others; of more than it can hold grants for, as many as those, from all over the list.

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

/// What the others are held against.
const SMALLEST: usize = 10;
/// How many there are.
const SIZES: [usize; 2] = [1_000, 10_000];
/// Longer ones, not where time is short.
const MANY_DESTINATIONS: [usize; 2] = [30_000, 100_000];
const MANY_SESSIONS: [usize; 1] = [100_000];
/// What Envoy and the broker take for a destination, as measured here, and some more: in bytes.
const A_DESTINATION: u64 = 140_000;
/// As in the throughput series of `bench`.
const CONNECTIONS: u32 = 16;
/// The length of a slice: wrk's shortest.
const SLICE_SECONDS: u64 = 1;
/// How long a world is watched while nobody asks: Envoy looks through its clusters and statistics every five seconds.
const IDLE: Duration = Duration::from_secs(10);
/// The index of the one beside the smallest.
const OTHER: usize = BARE + 1;
/// With more grants than this for each request, the path was not warm.
const MOST_RENEWED: f64 = 0.01;
/// Fewer clean slices than this, and a figure is marked as rough.
const ENOUGH: usize = 6;

/// Measures these sizes, or all, prints a table and writes `bench-scale.json`.
pub fn run(only: &[usize]) -> Result<()> {
    let seconds = if is_quick() { 6 } else { 30 };
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    // Everything started from here on serves or loads Envoy, and inherits this.
    machine::pin(cores.load)?;
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let (wrk, client, upstream) = (Wrk::find(dir.path())?, Client::new()?, Upstream::start()?);
    let ground =
        Ground { dir: dir.path(), target: &target, core: cores.envoy, upstream_port: upstream.port, client: &client };
    let bench = Bench { ground, cores, wrk: &wrk, upstream: &upstream, budget: Duration::from_secs(seconds), only };

    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    for axis in [Axis::Destinations, Axis::Sessions] {
        all.extend(bench.series(axis, &mut left_out)?);
    }

    let path = target.join("bench-scale.json");
    fs::write(&path, serde_json::to_vec_pretty(&told(&machine, seconds, &all, &left_out)?)?)?;
    println!("{}\n\n{}\n", machine.to_line(), report::table(&all));
    left_out.iter().for_each(|what| println!("{what}\n"));
    println!("{}", path.display());
    Ok(())
}

/// What a size takes, in bytes; nothing worth asking for where it is sessions.
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

/// What every measurement needs.
struct Bench<'a> {
    ground: Ground<'a>,
    cores: Cores,
    wrk: &'a Wrk,
    upstream: &'a Upstream,
    /// For one size by one way.
    budget: Duration,
    /// The sizes that are wanted; none: all.
    only: &'a [usize],
}

/// What the slices of one size say.
struct Taken {
    samples: Samples,
    requests: u64,
    renewed: usize,
}

impl Bench<'_> {
    /// All sizes of one axis, by each way.
    fn series(&self, axis: Axis, left_out: &mut Vec<String>) -> Result<Vec<Series>> {
        let smallest = self.start(axis, SMALLEST)?;
        let mut base: Vec<Taken> = Vec::new();
        let mut series = Way::ALL.map(|way| Series { axis: axis.as_str(), way: way.as_str(), rows: Vec::new() });
        for size in sizes(axis).filter(|size| self.only.is_empty() || self.only.contains(size)) {
            let (takes, free) = (memory_of(axis, size), machine::available_memory()?);
            if takes > free {
                let [takes, free] = [takes, free].map(|bytes| bytes / 1_000_000);
                left_out.push(format!("{size} {}: left out, they take {takes} MB, and {free} are free", axis.as_str()));
                continue;
            }
            let other = self.start(axis, size)?;
            for (index, way) in Way::ALL.into_iter().enumerate() {
                eprintln!("{size} {}, by {}: {} s", axis.as_str(), way.as_str(), self.budget.as_secs());
                let [of_smallest, of_other] = self.measure([&smallest, &other], way)?;
                series[index].rows.push(of_other.to_row(&other, false));
                match base.get_mut(index) {
                    Some(base) => base.join(of_smallest),
                    None => base.push(of_smallest),
                }
            }
        }
        for (series, base) in series.iter_mut().zip(base) {
            series.rows.insert(0, base.to_row(&smallest, true));
        }
        Ok(series.into())
    }

    /// A size that works, with all grants where they are wanted.
    fn start(&self, axis: Axis, size: usize) -> Result<World> {
        eprintln!("{size} {}: starting", axis.as_str());
        let mut world = World::start(&self.ground, axis, size)?;
        Way::ALL.iter().try_for_each(|way| world.prove(*way, self.ground.client, self.upstream))?;
        world.warm(self.wrk, CONNECTIONS)?;
        world.watch_idle(IDLE)?;
        Ok(world)
    }

    /// The smallest and another one, by turns.
    fn measure(&self, worlds: [&World; 2], way: Way) -> Result<[Taken; 2]> {
        let [smallest, other] = worlds;
        let targets = [smallest.target(way)?, other.target(way)?];
        let (on_envoy_core, on_load_core) = worlds.iter().map(|world| (world.envoy(), world.broker())).unzip();
        let probe = Probe { cores: self.cores, on_envoy_core, on_load_core };
        let runner = Runner { wrk: self.wrk, probe: &probe, targets: &targets, seconds: SLICE_SECONDS };
        runner.warm(CONNECTIONS)?;
        let issued = [smallest.grants_issued()?, other.grants_issued()?];
        let slices = runner.rounds(CONNECTIONS, self.budget)?;
        let taken = |index: usize, world: &World| -> Result<Taken> {
            let mine = slices.iter().filter(|slice| slice.target == index);
            let requests: u64 = mine.map(|slice| slice.count.requests).sum();
            // A grant is renewed in its time; a worker that lost sight of its broker asks for all anew.
            let renewed = world.grants_issued()? - issued[index];
            let is_warm = renewed as f64 <= MOST_RENEWED * requests as f64;
            ensure!(is_warm, "{renewed} grants for {requests} requests: not warm");
            Ok(Taken { samples: Samples::of(&slices, index, ENOUGH), requests, renewed })
        };
        Ok([taken(BARE, smallest)?, taken(OTHER, other)?])
    }
}

impl Taken {
    fn join(&mut self, later: Self) {
        self.samples.join(later.samples);
        self.requests += later.requests;
        self.renewed += later.renewed;
    }

    fn to_row(&self, world: &World, is_base: bool) -> Row {
        Row {
            size: world.size,
            cpu: self.samples.figure(CPU_US, Held::Alone),
            cpu_ratio: self.samples.figure(CPU_US, Held::Ratio),
            rps_ratio: self.samples.figure(RPS, Held::Ratio),
            counts: self.samples.counts(),
            is_base,
            requests: self.requests,
            renewed: self.renewed,
            broker_started: world.broker_started(),
            envoy_started: world.envoy_started(),
            envoy_bytes: world.envoy_bytes,
            broker_bytes: world.broker_bytes,
            idle: world.idle,
            asking: world.asking,
        }
    }
}

fn told(machine: &Machine, seconds: u64, all: &[Series], left_out: &[String]) -> Result<Value> {
    Ok(json!({
        "machine": machine,
        "envoy": envoy::version()?,
        "method": {
            "seconds_a_size": seconds,
            "connections": CONNECTIONS,
            "slices": "smallest, another, smallest, another, …; of each size apart, nothing else running",
            "figures": "medians; each slice against the mean of its two neighbours of the smallest size",
            "error": "half of the median's 95 % interval by order statistics",
            "rejected": {"rule": "the slice or a neighbour exceeds one of these shares", "limits": RULE},
            "smallest": "its slices beside every size, against those of its own before and after: the method's own error",
            "idle_cpu_ms_a_second": "Envoy's CPU time while nobody asks",
        },
        "left_out": left_out,
        "series": all.iter().map(Series::to_json).collect::<Vec<_>>(),
    }))
}
