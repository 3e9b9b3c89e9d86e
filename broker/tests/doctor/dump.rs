//! A bootstrap as the admin of a running Envoy would dump it.

use serde_json::{Value, json};

/// How resources came to the Envoy.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// All from the bootstrap.
    Static,
    /// Listeners, clusters, routes, endpoints and the first HTTP filter from a control plane.
    Discovered,
}

/// A dump, and where each part of the bootstrap stands in it.
pub struct Dump {
    pub value: Value,
    /// (place in the bootstrap, place in the dump), the most specific first.
    moves: Vec<(String, String)>,
}

impl Dump {
    pub fn of(bootstrap: &Value, form: Form) -> Self {
        let mut moves = Vec::new();
        let mut listeners = entries(bootstrap, "listeners");
        let mut clusters = entries(bootstrap, "clusters");
        let (mut routes, mut filters, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
        if matches!(form, Form::Discovered) {
            for (index, listener) in listeners.iter_mut().enumerate() {
                let place = format!("static_resources.listeners[{index}]");
                each_hcm(listener, &place, &mut |hcm, place| {
                    discover_routes(hcm, place, &mut routes, &mut moves);
                    discover_filter(hcm, place, &mut filters, &mut moves);
                });
            }
            for (index, cluster) in clusters.iter_mut().enumerate() {
                discover_endpoints(cluster, index, &mut endpoints, &mut moves);
            }
        }

        let mut resources = bootstrap.get("static_resources").cloned().unwrap_or_default();
        let mut rest = bootstrap.clone();
        if matches!(form, Form::Discovered) {
            resources.as_object_mut().map(|fields| (fields.remove("listeners"), fields.remove("clusters")));
            rest["static_resources"] = resources;
        }
        let (listener_list, listener_field) = match form {
            Form::Static => ("static_listeners", "listener"),
            Form::Discovered => ("dynamic_listeners", "active_state.listener"),
        };
        let cluster_list = match form {
            Form::Static => "static_clusters",
            Form::Discovered => "dynamic_active_clusters",
        };
        for index in 0..listeners.len() {
            moves.push((
                format!("static_resources.listeners[{index}]"),
                format!("configs[3].{listener_list}[{index}].{listener_field}"),
            ));
        }
        for index in 0..clusters.len() {
            moves.push((
                format!("static_resources.clusters[{index}]"),
                format!("configs[1].{cluster_list}[{index}].cluster"),
            ));
        }

        let wrapped = |listener: Value| match form {
            Form::Static => json!({"listener": listener}),
            Form::Discovered => json!({"name": listener["name"], "active_state": {"listener": listener}}),
        };
        let value = json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": rest},
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
             cluster_list: clusters.into_iter().map(|cluster| json!({"cluster": cluster})).collect::<Vec<_>>()},
            {"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs": endpoints},
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
             listener_list: listeners.into_iter().map(wrapped).collect::<Vec<_>>()},
            {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": routes},
            {"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": filters},
        ]});
        Self { value, moves }
    }

    /// Where a place of the bootstrap stands in the dump.
    pub fn place(&self, place: &str) -> String {
        let under =
            |from: &str| place.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let moved = self.moves.iter().find_map(|(from, to)| Some(format!("{to}{}", under(from)?)));
        moved.unwrap_or_else(|| format!("configs[0].bootstrap.{place}"))
    }
}

fn entries(bootstrap: &Value, list: &str) -> Vec<Value> {
    bootstrap["static_resources"][list].as_array().cloned().unwrap_or_default()
}

fn each_hcm(listener: &mut Value, place: &str, visit: &mut impl FnMut(&mut Value, &str)) {
    for (c, chain) in listener["filter_chains"].as_array_mut().into_iter().flatten().enumerate() {
        for (f, filter) in chain["filters"].as_array_mut().into_iter().flatten().enumerate() {
            let config = &mut filter["typed_config"];
            if config["@type"].as_str().is_some_and(|kind| kind.ends_with(".HttpConnectionManager")) {
                visit(config, &format!("{place}.filter_chains[{c}].filters[{f}].typed_config"));
            }
        }
    }
}

fn discover_routes(hcm: &mut Value, place: &str, routes: &mut Vec<Value>, moves: &mut Vec<(String, String)>) {
    let Some(mut table) = hcm.as_object_mut().and_then(|fields| fields.remove("route_config")) else { return };
    let name = format!("table-{}", routes.len());
    table["name"] = json!(name);
    hcm["rds"] = json!({"route_config_name": name});
    moves.push((
        format!("{place}.route_config"),
        format!("configs[4].dynamic_route_configs[{}].route_config", routes.len()),
    ));
    routes.push(json!({"route_config": table}));
}

fn discover_filter(hcm: &mut Value, place: &str, filters: &mut Vec<Value>, moves: &mut Vec<(String, String)>) {
    let filter = &mut hcm["http_filters"][0];
    let Some(config) = filter.as_object_mut().and_then(|fields| fields.remove("typed_config")) else { return };
    filter["config_discovery"] = json!({"type_urls": [config["@type"]]});
    let to = format!("configs[5].ecds_filters[{}].ecds_filter.typed_config", filters.len());
    moves.push((format!("{place}.http_filters[0].typed_config"), to));
    filters.push(json!({"ecds_filter": {
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": filter["name"], "typed_config": config,
    }}));
}

fn discover_endpoints(
    cluster: &mut Value,
    index: usize,
    endpoints: &mut Vec<Value>,
    moves: &mut Vec<(String, String)>,
) {
    let Some(mut set) = cluster.as_object_mut().and_then(|fields| fields.remove("load_assignment")) else { return };
    let service = format!("service-{index}");
    set["cluster_name"] = json!(service);
    cluster["eds_cluster_config"] = json!({"service_name": service});
    let to = format!("configs[2].dynamic_endpoint_configs[{}].endpoint_config", endpoints.len());
    moves.push((format!("static_resources.clusters[{index}].load_assignment"), to));
    endpoints.push(json!({"endpoint_config": set}));
}
