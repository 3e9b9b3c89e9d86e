//! A broker of its own with an Envoy of its own, in the listener of `attache envoy-config`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::changes::exchange::exchange;
use crate::client::Client;
use crate::counters::Meter;
use crate::envoy::{self, Envoy, Threads};
use crate::variants::attache::bootstrap::{Pieces, pieces};
use crate::variants::attache::{self, Attache};
use crate::variants::{Alive, Claim, Part, gateway};

/// The listener under measurement.
pub const ATTACHE: &str = "attache";
/// The same without our filters and guards.
pub const BARE: &str = "bare";
/// The file of the one secret.
pub const SECRET_FILE: &str = "secret";
/// What is in it.
pub const SECRET: &str = "ghp_secret0of0the0bench0and0nobody0else0";
/// Its name.
pub const INSTANCE: &str = "bench";

/// What every instance stands on.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// For its files.
    pub dir: &'a Path,
    /// Cargo's target directory.
    pub target: &'a Path,
    /// Envoy's core.
    pub core: usize,
    /// The port of the upstream.
    pub upstream_port: u16,
    /// For Envoy's admin.
    pub client: &'a Client,
}

/// What is running; ended when dropped.
#[derive(Debug)]
pub struct Instance {
    /// Envoy, with the listeners [`ATTACHE`] and [`BARE`].
    pub envoy: Envoy,
    /// How long Envoy took until it was live.
    pub envoy_started: Duration,
    /// Its broker.
    pub served: Served,
}

/// A broker, and what an Envoy of its own is made from; ended when dropped.
#[derive(Debug)]
pub struct Served {
    /// How long it took until it served.
    pub started: Duration,
    dir: PathBuf,
    upstream_port: u16,
    pieces: Pieces,
    broker: Alive,
}

impl Instance {
    /// Starts both, with these credentials and sessions in the config.
    pub fn start(ground: &Ground<'_>, name: &str, credentials: Value, sessions: Value) -> Result<Self> {
        let served = Served::start(ground, name, credentials, sessions)?;
        let bootstrap = served.bootstrap(&[BARE, ATTACHE])?;
        let began = Instant::now();
        let envoy = Envoy::start(served.dir(), &bootstrap, ground.core, ground.client)?;
        Ok(Self { envoy, envoy_started: began.elapsed(), served })
    }

    /// The same with the listener [`ATTACHE`] alone. Nothing of a bootstrap that may take gigabytes is kept.
    pub fn start_alone(ground: &Ground<'_>, name: &str, credentials: Value, sessions: Value) -> Result<Self> {
        let mut served = Served::start(ground, name, credentials, sessions)?;
        let nothing = Pieces {
            listener: Value::Null,
            clusters: Vec::new(),
            secrets: Vec::new(),
            bootstrap: Map::new(),
            access_log: None,
        };
        let whole = std::mem::replace(&mut served.pieces, nothing);
        envoy::write(served.dir(), &envoy::bootstrap(ground.upstream_port, &mut [(ATTACHE, part(whole))])?)?;
        let (began, threads) = (Instant::now(), Threads { workers: 1, core: Some(ground.core) });
        let envoy = Envoy::start_written(served.dir(), threads, ground.client)?;
        Ok(Self { envoy, envoy_started: began.elapsed(), served })
    }
}

impl Served {
    /// Starts it, with these credentials and sessions in the config.
    pub fn start(ground: &Ground<'_>, name: &str, credentials: Value, sessions: Value) -> Result<Self> {
        let module = attache::module(ground.target).context("the packed filter is not built")?;
        let binary = attache::broker(ground.target).context("the broker is not built")?;
        let dir = ground.dir.join(name);
        let data_plane = attache::free_port()?;
        let config = write(&dir, data_plane, credentials, sessions)?;
        let attache = Attache { binary: &binary, config: &config, module: &module };
        let began = Instant::now();
        let broker = attache.serve(&dir, data_plane)?;
        let started = began.elapsed();
        let pieces = pieces(attache.bootstrap()?)?;
        Ok(Self { started, dir, upstream_port: ground.upstream_port, pieces, broker })
    }

