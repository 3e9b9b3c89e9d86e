//! A real Envoy: started from a bootstrap, asked through its admin, killed when dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, H1, Ledger, Wire};
use crate::util;

/// How long Envoy may take until it is live: compiling a filter on a busy machine takes seconds.
const START: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(10);

/// How to run Envoy.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads.
    pub concurrency: u32,
    /// Appended to the command line.
    pub extra_args: Vec<String>,
    /// Added to the environment (for `host_env_keys`).
    pub env: Vec<(String, String)>,
    /// `--component-log-level`.
    pub component_log_level: String,
    /// Which Envoy.
    pub binary: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        let component_log_level = "wasm:info".to_owned();
        Self { concurrency: 1, extra_args: Vec::new(), env: Vec::new(), component_log_level, binary: binary() }
    }
}

/// A running Envoy. Its log is shown only when it is dropped by a failing test.
pub struct Envoy {
    child: Mutex<Child>,
    dir: TempDir,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts Envoy and waits until it is live. A bootstrap without `admin` gets one.
    ///
    /// # Panics
    /// When it does not become live; shows its log.
    pub async fn start(bootstrap: &Value, options: Options) -> Self {
        match Self::try_start(bootstrap, options).await {
            Ok(envoy) => envoy,
            Err(log) => panic!("Envoy did not become live. Its log:\n{log}"),
        }
    }

    /// Starts Envoy; its log when it exits or does not become live: for bootstraps that must fail.
    ///
    /// # Errors
    /// The captured log.
    pub async fn try_start(bootstrap: &Value, options: Options) -> Result<Self, String> {
        let dir = util::temp_dir();
        let mut bootstrap = bootstrap.clone();
        if bootstrap.get("admin").is_none() {
            bootstrap["admin"] = json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}});
        }
        std::fs::write(config(&dir), bootstrap.to_string()).expect("the bootstrap is writable");
        let mut child = command(&dir, &options).spawn().expect("the Envoy binary runs");
        let end = Instant::now() + START;
        loop {
            match admin_address(&dir) {
                Some(admin) if live(admin).await => return Ok(Self { child: Mutex::new(child), dir, admin }),
                _ => {}
            }
            let exited = child.try_wait().expect("a child can be waited for");
            if exited.is_some() || Instant::now() > end {
                child.kill().ok();
                let status = child.wait().expect("a child can be waited for");
                return Err(format!("{}\n({status})", read_log(&dir)));
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// The address of a listener, by name.
    ///
    /// # Panics
    /// When there is no such listener; names those that are.
    pub async fn addr(&self, listener: &str) -> SocketAddr {
        let found = self.listeners().await;
        let known = found.iter().find(|(name, _)| name == listener).map(|(_, addr)| *addr);
        known.unwrap_or_else(|| panic!("no listener {listener:?} among {found:?}"))
    }

    /// Every listener with a socket, by name.
    pub async fn listeners(&self) -> Vec<(String, SocketAddr)> {
        let text = self.admin_get("/listeners?format=json").await;
        let listing: Value = serde_json::from_str(&text).expect("the listing is JSON");
        let statuses = listing["listener_statuses"].as_array().cloned().unwrap_or_default();
        let named = |status: Value| {
            let socket = &status["local_address"]["socket_address"];
            let ip = socket["address"].as_str()?.parse().ok()?;
            let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
            Some((status["name"].as_str()?.to_owned(), SocketAddr::new(ip, port)))
        };
        statuses.into_iter().filter_map(named).collect()
    }

    /// Where its admin listens.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The body of an admin page.
    pub async fn admin_get(&self, path: &str) -> String {
        Agent::new().get(self.admin, "admin", path, &[]).await.text()
    }

    /// Does something through the admin (`/drain_listeners`, `/logging?level=…`); the answer's body.
    ///
    /// # Panics
    /// When the admin does not do it.
    pub async fn admin_post(&self, path: &str) -> String {
        let answer = Agent::new().request(self.admin, "POST", "admin", path, &[], b"").await;
        assert_eq!(answer.status, 200, "POST {path}: {}", answer.text());
        answer.text()
    }

    /// The value of a counter or gauge; `None` while it does not exist.
    pub async fn stat(&self, name: &str) -> Option<u64> {
        // The filter is a regular expression: fine for narrowing, the exact match is ours.
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let filter = if plain { name } else { "" };
        let listing = self.admin_get(&format!("/stats?filter={filter}")).await;
        let value = listing.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        value.parse().ok()
    }

    /// Waits until a counter or gauge satisfies `accepts`, and returns it.
    ///
    /// # Panics
    /// When it does not in time; shows its last value.
    pub async fn wait_stat(&self, name: &str, accepts: impl Fn(u64) -> bool, deadline: Duration) -> u64 {
        let end = Instant::now() + deadline;
        loop {
            let value = self.stat(name).await;
            match value {
                Some(value) if accepts(value) => return value,
                _ => assert!(Instant::now() < end, "{name} is {value:?} after {deadline:?}"),
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// `/config_dump`, secrets as Envoy shows them.
    pub async fn config_dump(&self) -> String {
        self.admin_get("/config_dump?include_eds").await
    }

    /// Starts a graceful drain of all listeners.
    pub async fn drain(&self) {
        self.admin_post("/drain_listeners?graceful").await;
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.child().try_wait().expect("a child can be waited for").is_none()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.dir)
    }

    /// The file it logs to.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        log(&self.dir)
    }

    /// Asks it to end (as SIGTERM does) and waits; the exit code.
    ///
    /// # Panics
    /// When it still runs after `deadline`.
    pub async fn quit(&self, deadline: Duration) -> Option<i32> {
        self.admin_post("/quitquitquit").await;
        let exited = || self.child().try_wait().expect("a child can be waited for");
        util::eventually_some(deadline, exited).await.code()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // An error means that it has ended already: there is nothing left to kill.
        child.kill().ok();
        child.wait().ok();
        if std::thread::panicking() {
            eprintln!("Envoy's log:\n{}", read_log(&self.dir));
        }
    }
}

/// The Envoy binary: `$ATTACHE_ENVOY`, the workspace's `.venv`, then `$PATH`.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(given) = std::env::var_os("ATTACHE_ENVOY") {
        return PathBuf::from(given);
    }
    let lib = util::workspace_root().join(".venv/lib");
    let pythons = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let in_venv = pythons.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&path).map(|dir| dir.join("envoy")).collect();
    let found = in_venv.chain(in_path).find(|candidate| candidate.is_file());
    found.expect("no Envoy in .venv or on PATH: run `make setup`, or set $ATTACHE_ENVOY")
}

