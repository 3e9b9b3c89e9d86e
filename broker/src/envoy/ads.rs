//! Certificates on demand: where Envoy asks for them, and the TLS that they are for.

use super::{Machine, clusters, set, type_url};
use crate::config::Config;
use serde_json::{Value, json};

/// The cluster that leads to the broker's certificates.
const CLUSTER: &str = "attache_ads";

/// One stream for all certificates.
pub(super) fn dynamic_resources() -> Value {
    json!({"ads_config": {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER}}],
    }})
}

/// The broker's socket, spoken to by HTTP/2.
pub(super) fn cluster(config: &Config, machine: &Machine) -> Value {
    let mut cluster = clusters::broker(config, machine);
    set(&mut cluster, "name", CLUSTER);
    cluster
}

/// What the intercepting listener shows to clients.
pub(super) fn tls_context() -> Value {
    json!({"@type": type_url("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext")})
}
