//! Envoy's own access log: the witness of every request, and of no credential.

use std::collections::BTreeSet;

use attache_tests::envoy::{released, served};
use attache_tests::stack::{CUSTOM, GITHUB, Plan, SOON};
use attache_tests::{Attache, Stack, util};
use serde_json::Value;

use crate::{of_requests, records};

/// The lines of Envoy's access log, which shares a file with its other log.
fn access_log(stack: &Stack<Attache>) -> Vec<Value> {
    let text = stack.envoy.log();
    text.lines().filter(|line| line.starts_with('{')).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_saw_what_the_audit_says() {
    let stack = Plan::default().start().await;
    let (writer, reader) = (stack.placeholder("writer", "github"), stack.placeholder("reader", "github"));
    let custom = stack.placeholder("writer", "custom");
    let query = stack.placeholder("writer", "query");
    assert_eq!(stack.get("api.github.com", "/user?hidden=in-the-query", &writer).await.status, 200);
    assert_eq!(stack.send("POST", "api.github.com", "/repos", &reader, b"").await.status, 403);
    assert_eq!(stack.get("api.custom.test", "/v1/x", &custom).await.status, 200);
    assert_eq!(stack.get("query.custom.test", &format!("/q?key={query}"), &query).await.status, 200);
    assert_eq!(stack.get("nowhere.test", "/", &writer).await.status, 403);
    assert_eq!(stack.get("api.github.com", "/%2e%2e%2fetc", &writer).await.status, 400);
    // Two that never reach the filter: not HTTP/1.1, and not HTTP.
    for line in ["GET /user HTTP/1.0\r\nHost: api.github.com\r\n\r\n", "GET user\r\n\r\n"] {
        let mut agent = stack.agent().h1(stack.proxy).await;
        agent.send(line).await.expect("a request is sent");
        assert!(agent.response(SOON).await.expect("an answer").status >= 400);
    }

    let sent = stack.agent().ledger().transcripts().len();
    util::eventually(SOON, || access_log(&stack).len() >= sent).await;
    let witnessed = access_log(&stack);
    assert_eq!(witnessed.len(), sent, "one line a request");
    let decided: Vec<&Value> = witnessed.iter().filter(|line| line["attache"].is_string()).collect();
    util::eventually(SOON, || of_requests(&records(&stack)).count() >= decided.len()).await;
    let all = records(&stack);
    for line in &decided {
        let same = |record: &&attache_tests::oracle::Record| line["request_id"] == record.text("request_id").as_str();
        let record = of_requests(&all).find(same).unwrap_or_else(|| panic!("no record of {line}"));
        let verdict: Value = serde_json::from_str(line["attache"].as_str().expect("text")).expect("JSON");
        assert_eq!(verdict["decision"], record.text("decision"), "{line}");
        assert_eq!(verdict.get("reason").and_then(Value::as_str).unwrap_or_default(), record.text("reason"), "{line}");
        assert_eq!(line["response_code"].to_string(), record.text("response_code"), "{line}");
        assert_eq!(line["method"], record.text("method"), "{line}");
        assert_eq!(line["authority"], record.text("authority"), "{line}");
        if verdict["decision"] == "forward" {
            for field in ["session", "session_id", "credential", "lease_id", "fingerprint", "access_mode"] {
                assert_eq!(verdict[field], record.text(field), "{field} of {line}");
            }
        }
    }
    let by_filter = of_requests(&all).filter(|record| record.text("worker") != "broker");
    let ids: BTreeSet<String> = by_filter.map(|record| record.text("request_id")).collect();
    assert_eq!(ids.len(), decided.len(), "a record for each decision, and for nothing else");
    for hit in stack.upstream().requests() {
        assert!(hit.request_id().is_some_and(|id| ids.contains(&id)), "{hit:#?}");
    }

    let text = stack.envoy.log();
    for foreign in [GITHUB, CUSTOM, "in-the-query", "ATTACHE", "key="] {
        assert!(!text.contains(foreign), "{foreign} in Envoy's log");
    }
    stack.reconcile().await;
}

/// An Envoy before 1.37 sends it by gRPC.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_envoy_is_a_witness_too() {
    let oldest = served().remove(0);
    let Some(envoy) = released(&oldest) else { return };
    let stack = Plan::default().on(envoy).start().await;
    let mut agent = stack.agent().h1(stack.proxy).await;
    agent.send("GET /never HTTP/1.0\r\nHost: api.github.com\r\n\r\n").await.expect("a request is sent");
    assert!(agent.response(SOON).await.expect("an answer").status >= 400);
    // No filter saw it: the record is the witness' own.
    let is_witnessed = |record: &attache_tests::oracle::Record| {
        record.text("worker") == "broker" && record.text("response_code") == "426"
    };
    util::eventually(SOON, || of_requests(&records(&stack)).any(is_witnessed)).await;
    let placeholder = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 200);
    stack.reconcile().await;
}
