//! What doctor reads: a bootstrap as written, or the `/config_dump` of a running Envoy.
//!
//! Both become the same lists of resources, each remembering its exact place. Nothing is fetched:
//! the caller brings the parsed value.

use serde_json::Value;

use super::node::Node;

const NOTHING: &Value = &Value::Null;

/// The resources of one Envoy, borrowed from its parsed configuration.
#[derive(Debug)]
pub struct EnvoyConfig<'a> {
    /// True when discovered resources are in it too: a dump shows all, a file only its own.
    pub(super) is_running: bool,
    pub(super) root: Node<'a>,
    pub(super) bootstrap: Node<'a>,
    pub(super) listeners: Vec<Node<'a>>,
    pub(super) clusters: Vec<Node<'a>>,
    pub(super) route_tables: Vec<Node<'a>>,
    pub(super) scoped_routes: Vec<Node<'a>>,
    pub(super) endpoints: Vec<Node<'a>>,
    pub(super) extensions: Vec<Node<'a>>,
}

impl<'a> EnvoyConfig<'a> {
    /// Reads either form: a dump is known by its top-level list `configs`.
    pub fn from_value(value: &'a Value) -> Self {
        match value.get("configs") {
            Some(Value::Array(_)) => Self::from_config_dump(value),
            _ => Self::from_bootstrap(value),
        }
    }

    /// Reads a bootstrap (`envoy.config.bootstrap.v3.Bootstrap`), as in the file given to Envoy.
    pub fn from_bootstrap(value: &'a Value) -> Self {
        let bootstrap = Node::root(value, "");
        let mut config = Self::empty(value, bootstrap.clone(), false);
        config.listeners = bootstrap.list("static_resources.listeners");
        config.clusters = bootstrap.list("static_resources.clusters");
        config
    }

    /// Reads the admin answer to `/config_dump?include_eds` (`envoy.admin.v3.ConfigDump`): static
    /// and dynamic listeners, clusters, routes, endpoints and discovered filters. Draining and
    /// rejected resources no longer, or never, serve: they are left out.
    pub fn from_config_dump(value: &'a Value) -> Self {
        let sections = Node::root(value, "").list("configs");
        let section = |kind: &str| {
            let full = format!("envoy.admin.v3.{kind}");
            let found = sections.iter().find(|node| node.opened().is_some_and(|any| any.kind == full));
            found.cloned().unwrap_or_else(|| Node::root(NOTHING, kind))
        };

        let bootstrap = section("BootstrapConfigDump").field("bootstrap");
        let mut config = Self::empty(value, bootstrap.unwrap_or_else(|| Node::root(NOTHING, "configs")), true);

        let dump = section("ListenersConfigDump");
        config.listeners = picked(&dump, "static_listeners", "listener");
        config.listeners.extend(picked(&dump, "dynamic_listeners", "active_state.listener"));
        config.listeners.extend(picked(&dump, "dynamic_listeners", "warming_state.listener"));

        let dump = section("ClustersConfigDump");
        for list in ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"] {
            config.clusters.extend(picked(&dump, list, "cluster"));
        }

        let dump = section("RoutesConfigDump");
        // The static ones stand in their listeners as well; only discovered ones are missing there.
        config.route_tables = picked(&dump, "dynamic_route_configs", "route_config");

        let dump = section("ScopedRoutesConfigDump");
        for list in ["inline_scoped_route_configs", "dynamic_scoped_route_configs"] {
            config.scoped_routes.extend(picked(&dump, list, "scoped_route_configs").iter().flat_map(Node::items));
        }

        let dump = section("EndpointsConfigDump");
        for list in ["static_endpoint_configs", "dynamic_endpoint_configs"] {
            config.endpoints.extend(picked(&dump, list, "endpoint_config"));
        }

        config.extensions = picked(&section("EcdsConfigDump"), "ecds_filters", "ecds_filter");
        config
    }

    fn empty(value: &'a Value, bootstrap: Node<'a>, is_running: bool) -> Self {
        Self {
            is_running,
            root: Node::root(value, ""),
            bootstrap,
            listeners: Vec::new(),
            clusters: Vec::new(),
            route_tables: Vec::new(),
            scoped_routes: Vec::new(),
            endpoints: Vec::new(),
            extensions: Vec::new(),
        }
    }
}

/// The `field` of each entry of `list` that has it.
fn picked<'a>(dump: &Node<'a>, list: &str, field: &str) -> Vec<Node<'a>> {
    dump.list(list).iter().filter_map(|entry| entry.at(field)).collect()
}
