//! How requests come to the filter and on: hosts, routes, TLS, who is told of them.
//!
//! Agents call `http://HOST`; TLS begins behind the filter. Port 443 is declared as HTTP as well: what an agent has
//! encrypted by itself nobody here could look into, and it goes nowhere.

use super::{AGENT_PORT, AGENTS, BROKER_HOST, BROKER_ID, EGRESS, GATEWAY_PORTS, Topology, Way, object};
use crate::envoy::routes::FORWARDED;
use crate::envoy::set;
use serde_json::{Value, json};

const API: &str = "networking.istio.io/v1";
const GATEWAY_HOST: &str = "attache-egress.attache-egress.svc.cluster.local";
/// What Istio tells of the mesh: nothing for strangers.
const OF_THE_MESH: [&str; 3] = ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-envoy-decorator-operation"];

pub(super) fn manifests(topology: Topology, ways: &[Way<'_>]) -> Vec<Value> {
    let namespace = topology.namespace();
    let mut all = Vec::new();
    if topology == Topology::EgressGateway {
        all.extend([towards_broker(namespace), gateway(), towards_gateway()]);
    }
    all.push(registry_only(topology));
    for way in ways {
        all.push(service_entry(topology, way));
        all.extend(destination_rule(topology, way));
        all.push(virtual_service(topology, way));
    }
    all
}

/// Who the broker is, where no cluster of our own leads to it.
fn towards_broker(namespace: &str) -> Value {
    let tls = json!({"mode": "ISTIO_MUTUAL", "subjectAltNames": [BROKER_ID]});
    let spec = json!({"host": BROKER_HOST, "exportTo": ["."], "trafficPolicy": {"tls": tls}});
    object(API, "DestinationRule", namespace, "attache-broker", spec)
}

/// The gateway's door: mutual TLS within the mesh, so that it knows which workload calls.
fn gateway() -> Value {
    let server = json!({
        "port": {"number": GATEWAY_PORTS.0, "name": "https-attache", "protocol": "HTTPS"},
        "hosts": [format!("{EGRESS}/*")],
        "tls": {"mode": "ISTIO_MUTUAL"},
    });
    object(API, "Gateway", EGRESS, EGRESS, json!({"selector": {"istio": EGRESS}, "servers": [server]}))
}

fn towards_gateway() -> Value {
    let tls = json!({"mode": "ISTIO_MUTUAL", "sni": GATEWAY_HOST});
    let port = json!({"port": {"number": GATEWAY_PORTS.0}, "tls": tls});
    let spec = json!({"host": GATEWAY_HOST, "trafficPolicy": {"portLevelSettings": [port]}});
    object(API, "DestinationRule", EGRESS, EGRESS, spec)
}

/// Sidecars of agents know what is named here, and forward to nothing else. Never the broker: for each service that they
/// know they listen, and put the pod's own certificate around whatever a process of it sends there.
fn registry_only(topology: Topology) -> Value {
    let mut hosts = vec!["./*".to_owned()];
    if topology == Topology::EgressGateway {
        hosts.push(format!("{EGRESS}/*"));
    }
    let spec = json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "egress": [{"hosts": hosts}]});
    object(API, "Sidecar", AGENTS, "default", spec)
}

/// To whom the objects of a destination are shown.
fn export(topology: Topology) -> Value {
    match topology {
        Topology::EgressGateway => json!([".", AGENTS]),
        Topology::Sidecar => json!(["."]),
    }
}

fn service_entry(topology: Topology, way: &Way<'_>) -> Value {
    let mut ports = vec![json!({"number": AGENT_PORT, "name": "http", "protocol": "HTTP"})];
    if way.port != AGENT_PORT {
        ports.push(json!({"number": way.port, "name": "http-tls", "protocol": "HTTP"}));
    }
    let spec = json!({
        "hosts": [way.host],
        "exportTo": export(topology),
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "ports": ports,
    });
    object(API, "ServiceEntry", topology.namespace(), &way.object(), spec)
}

/// TLS to the destination: the name that is asked for is the name that is verified, against the authorities of the
/// system (`caCertificates` names others).
fn destination_rule(topology: Topology, way: &Way<'_>) -> Option<Value> {
    let named = way.named();
    let tls = json!({"mode": "SIMPLE", "sni": named, "subjectAltNames": [named]});
    let port = json!({"port": {"number": way.port}, "tls": tls});
    let mut spec = json!({"host": way.host, "exportTo": ["."]});
    if !way.spec.plaintext {
        set(&mut spec, "trafficPolicy", json!({"portLevelSettings": [port]}));
    }
    if let Some(subset) = &way.subset {
        set(&mut spec, "subsets", json!([{"name": subset}]));
    }
    let says_something = !way.spec.plaintext || way.subset.is_some();
    says_something.then(|| object(API, "DestinationRule", topology.namespace(), &way.object(), spec))
}

/// The routes. None is retried: a request that was sent may have been heard, and a lease taken back meanwhile. None
/// is cut short: a model may think for minutes.
fn virtual_service(topology: Topology, way: &Way<'_>) -> Value {
    let on = |gateway: &str| json!([{"gateways": [gateway]}]);
    let mut last = route(&way.spec.id, destination(&way.host, way.port, way.subset.as_deref()));
    set(&mut last, "rewrite", json!({"authority": way.authority()}));
    let removed: Vec<&str> = FORWARDED.into_iter().chain(OF_THE_MESH).collect();
    set(&mut last, "headers", json!({"request": {"remove": removed}}));
    let mut spec = json!({"hosts": [way.named()], "exportTo": export(topology)});
    let http = match topology {
        Topology::Sidecar => json!([last]),
        Topology::EgressGateway => {
            let gateway = format!("{EGRESS}/{EGRESS}");
            set(&mut spec, "gateways", json!(["mesh", gateway]));
            set(&mut last, "match", on(&gateway));
            let name = format!("to-egress:{}", way.spec.id);
            let mut first = route(&name, destination(GATEWAY_HOST, GATEWAY_PORTS.0, None));
            set(&mut first, "match", on("mesh"));
            json!([first, last])
        }
    };
    set(&mut spec, "http", http);
    object(API, "VirtualService", topology.namespace(), &way.object(), spec)
}

fn route(name: &str, destination: Value) -> Value {
    json!({
        "name": name,
        "route": [{"destination": destination}],
        "timeout": "0s",
        "retries": {"attempts": 0},
    })
}

fn destination(host: &str, port: u16, subset: Option<&str>) -> Value {
    let mut destination = json!({"host": host, "port": {"number": port}});
    if let Some(subset) = subset {
        set(&mut destination, "subset", subset);
    }
    destination
}
