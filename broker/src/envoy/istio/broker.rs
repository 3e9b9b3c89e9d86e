//! The cluster of the broker's data plane, as a patch adds it to a proxy: no service of the mesh's, so that no
//! listener and no route leads there. The filter's own calls need neither.

use super::super::{BROKER_CLUSTER, BUFFER_BYTES, clusters, socket_address, type_url};
use super::{BROKER_HOST, BROKER_ID, BROKER_PORT};
use serde_json::{Value, json};

/// Mutual TLS, with the certificate that Istio gave this workload; it believes the broker alone.
pub(super) fn cluster() -> Value {
    let sds = |name: &str| {
        json!({"name": name, "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                // In the bootstrap of every proxy of Istio's: the socket of its agent.
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
            },
            "initial_fetch_timeout": "0s",
            "resource_api_version": "V3",
        }})
    };
    let identity = json!([{"san_type": "URI", "matcher": {"exact": BROKER_ID}}]);
    let tls = json!({
        "@type": type_url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": BROKER_HOST,
        // A session that is taken up again shows no certificate anew.
        "max_session_keys": 0,
        "common_tls_context": {
            "alpn_protocols": ["http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [sds("default")],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": identity},
                "validation_context_sds_secret_config": sds("ROOTCA"),
            },
        },
    });
    let address = socket_address(BROKER_HOST, BROKER_PORT);
    json!({
        "name": BROKER_CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "circuit_breakers": clusters::generous(),
        "upstream_connection_options": clusters::keepalive(),
        "load_assignment": clusters::assignment(BROKER_CLUSTER, &address),
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {clusters::OPTIONS: {
            "@type": type_url(clusters::OPTIONS),
            "explicit_http_config": {"http_protocol_options": {}},
        }},
    })
}
