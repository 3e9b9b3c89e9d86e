//! What there is once: how long Envoy takes to start with our module and without, what each worker's VM takes in memory,
//! and what a second worker gives.
//!
//! The same bootstrap twice, once without our filters and guards. An Envoy is started for each reading, with the filter
//! and without by turns. Nothing is pinned but what says so: the starts that have one core, as in a small container.

mod report;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST as HOST_HEADER};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::client::Client;
use crate::counters::{Meter, Probe, resident};
use crate::envoy::{Envoy, LOOK, Threads};
use crate::instance::{ATTACHE, BARE, Ground, SECRET, Served, credential};
use crate::load::{Ask, Wrk};
use crate::machine::{Cores, Machine};
use crate::plan::is_quick;
use crate::rules::{HOST, PROOF_PATH};
use crate::slices::{Runner, Slice, Target};
use crate::target_dir;
use crate::upstream::Upstream;
use report::{Cold, Memory, Report, Scaled};

/// Worker threads whose memory is read.
const WORKERS: [u32; 4] = [1, 2, 4, 8];
/// wrk's connections for each worker: as many as it takes for every one to get some.
const OF_ONE_WORKER: u32 = 16;
/// wrk's connections where workers are compared; the same for one and for two.
const CONNECTIONS: u32 = 32;
/// Longest until a request is let through.
const SOON: Duration = Duration::from_secs(20);
const SESSION: &str = "agent";

/// What every reading starts from.
struct Bench<'a> {
    client: &'a Client,
    upstream: &'a Upstream,
    wrk: &'a Wrk,
    served: Served,
    placeholder: String,
}

/// Measures, prints tables and writes `bench-starts.json`.
pub fn run() -> Result<()> {
    let (pairs, times, seconds) = if is_quick() { (5, 1, 10) } else { (12, 3, 40) };
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let (wrk, client, upstream) = (Wrk::find(dir.path())?, Client::new()?, Upstream::start()?);
    let ground =
        Ground { dir: dir.path(), target: &target, core: cores.envoy, upstream_port: upstream.port, client: &client };
    let to = json!({"host": HOST, "port": 80, "plaintext": true, "upstream": {"address": format!("127.0.0.1:{}", upstream.port)}});
    let sessions = json!([{"name": SESSION, "credentials": ["bench"]}]);
    let served = Served::start(&ground, "starts", json!({"bench": credential(json!([to]))}), sessions)?;
    let placeholder = served.placeholder(SESSION)?;
    let bench = Bench { client: &client, upstream: &upstream, wrk: &wrk, served, placeholder };

    let mut cold = Vec::new();
    for core in [None, Some(cores.envoy)] {
        eprintln!("{pairs} cold starts each, {}", if core.is_some() { "one core" } else { "all cores" });
        cold.push((core.is_some(), bench.cold(pairs, core)?));
    }
    eprintln!("memory with {WORKERS:?} workers, {times} times");
    let memory = (0..times).map(|_| bench.memory()).collect::<Result<Vec<_>>>()?.concat();
    eprintln!("one worker and two: {seconds} s");
    let scaled = bench.scaled(cores, Duration::from_secs(seconds))?;

    let report = Report { machine, cold, memory, scaled };
    let path = target.join("bench-starts.json");
    fs::write(&path, serde_json::to_vec_pretty(&report.to_json()?)?)?;
    println!("{}\n\n{}", report.to_text(), path.display());
    Ok(())
}

