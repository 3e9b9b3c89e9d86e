//! Certificates on demand: where Envoy asks for them, and the TLS that they are for.

use super::{Machine, clusters, type_url};
use crate::config::Config;
use serde_json::{Value, json};

/// The cluster that leads to the broker's certificates.
const CLUSTER: &str = "attache_ads";

/// What a client that names no host is taken to ask for: there is never a certificate for it.
const NO_NAME: &str = "no-name.invalid";

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

/// What the intercepting listener shows to clients: the certificate of the name that they ask for.
pub(super) fn tls_context() -> Value {
    let mapper = json!({
        "@type": type_url("envoy.extensions.transport_sockets.tls.cert_mappers.sni.v3.SNI"),
        "default_value": NO_NAME,
    });
    let selector = json!({
        "@type": type_url("envoy.extensions.transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config"),
        "config_source": {"resource_api_version": "V3", "ads": {}},
        "certificate_mapper": {"name": "envoy.tls.certificate_mappers.sni", "typed_config": mapper},
    });
    json!({
        "@type": type_url("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        // A session that is taken up again asks for no certificate.
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
