//! `GET /health` for agents and load balancers: 200 while this Envoy serves and its broker is there.
//!
//! Envoy answers it alone, from what its own checks have seen: no request of an agent ever comes near
//! the broker, and all that an answer says is yes or no. The checks have a cluster of their own, so
//! that what they find never keeps a filter's call from a broker that has just come back.

use super::{BROKER_CLUSTER, filters, set, type_url};
use crate::witness::HEALTH_ROUTE;
use serde_json::{Value, json};

/// The filter's name, for the one route that switches it on.
pub(super) const NAME: &str = "attache.health";
/// Where it answers.
pub(super) const PATH: &str = "/health";
/// Leads where the broker's cluster does, and is only ever checked.
pub(super) const CLUSTER: &str = "attache_broker_health";
/// How often it is checked; after two that fail it counts as gone.
const PERIOD: &str = "1s";

/// The filter that answers: off, but for its route.
pub(super) fn filter() -> Value {
    json!({
        "name": NAME,
        "disabled": true,
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.health_check.v3.HealthCheck"),
            "pass_through_mode": false,
            "headers": [{"name": ":path", "string_match": {"exact": PATH}}],
            "cluster_min_healthy_percentages": {CLUSTER: {"value": 100.0}},
        },
    })
}

/// The route: nothing is decided on it, and where the filter is missing it says no.
pub(super) fn route() -> Value {
    let mut overrides = filters::without_gate();
    set(&mut overrides, NAME, json!({"@type": type_url(filters::PER_ROUTE), "config": {}}));
    json!({
        "name": HEALTH_ROUTE,
        "match": {"path": PATH},
        "direct_response": {"status": 503},
        "typed_per_filter_config": overrides,
    })
}

/// The cluster that is checked, made from the broker's own.
pub(super) fn cluster(broker: &Value) -> Value {
    let transport = broker.get("transport_socket");
    // Checks carry no token, and whoever has none is answered with 401: the broker is there. A certificate they carry.
    let status = if transport.is_some() { 200 } else { 401 };
    let mut cluster = json!({
        "name": CLUSTER,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": broker.pointer("/load_assignment/endpoints"),
        },
        "health_checks": [{
            "timeout": "1s",
            "interval": PERIOD,
            "no_traffic_interval": PERIOD,
            "no_traffic_healthy_interval": PERIOD,
            "unhealthy_threshold": 2,
            "healthy_threshold": 1,
            "reuse_connection": false,
            "http_health_check": {
                "host": BROKER_CLUSTER,
                "path": "/healthz",
                "expected_statuses": [{"start": status, "end": status + 1}],
            },
        }],
    });
    for name in ["type", "cluster_type", "transport_socket"] {
        if let Some(value) = broker.get(name) {
            set(&mut cluster, name, value.clone());
        }
    }
    cluster
}
