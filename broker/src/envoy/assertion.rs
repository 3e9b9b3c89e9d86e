//! The cluster, asserted once the credential stands in the head.
//!
//! A changed header makes Envoy select the route again, after the gate. A route's own guard says
//! that this route is right; it says nothing of a route that stands above it and looks at what was
//! injected. So Envoy's RBAC filter stands between gate and router: it has the route selected, and
//! lets pass only what goes to the cluster that the verdict names. Nothing behind it changes a head.

use super::routes::{self, VERDICT};
use super::type_url;
use attache_core::policy::Spec;
use attache_core::refusal::Reason;
use serde_json::{Map, Value, json};

/// The filter's name, for routes that switch it off.
pub(super) const NAME: &str = "attache.assertion";
/// How the details of its refusals begin. The gate looks for them, too.
const DENIED: &str = "rbac_access_denied";

/// The filter. What fits no policy is refused: a request without a verdict, too.
pub(super) fn filter(policy: &Spec) -> Value {
    let to_its_cluster = policy.destinations.iter().map(|destination| {
        let cluster = destination.cluster.as_str();
        (cluster.to_owned(), rule(&routes::verdict_for(cluster), Some(is_selected(cluster))))
    });
    // Let pass as it came, to a destination that nobody names: nothing was injected, and the routes
    // have an answer of their own for it.
    let nowhere = [("nowhere".to_owned(), rule(&routes::verdict_for(""), None))];
    let policies: Map<String, Value> = to_its_cluster.chain(nowhere).collect();
    json!({
        "name": NAME,
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.rbac.v3.RBAC"),
            "rules": {"action": "ALLOW", "policies": policies},
        },
    })
}

fn rule(verdict: &str, condition: Option<Value>) -> Value {
    let mut rule = json!({
        "permissions": [{"any": true}],
        "principals": [{"filter_state": {"key": VERDICT, "string_match": {"prefix": verdict}}}],
    });
    if let Some(condition) = condition {
        super::set(&mut rule, "condition", condition);
    }
    rule
}

/// `xds.cluster_name == "CLUSTER"`, as a parsed expression (CEL): the route's cluster, as it is now.
fn is_selected(cluster: &str) -> Value {
    json!({"call_expr": {
        "function": "_==_",
        "args": [
            {"select_expr": {"operand": {"ident_expr": {"name": "xds"}}, "field": "cluster_name"}},
            {"const_expr": {"string_value": cluster}},
        ],
    }})
}

/// The filter's refusal is a bare 403: this makes it the answer of a closed route.
pub(super) fn reply() -> Value {
    let denied = json!({
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": type_url("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"),
            "expression": format!("response.code_details.startsWith('{DENIED}')"),
        },
    });
    let reason = Reason::DestinationMismatch;
    json!({
        "filter": {"extension_filter": denied},
        "status_code": reason.status(),
        "body": {"inline_string": reason.body(b"")},
        "body_format_override": {"text_format": "%LOCAL_REPLY_BODY%", "content_type": "application/json"},
        "headers_to_add": [routes::header("x-attache-reason", reason.as_str())],
    })
}
