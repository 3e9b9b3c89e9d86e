//! `TrafficExtension` and `WasmPlugin`: a module and its settings.
//!
//! Both stand last among extensions, nearest the router: no other of them sees what is injected. Neither takes
//! inbound requests (`mode: CLIENT`): a sidecar would hand its own agent's credential to whoever calls it.
//!
//! Neither can add a cluster to ask the broker by. A gateway has the one that Istio makes of the broker's service.
//! A sidecar that knew that service would listen for it, too, and lead every process of its pod there in its own
//! name: beside the extension stands an `EnvoyFilter` that adds the cluster and nothing else (`broker.rs`).

use super::{BROKER_HOST, BROKER_PORT, Module, Topology, filter, object};
use crate::config::Config;
use crate::envoy::BROKER_CLUSTER;
use crate::envoy::filters::{self, GATE};
use attache_core::wire::{Lack, Plugin, Role, Transport};
use serde_json::{Value, json};

const API: &str = "extensions.istio.io/v1alpha1";
/// The lowest goes last.
const LAST: i32 = i32::MIN;
/// Closed, and back within seconds of a trap. An Istio that does not know it takes FAIL_CLOSE: closed until the
/// pod is started again.
const CLOSED: &str = "FAIL_RELOAD";

pub(super) fn traffic_extension(topology: Topology, config: &Config, module: &Module) -> Vec<Value> {
    let mut wasm = module_of(topology, config, module);
    super::super::set(&mut wasm, "type", "HTTP");
    let spec = json!({
        "selector": {"matchLabels": topology.labels()},
        "match": [{"mode": "CLIENT"}],
        "priority": LAST,
        "wasm": wasm,
    });
    with_its_way(topology, object(API, "TrafficExtension", topology.namespace(), "attache", spec))
}

pub(super) fn wasm_plugin(topology: Topology, config: &Config, module: &Module) -> Vec<Value> {
    let mut spec = module_of(topology, config, module);
    let placed = [
        ("selector", json!({"matchLabels": topology.labels()})),
        ("match", json!([{"mode": "CLIENT"}])),
        ("phase", json!("UNSPECIFIED_PHASE")),
        ("priority", json!(LAST)),
        ("type", json!("HTTP")),
    ];
    for (name, value) in placed {
        super::super::set(&mut spec, name, value);
    }
    with_its_way(topology, object(API, "WasmPlugin", topology.namespace(), "attache", spec))
}

/// The way is there before whoever takes it.
fn with_its_way(topology: Topology, extension: Value) -> Vec<Value> {
    match topology {
        Topology::EgressGateway => vec![extension],
        Topology::Sidecar => vec![filter::way_to_broker(topology), extension],
    }
}

fn module_of(topology: Topology, config: &Config, module: &Module) -> Value {
    json!({
        "url": module.url,
        "sha256": module.sha256,
        "imagePullPolicy": "IfNotPresent",
        "pluginName": GATE,
        "failStrategy": CLOSED,
        "pluginConfig": settings(topology, config),
    })
}

/// The gate's settings, and what it does without.
fn settings(topology: Topology, config: &Config) -> Plugin {
    let broker_cluster = match topology {
        Topology::EgressGateway => format!("outbound|{BROKER_PORT}||{BROKER_HOST}"),
        Topology::Sidecar => BROKER_CLUSTER.to_owned(),
    };
    Plugin {
        broker_cluster,
        guarded: false,
        lacks: vec![Lack::Judge],
        ..filters::settings(Role::Gate, Transport::Gateway, config, None)
    }
}
