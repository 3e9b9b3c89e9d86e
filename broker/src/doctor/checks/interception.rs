//! Certificates made on demand: bounded in time, asked for as they are, and their keys seen by nobody else.

use super::super::node::{Node, shown};
use super::super::scene::{Cluster, Scene, Socket, kind};
use super::super::{Check, Symptom};

pub(super) const INTERCEPTION_RESUMPTION: Check = Check {
    id: "interception-resumption",
    purpose: "an intercepted connection is made anew each time",
    attack: "a resumed TLS session skips certificate selection: a denied or rotated name keeps being served",
    fix: "disable_stateless_session_resumption and disable_stateful_session_resumption: true",
    find: |scene| {
        let mut symptoms = Vec::new();
        for on_demand in intercepting(scene) {
            for flag in ["disable_stateless_session_resumption", "disable_stateful_session_resumption"] {
                if !on_demand.tls.flag(flag) {
                    symptoms
                        .push(Symptom::fail(on_demand.tls.would_be(flag), shown(on_demand.tls.field(flag).as_ref())));
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
        let unbounded = intercepting(scene).into_iter().map(|it| it.chain).filter(|chain| !bounded(chain));
        unbounded.map(|chain| Symptom::fail(chain.would_be(TIMEOUT), shown(chain.field(TIMEOUT).as_ref()))).collect()
    },
};

pub(super) const INTERCEPTION_KEY_LOG: Check = Check {
    id: "interception-key-log",
    purpose: "the keys of intercepted connections are written nowhere",
    attack: "with the key log, a recording of the connection shows the placeholder, and everything that is answered",
    fix: "remove key_log from common_tls_context",
    find: |scene| {
        let logs = intercepting(scene).into_iter().filter_map(|it| it.tls.at("common_tls_context.key_log"));
        logs.map(|node| Symptom::fail(node.path(), shown(Some(&node)))).collect()
    },
};

pub(super) const CERTIFICATE_PROTOCOL: Check = Check {
    id: "certificate-protocol",
    purpose: "certificates come over one stream, on which a name can be denied",
    attack: "a stream for each name ends Envoy at the 1,025th; a server that cannot deny a name lets its handshake hang",
    fix: "config_source: {ads: {}}, and dynamic_resources.ads_config.api_type: DELTA_GRPC",
    find: |scene| {
        let mut symptoms = Vec::new();
        for on_demand in intercepting(scene) {
            if on_demand.source.field("ads").is_none() {
                symptoms.push(Symptom::fail(on_demand.source.would_be("ads"), "absent"));
            }
        }
        let kind = ads(scene).map(|ads| (ads.would_be("api_type"), ads.field("api_type")));
        let delta = |kind: &Option<Node<'_>>| kind.as_ref().is_some_and(|kind| kind.names("DELTA_GRPC", 3));
        let other = kind.filter(|(_, kind)| !delta(kind));
        symptoms.extend(other.map(|(path, kind)| Symptom::fail(path, shown(kind.as_ref()))));
        symptoms
    },
};

pub(super) const CERTIFICATE_TRANSPORT: Check = Check {
    id: "certificate-transport",
    purpose: "certificates, with their keys, come over a UNIX socket or mutual TLS",
    attack: "who reads or answers on that connection has the private keys of every intercepted host, or makes them",
    fix: "the cluster that ads_config names: pipe: {path: …} alone, or a TLS transport socket with a certificate of Envoy's own; \
          for the broker, listen.data_plane: unix:PATH, or a mapping with tls",
    find: certificate_transport,
};

fn certificate_transport(scene: &Scene<'_>) -> Vec<Symptom> {
    let Some(ads) = ads(scene) else { return Vec::new() };
    let mut symptoms = Vec::new();
    for service in ads.list("grpc_services") {
        let named = service.text("envoy_grpc.cluster_name").and_then(|name| scene.cluster(name));
        match named {
            None => symptoms.push(Symptom::fail(service.path(), "leads where doctor cannot look")),
            Some(cluster) if !is_private(cluster) => {
                let place = cluster.addresses.first().map_or(cluster.node.path(), |address| address.path());
                symptoms.push(Symptom::fail(place, format!("cluster {:?} is neither", cluster.name)));
            }
            Some(_) => {}
        }
    }
    symptoms
}

/// By a path of this machine, or secured from both sides.
fn is_private(cluster: &Cluster<'_>) -> bool {
    let by_path =
        !cluster.addresses.is_empty() && cluster.addresses.iter().all(|address| address.text("pipe.path").is_some());
    by_path || cluster.sockets().iter().all(|socket| matches!(socket, Socket::Tls(tls) if is_mutual(tls)))
}

/// Whether both sides show a certificate, and verify the other's.
pub(super) fn is_mutual(tls: &Node<'_>) -> bool {
    let shows = ["tls_certificates", "tls_certificate_sds_secret_configs"];
    let shows = shows.iter().any(|list| !tls.list(&format!("common_tls_context.{list}")).is_empty());
    let verifies =
        ["validation_context.trusted_ca", "combined_validation_context", "validation_context_sds_secret_config"];
    shows && verifies.iter().any(|by| tls.at(&format!("common_tls_context.{by}")).is_some())
}

/// Where certificates on demand come from, if any do.
fn ads<'a>(scene: &Scene<'a>) -> Option<Node<'a>> {
    let used = intercepting(scene).iter().any(|on_demand| on_demand.source.field("ads").is_some());
    used.then(|| scene.config.bootstrap.at("dynamic_resources.ads_config")).flatten()
}

/// A filter chain whose certificates are made on demand.
struct OnDemand<'a> {
    chain: Node<'a>,
    tls: Node<'a>,
    /// Where the certificates come from.
    source: Node<'a>,
}

fn intercepting<'a>(scene: &Scene<'a>) -> Vec<OnDemand<'a>> {
    let chains = scene.listeners.iter().flat_map(|listener| &listener.chains);
    let on_demand = chains.filter_map(|chain| {
        let tls = chain.node.message("transport_socket.typed_config")?.node;
        let selector = tls.message("common_tls_context.custom_tls_certificate_selector.typed_config")?;
        let source = selector.node.field("config_source").unwrap_or_else(|| selector.node.clone());
        (selector.kind == kind::ON_DEMAND_SECRET).then(|| OnDemand { chain: chain.node.clone(), tls, source })
    });
    on_demand.collect()
}
