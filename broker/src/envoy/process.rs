//! A local Envoy: started, waited for, asked through its admin, ended.
//!
//! It runs in a process group of its own, so that Ctrl-C reaches attache alone and attache ends it
//! in order; and it ends when attache dies in any other way ([`exec_with_parent`]).

use super::admin::AdminUrl;
use super::{LISTENER, Version, health};
use crate::private_file::{PrivateDir, PrivateError};
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The hidden subcommand under which this binary becomes Envoy.
pub const BECOME_ENVOY: &str = "become-envoy";

const BOOTSTRAP: &str = "envoy.json";
/// Where Envoy's logs are: a directory of their own. Envoy watches those that it reads certificates and tokens from, and is
/// woken by whatever is written there; at level `debug` it would log that it was, for ever.
const LOGS: &str = "logs";
/// Envoy's access log, one JSON object a line, begun anew at each start.
const ACCESS_LOG: &str = "envoy-access.jsonl";
/// Envoy's own log, begun anew at each start.
const LOG: &str = "envoy.log";

/// Compiling a filter on a busy machine takes seconds.
const START: Duration = Duration::from_secs(30);
/// And what a cluster takes besides: 0.7 ms were measured, 1.9 with TLS.
const START_OF_A_CLUSTER: Duration = Duration::from_millis(5);
/// Time for open requests to end before Envoy is killed.
const STOP: Duration = Duration::from_secs(5);
/// Most time for open requests to end and for the last records: workers send theirs every 100 ms.
const LAST_RECORDS: Duration = Duration::from_secs(2);
/// Time until the counters of a worker are Envoy's: it hands them on every 50 ms.
const COUNTED: Duration = Duration::from_millis(150);
/// The filter's count of requests that it let through with a credential.
const FORWARDED: &str = "wasmcustom.outcome=.=forwarded;.;attache.decisions";
/// What the statistics of the clusters that lead to destinations begin with.
const TO_DESTINATIONS: &str = "cluster.attache_dst_";
const POLL: Duration = Duration::from_millis(50);
/// Lines of Envoy's log that a failure shows.
const SHOWN_LINES: usize = 15;

/// What Envoy has counted.
struct Counts {
    /// Requests that are open.
    open: u64,
    /// Requests that the filter let through with a credential.
    uses: u64,
    /// Requests that went to destinations.
    upstream: u64,
}

