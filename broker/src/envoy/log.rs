//! Envoy's own access log: the witness of requests that never reached the filter.
//!
//! No header of the request but two that carry nothing, and no query: a credential may stand in either.

use super::type_url;
use serde_json::{Value, json};

/// One JSON object a request, on standard output.
pub(super) fn stdout() -> Value {
    json!({
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": type_url("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"),
            "log_format": {
                "json_format": {
                    "start_time": "%START_TIME%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                    "method": "%REQ(:METHOD)%",
                    "authority": "%REQ(:AUTHORITY)%",
                    "path": "%PATH(NQ)%",
                    "protocol": "%PROTOCOL%",
                    "response_code": "%RESPONSE_CODE%",
                    "response_code_details": "%RESPONSE_CODE_DETAILS%",
                    "response_flags": "%RESPONSE_FLAGS%",
                    "duration_ms": "%DURATION%",
                    "bytes_received": "%BYTES_RECEIVED%",
                    "bytes_sent": "%BYTES_SENT%",
                    "route": "%ROUTE_NAME%",
                    "upstream_cluster": "%UPSTREAM_CLUSTER%",
                    "upstream_host": "%UPSTREAM_HOST%",
                    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
                    "attache": "%FILTER_STATE(wasm.attache:PLAIN)%",
                },
            },
        },
    })
}
