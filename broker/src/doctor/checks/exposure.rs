//! Who can reach what is behind the scenes: Envoy's admin, our broker, the traces.

use std::net::IpAddr;

use super::super::node::{Node, shown};
use super::super::scene::{Cluster, Route, Scene, Socket};
use super::super::{Check, Symptom};
use super::credentials::is_credential_header;
use super::interception::is_mutual;
use super::upstream::names_its_server;

pub(super) const ADMIN_ADDRESS: Check = Check {
    id: "admin-address",
    purpose: "the admin listens on loopback or a UNIX socket",
    attack: "who reaches the admin reads /config_dump, turns on debug logs that print credentials, and stops Envoy",
    fix: "admin.address: 127.0.0.1, ::1 or a pipe with mode 0600; or no admin",
    find: |scene| {
        let address = scene.config.bootstrap.at("admin.address.socket_address.address");
        let exposed = address.filter(|node| !node.as_text().is_some_and(is_loopback));
        exposed.map(|node| Symptom::fail(node.path(), shown(Some(&node)))).into_iter().collect()
    },
};

pub(super) const ADMIN_REACHABLE: Check = Check {
    id: "admin-reachable",
    purpose: "no cluster leads to the admin",
    attack: "a route to the admin gives its callers /config_dump, /logging and /quitquitquit",
    fix: "remove the cluster; scrape stats at the admin's own address",
    find: admin_reachable,
};

fn admin_reachable(scene: &Scene<'_>) -> Vec<Symptom> {
    let Some(admin) = scene.config.bootstrap.at("admin.address") else { return Vec::new() };
    let mut symptoms = Vec::new();
    for cluster in &scene.clusters {
        let Some(address) = cluster.addresses.iter().find(|address| is_same(address, &admin)) else { continue };
        let mut routes = scene
            .hcms
            .iter()
            .flat_map(|hcm| &hcm.routes)
            .filter(|route| route.clusters().contains(&cluster.name))
            .peekable();
        let narrow = routes.peek().is_some() && routes.all(reads_stats_only);
        let found = format!("cluster {:?} leads to the admin", cluster.name);
        symptoms.push(match narrow {
            true => Symptom::warn(address.path(), format!("{found}, for its statistics")),
            false => Symptom::fail(address.path(), found),
        });
    }
    symptoms
}

/// A mesh publishes its sidecars' statistics so; anything wider is the whole admin.
fn reads_stats_only(route: &Route<'_>) -> bool {
    const REWRITES: [&str; 4] = ["prefix_rewrite", "regex_rewrite", "path_rewrite_policy", "path_rewrite"];
    const STATISTICS: [&str; 2] = ["/stats/prometheus", "/ready"];
    let rewritten = |action: &Node<'_>| REWRITES.into_iter().any(|field| action.field(field).is_some());
    let narrow =
        ["match.path", "match.prefix", "match.path_separated_prefix"].into_iter().find_map(|by| route.node.text(by));
    !route.action.as_ref().is_some_and(rewritten) && narrow.is_some_and(|path| STATISTICS.contains(&path))
}

/// Whether two addresses lead to one socket: a path, or a port of one host in whatever words.
fn is_same(one: &Node<'_>, other: &Node<'_>) -> bool {
    if let Some(pipe) = other.text("pipe.path") {
        return one.text("pipe.path") == Some(pipe);
    }
    let port = |node: &Node<'_>| node.number("socket_address.port_value").filter(|port| *port != 0);
    if port(other).is_none() || port(one) != port(other) {
        return false;
    }
    let (Some(host), Some(other_host)) = (one.text("socket_address.address"), other.text("socket_address.address"))
    else {
        return false;
    };
    host == other_host || (is_local(host) && is_local(other_host))
}

