//! Envoy's bootstrap, generated from a config and its policy; and an Envoy to run it.
//!
//! [`bootstrap`] is pure: it reads no file and starts nothing; what it must know of the machine
//! stands in [`Machine`], and [`find`] looks for it. No secret is ever in what it writes: the data
//! plane's token is in a file that Envoy reads itself. Every setting is one that `attache doctor`
//! checks, or says why it is there.

pub mod admin;
mod ads;
mod assertion;
mod clusters;
mod filters;
pub mod find;
mod forward;
mod health;
pub mod istio;
mod listener;
mod log;
pub mod process;
mod routes;
pub mod sidecar;
pub mod stats;
mod version;

pub use version::{TESTED_VERSION, Version, VersionError};

use crate::config::Config;
use attache_core::names::Name;
use attache_core::policy::{DestinationSpec, Spec};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The cluster that leads to the broker's data plane.
pub const BROKER_CLUSTER: &str = "attache_broker";
/// The listener's name, under which its address is found in Envoy's `/listeners`.
pub const LISTENER: &str = "attache";
/// The file in the state directory from which Envoy takes the data plane's token.
pub const TOKEN_FILE: &str = "data-plane-token.sds.json";
/// The socket in the state directory where Envoy's admin listens, unless told otherwise.
pub const ADMIN_SOCKET: &str = "envoy.sock";

/// Connections Envoy accepts at once: far more than agents open, fewer than descriptors it has.
const MAX_CONNECTIONS: u32 = 10_000;
/// What Envoy buffers for one connection before it pushes back, in bytes.
const BUFFER_BYTES: u32 = 1 << 20;

/// How Envoy stands towards agents and upstreams.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Agents call a base URL on Envoy; each destination has a route and a cluster.
    Gateway,
    /// Agents name Envoy as their proxy (`HTTPS_PROXY`); TLS is intercepted.
    ForwardProxy,
}

/// What the bootstrap says of the machine that Envoy runs on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The filter's module.
    pub filter: PathBuf,
    /// Its SHA-256, 64 hex digits. Envoy does not verify a local file; whoever starts it does.
    pub filter_sha256: Option<String>,
    /// The certificates of the authorities the system trusts, PEM.
    pub system_roots: PathBuf,
    /// The file from which Envoy takes the data plane's token (SDS).
    pub token: PathBuf,
    /// Where Envoy's admin listens.
    pub admin: Admin,
    /// Which Envoy it is.
    pub envoy: Version,
    /// What gates call their listener, where sessions are bound to it; `None`: [`LISTENER`].
    pub listener: Option<Name>,
}

/// Where Envoy's admin listens. Whoever reaches it reads every setting and can stop Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// A loopback address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A UNIX socket, 0600.
    Unix(PathBuf),
}

impl FromStr for Admin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a loopback IP:PORT or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return std::path::absolute(path).map(Admin::Unix).map_err(|_| EXPECTED);
        }
        let address: SocketAddr = text.parse().map_err(|_| EXPECTED)?;
        if address.ip().is_loopback() { Ok(Admin::Tcp(address)) } else { Err(EXPECTED) }
    }
}

/// The bootstrap (`envoy.config.bootstrap.v3.Bootstrap`) of an instance's Envoy.
pub fn bootstrap(shape: Shape, config: &Config, policy: &Spec, machine: &Machine) -> Value {
    let broker = clusters::broker(config, machine);
    let health = health::cluster(&broker);
    let mut clusters = vec![broker];
    let listeners = match shape {
        Shape::Gateway => {
            let ways = clusters::ways(config);
            let way = |spec: &DestinationSpec| ways.get(&spec.id).copied();
            clusters.extend(policy.destinations.iter().map(|spec| clusters::destination(spec, way(spec), machine)));
            let (listener, cluster) = listener::gateway(config, policy, machine);
            clusters.extend(cluster);
            vec![listener]
        }
        Shape::ForwardProxy => {
            clusters.push(ads::cluster(config, machine));
            clusters.extend(forward::clusters(config, policy, machine));
            forward::listeners(config, policy, machine)
        }
    };
    clusters.push(health);
    let mut bootstrap = json!({
        "node": {"id": format!("attache-{}", config.instance), "cluster": "attache"},
        "admin": {"address": admin_address(&machine.admin)},
        "overload_manager": {
            "resource_monitors": [{
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": type_url("envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"),
                    "max_active_downstream_connections": MAX_CONNECTIONS,
                },
            }],
        },
        "stats_config": stats::config(),
        // A cluster that nobody has asked has no counters of traffic: a quarter of what each takes in memory.
        "deferred_stat_options": {"enable_deferred_creation_stats": true},
        "static_resources": {
            "listeners": listeners,
            "clusters": clusters,
        },
    });
    if shape == Shape::ForwardProxy {
        let internal = type_url("envoy.extensions.bootstrap.internal_listener.v3.InternalListener");
        let internal = json!({"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": internal}});
        set(&mut bootstrap, "bootstrap_extensions", json!([internal]));
        set(&mut bootstrap, "dynamic_resources", ads::dynamic_resources());
    }
    bootstrap
}

/// A bootstrap as YAML, with a word on where it comes from, and on what its Envoy lacks. `None` if it cannot be written.
pub fn to_yaml(bootstrap: &Value, lacks: &[&str]) -> Option<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(bootstrap, options).ok()?;
    let lacks: String = lacks.iter().map(|lacks| format!("# NOTE {lacks}.\n")).collect();
    Some(format!("# Written by `attache envoy-config`; changes belong in attache.yaml.\n{lacks}{yaml}"))
}

fn admin_address(admin: &Admin) -> Value {
    match admin {
        Admin::Tcp(address) => socket_address(&address.ip().to_string(), address.port()),
        Admin::Unix(path) => json!({"pipe": {"path": path, "mode": 0o600}}),
    }
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

/// Adds a field to an object.
fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Adds a field to an object within an object.
fn set_in(object: &mut Value, within: &str, name: &str, value: impl Into<Value>) {
    if let Some(inner) = object.get_mut(within) {
        set(inner, name, value);
    }
}

/// The key under which Envoy keeps filter state that a VM writes.
pub(crate) fn filter_state(name: &str) -> String {
    format!("wasm.{name}")
}

fn type_url(message: &str) -> String {
    format!("type.googleapis.com/{message}")
}

/// Whether some credential may open a WebSocket there.
fn speaks_websocket(destination: &DestinationSpec) -> bool {
    destination.bindings.iter().any(|binding| binding.websocket)
}

/// The paths, as patterns, on which a body must be read before the gate can decide on some request.
fn judged_paths(destination: &DestinationSpec) -> Vec<&str> {
    let mut paths: Vec<_> = destination.bindings.iter().flat_map(|binding| binding.access.judged_paths()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests;
