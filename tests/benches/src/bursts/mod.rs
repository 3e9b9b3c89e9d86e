//! What a burst meets: 200 and 2,000 requests at once, each on a connection that is open already, of one agent and of as
//! many agents as there are requests; through a worker that holds no grant, through the same worker once it does, and
//! through the same listener without our filters.
//!
//! A worker is cold after the secret has changed: it has forgotten every grant that drew on it, and the broker has read
//! the new one. Nothing else differs from a warm burst. A refusal must be one that says that nobody could be asked in
//! time; of a warm burst, and of a bare one, every request must be served.

mod client;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::client::Client;
use crate::envoy;
use crate::instance::{ATTACHE, BARE, Ground, Instance, credential};
use crate::machine::{self, Cores, Machine};
use crate::plan::is_quick;
use crate::proof::Prover;
use crate::rules::HOST;
use crate::target_dir;
use crate::upstream::Upstream;
use crate::variants::Claim;
use client::{Burst, Shot};
use report::Row;

/// Requests of one burst.
const SIZES: [usize; 2] = [200, 2_000];
/// Descriptors that are needed beside one for each end of each connection.
const OTHER_DESCRIPTORS: u64 = 500;
/// Refusals of who could not be asked about in time.
const IN_TIME: [&str; 3] = ["rate_limited", "broker_unavailable", "stale"];

/// What a burst meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No filter of ours.
    Bare,
    /// A worker with all the grants.
    Warm,
    /// A worker without any.
    Cold,
}

/// Measures, prints a table and writes `bench-bursts.json`.
pub fn run() -> Result<()> {
    let times = if is_quick() { 2 } else { 10 };
    let most = SIZES.iter().copied().max().context("no size")?;
    // Clients and upstream are this process; Envoy inherits the limit.
    let descriptors = raise_limit(2 * u64::try_from(most)? + OTHER_DESCRIPTORS)?;
    let cores = Cores::choose()?;
    let machine = Machine::describe(cores);
    machine::pin(cores.load)?;
    let (dir, target) = (tempfile::tempdir()?, target_dir()?);
    let (client, upstream) = (Client::new()?, Upstream::start()?);
    let ground =
        Ground { dir: dir.path(), target: &target, core: cores.envoy, upstream_port: upstream.port, client: &client };
    let mut rows = Vec::new();
    for size in SIZES {
        // An Envoy for each size: one that has seen many connections has them to the upstream, too.
        let world = World::start(&ground, size, &client, &upstream)?;
        for agents in [1, size] {
            eprintln!("bursts of {size}, agents: {agents}: {times} of each kind");
            rows.extend(world.measure(agents, times)?);
        }
    }
    let path = target.join("bench-bursts.json");
    let told = json!({
        "machine": machine,
        "load_average_after": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "envoy": envoy::version()?,
        "descriptors": descriptors,
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    });
    fs::write(&path, serde_json::to_vec_pretty(&told)?)?;
    println!("{}\n\n{}\n\n{}", machine.to_line(), report::table(&rows), path.display());
    Ok(())
}

/// One broker and one Envoy, for bursts of one size.
struct World<'a> {
    size: usize,
    instance: Instance,
    placeholders: Vec<String>,
    client: &'a Client,
    upstream: &'a Upstream,
}

impl<'a> World<'a> {
    fn start(ground: &Ground<'_>, size: usize, client: &'a Client, upstream: &'a Upstream) -> Result<Self> {
        let names: Vec<String> = (0..size).map(|n| format!("agent-{n:05}")).collect();
        let to = json!({"host": HOST, "port": 80, "plaintext": true, "upstream": {"address": format!("127.0.0.1:{}", ground.upstream_port)}});
        let sessions = names
            .iter()
            .map(|name| json!({"name": name, "credentials": ["bench"], "access_mode": "read-only"}))
            .collect::<Value>();
        let credentials = json!({"bench": credential(json!([to]))});
        let instance = Instance::start(ground, &format!("bursts-{size}"), credentials, sessions)?;
        let placeholders = names.iter().map(|name| instance.served.placeholder(name)).collect::<Result<_>>()?;
        Ok(Self { size, instance, placeholders, client, upstream })
    }

