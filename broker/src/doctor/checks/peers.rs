//! Client certificates, which sessions may be bound to.

use super::super::node::{Node, shown};
use super::super::scene::Scene;
use super::super::{Check, Symptom};

pub(super) const CLIENT_CERTIFICATES: Check = Check {
    id: "client-certificates",
    purpose: "a client certificate is verified, on every connection anew",
    attack: "a certificate that was merely accepted, or that a resumed TLS session carries over, names nobody: its \
             session is refused, and whoever loosens the binding instead gives its placeholder to all",
    fix: "no ACCEPT_UNTRUSTED; disable_stateless_session_resumption and disable_stateful_session_resumption: true",
    find: client_certificates,
};

fn client_certificates(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for tls in asking(scene) {
        for context in contexts(&tls) {
            let chain = context.field("trust_chain_verification");
            if chain.as_ref().is_some_and(|chain| chain.names("ACCEPT_UNTRUSTED", 1)) {
                symptoms.push(Symptom::warn(context.would_be("trust_chain_verification"), shown(chain.as_ref())));
            }
        }
        for flag in ["disable_stateless_session_resumption", "disable_stateful_session_resumption"] {
            if !tls.flag(flag) {
                symptoms.push(Symptom::warn(tls.would_be(flag), shown(tls.field(flag).as_ref())));
            }
        }
    }
    symptoms
}

/// TLS contexts of listeners that ask for a client's certificate.
fn asking<'a>(scene: &Scene<'a>) -> Vec<Node<'a>> {
    let chains = scene.listeners.iter().flat_map(|listener| &listener.chains);
    let contexts_of = chains.filter_map(|chain| Some(chain.node.message("transport_socket.typed_config")?.node));
    contexts_of.filter(|tls| tls.flag("require_client_certificate") || !contexts(tls).is_empty()).collect()
}

/// What a TLS context says about certificates of the other side.
fn contexts<'a>(tls: &Node<'a>) -> Vec<Node<'a>> {
    let places = [
        "common_tls_context.validation_context",
        "common_tls_context.combined_validation_context.default_validation_context",
    ];
    places.iter().filter_map(|place| tls.at(place)).collect()
}
