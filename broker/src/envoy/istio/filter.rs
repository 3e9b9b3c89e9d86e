//! The `EnvoyFilter`: what the bootstraps carry, as patches of what Istio makes.
//!
//! The module comes by extension discovery, which Istio's agent in the pod watches: it fetches the module, holds
//! its digest against the one here, and hands Envoy a file. Where it cannot, it puts a filter there that denies
//! everything.

use super::super::{
    BUFFER_BYTES, MAX_CONNECTIONS, assertion, clusters, filter_state, filters, judged_paths, listener, log, set,
    set_in, type_url,
};
use super::{AGENT_PORT, GATEWAY_PORTS, Module, Topology, broker, object};
use crate::config::Config;
use crate::envoy::filters::{GATE, JUDGE};
use crate::envoy::routes;
use attache_core::policy::{DestinationSpec, Spec, Unmatched};
use attache_core::verdict::VERDICT_STATE;
use attache_core::wire::{Role, Transport};
use serde_json::{Value, json};

const ROUTER: &str = "envoy.filters.http.router";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// What makes a refusal of the assertion's a reason.
const ASSERTED: &str = "/local_reply_config/mappers/0/filter/extension_filter/typed_config/expression";
/// After all others, so that nothing comes between our filters and the router.
const PRIORITY: i32 = i32::MAX;

pub(super) fn manifest(topology: Topology, config: &Config, policy: &Spec, module: &Module) -> Value {
    let context = Context(topology);
    let mut patches = Vec::new();
    patches.push(context.patch("CLUSTER", Value::Null, "ADD", broker::cluster()));
    for destination in &policy.destinations {
        patches.push(context.cluster(destination));
    }
    patches.push(context.patch("LISTENER", context.listener(), "MERGE", bounded()));
    patches.push(context.patch("NETWORK_FILTER", context.manager(), "INSERT_BEFORE", connection_limit()));
    patches.push(context.patch("NETWORK_FILTER", context.manager(), "MERGE", manager()));
    for (name, extension) in extensions(config, policy, module) {
        patches.push(context.patch("EXTENSION_CONFIG", Value::Null, "ADD", extension));
        patches.push(context.patch("HTTP_FILTER", context.router(), "INSERT_BEFORE", discovered(name)));
    }
    patches.push(context.patch("HTTP_FILTER", context.router(), "INSERT_BEFORE", assertion_filter(policy)));
    patches.push(context.patch("HTTP_FILTER", context.router(), "MERGE", router()));
    for destination in &policy.destinations {
        patches.extend(context.routes(destination));
    }
    envoy_filter(topology, patches)
}

/// The way to the broker, and nothing else: what an extension cannot bring along.
pub(super) fn way_to_broker(topology: Topology) -> Value {
    let added = Context(topology).patch("CLUSTER", Value::Null, "ADD", broker::cluster());
    envoy_filter(topology, vec![added])
}

/// Of one name, whatever it holds: whoever takes another part leaves none of this one's patches behind.
fn envoy_filter(topology: Topology, patches: Vec<Value>) -> Value {
    let spec = json!({
        "workloadSelector": {"labels": topology.labels()},
        "priority": PRIORITY,
        "configPatches": patches,
    });
    object("networking.istio.io/v1alpha3", "EnvoyFilter", topology.namespace(), "attache", spec)
}

/// Where patches apply.
struct Context(Topology);

impl Context {
    fn patch(&self, to: &str, at: Value, operation: &str, value: Value) -> Value {
        let mut matched = json!({"context": match self.0 {
            Topology::EgressGateway => "GATEWAY",
            // What comes in is nobody's business here: an injected credential would go to the agent's own pod.
            Topology::Sidecar => "SIDECAR_OUTBOUND",
        }});
        if let Value::Object(members) = at {
            members.into_iter().for_each(|(name, value)| set(&mut matched, &name, value));
        }
        json!({"applyTo": to, "match": matched, "patch": {"operation": operation, "value": value}})
    }

    /// Pieces of an answer no larger than what masking may hold.
    fn cluster(&self, destination: &DestinationSpec) -> Value {
        let at = json!({"cluster": {"name": destination.cluster}});
        let value = json!({
            "per_connection_buffer_limit_bytes": clusters::PIECE_BYTES,
            "upstream_connection_options": clusters::keepalive(),
        });
        self.patch("CLUSTER", at, "MERGE", value)
    }

    fn listener(&self) -> Value {
        let port = match self.0 {
            Topology::EgressGateway => GATEWAY_PORTS.1,
            Topology::Sidecar => AGENT_PORT,
        };
        json!({"listener": {"portNumber": port}})
    }

    /// Every connection manager that serves agents, on whichever port: there is no way beside.
    fn manager(&self) -> Value {
        json!({"listener": {"filterChain": {"filter": {"name": MANAGER}}}})
    }

