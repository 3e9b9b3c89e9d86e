//! A credential leaves only over TLS whose name was verified.

use super::super::node::{Node, shown};
use super::super::scene::{Cluster, Scene, Socket};
use super::super::{Check, Symptom};

pub(super) const UPSTREAM_PLAINTEXT: Check = Check {
    id: "upstream-plaintext",
    purpose: "a managed cluster speaks TLS",
    attack: "whoever is on the way reads the credential",
    fix: "a transport_socket with UpstreamTlsContext; where plain text is meant, plaintext: true on the destination \
          (filter_metadata.attache.plaintext: true on the cluster)",
    find: |scene| {
        let mut symptoms = Vec::new();
        for cluster in outward(scene).filter(|cluster| !cluster.says("plaintext")) {
            for socket in cluster.sockets() {
                let Socket::Plain(written) = socket else { continue };
                let path = written
                    .as_ref()
                    .map_or_else(|| cluster.node.would_be("transport_socket"), |node| node.path().to_owned());
                symptoms.push(Symptom::fail(path, if written.is_some() { "not TLS" } else { "absent" }));
            }
        }
        symptoms
    },
};

pub(super) const UPSTREAM_CA: Check = Check {
    id: "upstream-ca",
    purpose: "the upstream's certificate is verified",
    attack: "TLS in Envoy accepts any certificate by default: whoever answers receives the credential",
    fix: "validation_context with trusted_ca (or system_root_certs, or an SDS validation context), or a pinned verify_certificate_spki",
    find: |scene| in_tls(scene, |_, tls| unverified(tls)),
};

fn unverified(tls: &Node<'_>) -> Vec<Symptom> {
    let contexts = validation_contexts(tls);
    let mut symptoms = Vec::new();
    if !contexts.iter().any(verifies) && !by_sds(tls) {
        let path = tls.would_be("common_tls_context.validation_context.trusted_ca");
        symptoms.push(Symptom::fail(path, "absent"));
    }
    for context in &contexts {
        let untrusted = context.field("trust_chain_verification").filter(|how| how.names("ACCEPT_UNTRUSTED", 1));
        let untrusted = untrusted.filter(|_| !pins_key(context));
        let expired = context.field("allow_expired_certificate").filter(Node::is_true);
        symptoms
            .extend(untrusted.into_iter().chain(expired).map(|node| Symptom::fail(node.path(), shown(Some(&node)))));
    }
    symptoms
}

pub(super) const UPSTREAM_NAME: Check = Check {
    id: "upstream-name",
    purpose: "the upstream's certificate is verified for the host that was decided on",
    attack: "a valid certificate of any other name is accepted: a CA, even with SNI, verifies no name by itself",
    fix: "auto_sni: true and auto_san_validation: true in upstream_http_protocol_options, or a pinned verify_certificate_spki",
    find: |scene| in_tls(scene, unnamed),
};

fn unnamed(cluster: &Cluster<'_>, tls: &Node<'_>) -> Vec<Symptom> {
    const OPTIONS: &str = "upstream_http_protocol_options";
    let contexts = validation_contexts(tls);
    let fixed_name = !cluster.is_dynamic_forward_proxy() && !cluster.is_original_dst();
    if contexts.iter().any(pins_key) || (fixed_name && contexts.iter().any(names_exactly)) {
        return Vec::new();
    }
    // The cluster-level form is the deprecated one, still honoured.
    let holder = cluster.http.as_ref().filter(|http| http.field(OPTIONS).is_some()).unwrap_or(&cluster.node);
    let by_endpoint = fixed_name && tls.flag("auto_host_sni") && tls.flag("auto_sni_san_validation");
    let written = |flag: &str| holder.flag(&format!("{OPTIONS}.{flag}"));

    let mut symptoms = Vec::new();
    let missing = ["auto_sni", "auto_san_validation"].into_iter().find(|flag| !written(flag));
    if let Some(flag) = missing.filter(|_| !by_endpoint) {
        let place = cluster.http.as_ref().unwrap_or(&cluster.node).would_be(&format!("{OPTIONS}.{flag}"));
        symptoms.push(Symptom::fail(place, "not true"));
    }
    let chosen = holder.at(&format!("{OPTIONS}.override_auto_sni_header"));
    symptoms.extend(
        chosen.map(|node| Symptom::fail(node.path(), format!("the agent's header {} is the name", shown(Some(&node))))),
    );
    symptoms
}

pub(super) const UPSTREAM_KEY_LOG: Check = Check {
    id: "upstream-key-log",
    purpose: "TLS keys are written nowhere",
    attack: "with the key log, a recording of the connection shows the credential",
    fix: "remove key_log from common_tls_context",
    find: |scene| {
        in_tls(scene, |_, tls| {
            let log = tls.at("common_tls_context.key_log");
            log.map(|node| Symptom::fail(node.path(), shown(Some(&node)))).into_iter().collect()
        })
    },
};

/// Managed clusters that leave the process. An aggregate only chooses among others, which are
/// managed too.
fn outward<'s, 'a>(scene: &'s Scene<'a>) -> impl Iterator<Item = &'s Cluster<'a>> {
    scene.managed_clusters().filter(|cluster| !cluster.is_internal() && cluster.members().is_empty())
}

fn in_tls(scene: &Scene<'_>, judge: impl Fn(&Cluster<'_>, &Node<'_>) -> Vec<Symptom>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for cluster in outward(scene) {
        for socket in cluster.sockets() {
            let Socket::Tls(tls) = socket else { continue };
            symptoms.extend(judge(cluster, &tls));
        }
    }
    symptoms
}

fn validation_contexts<'a>(tls: &Node<'a>) -> Vec<Node<'a>> {
    const PLACES: [&str; 2] = [
        "common_tls_context.validation_context",
        "common_tls_context.combined_validation_context.default_validation_context",
    ];
    PLACES.into_iter().filter_map(|place| tls.at(place)).collect()
}

/// A validation context that comes over SDS: the server answers for what is in it.
fn by_sds(tls: &Node<'_>) -> bool {
    const PLACES: [&str; 2] = [
        "common_tls_context.validation_context_sds_secret_config",
        "common_tls_context.combined_validation_context.validation_context_sds_secret_config",
    ];
    PLACES.into_iter().any(|place| tls.at(place).is_some())
}

fn verifies(context: &Node<'_>) -> bool {
    const ROOTS: [&str; 4] =
        ["trusted_ca", "system_root_certs", "ca_certificate_provider_instance", "custom_validator_config"];
    pins_key(context) || ROOTS.into_iter().any(|root| context.field(root).is_some())
}

fn pins_key(context: &Node<'_>) -> bool {
    ["verify_certificate_spki", "verify_certificate_hash"].into_iter().any(|pins| !context.list(pins).is_empty())
}

/// Whether TLS is with one server whose name is written out.
pub(super) fn names_its_server(tls: &Node<'_>) -> bool {
    validation_contexts(tls).iter().any(names_exactly)
}

/// Whether the certificate's names are given in full, as a mesh does for a fixed host.
fn names_exactly(context: &Node<'_>) -> bool {
    let mut matchers: Vec<_> =
        context.list("match_typed_subject_alt_names").iter().filter_map(|name| name.field("matcher")).collect();
    matchers.extend(context.list("match_subject_alt_names"));
    !matchers.is_empty() && matchers.iter().all(|matcher| matcher.text("exact").is_some())
}
