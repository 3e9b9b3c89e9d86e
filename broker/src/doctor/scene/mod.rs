//! The configuration as the checks see it: connection managers, our plugins in them, the routes
//! they guard and the clusters those routes lead to.
//!
//! *Ours* is a wasm plugin whose configuration says `"role": "gate"`, `"judge"` or `"door"`, or whose
//! name starts with `attache`. A connection manager with our gate or door is *guarded*. A *managed* route
//! forwards, in a guarded connection manager, with the gate on. A *managed* cluster is one that a
//! managed route leads to.

mod cluster;
mod hcm;
mod plugin;
mod route;

pub(super) use cluster::{Cluster, Socket};
pub(super) use hcm::{Hcm, HttpFilter, Listener};
pub(super) use plugin::{Plugin, Role, opened_settings};
pub(super) use route::Route;

use super::config::EnvoyConfig;
use super::node::{Message, Node};

/// Full names of the messages doctor looks for.
pub(super) mod kind {
    pub const HCM: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    pub const MOBILE_HCM: &str =
        "envoy.extensions.filters.network.http_connection_manager.v3.EnvoyMobileHttpConnectionManager";
    pub const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    pub const CONNECTION_LIMIT: &str = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
    pub const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
    pub const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
    pub const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
    pub const NETWORK_RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
    pub const SET_FILTER_STATE: &str = "envoy.extensions.filters.http.set_filter_state.v3.Config";
    pub const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
    pub const ROUTE: &str = "envoy.config.route.v3.Route";
    pub const ROUTE_LIST: &str = "envoy.config.route.v3.RouteList";
    pub const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    pub const ON_DEMAND_SECRET: &str =
        "envoy.extensions.transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config";
}

/// Everything the checks walk over.
pub(super) struct Scene<'a> {
    pub config: &'a EnvoyConfig<'a>,
    pub listeners: Vec<Listener<'a>>,
    pub hcms: Vec<Hcm<'a>>,
    pub clusters: Vec<Cluster<'a>>,
    managed: Vec<&'a str>,
}

impl<'a> Scene<'a> {
    pub fn new(config: &'a EnvoyConfig<'a>) -> Self {
        let listeners: Vec<_> = config.listeners.iter().map(|node| Listener::new(node, config)).collect();
        let hcms: Vec<_> = listeners.iter().flat_map(|listener| hcm::found_in(listener, config)).collect();
        let clusters: Vec<_> = config.clusters.iter().map(|node| Cluster::new(node, config)).collect();
        let mut scene = Self { config, listeners, hcms, clusters, managed: Vec::new() };
        scene.managed = scene.reached_by_managed_routes();
        scene
    }

    /// The connection managers that have our gate, or our door.
    pub fn guarded(&self) -> impl Iterator<Item = &Hcm<'a>> {
        self.hcms.iter().filter(|hcm| hcm.is_guarded())
    }

    /// The connection managers that clients of a forward proxy come in by.
    pub fn doors(&self) -> impl Iterator<Item = &Hcm<'a>> {
        self.hcms.iter().filter(|hcm| hcm.has_door())
    }

    /// Our plugins, wherever they stand.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin<'a>> {
        let lists =
            self.hcms.iter().flat_map(|hcm| [&hcm.filters].into_iter().chain(hcm.upgrades.iter().map(|(_, own)| own)));
        lists.flatten().filter_map(|filter| filter.plugin.as_ref())
    }

    pub fn managed_routes(&self) -> impl Iterator<Item = &Route<'a>> {
        self.guarded().flat_map(|hcm| &hcm.routes).filter(|route| route.is_managed)
    }

    pub fn managed_clusters(&self) -> impl Iterator<Item = &Cluster<'a>> {
        self.clusters.iter().filter(|cluster| self.is_managed(cluster.name))
    }

    pub fn is_managed(&self, cluster: &str) -> bool {
        self.managed.contains(&cluster)
    }

    pub fn cluster(&self, name: &str) -> Option<&Cluster<'a>> {
        self.clusters.iter().find(|cluster| cluster.name == name)
    }

    /// The clusters that lead to internal listeners.
    pub fn internal_clusters(&self) -> impl Iterator<Item = &Cluster<'a>> {
        self.clusters.iter().filter(|cluster| cluster.is_internal())
    }

    /// Whether a route's way stays in this process: every cluster leads to an internal listener.
    pub fn stays_inside(&self, route: &Route<'a>) -> bool {
        let inside = |name: &&str| self.cluster(name).is_some_and(Cluster::is_internal);
        let clusters = route.clusters();
        !clusters.is_empty() && clusters.iter().all(inside)
    }

    /// Where TCP proxies name clusters, and the names.
    pub fn tcp_targets(&self) -> Vec<(Node<'a>, &'a str)> {
        let filters = self.listeners.iter().flat_map(|listener| &listener.chains).flat_map(|chain| &chain.filters);
        let mut places = Vec::new();
        for proxy in filters.filter(|filter| filter.kind == kind::TCP_PROXY) {
            places.extend(proxy.node.field("cluster"));
            places.extend(proxy.node.list("weighted_clusters.clusters").iter().filter_map(|entry| entry.field("name")));
        }
        places.into_iter().filter_map(|place| place.as_text().map(|name| (place.clone(), name))).collect()
    }

    /// The clusters of managed routes, and the members of those that are aggregates.
    fn reached_by_managed_routes(&self) -> Vec<&'a str> {
        let mut reached = Vec::new();
        let mut open: Vec<&'a str> = self.managed_routes().flat_map(Route::clusters).collect();
        while let Some(name) = open.pop() {
            if !reached.contains(&name) {
                reached.push(name);
                open.extend(self.cluster(name).map(Cluster::members).unwrap_or_default());
            }
        }
        reached
    }
}

/// A filter's configuration, whether written in place or discovered (ECDS).
fn filter_message<'a>(filter: &Node<'a>, config: &EnvoyConfig<'a>) -> Option<Message<'a>> {
    if let Some(message) = filter.message("typed_config") {
        return Some(message);
    }
    let discovery = filter.field("config_discovery")?;
    let name = filter.text("name")?;
    let discovered = config.extensions.iter().find(|extension| extension.text("name") == Some(name));
    match discovered {
        Some(extension) => extension.message("typed_config"),
        None => discovery.message("default_config"),
    }
}
