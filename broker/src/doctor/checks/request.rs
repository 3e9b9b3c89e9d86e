//! What a request may look like when our filter sees it. The settings stand on each connection
//! manager that has the filter.

use super::super::node::{Node, shown};
use super::super::scene::Scene;
use super::super::{Check, Symptom};

pub(super) const USE_REMOTE_ADDRESS: Check = Check {
    id: "use-remote-address",
    purpose: "the source address is the connection's, not a header's",
    attack: "an agent forges x-forwarded-for and with it a session's source binding; edge sanitising is off",
    fix: "use_remote_address: true; xff_num_trusted_hops only for proxies that you run in front",
    find: use_remote_address,
};

fn use_remote_address(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut symptoms = demanded(scene, "use_remote_address", |node| node.is_true());
    for hcm in scene.guarded() {
        let hops = hcm.node.field("xff_num_trusted_hops");
        if hops.is_some() && hcm.node.number("xff_num_trusted_hops") != Some(0) {
            let found = format!("{} hops of x-forwarded-for are believed", shown(hops.as_ref()));
            symptoms.push(Symptom::warn(hcm.node.would_be("xff_num_trusted_hops"), found));
        }
    }
    symptoms
}

pub(super) const INTERNAL_ADDRESSES: Check = Check {
    id: "internal-addresses",
    purpose: "no caller counts as internal",
    // Measured: with 127.0.0.0/8 internal, two x-envoy-* headers made three sends of one request.
    attack: "an internal caller keeps its x-envoy-* headers: x-envoy-retry-on resends a credential past a revocation, \
             x-envoy-upstream-rq-timeout-ms and x-envoy-hedge-on-per-try-timeout change its way",
    fix: "internal_address_config without unix_sockets, its cidr_ranges outside the agents' network",
    find: |scene| {
        let mut symptoms = Vec::new();
        for hcm in scene.guarded() {
            for field in ["internal_address_config.cidr_ranges", "internal_address_config.unix_sockets"] {
                let set = hcm.node.at(field).filter(|node| node.is_true() || !node.items().is_empty());
                symptoms.extend(set.map(|node| Symptom::warn(node.path(), shown(Some(&node)))));
            }
        }
        symptoms
    },
};

pub(super) const NORMALIZE_PATH: Check = Check {
    id: "normalize-path",
    purpose: "dot segments are resolved before anyone matches a path",
    attack: "/allowed/../admin and %2e%2e are matched as one path and served as another",
    fix: "normalize_path: true",
    find: |scene| demanded(scene, "normalize_path", |node| node.is_true()),
};

pub(super) const MERGE_SLASHES: Check = Check {
    id: "merge-slashes",
    purpose: "adjacent slashes are one before anyone matches a path",
    attack: "//admin escapes a prefix rule that the upstream then applies to /admin",
    fix: "merge_slashes: true",
    find: |scene| demanded(scene, "merge_slashes", |node| node.is_true()),
};

pub(super) const ESCAPED_SLASHES: Check = Check {
    id: "escaped-slashes",
    purpose: "a path with %2f or %5c is refused",
    attack: "/allowed%2f..%2fadmin passes a prefix rule; the upstream decodes it to another path",
    fix: "path_with_escaped_slashes_action: REJECT_REQUEST",
    find: |scene| demanded(scene, "path_with_escaped_slashes_action", |action| action.names("REJECT_REQUEST", 2)),
};

pub(super) const UNDERSCORE_HEADERS: Check = Check {
    id: "underscore-headers",
    purpose: "a header name with an underscore is refused",
    attack: "x_api_key is not stripped as x-api-key, yet many upstreams read both as one header",
    fix: "common_http_protocol_options.headers_with_underscores_action: REJECT_REQUEST",
    find: |scene| {
        let field = "common_http_protocol_options.headers_with_underscores_action";
        demanded(scene, field, |action| action.names("REJECT_REQUEST", 1))
    },
};

pub(super) const CHUNKED_LENGTH: Check = Check {
    id: "chunked-length",
    purpose: "a request has one length",
    attack: "Content-Length beside Transfer-Encoding: a second request hides in the body of the first (smuggling)",
    fix: "remove http_protocol_options.allow_chunked_length",
    find: |scene| forbidden(scene, "http_protocol_options.allow_chunked_length"),
};

pub(super) const HTTP10_DEFAULT_HOST: Check = Check {
    id: "http10-default-host",
    purpose: "a request without a host goes nowhere",
    attack: "an HTTP/1.0 request that names no host is given a destination, and a credential with it",
    fix: "default_host_for_http_10: invalid. (a name that no destination has)",
    find: http10_default_host,
};

fn http10_default_host(scene: &Scene<'_>) -> Vec<Symptom> {
    let mut symptoms = Vec::new();
    for hcm in scene.guarded() {
        let Some(host) = hcm.node.at("http_protocol_options.default_host_for_http_10") else { continue };
        let name = host.as_text().unwrap_or_default().trim_end_matches('.');
        // RFC 6761: names under `invalid` resolve nowhere.
        let goes_nowhere = name.is_empty() || name == "invalid" || name.ends_with(".invalid");
        if !goes_nowhere {
            symptoms.push(Symptom::fail(host.path(), shown(Some(&host))));
        }
    }
    symptoms
}

pub(super) const EARLY_RESPONSES: Check = Check {
    id: "early-responses",
    purpose: "1xx responses end at Envoy",
    attack: "1xx response headers never enter the VM: an upstream's echo in them reaches the agent unmasked",
    fix: "remove proxy_100_continue",
    find: |scene| forbidden(scene, "proxy_100_continue"),
};

/// Fails each guarded connection manager whose `field` is absent or not as it must be.
fn demanded(scene: &Scene<'_>, field: &str, holds: fn(&Node<'_>) -> bool) -> Vec<Symptom> {
    let broken = scene.guarded().filter(|hcm| !hcm.node.at(field).is_some_and(|node| holds(&node)));
    broken.map(|hcm| Symptom::fail(hcm.node.would_be(field), shown(hcm.node.at(field).as_ref()))).collect()
}

/// Fails each guarded connection manager whose `field` is true.
fn forbidden(scene: &Scene<'_>, field: &str) -> Vec<Symptom> {
    let set = scene.guarded().filter_map(|hcm| hcm.node.at(field)).filter(Node::is_true);
    set.map(|node| Symptom::fail(node.path(), shown(Some(&node)))).collect()
}
