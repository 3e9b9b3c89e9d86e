//! Our filter stands on every way to a managed cluster, and nothing between it and the upstream.

use super::super::node::Node;
use super::super::scene::{Cluster, Hcm, HttpFilter, Role, Scene, kind};
use super::super::{Check, Symptom};

const TAP: &str = "envoy.extensions.filters.http.tap.v3.Tap";

/// Filters that can read, copy or keep a request.
const READERS: [(&str, &str); 8] = [
    ("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "ext_authz"),
    ("envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor", "ext_proc"),
    ("envoy.extensions.filters.http.lua.v3.Lua", "lua"),
    (kind::WASM, "another wasm plugin"),
    ("envoy.extensions.filters.http.golang.v3alpha.Config", "golang"),
    ("envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter", "dynamic_modules"),
    ("envoy.extensions.filters.http.cache.v3.CacheConfig", "a cache that agents share"),
    ("envoy.extensions.filters.http.cache_v2.v3.CacheV2Config", "a cache that agents share"),
];

pub(super) const FILTER_PRESENT: Check = Check {
    id: "filter-present",
    purpose: "our filter is somewhere in this configuration",
    attack: "requests pass with no decision; nothing else here could be checked",
    fix: "start from `attache envoy-config`; our plugin's configuration says \"role\": \"gate\", \"judge\" or \"door\"",
    find: |scene| {
        let path = || scene.config.bootstrap.would_be("static_resources.listeners");
        let absent = scene.guarded().next().is_none();
        absent.then(|| Symptom::fail(path(), "no Attaché filter in any connection manager")).into_iter().collect()
    },
};

pub(super) const FILTER_MISSING: Check = Check {
    id: "filter-missing",
    purpose: "every way to a managed cluster passes our filter",
    attack: "a second listener, an upgrade or a TCP proxy reaches the same upstream with no decision and no record",
    fix: "put the filter first in that connection manager, or remove the route",
    find: |scene| {
        let mut symptoms: Vec<_> =
            scene.hcms.iter().filter(|hcm| !hcm.is_guarded()).flat_map(|hcm| open_routes(scene, hcm)).collect();
        symptoms.extend(scene.guarded().flat_map(bare_upgrades));
        symptoms.extend(tcp_ways(scene));
        symptoms
    },
};

fn open_routes(scene: &Scene<'_>, hcm: &Hcm<'_>) -> Vec<Symptom> {
    let managed = |name: &&str| scene.is_managed(name);
    let open = hcm.routes.iter().filter_map(|route| Some((route, route.clusters().into_iter().find(managed)?)));
    open.map(|(route, cluster)| {
        Symptom::fail(route.node.path(), format!("leads to {cluster:?} with no Attaché filter"))
    })
    .collect()
}

fn bare_upgrades(hcm: &Hcm<'_>) -> Vec<Symptom> {
    let bare = hcm.upgrades.iter().filter(|(_, own)| !own.iter().any(HttpFilter::is_gate));
    bare.map(|(upgrade, _)| Symptom::fail(upgrade.would_be("filters"), "no Attaché gate for this upgrade")).collect()
}

fn tcp_ways(scene: &Scene<'_>) -> Vec<Symptom> {
    // A cluster that dials what it is told is shared: pinned hosts pass through it undecrypted.
    let own = |cluster: &&Cluster<'_>| !cluster.is_dynamic_forward_proxy() && !cluster.is_original_dst();
    let mut symptoms = Vec::new();
    for (place, name) in scene.tcp_targets().into_iter().filter(|(_, name)| scene.is_managed(name)) {
        if scene.cluster(name).as_ref().is_some_and(own) {
            symptoms.push(Symptom::fail(place.path(), format!("TCP to {name:?} with no Attaché filter")));
        }
    }
    symptoms
}

pub(super) const FILTER_DISABLED: Check = Check {
    id: "filter-disabled",
    purpose: "our filter runs on every request of its connection manager",
    attack: "where the filter is off a placeholder or a forged credential goes upstream as it came, unjudged and unrecorded",
    fix: "remove disabled, is_optional and any matcher around our filter; answer other paths with direct_response",
    find: |scene| scene.guarded().flat_map(|hcm| switched_off(scene, hcm)).collect(),
};

fn switched_off(scene: &Scene<'_>, hcm: &Hcm<'_>) -> Vec<Symptom> {
    // A body that no judge has read is refused by the gate where a rule needs it; a gate is needed always.
    let mut symptoms = Vec::new();
    for filter in hcm.filters.iter().filter(|filter| filter.is_gate() || filter.is_door()) {
        let optional = filter.node.field("is_optional").filter(Node::is_true);
        symptoms
            .extend(optional.map(|node| Symptom::fail(node.path(), "an Envoy without wasm drops the filter silently")));
        if filter.is_conditional {
            symptoms.push(Symptom::fail(filter.node.path(), "another filter decides whether ours runs"));
        }
    }
    for route in hcm.routes.iter().filter(|route| route.action.is_some() && !route.is_managed) {
        let Some(off) = route.deciding(&hcm.filters).find_map(|filter| route.switched_off(filter)) else { continue };
        let found = format!("off for {}", route.node.path());
        let shut = route.guard().is_some() && !route.clusters().iter().any(|name| scene.is_managed(name));
        symptoms.push(match shut {
            true => Symptom::warn(off.path(), format!("{found}, which opens for a verdict only")),
            false => Symptom::fail(off.path(), found),
        });
    }
    symptoms
}

pub(super) const FILTER_ORDER: Check = Check {
    id: "filter-order",
    purpose: "nothing that reads requests stands after our filter",
    attack: "a filter behind ours, or in the cluster, reads the injected credential and may send it on",
    fix: "move it before our filter, where it sees the placeholder",
    find: |scene| {
        let mut symptoms: Vec<_> = scene.guarded().flat_map(readers_behind).collect();
        for cluster in scene.managed_clusters() {
            let upstream = cluster.http.as_ref().map(|http| http.list("http_filters")).unwrap_or_default();
            symptoms.extend(
                upstream
                    .into_iter()
                    .map(|node| HttpFilter::new(node, scene.config))
                    .filter_map(|filter| reader(&filter)),
            );
        }
        symptoms
    },
};

fn readers_behind(hcm: &Hcm<'_>) -> Vec<Symptom> {
    hcm.filters.iter().skip_while(|filter| !filter.is_gate()).filter_map(reader).collect()
}

fn reader(filter: &HttpFilter<'_>) -> Option<Symptom> {
    if filter.plugin.is_some() {
        return None;
    }
    // It is there to write down what it sees.
    if filter.kind() == TAP {
        return Some(Symptom::fail(filter.node.path(), "tap writes the credential down"));
    }
    let (_, name) = READERS.iter().find(|(kind, _)| *kind == filter.kind())?;
    Some(Symptom::warn(filter.node.path(), format!("{name} sees the credential")))
}

pub(super) const JUDGE_FIRST: Check = Check {
    id: "judge-first",
    purpose: "the judge stands before the gate",
    attack: "behind the gate the judge holds a request that already carries the credential, and the gate never hears its word",
    fix: "put the judge before the gate in http_filters",
    find: |scene| {
        let mut symptoms = Vec::new();
        for hcm in scene.guarded() {
            let behind = hcm.filters.iter().skip_while(|filter| !filter.is_gate());
            let judges =
                behind.filter(|filter| filter.plugin.as_ref().is_some_and(|plugin| plugin.role == Role::Judge));
            symptoms.extend(judges.map(|filter| Symptom::fail(filter.node.path(), "a judge behind the gate")));
        }
        symptoms
    },
};

pub(super) const RESOURCES_VISIBLE: Check = Check {
    id: "resources-visible",
    purpose: "doctor sees everything that serves",
    attack: "what a control plane sends later is not in this file: none of these checks saw it",
    fix: "examine the running Envoy as well: attache doctor --envoy-admin URL",
    find: resources_visible,
};

fn resources_visible(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut unseen: Vec<(String, &str)> = Vec::new();
    if !scene.config.is_running {
        for (field, what) in [("lds_config", "listeners are discovered"), ("cds_config", "clusters are discovered")] {
            let place = scene.config.bootstrap.at(&format!("dynamic_resources.{field}"));
            unseen.extend(place.map(|node| (node.path().to_owned(), what)));
        }
    }
    for hcm in &scene.hcms {
        unseen.extend(hcm.unseen.iter().map(|node| (node.path().to_owned(), "routes that are not here")));
        let undiscovered = hcm
            .filters
            .iter()
            .filter(|filter| filter.message.is_none())
            .filter_map(|filter| filter.node.field("config_discovery"));
        unseen.extend(undiscovered.map(|node| (node.path().to_owned(), "a filter that is not here")));
    }
    for route in scene.managed_routes() {
        let missing = |name: &&str| scene.cluster(name).is_none();
        if route.clusters().iter().any(missing) {
            unseen.push((route.node.would_be("route.cluster"), "a cluster that is not here"));
        }
    }
    unseen.into_iter().map(|(path, what)| Symptom::warn(path, what)).collect()
}

pub(super) const ONE_SPELLING: Check = Check {
    id: "one-spelling",
    purpose: "each setting is written once",
    attack: "fail_open beside failOpen: the reviewer reads one, Envoy takes the other",
    fix: "keep one of the two spellings",
    find: |scene| {
        let mut symptoms = Vec::new();
        scene.config.root.walk(&mut |node| {
            let twice = node.spelled_twice();
            symptoms
                .extend(twice.map(|name| Symptom::fail(node.would_be(name), "written in snake_case and in camelCase")));
            true
        });
        symptoms
    },
};
