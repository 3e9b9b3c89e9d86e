//! A simulation of istiod: listener, routes and clusters of one proxy, made of its manifests.
//!
//! It follows `pilot/pkg/networking/core` (Istio 1.30): routes of VirtualServices are named as they are, retried twice
//! unless they say otherwise; a gateway's listener is named after its pods' port; filters of extensions stand before
//! Istio's own. Endpoints are those of the test, and agents reach the listener without the mesh's TLS.

use std::net::SocketAddr;
use std::path::Path;

use attache_broker::envoy::istio::{AGENTS, EGRESS, Topology};
use serde_json::{Value, json};

use crate::world::Mesh;
use crate::{envoy_filter, mesh, pilot_agent};

/// What surrounds the simulated proxy.
pub struct Surroundings<'a> {
    /// Where a host really is.
    pub door: &'a dyn Fn(&str) -> SocketAddr,
    /// The authorities of "the system".
    pub roots: &'a Path,
    /// The cluster that leads to the broker here, whatever its name.
    pub broker: Value,
    /// Certificates in place of those of Istio's agent: then the cluster is the manifest's own.
    pub mesh: Option<Mesh>,
    /// The module that the manifests' URL leads to.
    pub module: &'a Path,
    /// Where the agent in the pod keeps what it fetched.
    pub dir: &'a Path,
}

/// The bootstrap of the proxy that these manifests are for.
pub fn bootstrap(topology: Topology, manifests: &[Value], around: &Surroundings<'_>) -> Value {
    let mut proxy = Proxy {
        listener: listener(topology),
        routes: routes(topology, manifests),
        clusters: clusters(manifests, around),
        extensions: Vec::new(),
    };
    let order = |manifest: &&Value| manifest["spec"]["priority"].as_i64().unwrap_or_default();
    let mut patching: Vec<&Value> = of_kind(manifests, "EnvoyFilter").collect();
    patching.sort_by_key(order);
    for extension in of_kind(manifests, "TrafficExtension").chain(of_kind(manifests, "WasmPlugin")) {
        mesh::extend(&mut proxy, extension);
    }
    for manifest in patching {
        envoy_filter::apply(&mut proxy, topology, manifest);
    }
    pilot_agent::deliver(&mut proxy, around);
    to_our_broker(&mut proxy, topology, around);
    let routes = std::mem::take(&mut proxy.routes);
    proxy.manager()["route_config"] = routes;
    let Proxy { listener, clusters, .. } = proxy;
    json!({
        "node": {"id": "simulated", "cluster": "simulated"},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    })
}

/// What istiod sends a proxy.
pub struct Proxy {
    pub listener: Value,
    pub routes: Value,
    pub clusters: Vec<Value>,
    /// Extension discovery, by the names of filters.
    pub extensions: Vec<Value>,
}

impl Proxy {
    /// Its connection manager: the last of its network filters.
    pub fn manager(&mut self) -> &mut Value {
        let filters = self.listener["filter_chains"][0]["filters"].as_array_mut().expect("filters");
        &mut filters.last_mut().expect("a connection manager")["typed_config"]
    }

    /// The filters of its connection manager.
    pub fn http_filters(&mut self) -> &mut Vec<Value> {
        self.manager()["http_filters"].as_array_mut().expect("filters")
    }
}

/// The manifests of a kind.
pub fn of_kind<'a>(manifests: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    manifests.iter().filter(move |manifest| manifest["kind"] == kind)
}

/// The cluster that a patch adds, where there is one, and at a gateway the one that Istio makes of the broker's
/// service, which no sidecar is told of: here both lead to the broker of the test, by its UNIX socket and with its
/// token; or by the patch as it is, with certificates from files.
fn to_our_broker(proxy: &mut Proxy, topology: Topology, around: &Surroundings<'_>) {
    let patched = proxy.clusters.iter().position(|cluster| cluster["name"] == "attache_broker");
    if let Some(mesh) = &around.mesh {
        return by_files(&mut proxy.clusters[patched.expect("the patch's cluster")], mesh);
    }
    let patched = patched.map(|at| proxy.clusters.remove(at)["name"].take());
    let service = "outbound|3031||attache-broker.attache.svc.cluster.local";
    let service = (topology == Topology::EgressGateway).then(|| service.into());
    for name in patched.into_iter().chain(service) {
        let mut broker = around.broker.clone();
        broker["load_assignment"]["cluster_name"] = name.clone();
        broker["name"] = name;
        proxy.clusters.push(broker);
    }
}

/// The patch's cluster of the broker, but for what only a cluster and Istio's agent can give it: an address behind the
/// service's name, and secrets by SDS, which are files here. All else stands as it was written: who is demanded, what is
/// offered, which versions.
fn by_files(broker: &mut Value, mesh: &Mesh) {
    let file = |name: &str| json!({"filename": mesh.proxy.join(name)});
    let common = &mut broker["transport_socket"]["typed_config"]["common_tls_context"];
    let sds = common["tls_certificate_sds_secret_configs"][0]["name"].take();
    let roots = common["combined_validation_context"]["validation_context_sds_secret_config"]["name"].take();
    assert_eq!((&sds, &roots), (&json!("default"), &json!("ROOTCA")), "the names by which Istio's agent has them");
    let mut validation = common["combined_validation_context"]["default_validation_context"].take();
    validation["trusted_ca"] = file("ca.crt");
    let members = common.as_object_mut().expect("an object");
    members.remove("tls_certificate_sds_secret_configs");
    members.remove("combined_validation_context");
    common["tls_certificates"] = json!([{"certificate_chain": file("tls.crt"), "private_key": file("tls.key")}]);
    common["validation_context"] = validation;
    let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    let address = broker.pointer_mut(address).expect("an address");
    assert_eq!(*address, json!({"address": "attache-broker.attache.svc.cluster.local", "port_value": 3031}));
    *address = json!({"address": "127.0.0.1", "port_value": mesh.port});
}

