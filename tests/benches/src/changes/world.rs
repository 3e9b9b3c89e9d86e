//! One broker and one Envoy of so many workers, as `attache serve` and `attache envoy-config` make them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::exchange::exchange;
use crate::rules::HOST;
use crate::variants::Alive;
use crate::{envoy, target_dir};

/// How long anything may take that must come.
pub const SOON: Duration = Duration::from_secs(20);
const INSTANCE: &str = "bench";

/// What is running; ended when dropped.
#[derive(Debug)]
pub struct World {
    /// Where agents call.
    pub proxy: SocketAddr,
    /// Envoy's worker threads.
    pub workers: u32,
    /// The placeholder of the session that is changed.
    pub writer: String,
    /// That of the session that makes the load.
    pub loader: String,
    dir: PathBuf,
    // Envoy first.
    _envoy: Alive,
    _broker: Alive,
}

/// A change that every worker has confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Before the broker was asked for it.
    pub began: Instant,
    /// After it said that all have confirmed.
    pub returned: Instant,
    /// What it says that the workers took, in milliseconds.
    pub took_ms: u64,
}

impl World {
    /// Starts both, and waits until every worker follows the broker.
    pub fn start(dir: &Path, upstream_port: u16, workers: u32) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        write_config(dir, proxy, upstream_port)?;
        write_secret(dir, "secret-of-the-bench")?;
        let log = || File::create(dir.join("broker.log"));
        let mut serve = attache(dir, &["serve"])?;
        let broker = Alive(serve.stdin(Stdio::null()).stdout(log()?).stderr(log()?).spawn()?);
        let control = dir.join("state").join(INSTANCE).join("control.sock");
        wait("the broker", dir, || Ok(UnixStream::connect(&control).is_ok()))?;

