//! What istiod does with an EnvoyFilter (`pilot/pkg/networking/core/envoyfilter`): kind by kind, within each in the
//! order of the patches; of routes first what is merged, then what is put in.

use attache_broker::envoy::istio::Topology;
use serde_json::Value;

use crate::istiod::Proxy;
use crate::mesh::merge;

const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// Applies every patch. Each must find what it is for: one that Istio would pass over in silence fails here.
pub fn apply(proxy: &mut Proxy, topology: Topology, manifest: &Value) {
    let patches = manifest["spec"]["configPatches"].as_array().expect("patches");
    let context = match topology {
        Topology::EgressGateway => "GATEWAY",
        Topology::Sidecar => "SIDECAR_OUTBOUND",
    };
    for patch in patches {
        assert_eq!(patch["match"]["context"], context, "inbound requests would be patched: {patch}");
    }
    for kind in ["CLUSTER", "LISTENER", "NETWORK_FILTER", "EXTENSION_CONFIG", "HTTP_FILTER", "HTTP_ROUTE"] {
        // What is merged into filters is merged after what is put in, into routes before.
        let (first, then): (Vec<&Value>, Vec<&Value>) = patches
            .iter()
            .filter(|patch| patch["applyTo"] == kind)
            .partition(|patch| (patch["patch"]["operation"] == "MERGE") == (kind == "HTTP_ROUTE"));
        for patch in first.into_iter().chain(then) {
            assert!(applied(proxy, patch), "applies to nothing: {patch}");
        }
    }
    let known: usize = patches
        .iter()
        .filter(|patch| {
            ["CLUSTER", "LISTENER", "NETWORK_FILTER", "EXTENSION_CONFIG", "HTTP_FILTER", "HTTP_ROUTE"]
                .contains(&patch["applyTo"].as_str().unwrap_or_default())
        })
        .count();
    assert_eq!(known, patches.len(), "a patch of a kind that is not simulated");
}

fn applied(proxy: &mut Proxy, patch: &Value) -> bool {
    let (at, value) = (&patch["match"], &patch["patch"]["value"]);
    match (patch["applyTo"].as_str(), patch["patch"]["operation"].as_str()) {
        (Some("CLUSTER"), Some("ADD")) => {
            proxy.clusters.push(value.clone());
            true
        }
        (Some("CLUSTER"), Some("MERGE")) => {
            let found = proxy.clusters.iter_mut().find(|cluster| cluster["name"] == at["cluster"]["name"]);
            found.map(|cluster| merge(cluster, value)).is_some()
        }
        (Some("LISTENER"), Some("MERGE")) => {
            let meant = proxy.listener["simulated_port"] == at["listener"]["portNumber"];
            if meant {
                merge(&mut proxy.listener, value);
            }
            meant
        }
        (Some("NETWORK_FILTER"), Some(operation)) => {
            let filters = proxy.listener["filter_chains"][0]["filters"].as_array_mut().expect("filters");
            let name = &at["listener"]["filterChain"]["filter"]["name"];
            let Some(index) = filters.iter().position(|filter| filter["name"] == *name) else { return false };
            match operation {
                "INSERT_BEFORE" => filters.insert(index, value.clone()),
                "MERGE" => merge(&mut filters[index], value),
                other => panic!("not simulated: {other}"),
            }
            true
        }
        (Some("EXTENSION_CONFIG"), Some("ADD")) => {
            proxy.extensions.push(value.clone());
            true
        }
        (Some("HTTP_FILTER"), Some(operation)) => {
            let filter = &at["listener"]["filterChain"]["filter"];
            assert_eq!(filter["name"], MANAGER);
            let filters = proxy.http_filters();
            let Some(index) = filters.iter().position(|one| one["name"] == filter["subFilter"]["name"]) else {
                return false;
            };
            match operation {
                "INSERT_BEFORE" => filters.insert(index, value.clone()),
                "MERGE" => merge(&mut filters[index], value),
                other => panic!("not simulated: {other}"),
            }
            true
        }
        (Some("HTTP_ROUTE"), Some(operation)) => on_routes(proxy, at, operation, value),
        other => panic!("not simulated: {other:?}"),
    }
}

fn on_routes(proxy: &mut Proxy, at: &Value, operation: &str, value: &Value) -> bool {
    let name = &at["routeConfiguration"]["vhost"]["route"]["name"];
    let mut any = false;
    for host in proxy.routes["virtual_hosts"].as_array_mut().expect("hosts") {
        let routes = host["routes"].as_array_mut().expect("routes");
        if operation == "MERGE" {
            for route in routes.iter_mut().filter(|route| route["name"] == *name) {
                merge(route, value);
                any = true;
            }
            continue;
        }
        let Some(index) = routes.iter().position(|route| route["name"] == *name) else { continue };
        any = true;
        match operation {
            "INSERT_AFTER" => routes.insert(index + 1, value.clone()),
            "INSERT_FIRST" => routes.insert(0, value.clone()),
            other => panic!("not simulated: {other}"),
        }
    }
    any
}
