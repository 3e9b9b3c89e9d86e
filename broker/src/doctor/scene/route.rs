//! A route, with the levels it inherits from.

use super::super::node::Node;
use super::{HttpFilter, kind};
use crate::envoy::filter_state;
use attache_core::verdict::VERDICT_STATE;

/// One route of a connection manager.
#[derive(Debug)]
pub(in super::super) struct Route<'a> {
    /// `envoy.config.route.v3.Route`.
    pub node: Node<'a>,
    /// Its `route`, when it forwards; redirects and direct responses have none.
    pub action: Option<Node<'a>>,
    /// What it stands in, outermost first: route table, virtual host.
    pub above: [Node<'a>; 2],
    /// Forwards with all on that decides about it: our gate, the door of a forward proxy.
    pub is_managed: bool,
}

impl<'a> Route<'a> {
    /// All routes of one table: listed, and in the match trees of its virtual hosts.
    pub fn all_in(table: &Node<'a>, filters: &[HttpFilter<'a>]) -> Vec<Self> {
        let mut routes = Vec::new();
        for host in table.list("virtual_hosts") {
            let mut nodes = host.list("routes");
            nodes.extend(host.field("matcher").iter().flat_map(in_match_tree));
            routes.extend(nodes.into_iter().map(|node| Self::new(node, [table.clone(), host.clone()], filters)));
        }
        routes
    }

    fn new(node: Node<'a>, above: [Node<'a>; 2], filters: &[HttpFilter<'a>]) -> Self {
        let action = node.field("route");
        let mut route = Self { node, action, above, is_managed: false };
        let mut needed = route.deciding(filters).peekable();
        let decided = needed.peek().is_some() && needed.all(|filter| route.switched_off(filter).is_none());
        drop(needed);
        route.is_managed = route.action.is_some() && decided;
        route
    }

    /// The entries of a weighted route.
    pub fn weights(&self) -> Vec<Node<'a>> {
        self.action.as_ref().map(|action| action.list("weighted_clusters.clusters")).unwrap_or_default()
    }

    /// The clusters it names.
    pub fn clusters(&self) -> Vec<&'a str> {
        let named = self.action.as_ref().and_then(|action| action.text("cluster"));
        named.into_iter().chain(self.weights().iter().filter_map(|entry| entry.text("name"))).collect()
    }

    /// The matcher that opens this route for a verdict of the gate only.
    pub fn guard(&self) -> Option<Node<'a>> {
        let is_verdict = |state: &Node<'_>| state.text("key") == Some(&filter_state(VERDICT_STATE));
        self.node.list("match.filter_state").into_iter().find(is_verdict)
    }

    /// Every level whose settings reach this route, outermost first.
    pub fn levels(&self) -> impl Iterator<Item = &Node<'a>> {
        self.above.iter().chain([&self.node])
    }

    /// The filters of ours that must be on for this route: the gate, and the door where there is one. What a
    /// tunnel carries is decided behind the door, so a gate beside it is off. One inside another filter counts:
    /// that it may be skipped is told once, and all else is still checked.
    pub fn deciding<'f>(
        &self,
        filters: &'f [HttpFilter<'a>],
    ) -> impl Iterator<Item = &'f HttpFilter<'a>> + use<'f, 'a> {
        let by_door = self.is_tunnel() && filters.iter().any(HttpFilter::is_door);
        filters.iter().filter(move |filter| filter.is_door() || (filter.is_gate() && !by_door))
    }

    /// Whether it takes `CONNECT`.
    pub fn is_tunnel(&self) -> bool {
        self.node.at("match.connect_matcher").is_some()
    }

    /// Where this filter is switched off for the route. The most specific level decides; one that
    /// carries a configuration switches the filter on.
    pub fn switched_off(&self, filter: &HttpFilter<'a>) -> Option<Node<'a>> {
        if let Some(off) = self.weights().iter().find_map(|entry| override_at(entry, filter).and_then(off_switch)) {
            return Some(off);
        }
        let levels = [&self.node].into_iter().chain(self.above.iter().rev());
        match levels.into_iter().find_map(|level| override_at(level, filter)) {
            Some(decisive) => off_switch(decisive),
            None => filter.node.field("disabled").filter(Node::is_true),
        }
    }
}

fn override_at<'a>(level: &Node<'a>, filter: &HttpFilter<'a>) -> Option<Node<'a>> {
    level
        .field("typed_per_filter_config")?
        .entries()
        .into_iter()
        .find(|(name, _)| *name == filter.name)
        .map(|(_, node)| node)
}

fn off_switch(decisive: Node<'_>) -> Option<Node<'_>> {
    let config = decisive.opened().filter(|any| any.kind == kind::FILTER_CONFIG)?;
    config.node.field("disabled").filter(Node::is_true)
}

fn in_match_tree<'a>(matcher: &Node<'a>) -> Vec<Node<'a>> {
    let mut routes = Vec::new();
    matcher.walk(&mut |node| {
        match node.opened() {
            Some(any) if any.kind == kind::ROUTE => routes.push(any.node),
            Some(any) if any.kind == kind::ROUTE_LIST => routes.extend(any.node.list("routes")),
            _ => return true,
        }
        false
    });
    routes
}
