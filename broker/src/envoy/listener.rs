//! The listener: what Envoy does to a request before and after our filter.

use super::{
    BUFFER_BYTES, LISTENER, Machine, assertion, filters, log, routes, set, socket_address, speaks_websocket, type_url,
};
use crate::config::Config;
use crate::endings::LONGEST_STREAM;
use attache_core::policy::Spec;
use attache_core::refusal::Reason;
use serde_json::{Value, json};

/// A request that nobody answers ends after this long: one that a trap in the VM has stranded, too.
/// Routes of decided requests raise it.
pub(super) const STREAM_IDLE: &str = "15s";

/// No stream lives longer than this.
pub(super) fn stream_most() -> String {
    format!("{}s", LONGEST_STREAM.as_secs())
}

/// The listener of the gateway, and the clusters that only its Envoy needs.
pub(super) fn gateway(config: &Config, policy: &Spec, machine: &Machine) -> (Value, Option<Value>) {
    let mut manager = connection_manager("attache", filters::chain(config, policy, machine), routes::gateway(policy));
    if policy.destinations.iter().any(speaks_websocket) {
        take_websocket(&mut manager);
    }
    let by_grpc = (!machine.envoy.logs_over_http()).then(|| log::by_grpc(config, machine));
    let cluster = by_grpc.map(|(log, cluster)| {
        set(&mut manager, "access_log", json!([log::stdout(), log]));
        cluster
    });
    (public(config, manager), cluster)
}

/// The listener that agents reach.
pub(super) fn public(config: &Config, connection_manager: Value) -> Value {
    let address = config.listen.proxy;
    let mut listener = json!({
        "name": LISTENER,
        "address": socket_address(&address.ip().to_string(), address.port()),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [{
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager,
            }],
        }],
    });
    if let Some(path) = &config.listen.proxy_socket {
        // Like the port it is open to whoever reaches it: its directory says who that is.
        let pipe = json!({"path": path, "mode": 0o666});
        set(&mut listener, "additional_addresses", json!([{"address": {"pipe": pipe}}]));
    }
    listener
}

/// What Envoy does to requests, wherever they come in.
pub(super) fn connection_manager(name: &str, http_filters: Vec<Value>, route_config: Value) -> Value {
    json!({
        "@type": type_url("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        // HTTP/1.1, and HTTP/2 with prior knowledge.
        "codec_type": "AUTO",
        // The source is the connection's, and x-envoy-* headers of agents are dropped.
        "use_remote_address": true,
        "skip_xff_append": true,
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": "600s",
            "max_stream_duration": stream_most(),
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 256 << 10,
            "initial_connection_window_size": BUFFER_BYTES,
        },
        "request_headers_timeout": "10s",
        "stream_idle_timeout": STREAM_IDLE,
        // An upstream is told the scheme it is reached by, not the one the agent used.
        "scheme_header_transformation": {"match_upstream": true},
        "server_header_transformation": "PASS_THROUGH",
        "access_log": [log::stdout(), log::to_broker()],
        "local_reply_config": {"mappers": [assertion::reply(), assertion::without_tls(), upgrade_refused()]},
        "http_filters": http_filters,
        "route_config": route_config,
    })
}

/// Has requests for WebSocket decided, like all others: by GET and `Upgrade` (RFC 6455), over HTTP/2 by an
/// extended CONNECT (RFC 8441), which filters see as the former. Envoy asks a listener for this, not a route:
/// the first that it finds is shut, until the gate has decided.
pub(super) fn take_websocket(manager: &mut Value) {
    let mut upgrades = manager["upgrade_configs"].as_array().cloned().unwrap_or_default();
    upgrades.push(json!({"upgrade_type": "websocket"}));
    set(manager, "upgrade_configs", upgrades);
    set(&mut manager["http2_protocol_options"], "allow_connect", true);
}

/// An upgrade that nothing here takes. Envoy says so with 403; clients that try WebSocket first fall back to
/// plain HTTP upon 426 (RFC 9110, 15.5.22) alone.
fn upgrade_refused() -> Value {
    assertion::answered("response.code_details == 'upgrade_failed'", Reason::UpgradeRefused)
}
