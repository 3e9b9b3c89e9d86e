//! Listeners beside the generated one, and what answers say.

use attache_tests::stack::SOON;
use attache_tests::{Attache, Response, Stack, util};
use serde_json::{Value, json};

pub const HOST: &str = "api.github.com";

/// Adds a listener like the generated one, on a port of its own. Its gate knows its name.
pub fn add_listener(bootstrap: &mut Value, name: &str, transport_socket: Option<Value>) {
    let listeners = bootstrap.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
    let listeners = listeners.expect("listeners");
    let mut listener = listeners[0].clone();
    listener["name"] = name.into();
    let filters = listener.pointer_mut("/filter_chains/0/filters/0/typed_config/http_filters");
    for filter in filters.and_then(Value::as_array_mut).expect("filters") {
        let Some(text) = filter.pointer_mut("/typed_config/config/configuration/value") else { continue };
        let mut plugin: Value = serde_json::from_str(text.as_str().expect("text")).expect("JSON");
        if plugin["role"] == "gate" {
            assert_eq!(plugin["listener"], "attache", "the generated gate knows its listener");
            plugin["listener"] = name.into();
            *text = plugin.to_string().into();
        }
    }
    if let Some(socket) = transport_socket {
        listener["filter_chains"][0]["transport_socket"] = socket;
    }
    listeners.push(listener);
}

/// Downstream TLS; `context` is added to its validation context, `tls` to the whole.
pub fn downstream_tls((pem, key): (&str, &str), client_ca: &str, context: Value, tls: Value) -> Value {
    let mut validation = json!({"trusted_ca": {"inline_string": client_ca}});
    merge(&mut validation, context);
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "common_tls_context": {
            "tls_certificates": [{
                "certificate_chain": {"inline_string": pem},
                "private_key": {"inline_string": key},
            }],
            "validation_context": validation,
        },
    });
    merge(&mut config, tls);
    json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
}

fn merge(into: &mut Value, from: Value) {
    for (name, value) in from.as_object().expect("an object") {
        into[name] = value.clone();
    }
}

/// Status and reason: 200 has none.
pub fn said(answer: &Response) -> (u16, String) {
    (answer.status, answer.header("x-attache-reason").unwrap_or_default())
}

pub fn served() -> (u16, String) {
    (200, String::new())
}

pub fn required() -> (u16, String) {
    (401, "identity_required".into())
}

pub fn conflict() -> (u16, String) {
    (403, "evidence_conflict".into())
}

/// The `evidence` of the use records of a session, once there are this many.
pub async fn evidence_of(stack: &Stack<Attache>, session: &str, uses: usize) -> Vec<String> {
    util::eventually_some(SOON, || {
        let log = std::fs::read_to_string(stack.config.state_dir.join("audit.jsonl")).unwrap_or_default();
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let used = records.filter(|record| record["kind"] == "use" && record["session"] == session);
        let words: Vec<_> = used.map(|record| record["evidence"].as_str().unwrap_or_default().to_owned()).collect();
        (words.len() >= uses).then_some(words)
    })
    .await
}
