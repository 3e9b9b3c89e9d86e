//! Other ways out of Envoy that a request with a credential could take.

use super::super::node::{Node, shown};
use super::super::scene::{Cluster, Hcm, Scene, kind};
use super::super::{Check, Symptom};
use super::private::uncovered_by;

pub(super) const INTERNAL_REDIRECT: Check = Check {
    id: "internal-redirect",
    purpose: "Envoy follows no redirect itself",
    attack: "an upstream answers 302: Envoy sends the injected header to the host of its choice",
    fix: "remove internal_redirect_policy; the agent follows redirects, and is judged again",
    find: |scene| {
        let written = scene.managed_routes().flat_map(|route| {
            ["internal_redirect_policy", "internal_redirect_action"].map(|field| route.action.as_ref()?.field(field))
        });
        let follows = |node: &Node<'_>| !node.names("PASS_THROUGH_INTERNAL_REDIRECT", 0);
        written.flatten().filter(follows).map(|node| Symptom::fail(node.path(), shown(Some(&node)))).collect()
    },
};

pub(super) const REQUEST_MIRROR: Check = Check {
    id: "request-mirror",
    purpose: "no request is copied",
    attack: "the shadow cluster receives the request with the injected credential",
    fix: "remove request_mirror_policies from the route, its virtual host, its route table and its cluster",
    find: |scene| copies(scene, &["request_mirror_policies"]),
};

pub(super) const RETRY: Check = Check {
    id: "retry",
    purpose: "one decision, one send",
    attack: "a retry or a hedge sends the credential again after its session was revoked; the audit counts one use",
    fix: "remove retry_policy, retry_policy_typed_config and hedge_policy; clients retry, and are judged again",
    find: |scene| copies(scene, &["retry_policy", "retry_policy_typed_config", "hedge_policy"]),
};

/// Settings that may stand on the route's action, on each level above it, or on its cluster.
fn copies(scene: &Scene<'_>, fields: &[&str]) -> Vec<Symptom> {
    let mut places: Vec<Node<'_>> = Vec::new();
    for route in scene.managed_routes() {
        places.extend(route.action.clone());
        places.extend(route.above.iter().rev().cloned());
    }
    places.extend(scene.managed_clusters().filter_map(|cluster| cluster.http.clone()));
    let written = places.iter().flat_map(|place| fields.iter().filter_map(|field| place.field(field)));
    written.map(|node| Symptom::fail(node.path(), shown(Some(&node)))).collect()
}

pub(super) const ORIGINAL_DST_HEADER: Check = Check {
    id: "original-dst-header",
    purpose: "nothing but what was vetted names the address to dial",
    attack: "x-envoy-original-dst-host is never stripped: the agent names the address that receives the credential; \
             metadata and another port lead beside what was vetted, too",
    fix: "remove original_dst_lb_config; pass a vetted address as filter state",
    find: |scene| {
        let mut symptoms = Vec::new();
        for cluster in &scene.clusters {
            cluster.node.walk(&mut |node| {
                let by_header = node.field("use_http_header").filter(Node::is_true);
                let chosen = node.field("original_dst_lb_config");
                let others = ["metadata_key", "upstream_port_override"].map(|field| chosen.as_ref()?.field(field));
                let written = by_header.into_iter().chain(others.into_iter().flatten());
                symptoms.extend(written.map(|node| Symptom::fail(node.path(), shown(Some(&node)))));
                true
            });
        }
        symptoms
    },
};

pub(super) const ORIGINAL_DST_USE: Check = Check {
    id: "original-dst-use",
    purpose: "nothing but a removal names x-envoy-original-dst-host",
    attack: "what sets or matches that header decides where the request goes, outside the decision",
    fix: "remove it; listing it in request_headers_to_remove is right",
    find: |scene| scene.guarded().flat_map(original_dst_uses).collect(),
};

fn original_dst_uses(hcm: &Hcm<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for place in hcm.tables.iter().chain([&hcm.node]) {
        place.walk(&mut |node| {
            let names_it =
                node.as_text().is_some_and(|text| text.to_ascii_lowercase().contains("x-envoy-original-dst-host"));
            if names_it {
                symptoms.push(Symptom::fail(node.path(), "names x-envoy-original-dst-host"));
            }
            let removes =
                |field: &&str| [".request_headers_to_remove", ".requestHeadersToRemove", ".remove"].contains(field);
            let field = node.path().rfind('.').and_then(|at| node.path().get(at..)).unwrap_or_default();
            !removes(&field)
        });
    }
    symptoms
}

