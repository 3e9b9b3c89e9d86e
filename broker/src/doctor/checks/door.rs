//! The forward proxy's inner hop: only who was let in by the door comes there, and an identity stays with
//! its own connection.

use super::super::node::{Message, Node, shown};
use super::super::scene::{Hcm, HttpFilter, Role, Scene, kind};
use super::super::{Check, Symptom};
use crate::envoy::filter_state;
use attache_core::door::{ADDRESS_STATE, HOST_STATE, INSIDE_STATE};

const POOL: &str = "connection_pool_per_downstream_connection";

pub(super) const TUNNEL_POOL: Check = Check {
    id: "tunnel-pool",
    purpose: "an internal connection serves one agent",
    attack: "an aborted CONNECT leaves an idle internal connection: the next agent inherits it, with the first one's identity",
    fix: "connection_pool_per_downstream_connection: true on clusters that lead to an internal listener",
    find: |scene| {
        let shared = scene.internal_clusters().filter(|cluster| !cluster.node.flag(POOL));
        shared
            .map(|cluster| Symptom::fail(cluster.node.would_be(POOL), shown(cluster.node.field(POOL).as_ref())))
            .collect()
    },
};

pub(super) const TUNNEL_IDENTITY: Check = Check {
    id: "tunnel-identity",
    purpose: "an identity handed to the inner hop is part of the connection's key, and goes no further",
    attack: "plain strings do not separate connection pools: two agents share one internal connection and one \
             identity; shared on, an identity reaches connections that nobody decided about",
    fix: "factory_key: envoy.hashable_string, shared_with_upstream: ONCE; on an Envoy without that factory, codec_type: HTTP1",
    find: |scene| scene.guarded().flat_map(|hcm| identities(scene, hcm)).collect(),
};

fn identities(scene: &Scene<'_>, hcm: &Hcm<'_>) -> Vec<Symptom> {
    // Over HTTP/1.1 a connection is one tunnel's; with a pool for each, nothing is left to share.
    let one_tunnel = hcm.node.field("codec_type").is_some_and(|codec| codec.names("HTTP1", 1));
    let alone = one_tunnel && scene.internal_clusters().all(|cluster| cluster.node.flag(POOL));
    let mut symptoms = Vec::new();
    for value in handed_on(hcm) {
        let key = value.field("factory_key");
        // Without a factory, the key itself names a typed object of Envoy's.
        if key.as_ref().is_some_and(|key| key.as_text() == Some("envoy.string")) {
            let path = value.would_be("factory_key");
            symptoms.push(match alone {
                true => Symptom::warn(path, "\"envoy.string\": clients are kept apart by their connections alone"),
                false => Symptom::fail(path, shown(key.as_ref())),
            });
        }
        let sharing = value.field("shared_with_upstream");
        if sharing.as_ref().is_some_and(|sharing| !sharing.names("ONCE", 1)) {
            symptoms.push(Symptom::fail(value.would_be("shared_with_upstream"), shown(sharing.as_ref())));
        }
    }
    symptoms
}

/// The values that a connection manager sets.
fn set_by<'a>(hcm: &Hcm<'a>) -> impl Iterator<Item = Node<'a>> {
    let setters = hcm.filters.iter().filter(|filter| filter.kind() == kind::SET_FILTER_STATE);
    setters.flat_map(|filter| &filter.message).flat_map(|message| message.node.list("on_request_headers"))
}

/// Of these, those that it shares with the connections it opens.
fn handed_on<'a>(hcm: &Hcm<'a>) -> impl Iterator<Item = Node<'a>> {
    set_by(hcm).filter(is_shared)
}

fn is_shared(value: &Node<'_>) -> bool {
    value.field("shared_with_upstream").is_some_and(|shared| !shared.names("NONE", 0))
}

/// Of these, those that a door hands on, or that Envoy or our filter reads where they are set.
fn meaningful<'a>(hcm: &Hcm<'a>) -> impl Iterator<Item = Node<'a>> {
    let is_read = |value: &Node<'_>| {
        let read = |key: &str| ["envoy.", "attache.", "wasm.attache"].iter().any(|known| key.starts_with(known));
        // Without a factory, the key itself names a typed object of Envoy's.
        value.field("factory_key").is_none() || value.text("object_key").is_none_or(read)
    };
    let hands_on = hcm.has_door();
    set_by(hcm).filter(move |value| (hands_on && is_shared(value)) || is_read(value))
}

