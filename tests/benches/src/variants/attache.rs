//! Attaché itself: the packed filter, warm, with its audit going to a running
//! broker, in the listener that `attache envoy-config` writes.
//!
//! Nothing of it is simulated. Where it cannot be prepared, the variant is
//! absent and says why; the others are measured all the same.

pub mod bootstrap;
mod config;

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Absent, Alive, Claim, Part, Unmasked, Workbench};
use crate::counters::Meter;
use crate::rules::UNMASKED;
use bootstrap::{pieces, with_log, with_module};

/// Of a broker with a hundred thousand sessions, too.
const START_LIMIT: Duration = Duration::from_secs(300);

/// The packed filter: `$ATTACHE_FILTER`, else `filter/attache_filter.wasm` in
/// the target directory.
pub fn module(target: &Path) -> Option<PathBuf> {
    let named = std::env::var_os("ATTACHE_FILTER").map(PathBuf::from);
    let path = named.unwrap_or_else(|| target.join("filter/attache_filter.wasm"));
    path.exists().then_some(path)
}

/// The broker: `$ATTACHE_BROKER`, else `release/attache` in the target
/// directory.
pub fn broker(target: &Path) -> Option<PathBuf> {
    let named = std::env::var_os("ATTACHE_BROKER").map(PathBuf::from);
    let path = named.unwrap_or_else(|| target.join("release/attache"));
    path.exists().then_some(path)
}

/// The filter with its broker.
pub fn part(bench: &Workbench) -> Result<Part, Absent> {
    let not_built = |what: &str| Absent::NotBuilt(what.to_owned());
    let module = module(&bench.target).ok_or_else(|| not_built("the packed filter"))?;
    let broker = broker(&bench.target).ok_or_else(|| not_built("the broker"))?;
    prepare(bench, &module, &broker).map_err(|error| Absent::Broken(format!("{error:#}")))
}

fn prepare(bench: &Workbench, module: &Path, broker: &Path) -> Result<Part> {
    let dir = bench.dir.join("attache");
    let data_plane = free_port()?;
    let config = config::write(bench, &dir, data_plane)?;
    let attache = Attache { binary: broker, config: &config, module };
    let process = attache.serve(&dir, data_plane)?;

    let authorization = bench.rules.authorization();
    let read_only = attache.exported(config::READER, &config::variable(0))?;
    let pieces = pieces(attache.bootstrap()?)?;
    Ok(Part {
        listener: pieces.listener,
        clusters: pieces.clusters,
        secrets: pieces.secrets,
        bootstrap: pieces.bootstrap,
        placeholder: attache.exported(config::WRITER, &config::variable(0))?,
        prefix: "",
        claim: Claim::Decides { authorization, read_only },
        audit: Some(config::audit_log(&dir)),
        service: Some(Meter::Process(process.0.id())),
        alive: vec![process],
        access_log: pieces.access_log,
        unmasked: Some(Unmasked {
            placeholder: attache.exported(config::UNMASKED, config::UNMASKED_VARIABLE)?,
            read_only: attache.exported(config::UNMASKED_READER, config::UNMASKED_VARIABLE)?,
        }),
    })
}

/// The same filter with the same broker, asked for a credential whose echoes are not masked: without a search of answers.
pub fn unmasked(part: &Result<Part, Absent>) -> Result<Part, Absent> {
    let part = part.as_ref().map_err(Clone::clone)?;
    let unmasked = part.unmasked.as_ref().ok_or_else(|| Absent::Broken("it has no such credential".to_owned()))?;
    let mut own = part.beside(part.listener.clone());
    own.prefix = UNMASKED;
    own.placeholder.clone_from(&unmasked.placeholder);
    if let Claim::Decides { read_only, .. } = &mut own.claim {
        read_only.clone_from(&unmasked.read_only);
    }
    Ok(own)
}

/// That, in a build of the filter that records no use: without audit, as no filter is shipped.
pub fn unrecorded(part: &Result<Part, Absent>, target: &Path) -> Result<Part, Absent> {
    let mut own = unmasked(part)?;
    let module = target.join("filter/attache_filter_unrecorded.wasm");
    if !module.exists() {
        return Err(Absent::NotBuilt(format!("{}: make bench builds it", module.display())));
    }
    own.listener = with_module(own.listener, &module.to_string_lossy());
    own.audit = None;
    Ok(own)
}

/// One of these in a listener that has the access log which `attache envoy-config` writes: Envoy tells the broker of each
/// request by itself.
pub fn logged(part: &Result<Part, Absent>, shipped: &Result<Part, Absent>) -> Result<Part, Absent> {
    let [part, shipped] = [part, shipped].map(|part| part.as_ref().map_err(Clone::clone));
    let (part, shipped) = (part?, shipped?);
    let log =
        shipped.access_log.as_ref().ok_or_else(|| Absent::Broken("its bootstrap has no access log".to_owned()))?;
    Ok(part.beside(with_log(&part.listener, log)))
}

/// The command line of the broker's binary.
#[derive(Clone, Copy, Debug)]
pub struct Attache<'a> {
    /// The broker.
    pub binary: &'a Path,
    /// `attache.yaml`.
    pub config: &'a Path,
    /// The packed filter.
    pub module: &'a Path,
}

impl Attache<'_> {
    /// Starts the broker and waits until its data plane accepts on this port.
    pub fn serve(&self, dir: &Path, data_plane: u16) -> Result<Alive> {
        self.serve_until(dir, || TcpStream::connect((Ipv4Addr::LOCALHOST, data_plane)).is_ok())
    }

    /// Starts the broker and waits until it is ready.
    pub fn serve_until(&self, dir: &Path, is_ready: impl Fn() -> bool) -> Result<Alive> {
        let log = dir.join("broker.log");
        let mut command = self.command(&["serve"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        let mut process = Alive(command.spawn().context("starting the broker")?);
        let deadline = Instant::now() + START_LIMIT;
        while !is_ready() {
            let ended = process.0.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let how = ended.map_or("is not ready in time".to_owned(), |status| format!("ends with {status}"));
                bail!("the broker {how}: {}", log.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// What a session exports in this variable.
    pub fn exported(&self, session: &str, variable: &str) -> Result<String> {
        let env: Value = serde_json::from_str(&self.run(&["session", "env", session, "--json"])?)?;
        let exported = env[variable].as_str();
        Ok(exported.with_context(|| format!("session env {session} shows no {variable}"))?.to_owned())
    }

    /// The gateway's bootstrap.
    pub fn bootstrap(&self) -> Result<Value> {
        let text = self.run(&["envoy-config", "--shape", "gateway", "--json"])?;
        serde_json::from_str(&text).context("envoy-config does not answer in JSON")
    }

    /// The answer of a command.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = self.command(arguments).output()?;
        let told = String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "attache {} ends with {status}: {}", arguments.join(" "), told.trim());
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command.args(arguments).arg("--config").arg(self.config).env("ATTACHE_FILTER", self.module);
        command
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
