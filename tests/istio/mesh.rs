//! What istiod makes of a DestinationRule, and of a TrafficExtension or WasmPlugin.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::istiod::{Proxy, of_kind};

/// `pilot/pkg/networking/core/cluster_tls.go`: the name that is asked for, the names that are accepted, and, without
/// `caCertificates`, the authorities of the system (which Istio has its agent send, as `file-root:system`).
pub fn tls(manifests: &[Value], host: &str, port: &Value, roots: &Path) -> Option<Value> {
    let rule = of_kind(manifests, "DestinationRule").find(|rule| rule["spec"]["host"] == host)?;
    let ports = rule["spec"]["trafficPolicy"]["portLevelSettings"].as_array()?;
    let tls = &ports.iter().find(|one| one["port"]["number"] == *port)?["tls"];
    assert_eq!(tls["mode"], "SIMPLE");
    let names = tls["subjectAltNames"].as_array().expect("names");
    let names: Vec<_> = names.iter().map(|name| json!({"san_type": "DNS", "matcher": {"exact": name}})).collect();
    Some(json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": tls["sni"],
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context": {
                    "trusted_ca": {"filename": roots},
                    "match_typed_subject_alt_names": names,
                },
            },
        },
    }))
}

/// `pilot/pkg/model/extensions.go` and `listener_builder.go`: a filter by extension discovery before Istio's own, and
/// its configuration. This is the whole mapping:
///
/// | manifest | Envoy's PluginConfig |
/// |---|---|
/// | `pluginName` | `root_id` |
/// | `pluginConfig` | `configuration`, as JSON |
/// | `failStrategy` | `failure_policy` |
/// | `url`, `sha256` | `vm_config.code.remote` |
/// | — | `name` (`NAMESPACE.NAME`), `vm_config.runtime` |
///
/// Nothing sets `vm_id`, `allow_on_headers_stop_iteration` or `reload_config`.
pub fn extend(proxy: &mut Proxy, manifest: &Value) {
    let spec = &manifest["spec"];
    assert_eq!(spec["match"], json!([{"mode": "CLIENT"}]), "inbound requests would get credentials");
    let wasm = if manifest["kind"] == "WasmPlugin" { spec } else { &spec["wasm"] };
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let name = format!("{}.{}", text(&manifest["metadata"]["namespace"]), text(&manifest["metadata"]["name"]));
    let resource = format!("extensions.istio.io/{}/{name}", text(&manifest["kind"]).to_lowercase());
    let failure_policy = match wasm["failStrategy"].as_str() {
        Some("FAIL_RELOAD") => "FAIL_RELOAD",
        Some("FAIL_OPEN") => "FAIL_OPEN",
        _ => "FAIL_CLOSED",
    };
    let config = json!({
        "name": name,
        "root_id": wasm["pluginName"],
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": wasm["pluginConfig"].to_string(),
        },
        "failure_policy": failure_policy,
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"remote": {
                "http_uri": {"uri": wasm["url"], "timeout": "30s", "cluster": "_"},
                "sha256": wasm["sha256"],
            }},
            "environment_variables": {"key_values": {"ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": "1"}},
        },
    });
    let wasm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": config,
    });
    proxy.extensions.push(json!({"name": resource, "typed_config": wasm}));
    let filter = json!({"name": resource, "config_discovery": {
        "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        "type_urls": [
            "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        ],
    }});
    proxy.http_filters().insert(0, filter);
}

/// `proto.Merge` on JSON: messages are merged, lists grow, all else is replaced.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => merge_members(into, from),
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

fn merge_members(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match into.get_mut(name) {
            Some(known) => merge(known, value),
            None => drop(into.insert(name.clone(), value.clone())),
        }
    }
}
