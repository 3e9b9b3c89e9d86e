//! The fake broker speaks the product's wire format, and misbehaves exactly as told.

use std::time::{Duration, Instant};

use attache_core::wire::{AuditAnswer, Changes, GrantAnswer};
use attache_tests::agent::H1;
use attache_tests::fake_broker::{Behaviour, Endpoint, Grant};
use attache_tests::{Agent, FakeBroker, Oracle, Response, Secrets, Unanswered, Upstream};
use serde_json::{Value, json};

const SECRET: &str = "ghp_the-real-one-0123456789";
const NONCE: &str = "00112233445566778899aabbccddeeff";
const SOON: Duration = Duration::from_secs(5);

async fn connect(broker: &FakeBroker) -> H1 {
    Agent::new().h1(broker.addr()).await
}

async fn ask(broker: &FakeBroker) -> Result<Response, Unanswered> {
    let question = json!({"nonce": NONCE, "worker": "0badcafe", "destination": "api.github.com:443", "evidence": {}});
    let body = question.to_string();
    connect(broker).await.request("POST", "broker", "/v1/grants", &[], body.as_bytes()).await
}

async fn poll(broker: &FakeBroker, epoch: &str, after: u64, wait_ms: u64) -> Changes {
    let target = format!("/v1/changes?worker=0badcafe&epoch={epoch}&after={after}&wait_ms={wait_ms}");
    let answer = connect(broker).await.request("GET", "broker", &target, &[], b"").await.expect("an answer");
    serde_json::from_slice(&answer.body).expect("the product's type")
}

fn use_record(seq: u64) -> Value {
    json!({"seq": seq, "kind": "use", "at_ms": 1, "request_id": "r1", "session_id": "session-1", "lease_id": "lease-1",
        "credential": "github", "decision": "forward", "auth_injected": true, "authority": "api.github.com",
        "method": "GET", "path": "/", "destination": "api.github.com:443", "session": "agent",
        "access_mode": "read-write", "fingerprint": "0123456789abcdef"})
}

async fn granting() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.grant(Grant::header("github", "authorization", &format!("Bearer {SECRET}")));
    broker
}

#[tokio::test]
async fn grants_fit_the_product_and_are_issued_on_record_first() {
    let broker = granting().await;
    let answer = ask(&broker).await.expect("an answer");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
    let answer: GrantAnswer = serde_json::from_slice(&answer.body).expect("the product's type");
    assert_eq!(answer.nonce, NONCE);
    let granted = answer.granted.expect("granted");
    assert_eq!((granted.lease.id.as_str(), granted.lease.ttl_ms), ("lease-1", 60_000));
    let log = std::fs::read_to_string(broker.audit_path()).expect("the audit log");
    assert!(log.contains("\"issue\"") && log.contains("lease-1") && !log.contains(SECRET), "{log}");

    broker.deny("session_expired");
    let denied: GrantAnswer = serde_json::from_slice(&ask(&broker).await.expect("an answer").body).expect("denied");
    assert_eq!(denied.denied.expect("denied").reason.as_str(), "session_expired");
    assert_eq!(broker.calls(Endpoint::Grants), 2);
    assert_eq!(broker.heard(Endpoint::Grants)[0].target, "/v1/grants");
}

#[tokio::test]
async fn the_change_feed_holds_answers_and_notices_another_life() {
    let broker = FakeBroker::start().await;
    broker.policy(json!({"version": "v1"}));
    let first = poll(&broker, "none", 0, 60_000).await;
    assert_eq!((first.cursor, first.policy.as_str()), (1, "v1"), "another epoch is answered at once");
    let begun = Instant::now();
    let held = poll(&broker, &first.epoch, 1, 80).await;
    assert!(begun.elapsed() >= Duration::from_millis(80) && held.changes.is_empty());
    let (held, cursor) = tokio::join!(poll(&broker, &first.epoch, 1, 60_000), async {
        attache_tests::util::eventually(SOON, || broker.calls(Endpoint::Changes) == 3).await;
        broker.change(json!({"credential": "github"}))
    });
    assert_eq!((held.cursor, held.changes.len(), cursor), (2, 1, 2));
    // Nobody polled when it changed.
    broker.policy(json!({"version": "v2"}));
    let begun = Instant::now();
    let told = poll(&broker, &first.epoch, 2, 60_000).await;
    assert_eq!((told.cursor, told.changes.len(), told.policy.as_str()), (3, 1, "v2"));
    assert!(begun.elapsed() < SOON, "told at once");
    broker.new_epoch();
    assert_ne!(poll(&broker, &first.epoch, 3, 60_000).await.epoch, first.epoch);
    assert_eq!(broker.workers()["0badcafe"], 3);
}

