//! `TrafficExtension` and `WasmPlugin`: a module and its settings.
//!
//! Both stand last among extensions, nearest the router: no other of them sees what is injected. Neither takes
//! inbound requests (`mode: CLIENT`): a sidecar would hand its own agent's credential to whoever calls it.

use super::{BROKER_HOST, BROKER_PORT, Module, Topology, object};
use crate::config::Config;
use crate::envoy::filters::{self, GATE};
use attache_core::wire::{Lack, Plugin, Role, Transport};
use serde_json::{Value, json};

const API: &str = "extensions.istio.io/v1alpha1";
/// The lowest goes last.
const LAST: i32 = i32::MIN;
/// Closed, and back within seconds of a trap. An Istio that does not know it takes FAIL_CLOSE: closed until the
/// pod is started again.
const CLOSED: &str = "FAIL_RELOAD";

pub(super) fn traffic_extension(topology: Topology, config: &Config, module: &Module) -> Value {
    let mut wasm = module_of(config, module);
    super::super::set(&mut wasm, "type", "HTTP");
    let spec = json!({
        "selector": {"matchLabels": topology.labels()},
        "match": [{"mode": "CLIENT"}],
        "priority": LAST,
        "wasm": wasm,
    });
    object(API, "TrafficExtension", topology.namespace(), "attache", spec)
}

pub(super) fn wasm_plugin(topology: Topology, config: &Config, module: &Module) -> Value {
    let mut spec = module_of(config, module);
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
    object(API, "WasmPlugin", topology.namespace(), "attache", spec)
}

fn module_of(config: &Config, module: &Module) -> Value {
    json!({
        "url": module.url,
        "sha256": module.sha256,
        "imagePullPolicy": "IfNotPresent",
        "pluginName": GATE,
        "failStrategy": CLOSED,
        "pluginConfig": settings(config),
    })
}

/// The gate's settings, and what it does without.
fn settings(config: &Config) -> Plugin {
    Plugin {
        // No cluster can be added: this is the one that Istio makes of the broker's service.
        broker_cluster: format!("outbound|{BROKER_PORT}||{BROKER_HOST}"),
        guarded: false,
        lacks: vec![Lack::Judge],
        ..filters::settings(Role::Gate, Transport::Gateway, config, None)
    }
}
