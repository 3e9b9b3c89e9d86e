//! The route that was decided on is the route that is taken, under the host that was decided on.

use super::super::node::{Node, shown};
use super::super::scene::{Cluster, Hcm, Route, Scene};
use super::super::{Check, Symptom};
use super::credentials::{is_credential_header, is_credential_parameter};
use attache_core::verdict::verdict_prefix;

pub(super) const ROUTE_GUARD: Check = Check {
    id: "route-guard",
    purpose: "a managed route opens only for a verdict that names its cluster",
    attack: "were the gate ever skipped, the route would still forward; and a request may take another route than the one decided on",
    fix: "match.filter_state: [{key: wasm.attache, string_match: {prefix: '{\"cluster\":\"NAME\"'}}] on each managed route, \
          a refusal as the last route",
    find: |scene| scene.guarded().flat_map(|hcm| unguarded(scene, hcm)).collect(),
};

/// A guard is a prefix of the verdict, which names the cluster first.
fn unguarded(scene: &Scene<'_>, hcm: &Hcm<'_>) -> Vec<Symptom> {
    let trusting = hcm.filters.iter().filter_map(|filter| filter.plugin.as_ref()).any(|plugin| plugin.trusts_routes);
    let mut symptoms = Vec::new();
    // Where there is a door, its verdict is what opens a way inside, too.
    let guarded = |route: &&Route<'_>| route.is_managed && (hcm.has_door() || !scene.stays_inside(route));
    for route in hcm.routes.iter().filter(guarded) {
        let Some(guard) = route.guard() else {
            let path = route.node.would_be("match.filter_state");
            symptoms.push(match trusting {
                true => Symptom::fail(path, "absent, though the gate's configuration says guarded: true"),
                false => Symptom::warn(path, "absent: a skipped gate would forward"),
            });
            continue;
        };
        let prefix = guard.text("string_match.prefix").unwrap_or_default();
        let names = |cluster: &&str| prefix.starts_with(&verdict_prefix(cluster));
        // A route that names no cluster is another check's.
        if !matches!(route.clusters().as_slice(), [] | [_] if route.clusters().iter().all(names)) {
            symptoms
                .push(Symptom::fail(guard.would_be("string_match.prefix"), "does not name the route's one cluster"));
        }
    }
    symptoms
}

pub(super) const ROUTE_RESELECTION: Check = Check {
    id: "route-reselection",
    purpose: "no route is chosen by what injection sets",
    attack: "setting a header makes Envoy choose the route again: the request moves to another cluster after the decision",
    fix: "match routes by path, host or filter state; never by a header, cookie or query parameter that carries a credential",
    find: |scene| scene.guarded().flat_map(reselecting).collect(),
};

fn reselecting(hcm: &Hcm<'_>) -> Vec<Symptom> {
    let mut suspects = Vec::new();
    for route in &hcm.routes {
        suspects.extend(route.node.list("match.headers").iter().filter_map(|by| by.field("name")));
        suspects.extend(route.node.at("route.weighted_clusters.header_name"));
    }
    // Match trees and scope keys read headers as well.
    let trees = hcm.tables.iter().flat_map(|table| table.list("virtual_hosts"));
    for tree in trees.filter_map(|host| host.field("matcher")).chain(hcm.node.at("scoped_routes.scope_key_builder")) {
        tree.walk(&mut |node| {
            suspects.extend(node.field("header_name"));
            suspects.extend(node.at("header_value_extractor.name"));
            true
        });
    }
    let by_header = suspects.into_iter().filter(|name| name.as_text().is_some_and(is_credential_header));
    let mut symptoms: Vec<_> = by_header.map(|name| Symptom::fail(name.path(), shown(Some(&name)))).collect();

    for route in &hcm.routes {
        let cookies = route.node.list("match.cookies").into_iter();
        symptoms.extend(cookies.map(|cookie| Symptom::fail(cookie.path(), "a cookie chooses the route")));
        let parameters = route.node.list("match.query_parameters");
        let named = parameters.iter().filter_map(|by| by.field("name"));
        let injected = named.filter(|name| name.as_text().is_some_and(is_credential_parameter));
        symptoms.extend(injected.map(|name| Symptom::fail(name.path(), shown(Some(&name)))));
    }
    symptoms
}

