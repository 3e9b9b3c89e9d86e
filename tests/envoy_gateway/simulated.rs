//! What Envoy Gateway makes of our objects: a simulation, as its translator's own tests show it (1.9), for this one Gateway,
//! route and policy. Where it would be told by xDS, all stands in one bootstrap; the module comes from a file in place
//! of Envoy Gateway's own server, the upstream and its authority are the test's, and so is the way to the broker.

use std::path::Path;

use attache_broker::envoy::LISTENER;
use serde_json::{Value, json};

use crate::patches::FILTER;
use crate::{CLUSTER, objects};

/// The bootstrap; `ours` is that of a gateway in the same place, for what is the test's.
pub fn envoy(ours: &Value, filter: &Path) -> Value {
    let all = objects::all();
    let mut resources =
        [("Listener", listener(&all, filter)), ("RouteConfiguration", routes(&all)), ("Cluster", Value::Null)];
    for patch in objects::of(&all, "EnvoyPatchPolicy")["spec"]["jsonPatches"].as_array().expect("patches") {
        let kind = patch["type"].as_str().and_then(|kind| kind.rsplit('.').next()).expect("a kind");
        let (_, resource) = resources.iter_mut().find(|(name, _)| *name == kind).expect("a resource of that kind");
        let named = resource["name"].as_str().is_none_or(|name| name == patch["name"]);
        assert!(named, "there is no {kind} {}", patch["name"]);
        apply(resource, &patch["operation"]);
    }
    let [(_, mut listener), (_, routes), (_, broker)] = resources;
    assert_eq!(broker["name"], "attache_broker");
    let manager = &mut listener["default_filter_chain"]["filters"][0]["typed_config"];
    manager.as_object_mut().expect("a manager").remove("rds");
    manager["route_config"] = routes;
    // Under our listeners' name, so that the harness finds it.
    listener["name"] = LISTENER.into();
    let of_ours = |name: &str| {
        let clusters = ours["static_resources"]["clusters"].as_array().expect("clusters");
        clusters.iter().find(|cluster| cluster["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let clusters = json!([upstream(&all, &of_ours(CLUSTER)), of_ours("attache_broker")]);
    json!({"node": {"id": "attache-egress", "cluster": "attache-egress"}, "static_resources": {"listeners": [listener], "clusters": clusters}})
}

/// What the manager of connections is told.
pub fn manager(envoy: &mut Value) -> &mut Value {
    &mut envoy["static_resources"]["listeners"][0]["default_filter_chain"]["filters"][0]["typed_config"]
}

/// Does something to each route.
pub fn each_route(envoy: &mut Value, edit: impl FnMut(&mut Value)) {
    let hosts = &mut manager(envoy)["route_config"]["virtual_hosts"];
    hosts[0]["routes"].as_array_mut().expect("routes").iter_mut().for_each(edit);
}

fn bytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().expect("a quantity");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let shift = match unit {
        "Ki" => 10,
        "Mi" => 20,
        _ => 0,
    };
    number.parse::<u64>().expect("a number") << shift
}

fn listener(all: &[Value], filter: &Path) -> Value {
    let clients = objects::of(all, "ClientTrafficPolicy")["spec"].clone();
    let wasm = objects::of(all, "EnvoyExtensionPolicy")["spec"]["wasm"][0].clone();
    let gateway = objects::of(all, "Gateway");
    assert_eq!(gateway["spec"]["listeners"][0]["name"], "agents");
    let escaped = match clients["path"]["escapedSlashesAction"].as_str() {
        Some("RejectRequest") => "REJECT_REQUEST",
        _ => "UNESCAPE_AND_REDIRECT",
    };
    let (http, http2) = (&clients["timeout"]["http"], &clients["http2"]);
    let plugin = json!({
        "name": wasm["name"],
        "root_id": wasm["rootID"],
        "fail_open": wasm["failOpen"],
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": wasm["config"].to_string(),
        },
        "vm_config": {
            "vm_id": "envoyextensionpolicy/attache-egress/attache/wasm/0",
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": filter}},
        },
    });
    let typed = |kind: &str, mut fields: Value| {
        fields["@type"] = format!("type.googleapis.com/envoy.extensions.filters.{kind}").into();
        fields
    };
    let wasm = json!({"name": FILTER, "disabled": true, "typed_config": typed("http.wasm.v3.Wasm", json!({"config": plugin}))});
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": typed("http.router.v3.Router", json!({"suppress_envoy_headers": true})),
    });
    let manager = typed(
        "network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST", "idle_timeout": http["idleTimeout"]},
            "http2_protocol_options": {
                "max_concurrent_streams": http2["maxConcurrentStreams"],
                "initial_stream_window_size": bytes(&http2["initialStreamWindowSize"]),
                "initial_connection_window_size": bytes(&http2["initialConnectionWindowSize"]),
            },
            "request_headers_timeout": http["requestHeadersReceivedTimeout"],
            "stream_idle_timeout": http["streamIdleTimeout"],
            "http_filters": [wasm, router],
            "merge_slashes": true,
            "normalize_path": true,
            "path_with_escaped_slashes_action": escaped,
            "rds": {"config_source": {"ads": {}}, "route_config_name": "attache-egress/attache/agents"},
            "server_header_transformation": "PASS_THROUGH",
            "stat_prefix": "http-3030",
            "use_remote_address": true,
        }),
    );
    json!({
        "name": "attache-egress/attache/agents",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "per_connection_buffer_limit_bytes": bytes(&clients["connection"]["bufferLimit"]),
        "default_filter_chain": {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]},
    })
}

