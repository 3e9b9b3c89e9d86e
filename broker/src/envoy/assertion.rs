//! The cluster, asserted once the credential stands in the head.
//!
//! A changed header makes Envoy select the route again, after the gate. A route's own guard says
//! that this route is right; it says nothing of a route that stands above it and looks at what was
//! injected. So Envoy's RBAC filter stands between gate and router: it has the route selected, and
//! lets pass only what goes to the cluster that the verdict names. Nothing behind it changes a head.

use super::routes::{self, VERDICT};
use super::type_url;
use attache_core::refusal::Reason;
use serde_json::{Value, json};

/// The filter's name, for routes that switch it off.
pub(super) const NAME: &str = "attache.assertion";
/// How the details of its refusals begin. The gate looks for them, too.
const DENIED: &str = "rbac_access_denied";

/// The filter: two policies, however many destinations there are. What fits neither is refused: a
/// request without a verdict, too.
pub(super) fn filter() -> Value {
    json!({
        "name": NAME,
        "typed_config": {
            "@type": type_url("envoy.extensions.filters.http.rbac.v3.RBAC"),
            "rules": {"action": "ALLOW", "policies": {
                "decided": {
                    "permissions": [{"any": true}],
                    "principals": [{"any": true}],
                    "condition": names_the_selected_cluster(),
                    // Of the verdict, which the gate writes, and of a cluster's name: both are short.
                    "cel_config": {"enable_string_conversion": true, "enable_string_concat": true},
                },
                // Let pass as it came, to a destination that nobody names: nothing was injected, and
                // the routes have an answer of their own for it.
                "nowhere": {
                    "permissions": [{"any": true}],
                    "principals": [
                        {"filter_state": {"key": VERDICT, "string_match": {"prefix": routes::verdict_for("")}}},
                    ],
                },
            }},
        },
    })
}

/// `string(filter_state["wasm.attache"]).startsWith("{\"cluster\":\"" + xds.cluster_name + "\"")`, as a
/// parsed expression (CEL): the route's cluster, as it is now. An error, as where no cluster is
/// selected, is no match.
fn names_the_selected_cluster() -> Value {
    let call = |function: &str, args: Value| json!({"call_expr": {"function": function, "args": args}});
    let text = |text: &str| json!({"const_expr": {"string_value": text}});
    let name = |name: &str| json!({"ident_expr": {"name": name}});
    let verdict = call("string", json!([call("_[_]", json!([name("filter_state"), text(VERDICT)]))]));
    let selected = json!({"select_expr": {"operand": name("xds"), "field": "cluster_name"}});
    let begin = call("_+_", json!([call("_+_", json!([text(routes::VERDICT_BEGINS), selected])), text("\"")]));
    json!({"call_expr": {"target": verdict, "function": "startsWith", "args": [begin]}})
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
        "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"},
        "headers_to_add": [routes::header("x-attache-reason", reason.as_str())],
    })
}
