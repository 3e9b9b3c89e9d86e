//! One broker and one Envoy of so many destinations, or of so many sessions.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::counters::{Meter, resident};
use crate::instance::{ATTACHE, Ground, Instance, SECRET, credential};
use crate::load::{Agents, Ask, Wrk};
use crate::proof::Prover;
use crate::rules::LOAD_PATH;
use crate::slices::Target;
use crate::upstream::Upstream;
use crate::variants::Claim;

/// Destinations of one credential.
const OF_ONE_CREDENTIAL: usize = 100;
/// Grants that a worker keeps (`attache_core::worker`). With one more it would forget one, and ask again.
const MOST_GRANTS: usize = 10_000;
/// What every session's grants take, at two hundred a second.
const WARM_LIMIT: Duration = Duration::from_secs(50);
/// One run of the load while the grants are fetched.
const WARM_SECONDS: u64 = 2;

/// What there are many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// In the config, in the policy, in Envoy's routes and clusters.
    Destinations,
    /// Each with a grant in the worker.
    Sessions,
}

/// How a destination is named.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// By the request's authority.
    Host,
    /// By the first segment of its path.
    Prefix,
}

/// One size of one axis.
#[derive(Debug)]
pub struct World {
    /// How many.
    pub size: usize,
    /// Resident memory of Envoy after all grants are there.
    pub envoy_bytes: u64,
    /// And of the broker.
    pub broker_bytes: u64,
    /// Envoy's CPU time while nobody asks, of each second.
    pub idle: Duration,
    /// Sessions that ask.
    pub asking: usize,
    axis: Axis,
    instance: Instance,
    asked_for: String,
    placeholders: PathBuf,
    one: String,
}

impl World {
    /// Starts both.
    pub fn start(ground: &Ground<'_>, axis: Axis, size: usize) -> Result<Self> {
        let (destinations, sessions) = match axis {
            Axis::Destinations => (size, 1),
            Axis::Sessions => (1, size),
        };
        let middle = destinations / 2;
        let sessions: Vec<String> = (0..sessions).map(|n| format!("agent-{n:05}")).collect();
        // A reader that asks to read: both halves of what is claimed can be shown.
        let used = name(middle / OF_ONE_CREDENTIAL);
        let declared =
            sessions.iter().map(|name| json!({"name": name, "credentials": [used], "access_mode": "read-only"}));
        let declared = Value::Array(declared.collect());
        let called = format!("{}-{size}", axis.as_str());
        let instance =
            Instance::start_alone(ground, &called, credentials(destinations, ground.upstream_port), declared)
                .with_context(|| format!("{size} {}", axis.as_str()))?;

        let asking: Vec<_> = sessions.iter().step_by(sessions.len().div_ceil(MOST_GRANTS)).collect();
        let placeholders = asking.iter().map(|one| instance.served.placeholder(one)).collect::<Result<Vec<_>>>()?;
        let file = instance.served.dir().join("placeholders");
        fs::write(&file, placeholders.join("\n") + "\n")?;
        let one = placeholders.into_iter().next().context("no session")?;
        let (envoy_bytes, broker_bytes, idle, asking) = (0, 0, Duration::ZERO, asking.len());
        let asked_for = host(middle);
        Ok(Self { size, envoy_bytes, broker_bytes, idle, asking, axis, instance, asked_for, placeholders: file, one })
    }

    /// Fails unless it injects, and refuses what it must.
    pub fn prove(&self, way: Way, client: &Client, upstream: &Upstream) -> Result<()> {
        let (host, prefix) = self.named(way);
        let prover =
            Prover { client, upstream, port: self.instance.envoy.port(ATTACHE)?, host: &host, prefix: &prefix };
        let claim = Claim::Decides { authorization: format!("Bearer {SECRET}"), read_only: self.one.clone() };
        let proven = prover.prove(&claim, &self.one);
        proven.with_context(|| format!("{} {} by {}", self.size, self.axis.as_str(), way.as_str()))
    }

    /// Has the worker hold a grant for every session.
    pub fn warm(&mut self, wrk: &Wrk, connections: u32) -> Result<()> {
        let sessions = self.asking;
        let target = self.target(Way::Host)?;
        let deadline = Instant::now() + WARM_LIMIT;
        while self.grants_issued()? < sessions {
            ensure!(Instant::now() < deadline, "{} of {sessions} grants in time", self.grants_issued()?);
            wrk.run(target.port, &target.ask, connections, WARM_SECONDS)?;
        }
        self.envoy_bytes = resident(self.instance.envoy.pid())?;
        self.broker_bytes = resident(self.instance.served.pid())?;
        Ok(())
    }

    /// Reads what Envoy does while nobody asks, for so long.
    pub fn watch_idle(&mut self, time: Duration) -> Result<()> {
        let before = self.envoy().read()?;
        thread::sleep(time);
        self.idle = (self.envoy().read()? - before).div_f64(time.as_secs_f64());
        Ok(())
    }

    /// What is measured.
    pub fn target(&self, way: Way) -> Result<Target> {
        let (host, prefix) = self.named(way);
        let agents = Agents::All(self.placeholders.clone());
        Ok(Target {
            name: self.axis.as_str(),
            port: self.instance.envoy.port(ATTACHE)?,
            ask: Ask { host, path: format!("{prefix}{LOAD_PATH}"), agents, post: None },
            envoy: self.envoy(),
            service: None,
        })
    }

    /// Its Envoy.
    pub fn envoy(&self) -> Meter {
        Meter::Process(self.instance.envoy.pid())
    }

    /// Its broker.
    pub fn broker(&self) -> Meter {
        self.instance.served.meter()
    }

    /// How many grants were issued so far.
    pub fn grants_issued(&self) -> Result<usize> {
        self.instance.served.grants_issued()
    }

    /// How long the broker took until it served.
    pub fn broker_started(&self) -> Duration {
        self.instance.served.started
    }

    /// How long Envoy took until it was live.
    pub fn envoy_started(&self) -> Duration {
        self.instance.envoy_started
    }

    /// The authority, and what stands before the path.
    fn named(&self, way: Way) -> (String, String) {
        match way {
            Way::Host => (self.asked_for.clone(), String::new()),
            Way::Prefix => ("127.0.0.1".to_owned(), format!("/{}", self.asked_for)),
        }
    }
}

impl Axis {
    /// In the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destinations => "destinations",
            Self::Sessions => "sessions",
        }
    }
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Host, Self::Prefix];

    /// In the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "Host",
            Self::Prefix => "path prefix",
        }
    }
}

fn credentials(destinations: usize, upstream_port: u16) -> Value {
    let upstream = json!({"address": format!("127.0.0.1:{upstream_port}")});
    let all: Vec<usize> = (0..destinations).collect();
    let chunks = all.chunks(OF_ONE_CREDENTIAL).enumerate().map(|(index, chunk)| {
        let bound =
            chunk.iter().map(|n| json!({"host": host(*n), "port": 80, "plaintext": true, "upstream": upstream}));
        (name(index), credential(Value::Array(bound.collect())))
    });
    Value::Object(chunks.collect::<Map<_, _>>())
}

fn host(n: usize) -> String {
    format!("host-{n:05}.bench.test")
}

fn name(credential: usize) -> String {
    format!("bench-{credential:03}")
}
