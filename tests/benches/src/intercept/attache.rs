//! Attaché as a forward proxy: a broker, and an Envoy with the bootstrap that `attache envoy-config --shape
//! forward-proxy` prints, unchanged.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::site::{SECRET, Site, UNMASKED};
use crate::client::Client;
use crate::counters::Meter;
use crate::envoy::{self, Envoy};
use crate::instance::{INSTANCE, SECRET_FILE, directories};
use crate::variants::Alive;
use crate::variants::attache::{self, Attache};

/// The session that is measured.
pub const WRITER: &str = "writer";
/// The one that may only read.
pub const READER: &str = "reader";
/// Where sessions have their placeholders, of the masked credential and of the other.
const VARIABLES: [&str; 2] = ["BENCH_MASKED", "BENCH_UNMASKED"];
/// Where they have the token for the door.
const SESSION_TOKEN: &str = "ATTACHE_SESSION_TOKEN";
/// The listener that clients name as their proxy.
const LISTENER: &str = "attache";

/// What is running; ended when dropped.
#[derive(Debug)]
pub struct Running {
    /// Where clients knock.
    pub port: u16,
    /// What clients trust.
    pub authority: String,
    /// The session that is measured.
    pub writer: Session,
    /// The session that may only read.
    pub reader: Session,
    envoy: Envoy,
    broker: Alive,
}

/// What a session was handed out.
#[derive(Debug)]
pub struct Session {
    /// For the door.
    pub token: String,
    /// In place of the credential that is masked in answers.
    pub masked: String,
    /// In place of the one that is not.
    pub unmasked: String,
}

impl Running {
    /// Starts both.
    pub fn start(dir: &Path, target: &Path, core: usize, site: &Site, client: &Client) -> Result<Self> {
        let module = attache::module(target).context("the packed filter is not built")?;
        let binary = attache::broker(target).context("the broker is not built")?;
        let dir = dir.join("attache");
        let config = write(&dir, site)?;
        let attache = Attache { binary: &binary, config: &config, module: &module };
        let state = dir.join("state").join(INSTANCE);
        let listens = |socket: &str| UnixStream::connect(state.join(socket)).is_ok();
        let broker = attache.serve_until(&dir, || listens("data-plane.sock") && listens("control.sock"))?;

        let version = envoy::version()?;
        let shape = ["envoy-config", "--shape", "forward-proxy", "--json", "--admin", "127.0.0.1:0"];
        let bootstrap = attache.run(&[&shape[..], &["--envoy-version", &version]].concat())?;
        let envoy = Envoy::start(&dir, &serde_json::from_str(&bootstrap)?, core, client)?;
        let session = |name: &str| {
            let exported = |variable| attache.exported(name, variable);
            let [masked, unmasked] = VARIABLES;
            anyhow::Ok(Session {
                token: exported(SESSION_TOKEN)?,
                masked: exported(masked)?,
                unmasked: exported(unmasked)?,
            })
        };
        Ok(Self {
            port: envoy.port(LISTENER)?,
            authority: attache.run(&["ca", "export"])?,
            writer: session(WRITER)?,
            reader: session(READER)?,
            envoy,
            broker,
        })
    }

    /// Envoy.
    pub fn proxy(&self) -> Meter {
        Meter::Process(self.envoy.pid())
    }

    /// The broker.
    pub fn broker(&self) -> Meter {
        Meter::Process(self.broker.0.id())
    }
}

fn write(dir: &Path, site: &Site) -> Result<PathBuf> {
    let (state, secrets) = directories(dir, SECRET)?;

    // An address that is written may be private; the upstream is verified all the same.
    let bound = |(host, port): (&str, u16)| json!({"host": host, "upstream": {"address": format!("127.0.0.1:{port}"), "ca_file": site.ca_file}});
    let credential = |mask: bool, destinations: Vec<Value>| {
        json!({
            "source": {"file": SECRET_FILE},
            "inject": "bearer",
            "mask": mask,
            "agent_env": {VARIABLES[usize::from(!mask)]: "placeholder"},
            "placeholder": {"prefix": "ghp_", "length": 40},
            "destinations": destinations,
        })
    };
    let session =
        |name: &str, mode: &str| json!({"name": name, "credentials": ["masked", "unmasked"], "access_mode": mode});
    let config = json!({
        "instance": INSTANCE,
        "state_dir": state,
        "listen": {"proxy": "127.0.0.1:0"},
        "sources": {"order": ["file"], "file": {"dir": secrets}},
        "credentials": {
            "masked": credential(true, site.hosts().map(bound).collect()),
            "unmasked": credential(false, vec![bound((UNMASKED, site.upstream.port))]),
        },
        // On a busy disk a grant takes long: that belongs in the tail, and ends no run.
        "limits": {"callout_timeout": "5s"},
        "sessions": [session(WRITER, "read-write"), session(READER, "read-only")],
    });
    let path = dir.join("attache.yaml");
    // JSON is YAML.
    fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    Ok(path)
}
