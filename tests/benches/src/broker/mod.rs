//! What a grant costs the broker: grants a second against a bare handler on the same stack, and memory by session and
//! by lease.
//!
//! A broker and the handler share one core, the load has the other. Slices are interleaved as everywhere: bare, one
//! series, bare, the other. Every grant is a record that is durable before its answer leaves; at the end the log must
//! hold as many as were answered. What that costs by itself shows where the same is held against a handler that records,
//! too.

pub mod bare;
mod report;
mod world;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::counters::{Meter, Probe};
use crate::load::Wrk;
use crate::machine::{self, Cores, Machine};
use crate::plan::is_quick;
use crate::slices::{BARE, Slice, interleaved};
use crate::target_dir;
use bare::Bare;
use report::{Memory, Report, Row};
use world::World;

/// Sessions of the large broker.
const SESSIONS: usize = 10_000;
/// And of the small one, against which its memory is held.
const FEW: usize = 10;
/// What each of them may use.
pub const CREDENTIALS: usize = 20;
/// Calls at once: as many as one worker has in the air (`attache_core::worker`).
const CONNECTIONS: u32 = 192;
/// Pairs of a session and a credential that a cold slice has for itself.
const OF_ONE_SLICE: usize = 20_000;

/// The series, the first of them that against which the others are held: in one round a handler that only answers, in
/// another one that records.
const SERIES: [[&str; 3]; 2] =
    [["bare handler", "warm", "cold"], ["bare handler that records", "warm, against that", "cold, against that"]];

/// Measures, prints tables and writes `bench-broker.json`.
pub fn run() -> Result<()> {
    let seconds = if is_quick() { 14 } else { 60 };
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    machine::pin(cores.load)?;
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let wrk = Wrk::find(dir.path())?;

    let few = World::start(dir.path(), &target, FEW, cores)?;
    let few_bytes = few.bytes()?;
    drop(few);
    let world = World::start(dir.path(), &target, SESSIONS, cores)?;
    let many_bytes = world.bytes()?;

    let asks = world.asks(dir.path(), OF_ONE_SLICE)?;
    eprintln!("{SESSIONS} sessions of {CREDENTIALS} credentials; measuring for twice {seconds} s");
    let log = dir.path().join("bare.jsonl");
    let mut rows = Vec::new();
    // What was cold in one round is not in the next.
    let rounds = asks.chunks(asks.len().div_ceil(SERIES.len()));
    for ((names, log), asks) in SERIES.into_iter().zip([None, Some(log.as_path())]).zip(rounds) {
        // One at a time: they share the broker's core.
        let bare = Bare::start(&world.granted, log, cores)?;
        let slices = measure((&world, &bare, asks), names, cores, &wrk, Duration::from_secs(seconds))?;
        rows.extend(names.into_iter().enumerate().map(|(index, name)| Row::of(name, &slices, index)));
    }
    let memory = leases(&world, &asks, &wrk, (few_bytes, many_bytes))?;
    let report = Report { machine, seconds, rows, memory, started: world.started };
    let path = target.join("bench-broker.json");
    fs::write(&path, serde_json::to_vec_pretty(&report.to_json())?)?;
    println!("{}\n\n{}", report.to_text(), path.display());
    Ok(())
}

/// Warm asks for the grants of one slice over and over, cold in each slice for others.
fn measure(
    (world, bare, asks): (&World, &Bare, &[std::path::PathBuf]),
    names: [&str; 3],
    cores: Cores,
    wrk: &Wrk,
    budget: Duration,
) -> Result<Vec<Slice>> {
    let meters = [bare.meter(), world.meter(), world.meter()];
    // Both have Envoy's core; the load core has this process and wrk.
    let probe = Probe { cores, on_envoy_core: vec![bare.meter(), world.meter()], on_load_core: Vec::new() };
    let (warm, cold) = asks.split_first().context("nobody asks")?;
    let post = |target: usize, file: &Path| {
        let port = if target == BARE { bare.port } else { world.port };
        wrk.post_each(port, (&world.token, file), CONNECTIONS, 1).with_context(|| names[target].to_owned())
    };
    // Connections, caches, and what is cold only once.
    for target in [BARE, 1, BARE, 1] {
        post(target, warm)?;
    }
    let issued = world.issued()?;
    let mut cold = cold.iter();
    let slices = interleaved(names.len(), budget, |target, round| {
        let file = if target == 2 { cold.next().unwrap_or(warm) } else { warm };
        let meter = &meters[target];
        let before = probe.read(meter, None)?;
        let count = post(target, file)?;
        let after = probe.read(meter, None)?;
        Ok(Slice { target, round, count, interval: before.until(&after) })
    })?;
    let granted = slices.iter().filter(|slice| slice.target != BARE);
    let (answered, count) = granted.fold((0, 0), |(sum, count), slice| (sum + slice.count.requests, count + 1));
    let recorded = world.issued()? - issued;
    // wrk counts what was answered in its time; what was on its way then is on record, too.
    let most = answered + count * 2 * u64::from(CONNECTIONS);
    ensure!((answered..=most).contains(&recorded), "{answered} grants were answered, and {recorded} are on record");
    Ok(slices)
}

/// What the broker has in memory for each session, and for each lease that is out.
fn leases(world: &World, asks: &[std::path::PathBuf], wrk: &Wrk, (few, many): (u64, u64)) -> Result<Memory> {
    let wanted = u64::try_from(SESSIONS * CREDENTIALS)?;
    let mut files = asks.iter().cycle();
    // Those that were measured are out, too.
    while world.issued()? < wanted {
        let file = files.next().context("nobody asks")?;
        wrk.post_each(world.port, (&world.token, file), CONNECTIONS, 2)?;
    }
    let (leases, bytes) = (world.issued()?, world.bytes()?);
    Ok(Memory {
        few: (FEW, few),
        many: (SESSIONS, many),
        session: many.saturating_sub(few) as f64 / (SESSIONS - FEW) as f64,
        lease: bytes.saturating_sub(many) as f64 / leases as f64,
        leases,
    })
}

/// A meter of a process.
fn meter(pid: u32) -> Meter {
    Meter::Process(pid)
}