        let bootstrap = dir.join("bootstrap.json");
        fs::write(&bootstrap, run(dir, &["envoy-config", "--shape", "gateway", "--json"])?)?;
        let mut command = Command::new(envoy::binary()?);
        command.args(["--disable-hot-restart", "--log-level", "warn", "--concurrency", &workers.to_string()]);
        command.arg("--config-path").arg(&bootstrap).stdin(Stdio::null()).stdout(Stdio::null());
        let envoy = Alive(command.stderr(File::create(dir.join("envoy.log"))?).spawn().context("starting Envoy")?);
        let (writer, loader) = (placeholder(dir, "writer")?, placeholder(dir, "loader")?);
        let world = Self { proxy, workers, writer, loader, dir: dir.to_owned(), _envoy: envoy, _broker: broker };
        wait("Envoy", dir, || Ok(world.followers()? == world.vms()))?;
        Ok(world)
    }

    /// What follows the feed: each worker's VM, and the one on Envoy's main thread.
    fn vms(&self) -> u64 {
        u64::from(self.workers) + 1
    }

    fn followers(&self) -> Result<u64> {
        let all = self.operate("GET", "/v1/workers", "")?;
        let live = all.as_array().into_iter().flatten().filter(|worker| worker["live"] == true);
        Ok(live.count() as u64)
    }

    /// Sets what the session may do.
    pub fn set_access_mode(&self, mode: &str) -> Result<Change> {
        self.change("PUT", "/v1/sessions/writer/access-mode", &json!({"access_mode": mode}).to_string())
    }

    /// Has the broker look at the secret's file.
    pub fn reload(&self) -> Result<Change> {
        self.change("POST", "/v1/credentials/bench/reload", "")
    }

    /// Writes another secret.
    pub fn write_secret(&self, secret: &str) -> Result<()> {
        write_secret(&self.dir, secret)
    }

    /// The workers that were given a grant for the session that is changed.
    pub fn workers_with_grants(&self) -> Result<BTreeSet<String>> {
        let log = fs::read_to_string(self.dir.join("state").join(INSTANCE).join("audit.jsonl"))?;
        let records = log.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        let issued = records.iter().filter(|record| record["kind"] == "issue" && record["session"] == "writer");
        Ok(issued.filter_map(|record| Some(record["issued_to"].as_str()?.to_owned())).collect())
    }

    fn change(&self, method: &str, path: &str, body: &str) -> Result<Change> {
        let began = Instant::now();
        let done = self.operate(method, path, body)?;
        let returned = Instant::now();
        let applied = &done["applied"];
        ensure!(applied["applied"] == self.vms() && applied["total"] == self.vms(), "not everywhere: {done}");
        Ok(Change { began, returned, took_ms: applied["took_ms"].as_u64().context("no time")? })
    }

    /// One call as the command line makes it: on a connection of its own, to the control socket.
    fn operate(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut stream = UnixStream::connect(self.dir.join("state").join(INSTANCE).join("control.sock"))?;
        stream.set_read_timeout(Some(SOON))?;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: attache\r\ncontent-length: {length}\r\n\r\n{body}");
        let (status, body) = exchange(&mut stream, request.as_bytes())?;
        ensure!(status == 200, "{method} {path} is answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }
}

fn write_config(dir: &Path, proxy: SocketAddr, upstream_port: u16) -> Result<()> {
    let private = |path: &Path| DirBuilder::new().mode(0o700).recursive(true).create(path);
    private(&dir.join("state").join(INSTANCE))?;
    private(&dir.join("secrets"))?;
    let upstream = json!({"address": format!("127.0.0.1:{upstream_port}")});
    let config = json!({
        "instance": INSTANCE,
        "state_dir": dir.join("state"),
        "listen": {"proxy": proxy},
        "sources": {"order": ["file"], "file": {"dir": dir.join("secrets")}},
        "credentials": {INSTANCE: {
            "source": {"file": "secret"},
            "inject": "bearer",
            "placeholder": {"prefix": "ghp_", "length": 40},
            "agent_env": {"BENCH_KEY": "placeholder"},
            "destinations": [{"host": HOST, "port": 80, "plaintext": true, "upstream": upstream}],
        }},
        "sessions": [
            {"name": "writer", "credentials": [INSTANCE]},
            {"name": "loader", "credentials": [INSTANCE]},
        ],
    });
    // JSON is YAML.
    Ok(fs::write(dir.join("attache.yaml"), serde_json::to_vec_pretty(&config)?)?)
}

/// Beside and moved: nobody reads half a secret.
fn write_secret(dir: &Path, secret: &str) -> Result<()> {
    let (path, beside) = (dir.join("secrets/secret"), dir.join("secrets/.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(secret.as_bytes())?;
    Ok(fs::rename(beside, path)?)
}

fn placeholder(dir: &Path, session: &str) -> Result<String> {
    let env: Value = serde_json::from_slice(&run(dir, &["session", "env", session, "--json"])?)?;
    Ok(env["BENCH_KEY"].as_str().context("no placeholder")?.to_owned())
}

fn run(dir: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let Output { status, stdout, stderr } = attache(dir, arguments)?.output()?;
    let told = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "attache {} ends with {status}: {}", arguments.join(" "), told.trim());
    Ok(stdout)
}

/// The broker's binary: `$ATTACHE_BROKER`, else `release/attache` in the target directory.
fn attache(dir: &Path, arguments: &[&str]) -> Result<Command> {
    let target = target_dir()?;
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let binary = named("ATTACHE_BROKER").unwrap_or_else(|| target.join("release/attache"));
    let filter = named("ATTACHE_FILTER").unwrap_or_else(|| target.join("filter/attache_filter.wasm"));
    ensure!(binary.is_file() && filter.is_file(), "{} and {} are needed", binary.display(), filter.display());
    let mut command = Command::new(binary);
    command.args(arguments).arg("--config").arg(dir.join("attache.yaml")).env("ATTACHE_FILTER", filter);
    command.env_remove("ATTACHE_RUNTIME_URL").env_remove("ATTACHE_INSTANCE_ID").env_remove("ATTACHE_STATE_DIR");
    Ok(command)
}

fn wait(what: &str, dir: &Path, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + SOON;
    while !ready()? {
        if Instant::now() > until {
            let log = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
            bail!("{what} is not ready in time:\n{}{}", log("broker.log"), log("envoy.log"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
