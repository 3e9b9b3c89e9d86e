//! Routes: each opens only for a request that the filter has let through to its cluster.
//!
//! The filter writes its verdict into filter state (`wasm.attache`, JSON that begins with the
//! cluster it decided on) and then changes the head, upon which Envoy selects the route again. A
//! destination's route asks for that verdict; below it stands a route of the same match that
//! answers 421. So a request that no filter decided on, or decided on for elsewhere, goes nowhere,
//! whatever the reason.

use super::{assertion, filter_state, filters, health, judged_paths, listener, set, type_url};
use attache_core::policy::{DestinationSpec, Spec};
use attache_core::refusal::Reason;
use attache_core::verdict::{VERDICT_STATE, verdict_prefix};
use serde_json::{Map, Value, json};

/// Headers that say where the agent is, and how it came in.
pub(super) const FORWARDED: [&str; 8] = [
    "x-forwarded-proto",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
    "x-real-ip",
    "x-envoy-external-address",
];

/// The route table: each destination under its authorities and under a prefix of the gateway.
pub(super) fn gateway(policy: &Spec) -> Value {
    let named = policy.destinations.iter().map(|destination| {
        json!({
            "name": destination.id,
            "domains": destination.named().collect::<Vec<_>>(),
            "routes": ways_to(destination, "/"),
        })
    });
    let mut hosts: Vec<Value> = named.collect();
    hosts.push(json!({"name": "gateway", "domains": ["*"], "matcher": by_prefix(policy)}));
    json!({"name": "attache", "virtual_hosts": hosts})
}

/// Every other host is the gateway's own: the path says which destination is meant. A tree of
/// prefixes finds its routes in one step; a list would be tried route by route, each with its
/// patterns, several times a request.
fn by_prefix(policy: &Spec) -> Value {
    let mut lists = Map::new();
    lists.insert(health::PATH.to_owned(), list(vec![health::route(), nowhere()]));
    for destination in &policy.destinations {
        if let Some(prefix) = &destination.route_prefix {
            let prefix = format!("{prefix}/");
            lists.insert(prefix.clone(), list(ways_to(destination, &prefix)));
        }
    }
    json!({
        "matcher_tree": {
            "input": {
                "name": "path",
                "typed_config": {"@type": type_url("envoy.type.matcher.v3.HttpRequestHeaderMatchInput"), "header_name": ":path"},
            },
            "prefix_match_map": {"map": lists},
        },
        // The filter refuses before this; or lets pass what leads nowhere here.
        "on_no_match": list(vec![nowhere()]),
    })
}

/// Where nothing leads.
pub(super) fn nowhere() -> Value {
    refusal("nowhere", "/", Reason::HostNotAllowed)
}

/// Routes as the leaf of a match tree. Below it is no other: the last of them matches all that comes here.
fn list(routes: Vec<Value>) -> Value {
    json!({"action": {
        "name": "routes",
        "typed_config": {"@type": type_url("envoy.config.route.v3.RouteList"), "routes": routes},
    }})
}

/// The routes of a destination under one path prefix. The judge stands only on the paths for which
/// a rule asks what a body says: it makes Envoy buffer, and a large upload that comes in one burst
/// while Envoy buffers is answered with a 413. A path that is spelt in another way goes by unread,
/// and the gate refuses what it could not read.
pub(super) fn ways_to(destination: &DestinationSpec, prefix: &str) -> Vec<Value> {
    let judged = judged_paths(destination).into_iter().map(Some);
    judged.chain([None]).flat_map(|path| guarded(destination, prefix, path)).collect()
}

/// Two routes of a destination under one path prefix: for all its paths, or for those of a pattern.
fn guarded(destination: &DestinationSpec, prefix: &str, judged: Option<&str>) -> [Value; 2] {
    let mut open = json!({
        "name": destination.id,
        "match": {
            "prefix": prefix,
            "filter_state": [decided_for(&destination.cluster)],
        },
        "route": {
            "cluster": destination.cluster,
            "host_rewrite_literal": sent_authority(destination),
            "prefix_rewrite": "/",
            // A model may think for minutes, and a stream may pause: bounds are those of the stream.
            "timeout": "0s",
            "idle_timeout": listener::stream_most(),
        },
        // Where the agent is and how it came in is nobody's business; some upstreams redirect for it.
        "request_headers_to_remove": FORWARDED,
    });
    set(&mut open, "typed_per_filter_config", json!({assertion::NAME: assertion::rule(&destination.cluster)}));
    let mut closed = refusal(&format!("undecided:{}", destination.id), prefix, Reason::DestinationMismatch);
    if let Some(pattern) = judged {
        let path = json!([{"name": ":path", "string_match": {"safe_regex": {"regex": regex(prefix, pattern)}}}]);
        // Envoy builds the chain by the route before the verdict, and asks again by the one after.
        for route in [&mut open, &mut closed] {
            set(&mut route["match"], "headers", path.clone());
            filters::with_judge(&mut route["typed_per_filter_config"]);
        }
    }
    [open, closed]
}

/// A path pattern of an access rule as a regular expression (RE2) for `:path`, which holds the query.
fn regex(prefix: &str, pattern: &str) -> String {
    let mut regex = format!("^{}", literal(prefix.trim_end_matches('/')));
    for segment in pattern.split('/').skip(1) {
        match segment {
            "*" => regex.push_str("/[^/?]+"),
            "**" => regex.push_str("(/.*)?"),
            _ => match segment.strip_prefix('*') {
                Some(end) => regex.extend(["/[^/?]+", &literal(end)]),
                None => regex.extend(["/", &literal(segment)]),
            },
        }
    }
    regex + "(\\?.*)?$"
}

fn literal(text: &str) -> String {
    let special = |letter: char| letter.is_ascii_punctuation() && letter != '/';
    let escaped = |letter: char| special(letter).then_some('\\').into_iter().chain([letter]);
    text.chars().flat_map(escaped).collect()
}

/// Matches a request that the filter has let through to this cluster.
pub(super) fn decided_for(cluster: &str) -> Value {
    json!({"key": filter_state(VERDICT_STATE), "string_match": {"prefix": verdict_prefix(cluster)}})
}

/// The authority that the upstream is asked for: without the port where it is the scheme's own.
pub(super) fn sent_authority(destination: &DestinationSpec) -> &str {
    let own = if destination.plaintext { ":80" } else { ":443" };
    destination.id.strip_suffix(own).unwrap_or(&destination.id)
}

/// The routes of hosts that no destination names, behind a door.
pub(super) fn unmatched(cluster: &str) -> [Value; 2] {
    let mut open = json!({
        "name": "unmatched",
        "match": {
            "prefix": "/",
            "filter_state": [decided_for(cluster)],
        },
        "route": {"cluster": cluster, "timeout": "0s", "idle_timeout": listener::stream_most()},
        "request_headers_to_remove": FORWARDED,
    });
    set(&mut open, "typed_per_filter_config", json!({assertion::NAME: assertion::rule(cluster)}));
    [open, refusal("undecided:unmatched", "/", Reason::DestinationMismatch)]
}

fn refusal(name: &str, prefix: &str, reason: Reason) -> Value {
    json!({
        "name": name,
        "match": {"prefix": prefix},
        "direct_response": {"status": reason.status(), "body": {"inline_string": reason.body(b"")}},
        "response_headers_to_add": [
            header("content-type", "application/json"),
            header("x-attache-reason", reason.as_str()),
        ],
        "typed_per_filter_config": {assertion::NAME: assertion::no_rule()},
    })
}

/// A header of an answer.
pub(super) fn header(key: &str, value: &str) -> Value {
    json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
}
