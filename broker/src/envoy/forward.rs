//! A forward proxy: the listener that clients name as their proxy, and those behind it.
//!
//! A connection passes through three listeners on one thread. The first takes `CONNECT` and `http://`;
//! its door asks who it is and where the host is. What that finds travels with the connection to the
//! next in filter state, which no agent can write: whose it is, and the one address to dial. The second
//! ends TLS with a certificate made on demand, and decides like a gateway. The third looks into nothing.
//!
//! Connections to the listeners behind are never shared between clients: each has its own, and what is
//! handed on is hashable, so that Envoy's pools tell them apart, too.

use super::routes::{self, decided_for, header};
use super::{
    BUFFER_BYTES, Machine, ads, assertion, clusters, filter_state, filters, health, listener, log, set, set_in,
    speaks_websocket, type_url,
};
use crate::config::Config;
use attache_core::door::{
    ADDRESS_STATE, HANDED_ON, HOST_STATE, INSIDE_STATE, INTERCEPT_CLUSTER, TUNNEL_CLUSTER, UNMATCHED_PLAIN_CLUSTER,
    UNMATCHED_TLS_CLUSTER,
};
use attache_core::matching::host::Authority;
use attache_core::policy::{DestinationSpec, Spec, Unmatched};
use attache_core::refusal::Reason;
use attache_core::wire::Transport;
use serde_json::{Value, json};

/// The host that it was let through to.
const HOST: &str = "attache.host";
/// The address that Envoy dials, whatever a request says.
const ADDRESS: &str = "envoy.network.transport_socket.original_dst_address";
/// How long a client may take to begin its TLS handshake, and to end it.
const HANDSHAKE: &str = "5s";

/// All listeners.
pub(super) fn listeners(config: &Config, policy: &Spec, machine: &Machine) -> Vec<Value> {
    vec![outer(config, policy, machine), intercepting(config, policy, machine), opaque()]
}

/// All clusters besides the broker's.
pub(super) fn clusters(config: &Config, policy: &Spec, machine: &Machine) -> Vec<Value> {
    let ways = clusters::ways(config);
    let mut all: Vec<Value> = policy
        .destinations
        .iter()
        .map(|spec| clusters::behind_the_door(spec, ways.get(&spec.id).copied(), machine))
        .collect();
    if policy.unmatched == Unmatched::Pass {
        all.extend([
            clusters::unmatched(UNMATCHED_TLS_CLUSTER, false, machine),
            clusters::unmatched(UNMATCHED_PLAIN_CLUSTER, true, machine),
        ]);
    }
    all.push(clusters::direct(TUNNEL_DIRECT));
    all.extend([INTERCEPT_CLUSTER, TUNNEL_CLUSTER].map(internal));
    all
}

/// Where opaque tunnels lead: the vetted address.
const TUNNEL_DIRECT: &str = "attache_direct";

/// The listener that clients name as their proxy.
fn outer(config: &Config, policy: &Spec, machine: &Machine) -> Value {
    let mut chain = vec![filters::door(config, machine), hand_on(machine)];
    let takes_plain = policy.unmatched == Unmatched::Pass || policy.destinations.iter().any(|to| to.plaintext);
    if takes_plain {
        chain.extend(filters::deciding(Transport::Plain, config, policy, machine));
    }
    let mut manager = listener::connection_manager("attache", filters::behind(chain), outer_routes(policy));
    // Python before 3.12 sends `CONNECT … HTTP/1.0`.
    set(&mut manager, "http_protocol_options", json!({"accept_http_10": true, "default_host_for_http_10": "invalid."}));
    if machine.envoy.tells_clients_apart() {
        set_in(&mut manager, "http2_protocol_options", "allow_connect", true);
    } else {
        // One tunnel a connection: then a pool for each connection keeps clients apart by itself.
        set(&mut manager, "codec_type", "HTTP1");
    }
    // Routes that are shut have it decided, too, before they answer.
    set(&mut manager, "upgrade_configs", json!([{"upgrade_type": "CONNECT"}]));
    if policy.destinations.iter().any(|to| to.plaintext && speaks_websocket(to)) {
        listener::take_websocket(&mut manager);
    }
    listener::public(config, manager)
}

