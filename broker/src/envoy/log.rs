//! Envoy's own access log: the witness of every request, those that never reached the filter included.
//!
//! It goes to standard output, and to the broker, which holds it against what the filters recorded
//! (`docs/decisions/0010`). No header of the request but two that carry nothing, and no query: a
//! credential may stand in either.

use super::{BROKER_CLUSTER, Machine, clusters, filter_state, set, type_url};
use crate::config::Config;
use crate::witness;
use attache_core::verdict::VERDICT_STATE;
use serde_json::{Map, Value, json};

/// The cluster that leads to the broker by HTTP/2, for an Envoy that sends its access log by gRPC alone.
const GRPC_CLUSTER: &str = "attache_access_log";
/// How long entries wait for one another.
const FLUSH: &str = "0.5s";
/// So many bytes of them travel at once; a batch of the broker's may be far larger.
const BATCH_BYTES: u32 = 128 << 10;

/// What an entry says, and how Envoy writes it. No text is longer than one in a record.
const FIELDS: [(&str, &str); 15] = [
    ("request_id", "%REQ(X-REQUEST-ID):4096%"),
    ("method", "%REQ(:METHOD):4096%"),
    ("authority", "%REQ(:AUTHORITY):4096%"),
    ("path", "%PATH(NQ):4096%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("duration_ms", "%DURATION%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("route", "%ROUTE_NAME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_failure", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

fn fields() -> impl Iterator<Item = (&'static str, String)> {
    let verdict = format!("%FILTER_STATE({}:PLAIN)%", filter_state(VERDICT_STATE));
    FIELDS.into_iter().map(|(name, format)| (name, format.to_owned())).chain([("attache", verdict)])
}

/// One JSON object a request, on standard output.
pub(super) fn stdout() -> Value {
    let start = [("start_time", "%START_TIME%".to_owned())];
    let format: Map<String, Value> =
        start.into_iter().chain(fields()).map(|(name, format)| (name.to_owned(), format.into())).collect();
    json!({
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": type_url("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"),
            "log_format": {"json_format": format},
        },
    })
}

/// The same to the broker, by OTLP over HTTP: through its cluster, which adds the token. When a request
/// began stands in a field of the protocol's own.
pub(super) fn to_broker() -> Value {
    otlp(read_by_broker())
}

fn read_by_broker() -> impl Iterator<Item = (&'static str, String)> {
    let read = fields().filter(|(name, _)| witness::FIELDS.contains(name));
    // The broker keeps what waits for its record: shorter texts, so that strangers fill no memory with them.
    read.map(|(name, format)| (name, format.replace(":4096%", ":512%")))
}

/// The same by gRPC, for Envoys before 1.37; and the cluster for it.
pub(super) fn by_grpc(config: &Config, machine: &Machine) -> (Value, Value) {
    let mut log = otlp(read_by_broker());
    let common = json!({
        "log_name": "attache",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": GRPC_CLUSTER}, "timeout": "2s"},
        "buffer_flush_interval": FLUSH,
        "buffer_size_bytes": BATCH_BYTES,
    });
    if let Some(Value::Object(logger)) = log.get_mut("typed_config") {
        for newer in ["log_name", "http_service", "buffer_flush_interval", "buffer_size_bytes"] {
            logger.remove(newer);
        }
        logger.insert("common_config".to_owned(), common);
    }
    let protocol = json!({"http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}});
    (log, clusters::towards_broker(GRPC_CLUSTER, protocol, config, machine))
}

/// Handshakes that failed, on a listener that ends TLS: its clients are told of by an alert alone.
///
/// Envoy has a reason for failure, too, where a client ends a connection in order: whether the handshake was over
/// tells them apart.
pub(super) fn handshakes() -> Value {
    let fields = [
        (witness::HANDSHAKE_MS, "%DOWNSTREAM_HANDSHAKE_DURATION%"),
        ("authority", "%REQUESTED_SERVER_NAME%"),
        ("response_code_details", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%"),
        ("duration_ms", "%DURATION%"),
        ("route", witness::HANDSHAKE_ROUTE),
    ];
    let mut log = otlp(fields.map(|(name, format)| (name, format.to_owned())).into_iter());
    let failed = json!({
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": type_url("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"),
            "expression": "connection.transport_failure_reason != ''",
        },
    });
    set(&mut log, "filter", json!({"extension_filter": failed}));
    log
}

fn otlp(fields: impl Iterator<Item = (&'static str, String)>) -> Value {
    let attributes = fields.map(|(name, format)| json!({"key": name, "value": {"string_value": format}}));
    json!({
        "name": "envoy.access_loggers.open_telemetry",
        "typed_config": {
            "@type": type_url("envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig"),
            "log_name": "attache",
            "stat_prefix": "attache.",
            "http_service": {
                "http_uri": {
                    "uri": format!("http://{BROKER_CLUSTER}{}", witness::ACCESS_LOG_PATH),
                    "cluster": BROKER_CLUSTER,
                    "timeout": "2s",
                },
            },
            "disable_builtin_labels": true,
            "buffer_flush_interval": FLUSH,
            "buffer_size_bytes": BATCH_BYTES,
            "attributes": {"values": attributes.collect::<Vec<_>>()},
        },
    })
}
