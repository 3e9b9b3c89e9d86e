//! Takes a whole bootstrap apart, to become one listener among others. Nothing
//! of it is dropped silently.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

/// What of a bootstrap is the bench's own and not taken over.
const NOT_MERGED: [&str; 2] = ["admin", "node"];
const ACCESS_LOG: &str = "access_log";

/// What the bench takes from a bootstrap.
#[derive(Debug, PartialEq)]
pub struct Pieces {
    /// Its one listener.
    pub listener: Value,
    /// All its clusters.
    pub clusters: Vec<Value>,
    /// All its static secrets.
    pub secrets: Vec<Value>,
    /// Everything beside these, admin and node.
    pub bootstrap: Map<String, Value>,
    /// Envoy's own access log, taken out of the listener.
    pub access_log: Option<Value>,
}

/// The pieces of a bootstrap, or what in it has no place here.
pub fn pieces(bootstrap: Value) -> Result<Pieces> {
    let Value::Object(mut bootstrap) = bootstrap else {
        bail!("the bootstrap is not an object");
    };
    let Some(Value::Object(mut resources)) = bootstrap.remove("static_resources") else {
        bail!("the bootstrap has no static_resources");
    };
    let mut take = |name: &str| match resources.remove(name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let (mut listeners, clusters, secrets) = (take("listeners"), take("clusters"), take("secrets"));
    let (Some(mut listener), true) = (listeners.pop(), listeners.is_empty()) else {
        bail!("the bootstrap has not exactly one listener");
    };
    if let Some(other) = resources.keys().next() {
        bail!("the bootstrap's static_resources.{other} has no place in the bench");
    }
    let access_log = manager(&mut listener).and_then(|manager| manager.remove(ACCESS_LOG));
    bootstrap.retain(|name, _| !NOT_MERGED.contains(&name.as_str()));
    Ok(Pieces { listener, clusters, secrets, bootstrap, access_log })
}

/// The same listener with Envoy's own access log, which but one variant has: what it costs is not the filter's.
pub fn with_log(listener: &Value, access_log: &Value) -> Value {
    let mut listener = listener.clone();
    if let Some(manager) = manager(&mut listener) {
        manager.insert(ACCESS_LOG.to_owned(), access_log.clone());
    }
    listener
}

/// The listener with another module.
pub fn with_module(mut value: Value, module: &str) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members {
                *member = if name == "filename" { json!(module) } else { with_module(member.take(), module) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = with_module(item.take(), module)),
        _ => {}
    }
    value
}

fn manager(listener: &mut Value) -> Option<&mut Map<String, Value>> {
    listener.pointer_mut("/filter_chains/0/filters/0/typed_config")?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_is_taken_over_whole_but_for_admin_and_node() {
        let taken = pieces(json!({
            "admin": {}, "node": {"id": "x"}, "layered_runtime": {"layers": []},
            "static_resources": {"listeners": [{"name": "proxy"}], "clusters": [{"name": "broker"}]},
        }))
        .unwrap();
        assert_eq!(taken.listener, json!({"name": "proxy"}));
        assert_eq!(taken.clusters, [json!({"name": "broker"})]);
        assert_eq!(taken.bootstrap.keys().collect::<Vec<_>>(), ["layered_runtime"]);
    }

    #[test]
    fn the_access_log_goes_and_can_come_back() {
        let logged = json!({"filter_chains": [{"filters": [{"typed_config": {"access_log": [{"name": "x"}]}}]}]});
        let taken = pieces(json!({"static_resources": {"listeners": [logged]}})).unwrap();
        assert_eq!(taken.listener, json!({"filter_chains": [{"filters": [{"typed_config": {}}]}]}));
        assert_eq!(with_log(&taken.listener, &taken.access_log.unwrap()), logged);
    }

    #[test]
    fn another_module_stands_wherever_one_stood() {
        let with =
            |module: &str| json!({"filters": [{"local": {"filename": module}}, {"name": "router"}], "name": "own"});
        assert_eq!(with_module(with("/one.wasm"), "/other.wasm"), with("/other.wasm"));
    }

    #[test]
    fn what_has_no_place_is_an_error() {
        assert!(pieces(json!({"static_resources": {"listeners": [{}, {}]}})).is_err());
        assert!(pieces(json!({"static_resources": {"listeners": [{}], "new_kind": []}})).is_err());
    }
}
