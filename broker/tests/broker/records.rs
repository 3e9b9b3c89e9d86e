//! Nothing leaves before its record is on disk; what workers report is kept once, in order.

use crate::world::{OTHER_SECRET, SECRET, WORKER, World, until};
use attache_broker::audit::verify::{Against, verify};
use attache_core::wire::MOST_AUDIT_BYTES;
use serde_json::{Value, json};

fn used(seq: u64) -> String {
    json!({
        "seq": seq, "kind": "use", "at_ms": 1_769_860_800_120u64, "duration_ms": 12, "request_id": "r-1",
        "method": "GET", "authority": "api.a.test", "path": "/user", "decision": "forward", "response_code": 200,
        "auth_injected": true, "evidence": "placeholder", "destination": "api.a.test:443", "service": "github",
        "session_id": "s-1", "session": "reviewer", "access_mode": "read-only", "credential": "github",
        "lease_id": "l-1", "fingerprint": "f",
    })
    .to_string()
}

async fn report(world: &World, seqs: impl Iterator<Item = u64>) -> (u16, Value) {
    let lines: Vec<_> = seqs.map(used).collect();
    let path = format!("/v1/audit?worker={WORKER}");
    let answer = world.ask("POST", &path, lines.join("\n").as_bytes()).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn a_grant_is_on_record_when_it_arrives() {
    let world = World::new().await;
    for _ in 0..3 {
        let granted = world.plain_grant().await["granted"].clone();
        let last = world.records().pop().unwrap();
        assert_eq!(last["kind"], "issue");
        assert_eq!(last["lease_id"], granted["lease"]["id"]);
        assert_eq!(last["fingerprint"], granted["lease"]["fingerprint"]);
        assert_eq!(last["session_id"], granted["session_id"]);
        assert_eq!(last["ttl_ms"], granted["lease"]["ttl_ms"]);
        assert_eq!((&last["issued_to"], &last["destination"]), (&WORKER.into(), &"api.a.test:443".into()));
        assert_eq!((&last["access_mode"], &last["evidence"]), (&"read-write".into(), &"placeholder".into()));
    }
    assert_eq!(verify(&world.config.audit.path, &Against::default()).unwrap().broken, None);
}

#[tokio::test]
async fn without_a_record_there_is_no_grant() {
    let world = World::new().await;
    assert!(world.plain_grant().await["granted"].is_object());
    world.break_audit();
    let answer = world.plain_grant().await;
    assert_eq!(answer["denied"]["reason"], "broker_unavailable");
    assert!(!answer.to_string().contains(SECRET));
    assert_eq!(report(&world, 1..=2).await.0, 503);
    let ready = world.ask("GET", "/readyz", b"").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (503, &false.into()));
    assert!(ready.json()["problems"][0].as_str().unwrap().starts_with("audit log: "));

    world.mend_audit();
    until("it writes again by itself", async || world.plain_grant().await["granted"].is_object()).await;
    assert_eq!(report(&world, 1..=2).await, (200, json!({"acked": 2})), "nothing that was refused is lost");
    assert_eq!(world.records()[0]["kind"], "gap");
    assert_eq!(world.ask("GET", "/readyz", b"").await.status, 200);
}

#[tokio::test]
async fn uses_are_kept_once_in_order_and_over_a_restart() {
    let mut world = World::new().await;
    assert_eq!(report(&world, 1..=3).await, (200, json!({"acked": 3})));
    assert_eq!(report(&world, 2..=4).await, (200, json!({"acked": 4})));
    assert_eq!(report(&world, 6..=7).await, (200, json!({"acked": 7})), "what never comes is a gap");
    world.restart().await;
    assert_eq!(report(&world, 4..=8).await, (200, json!({"acked": 8})));
    let records = world.records();
    let mine: Vec<_> = records.iter().filter(|r| r["worker"] == WORKER).collect();
    let seqs: Vec<_> = mine.iter().map(|r| r["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 6, 7, 8]);
    assert_eq!(records.iter().filter(|record| record["kind"] == "gap").count(), 1);
    let fields: Vec<_> = mine[0].as_object().unwrap().keys().map(String::as_str).collect();
    // Keys of a parsed object come in alphabetical order here; the order in the line is tested where it is made.
    assert!(fields.contains(&"prev") && fields.contains(&"hash") && fields.contains(&"instance"));
    assert_eq!((&mine[0]["timestamp"], &mine[0]["kind"]), (&"2026-01-31T12:00:00.120Z".into(), &"use".into()));
    let kinds: Vec<_> =
        records.iter().map(|r| r["kind"].as_str().unwrap()).filter(|k| ["start", "stop"].contains(k)).collect();
    assert_eq!(kinds, ["start", "stop", "start"]);
    assert_eq!(verify(&world.config.audit.path, &Against::default()).unwrap().broken, None);
}

#[tokio::test]
async fn a_malformed_line_is_named_and_nothing_of_its_batch_kept() {
    let world = World::new().await;
    let path = format!("/v1/audit?worker={WORKER}");
    let spoiled = used(2).replacen('{', "{\"s3cret\":1,", 1);
    let answer = world.ask("POST", &path, format!("{}\n{spoiled}", used(1)).as_bytes()).await;
    assert_eq!(
        (answer.status, answer.json()["error"].as_str().unwrap()),
        (400, "the body is not valid: line 2, column 0")
    );
    assert_eq!(report(&world, 1..=1).await, (200, json!({"acked": 1})));
    for query in ["", "?worker=", "?worker=..", "?worker=0123abcd&worker=0123abcd", "?worker=0123abcd&more=1"] {
        assert_eq!(world.ask("POST", &format!("/v1/audit{query}"), b"").await.status, 400, "{query}");
    }
    let long = vec![b'\n'; MOST_AUDIT_BYTES + 1];
    assert_eq!(world.ask("POST", &path, &long).await.status, 413);
}

#[tokio::test]
async fn neither_secrets_nor_placeholders_are_ever_written() {
    let mut world = World::new().await;
    let placeholder = world.env("reviewer", "GITHUB_TOKEN").await;
    let token = world.env("reviewer", "ATTACHE_SESSION_TOKEN").await;
    let data_plane_token = world.token();
    world.plain_grant().await;
    world.grant("b.test:8443", Some(&placeholder), Some(&token)).await;
    let files = ["audit.jsonl", "attache.db", "attache.db-wal", "runtime.json", "lock"];
    let check = |world: &World| {
        for file in files {
            let Ok(bytes) = std::fs::read(world.config.state_dir.join(file)) else { continue };
            for text in [SECRET, OTHER_SECRET, &placeholder, &token, &data_plane_token] {
                assert!(memchr::memmem::find(&bytes, text.as_bytes()).is_none(), "{text} in {file}");
            }
        }
    };
    check(&world);
    world.stop().await;
    check(&world);
}
