//! A sidecar asks for its own session, and for nothing of others: not by what it has stolen, not by what it
//! claims, and not in the name of another's worker.

use attache_core::digest::Digest;
use attache_tests::oracle::Audit;
use attache_tests::stack::{Plan, SOON};
use attache_tests::util;
use serde_json::{Value, json};

use crate::pki::{GATEWAY, READER, SIDECAR};
use crate::scene::{HOST, Scene};

const AGENT: &str = "spiffe://cluster.local/ns/agents/sa/bound";
const MINE: &str = "0000000a";
const THEIRS: &str = "0000000b";

fn plan() -> Plan {
    Plan::default()
        .missing_placeholder("inject")
        .session(&format!("{{name: bound, credentials: [github, custom], bind: {{peer: '{AGENT}'}}}}"))
        .session("{name: inner, credentials: [github, custom], bind: {listener: inner}}")
}

fn digest(text: &str) -> Value {
    serde_json::to_value(Digest::of(text.as_bytes())).expect("JSON")
}

fn reason(answer: &Value) -> &str {
    answer["denied"]["reason"].as_str().unwrap_or("granted")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_serves_its_own_session_and_no_other() {
    let scene = Scene::start(SIDECAR, plan()).await;
    let [own, other] = ["writer", "reader"].map(|session| scene.stack.placeholder(session, "github"));
    let answer = scene.stack.get(HOST, "/user", &own).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = scene.stack.get(HOST, "/user", &other).await;
    assert_eq!((answer.status, answer.header("x-attache-reason").as_deref()), (401, Some("placeholder_unknown")));
    // Who asked is on record, as the broker has verified it.
    let (audit, _) = Audit::read(Some(&scene.stack.dir().join("state/default/audit.jsonl")));
    let askers: Vec<_> = audit.of_kind("issue").map(|record| record.text("asked_by")).collect();
    assert_eq!(askers, [SIDECAR]);
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_pinned_to_a_session_by_its_listeners_name() {
    let bound = "{name: pinned, credentials: [custom], bind: {listener: attache}}";
    let scene = Scene::start(SIDECAR, Plan::default().missing_placeholder("inject").session(bound)).await;
    scene.stack.broker.evidence().connection("pinned", &format!("to {}", scene.stack.proxy));
    let host = "api.custom.test";
    let answer = scene.stack.agent().get(scene.stack.proxy, host, "/v1/x", &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Another Envoy that says it is that listener is told that nobody is.
    let claim = json!({"listener": "attache"});
    let ask = async |id: &str, worker: &str| {
        let nonce = "0123456789abcdef0123456789abcdef";
        let body = json!({"nonce": nonce, "worker": worker, "destination": format!("{host}:443"), "evidence": claim});
        scene.caller(id).ask("POST", "/v1/grants", &body).await.expect("an answer").json()
    };
    assert_eq!(reason(&ask(READER, MINE).await), "identity_required");
    assert_eq!(reason(&ask(SIDECAR, THEIRS).await), "granted");
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sidecar_shows_or_claims_of_others_is_unknown() {
    let scene = Scene::start(GATEWAY, plan()).await;
    let sidecar = scene.caller(SIDECAR);
    let exported = |session: &str, name: &str| scene.stack.broker.exported(session, name);
    let own = json!({"placeholder": digest(&exported("writer", "GITHUB_TOKEN"))});
    let theirs = digest(&exported("reader", "GITHUB_TOKEN"));
    assert_eq!(reason(&sidecar.grant(MINE, own.clone()).await), "granted");
    let unknown = json!({"placeholder": digest("ghp_ATTACHE_of_nobody")});
    let ended = {
        scene.stack.broker.json(&["session", "create", "gone", "--credential", "github"]);
        let placeholder = exported("gone", "GITHUB_TOKEN");
        scene.stack.broker.json(&["session", "revoke", "gone"]);
        json!({"placeholder": digest(&placeholder)})
    };
    for (what, evidence, why) in [
        ("a placeholder of another session", json!({"placeholder": theirs}), "placeholder_unknown"),
        (
            "its token",
            json!({"session_token": digest(&exported("reader", "ATTACHE_SESSION_TOKEN"))}),
            "placeholder_unknown",
        ),
        ("one that is over", ended, "placeholder_unknown"),
        ("one that never was", unknown, "placeholder_unknown"),
        ("a peer that it claims", json!({"peer": AGENT}), "identity_required"),
        ("a listener that it claims", json!({"listener": "inner"}), "identity_required"),
        (
            "both beside its own",
            json!({"placeholder": own["placeholder"], "session_token": digest(&exported("reader", "ATTACHE_SESSION_TOKEN"))}),
            "placeholder_unknown",
        ),
    ] {
        assert_eq!(reason(&sidecar.grant(MINE, evidence).await), why, "{what}");
    }
    // A gateway asks for all of them.
    let gateway = scene.caller(GATEWAY);
    assert_eq!(reason(&gateway.grant(THEIRS, json!({"placeholder": theirs})).await), "granted");
    assert_eq!(
        reason(&gateway.grant(THEIRS, json!({"listener": "inner"})).await),
        "identity_required",
        "no credential of that here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_told_nothing_that_it_has_no_use_for() {
    let scene = Scene::start(GATEWAY, plan()).await;
    let (sidecar, gateway) = (scene.caller(SIDECAR), scene.caller(GATEWAY));
    let tunnel =
        json!({"nonce": "0123456789abcdef0123456789abcdef", "worker": MINE, "host": HOST, "port": 443, "evidence": {}});
    for (method, path, body) in [
        ("POST", "/v1/tunnels", tunnel),
        ("GET", "/readyz", Value::Null),
        ("GET", "/metrics", Value::Null),
        ("POST", "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", Value::Null),
        ("GET", "/nothing", Value::Null),
        ("GET", "//readyz", Value::Null),
        ("GET", "/readyz/", Value::Null),
        ("GET", "/v1/policy/../../readyz", Value::Null),
        ("GET", "/%72eadyz", Value::Null),
    ] {
        assert_eq!(sidecar.ask(method, path, &body).await.expect("an answer").status, 403, "{path}");
    }
    assert_eq!(sidecar.ask("GET", "/v1/policy", &Value::Null).await.expect("an answer").status, 200);
    assert_eq!(gateway.ask("GET", "/readyz", &Value::Null).await.expect("an answer").status, 200);

    // Of changes it hears what concerns it.
    let poll = |caller, worker: &'static str| {
        let caller: &crate::scene::Caller = caller;
        async move {
            let path = format!("/v1/changes?worker={worker}&wait_ms=0");
            caller.ask("GET", &path, &Value::Null).await.expect("an answer").json()
        }
    };
    let first = poll(&sidecar, MINE).await;
    let id = |name: &str| scene.stack.broker.json(&["session", "show", name])["id"].as_str().map(str::to_owned);
    let (own, other) = (id("writer"), id("reader"));
    for session in ["reader", "writer"] {
        scene.stack.broker.cli(&["session", "set-access-mode", session, "read-only"]);
    }
    let path = format!(
        "/v1/changes?worker={MINE}&epoch={}&after={}&wait_ms=0",
        first["epoch"].as_str().unwrap(),
        first["cursor"]
    );
    let heard = sidecar.ask("GET", &path, &Value::Null).await.expect("an answer").json();
    let path = path.replace(MINE, THEIRS);
    let all = gateway.ask("GET", &path, &Value::Null).await.expect("an answer").json();
    let ids = |heard: &Value| -> Vec<Option<String>> {
        heard["changes"].as_array().unwrap().iter().map(|one| one["session_id"].as_str().map(str::to_owned)).collect()
    };
    assert!(ids(&heard).contains(&own) && !ids(&heard).contains(&other), "{heard:#}");
    assert!(ids(&all).contains(&own) && ids(&all).contains(&other), "{all:#}");
    assert_eq!(heard["cursor"], all["cursor"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_acknowledges_or_tells_in_anothers_name() {
    let scene = Scene::start(GATEWAY, plan()).await;
    let (sidecar, reader, gateway) = (scene.caller(SIDECAR), scene.caller(READER), scene.caller(GATEWAY));
    let placeholder = scene.stack.placeholder("writer", "github");
    assert_eq!(scene.stack.get(HOST, "/user", &placeholder).await.status, 200);
    // The workers of the real Envoy, as nobody is told; and one that is the sidecar's.
    let (audit, _) = Audit::read(Some(&scene.stack.dir().join("state/default/audit.jsonl")));
    let real = audit.of_kind("issue").map(|record| record.text("issued_to")).next().expect("a worker");
    assert_eq!(
        sidecar
            .ask("GET", &format!("/v1/changes?worker={MINE}&wait_ms=0"), &Value::Null)
            .await
            .expect("an answer")
            .status,
        200
    );

    let nonce = "0123456789abcdef0123456789abcdef";
    let evidence = json!({"placeholder": digest(&placeholder)});
    let id = scene.stack.broker.json(&["session", "show", "writer"])["id"].clone();
    let intent = |worker: &str, session: &Value, name: &str| {
        json!({
            "nonce": nonce, "worker": worker, "intent": 1, "at_ms": 1, "request_id": "r", "method": "GET",
            "authority": HOST, "path": "/", "evidence": "placeholder", "destination": format!("{HOST}:443"),
            "service": "github", "session_id": session, "session": name, "access_mode": "read-write",
            "credential": "github", "lease_id": "l-1", "fingerprint": "0123456789abcdef",
        })
    };
    let record = |seq: u64, session: &Value, name: &str| {
        json!({
            "seq": seq, "kind": "use", "at_ms": 1, "duration_ms": 1, "request_id": "r", "method": "GET", "authority": HOST,
            "path": "/forged", "decision": "forward", "response_code": 200, "auth_injected": true, "evidence": "placeholder",
            "session_id": session, "session": name,
        })
    };
    let spelt_otherwise = real.to_uppercase();
    for worker in [real.as_str(), &spelt_otherwise, MINE] {
        // An id has one spelling: in another it is none.
        let status = if worker.chars().any(|c| c.is_ascii_uppercase()) { 400 } else { 403 };
        let grant =
            json!({"nonce": nonce, "worker": worker, "destination": format!("{HOST}:443"), "evidence": evidence});
        for (method, path, body) in [
            ("GET", format!("/v1/changes?worker={worker}&after=99&wait_ms=0"), Value::Null),
            ("POST", format!("/v1/audit?worker={worker}"), record(1, &id, "writer")),
            ("POST", "/v1/grants".into(), grant),
            ("POST", "/v1/intents".into(), intent(worker, &id, "writer")),
        ] {
            let answer = reader.ask(method, &path, &body).await.expect("an answer");
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
    }
    // In its own name, but of another's session.
    let other = scene.stack.broker.json(&["session", "show", "reader"])["id"].clone();
    for (session, name) in [(&other, "reader"), (&other, "writer"), (&id, "reader")] {
        let told = sidecar.ask("POST", &format!("/v1/audit?worker={MINE}"), &record(1, session, name)).await;
        assert_eq!(told.expect("an answer").status, 403, "{session} {name}");
        let told = sidecar.ask("POST", "/v1/intents", &intent(MINE, session, name)).await.expect("an answer");
        assert_eq!((told.status, &told.json()["recorded"]), (200, &Value::Bool(false)), "{session} {name}");
    }
    let told = sidecar.ask("POST", &format!("/v1/audit?worker={MINE}"), &record(1, &id, "writer")).await;
    assert_eq!(told.expect("an answer").json()["acked"], 1, "its own it tells");
    let told = sidecar.ask("POST", "/v1/intents", &intent(MINE, &id, "writer")).await.expect("an answer");
    assert_eq!(told.json()["recorded"], true);
    // Nothing of it is in the log, and the real worker's own records are.
    util::eventually(SOON, || {
        let (audit, _) = Audit::read(Some(&scene.stack.dir().join("state/default/audit.jsonl")));
        audit.of_kind("use").any(|record| record.text("worker") == real)
    })
    .await;
    let log = std::fs::read_to_string(scene.stack.dir().join("state/default/audit.jsonl")).expect("a log");
    assert_eq!(log.matches("/forged").count(), 1, "what it told of itself");
    assert_eq!(
        gateway
            .ask("GET", &format!("/v1/changes?worker={THEIRS}&wait_ms=0"), &Value::Null)
            .await
            .expect("an answer")
            .status,
        200
    );
}