fn listener(topology: Topology) -> Value {
    let (name, port, filters) = match topology {
        Topology::EgressGateway => ("0.0.0.0_8443", 8443, "outbound_0.0.0.0_8443"),
        Topology::Sidecar => ("0.0.0.0_80", 80, "outbound_0.0.0.0_80"),
    };
    let http = |name: &str, message: &str| {
        json!({
            "name": format!("envoy.filters.http.{name}"),
            "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{message}")},
        })
    };
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": filters,
        "normalize_path": true,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "use_remote_address": topology == Topology::EgressGateway,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": "0s",
        "access_log": [],
        "http_filters": [
            http("grpc_stats", "grpc_stats.v3.FilterConfig"),
            http("fault", "fault.v3.HTTPFault"),
            http("cors", "cors.v3.Cors"),
            http("router", "router.v3.Router"),
        ],
    });
    json!({
        "name": name,
        // Istio binds 0.0.0.0 and the port of its name.
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "simulated_port": port,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    })
}

fn routes(topology: Topology, manifests: &[Value]) -> Value {
    let (name, gateway) = match topology {
        Topology::EgressGateway => (format!("https.443.https-attache.{EGRESS}.{EGRESS}"), format!("{EGRESS}/{EGRESS}")),
        Topology::Sidecar => ("80".to_owned(), "mesh".to_owned()),
    };
    let mut hosts: Vec<Value> =
        of_kind(manifests, "VirtualService").map(|service| virtual_host(service, &gateway)).collect();
    if topology == Topology::Sidecar {
        // outboundTrafficPolicy: REGISTRY_ONLY.
        assert_eq!(of_kind(manifests, "Sidecar").next().expect("a Sidecar")["metadata"]["namespace"], AGENTS);
        let refused = json!({"match": {"prefix": "/"}, "name": "block_all", "direct_response": {"status": 502}});
        hosts.push(json!({"name": "block_all", "domains": ["*"], "routes": [refused]}));
    }
    json!({"name": name, "virtual_hosts": hosts, "ignore_port_in_host_matching": true})
}

fn virtual_host(service: &Value, gateway: &str) -> Value {
    let host = service["spec"]["hosts"][0].as_str().expect("a host");
    let all = service["spec"]["http"].as_array().expect("routes");
    let taken = all.iter().filter(|route| match route["match"].as_array() {
        Some(matches) => {
            matches.iter().any(|one| one["gateways"].as_array().is_some_and(|all| all.contains(&gateway.into())))
        }
        None => true,
    });
    let routes: Vec<Value> = taken.map(route).collect();
    json!({"name": format!("{host}:80"), "domains": [host], "routes": routes})
}

fn route(written: &Value) -> Value {
    let to = &written["route"][0]["destination"];
    let subset = to["subset"].as_str().unwrap_or_default();
    let cluster = format!("outbound|{}|{subset}|{}", to["port"]["number"], to["host"].as_str().expect("a host"));
    let mut action = json!({"cluster": cluster, "timeout": written.get("timeout").cloned().unwrap_or("0s".into())});
    if written["retries"]["attempts"] != 0 {
        action["retry_policy"] = json!({
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
            "num_retries": 2,
        });
    }
    if let Some(authority) = written["rewrite"]["authority"].as_str() {
        action["host_rewrite_literal"] = authority.into();
    }
    let mut route = json!({"name": written["name"], "match": {"prefix": "/"}, "route": action});
    if let Some(removed) = written.pointer("/headers/request/remove") {
        route["request_headers_to_remove"] = removed.clone();
    }
    route
}

/// A cluster for each port of each ServiceEntry, with the TLS that a DestinationRule says.
fn clusters(manifests: &[Value], around: &Surroundings<'_>) -> Vec<Value> {
    let mut clusters = Vec::new();
    for entry in of_kind(manifests, "ServiceEntry") {
        let host = entry["spec"]["hosts"][0].as_str().expect("a host");
        for port in entry["spec"]["ports"].as_array().expect("ports") {
            let (name, door) = (format!("outbound|{}||{host}", port["number"]), (around.door)(host));
            let address = json!({"address": door.ip().to_string(), "port_value": door.port()});
            let mut cluster = json!({
                "name": name,
                "type": "STATIC",
                "connect_timeout": "10s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": {"socket_address": address}}},
                ]}]},
            });
            if let Some(tls) = mesh::tls(manifests, host, &port["number"], around.roots) {
                cluster["transport_socket"] = tls;
            }
            clusters.push(cluster);
        }
    }
    clusters
}
