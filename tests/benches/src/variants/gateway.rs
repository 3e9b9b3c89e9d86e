//! The gateway's own listener with other filters: what a variant is measured in.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";

/// The listener of a bootstrap without our filters, and without what only they can open: the
/// guards of its routes. The rest stands: limits, host and path rewriting, headers taken out.
pub fn without_filters(listener: &Value) -> Result<Value> {
    let mut listener = listener.clone();
    let manager = listener.pointer_mut(MANAGER).context("the listener has no connection manager")?;
    let filters = manager["http_filters"].as_array().context("the listener has no filters")?;
    let router = filters.last().context("the listener has no router")?.clone();
    manager["http_filters"] = json!([router]);
    unguard(&mut manager["route_config"]);
    Ok(listener)
}

/// The same with these filters before the router.
pub fn with_filters(listener: &Value, mut filters: Vec<Value>) -> Value {
    let mut listener = listener.clone();
    if let Some(Value::Array(chain)) = listener.pointer_mut(&format!("{MANAGER}/http_filters")) {
        filters.append(chain);
        *chain = filters;
    }
    listener
}

/// Takes out what names our filters or waits for their verdict, at every depth.
fn unguard(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let ours = |name: &str| name == "filter_state" || name == "typed_per_filter_config";
            *members = std::mem::take(members).into_iter().filter(|(name, _)| !ours(name)).collect::<Map<_, _>>();
            members.values_mut().for_each(unguard);
        }
        Value::Array(items) => items.iter_mut().for_each(unguard),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guards_and_our_filters_go_and_the_rest_stays() {
        let manager = json!({
            "http_filters": [{"name": "gate"}, {"name": "router"}],
            "route_config": {"virtual_hosts": [{"routes": [
                {"match": {"prefix": "/", "filter_state": [{}]}, "route": {"timeout": "0s"}, "typed_per_filter_config": {}},
            ]}]},
        });
        let listener = json!({"filter_chains": [{"filters": [{"typed_config": manager}]}]});
        let other = with_filters(&without_filters(&listener).unwrap(), vec![json!({"name": "other"})]);
        let manager = other.pointer(MANAGER).unwrap();
        assert_eq!(manager["http_filters"], json!([{"name": "other"}, {"name": "router"}]));
        let route = json!({"match": {"prefix": "/"}, "route": {"timeout": "0s"}});
        assert_eq!(manager["route_config"]["virtual_hosts"][0]["routes"][0], route);
    }
}