pub(super) const AGENT_CHOSEN_CLUSTER: Check = Check {
    id: "agent-chosen-cluster",
    purpose: "the route names the cluster, not the request",
    attack: "a header of the agent's choice names the cluster that the credential is sent to",
    fix: "cluster: NAME, one route for each destination",
    find: |scene| scene.managed_routes().flat_map(chosen_by_request).collect(),
};

fn chosen_by_request(route: &Route<'_>) -> Vec<Symptom> {
    let Some(action) = &route.action else { return Vec::new() };
    let headers = action.field("cluster_header").into_iter();
    let headers = headers.chain(route.weights().into_iter().filter_map(|entry| entry.field("cluster_header")));
    let mut symptoms: Vec<_> = headers.map(|node| Symptom::fail(node.path(), shown(Some(&node)))).collect();
    for plugin in ["cluster_specifier_plugin", "inline_cluster_specifier_plugin"] {
        let chosen = action.field(plugin);
        symptoms
            .extend(chosen.map(|node| Symptom::warn(node.path(), "a plugin chooses the cluster, unseen by doctor")));
    }
    symptoms
}

pub(super) const AUTHORITY_PINNED: Check = Check {
    id: "authority-pinned",
    purpose: "the upstream is asked for the host that was decided on",
    attack: "api.example.com:443:80 or a port of the agent's choice reaches the upstream's virtual hosts with the credential",
    fix: "host_rewrite_literal on each managed route, or strip_any_host_port: true on the connection manager",
    find: authority_pinned,
};

fn authority_pinned(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for hcm in scene.guarded().filter(|hcm| !hcm.node.flag("strip_any_host_port")) {
        // A tunnel's host is its destination; the inner connection manager answers for it.
        let managed = hcm.routes.iter().filter(|route| route.is_managed && !scene.stays_inside(route));
        let loose = managed.filter(|route| !(is_pinned(route) || hcm.knows_host() && is_any_hosts(scene, route)));
        symptoms.extend(loose.map(|route| {
            let path = route.node.would_be("route.host_rewrite_literal");
            Symptom::fail(path, format!("absent, and no strip_any_host_port at {}", hcm.node.path()))
        }));
    }
    symptoms
}

/// Whether a route is for every host that has no route of its own, to the address that a door has found: which
/// host that is nobody can write down.
fn is_any_hosts(scene: &Scene<'_>, route: &Route<'_>) -> bool {
    let [_, host] = &route.above;
    let any = host.list("domains").iter().any(|domain| domain.as_text() == Some("*"));
    let clusters = route.clusters();
    let vetted = |name: &&str| scene.cluster(name).is_some_and(Cluster::is_original_dst);
    any && !clusters.is_empty() && clusters.iter().all(vetted)
}

fn is_pinned(route: &Route<'_>) -> bool {
    let weights = route.weights();
    let literal = |node: &Node<'_>| node.text("host_rewrite_literal").is_some();
    route.action.as_ref().is_some_and(literal) || (!weights.is_empty() && weights.iter().all(literal))
}

pub(super) const AUTHORITY_REWRITE: Check = Check {
    id: "authority-rewrite",
    purpose: "the agent does not choose the host sent upstream",
    attack: "the host is taken from a header or from the path after the decision: TLS name and virtual host follow it",
    fix: "host_rewrite_literal",
    find: |scene| {
        let actions = scene.managed_routes().filter_map(|route| route.action.as_ref());
        let chosen = actions
            .flat_map(|action| ["host_rewrite_header", "host_rewrite_path_regex"].map(|field| action.field(field)));
        chosen.flatten().map(|node| Symptom::fail(node.path(), shown(Some(&node)))).collect()
    },
};

pub(super) const STATIC_CREDENTIAL: Check = Check {
    id: "static-credential",
    purpose: "only our filter sets a credential",
    attack: "a credential written in a route is sent without a decision or a record, and /config_dump shows it",
    fix: "remove it from request_headers_to_add and declare a credential in attache.yaml",
    find: static_credential,
};

fn static_credential(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for route in scene.managed_routes() {
        let weights = route.weights();
        for level in route.levels().chain(&weights) {
            for added in level.list("request_headers_to_add") {
                let Some(name) = added.text("header.key").filter(|name| is_credential_header(name)) else { continue };
                symptoms.push(Symptom::fail(added.would_be("header.key"), format!("sets {name}")));
            }
        }
    }
    symptoms
}
