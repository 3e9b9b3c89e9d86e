//! Hosts that no destination names, where the config lets them pass.

use attache_core::policy::Unmatched;
use attache_tests::fake_broker::Endpoint;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{FakeBroker, Stack, Upstream};
use serde_json::json;

use super::{Tunnel, basic, connect, reason, start_with, token};

const OTHER: &str = "other.extra.test";

async fn passing(intercepted: bool, plan: Plan) -> Stack<FakeBroker> {
    start_with(plan, move |policy| {
        policy.unmatched = Unmatched::Pass;
        policy.intercept_unmatched = intercepted;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_tunnelled_to_one_port_and_nobody_looks_in() {
    let stack = passing(false, Plan::default()).await;
    let mine = token("mine");
    let mut inside =
        Tunnel::trusting(&stack.site.ca, &stack, &mine, "other.extra.test:443", OTHER).await.expect("a tunnel");
    let answer = inside.ask("POST", OTHER, "/x", "the-agents-own").await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(stack.upstream().requests()[0].header("authorization"), Some("Bearer the-agents-own".into()));
    assert_eq!(stack.broker.calls(Endpoint::Grants), 0);
    drop(inside);
    let record = stack.broker.wait_records(1, SOON).await.remove(0);
    assert_eq!((&record["kind"], &record["decision"]), (&json!("tunnel"), &json!("tunnel")), "{record:#}");
    assert_eq!(record["authority"], "other.extra.test:443", "{record:#}");
    for authority in ["other.extra.test:8443", "other.extra.test:80", "other.extra.test:22", "192.0.2.1:443"] {
        let (_, answer) = connect(&stack, authority, &[("proxy-authorization", &basic(&mine))]).await;
        assert_eq!(reason(&answer), "host_not_allowed", "{authority}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intercepted_they_go_on_untouched_and_without_what_is_ours() {
    let stack = passing(true, Plan::default().trusting_own()).await;
    let mine = token("mine");
    let mut inside = Tunnel::open(&stack, &mine, "other.extra.test:443", OTHER).await.expect("a tunnel").client;
    let headers =
        [("authorization", "Bearer the-agents-own"), ("proxy-authorization", "Basic YTpi"), ("x-own", "kept")];
    let answer = inside.request("POST", OTHER, "/x?a=1", &headers, b"body").await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let sent = &stack.upstream().requests()[0];
    assert_eq!((sent.path_text(), &*sent.body, &*sent.authority), ("/x?a=1".into(), &b"body"[..], OTHER.as_bytes()));
    assert_eq!(sent.header("authorization"), Some("Bearer the-agents-own".into()));
    assert_eq!(sent.header("x-own"), Some("kept".into()));
    assert_eq!((sent.header("proxy-authorization"), sent.header("x-attache-session")), (None, None));
    assert_eq!(stack.broker.calls(Endpoint::Grants), 0);
    for (name, value) in [
        ("authorization", format!("Bearer {}", stack.placeholder())),
        ("x-anything", stack.placeholder()),
        ("x-attache-session", mine.clone()),
        ("proxy-authorization", basic(&mine)),
    ] {
        let answer = inside.request("GET", OTHER, "/x", &[(name, &value)], b"").await.expect("an answer");
        assert_eq!(reason(&answer), "placeholder_misplaced", "{name}");
    }
    assert_eq!(stack.upstream().requests().len(), 1);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intercepted_their_servers_prove_who_they_are() {
    // The system's authorities do not know this test's.
    let stack = passing(true, Plan::default()).await;
    let mut inside = Tunnel::open(&stack, &token("mine"), "other.extra.test:443", OTHER).await.expect("a tunnel");
    let answer = inside.ask("GET", OTHER, "/x", "the-agents-own").await.expect("an answer");
    assert_eq!((answer.status, &*reason(&answer)), (502, "upstream_tls"));
    assert!(answer.json()["detail"].as_str().is_some_and(|why| why.contains("CERTIFICATE_VERIFY_FAILED")));
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_passes_to_port_80() {
    let stack = passing(false, Plan::default()).await;
    let plain = Upstream::plain().start().await;
    let (at, tls) = (plain.addr(), stack.upstream().addr());
    stack.broker.answer_tunnels(move |asked| {
        let address = if asked["plaintext"] == true { at } else { tls };
        json!({"granted": {"address": address.to_string(), "session_id": "session-1"}})
    });
    let mine = basic(&token("mine"));
    for (target, expected) in [
        ("http://other.extra.test/a?b=1", "200"),
        // Not the proxy's own.
        ("http://other.extra.test/health", "200"),
        ("http://other.extra.test:8080/a", "host_not_allowed"),
        ("http://192.0.2.1/a", "host_not_allowed"),
        ("http://api.github.com/user", "tls_required"),
    ] {
        let mut client = stack.agent().h1(stack.proxy).await;
        let headers = [("proxy-authorization", mine.as_str()), ("x-own", "kept")];
        let answer = client.request("GET", OTHER, target, &headers, b"").await.expect("an answer");
        assert_eq!(reason(&answer), expected, "{target}");
    }
    let came: Vec<_> = plain.requests();
    assert_eq!(came.iter().map(|one| one.path_text()).collect::<Vec<_>>(), ["/a?b=1", "/health"]);
    for one in &came {
        assert_eq!((one.header("x-own"), one.header("proxy-authorization")), (Some("kept".into()), None));
    }
    stack.reconcile().await;
}
