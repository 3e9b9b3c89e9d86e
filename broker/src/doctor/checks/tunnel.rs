//! The forward proxy's inner hop: an identity stays with its own connection, and certificates made
//! on demand are bounded in time.

use super::super::node::{Node, shown};
use super::super::scene::{Scene, kind};
use super::super::{Check, Symptom};

pub(super) const TUNNEL_POOL: Check = Check {
    id: "tunnel-pool",
    purpose: "an internal connection serves one agent",
    attack: "an aborted CONNECT leaves an idle internal connection: the next agent inherits it, with the first one's identity",
    fix: "connection_pool_per_downstream_connection: true on clusters that lead to an internal listener",
    find: |scene| {
        const POOL: &str = "connection_pool_per_downstream_connection";
        let shared = scene.managed_clusters().filter(|cluster| cluster.is_internal() && !cluster.node.flag(POOL));
        shared
            .map(|cluster| Symptom::fail(cluster.node.would_be(POOL), shown(cluster.node.field(POOL).as_ref())))
            .collect()
    },
};

pub(super) const TUNNEL_IDENTITY: Check = Check {
    id: "tunnel-identity",
    purpose: "an identity handed to the inner hop is part of the connection's key",
    attack: "plain strings do not separate connection pools: two agents share one internal connection and one identity",
    fix: "factory_key: envoy.hashable_string",
    find: tunnel_identity,
};

fn tunnel_identity(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for filter in scene.guarded().flat_map(|hcm| &hcm.filters).filter(|filter| filter.kind() == kind::SET_FILTER_STATE)
    {
        let values = filter.message.iter().flat_map(|message| message.node.list("on_request_headers"));
        for value in values {
            let shared = value.field("shared_with_upstream").is_some_and(|shared| !shared.names("NONE", 0));
            let key = value.field("factory_key");
            // Without a factory, the key itself names a typed object of Envoy's.
            let plain = key.as_ref().is_some_and(|key| key.as_text() == Some("envoy.string"));
            if shared && plain {
                symptoms.push(Symptom::fail(value.would_be("factory_key"), shown(key.as_ref())));
            }
        }
    }
    symptoms
}

pub(super) const INTERCEPTION_RESUMPTION: Check = Check {
    id: "interception-resumption",
    purpose: "an intercepted connection is made anew each time",
    attack: "a resumed TLS session skips certificate selection: a denied or rotated name keeps being served",
    fix: "disable_stateless_session_resumption and disable_stateful_session_resumption: true",
    find: |scene| {
        let mut symptoms = Vec::new();
        for (_, tls) in intercepting(scene) {
            for flag in ["disable_stateless_session_resumption", "disable_stateful_session_resumption"] {
                if !tls.flag(flag) {
                    symptoms.push(Symptom::fail(tls.would_be(flag), shown(tls.field(flag).as_ref())));
                }
            }
        }
        symptoms
    },
};

pub(super) const INTERCEPTION_TIMEOUT: Check = Check {
    id: "interception-timeout",
    purpose: "a handshake that waits for a certificate ends",
    attack: "a certificate server that is silent hangs every handshake, and with it every connection",
    fix: "transport_socket_connect_timeout: 5s on the filter chain",
    find: |scene| {
        const TIMEOUT: &str = "transport_socket_connect_timeout";
        let bounded = |chain: &Node<'_>| {
            chain.field(TIMEOUT).and_then(|node| node.as_seconds()).is_some_and(|seconds| seconds > 0.0)
        };
        let unbounded = intercepting(scene).into_iter().filter(|(chain, _)| !bounded(chain));
        unbounded
            .map(|(chain, _)| Symptom::fail(chain.would_be(TIMEOUT), shown(chain.field(TIMEOUT).as_ref())))
            .collect()
    },
};

/// Filter chains whose certificates are made on demand, and their TLS contexts.
fn intercepting<'a>(scene: &Scene<'a>) -> Vec<(Node<'a>, Node<'a>)> {
    let chains = scene.listeners.iter().flat_map(|listener| &listener.chains);
    let secured = chains
        .filter_map(|chain| Some((chain.node.clone(), chain.node.message("transport_socket.typed_config")?.node)));
    let on_demand = |tls: &Node<'_>| {
        tls.message("common_tls_context.custom_tls_certificate_selector.typed_config")
            .is_some_and(|any| any.kind == kind::ON_DEMAND_SECRET)
    };
    secured.filter(|(_, tls)| on_demand(tls)).collect()
}
