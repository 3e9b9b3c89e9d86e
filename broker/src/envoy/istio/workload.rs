//! Who runs there, and what their packets may reach: what a proxy is told holds for those who go by it, a
//! NetworkPolicy for those who do not.

use super::{AGENTS, BROKER_PORT, EGRESS, GATEWAY_PORTS, Topology, object};
use crate::config::Config;
use crate::envoy::stats::LABELS;
use serde_json::{Value, json};

/// Istio's control plane: configuration and certificates.
const ISTIOD_PORT: u16 = 15012;
/// Where a kubelet asks a proxy whether it is ready.
const READY_PORT: u16 = 15021;
/// Addresses that no public host has.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"];

pub(super) fn manifests(topology: Topology, config: &Config) -> Vec<Value> {
    match topology {
        Topology::EgressGateway => vec![
            namespace(EGRESS),
            service_account(),
            service(),
            deployment(),
            mutual_tls(EGRESS),
            callers(),
            gateway_policy(config),
            agents_policy(vec![to(in_namespace(EGRESS, Some(EGRESS)), &[GATEWAY_PORTS.1])]),
        ],
        Topology::Sidecar => vec![
            mutual_tls(AGENTS),
            agents_policy(vec![to(in_namespace("attache", None), &[BROKER_PORT]), outside(config)]),
        ],
    }
}

/// The gateway's own. That of agents is theirs: it is there, and stays.
fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn service_account() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": EGRESS, "namespace": EGRESS},
        "automountServiceAccountToken": false,
    })
}

fn service() -> Value {
    let port = json!({"name": "https-attache", "port": GATEWAY_PORTS.0, "targetPort": GATEWAY_PORTS.1});
    object("v1", "Service", EGRESS, EGRESS, json!({"selector": {"istio": EGRESS}, "ports": [port]}))
}

/// An Envoy of Istio's, by its own template: Istio fills in the image and everything else.
fn deployment() -> Value {
    let labels = json!({"istio": EGRESS, "sidecar.istio.io/inject": "true"});
    let proxy = json!({
        "name": "istio-proxy",
        "image": "auto",
        "ports": [{"name": "https-attache", "containerPort": GATEWAY_PORTS.1}],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
        },
    });
    let template = json!({
        "metadata": {"labels": labels, "annotations": {
            "inject.istio.io/templates": "gateway",
            // Its bootstrap takes the filter's labels out of names.
            "proxy.istio.io/config": format!("extraStatTags: [{}]", LABELS.join(", ")),
        }},
        "spec": {"serviceAccountName": EGRESS, "containers": [proxy]},
    });
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"istio": EGRESS}}, "template": template});
    object("apps/v1", "Deployment", EGRESS, EGRESS, spec)
}

/// Nobody without a certificate of the mesh is heard.
fn mutual_tls(namespace: &str) -> Value {
    object("security.istio.io/v1", "PeerAuthentication", namespace, "default", json!({"mtls": {"mode": "STRICT"}}))
}

/// Whose calls the gateway takes: those of workloads in the agents' namespace.
fn callers() -> Value {
    let spec = json!({
        "selector": {"matchLabels": {"istio": EGRESS}},
        "action": "ALLOW",
        "rules": [{"from": [{"source": {"namespaces": [AGENTS]}}]}],
    });
    object("security.istio.io/v1", "AuthorizationPolicy", EGRESS, EGRESS, spec)
}

fn gateway_policy(config: &Config) -> Value {
    let from_agents = json!({"from": [in_namespace(AGENTS, None)], "ports": ports(&[GATEWAY_PORTS.1])});
    let probes = json!({"ports": ports(&[READY_PORT])});
    let spec = json!({
        "podSelector": {"matchLabels": {"istio": EGRESS}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [from_agents, probes],
        "egress": [dns(), istiod(), to(in_namespace("attache", None), &[BROKER_PORT]), outside(config)],
    });
    object("networking.k8s.io/v1", "NetworkPolicy", EGRESS, EGRESS, spec)
}

/// What agents' pods may reach, besides names and Istio itself.
fn agents_policy(more: Vec<Value>) -> Value {
    let mut egress = vec![dns(), istiod()];
    egress.extend(more);
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress});
    object("networking.k8s.io/v1", "NetworkPolicy", AGENTS, "attache-agents", spec)
}

fn dns() -> Value {
    let ports = ["UDP", "TCP"].map(|protocol| json!({"protocol": protocol, "port": 53}));
    json!({"to": [in_namespace("kube-system", None)], "ports": ports})
}

fn istiod() -> Value {
    to(in_namespace("istio-system", None), &[ISTIOD_PORT])
}

/// The ports of destinations, at public addresses alone unless the config says `private` of one.
fn outside(config: &Config) -> Value {
    let all = || config.credentials.iter().flat_map(|credential| &credential.destinations);
    let mut numbers: Vec<u16> = all().map(|destination| destination.port).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let somewhere = |private: bool| if private { Vec::new() } else { PRIVATE.to_vec() };
    let block = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": somewhere(all().any(|it| it.private))}});
    to(block, &numbers)
}

fn to(peer: Value, numbers: &[u16]) -> Value {
    json!({"to": [peer], "ports": ports(numbers)})
}

fn ports(numbers: &[u16]) -> Vec<Value> {
    numbers.iter().map(|number| json!({"protocol": "TCP", "port": number})).collect()
}

fn in_namespace(name: &str, label: Option<&str>) -> Value {
    let mut peer = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    if let Some(istio) = label {
        crate::envoy::set(&mut peer, "podSelector", json!({"matchLabels": {"istio": istio}}));
    }
    peer
}