pub(super) const TUNNEL_NAME: Check = Check {
    id: "tunnel-name",
    purpose: "a tunnel that nobody looks into goes to the host that it was granted for",
    attack: "a granted CONNECT to one host carries a TLS handshake that names another at the same address: what was let \
             through is not what is spoken to",
    fix: "envoy.filters.network.rbac before tcp_proxy, with the condition requested_server_name == \
          filter_state['attache.host'], as `attache envoy-config` writes it",
    find: |scene| {
        let inside = scene.listeners.iter().filter(|listener| listener.node.field("internal_listener").is_some());
        let opaque = inside.flat_map(|listener| &listener.chains).filter(|chain| {
            let before = chain.filters.iter().take_while(|filter| filter.kind != kind::TCP_PROXY).count();
            let rules = |filter: &Message<'_>| {
                let rules = filter
                    .node
                    .field("rules")
                    .filter(|rules| rules.field("action").is_none_or(|action| action.names("ALLOW", 0)));
                filter.kind == kind::NETWORK_RBAC && (rules.is_some() || filter.node.field("matcher").is_some())
            };
            before < chain.filters.len() && !chain.filters.iter().take(before).any(rules)
        });
        let doors = scene.doors().next().is_some();
        opaque
            .filter(|_| doors)
            .map(|chain| Symptom::fail(chain.node.would_be("filters"), "tcp_proxy without a guard"))
            .collect()
    },
};

pub(super) const TUNNEL_SOURCE: Check = Check {
    id: "tunnel-source",
    purpose: "what is handed on behind a door is what the door has found",
    attack: "what a request says becomes its identity behind the door, the address that Envoy dials, or the name it \
             verifies there",
    fix: "format_string: %FILTER_STATE(wasm.attache_inside:PLAIN)% and so on, as `attache envoy-config` writes it",
    find: |scene| {
        let found_by_door = |text: &str| {
            let key = text.strip_prefix("%FILTER_STATE(").and_then(|rest| rest.strip_suffix(":PLAIN)%"));
            key.is_some_and(|key| {
                [INSIDE_STATE, HOST_STATE, ADDRESS_STATE].map(filter_state).iter().any(|of_door| of_door == key)
            })
        };
        let values = scene.guarded().flat_map(meaningful);
        let others = values
            .filter(|value| !value.text("format_string.text_format_source.inline_string").is_some_and(found_by_door));
        others.map(|value| Symptom::fail(value.would_be("format_string"), "not what the door has found")).collect()
    },
};

pub(super) const DOOR_FIRST: Check = Check {
    id: "door-first",
    purpose: "the door stands before everything that uses what it finds, and before the router",
    attack: "behind them the door is too late: the verdict of nobody is handed on, and Proxy-Authorization, which the \
             door takes out, goes upstream with the session's token in it",
    fix: "the door first in http_filters; then set_filter_state, judge, gate, router",
    find: |scene| {
        let early = |filter: &&HttpFilter<'_>| {
            let ours = filter.plugin.as_ref().map(|plugin| plugin.role);
            matches!(ours, Some(Role::Gate | Role::Judge))
                || [kind::SET_FILTER_STATE, kind::ROUTER].contains(&filter.kind())
        };
        let before = |hcm: &'_ Hcm<'_>| -> Vec<Symptom> {
            let before = hcm.filters.iter().take_while(|filter| !filter.is_door()).filter(early);
            before.map(|filter| Symptom::fail(filter.node.path(), "before the door")).collect()
        };
        scene.doors().flat_map(before).collect()
    },
};

pub(super) const BEHIND_THE_DOOR: Check = Check {
    id: "behind-the-door",
    purpose: "a listener behind the door is reached through the door alone",
    attack: "who comes by another way was let in by nobody: no session, no vetted address, no record",
    fix: "only CONNECT routes with the door on lead to clusters with an envoy_internal_address; listeners behind the \
          door say internal_listener: {} and have no address",
    find: behind_the_door,
};

fn behind_the_door(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for hcm in &scene.hcms {
        let trusting = hcm.filters.iter().filter_map(|filter| filter.plugin.as_ref()).any(|plugin| plugin.trusts_door);
        if trusting && hcm.listener.field("internal_listener").is_none() {
            let path = hcm.listener.would_be("internal_listener");
            symptoms.push(Symptom::fail(path, "absent, though its gate believes what a door has found"));
        }
    }
    if scene.doors().next().is_none() {
        return symptoms;
    }
    let inside: Vec<&str> = scene.internal_clusters().map(|cluster| cluster.name).collect();
    for hcm in &scene.hcms {
        let by_door = |route: &super::super::scene::Route<'_>| hcm.has_door() && route.is_managed && route.is_tunnel();
        let open = hcm.routes.iter().filter(|route| route.clusters().iter().any(|name| inside.contains(name)));
        let open = open.filter(|route| !by_door(route));
        symptoms
            .extend(open.map(|route| Symptom::fail(route.node.path(), "leads behind the door, and not through it")));
    }
    let tcp = scene.tcp_targets().into_iter().filter(|(_, name)| inside.contains(name));
    symptoms.extend(tcp.map(|(place, _)| Symptom::fail(place.path(), "TCP leads behind the door, and not through it")));
    symptoms
}
