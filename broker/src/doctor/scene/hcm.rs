//! Listeners, their connection managers, and the HTTP filters in them.

use super::super::config::EnvoyConfig;
use super::super::node::{Message, Node};
use super::{Plugin, Role, Route, filter_message, kind};

/// A listener and the opened network filters of its chains.
#[derive(Debug)]
pub(in super::super) struct Listener<'a> {
    pub node: Node<'a>,
    pub chains: Vec<Chain<'a>>,
}

/// A filter chain.
#[derive(Debug)]
pub(in super::super) struct Chain<'a> {
    pub node: Node<'a>,
    pub filters: Vec<Message<'a>>,
}

/// An HTTP connection manager.
#[derive(Debug)]
pub(in super::super) struct Hcm<'a> {
    pub node: Node<'a>,
    pub listener: Node<'a>,
    pub filters: Vec<HttpFilter<'a>>,
    /// Upgrades that run a filter list of their own instead.
    pub upgrades: Vec<(Node<'a>, Vec<HttpFilter<'a>>)>,
    /// Its route tables: inline, discovered or scoped.
    pub tables: Vec<Node<'a>>,
    /// Where it names routes that this configuration does not hold.
    pub unseen: Vec<Node<'a>>,
    pub routes: Vec<Route<'a>>,
}

/// An entry of `http_filters`.
#[derive(Debug)]
pub(in super::super) struct HttpFilter<'a> {
    pub node: Node<'a>,
    pub name: &'a str,
    pub message: Option<Message<'a>>,
    pub plugin: Option<Plugin<'a>>,
    /// Our plugin, but inside another filter that may decide not to run it.
    pub is_conditional: bool,
}

impl<'a> Listener<'a> {
    pub fn new(node: &Node<'a>, config: &EnvoyConfig<'a>) -> Self {
        let mut nodes = node.list("filter_chains");
        nodes.extend(node.field("default_filter_chain"));
        let opened = |chain: &Node<'a>| {
            chain.list("filters").iter().filter_map(|filter| filter_message(filter, config)).collect()
        };
        let mut chains: Vec<_> = nodes.into_iter().map(|node| Chain { filters: opened(&node), node }).collect();
        if let Some(api) = node.message("api_listener.api_listener") {
            let node = api.node.clone();
            chains.push(Chain { node, filters: vec![api] });
        }
        Self { node: node.clone(), chains }
    }
}

impl Hcm<'_> {
    /// Whether our gate, or our door, is in it.
    pub fn is_guarded(&self) -> bool {
        self.filters.iter().any(|filter| filter.is_gate() || filter.is_door())
    }

    /// Whether the host of a request is one that a door has let in, in its one spelling: the gate holds it
    /// against that.
    pub fn knows_host(&self) -> bool {
        self.has_door() || self.filters.iter().filter_map(|filter| filter.plugin.as_ref()).any(|it| it.trusts_door)
    }

    /// Whether our door is in it.
    pub fn has_door(&self) -> bool {
        self.filters.iter().any(HttpFilter::is_door)
    }
}

/// The connection managers of a listener.
pub(super) fn found_in<'a>(listener: &Listener<'a>, config: &EnvoyConfig<'a>) -> Vec<Hcm<'a>> {
    let filters = listener.chains.iter().flat_map(|chain| &chain.filters);
    let node = |message: &Message<'a>| match message.kind {
        kind::HCM => Some(message.node.clone()),
        kind::MOBILE_HCM => message.node.field("config"),
        _ => None,
    };
    filters.filter_map(node).map(|node| Hcm::new(node, listener.node.clone(), config)).collect()
}

impl<'a> Hcm<'a> {
    fn new(node: Node<'a>, listener: Node<'a>, config: &EnvoyConfig<'a>) -> Self {
        let filters = opened_filters(&node, "http_filters", config);
        let upgrades = node.list("upgrade_configs").into_iter();
        let upgrades = upgrades.map(|upgrade| (upgrade.clone(), opened_filters(&upgrade, "filters", config)));
        let upgrades = upgrades.filter(|(_, filters)| !filters.is_empty()).collect();
        let (tables, unseen) = tables_of(&node, config);
        let routes = tables.iter().flat_map(|table| Route::all_in(table, &filters)).collect();
        Self { node, listener, filters, upgrades, tables, unseen, routes }
    }
}

impl<'a> HttpFilter<'a> {
    pub fn new(node: Node<'a>, config: &EnvoyConfig<'a>) -> Self {
        let name = node.text("name").unwrap_or_default();
        let message = filter_message(&node, config);
        let direct = message.as_ref().and_then(|message| plugin_of(message, name));
        let wrapped = || message.as_ref().and_then(|message| wrapped_plugin(&message.node, name));
        let is_conditional = direct.is_none();
        let plugin = direct.or_else(wrapped);
        Self { node, name, message, is_conditional: is_conditional && plugin.is_some(), plugin }
    }

    /// Whether it decides. A filter of ours whose role is unknown is taken for a gate: more is
    /// asked of it.
    pub fn is_gate(&self) -> bool {
        self.plugin.as_ref().is_some_and(|plugin| !matches!(plugin.role, Role::Judge | Role::Door))
    }

    /// Whether it lets clients of a forward proxy in.
    pub fn is_door(&self) -> bool {
        self.plugin.as_ref().is_some_and(|plugin| plugin.role == Role::Door)
    }

    pub fn kind(&self) -> &'a str {
        self.message.as_ref().map_or("", |message| message.kind)
    }
}

fn opened_filters<'a>(holder: &Node<'a>, list: &str, config: &EnvoyConfig<'a>) -> Vec<HttpFilter<'a>> {
    holder.list(list).into_iter().map(|filter| HttpFilter::new(filter, config)).collect()
}

fn plugin_of<'a>(message: &Message<'a>, name: &str) -> Option<Plugin<'a>> {
    let is_wasm = message.kind == kind::WASM;
    is_wasm.then(|| message.node.field("config")).flatten().and_then(|plugin| Plugin::recognised(plugin, name))
}

/// Our plugin below a matching or composite filter.
fn wrapped_plugin<'a>(node: &Node<'a>, name: &str) -> Option<Plugin<'a>> {
    let mut found = None;
    node.walk(&mut |node| {
        found = found.take().or_else(|| node.opened().and_then(|message| plugin_of(&message, name)));
        found.is_none()
    });
    found
}

/// The route tables of a connection manager, and the places that name one we cannot see.
fn tables_of<'a>(hcm: &Node<'a>, config: &EnvoyConfig<'a>) -> (Vec<Node<'a>>, Vec<Node<'a>>) {
    let mut tables: Vec<_> = hcm.field("route_config").into_iter().collect();
    let mut unseen = Vec::new();
    let mut named: Vec<_> = hcm.at("rds.route_config_name").into_iter().collect();

    let mut scopes = hcm.list("scoped_routes.scoped_route_configurations_list.scoped_route_configurations");
    if let Some(discovered) = hcm.at("scoped_routes.scoped_rds") {
        match config.scoped_routes.as_slice() {
            [] => unseen.push(discovered),
            all => scopes.extend_from_slice(all),
        }
    }
    for scope in scopes {
        tables.extend(scope.field("route_configuration"));
        named.extend(scope.field("route_configuration_name"));
    }

    for name in named {
        match config.route_tables.iter().find(|table| table.text("name") == name.as_text()) {
            Some(table) => tables.push(table.clone()),
            None => unseen.push(name),
        }
    }
    if !config.is_running {
        unseen.extend(tables.iter().filter_map(|table| table.field("vhds")));
    }
    (tables, unseen)
}
