//! How fast a change reaches many workers: a real broker, and 1, 10, 100 and 500 followers of its change feed, which poll
//! it as the filter does and do nothing else.
//!
//! The broker has one core, the followers and who asks for the changes have the other. It fails when a change is not
//! confirmed by every follower, or when one follower is told it later than the command returned; never on speed.

mod follower;
mod report;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::changes::exchange::exchange;
use crate::counters::{Meter, resident};
use crate::instance::{INSTANCE, SECRET, SECRET_FILE, directories};
use crate::machine::{self, Cores, Machine};
use crate::plan::is_quick;
use crate::target_dir;
use crate::variants::Alive;
use crate::variants::attache::{self, Attache, free_port};
use follower::Followers;
use report::Row;

/// How many follow, row by row.
const FOLLOWERS: [usize; 4] = [1, 10, 100, 500];
/// Changes before those that count.
const WARM: usize = 10;
/// Longest pause between two changes; a random part of it.
const PAUSE: Duration = Duration::from_millis(60);
/// How long the broker is looked at while nothing changes: more than once a follower's poll.
const IDLE: Duration = Duration::from_secs(5);
/// How long anything may take that must come.
const SOON: Duration = Duration::from_secs(20);
const SESSION: &str = "agent";

/// Measures, prints a table and writes `bench-feeds.json`.
pub fn run() -> Result<()> {
    // So many that values lie beyond the interval of their 99th percentile.
    let changes = if is_quick() { 50 } else { 500 };
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    machine::pin(cores.load)?;
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let mut rows = Vec::new();
    for count in FOLLOWERS {
        eprintln!("{count} followers: {changes} changes");
        let broker = Broker::start(&dir.path().join(count.to_string()), &target, cores)?;
        rows.push(broker.measure(count, changes)?);
    }
    let path = target.join("bench-feeds.json");
    let told = json!({
        "machine": machine,
        "load_average_after": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    });
    fs::write(&path, serde_json::to_vec_pretty(&told)?)?;
    println!("{}\n\n{}\n\n{}", machine.to_line(), report::table(&rows), path.display());
    Ok(())
}

/// A broker of one session; ended when dropped.
struct Broker {
    port: u16,
    token: String,
    state: std::path::PathBuf,
    process: Alive,
}

impl Broker {
    fn start(dir: &Path, target: &Path, cores: Cores) -> Result<Self> {
        let (state, secrets) = directories(dir, SECRET)?;
        let port = free_port()?;
        let config = json!({
            "instance": INSTANCE,
            "state_dir": state,
            "listen": {"proxy": "127.0.0.1:0", "data_plane": format!("127.0.0.1:{port}")},
            "sources": {"order": ["file"], "file": {"dir": secrets}},
            "credentials": {"bench": {
                "source": {"file": SECRET_FILE}, "inject": "bearer", "destinations": [{"host": "api.bench.test"}],
            }},
            "sessions": [{"name": SESSION, "credentials": ["bench"]}],
        });
        let path = dir.join("attache.yaml");
        // JSON is YAML.
        fs::write(&path, serde_json::to_vec(&config)?)?;
        let binary = attache::broker(target).context("the broker is not built")?;
        let attache = Attache { binary: &binary, config: &path, module: Path::new("none") };
        let process = machine::pinned(cores.envoy, || attache.serve(dir, port))?;
        let state = state.join(INSTANCE);
        let token = fs::read_to_string(state.join("data-plane.token"))?;
        Ok(Self { port, token, state, process })
    }

    /// One size: so many followers, so many changes.
    fn measure(&self, count: usize, changes: usize) -> Result<Row> {
        let pid = self.process.0.id();
        let meter = Meter::Process(pid);
        let mut followers = Followers::new(self.port, &self.token)?;
        // What the first one and the first changes take, they take once.
        followers.add(1)?;
        self.wait_for(1, &followers)?;
        for n in 0..WARM {
            self.change(n, &followers)?;
        }
        let alone = resident(pid)?;
        followers.add(count - 1)?;
        self.wait_for(count, &followers)?;
        for n in 0..WARM {
            self.change(n, &followers)?;
        }
        let bytes = resident(pid)?;

        let before = meter.read()?;
        thread::sleep(IDLE);
        let idle = (meter.read()? - before).div_f64(IDLE.as_secs_f64());

        let mut row = Row { followers: count, idle, alone, bytes, ..Row::default() };
        let (before, began) = (meter.read()?, Instant::now());
        for n in 0..changes {
            thread::sleep(PAUSE.mul_f64(fastrand::f64()));
            row.changes.push(self.change(n, &followers)?);
        }
        // What it would have spent meanwhile anyway is not the changes'.
        let meanwhile = idle.mul_f64(began.elapsed().as_secs_f64());
        row.cpu = (meter.read()? - before).saturating_sub(meanwhile).div_f64(changes as f64);
        Ok(row)
    }

    /// Sets what the session may do, by turns, and waits until every follower has it.
    fn change(&self, n: usize, followers: &Followers) -> Result<report::Change> {
        let mode = if n.is_multiple_of(2) { "read-only" } else { "read-write" };
        let known = followers.newest()?;
        let began = Instant::now();
        let body = json!({"access_mode": mode}).to_string();
        let done = self.operate("PUT", &format!("/v1/sessions/{SESSION}/access-mode"), &body)?;
        let returned = Instant::now();
        let (applied, all) = (&done["applied"], followers.count());
        ensure!(applied["applied"] == all && applied["total"] == all, "not everywhere: {done}");
        let told = followers.told_after(known, began)?;
        ensure!(told <= returned, "a follower was told after the command had returned");
        Ok(report::Change {
            confirmed: returned - began,
            told: told - began,
            waited_ms: applied["took_ms"].as_u64().context("no time")?,
        })
    }

    /// Until the broker knows so many workers, and they the broker.
    fn wait_for(&self, count: usize, followers: &Followers) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let all = self.operate("GET", "/v1/workers", "")?;
            let live = all.as_array().into_iter().flatten().filter(|worker| worker["live"] == true).count();
            let are_told = followers.are_told()?;
            if live == count && are_told {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{live} of {count} followers in time");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn operate(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut control = UnixStream::connect(self.state.join("control.sock"))?;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: attache\r\ncontent-length: {length}\r\n\r\n{body}");
        let (status, body) = exchange(&mut control, request.as_bytes())?;
        ensure!(status == 200, "{method} {path} is answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }
}