#[tokio::test]
async fn audit_batches_are_acknowledged_and_repeats_held_once() {
    let broker = FakeBroker::start().await;
    let send = async |lines: String| {
        let answer =
            connect(&broker).await.request("POST", "broker", "/v1/audit?worker=w", &[], lines.as_bytes()).await;
        answer.expect("an answer")
    };
    let both = format!("{}\n{}\n", use_record(1), use_record(2));
    for _ in 0..2 {
        let answer: AuditAnswer = serde_json::from_slice(&send(both.clone()).await.body).expect("the product's type");
        assert_eq!(answer.acked, 2);
    }
    assert_eq!(broker.wait_records(2, SOON).await.len(), 2);
    assert_eq!(send(format!("{}\n", use_record(9))).await.status, 409);
}

#[tokio::test]
async fn the_oracle_accepts_its_audit_log() {
    let broker = granting().await;
    let secrets = Secrets::new([("github", SECRET)]);
    let upstream = Upstream::plain().start().await;
    let oracle = Oracle::new(&secrets);
    oracle.audit(broker.audit_path());
    oracle.upstream("github", &upstream, &[("github", "api.github.com:443")]);
    ask(&broker).await.expect("an answer");
    let headers = [("authorization", &*format!("Bearer {SECRET}")), ("x-request-id", "r1")];
    Agent::new().get(upstream.addr(), "api.github.com:443", "/", &headers).await;
    let line = format!("{}\n", use_record(1));
    connect(&broker)
        .await
        .request("POST", "b", "/v1/audit?worker=0badcafe", &[], line.as_bytes())
        .await
        .expect("an answer");
    oracle.reconcile().await;
}

#[tokio::test]
async fn each_misbehaviour_is_as_told() {
    let broker = granting().await;
    let asked = async |behaviour: Behaviour| {
        broker.behave(Endpoint::Grants, behaviour);
        ask(&broker).await
    };
    assert_eq!(asked(Behaviour::Status(503)).await.expect("an answer").status, 503);
    assert_eq!(asked(Behaviour::Status(204)).await.expect("an answer").body, b"");
    assert_eq!(asked(Behaviour::Redirect302).await.expect("an answer").status, 302);
    assert_eq!(
        asked(Behaviour::Html200).await.expect("an answer").header("content-type").as_deref(),
        Some("text/html")
    );
    let under = asked(Behaviour::RightUnder(500)).await.expect("an answer");
    assert!(under.status == 500 && under.text().contains(SECRET));
    assert_eq!(
        asked(Behaviour::AsText).await.expect("an answer").header("content-type").as_deref(),
        Some("text/plain")
    );
    assert!(!asked(Behaviour::Truncated).await.expect("an answer").complete);
    assert_eq!(asked(Behaviour::Close).await, Err(Unanswered::Closed));
    assert!(asked(Behaviour::Garbage).await.is_err());
    assert!(asked(Behaviour::ZeroHeaders).await.expect("an answer").raw.len() > 1 << 20);
    assert!(asked(Behaviour::Oversized(3 << 20)).await.expect("an answer").body.len() > 3 << 20);
    let product = |answer: &Response| serde_json::from_slice::<GrantAnswer>(&answer.body);
    for behaviour in [Behaviour::DuplicateKeys, Behaviour::WrongType, Behaviour::UnknownMember] {
        assert!(product(&asked(behaviour).await.expect("an answer")).is_err(), "{behaviour:?}");
    }
    let wrong = product(&asked(Behaviour::WrongNonce).await.expect("an answer")).expect("well-formed");
    assert_ne!(wrong.nonce, NONCE);
    let expired = product(&asked(Behaviour::ExpiredLease).await.expect("an answer")).expect("well-formed");
    assert_eq!(expired.granted.expect("granted").lease.ttl_ms, 0);
    let begun = Instant::now();
    assert_eq!(asked(Behaviour::Delay(Duration::from_millis(60))).await.expect("an answer").status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn silence_is_kept_until_the_caller_leaves() {
    let broker = granting().await;
    let short = Duration::from_millis(50);
    broker.behave_next(Endpoint::Grants, [Behaviour::Hang, Behaviour::HeadersOnly, Behaviour::Announced(200 << 20)]);
    for _ in 0..3 {
        let mut caller = connect(&broker).await;
        caller.send("POST /v1/grants HTTP/1.1\r\nhost: b\r\ncontent-length: 2\r\n\r\n{}").await.expect("sent");
        assert_eq!(caller.response(short).await, Err(Unanswered::TimedOut(short)));
    }
    assert_eq!(ask(&broker).await.expect("the script is over").status, 200);
}

#[tokio::test]
async fn a_closed_port_refuses_and_opens_again() {
    let broker = granting().await;
    let mut kept = connect(&broker).await;
    broker.refuse().await;
    assert!(tokio::net::TcpStream::connect(broker.addr()).await.is_err());
    assert!(kept.rest(SOON).await.expect("closed").is_empty());
    broker.accept().await;
    assert_eq!(ask(&broker).await.expect("an answer").status, 200);
}
