//! The cluster, asserted once the credential stands in the head.
//!
//! A changed header makes Envoy select the route again, after the gate. A route's own guard says
//! that this route is right; it says nothing of a route that stands above it and looks at what was
//! injected. So Envoy's RBAC filter stands between gate and router: it has the route selected, and
//! asks that route's own rule for the verdict. A route that has no rule is not ours, and lets
//! nothing pass. Nothing behind it changes a head.

use super::{routes, set, type_url};
use attache_core::refusal::{DENIED, Reason, TLS_ERROR};
use serde_json::{Value, json};

/// The filter's name, for the rules on routes.
pub(super) const NAME: &str = "attache.assertion";

/// The filter: without a rule on the route, nothing passes.
pub(super) fn filter() -> Value {
    let nothing = json!({"action": "ALLOW", "policies": {}});
    json!({
        "name": NAME,
        "typed_config": {"@type": type_url("envoy.extensions.filters.http.rbac.v3.RBAC"), "rules": nothing},
    })
}

/// The rule of a route to a cluster: the verdict names it. A comparison of bytes: an expression that
/// compares with whatever cluster is selected (CEL) costs more than the gate.
pub(super) fn rule(cluster: &str) -> Value {
    let verdict = routes::decided_for(cluster);
    let decided = json!({"permissions": [{"any": true}], "principals": [{"filter_state": verdict}]});
    json!({"@type": per_route(), "rbac": {"rules": {"action": "ALLOW", "policies": {"decided": decided}}}})
}

/// The rule of a route that answers by itself: it leads nowhere.
pub(super) fn no_rule() -> Value {
    json!({"@type": per_route()})
}

fn per_route() -> String {
    type_url("envoy.extensions.filters.http.rbac.v3.RBACPerRoute")
}

/// The filter's refusal is a bare 403: this makes it the answer of a closed route.
pub(super) fn reply() -> Value {
    answered(&format!("response.code_details.startsWith('{DENIED}')"), Reason::DestinationMismatch)
}

/// What Envoy answers where TLS with the upstream did not come about: why, and that nothing was sent.
pub(super) fn without_tls() -> Value {
    let reason = Reason::UpstreamTls;
    let mut reply = answered(&format!("upstream.transport_failure_reason.startsWith('{TLS_ERROR}')"), reason);
    let mut body: Value = serde_json::from_str(&reason.body(b"")).unwrap_or_default();
    set(&mut body, "detail", "%UPSTREAM_TRANSPORT_FAILURE_REASON%");
    set(&mut reply, "body_format_override", json!({"json_format": body}));
    reply
}

/// Makes an answer of Envoy's own, for which an expression holds, that of a reason.
pub(super) fn answered(expression: &str, reason: Reason) -> Value {
    let holds = json!({
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": type_url("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"),
            "expression": expression,
        },
    });
    json!({
        "filter": {"extension_filter": holds},
        "status_code": reason.status(),
        "body": {"inline_string": reason.body(b"")},
        "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"},
        "headers_to_add": [routes::header("x-attache-reason", reason.as_str())],
    })
}
