//! What the dashboard and the alert rules ask for.

use attache_tests::util::workspace_root;
use serde_json::Value;
use std::path::PathBuf;

/// Where both lie.
pub fn dashboards() -> PathBuf {
    workspace_root().join("envoy/dashboards")
}

/// A query, and where it stands.
pub struct Query {
    pub place: String,
    pub expr: String,
}

/// An alert rule.
pub struct Alert {
    pub name: String,
    pub expr: String,
    pub annotations: Value,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// All of the dashboard's panels.
pub fn panels() -> Vec<Value> {
    let json = std::fs::read_to_string(dashboards().join("attache.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&json).expect("JSON");
    list(&dashboard["panels"])
}

/// All of the dashboard's queries, Grafana's interval filled in.
pub fn of_dashboard() -> Vec<Query> {
    let of = |panel: Value| {
        let title = text(&panel["title"]);
        list(&panel["targets"]).into_iter().map(move |target| Query {
            place: format!("panel {title}, {}", text(&target["refId"])),
            expr: text(&target["expr"]).replace("$__rate_interval", "1m"),
        })
    };
    panels().into_iter().flat_map(of).collect()
}

/// All alert rules.
pub fn alerts() -> Vec<Alert> {
    let yaml = std::fs::read_to_string(dashboards().join("alerts.yaml")).expect("the rules");
    let rules: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    let rules = list(&rules["groups"]).into_iter().flat_map(|group| list(&group["rules"]));
    rules
        .map(|rule| Alert {
            name: text(&rule["alert"]),
            expr: text(&rule["expr"]),
            annotations: rule["annotations"].clone(),
        })
        .collect()
}

/// All queries of both.
pub fn all() -> Vec<Query> {
    let of_alert = |alert: Alert| Query { place: format!("alert {}", alert.name), expr: alert.expr };
    of_dashboard().into_iter().chain(alerts().into_iter().map(of_alert)).collect()
}

/// What a query looks at, without what it compares that with: there is data however well things are.
pub fn looked_at(expr: &str) -> &str {
    let inner = expr.strip_prefix("absent(").unwrap_or(expr);
    let mut depth = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && [" > ", " < ", " == "].iter().any(|sign| inner[at..].starts_with(sign)) {
            return &inner[..at];
        }
    }
    inner
}