fn routes(all: &[Value]) -> Value {
    let route = objects::of(all, "HTTPRoute");
    let (rule, http) =
        (&route["spec"]["rules"][0], &objects::of(all, "BackendTrafficPolicy")["spec"]["timeout"]["http"]);
    let filters = rule["filters"].as_array().expect("filters");
    let of_type = |kind: &str| filters.iter().find(|filter| filter["type"] == kind).expect("a filter of that type");
    json!({
        "name": "attache-egress/attache/agents",
        "ignore_port_in_host_matching": true,
        "virtual_hosts": [{
            "name": "attache-egress/attache/agents/api_github_com",
            "domains": route["spec"]["hostnames"],
            "routes": [{
                "name": "httproute/attache-egress/github/rule/0/match/-1/api_github_com",
                "match": {"prefix": "/"},
                "request_headers_to_remove": of_type("RequestHeaderModifier")["requestHeaderModifier"]["remove"],
                "route": {
                    "cluster": CLUSTER,
                    "host_rewrite_literal": of_type("URLRewrite")["urlRewrite"]["hostname"],
                    "timeout": rule["timeouts"]["request"],
                    "idle_timeout": http["streamIdleTimeout"],
                    "max_stream_duration": {"max_stream_duration": http["maxStreamDuration"]},
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                },
                "typed_per_filter_config": {FILTER: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}},
            }],
        }],
    })
}

/// Envoy Gateway verifies the name by the system's authorities; those of the test are in `ours`.
fn upstream(all: &[Value], ours: &Value) -> Value {
    let verified = objects::of(all, "BackendTLSPolicy")["spec"]["validation"]["hostname"].clone();
    let traffic = &objects::of(all, "BackendTrafficPolicy")["spec"];
    assert_eq!(traffic["retry"]["numRetries"], 0);
    let authorities = "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca";
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": traffic["timeout"]["tcp"]["connectTimeout"],
        "per_connection_buffer_limit_bytes": bytes(&traffic["connection"]["bufferLimit"]),
        "load_assignment": ours["load_assignment"],
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": verified,
                "common_tls_context": {"validation_context": {
                    "trusted_ca": ours.pointer(authorities).expect("the test's authority"),
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": verified}}],
                }},
            },
        },
        "typed_extension_protocol_options": {options: {
            "@type": format!("type.googleapis.com/{options}"),
            "auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
        }},
    })
}

/// One operation of a JSON Patch (RFC 6902), of those that we use.
fn apply(resource: &mut Value, operation: &Value) {
    let path = operation["path"].as_str().expect("a path");
    let Some((parent, last)) = path.rsplit_once('/') else {
        *resource = operation["value"].clone();
        return;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = resource.pointer_mut(parent).unwrap_or_else(|| panic!("{path} leads nowhere"));
    match (operation["op"].as_str(), parent) {
        (Some("add"), Value::Object(members)) => {
            members.insert(last, operation["value"].clone());
        }
        (Some("add"), Value::Array(items)) => items.insert(last.parse().expect("an index"), operation["value"].clone()),
        (Some("remove"), Value::Object(members)) => {
            members.remove(&last).unwrap_or_else(|| panic!("{path} is not there"));
        }
        (op, parent) => panic!("{op:?} in {parent}"),
    }
}
