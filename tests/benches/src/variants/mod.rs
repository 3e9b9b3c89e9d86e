//! The variants, one file each, one line each in [`all`].

pub mod attache;
mod bare;
mod credential_injector;
mod ext_authz;
mod ext_authz_grpc;
mod ext_proc;
pub mod gateway;
mod grpc;
mod lua;
mod minimal;
mod noop_wasm;

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::counters::Meter;
use crate::rules::Rules;

/// The name of the variant that all others are measured against.
pub const BARE: &str = "bare";

/// What a variant may use to prepare itself.
#[derive(Debug)]
pub struct Workbench {
    /// For its files; removed at the end.
    pub dir: PathBuf,
    /// Cargo's target directory, where modules and binaries are.
    pub target: PathBuf,
    /// The port of the upstream.
    pub upstream_port: u16,
    /// The shared rule table.
    pub rules: Rules,
    /// The listener of `attache envoy-config` without its filters and guards, which all variants
    /// share: what they differ in is the filters alone.
    pub gateway: Value,
}

/// A variant's place in the one Envoy, and how to talk to it.
#[derive(Debug)]
pub struct Part {
    /// Its listener; name and port are set by the bootstrap.
    pub listener: Value,
    /// Clusters beyond the upstream's.
    pub clusters: Vec<Value>,
    /// Static secrets.
    pub secrets: Vec<Value>,
    /// What its bootstrap says beyond admin, node and static resources.
    pub bootstrap: Map<String, Value>,
    /// The placeholder that the load sends in Authorization.
    pub placeholder: String,
    /// What stands before every path, proof and load.
    pub prefix: &'static str,
    /// What it claims, and has to show before it is measured.
    pub claim: Claim,
    /// The log in which its requests must appear.
    pub audit: Option<PathBuf>,
    /// The service it asks, whose CPU time is reported beside Envoy's.
    pub service: Option<Meter>,
    /// Processes on the load core that live as long as the measurement.
    pub alive: Vec<Alive>,
    /// Envoy's access log that its bootstrap has, and the listener here has not.
    pub access_log: Option<Value>,
    /// How it is asked for a credential that is not masked in answers.
    pub unmasked: Option<Unmasked>,
}

/// A credential that is not masked, on the paths that begin with [`UNMASKED`](crate::rules::UNMASKED).
#[derive(Clone, Debug)]
pub struct Unmasked {
    /// The placeholder of one who writes.
    pub placeholder: String,
    /// And of one who may only read.
    pub read_only: String,
}

/// What a variant does with a request.
#[derive(Clone, Debug)]
pub enum Claim {
    /// Nothing: the placeholder reaches the upstream.
    Untouched,
    /// It replaces Authorization, whoever asks.
    Injects {
        /// What the upstream must receive.
        authorization: String,
    },
    /// It injects by the rules: it strips other credentials, refuses unknown
    /// placeholders, and writes of a read-only session.
    Decides {
        /// What the upstream must receive.
        authorization: String,
        /// A placeholder that may only read.
        read_only: String,
    },
}

/// Why a variant is not in this run.
#[derive(Clone, Debug)]
pub enum Absent {
    /// What it needs has not been built; the text says what.
    NotBuilt(String),
    /// It is there and could not be prepared: the run fails in the end.
    Broken(String),
}

/// A variant, ready or not.
pub type Variant = (&'static str, Result<Part, Absent>);

/// A child process, ended when dropped.
#[derive(Debug)]
pub struct Alive(pub std::process::Child);

impl Drop for Alive {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every variant, `bare` first.
pub fn all(mut bench: Workbench) -> Result<Vec<Variant>> {
    let attache = attache::part(&bench);
    if let Ok(part) = &attache {
        bench.gateway = gateway::without_filters(&part.listener)?;
    }
    let bench = &bench;
    let injects = attache::unrecorded(&attache, &bench.target);
    let audited = attache::unmasked(&attache);
    let told_by_envoy = attache::logged(&injects, &attache);
    let logged = attache::logged(&attache, &attache);
    Ok(vec![
        (BARE, Ok(bare::part(bench))),
        ("minimal", Ok(minimal::part(bench))),
        ("noop_wasm", noop_wasm::part(bench)?),
        ("credential_injector", Ok(credential_injector::part(bench)?)),
        ("lua", Ok(lua::part(bench)?)),
        ("attache_inject", injects),
        ("attache_inject_log", told_by_envoy),
        ("attache_audit", audited),
        ("attache", attache),
        ("attache_logged", logged),
        ("ext_authz", Ok(ext_authz::part(bench)?)),
        ("ext_authz_grpc", Ok(ext_authz_grpc::part(bench)?)),
        ("ext_proc", Ok(ext_proc::part(bench)?)),
    ])
}

/// The size of the filter's module in bytes, if it is built.
pub fn module_bytes(bench: &Workbench) -> Option<u64> {
    attache::module(&bench.target).and_then(|path| std::fs::metadata(path).ok()).map(|file| file.len())
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt(what) => write!(f, "not built: {what}"),
            Self::Broken(reason) => write!(f, "broken: {reason}"),
        }
    }
}

impl Part {
    /// A part that is nothing but filters before the router.
    fn filters(bench: &Workbench, filters: Vec<Value>, claim: Claim) -> Self {
        Self {
            listener: gateway::with_filters(&bench.gateway, filters),
            clusters: Vec::new(),
            secrets: Vec::new(),
            bootstrap: Map::new(),
            placeholder: bench.rules.placeholder(false),
            prefix: "",
            claim,
            audit: None,
            service: None,
            alive: Vec::new(),
            access_log: None,
            unmasked: None,
        }
    }

    /// The same service behind another listener of the same Envoy: what both share stands in the first.
    pub fn beside(&self, listener: Value) -> Self {
        Self {
            listener,
            clusters: Vec::new(),
            secrets: Vec::new(),
            bootstrap: Map::new(),
            placeholder: self.placeholder.clone(),
            prefix: self.prefix,
            claim: self.claim.clone(),
            audit: self.audit.clone(),
            service: self.service.clone(),
            alive: Vec::new(),
            access_log: None,
            unmasked: self.unmasked.clone(),
        }
    }
}

impl Claim {
    /// The claim of the variants that decide by the shared table.
    fn decides_by(rules: &Rules) -> Self {
        Self::Decides { authorization: rules.authorization(), read_only: rules.placeholder(true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy;

    #[test]
    fn what_is_ours_stands_together_each_with_one_thing_more() {
        let dir = tempfile::tempdir().unwrap();
        let bench = Workbench {
            dir: dir.path().to_owned(),
            target: dir.path().join("nothing is built"),
            upstream_port: 1,
            rules: Rules::random(),
            gateway: envoy::listener(),
        };
        let all = all(bench).unwrap();
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.first(), Some(&BARE));
        let ours = ["attache_inject", "attache_inject_log", "attache_audit", "attache", "attache_logged"];
        assert!(names.windows(ours.len()).any(|row| row == ours), "{names:?}");
    }
}
