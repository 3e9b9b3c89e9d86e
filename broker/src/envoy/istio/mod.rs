//! What Istio is told, as manifests: pure, made from a config and its policy, as the bootstraps are.
//!
//! An `EnvoyFilter` carries what the bootstraps carry, piece by piece, out of the same functions: the whole
//! promise. `TrafficExtension` and `WasmPlugin` can name a module and its settings and nothing else; what that
//! leaves out is declared in those settings ([`attache_core::wire::Lack`]); in a sidecar a small `EnvoyFilter`
//! beside them adds the cluster by which the filter asks the broker. Around all of them stands what leads requests
//! there, and nothing past it (`traffic.rs`, `workload.rs`).

mod broker;
mod extension;
mod filter;
mod traffic;
mod workload;

use super::routes;
use crate::config::{Config, Endpoint};
use attache_core::matching::host::Authority;
use attache_core::policy::{DestinationSpec, Spec};
use serde_json::{Value, json};

/// The namespace of agents.
pub const AGENTS: &str = "agents";
/// Name, namespace, service account and label of the egress gateway.
pub const EGRESS: &str = "attache-egress";
/// The broker's service.
pub const BROKER_HOST: &str = "attache-broker.attache.svc.cluster.local";
/// Its data plane's port.
pub const BROKER_PORT: u16 = 3031;
/// Who the broker is.
pub const BROKER_ID: &str = "spiffe://cluster.local/ns/attache/sa/attache-broker";
/// The label of agents' pods, and its value.
const AGENT_LABEL: (&str, &str) = ("attache", "agent");
/// Where agents call.
const AGENT_PORT: u16 = 80;
/// The egress gateway's port, as its service and as its pods have it.
const GATEWAY_PORTS: (u16, u16) = (443, 8443);

/// Which of Istio's Envoys runs the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Topology {
    /// An egress gateway: a process, an identity and a network policy of its own.
    EgressGateway,
    /// The sidecar of each agent.
    Sidecar,
}

/// Which of the manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// What leads agents to the filter and on to their destinations, and nothing past it.
    Mesh,
    /// The filter by an EnvoyFilter: all that is promised.
    EnvoyFilter,
    /// The filter by a TrafficExtension (Istio 1.30): no judge, no guard, no assertion, no witness. For a sidecar
    /// with an EnvoyFilter that adds the way to the broker, and nothing else.
    TrafficExtension,
    /// The same by a WasmPlugin, for Istio before 1.30.
    WasmPlugin,
}

/// The filter's module, where Istio's agents fetch it.
#[derive(Clone, Debug)]
pub struct Module {
    /// `https://…` or `oci://…`.
    pub url: String,
    /// 64 hex digits: of the module behind `https://`, of the image's manifest behind `oci://`.
    pub sha256: String,
}

/// What cannot be said to Istio.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotForIstio {
    /// The policy's clusters are not Istio's.
    #[error("the config's clusters are not Istio's: add `mesh: istio` at its top level")]
    NoMesh,
    /// A cluster that a route of Istio's cannot name.
    #[error("{0}: `upstream.cluster` is not of the form outbound|PORT|SUBSET|HOST, which is how Istio names clusters")]
    Cluster(String),
    /// What only a bootstrap of our own can say.
    #[error(
        "listen.data_plane.envoy is for bootstraps that `attache envoy-config` writes: Istio's Envoys show the certificate \
         that the mesh gives them, reach the broker at {BROKER_HOST}:{BROKER_PORT} and demand {BROKER_ID}; remove it from \
         this config, and where yours are others change them in what is written"
    )]
    Envoy,
    /// No Envoy of Istio's says the name of a listener.
    #[error(
        "session {0}: `bind: {{listener: …}}` names a listener of a bootstrap that `attache envoy-config` writes, and an Envoy \
         of Istio's has none: bind it to `peer`, or hold the sidecar's own SPIFFE ID to its `sessions` in \
         listen.data_plane.peers"
    )]
    Listener(String),
}

/// The manifests of a part, in the order in which they are applied.
pub fn manifests(
    topology: Topology,
    part: Part,
    config: &Config,
    policy: &Spec,
    module: &Module,
) -> Result<Vec<Value>, NotForIstio> {
    if config.mesh.is_none() {
        return Err(NotForIstio::NoMesh);
    }
    if matches!(&config.listen.data_plane, Endpoint::Tls(door) if door.envoy.is_some()) {
        return Err(NotForIstio::Envoy);
    }
    if let Some(session) = config.sessions.iter().find(|session| session.bind.listener.is_some()) {
        return Err(NotForIstio::Listener(session.name.to_string()));
    }
    let ways: Vec<Way> = policy.destinations.iter().map(Way::of).collect::<Result<_, _>>()?;
    Ok(match part {
        Part::Mesh => {
            let mut all = workload::manifests(topology, config);
            all.extend(traffic::manifests(topology, &ways));
            all
        }
        Part::EnvoyFilter => vec![filter::manifest(topology, config, policy, module)],
        Part::TrafficExtension => extension::traffic_extension(topology, config, module),
        Part::WasmPlugin => extension::wasm_plugin(topology, config, module),
    })
}

/// Manifests as one YAML stream, with a word on where they come from. `None` if they cannot be written.
pub fn to_yaml(manifests: &[Value]) -> Option<String> {
    let mut out = String::from("# Written by `attache istio`; changes belong in attache.yaml.\n");
    for (index, manifest) in manifests.iter().enumerate() {
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        out.push_str(if index == 0 { "" } else { "---\n" });
        out.push_str(&serde_saphyr::to_string_with_options(manifest, options).ok()?);
    }
    Some(out)
}

/// A destination as Istio leads to it.
struct Way<'a> {
    spec: &'a DestinationSpec,
    host: String,
    port: u16,
    subset: Option<String>,
}

impl<'a> Way<'a> {
    fn of(spec: &'a DestinationSpec) -> Result<Self, NotForIstio> {
        let parts: Vec<&str> = spec.cluster.split('|').collect();
        let ["outbound", port, subset, host] = parts[..] else {
            return Err(NotForIstio::Cluster(spec.id.clone()));
        };
        let port = port.parse().map_err(|_| NotForIstio::Cluster(spec.id.clone()))?;
        let subset = Some(subset.to_owned()).filter(|subset| !subset.is_empty());
        Ok(Self { spec, host: host.to_owned(), port, subset })
    }

    /// The host that agents name.
    fn named(&self) -> String {
        Authority::parse(self.spec.id.as_bytes()).map(|named| named.host.to_string()).unwrap_or_default()
    }

    /// As the name of an object of Kubernetes.
    fn object(&self) -> String {
        self.named().replace(['.', ':'], "-")
    }

    fn authority(&self) -> &str {
        routes::sent_authority(self.spec)
    }
}

impl Topology {
    /// Where the objects around the filter stand.
    fn namespace(self) -> &'static str {
        match self {
            Topology::EgressGateway => EGRESS,
            Topology::Sidecar => AGENTS,
        }
    }

    /// The labels of the pods whose Envoy runs the filter.
    fn labels(self) -> Value {
        match self {
            Topology::EgressGateway => json!({"istio": EGRESS}),
            Topology::Sidecar => json!({AGENT_LABEL.0: AGENT_LABEL.1}),
        }
    }
}

fn object(api: &str, kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    })
}
