//! What one asker, or one worker, was granted serves no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use attache_core::digest::Digest;
use attache_core::wire::EvidenceDigests;
use attache_tests::fake_broker::Endpoint;
use attache_tests::stack::{Plan, SOON};
use serde_json::Value;

use super::{HOST, lasting, placeholder, start};

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_asks_for_itself() {
    let stack = start(Plan::default().workers(2)).await;
    stack.broker.grant(lasting(600_000, 600_000));
    let begun = Instant::now();
    let mut sent = 0;
    // The kernel spreads connections over the workers.
    while sent < 40 || stack.broker.calls(Endpoint::Grants) < 2 {
        assert_eq!(stack.get(HOST, "/", &placeholder(0)).await.status, 200);
        sent += 1;
        assert!(begun.elapsed() < SOON, "one worker gets everything");
    }
    let calls = stack.broker.heard(Endpoint::Grants);
    let asked: Vec<String> = calls.iter().map(|call| member(&call.body, "worker")).collect();
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(asked.len(), 2, "each once");
    let records = stack.broker.wait_records(sent, SOON).await;
    let used: BTreeSet<_> = records.iter().map(|r| (r["worker"].to_string(), r["lease_id"].to_string())).collect();
    let issued: BTreeSet<_> =
        (1..).zip(&asked).map(|(n, worker)| (format!("\"{worker}\""), format!("\"lease-{n}\""))).collect();
    assert_eq!(used, issued, "a lease is used by the worker that asked for it");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_askers_share_a_grant() {
    let stack = start(Plan::default()).await;
    // Each evidence at each destination is a session of its own, named after both.
    stack.broker.answer_grants(|request| {
        let mut answer = lasting(600_000, 600_000).answer();
        answer["granted"]["session_id"] = session(&request["evidence"], &request["destination"]).into();
        answer
    });
    let long = placeholder(1);
    let (head, tail) = long.split_at(long.len() - 4);
    let token = "attache-session_ATTACHE0123456789abcdefghijklmnopqrst".to_owned();
    let one_off = format!("{}{}", &long[..long.len() - 1], if long.ends_with('a') { "b" } else { "a" });
    let askers: Vec<(String, Option<String>)> = vec![
        (long.clone(), None),
        (one_off, None),
        // One begins, or ends, with the other.
        (format!("{long}a"), None),
        (format!("a{long}"), None),
        (head.to_owned(), None),
        // The same bytes, split elsewhere.
        (long.clone(), Some(token.clone())),
        (head.to_owned(), Some(format!("{tail}{token}"))),
        (head.to_owned(), Some(token.clone())),
        (long.to_lowercase().replace("attache", "ATTACHE"), None),
    ];
    let (mut expected, mut n) = (BTreeMap::new(), 0);
    for round in 0..2 {
        for host in [HOST, "uploads.github.com"] {
            for (placeholder, token) in &askers {
                let path = format!("/{n}");
                let bearer = format!("Bearer {placeholder}");
                let mut headers = vec![("authorization", bearer.as_str())];
                headers.extend(token.as_ref().map(|token| ("x-attache-session", token.as_str())));
                let answer = stack.agent().get(stack.proxy, host, &path, &headers).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                let digest = |text: &String| Digest::of(text.as_bytes());
                let shown = EvidenceDigests {
                    placeholder: Some(digest(placeholder)),
                    session_token: token.as_ref().map(digest),
                    ..EvidenceDigests::default()
                };
                let shown = serde_json::to_value(shown).expect("JSON");
                expected.insert(path, session(&shown, &format!("{host}:443").into()));
                n += 1;
                let asked = if round == 0 { n } else { 2 * askers.len() };
                assert_eq!(stack.broker.calls(Endpoint::Grants), asked, "request {n}");
            }
        }
    }
    let records = stack.broker.wait_records(n, SOON).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let used: BTreeMap<_, _> = records.iter().map(|r| (text(&r["path"]), text(&r["session_id"]))).collect();
    assert_eq!(used, expected);
    assert_eq!(used.values().collect::<BTreeSet<_>>().len(), 2 * askers.len());
    stack.reconcile().await;
}

fn session(evidence: &Value, destination: &Value) -> String {
    Digest::of(format!("{evidence}{destination}").as_bytes()).to_hex()
}

fn member(body: &[u8], name: &str) -> String {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    body[name].as_str().expect("text").to_owned()
}
