//! All of it together: the real broker, its certificates, its records. A client has a proxy, a token and
//! a placeholder, trusts one authority more, and says nothing else.

use attache_tests::agent::H1;
use attache_tests::oracle::Audit;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Attache, Stack, ca, util};

use super::{HOST, basic};

async fn start() -> Stack<Attache> {
    Plan::default().forward_proxy().start().await
}

/// A tunnel in which TLS ends at the proxy, opened as a client opens it.
async fn open(stack: &Stack<Attache>, session: &str, host: &str) -> H1 {
    let token = stack.broker.exported(session, "ATTACHE_SESSION_TOKEN");
    let mut client = stack.agent().h1(stack.proxy).await;
    let authority = format!("{host}:443");
    let answer = client.connect(&authority, &[("proxy-authorization", &basic(&token))]).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let trusted = stack.dir().join("trusted.pem");
    let exported = stack.broker.cli(&["ca", "export"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    std::fs::write(&trusted, exported.stdout).expect("what is to be trusted");
    let wire = client.into_tls(host, ca::client_trusting(&trusted, &["http/1.1"])).await.expect("a handshake");
    stack.agent().h1_over(wire, format!("in a tunnel to {authority}, opened with {token}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_the_proxy_uses_credentials_that_it_never_sees() {
    let stack = start().await;
    let placeholder = stack.placeholder("writer", "github");
    let bearer = format!("Bearer {placeholder}");
    let mut inside = open(&stack, "writer", HOST).await;
    for path in ["/user", "/user/repos"] {
        let answer = inside.request("GET", HOST, path, &[("authorization", &bearer)], b"").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let hits = stack.upstream().hits();
    assert_eq!(hits.len(), 2, "both with the credential");

    // Another session's placeholder in this tunnel.
    let theirs = format!("Bearer {}", stack.placeholder("reader", "github"));
    let answer = inside.request("GET", HOST, "/user", &[("authorization", &theirs)], b"").await.expect("an answer");
    assert_eq!(super::reason(&answer), "evidence_conflict");

    // A reader's tunnel writes nothing.
    let mut reading = open(&stack, "reader", HOST).await;
    let answer = reading.request("POST", HOST, "/user/repos", &[("authorization", &theirs)], b"{}").await;
    assert_eq!(super::reason(&answer.expect("an answer")), "read_only");

    drop((inside, reading));
    let log = stack.dir().join("state/default/audit.jsonl");
    util::eventually(SOON, || Audit::read(Some(&log)).0.of_kind("tunnel").count() == 2).await;
    let (audit, _) = Audit::read(Some(&log));
    let tunnels: Vec<_> =
        audit.of_kind("tunnel").map(|record| (record.text("session"), record.text("decision"))).collect();
    assert!(tunnels.contains(&("writer".into(), "intercept".into())), "{tunnels:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_session_ends_its_tunnels_and_opens_no_more() {
    let stack = start().await;
    let placeholder = stack.placeholder("writer", "github");
    let mut inside = open(&stack, "writer", HOST).await;
    let bearer = format!("Bearer {placeholder}");
    let answer = inside.request("GET", HOST, "/user", &[("authorization", &bearer)], b"").await.expect("an answer");
    assert_eq!(answer.status, 200);
    let token = stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    let done = stack.broker.json(&["session", "revoke", "writer"]);
    assert_eq!(done["applied"]["waiting"], serde_json::json!([]), "{done:#}");
    assert!(inside.rest(SOON).await.is_ok(), "the tunnel was cut");
    let mut client = stack.agent().h1(stack.proxy).await;
    let answer =
        client.connect("api.github.com:443", &[("proxy-authorization", &basic(&token))]).await.expect("an answer");
    assert_eq!((answer.status, super::reason(&answer).as_str()), (407, "session_expired"));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_the_certificate_is_on_record() {
    let stack = start().await;
    // Two that end in order before are not: one that has asked for something, and one that has not.
    let mut inside = open(&stack, "writer", HOST).await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let answer = inside.request("GET", HOST, "/user", &[("authorization", &bearer)], b"").await.expect("an answer");
    assert_eq!(answer.status, 200);
    let idle = open(&stack, "writer", HOST).await;
    for mut ended in [inside, idle] {
        ended.finish().await.expect("a last word");
    }
    let token = stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    let mut client = stack.agent().h1(stack.proxy).await;
    let answer =
        client.connect("api.github.com:443", &[("proxy-authorization", &basic(&token))]).await.expect("an answer");
    assert_eq!(answer.status, 200);
    // It trusts another authority.
    let refused = client.into_tls(HOST, stack.site.ca.client(&["http/1.1"])).await;
    assert!(refused.is_err());
    let log = stack.dir().join("state/default/audit.jsonl");
    let told = || {
        let (audit, _) = Audit::read(Some(&log));
        let mut denied = audit.of_kind("deny").filter(|record| record.text("reason") == "handshake_failed");
        denied.next().map(|record| (record.text("authority"), record.text("details")))
    };
    let (authority, details) = util::eventually_some(SOON, told).await;
    assert_eq!(authority, HOST);
    assert!(details.contains("UNKNOWN_CA"), "{details}");
    stack.reconcile().await;
}