fn is_local(host: &str) -> bool {
    is_loopback(host) || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

pub(super) const BROKER_REACHABLE: Check = Check {
    id: "broker-reachable",
    purpose: "no route leads to the broker",
    attack: "the broker's cluster adds the filter's token: whoever is routed there asks for grants, and gets the secrets",
    fix: "remove the route; the filter calls the broker's cluster without one",
    find: broker_reachable,
};

fn broker_reachable(scene: &Scene<'_>) -> Vec<Symptom> {
    let named: Vec<_> = scene.plugins().filter_map(|plugin| plugin.broker_cluster.as_deref()).collect();
    let addresses: Vec<_> =
        named.iter().filter_map(|name| scene.cluster(name)).flat_map(|cluster| &cluster.addresses).collect();
    let same = |address: &Node<'_>| addresses.iter().any(|broker| is_same(address, broker));
    // Istio makes a cluster of its own of each port of a service, whose endpoints come by themselves.
    let of_service = |name: &str| {
        let Some((port, host)) = istios(name) else { return false };
        let is_its = |address: &&Node<'_>| {
            let number = address.number("socket_address.port_value");
            number == Some(port) && address.text("socket_address.address") == Some(host)
        };
        addresses.iter().any(is_its) || named.iter().filter_map(|named| istios(named)).any(|it| it == (port, host))
    };
    let is_broker = |name: &&str| {
        named.contains(name) || of_service(name) || scene.cluster(name).is_some_and(|it| it.addresses.iter().any(same))
    };
    let mut symptoms = Vec::new();
    for route in scene.hcms.iter().flat_map(|hcm| &hcm.routes) {
        if let Some(name) = route.clusters().iter().find(|name| is_broker(name)) {
            symptoms.push(Symptom::fail(route.node.path(), format!("cluster {name:?} leads to the broker")));
        }
    }
    for (place, name) in scene.tcp_targets() {
        if is_broker(&name) {
            symptoms.push(Symptom::fail(place.path(), format!("cluster {name:?} leads to the broker")));
        }
    }
    symptoms
}

/// Port and host of a cluster that Istio has named: `outbound|PORT|SUBSET|HOST`, with `_` in names of SNI.
fn istios(cluster: &str) -> Option<(u64, &str)> {
    let (separator, rest) = match cluster.strip_prefix("outbound|") {
        Some(rest) => ('|', rest),
        None => ('_', cluster.strip_prefix("outbound_.")?),
    };
    let (port, rest) = rest.split_once(separator)?;
    let (_, host) = rest.split_once(separator)?;
    Some((port.trim_end_matches('.').parse().ok()?, host.trim_start_matches('.')))
}

pub(super) const BROKER_TRANSPORT: Check = Check {
    id: "broker-transport",
    purpose: "the broker is on this machine, or is reached by mutual TLS that verifies its name",
    attack: "grants hold secrets: who reads on the way has them, and who answers in the broker's place says what is injected",
    fix: "pipe: {path: …} or a loopback address; over a network a TLS transport socket with a certificate of Envoy's own, \
          who signs for the broker, and the broker's SPIFFE ID in match_typed_subject_alt_names",
    find: broker_transport,
};

fn broker_transport(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut named: Vec<_> = scene.plugins().filter_map(|plugin| plugin.broker_cluster.as_deref()).collect();
    named.sort_unstable();
    named.dedup();
    let mut symptoms = Vec::new();
    for cluster in named.into_iter().filter_map(|name| scene.cluster(name)).filter(|cluster| !is_near(cluster)) {
        for socket in cluster.sockets() {
            let found = match &socket {
                Socket::Tls(tls) if !is_mutual(tls) => "TLS that shows no certificate, or verifies none",
                Socket::Tls(tls) if !names_its_server(tls) => "TLS with whoever its authority has signed for",
                Socket::Tls(_) => continue,
                Socket::Plain(_) => "plain text over a network",
            };
            symptoms.push(Symptom::fail(cluster.node.would_be("transport_socket"), found));
        }
    }
    symptoms
}

fn is_near(cluster: &Cluster<'_>) -> bool {
    let near = |address: &Node<'_>| {
        address.text("pipe.path").is_some() || address.text("socket_address.address").is_some_and(is_loopback)
    };
    !cluster.addresses.is_empty() && cluster.addresses.iter().all(near)
}

pub(super) const TRACE_TAGS: Check = Check {
    id: "trace-tags",
    purpose: "no span carries a credential",
    attack: "the injected header goes to the tracing backend with every span",
    fix: "remove the custom tag",
    find: |scene| {
        let mut symptoms = Vec::new();
        for hcm in scene.guarded() {
            let mut holders: Vec<_> = hcm.node.field("tracing").into_iter().collect();
            holders.extend(hcm.routes.iter().filter_map(|route| route.node.field("tracing")));
            let tags = holders.iter().flat_map(|holder| holder.list("custom_tags"));
            let named = tags.filter_map(|tag| tag.at("request_header.name"));
            let telling = named.filter(|name| name.as_text().is_some_and(is_credential_header));
            symptoms.extend(telling.map(|name| Symptom::fail(name.path(), shown(Some(&name)))));
        }
        symptoms
    },
};
