//! The OpenAPI documents name every route of both doors, and what the routes answer.

use crate::world::{NONCE, WORKER, World};
use attache_broker::api::openapi::Door;
use regex_lite::Regex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Every (method, path) of a door, and the schema that its answer of this status has.
fn operations(door: Door) -> Vec<(String, String, Value)> {
    let document = serde_json::to_value(door.document()).unwrap();
    let paths = document["paths"].as_object().unwrap().clone();
    let of_path = |(path, methods): (String, Value)| {
        let methods = methods.as_object().unwrap().clone().into_iter();
        methods.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation)).collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(of_path).collect()
}

/// The path with a name that exists.
fn real(path: &str) -> String {
    let name = if path.contains("credentials") { "github" } else { "reviewer" };
    path.replace("{name}", name)
}

/// Whether an answer has just the members that its schema names.
fn fits(door: Door, operation: &Value, status: u16, body: &Value) -> Result<(), String> {
    let document = serde_json::to_value(door.document()).unwrap();
    let responses = &operation["responses"];
    let response = responses.get(status.to_string()).ok_or(format!("{status} is not documented"))?;
    let mut schema = &response["content"]["application/json"]["schema"];
    let mut body = body;
    if schema["type"] == "array" {
        (schema, body) = (&schema["items"], &body[0]);
    }
    let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) else { return Ok(()) };
    let schema = &document["components"]["schemas"][name];
    let Some(members) = body.as_object() else { return Ok(()) };
    let unknown = members.keys().find(|member| schema["properties"].get(member.as_str()).is_none());
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let missing = required.into_iter().find(|member| !members.contains_key(member.as_str().unwrap()));
    match (unknown, missing) {
        (None, None) => Ok(()),
        (unknown, missing) => Err(format!("{name}: unknown {unknown:?}, missing {missing:?}")),
    }
}

#[test]
fn every_route_is_documented() {
    let source = |door| match door {
        Door::Control => include_str!("../../src/api/control.rs"),
        Door::DataPlane => include_str!("../../src/api/data_plane.rs"),
    };
    let route = Regex::new(r#"\.route\((?:"([^"]+)"|(?:wire|witness)::(\w+)_PATH)"#).unwrap();
    for door in [Door::Control, Door::DataPlane] {
        let routes = route.captures_iter(source(door)).map(|found| match (found.get(1), found.get(2)) {
            (Some(path), _) => path.as_str().to_owned(),
            (_, wire) => format!("/v1/{}", wire.unwrap().as_str().to_lowercase().replace('_', "-")),
        });
        let documented = operations(door).into_iter().map(|(_, path, _)| path);
        assert_eq!(documented.collect::<BTreeSet<_>>(), routes.collect::<BTreeSet<_>>(), "{door:?}");
    }
}

#[tokio::test]
async fn what_is_documented_is_what_is_answered() {
    // A worker that polls once, and is soon waited for no more.
    let world = World::with(|config| config.limits.stale_after = Duration::from_secs(1)).await;
    world.poll("", 0, 0).await;
    world.operate("PUT", "/v1/sessions/reviewer/access-mode", json!({"access_mode": "read-only"})).await;
    for (method, path, operation) in operations(Door::Control) {
        let body = match (method.as_str(), path.as_str()) {
            ("POST", "/v1/sessions") => json!({"name": "made", "credentials": ["github"]}),
            ("PUT", _) => json!({"access_mode": "read-write"}),
            _ => Value::Null,
        };
        let answer = world.operate(&method, &real(&path), body).await;
        assert_ne!(answer.status, 405, "{method} {path}");
        let json = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!(fits(Door::Control, &operation, answer.status, &json), Ok(()), "{method} {path}: {json}");
        if method != "GET" {
            let answer = world
                .operate(
                    &method,
                    &real(&path).replace("reviewer", "nobody").replace("/github/", "/nobody/"),
                    json!({"no": 1}),
                )
                .await;
            let json = serde_json::from_slice(&answer.body).unwrap_or_default();
            assert_eq!(fits(Door::Control, &operation, answer.status, &json), Ok(()), "{method} {path}: {json}");
        }
    }
    for (method, path, operation) in operations(Door::DataPlane) {
        let (query, body) = match path.as_str() {
            "/v1/grants" => {
                let evidence = json!({"placeholder": "0".repeat(64)});
                let ask =
                    json!({"nonce": NONCE, "worker": WORKER, "destination": "api.a.test:443", "evidence": evidence});
                (String::new(), ask.to_string())
            }
            "/v1/changes" | "/v1/audit" => (format!("?worker={WORKER}"), String::new()),
            _ => Default::default(),
        };
        let known = world.ask(&method, &format!("{path}{query}"), body.as_bytes()).await;
        let stranger = world.knock(&method, &path, &[], b"").await;
        for answer in [known, stranger] {
            let json = serde_json::from_slice(&answer.body).unwrap_or_default();
            assert_eq!(fits(Door::DataPlane, &operation, answer.status, &json), Ok(()), "{method} {path}: {json}");
        }
    }
}