/// What the door has found travels on with the connection.
fn hand_on(machine: &Machine) -> Value {
    let text = if machine.envoy.tells_clients_apart() { "envoy.hashable_string" } else { "envoy.string" };
    let shared = |key: &str, factory: Option<&str>, from: &str| {
        let mut state = json!({
            "object_key": key,
            "format_string": {"text_format_source": {"inline_string": format!("%FILTER_STATE({}:PLAIN)%", filter_state(from))}},
            "shared_with_upstream": "ONCE",
            "skip_if_empty": true,
        });
        if let Some(factory) = factory {
            set(&mut state, "factory_key", factory);
        }
        state
    };
    json!({
        "name": "attache.hand_on",
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.set_filter_state.v3.Config"),
            "on_request_headers": [
                shared(HANDED_ON, Some(text), INSIDE_STATE),
                shared(HOST, Some(text), HOST_STATE),
                shared(ADDRESS, None, ADDRESS_STATE),
            ],
        },
    })
}

fn outer_routes(policy: &Spec) -> Value {
    let plain = policy.destinations.iter().filter(|destination| destination.plaintext);
    let mut hosts: Vec<Value> = plain.map(|destination| host(destination, 80, tunnels())).collect();
    let mut routes = tunnels();
    routes.push(own_health());
    if policy.unmatched == Unmatched::Pass {
        routes.extend(routes::unmatched(UNMATCHED_PLAIN_CLUSTER));
    }
    routes.push(routes::nowhere());
    hosts.push(json!({"name": "proxy", "domains": ["*"], "routes": routes}));
    json!({"name": "attache", "virtual_hosts": hosts})
}

/// `GET /health` of the proxy itself: asked by an address or a name without a dot, which no public host is.
fn own_health() -> Value {
    let mut route = health::route();
    let own = r"^([^.]*|[0-9.]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?$";
    set_in(
        &mut route,
        "match",
        "headers",
        json!([{"name": ":authority", "string_match": {"safe_regex": {"regex": own}}}]),
    );
    let settings = route.get_mut("typed_per_filter_config").map(Value::take).unwrap_or_default();
    let settings = filters::without_door(settings);
    set(&mut route, "typed_per_filter_config", settings);
    route
}

/// The routes of `CONNECT`: each opens only for whom the door has let in by it.
fn tunnels() -> Vec<Value> {
    let mut routes: Vec<Value> = [INTERCEPT_CLUSTER, TUNNEL_CLUSTER].map(tunnel).into();
    routes.push(json!({
        "name": "undecided:CONNECT",
        "match": {"connect_matcher": {}},
        "direct_response": {"status": Reason::DestinationMismatch.status()},
        "response_headers_to_add": [header("x-attache-reason", Reason::DestinationMismatch.as_str())],
        "typed_per_filter_config": filters::without_gate(),
    }));
    routes
}

fn tunnel(cluster: &str) -> Value {
    let mut settings = filters::without_gate();
    set(&mut settings, assertion::NAME, assertion::rule(cluster));
    json!({
        "name": cluster,
        "match": {
            "connect_matcher": {},
            "filter_state": [decided_for(cluster)],
        },
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": listener::stream_most(),
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
        "typed_per_filter_config": settings,
    })
}

/// A destination under the authorities by which clients of a proxy name it: a port that is the scheme's
/// own may be left out.
fn host(destination: &DestinationSpec, own_port: u16, before: Vec<Value>) -> Value {
    let authority = Authority::parse(destination.id.as_bytes()).ok();
    let bare =
        authority.filter(|authority| authority.port == Some(own_port)).map(|authority| authority.host.to_string());
    let domains: Vec<String> = [Some(destination.id.clone()), bare].into_iter().flatten().collect();
    let routes: Vec<Value> = before.into_iter().chain(routes::ways_to(destination, "/")).collect();
    json!({"name": destination.id, "domains": domains, "routes": routes})
}