    /// Every kind so often, by turns, after one turn that counts for nothing: Envoy's connections to the upstream are
    /// opened in it, as many as are ever needed.
    fn measure(&self, agents: usize, times: usize) -> Result<Vec<Row>> {
        let asks: Vec<_> =
            self.placeholders.iter().take(agents).cycle().take(self.size).map(|one| request(one)).collect();
        let mut found: BTreeMap<Kind, Vec<(Vec<Shot>, usize)>> = BTreeMap::new();
        for turn in 0..=times {
            for kind in [Kind::Cold, Kind::Warm, Kind::Bare] {
                let burst = self.burst(kind, agents, (turn, &asks)).with_context(|| format!("{kind:?} of {agents}"))?;
                if turn > 0 {
                    found.entry(kind).or_default().push(burst);
                }
            }
        }
        Ok(found.into_iter().map(|(kind, bursts)| Row::of(kind, (self.size, agents), &bursts)).collect())
    }

    /// One burst, and how many grants the broker issued for it.
    fn burst(&self, kind: Kind, agents: usize, (turn, asks): (usize, &[Vec<u8>])) -> Result<(Vec<Shot>, usize)> {
        let port = self.instance.envoy.port(if kind == Kind::Bare { BARE } else { ATTACHE })?;
        let served = &self.instance.served;
        match kind {
            Kind::Cold => self.forget(&secret(agents, turn))?,
            // Who was refused in the cold one has a grant now.
            Kind::Warm => self.settle(port, asks)?,
            Kind::Bare => {}
        }
        let burst = Burst::open(port, asks)?;
        let before = served.grants_issued()?;
        let shots = burst.fire()?;
        let issued = served.grants_issued()? - before;
        let is_wrong = |shot: &&Shot| !shot.is_served() && !IN_TIME.contains(&shot.reason.as_str());
        if let Some(first) = shots.iter().find(is_wrong) {
            let count = shots.iter().filter(is_wrong).count();
            let Shot { status, reason, answered, .. } = first;
            bail!("{count} of {} went wrong, the first after {answered:.0} ms: {status} {reason}", shots.len());
        }
        let count = shots.iter().filter(|shot| shot.is_served()).count();
        match kind {
            Kind::Cold if agents == 1 => ensure!(issued == 1, "{issued} grants for one agent: not coalesced"),
            Kind::Cold => ensure!(issued <= agents && count <= issued, "{count} served by {issued} grants"),
            _ => ensure!(issued == 0 && count == shots.len(), "{issued} grants, {count} of {} served", shots.len()),
        }
        if kind == Kind::Cold {
            self.prove(port, &secret(agents, turn))?;
        }
        Ok((shots, issued))
    }

    /// Changes the secret; after that no worker has a grant.
    fn forget(&self, secret: &str) -> Result<()> {
        self.instance.served.write_secret(secret)?;
        let done = self.instance.served.operate("POST", "/v1/credentials/bench/reload", "")?;
        let applied = &done["applied"];
        ensure!(
            applied["total"].as_u64() > Some(0) && applied["applied"] == applied["total"],
            "not everywhere: {done}"
        );
        Ok(())
    }

    /// Asks until everybody has a grant.
    fn settle(&self, port: u16, asks: &[Vec<u8>]) -> Result<()> {
        for _ in 0..10 {
            if Burst::open(port, asks)?.fire()?.iter().all(Shot::is_served) {
                return Ok(());
            }
        }
        bail!("not everybody has a grant after ten bursts")
    }

    /// What was injected is the newest secret, and what must be refused is.
    fn prove(&self, port: u16, secret: &str) -> Result<()> {
        let one = self.placeholders.first().context("no session")?;
        let claim = Claim::Decides { authorization: format!("Bearer {secret}"), read_only: one.clone() };
        let prover = Prover { client: self.client, upstream: self.upstream, port, host: HOST, prefix: "" };
        prover.prove(&claim, one)
    }
}

fn secret(agents: usize, turn: usize) -> String {
    format!("ghp_secret0of0the0bench0{agents:05}0{turn:05}0else0")
}

/// The measured request of one agent.
fn request(placeholder: &str) -> Vec<u8> {
    let headers = crate::rules::LOAD_HEADERS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let path = crate::rules::LOAD_PATH;
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {placeholder}\r\n{headers}\r\n").into_bytes()
}

/// Lets this process, and what it starts, have so many descriptors.
fn raise_limit(wanted: u64) -> Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= wanted, "{wanted} descriptors are needed, and {hard} are allowed: ulimit -Hn");
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

impl Kind {
    /// In the table and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// Longest that a burst may take.
pub const LIMIT: Duration = Duration::from_secs(30);
