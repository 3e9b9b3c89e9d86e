//! mitmproxy with an addon that does the same job, as far as it is one.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, json};

use super::site::{SECRET, Site};
use crate::counters::Meter;
use crate::machine;
use crate::variants::attache::free_port;
use crate::variants::{Absent, Alive};

const ADDON: &str = include_str!("mitmproxy.py");
/// Where scripts/mitmproxy puts it.
const INSTALLED: &str = ".tools/mitmproxy/bin/mitmdump";
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running mitmdump; ended when dropped.
#[derive(Debug)]
pub struct Running {
    /// Where clients knock.
    pub port: u16,
    /// What clients trust.
    pub authority: String,
    /// Token and placeholder of the session that is measured.
    pub writer: (String, String),
    /// Of the one that may only read.
    pub reader: (String, String),
    /// Its version, and Python's.
    pub version: String,
    process: Alive,
}

/// Starts it on `core`, if it is there.
pub fn start(dir: &Path, core: usize, site: &Site) -> Result<Running, Absent> {
    let named = std::env::var_os("ATTACHE_MITMDUMP").map(PathBuf::from);
    let binary = named.unwrap_or_else(|| PathBuf::from(INSTALLED));
    if !binary.exists() {
        return Err(Absent::NotBuilt(format!("{}; scripts/mitmproxy installs it", binary.display())));
    }
    run(dir, &binary, core, site).map_err(|error| Absent::Broken(format!("{error:#}")))
}

fn run(dir: &Path, binary: &Path, core: usize, site: &Site) -> Result<Running> {
    let dir = dir.join("mitmproxy");
    fs::create_dir(&dir)?;
    let (addon, told, log) = (dir.join("addon.py"), dir.join("told.json"), dir.join("mitmdump.log"));
    fs::write(&addon, ADDON)?;
    let [writer, reader] = [(), ()].map(|()| (random(), random()));
    let session = |(token, placeholder): &(String, String), read_only: bool| json!({"token": token, "placeholder": placeholder, "read_only": read_only});
    let hosts: Map<_, _> = site.hosts().map(|(host, port)| (host.to_owned(), json!(port))).collect();
    let tells =
        json!({"secret": SECRET, "hosts": hosts, "sessions": [session(&writer, false), session(&reader, true)]});
    fs::write(&told, serde_json::to_vec(&tells)?)?;

    let port = free_port()?;
    let mut command = Command::new(binary);
    command.args(["--quiet", "--mode", "regular", "--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
    let set = [
        format!("confdir={}", dir.display()),
        format!("ssl_verify_upstream_trusted_ca={}", site.ca_file.display()),
        // As Envoy does: what is large passes through, and is not held.
        "stream_large_bodies=1m".to_owned(),
        "flow_detail=0".to_owned(),
    ];
    command.args(set.iter().flat_map(|option| ["--set", option]));
    command.arg("--scripts").arg(&addon).env("BENCH_ATTACHE", &told);
    command.stdin(Stdio::null()).stdout(fs::File::create(&log)?).stderr(fs::File::options().append(true).open(&log)?);
    let mut process = Alive(machine::pinned(core, || command.spawn().context("starting mitmdump"))?);
    let deadline = Instant::now() + START_LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let ended = process.0.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let how = ended.map_or("is not ready in time".to_owned(), |status| format!("ends with {status}"));
            bail!("mitmdump {how}: {}", log.trim());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let authority = fs::read_to_string(dir.join("mitmproxy-ca-cert.pem")).context("mitmproxy's authority")?;
    Ok(Running { port, authority, writer, reader, version: version(binary)?, process })
}

impl Running {
    /// mitmdump.
    pub fn proxy(&self) -> Meter {
        Meter::Process(self.process.0.id())
    }
}

/// "Mitmproxy: 11.0.2", "Python: 3.11.7" and more lines.
fn version(binary: &Path) -> Result<String> {
    let told = Command::new(binary).arg("--version").output().context("running mitmdump --version")?;
    ensure!(told.status.success(), "mitmdump --version ends with {}", told.status);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let of = |what: &str| told.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default().trim().to_owned();
    Ok(format!("{}, Python {}", of("Mitmproxy:"), of("Python:")))
}

fn random() -> String {
    format!("bench_{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}
