//! The filters' door: without the token every question has the same answer.

use std::collections::BTreeSet;

use attache_tests::stack::Plan;
use attache_tests::{Agent, Attache, Stack};

fn token(stack: &Stack<Attache>) -> String {
    std::fs::read_to_string(stack.dir().join("state/default/data-plane.token")).expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_every_question_has_the_same_answer() {
    let stack = Plan::default().start().await;
    let token = token(&stack);
    let runtime = std::fs::read(stack.dir().join("state/default/runtime.json")).expect("an announcement");
    let runtime: serde_json::Value = serde_json::from_slice(&runtime).expect("JSON");
    let door = runtime["data_plane"].as_str().and_then(|at| at.parse().ok()).expect("an address");
    let good = format!("Bearer {token}");
    assert_eq!(Agent::new().get(door, "broker", "/healthz", &[("authorization", &good)]).await.status, 200);

    let placeholder = format!("Bearer {}", stack.placeholder("writer", "github"));
    let (wrong, longer) = (format!("Bearer {}", "0".repeat(64)), format!("Bearer {token}0"));
    let mut answers = BTreeSet::new();
    for (method, path) in [
        ("GET", "/v1/policy"),
        ("POST", "/v1/grants"),
        ("GET", "/v1/changes?worker=00000000"),
        ("POST", "/v1/audit?worker=00000000"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/v1/sessions"),
        ("GET", "/nothing"),
        ("BREW", "/"),
    ] {
        for authorization in [None, Some(&wrong), Some(&longer), Some(&token), Some(&placeholder)] {
            let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
            let answer = Agent::new().request(door, method, "broker", path, &headers, b"{}").await;
            let fields = answer.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"date"));
            let fields: Vec<_> = fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            answers.insert((answer.status, fields, answer.text()));
        }
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert!(answers.iter().all(|(status, ..)| *status == 401));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_shows_the_token_to_nobody() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    let token = token(&stack);
    for page in ["/config_dump?include_eds", "/clusters?format=json", "/certs", "/server_info", "/stats", "/listeners"]
    {
        let text = stack.envoy.admin_get(page).await;
        assert!(text.len() > 10 && !text.contains(&token), "{page}");
    }
    let dump = stack.envoy.config_dump().await;
    assert!(dump.contains("attache_data_plane") && dump.contains("[redacted]"), "it is there, and redacted");
    assert!(!stack.envoy.log().contains(&token));
    stack.reconcile().await;
}