    /// The bootstrap of an Envoy with these of the listeners [`ATTACHE`] and [`BARE`].
    pub fn bootstrap(&self, listeners: &[&'static str]) -> Result<Value> {
        let Pieces { listener, clusters, secrets, bootstrap, .. } = &self.pieces;
        let bare = gateway::without_filters(listener)?;
        let parts = listeners.iter().enumerate().map(|(index, name)| {
            let listener = if *name == BARE { bare.clone() } else { listener.clone() };
            let nothing =
                Pieces { listener, clusters: Vec::new(), secrets: Vec::new(), bootstrap: Map::new(), access_log: None };
            // The rest belongs to all of them, and stands there once.
            let (clusters, secrets, bootstrap) = (clusters.clone(), secrets.clone(), bootstrap.clone());
            let whole = if index == 0 { Pieces { clusters, secrets, bootstrap, ..nothing } } else { nothing };
            (*name, part(whole))
        });
        envoy::bootstrap(self.upstream_port, &mut parts.collect::<Vec<_>>())
    }

    /// Its CPU time.
    pub fn meter(&self) -> Meter {
        Meter::Process(self.pid())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.broker.0.id()
    }

    /// The placeholder of a session that has one.
    pub fn placeholder(&self, session: &str) -> Result<String> {
        let variables = self.operate("GET", &format!("/v1/sessions/{session}/env"), "")?;
        let mut values = variables.as_array().into_iter().flatten().filter_map(|one| one["value"].as_str());
        let placeholder = values.find(|value| value.starts_with(PREFIX));
        Ok(placeholder.with_context(|| format!("{session} has no placeholder"))?.to_owned())
    }

    /// One call of an operator.
    pub fn operate(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut control = UnixStream::connect(self.state().join("control.sock"))?;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: attache\r\ncontent-length: {length}\r\n\r\n{body}");
        let (status, body) = exchange(&mut control, request.as_bytes())?;
        ensure!(status == 200, "{method} {path} is answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    /// How many grants were issued so far.
    pub fn grants_issued(&self) -> Result<usize> {
        let mut issued = 0;
        // The log is rotated at its bound.
        for file in fs::read_dir(self.state())? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with("audit.jsonl") {
                let log = fs::read_to_string(file.path())?;
                issued += log.lines().filter(|record| record.contains(r#""kind":"issue""#)).count();
            }
        }
        Ok(issued)
    }

    /// Writes another secret; the broker is not told.
    pub fn write_secret(&self, secret: &str) -> Result<()> {
        let (path, beside) = (self.dir.join("secrets").join(SECRET_FILE), self.dir.join("secrets/.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(secret.as_bytes())?;
        // Beside and moved: nobody reads half a secret.
        Ok(fs::rename(beside, path)?)
    }

    /// Where its files may lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state").join(INSTANCE)
    }
}

/// What the placeholders begin with.
const PREFIX: &str = "ghp_";

/// A credential that goes to these destinations.
pub fn credential(destinations: Value) -> Value {
    json!({
        "source": {"file": SECRET_FILE},
        "inject": "bearer",
        "placeholder": {"prefix": PREFIX, "length": 40},
        "destinations": destinations,
    })
}

/// The directories of states and of secrets, ours alone, with this secret in [`SECRET_FILE`].
pub fn directories(dir: &Path, secret: &str) -> Result<(PathBuf, PathBuf)> {
    let private = |path: &Path| DirBuilder::new().mode(0o700).recursive(true).create(path);
    let (state, secrets) = (dir.join("state"), dir.join("secrets"));
    private(&state.join(INSTANCE))?;
    private(&secrets)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(secrets.join(SECRET_FILE))?;
    file.write_all(secret.as_bytes())?;
    Ok((state, secrets))
}

fn write(dir: &Path, data_plane: u16, credentials: Value, sessions: Value) -> Result<PathBuf> {
    let (state, secrets) = directories(dir, SECRET)?;
    let config = json!({
        "instance": INSTANCE,
        "state_dir": state,
        "listen": {"proxy": "127.0.0.1:0", "data_plane": format!("127.0.0.1:{data_plane}")},
        "sources": {"order": ["file"], "file": {"dir": secrets}},
        "credentials": credentials,
        "sessions": sessions,
    });
    let path = dir.join("attache.yaml");
    // JSON is YAML.
    fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(path)
}

fn part(Pieces { listener, clusters, secrets, bootstrap, .. }: Pieces) -> Part {
    Part {
        listener,
        clusters,
        secrets,
        bootstrap,
        placeholder: String::new(),
        prefix: "",
        claim: Claim::Untouched,
        audit: None,
        service: None,
        alive: Vec::new(),
        access_log: None,
        unmasked: None,
    }
}