pub(super) const PRIVATE_ADDRESSES: Check = Check {
    id: "private-addresses",
    purpose: "a forward proxy reaches no private address",
    attack: "a name of the agent's choice resolves to 127.0.0.1, to cloud metadata or to Envoy's admin",
    fix: "an ORIGINAL_DST cluster fed with an address that the broker has vetted, or a filtering resolver \
          (then say filter_metadata.attache.vetted_resolver: true on the cluster)",
    find: |scene| {
        let dynamic = scene.clusters.iter().filter(|cluster| cluster.is_dynamic_forward_proxy());
        // A door hands on the one address to dial; here Envoy would look for another.
        let behind_a_door = scene.doors().next().is_some();
        let resolved = |cluster: &Cluster<'_>| {
            Symptom::fail(cluster.node.would_be("cluster_type"), "resolves names by itself, though there is a door")
        };
        dynamic.filter_map(|cluster| if behind_a_door { Some(resolved(cluster)) } else { unguarded(cluster) }).collect()
    },
};

fn unguarded(cluster: &Cluster<'_>) -> Option<Symptom> {
    if cluster.says("vetted_resolver") {
        return None;
    }
    let filters = cluster.http.as_ref().map(|http| http.list("http_filters")).unwrap_or_default();
    let guards: Vec<_> = filters
        .iter()
        .filter_map(|filter| filter.message("typed_config"))
        .filter(|any| any.kind == kind::RBAC)
        .collect();
    let path = cluster.node.would_be("cluster_type");
    let denying = guards.iter().filter_map(|guard| guard.node.field("rules"));
    let denying: Vec<_> =
        denying.filter(|rules| rules.field("action").is_some_and(|action| action.names("DENY", 1))).collect();
    if denying.is_empty() {
        return Some(Symptom::fail(path, "no guard against private addresses"));
    }
    match uncovered_by(&denying).as_slice() {
        [] => Some(Symptom::warn(
            path,
            "upstream_rbac looks at the first resolved address only; the next is dialled unseen",
        )),
        open => Some(Symptom::fail(path, format!("the guard leaves {} open", open.join(", ")))),
    }
}

pub(super) const CONNECT: Check = Check {
    id: "connect",
    purpose: "CONNECT leads to interception or nowhere",
    attack: "bytes in a tunnel pass unseen: no decision, no masking, no record of what was asked",
    fix: "remove allow_connect and CONNECT from upgrade_configs; a forward proxy routes CONNECT to an internal listener",
    find: |scene| scene.guarded().flat_map(|hcm| tunnels(scene, hcm)).collect(),
};

fn tunnels(scene: &Scene<'_>, hcm: &Hcm<'_>) -> Vec<Symptom> {
    let (inside, outside): (Vec<_>, Vec<_>) = hcm
        .routes
        .iter()
        .filter(|route| !connects(&route.node, "route.upgrade_configs").is_empty())
        .partition(|route| scene.stays_inside(route));
    let mut places: Vec<_> =
        outside.into_iter().flat_map(|route| connects(&route.node, "route.upgrade_configs")).collect();
    if inside.is_empty() {
        places.extend(connects(&hcm.node, "upgrade_configs"));
        // It lets extended CONNECT in as well, which is how another upgrade comes over HTTP/2.
        let upgrades = hcm.node.list("upgrade_configs");
        let opens = hcm.node.at("http2_protocol_options.allow_connect").filter(Node::is_true);
        places.extend(opens.filter(|_| upgrades.iter().all(|upgrade| !is_on(upgrade) || is_connect(upgrade))));
    }
    const FOUND: &str = "CONNECT, to no internal listener";
    let symptom = if hcm.has_door() { Symptom::fail } else { Symptom::warn };
    places.into_iter().map(|place| symptom(place.path().to_owned(), FOUND.to_owned())).collect()
}

/// The upgrades in a list that let a tunnel through.
fn connects<'a>(holder: &Node<'a>, list: &str) -> Vec<Node<'a>> {
    holder.list(list).into_iter().filter(|upgrade| is_connect(upgrade) && is_on(upgrade)).collect()
}

fn is_connect(upgrade: &Node<'_>) -> bool {
    let tunnels = |name: &str| ["CONNECT", "CONNECT-UDP"].iter().any(|it| it.eq_ignore_ascii_case(name));
    upgrade.text("upgrade_type").is_some_and(tunnels)
}

fn is_on(upgrade: &Node<'_>) -> bool {
    upgrade.field("enabled").is_none_or(|enabled| enabled.is_true())
}