/// The versions of Envoy that are served, as `tests/matrix/files.txt` lists them; the newest is the default.
///
/// # Panics
/// When the list cannot be read.
#[must_use]
pub fn served() -> Vec<String> {
    let root = util::workspace_root();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("a list of versions");
    let (list, default) = (read("tests/matrix/files.txt"), read(".envoy-version"));
    let others = list.lines().find_map(|line| line.strip_prefix("envoys ")).expect("the versions");
    others.split_whitespace().chain([default.trim()]).map(str::to_owned).collect()
}

/// An Envoy of this version, beside the one that everything else is tested on: `scripts/envoy` installs it.
/// `None`, with the reason on standard error, where it cannot be had.
#[must_use]
pub fn released(version: &str) -> Option<PathBuf> {
    let script = util::workspace_root().join("scripts/envoy");
    let output = Command::new(script).arg(version).output().expect("the script runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Some(text(&output.stdout).into());
    }
    assert_eq!(output.status.code(), Some(77), "scripts/envoy {version}: {}", text(&output.stderr));
    util::skipped(format_args!("no Envoy {version} here: `scripts/envoy {version}` says what is missing"));
    None
}

fn command(dir: &TempDir, options: &Options) -> Command {
    let log = File::create(log(dir)).expect("the log is writable");
    let errors = log.try_clone().expect("a file handle can be cloned");
    let mut command = Command::new(&options.binary);
    command.arg("--config-path").arg(config(dir));
    command.arg("--admin-address-path").arg(dir.path().join("admin"));
    command.arg("--use-dynamic-base-id");
    command.args(["--concurrency", &options.concurrency.to_string()]);
    command.args(["--log-level", "warning", "--component-log-level", &options.component_log_level]);
    command.args(&options.extra_args);
    command.envs(options.env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command
}

async fn live(admin: SocketAddr) -> bool {
    let Ok(wire) = Wire::dial(admin).await else { return false };
    let mut admin = H1::over(wire, Ledger::default().open("admin"));
    let ready = admin.request("GET", "admin", "/ready", &[], b"").await;
    ready.is_ok_and(|answer| answer.text().trim() == "LIVE")
}

fn admin_address(dir: &TempDir) -> Option<SocketAddr> {
    std::fs::read_to_string(dir.path().join("admin")).ok()?.trim().parse().ok()
}

fn config(dir: &TempDir) -> PathBuf {
    dir.path().join("bootstrap.json")
}

fn log(dir: &TempDir) -> PathBuf {
    dir.path().join("envoy.log")
}

fn read_log(dir: &TempDir) -> String {
    let bytes = std::fs::read(log(dir)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