impl Bench<'_> {
    /// Starts with the filter and without, by turns; the first pair warms the disk's cache.
    fn cold(&self, pairs: usize, core: Option<usize>) -> Result<Vec<Cold>> {
        let mut all = Vec::new();
        for pair in 0..=pairs {
            let mut order = [BARE, ATTACHE];
            fastrand::shuffle(&mut order);
            let mut cold = Cold { bare: [0.0; 3], ours: [0.0; 3] };
            for name in order {
                let times = self.start_once(name, core)?;
                *(if name == BARE { &mut cold.bare } else { &mut cold.ours }) = times;
            }
            if pair > 0 {
                all.push(cold);
            }
        }
        Ok(all)
    }

    /// Until it was live, and until its first request was answered; the CPU time it took until then. All in ms.
    fn start_once(&self, name: &'static str, core: Option<usize>) -> Result<[f64; 3]> {
        let began = Instant::now();
        let envoy = self.envoy(name, Threads { workers: 1, core })?;
        let live = began.elapsed();
        self.first(&envoy, name)?;
        let first = began.elapsed();
        Ok([live, first, Meter::Process(envoy.pid()).read()?].map(|time| time.as_secs_f64() * 1e3))
    }

    fn envoy(&self, name: &'static str, threads: Threads) -> Result<Envoy> {
        Envoy::start_with(self.served.dir(), &self.served.bootstrap(&[name])?, threads, self.client)
    }

    /// Asks until it is let through, and looks at what the upstream received.
    fn first(&self, envoy: &Envoy, name: &'static str) -> Result<()> {
        let port = envoy.port(name)?;
        let own = format!("Bearer {}", self.placeholder);
        let deadline = Instant::now() + SOON;
        loop {
            let request = Request::get(format!("http://127.0.0.1:{port}{PROOF_PATH}"))
                .header(HOST_HEADER, HOST)
                .header(AUTHORIZATION, &own)
                .body(Full::<Bytes>::default())?;
            let (status, body) = self.client.send(request)?;
            if status == StatusCode::OK {
                break;
            }
            ensure!(
                status == StatusCode::SERVICE_UNAVAILABLE,
                "{name}: the first request is answered {status}: {body}"
            );
            ensure!(Instant::now() < deadline, "{name}: nothing is let through in time: {body}");
            std::thread::sleep(LOOK);
        }
        let expected = if name == ATTACHE { format!("Bearer {SECRET}") } else { own };
        let received = self.upstream.take_received().unwrap_or_default();
        let values: Vec<_> = received.get_all(AUTHORIZATION).iter().collect();
        ensure!(values == [expected.as_str()], "{name}: not the one expected Authorization reached the upstream");
        Ok(())
    }

    /// Envoy's memory by workers, with the filter and without, each once.
    fn memory(&self) -> Result<Vec<Memory>> {
        let mut all = Vec::new();
        for workers in WORKERS {
            for name in [BARE, ATTACHE] {
                let envoy = self.envoy(name, Threads { workers, core: None })?;
                self.first(&envoy, name)?;
                let live = resident(envoy.pid())?;
                self.wrk.run(envoy.port(name)?, &Ask::of(&self.placeholder), OF_ONE_WORKER * workers, 1)?;
                let bytes = [live, resident(envoy.pid())?];
                all.push(Memory { workers, is_ours: name == ATTACHE, bytes });
            }
        }
        Ok(all)
    }

    /// One worker and two, with the filter and without, in slices of a second.
    fn scaled(&self, cores: Cores, budget: Duration) -> Result<Scaled> {
        let mut targets = Vec::new();
        let mut envoys = Vec::new();
        for workers in [1, 2] {
            for name in [BARE, ATTACHE] {
                let envoy = self.envoy(name, Threads { workers, core: None })?;
                self.first(&envoy, name)?;
                let (port, ask) = (envoy.port(name)?, Ask::of(&self.placeholder));
                targets.push(Target { name, port, ask, envoy: Meter::Process(envoy.pid()), service: None });
                envoys.push(envoy);
            }
        }
        // What it says of cores is not used: nothing has one.
        let probe = Probe { cores, on_envoy_core: Vec::new(), on_load_core: Vec::new() };
        let runner = Runner { wrk: self.wrk, probe: &probe, targets: &targets, seconds: 1 };
        runner.warm(CONNECTIONS)?;
        let slices: Vec<Slice> = runner.rounds(CONNECTIONS, budget)?;
        Ok(Scaled::of(&slices))
    }
}