    fn router(&self) -> Value {
        json!({"listener": {"filterChain": {"filter": {"name": MANAGER, "subFilter": {"name": ROUTER}}}}})
    }

    /// The routes of a destination: the VirtualService has named the last of them, which is merged into; the others
    /// are put before and behind it.
    fn routes(&self, destination: &DestinationSpec) -> Vec<Value> {
        let at = json!({"routeConfiguration": {"vhost": {"route": {"name": destination.id}}}});
        let mut all = routes::ways_to(destination, "/");
        let (closed, open) = (all.pop().unwrap_or_default(), all.pop().unwrap_or_default());
        let mut patches = vec![
            self.patch("HTTP_ROUTE", at.clone(), "MERGE", guard(open)),
            self.patch("HTTP_ROUTE", at.clone(), "INSERT_AFTER", closed),
        ];
        // Each goes to the top: the last comes first.
        patches.extend(all.into_iter().rev().map(|route| self.patch("HTTP_ROUTE", at.clone(), "INSERT_FIRST", route)));
        patches
    }
}

/// Of an open route what Istio's own lacks. That one leads where the policy says already, or nowhere: the guard
/// names the cluster.
fn guard(mut open: Value) -> Value {
    for (within, name) in [("match", "prefix"), ("route", "cluster"), ("route", "prefix_rewrite")] {
        if let Some(Value::Object(members)) = open.get_mut(within) {
            members.remove(name);
        }
    }
    if let Value::Object(members) = &mut open {
        members.remove("name");
    }
    open
}

/// The entries of the filter, in their order.
fn extensions(config: &Config, policy: &Spec, module: &Module) -> Vec<(&'static str, Value)> {
    let judged = policy.destinations.iter().any(|destination| !judged_paths(destination).is_empty());
    let entries = judged.then_some((JUDGE, Role::Judge)).into_iter().chain([(GATE, Role::Gate)]);
    let remote = json!({"remote": {
        // Whoever fetches it needs no cluster for that.
        "http_uri": {"uri": module.url, "cluster": "_", "timeout": "30s"},
        "sha256": module.sha256,
    }});
    let all = entries.map(|(name, role)| {
        let settings = filters::settings(role, Transport::Gateway, config, None);
        let wasm = filters::wasm(name, &settings, filters::vm(config, remote.clone()));
        (name, json!({"name": name, "typed_config": wasm}))
    });
    all.collect()
}

/// An entry that Envoy finds by its name. Until it is there the listener is not, either.
fn discovered(name: &str) -> Value {
    let rbac = "envoy.extensions.filters.http.rbac.v3.RBAC";
    let mut filter = json!({"name": name, "config_discovery": {
        "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        // What Istio's agent puts there without a module denies everything.
        "type_urls": [type_url(filters::WASM), type_url(rbac)],
    }});
    if name == JUDGE {
        set(&mut filter, "disabled", true);
    }
    filter
}

/// The assertion. Routes that are not ours have no rule of their own: where the config lets other hosts pass, what
/// the gate has let pass as such may take them, and nothing that carries a credential.
fn assertion_filter(policy: &Spec) -> Value {
    let mut filter = assertion::filter();
    if policy.unmatched == Unmatched::Pass {
        let rules = assertion::rule("").pointer("/rbac/rules").cloned();
        set_in(&mut filter, "typed_config", "rules", rules);
    }
    filter
}

fn router() -> Value {
    let config = json!({
        "@type": type_url("envoy.extensions.filters.http.router.v3.Router"),
        "suppress_envoy_headers": true,
    });
    json!({"name": ROUTER, "typed_config": config})
}

fn bounded() -> Value {
    json!({"per_connection_buffer_limit_bytes": BUFFER_BYTES})
}

/// In the bootstraps a monitor of the whole process does this, which no patch adds to a proxy that runs.
fn connection_limit() -> Value {
    let config = json!({
        "@type": type_url("envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"),
        "stat_prefix": "attache",
        "max_connections": MAX_CONNECTIONS,
    });
    json!({"name": "attache.connections", "typed_config": config})
}

/// What is done to requests before and after our filters, as in the bootstraps. What Istio logs to standard output
/// is its own affair; the witness goes to the broker.
fn manager() -> Value {
    let mut manager = listener::connection_manager("", Vec::new(), Value::Null);
    if let Value::Object(members) = &mut manager {
        for istios in ["stat_prefix", "codec_type", "http_filters", "route_config"] {
            members.remove(istios);
        }
    }
    set(&mut manager, "access_log", json!([log::to_broker()]));
    // An AuthorizationPolicy refuses by the same filter, before ours has said anything: that answer stays Istio's.
    if let Some(Value::String(expression)) = manager.pointer_mut(ASSERTED) {
        expression.push_str(&format!(" && '{}' in filter_state", filter_state(VERDICT_STATE)));
    }
    json!({"name": MANAGER, "typed_config": manager})
}
