//! Sessions that are bound to where a connection comes from, and by which listener.

use std::net::SocketAddr;

use attache_tests::agent::{Wire, head};
use attache_tests::stack::{CUSTOM, Plan, SOON};
use attache_tests::upstream::{Held, Part};
use attache_tests::util::eventually;
use attache_tests::{Attache, Reply, Stack};
use tokio::net::TcpSocket;

use crate::scene::{HOST, add_listener, conflict, evidence_of, required, said, served};

/// One GET from this loopback address; status and reason.
async fn from(stack: &Stack<Attache>, source: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("a loopback address");
    let wire = Wire::Plain(socket.connect(stack.proxy).await.expect("the proxy"));
    let mut connection = stack.agent().h1_over(wire, format!("HTTP/1 from {source}"));
    said(&connection.request("GET", HOST, "/user", headers, b"").await.unwrap_or_else(|why| panic!("{why}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_the_connections_own_whatever_headers_say() {
    let plan = Plan::default()
        .session("{name: near, credentials: [github], bind: {source: 127.0.0.2/32}}")
        .session("{name: far, credentials: [github], bind: {source: 10.0.0.0/8}}");
    let stack = plan.start().await;
    let bearer = |session: &str| format!("Bearer {}", stack.placeholder(session, "github"));
    let (near, far) = (bearer("near"), bearer("far"));
    assert_eq!(from(&stack, "127.0.0.2", &[("authorization", &near)]).await, served());
    assert_eq!(from(&stack, "127.0.0.1", &[("authorization", &near)]).await, conflict());
    for (claim, wanted) in [("10.1.2.3", &far), ("127.0.0.2", &near)] {
        let forwarded = format!("for={claim}");
        for header in [
            ("x-forwarded-for", claim),
            ("x-real-ip", claim),
            ("forwarded", forwarded.as_str()),
            ("x-envoy-external-address", claim),
            ("true-client-ip", claim),
        ] {
            let headers = [("authorization", wanted.as_str()), header];
            assert_eq!(from(&stack, "127.0.0.1", &headers).await, conflict(), "{header:?}");
            let answer = stack.agent().h2(stack.proxy).await.request("GET", HOST, "/user", &headers, b"").await;
            assert_eq!(said(&answer.unwrap_or_else(|why| panic!("{why}"))), conflict(), "{header:?} over HTTP/2");
        }
    }
    // An address narrows a session and names none, and other sessions are what they were.
    assert_eq!(from(&stack, "127.0.0.2", &[]).await, required());
    assert_eq!(from(&stack, "127.0.0.1", &[("authorization", &bearer("writer"))]).await, served());
    assert_eq!(evidence_of(&stack, "near", 1).await, ["placeholder+source"]);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_admits_its_sessions_and_names_the_one_that_is_bound_to_it() {
    let plan = Plan::default()
        .missing_placeholder("inject")
        .session("{name: inside, credentials: [github, custom], bind: {listener: inner}}")
        .edit(|bootstrap| add_listener(bootstrap, "inner", None));
    let stack = plan.start().await;
    let inner = stack.envoy.addr("inner").await;
    stack.broker.evidence().connection("inside", &format!("to {inner}"));
    let bearer = format!("Bearer {}", stack.placeholder("inside", "github"));
    let agent = stack.agent();
    let ask = async |at, host: &str, headers: &[(&str, &str)]| said(&agent.get(at, host, "/v1/x", headers).await);
    let shown = [("authorization", bearer.as_str())];
    // In this order: what one listener's worker has cached must serve no other.
    assert_eq!(ask(inner, HOST, &shown).await, served());
    assert_eq!(ask(stack.proxy, HOST, &shown).await, conflict());
    assert_eq!(ask(inner, HOST, &shown).await, served());
    assert_eq!(ask(inner, "api.custom.test", &[]).await, served());
    assert_eq!(ask(stack.proxy, "api.custom.test", &[]).await, required());
    let hits = stack.upstream().wait_for(3, SOON).await;
    assert_eq!(hits[2].fields.all("x-custom-key"), [format!("Key {CUSTOM}").as_bytes()]);
    let words = evidence_of(&stack, "inside", 3).await;
    assert_eq!(words, ["placeholder+listener", "placeholder+listener", "listener"]);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_of_a_listener_takes_away_what_the_connection_alone_had_got() {
    let plan = Plan::default()
        .missing_placeholder("inject")
        .session("{name: inside, credentials: [custom], bind: {listener: inner}}")
        .edit(|bootstrap| add_listener(bootstrap, "inner", None));
    let stack = plan.start().await;
    let inner = stack.envoy.addr("inner").await;
    stack.broker.evidence().connection("inside", &format!("to {inner}"));
    let key = format!("Key {}", stack.placeholder("inside", "custom"));
    let (agent, host) = (stack.agent(), "api.custom.test");
    let ask = async |headers: &[(&str, &str)]| said(&agent.get(inner, host, "/v1/x", headers).await);
    let named = [("x-custom-key", key.as_str())];
    assert_eq!((ask(&[]).await, ask(&named).await), (served(), served()));
    // One stream of each, that does not end.
    let held = std::sync::Arc::new(Held::default());
    let part = Part::Held(std::sync::Arc::clone(&held));
    stack.upstream().answer_with(move |_| Reply::new(200).chunked().body("first").part(part.clone()).body("last"));
    let mut h2 = stack.agent().h2(inner).await;
    let unnamed = h2.start(head("GET", host, "/v1/x", &[]), true).await.expect("begun");
    let kept = h2.start(head("GET", host, "/v1/x", &named), true).await.expect("begun");
    eventually(SOON, || held.waiting() == 2).await;

    stack.broker.json(&["session", "create", "second", "--credential", "custom", "--bind-listener", "inner"]);
    assert_eq!(ask(&[]).await, conflict(), "whatever was cached");
    eventually(SOON, || held.left() == 1).await;
    held.go();
    assert!(unnamed.response(SOON).await.map_or(true, |answer| !answer.complete), "cut");
    let kept = kept.response(SOON).await.unwrap_or_else(|why| panic!("{why}"));
    assert!(kept.complete && kept.text().contains("last"));
    stack.upstream().answer_with(|_| Reply::new(200).body("ok"));
    assert_eq!(ask(&named).await, served());
    let words = evidence_of(&stack, "inside", 5).await;
    assert_eq!(words.iter().filter(|word| *word == "listener").count(), 2, "{words:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_can_be_required_and_then_names_its_session_alone() {
    let plan = Plan::default()
        .missing_placeholder("inject")
        .session("{name: twofold, credentials: [github, custom], bind: {session_token: required}}");
    let stack = plan.start().await;
    let bearer = format!("Bearer {}", stack.placeholder("twofold", "github"));
    let token = |session: &str| stack.broker.exported(session, "ATTACHE_SESSION_TOKEN");
    let (own, others) = (token("twofold"), token("writer"));
    let placeholder = ("authorization", bearer.as_str());
    let agent = stack.agent();
    let ask = async |host: &str, headers: &[(&str, &str)]| said(&agent.get(stack.proxy, host, "/v1/x", headers).await);
    assert_eq!(ask(HOST, &[placeholder]).await, required());
    assert_eq!(ask(HOST, &[placeholder, ("x-attache-session", &own)]).await, served());
    assert_eq!(ask(HOST, &[placeholder, ("x-attache-session", &others)]).await, conflict());
    assert_eq!(ask("api.custom.test", &[("x-attache-session", &own)]).await, served());
    assert_eq!(ask("api.custom.test", &[("x-attache-session", &others)]).await, required());
    assert_eq!(ask(HOST, &[("x-attache-session", &own)]).await, required(), "github asks for its placeholder");
    stack.reconcile().await;
}

/// Nothing in the config binds, so filters read no address until a session that is made later needs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_made_by_an_operator_is_in_force_and_outlives_a_restart() {
    let stack = Plan::default().start().await;
    let writer = format!("Bearer {}", stack.placeholder("writer", "github"));
    assert_eq!(from(&stack, "127.0.0.1", &[("authorization", &writer)]).await, served());
    let made =
        stack.broker.json(&["session", "create", "made", "--credential", "github", "--bind-source", "127.0.0.2/32"]);
    assert_eq!(made["bind"], serde_json::json!({"source": "127.0.0.2/32"}));
    let bearer = format!("Bearer {}", stack.placeholder("made", "github"));
    let shown = [("authorization", bearer.as_str())];
    for round in 0..2 {
        let end = std::time::Instant::now() + SOON;
        // Filters fetch the policy that has them read addresses; until then they refuse.
        loop {
            match from(&stack, "127.0.0.2", &shown).await {
                said if said == served() => break,
                (status, reason) => assert!(status == 401 || status == 503, "{status} {reason}"),
            }
            assert!(std::time::Instant::now() < end, "the binding is not in force (round {round})");
        }
        assert_eq!(from(&stack, "127.0.0.1", &shown).await, conflict());
        if round == 0 {
            stack.broker.restart().await;
        }
    }
    let said = stack.broker.cli(&["session", "show", "made"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.contains("demands     source 127.0.0.2/32"), "{text}");
    let refused =
        stack.broker.cli(&["session", "create", "x", "--credential", "github", "--bind-source", "10.0.0.1/8"]);
    assert_eq!(refused.status.code(), Some(2));
    stack.reconcile().await;
}
