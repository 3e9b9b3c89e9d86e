//! The filter chain: judge, gate, health, assertion, router.
//!
//! Judge and gate are two entries of one module in one VM. The judge reads bounded bodies and
//! decides nothing, so it is off but for routes where a rule needs a body; the gate is on for
//! every route that leads anywhere.

use super::{BROKER_CLUSTER, LISTENER, Machine, assertion, health, judged_paths, set, type_url};
use crate::clock::millis;
use crate::config::Config;
use attache_core::names::Name;
use attache_core::policy::Spec;
use attache_core::wire::{Plugin, Role, Transport};
use serde_json::{Value, json};

pub(super) const GATE: &str = "attache.gate";
pub(super) const JUDGE: &str = "attache.judge";
const DOOR: &str = "attache.door";
/// The message of a filter that is a module.
pub(super) const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
/// The message of a filter's settings on one route.
pub(super) const PER_ROUTE: &str = "envoy.config.route.v3.FilterConfig";

/// The filters of the gateway's listener, in order.
pub(super) fn chain(config: &Config, policy: &Spec, machine: &Machine) -> Vec<Value> {
    behind(deciding(Transport::Gateway, config, policy, machine))
}

/// The filters that decide about requests that come by a transport.
pub(super) fn deciding(transport: Transport, config: &Config, policy: &Spec, machine: &Machine) -> Vec<Value> {
    let mut chain = Vec::new();
    if policy.destinations.iter().any(|destination| !judged_paths(destination).is_empty()) {
        let mut judge = entry(JUDGE, Role::Judge, Transport::Gateway, config, machine);
        set(&mut judge, "disabled", true);
        chain.push(judge);
    }
    chain.push(entry(GATE, Role::Gate, transport, config, machine));
    chain
}

/// The door of a forward proxy.
pub(super) fn door(config: &Config, machine: &Machine) -> Value {
    entry(DOOR, Role::Door, Transport::Gateway, config, machine)
}

/// Filters that decide, and those behind them.
pub(super) fn behind(deciding: Vec<Value>) -> Vec<Value> {
    let mut chain = deciding;
    chain.push(health::filter());
    chain.push(assertion::filter());
    chain.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.router.v3.Router"),
            // Among them x-envoy-original-path, which would send the gateway's path upstream.
            "suppress_envoy_headers": true,
        },
    }));
    chain
}

/// Switches the judge on in the settings of a route.
pub(super) fn with_judge(settings: &mut Value) {
    set(settings, JUDGE, json!({"@type": type_url(PER_ROUTE), "config": {}}));
}

/// Per-route settings for an answer that is Envoy's own: there is nothing to decide.
pub(super) fn without_gate() -> Value {
    json!({
        GATE: {"@type": type_url(PER_ROUTE), "disabled": true},
        assertion::NAME: assertion::no_rule(),
    })
}

/// The same where there is a door.
pub(super) fn without_door(mut settings: Value) -> Value {
    set(&mut settings, DOOR, json!({"@type": type_url(PER_ROUTE), "disabled": true}));
    settings
}

fn entry(name: &str, role: Role, transport: Transport, config: &Config, machine: &Machine) -> Value {
    json!({"name": name, "typed_config": wasm(name, &settings(role, transport, config, machine.listener.as_ref()), local(config, machine))})
}

/// An entry of the filter in a VM.
pub(super) fn wasm(name: &str, settings: &Plugin, vm: Value) -> Value {
    let mut plugin = json!({
        "name": name,
        // One root context for each settings, in the VM they share.
        "root_id": name,
        "vm_config": vm,
        "configuration": {
            "@type": type_url("google.protobuf.StringValue"),
            // Texts and numbers; that serializes.
            "value": serde_json::to_string(settings).unwrap_or_default(),
        },
        // A trapped VM refuses, and is back within a second.
        "failure_policy": "FAIL_RELOAD",
        "reload_config": {"backoff": {"base_interval": "0.2s", "max_interval": "1s"}},
    });
    if settings.role == Role::Judge {
        // The judge holds the head until it has read the body. On the gate the same flag would
        // turn back-pressure into a 413 (docs/decisions/0001).
        set(&mut plugin, "allow_on_headers_stop_iteration", true);
    }
    json!({"@type": type_url(WASM), "config": plugin})
}

/// The VM of an instance, which runs this code.
pub(super) fn vm(config: &Config, code: Value) -> Value {
    json!({
        // VMs are shared by id, vm_config.configuration and code: one id per instance keeps tenants
        // apart, and a changed module has another VM.
        "vm_id": format!("attache_{}", config.instance),
        "runtime": "envoy.wasm.runtime.v8",
        "code": code,
    })
}

fn local(config: &Config, machine: &Machine) -> Value {
    let mut vm = vm(config, json!({"local": {"filename": machine.filter}}));
    if let Some(sha256) = &machine.filter_sha256 {
        // Tells whoever reads /config_dump which module was meant, no more: Envoy neither verifies it
        // nor tells VMs apart by it. What pins the module is a file name that holds its digest.
        set(&mut vm, "environment_variables", json!({"key_values": {"ATTACHE_FILTER_SHA256": sha256}}));
    }
    vm
}

/// What an entry is told; `listener`: by which name it knows the listener, where that is not ours.
pub(super) fn settings(role: Role, transport: Transport, config: &Config, listener: Option<&Name>) -> Plugin {
    let listener = listener.cloned().or_else(|| Name::parse(LISTENER).ok());
    Plugin {
        role,
        instance: config.instance.clone(),
        broker_cluster: BROKER_CLUSTER.to_owned(),
        stale_after_ms: millis(config.limits.stale_after),
        callout_timeout_ms: millis(config.limits.callout_timeout),
        body_limit: config.limits.body_limit,
        guarded: true,
        listener: listener.filter(|_| role != Role::Judge),
        transport,
        lacks: Vec::new(),
    }
}
