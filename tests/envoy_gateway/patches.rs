//! `patch.yaml` is what `attache envoy-config` writes for a gateway, put where Envoy Gateway has something else or nothing.

use attache_broker::cli::envoy_config::MachineArgs;
use attache_broker::config::{Config, Overrides};
use attache_broker::envoy::{self, Shape, TESTED_VERSION};
use attache_tests::util;
use serde_json::{Value, json};

use crate::objects;

/// Set to `write`, the file is written.
const WRITE: &str = "ATTACHE_ENVOY_GATEWAY";
const HEAD: &str = "\
# What no other object of Envoy Gateway can say, for Envoy Gateway with `extensionApis: {enableEnvoyPatchPolicy: true}`:
# the broker's cluster, the guard on each route, the assertion, and the witness. It is what `attache envoy-config` writes for
# a gateway (envoy/gateway.yaml); tests/envoy_gateway.rs compares, and writes it with ATTACHE_ENVOY_GATEWAY=write.
";

/// The manager of connections in the listener, as a path in it.
const MANAGER: &str = "/default_filter_chain/filters/0/typed_config";
const LISTENER: &str = "attache-egress/attache/agents";
/// What Envoy Gateway calls the filter.
pub const FILTER: &str = "envoy.filters.http.wasm/envoyextensionpolicy/attache-egress/attache/wasm/0";

#[test]
fn they_are_what_the_command_writes_for_a_gateway() {
    let path = util::workspace_root().join("envoy/envoy-gateway/patch.yaml");
    let expected = policy(&gateway());
    if std::env::var_os(WRITE).is_some_and(|what| what == "write") {
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let yaml = serde_saphyr::to_string_with_options(&expected, options).expect("YAML");
        std::fs::write(&path, format!("{HEAD}{}\n", yaml.trim_end())).expect("a file of ours");
    }
    let written = objects::read("patch.yaml");
    assert_eq!(written, [expected], "write it anew: {WRITE}=write cargo test -p attache-tests --test envoy_gateway");
}

/// A gateway whose one destination has the cluster of the route.
fn gateway() -> Value {
    let dir = util::temp_dir();
    let file = dir.path().join("attache.yaml");
    let text = "credentials: {github: {source: {env: GITHUB_TOKEN}, inject: bearer, destinations: [{host: api.github.com}]}}\n";
    std::fs::write(&file, text).expect("a directory of ours");
    let overrides = Overrides { state_dir: Some(dir.path().to_owned()), ..Overrides::default() };
    let config = Config::load(Some(&file), &overrides, &|_| None).expect("a config");
    let mut spec = config.policy();
    crate::named(&mut spec);
    let machine = MachineArgs {
        filter: Some("/filter.wasm".into()),
        filter_sha256: None,
        system_roots: Some("/roots.pem".into()),
        admin: None,
    };
    let machine = machine.on_this_machine(&config, TESTED_VERSION.parse().expect("a version")).expect("all is named");
    envoy::bootstrap(Shape::Gateway, &config, &spec, &machine)
}

fn policy(gateway: &Value) -> Value {
    let listener = &gateway["static_resources"]["listeners"][0];
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    let named = |list: &Value, name: &str| {
        let found = list.as_array().and_then(|all| all.iter().find(|one| one["name"] == name));
        found.unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let routes = &named(&manager["route_config"]["virtual_hosts"], "api.github.com:443")["routes"];
    let (open, mut closed) = (&routes[0], routes[1].clone());
    let switched_on = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}});
    // Before the verdict it is the closed route that is selected, and says which filters there are.
    closed["typed_per_filter_config"][FILTER] = switched_on;
    let gate = named(&manager["http_filters"], "attache.gate")["typed_config"]["config"].clone();

    let plugin = format!("{MANAGER}/http_filters/0/typed_config/config");
    let route = "/virtual_hosts/0/routes/0";
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyPatchPolicy",
        "metadata": {"name": "attache", "namespace": "attache-egress"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "attache"},
            "type": "JSONPatch",
            "jsonPatches": [
                patch("Cluster", "attache_broker", "add", "", &broker()),
                in_listener("add", &format!("{plugin}/failure_policy"), &gate["failure_policy"]),
                in_listener("add", &format!("{plugin}/reload_config"), &gate["reload_config"]),
                in_listener("add", &format!("{MANAGER}/http_filters/1"), &named(&manager["http_filters"], "attache.assertion")),
                in_listener("add", &format!("{MANAGER}/access_log"), &manager["access_log"]),
                in_listener("add", &format!("{MANAGER}/local_reply_config"), &manager["local_reply_config"]),
                in_listener("add", &format!("{MANAGER}/scheme_header_transformation"), &manager["scheme_header_transformation"]),
                in_listener("add", &format!("{MANAGER}/skip_xff_append"), &manager["skip_xff_append"]),
                in_listener(
                    "add",
                    &format!("{MANAGER}/common_http_protocol_options/max_stream_duration"),
                    &manager["common_http_protocol_options"]["max_stream_duration"],
                ),
                in_routes("add", &format!("{route}/match/filter_state"), &open["match"]["filter_state"]),
                in_routes(
                    "add",
                    &format!("{route}/typed_per_filter_config/attache.assertion"),
                    &open["typed_per_filter_config"]["attache.assertion"],
                ),
                json!({"type": ROUTES, "name": LISTENER, "operation": {"op": "remove", "path": format!("{route}/route/upgrade_configs")}}),
                in_routes("add", "/virtual_hosts/0/routes/1", &closed),
            ],
        },
    })
}

const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

fn in_listener(op: &str, path: &str, value: &Value) -> Value {
    patch("Listener", LISTENER, op, path, value)
}

fn in_routes(op: &str, path: &str, value: &Value) -> Value {
    let mut patch = patch("Listener", LISTENER, op, path, value);
    patch["type"] = ROUTES.into();
    patch
}

fn patch(kind: &str, name: &str, op: &str, path: &str, value: &Value) -> Value {
    let kind = format!("type.googleapis.com/envoy.config.{}.v3.{kind}", kind.to_lowercase());
    json!({"type": kind, "name": name, "operation": {"op": op, "path": path, "value": value}})
}

/// The broker, over mutual TLS: each side a SPIFFE ID.
fn broker() -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let address =
        json!({"socket_address": {"address": "attache-broker.attache.svc.cluster.local", "port_value": 3031}});
    json!({
        "name": "attache_broker",
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 1 << 20,
        "circuit_breakers": {"thresholds": [{"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536}]},
        "load_assignment": {
            "cluster_name": "attache_broker",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http_protocol_options": {}},
        }},
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "attache-broker.attache.svc.cluster.local",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificates": [{
                        "certificate_chain": {"filename": "/etc/attache/tls/tls.crt"},
                        "private_key": {"filename": "/etc/attache/tls/tls.key"},
                        "watched_directory": {"path": "/etc/attache/tls"},
                    }],
                    "validation_context": {
                        "trusted_ca": {"filename": "/etc/attache/tls/ca.crt"},
                        "watched_directory": {"path": "/etc/attache/tls"},
                        "match_typed_subject_alt_names": [{
                            "san_type": "URI",
                            "matcher": {"exact": "spiffe://cluster.local/ns/attache/sa/attache-broker"},
                        }],
                    },
                },
            },
        },
    })
}
