//! Certificates on demand: where Envoy asks for them, and the TLS that they are for.

use super::{Machine, clusters, set, type_url};
use crate::ca::NO_NAME;
use crate::config::Config;
use serde_json::{Value, json};

/// The cluster that leads to the broker's certificates.
const CLUSTER: &str = "attache_ads";

/// One stream for all certificates: else each of them would have its own, and Envoy ends at the 1,025th.
/// Only with deltas can the broker deny a name.
pub(super) fn dynamic_resources() -> Value {
    json!({"ads_config": {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": true,
        "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER}}],
    }})
}

/// The broker's socket, spoken to by HTTP/2. A broker that hangs is noticed: without it, no client would
/// ever get a certificate again.
pub(super) fn cluster(config: &Config, machine: &Machine) -> Value {
    let protocol = json!({"http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}});
    clusters::towards_broker(CLUSTER, protocol, config, machine)
}

/// The names that are asked for at all. Envoy asks for whatever bytes a client has sent, and ends its stream
/// over an answer about a name that is no UTF-8: one client would keep certificates from all the others.
const ASKED: &str = "[A-Za-z0-9._-]{1,253}";

/// Lets a listener end TLS, with the certificate of the name that a client asks for, and these filters behind
/// it. Whoever asks for none, or for what is no name, gets an alert: `nowhere` is behind a handshake that never
/// comes to its end. `wait` bounds all of them, the wait for the certificate included.
pub(super) fn end_tls(listener: &mut Value, filters: &Value, nowhere: &Value, wait: &str) {
    let chain = |name: &str, mapper: Value, filters: &Value| {
        json!({
            "name": name,
            "transport_socket_connect_timeout": wait,
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls_context(&mapper)},
            "filters": filters,
        })
    };
    let by_name = json!({"name": "envoy.tls.certificate_mappers.sni", "typed_config": {
        "@type": type_url("envoy.extensions.transport_sockets.tls.cert_mappers.sni.v3.SNI"),
        "default_value": NO_NAME,
    }});
    let none = json!({"name": "envoy.tls.certificate_mappers.static_name", "typed_config": {
        "@type": type_url("envoy.extensions.transport_sockets.tls.cert_mappers.static_name.v3.StaticName"),
        "name": NO_NAME,
    }});
    let chains = json!([chain("named", by_name, filters), chain("nameless", none, nowhere)]);
    set(listener, "filter_chains", chains);
    set(listener, "filter_chain_matcher", by_what_is_asked());
}

/// TLS that asks for a name, other TLS, and the rest, which no chain takes.
fn by_what_is_asked() -> Value {
    let input = |name: &str, message: &str, matches: Value| {
        let message = format!("envoy.extensions.matching.common_inputs.network.v3.{message}");
        json!({"single_predicate": {
            "input": {"name": name, "typed_config": {"@type": type_url(&message)}},
            "value_match": matches,
        }})
    };
    let tls = input("envoy.matching.inputs.transport_protocol", "TransportProtocolInput", json!({"exact": "tls"}));
    let named = input(
        "envoy.matching.inputs.server_name",
        "ServerNameInput",
        json!({"safe_regex": {"google_re2": {}, "regex": ASKED}}),
    );
    let action = |chain: &str| {
        json!({"action": {
            "name": chain,
            "typed_config": {"@type": type_url("google.protobuf.StringValue"), "value": chain},
        }})
    };
    json!({"matcher_list": {"matchers": [
        {"predicate": {"and_matcher": {"predicate": [tls.clone(), named]}}, "on_match": action("named")},
        {"predicate": tls, "on_match": action("nameless")},
    ]}})
}

/// The certificate that the mapper names.
fn tls_context(mapper: &Value) -> Value {
    let selector = json!({
        "@type": type_url("envoy.extensions.transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config"),
        "config_source": {"resource_api_version": "V3", "ads": {}},
        "certificate_mapper": mapper,
    });
    json!({
        "@type": type_url("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        // A client whose session is taken up again is shown no certificate. Before 1.38 Envoy applies both to the
        // contexts of certificates alone, and not to the one that decides: there a session ends with its leaf.
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2", "http/1.1"],
            "custom_tls_certificate_selector": {
                "name": "envoy.tls.certificate_selectors.on_demand_secret",
                "typed_config": selector,
            },
        },
    })
}
