//! How fast a change arrives: a real broker, a real Envoy with 1, 2 and 4 workers and the compiled
//! filter, a session warm on every worker, idle and under load.
//!
//! Nothing is pinned to a core and nothing thrown away: broker, Envoy, load and prober share the
//! machine, as they do where they run. It fails when a change is not confirmed by every worker, or
//! when a request that began after that was let through; never on speed.

pub mod exchange;
mod prober;
mod report;
mod world;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::load::{Ask, Wrk};
use crate::machine::Machine;
use crate::plan::is_quick;
use crate::target_dir;
use crate::upstream::Upstream;
use prober::{Prober, Verdict};
use report::{Row, Series};
use world::World;

/// Envoy's worker threads, row by row.
const WORKERS: [u32; 3] = [1, 2, 4];
/// wrk's connections: a closed loop, as many requests as the machine can serve.
const CONNECTIONS: u32 = 16;
/// Longest pause between two changes; a random part of it, so that they meet every phase of a
/// worker's tick.
const PAUSE: Duration = Duration::from_millis(60);

/// Measures, prints a table and writes `bench-changes.json`.
pub fn run() -> Result<()> {
    // Half of them take the right away. So many that values lie beyond the interval of their 99th percentile.
    let changes = if is_quick() { 20 } else { 800 };
    let machine = Machine::describe(None);
    let upstream = Upstream::start()?;
    let mut rows = Vec::new();
    for workers in WORKERS {
        let dir = tempfile::tempdir()?;
        let wrk = Wrk::find(dir.path())?;
        let world = World::start(dir.path(), upstream.port, workers)?;
        let mut prober = Prober::open(&world)?;
        for loaded in [false, true] {
            eprintln!("{workers} workers, {}: {changes} changes", if loaded { "loaded" } else { "idle" });
            let load =
                loaded.then(|| wrk.begin(world.proxy.port(), &Ask::of(&world.loader), CONNECTIONS)).transpose()?;
            // The load's first requests ask for grants.
            thread::sleep(Duration::from_millis(500));
            let mode = modes(&world, &mut prober, changes)?;
            let credential = reloads(&world, changes / 2)?;
            let load = load.map(|load| load.end()).transpose()?;
            rows.push(Row { workers, load, mode, credential });
        }
    }
    let path = target_dir()?.join("bench-changes.json");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let told = json!({
        "machine": machine, "envoy": crate::envoy::version()?, "load_average_after": load.trim(),
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    });
    fs::write(&path, serde_json::to_vec_pretty(&told)?)?;
    println!("{}\n\n{}\n\n{}", machine.to_line(), report::table(&rows), path.display());
    Ok(())
}

/// Takes the right to write away and gives it back, by turns.
fn modes(world: &World, prober: &mut Prober, changes: usize) -> Result<Series> {
    let mut series = Series::default();
    for n in 0..changes {
        pause();
        if n % 2 == 1 {
            series.confirmed(&world.set_access_mode("read-write")?);
            prober.wait_until_let_through()?;
            continue;
        }
        let watch = prober.watch()?;
        let change = world.set_access_mode("read-only");
        let seen = watch.end()?;
        let change = change?;
        let of = |verdict| seen.iter().filter(move |probe| probe.verdict == verdict);
        let passed = || of(Verdict::Passed);
        let late = passed().filter(|probe| probe.sent > change.returned).count();
        ensure!(late == 0, "{late} requests that began after the change was confirmed were let through");
        let since = |at: Instant| at.saturating_duration_since(change.began);
        let refused = of(Verdict::Refused).map(|probe| since(probe.answered)).min();
        series.first_refused.push(refused.context("no request was refused")?);
        series.last_passed.push(passed().map(|probe| since(probe.sent)).max().unwrap_or_default());
        series.unavailable += of(Verdict::Unavailable).count();
        series.gaps.extend(seen.windows(2).map(|pair| pair[1].sent.saturating_duration_since(pair[0].sent)));
        series.confirmed(&change);
    }
    Ok(series)
}

/// Changes the secret and has the broker look, over and over.
fn reloads(world: &World, changes: usize) -> Result<Series> {
    let mut series = Series::default();
    for n in 0..changes {
        pause();
        world.write_secret(&format!("secret-{n:08}-of-the-bench"))?;
        series.confirmed(&world.reload()?);
    }
    Ok(series)
}

fn pause() {
    thread::sleep(PAUSE.mul_f64(fastrand::f64()));
}