/// Why Envoy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("{}: {cause}", binary.display())]
    Start {
        /// The binary.
        binary: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Its bootstrap or logs cannot be written.
    #[error(transparent)]
    Files(#[from] PrivateError),
    /// It ended.
    #[error("Envoy ended ({status}). The end of {}:\n{tail}", log.display())]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// It did not become ready.
    #[error("Envoy was not ready within 30 s. The end of {}:\n{tail}", log.display())]
    NotReady {
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// It does not say which one it is.
    #[error("{}: `--version` does not name a version of Envoy", .0.display())]
    NoVersion(PathBuf),
    /// It could not be waited for.
    #[error("waiting for Envoy: {0}")]
    Wait(#[source] io::Error),
}

/// A running Envoy. Dropped, it is killed.
pub struct Process {
    child: Child,
    admin: AdminUrl,
    log: PathBuf,
}

impl Process {
    /// Starts Envoy on a bootstrap, which is kept in the state directory with its logs, and waits
    /// until it serves. To be called on the main thread: the kernel ends Envoy when the thread
    /// that started it ends.
    pub async fn start(
        binary: &Path,
        bootstrap: &Value,
        admin: AdminUrl,
        dir: &PrivateDir,
    ) -> Result<Self, ProcessError> {
        let failed = |cause| ProcessError::Start { binary: binary.to_owned(), cause };
        dir.replace(BOOTSTRAP, bootstrap.to_string().as_bytes())?;
        let logs = PrivateDir::open_or_create(&dir.path().join(LOGS))?;
        let own = std::env::current_exe().map_err(failed)?;
        let child = Command::new(own)
            .arg(BECOME_ENVOY)
            .arg(std::process::id().to_string())
            .arg(binary)
            .args(["--use-dynamic-base-id", "--disable-hot-restart", "--log-level", "warning", "--config-path"])
            .arg(dir.path().join(BOOTSTRAP))
            // It needs nothing of our environment, where secrets may be.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(fresh(&logs, ACCESS_LOG)?)
            .stderr(fresh(&logs, LOG)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut process = Self { child, admin, log: logs.path().join(LOG) };
        let clusters = bootstrap.pointer("/static_resources/clusters").and_then(Value::as_array).map_or(0, Vec::len);
        let clusters = u32::try_from(clusters).unwrap_or(u32::MAX);
        process.wait_until_ready(START + START_OF_A_CLUSTER.saturating_mul(clusters)).await?;
        Ok(process)
    }

    /// Its process id; `None` once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its own log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where agents reach it.
    pub async fn proxy(&self) -> Option<SocketAddr> {
        let listing: Value = serde_json::from_slice(&self.admin.get("/listeners?format=json").await.ok()?).ok()?;
        let listeners = listing.get("listener_statuses")?.as_array()?;
        let ours = listeners.iter().find(|listener| listener.get("name").is_some_and(|name| name == LISTENER))?;
        let socket = ours.get("local_address")?.get("socket_address")?;
        let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
        Some(SocketAddr::new(socket.get("address")?.as_str()?.parse().ok()?, port))
    }

    /// Waits until it ends by itself, which is a failure.
    pub async fn ended(&mut self) -> ProcessError {
        match self.child.wait().await {
            Ok(status) => self.told(status),
            Err(cause) => ProcessError::Wait(cause),
        }
    }

    /// Ends it in order: it accepts no more, workers deliver their last records, then it is asked to
    /// end, and killed if it does not listen. Answers whether every use is on record; `recorded` says
    /// how many are, and how many requests were forwarded, uses or not.
    pub async fn stop(mut self, recorded: impl Fn() -> (u64, u64)) -> bool {
        let delivered = self.admin.drain().await.is_ok() && self.has_delivered(recorded).await;
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?));
        let asked = pid.is_some_and(|pid| rustix::process::kill_process(pid, Signal::TERM).is_ok());
        if !asked || timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        delivered
    }

    /// Waits until no request is open and every use that the filter counted is on record.
    async fn has_delivered(&self, recorded: impl Fn() -> (u64, u64)) -> bool {
        let deadline = Instant::now() + LAST_RECORDS;
        sleep(COUNTED).await;
        while Instant::now() < deadline {
            let (with_a_credential, all) = recorded();
            // The filter's own count dies with a worker that traps; the upstreams' does not.
            let accounted =
                |counts: Counts| counts.open == 0 && counts.uses == with_a_credential && counts.upstream <= all;
            if self.counts().await.is_some_and(accounted) {
                return true;
            }
            sleep(POLL).await;
        }
        false
    }

    /// What Envoy has counted since it began.
    async fn counts(&self) -> Option<Counts> {
        let filter = "rq_active|attache.decisions|upstream_rq_total";
        let page = self.admin.get(&format!("/stats?filter={filter}&format=json")).await.ok()?;
        let page: Value = serde_json::from_slice(&page).ok()?;
        let stats = page.get("stats")?.as_array()?;
        let sum = |is: &dyn Fn(&str) -> bool| {
            let named = |stat: &&Value| stat.get("name").and_then(Value::as_str).is_some_and(is);
            stats.iter().filter(named).filter_map(|stat| stat.get("value")?.as_u64()).sum::<u64>()
        };
        // Of our listener; the admin's own is this very request.
        let of_ours = |name: &str| name.ends_with(".downstream_rq_active") && !name.starts_with("http.admin.");
        let upstream = |name: &str| name.starts_with(TO_DESTINATIONS) && name.ends_with(".upstream_rq_total");
        Some(Counts {
            open: sum(&|name| name.starts_with("http.") && of_ours(name)),
            uses: sum(&|name| name == FORWARDED),
            upstream: sum(&upstream),
        })
    }

    async fn wait_until_ready(&mut self, patience: Duration) -> Result<(), ProcessError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().map_err(ProcessError::Wait)? {
                return Err(self.told(status));
            }
            if self.serves().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = self.child.kill().await;
                return Err(ProcessError::NotReady { log: self.log.clone(), tail: tail(&self.log) });
            }
            sleep(POLL).await;
        }
    }

    /// Whether it takes requests and has found the broker: `GET /health` says yes from now on.
    async fn serves(&self) -> bool {
        let gauge = format!("cluster.{}.membership_healthy", health::CLUSTER);
        let is_live = self.admin.get("/ready").await.is_ok_and(|state| state.starts_with(b"LIVE"));
        let stats = self.admin.get(&format!("/stats?format=json&filter=^{gauge}$")).await.unwrap_or_default();
        let stats: Value = serde_json::from_slice(&stats).unwrap_or_default();
        is_live && stats.pointer("/stats/0/value") == Some(&Value::from(1))
    }

    fn told(&self, status: ExitStatus) -> ProcessError {
        ProcessError::Ended { status, log: self.log.clone(), tail: tail(&self.log) }
    }
}

/// Asks a binary which Envoy it is.
pub fn version(binary: &Path) -> Result<Version, ProcessError> {
    let asked = std::process::Command::new(binary).arg("--version").env_clear().stdin(Stdio::null()).output();
    let said = asked.map_err(|cause| ProcessError::Start { binary: binary.to_owned(), cause })?.stdout;
    // `PATH  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
    let said = String::from_utf8_lossy(&said);
    let version = said.split_once("version: ").and_then(|(_, about)| about.split('/').nth(1)?.parse().ok());
    version.ok_or_else(|| ProcessError::NoVersion(binary.to_owned()))
}

/// Has the kernel send this process a signal when the attache with this process id ends, which is its
/// parent. An exec leaves that as it is.
pub fn end_with(parent: u32, signal: Signal) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // A parent that died before the line above sends no signal any more.
    let living = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if living == i32::try_from(parent).ok() { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// Becomes a command, as a child of the attache with this process id that ends with it.
///
/// Runs in the child, after its exec and before the command's. Returns only if that fails.
pub fn exec_with_parent(parent: u32, command: &[OsString]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    let Some((binary, arguments)) = command.split_first() else { return io::ErrorKind::InvalidInput.into() };
    match end_with(parent, Signal::TERM) {
        Ok(()) => std::process::Command::new(binary).args(arguments).exec(),
        Err(error) => error,
    }
}

fn fresh(dir: &PrivateDir, name: &str) -> Result<File, ProcessError> {
    let path = dir.path().join(name);
    let missing = || ProcessError::Start { binary: path.clone(), cause: io::ErrorKind::NotFound.into() };
    dir.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?.ok_or_else(missing)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().rev().take(SHOWN_LINES).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
