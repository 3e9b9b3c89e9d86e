//! Attaché itself: the packed filter, warm, with its audit going to a running
//! broker, in the listener that `attache envoy-config` writes.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use super::{Absent, Part, Workbench};

/// What of a bootstrap is the bench's own and not taken over.
const NOT_MERGED: [&str; 3] = ["admin", "node", "static_resources"];

/// The packed filter: `$ATTACHE_FILTER`, else `attache_filter.wasm` in the
/// target directory.
pub fn module(bench: &Workbench) -> Option<PathBuf> {
    let named = std::env::var_os("ATTACHE_FILTER").map(PathBuf::from);
    let path = named.unwrap_or_else(|| bench.target.join("attache_filter.wasm"));
    path.exists().then_some(path)
}

/// The filter with its broker.
pub fn part(bench: &Workbench) -> Result<Result<Part, Absent>> {
    if module(bench).is_none() {
        return Ok(Err(Absent("the packed filter is not built".to_owned())));
    }
    Ok(Err(Absent("the broker cannot be started yet".to_owned())))
}

/// What the bench takes from a bootstrap of ours.
#[derive(Debug, PartialEq)]
struct Pieces {
    listener: Value,
    clusters: Vec<Value>,
    secrets: Vec<Value>,
    bootstrap: Map<String, Value>,
}

/// Takes a whole bootstrap apart; nothing of it is dropped silently.
#[cfg_attr(not(test), expect(dead_code, reason = "the broker cannot be started yet"))]
fn pieces(bootstrap: Value) -> Result<Pieces> {
    let Value::Object(mut bootstrap) = bootstrap else {
        bail!("the bootstrap is not an object");
    };
    let mut resources = match bootstrap.remove("static_resources") {
        Some(Value::Object(resources)) => resources,
        _ => bail!("the bootstrap has no static_resources"),
    };
    let mut take = |name: &str| match resources.remove(name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let (mut listeners, clusters, secrets) = (take("listeners"), take("clusters"), take("secrets"));
    let (Some(listener), true) = (listeners.pop(), listeners.is_empty()) else {
        bail!("the bootstrap has not exactly one listener");
    };
    if let Some(other) = resources.keys().next() {
        bail!("the bootstrap's static_resources.{other} has no place in the bench");
    }
    bootstrap.retain(|name, _| !NOT_MERGED.contains(&name.as_str()));
    Ok(Pieces { listener, clusters, secrets, bootstrap })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
    fn what_has_no_place_is_an_error() {
        assert!(pieces(json!({"static_resources": {"listeners": [{}, {}]}})).is_err());
        assert!(pieces(json!({"static_resources": {"listeners": [{}], "new_kind": []}})).is_err());
    }
}