/// The listener that ends TLS, and decides.
fn intercepting(config: &Config, policy: &Spec, machine: &Machine) -> Value {
    let chain = filters::behind(filters::deciding(Transport::Intercepted, config, policy, machine));
    let over_tls = policy.destinations.iter().filter(|destination| !destination.plaintext);
    let mut hosts: Vec<Value> = over_tls.map(|destination| host(destination, 443, Vec::new())).collect();
    let mut routes = Vec::new();
    if policy.unmatched == Unmatched::Pass && policy.intercept_unmatched {
        routes.extend(routes::unmatched(UNMATCHED_TLS_CLUSTER));
    }
    routes.push(routes::nowhere());
    hosts.push(json!({"name": "unmatched", "domains": ["*"], "routes": routes}));
    let routes = json!({"name": INTERCEPT_CLUSTER, "virtual_hosts": hosts});
    let mut manager = listener::connection_manager(INTERCEPT_CLUSTER, chain, routes);
    if policy.destinations.iter().any(|to| !to.plaintext && speaks_websocket(to)) {
        listener::take_websocket(&mut manager);
    }
    let filter = |manager| json!([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]);
    let routes = json!({"virtual_hosts": [{"name": "nowhere", "domains": ["*"], "routes": [routes::nowhere()]}]});
    let nowhere = listener::connection_manager("attache_nameless", filters::behind(Vec::new()), routes);
    let mut listener = behind_the_door(INTERCEPT_CLUSTER, Value::Null);
    ads::end_tls(&mut listener, &filter(manager), &filter(nowhere), HANDSHAKE);
    set(&mut listener, "access_log", json!([log::handshakes()]));
    listener
}

/// The listener that looks into nothing: TLS for the host that was asked for, to the address that was
/// vetted.
fn opaque() -> Value {
    let name = |name: &str| json!({"ident_expr": {"name": name}});
    let sni = json!({"select_expr": {"operand": name("connection"), "field": "requested_server_name"}});
    // Filter state is bytes to an expression.
    let sni = json!({"call_expr": {"function": "bytes", "args": [sni]}});
    let key = json!({"const_expr": {"string_value": HOST}});
    let host = json!({"call_expr": {"function": "_[_]", "args": [name("filter_state"), key]}});
    let same = json!({"call_expr": {"function": "_==_", "args": [sni, host]}});
    let rbac = json!({
        "@type": type_url("envoy.extensions.filters.network.rbac.v3.RBAC"),
        "stat_prefix": "attache_tunnel.",
        "rules": {"action": "ALLOW", "policies": {"same host": {
            "permissions": [{"any": true}],
            "principals": [{"any": true}],
            "condition": same,
        }}},
    });
    let proxy = json!({
        "@type": type_url("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "attache_tunnel",
        "cluster": TUNNEL_DIRECT,
        "idle_timeout": listener::stream_most(),
        "max_downstream_connection_duration": listener::stream_most(),
    });
    behind_the_door(
        TUNNEL_CLUSTER,
        json!({
            "filter_chain_match": {"transport_protocol": "tls"},
            "filters": [
                {"name": "envoy.filters.network.rbac", "typed_config": rbac},
                {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy},
            ],
        }),
    )
}

/// A listener that only Envoy itself reaches. What speaks no TLS, or nothing, is closed in time.
fn behind_the_door(name: &str, chain: Value) -> Value {
    json!({
        "name": name,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "listener_filters_timeout": HANDSHAKE,
        "listener_filters": [{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {"@type": type_url("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")},
        }],
        "filter_chains": [chain],
    })
}

/// The cluster that leads to a listener behind the door.
fn internal(listener: &str) -> Value {
    let raw = json!({
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": type_url("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")},
    });
    json!({
        "name": listener,
        "connect_timeout": HANDSHAKE,
        // No client ever comes into the connection of another.
        "connection_pool_per_downstream_connection": true,
        "circuit_breakers": clusters::generous(),
        "load_assignment": {"cluster_name": listener, "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"envoy_internal_address": {"server_listener_name": listener}},
        }}]}]},
        "transport_socket": {
            "name": "envoy.transport_sockets.internal_upstream",
            "typed_config": {
                "@type": type_url("envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"),
                "transport_socket": raw,
            },
        },
    })
}
