//! `http://` through the proxy: to what is reached without TLS, by the same rules, and to nothing else.

use attache_tests::fake_broker::Grant;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{FakeBroker, Reply, Response, Stack, Upstream};

use super::{HOST, basic, reason, start, token};

const LAB: &str = "lab.extra.test";
const SECRET: &str = "lab-token-0123456789-abcdefghij";

/// A destination without TLS, with a rule that asks for a body, and whoever serves it.
async fn with_lab(access_mode: &'static str) -> (Stack<FakeBroker>, Upstream) {
    let lab = Upstream::plain().start().await;
    let yaml = format!(
        "{{source: {{file: lab}}, inject: bearer, agent_env: {{LAB: placeholder}}, destinations: [{{host: {LAB}, \
         plaintext: true, access: {{graphql: {{paths: [/graphql]}}}}, upstream: {{address: '{}'}}}}]}}",
        lab.addr()
    );
    let stack = start(Plan::default().credential("lab", SECRET, &yaml)).await;
    stack.site.oracle.upstream("lab", &lab, &[("lab", "lab.extra.test:80")]);
    stack.broker.answer_grants(move |_| {
        let grant = Grant::header("lab", "authorization", &format!("Bearer {SECRET}"));
        Grant { mask: vec![SECRET.into()], access_mode: access_mode.into(), ..grant }.answer()
    });
    (stack, lab)
}

async fn ask(stack: &Stack<FakeBroker>, method: &str, host: &str, target: &str, body: &str) -> Response {
    let (mine, bearer) = (basic(&token("mine")), format!("Bearer {}", stack.placeholder()));
    let headers = [
        ("proxy-authorization", mine.as_str()),
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let mut client = stack.agent().h1(stack.proxy).await;
    client.request(method, host, target, &headers, body.as_bytes()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reached_without_tls_is_reached_by_its_url() {
    let (stack, lab) = with_lab("read-write").await;
    let echo = Reply::new(200).body(format!("you sent {SECRET}\n"));
    lab.answer_with(move |_| echo.clone());
    // In absolute form, as clients of a proxy ask, and by Host alone.
    for (n, target) in
        (1..).zip(["http://lab.extra.test/items?a=1", "http://lab.extra.test:80/items?a=1", "/items?a=1"])
    {
        let answer = ask(&stack, "POST", LAB, target, "{}").await;
        assert_eq!((answer.status, answer.text()), (200, format!("you sent {}\n", "*".repeat(SECRET.len()))));
        let hits = lab.hits();
        assert_eq!(hits.len(), n, "{target}");
        let hit = &hits[n - 1];
        assert_eq!(
            (hit.path_text(), hit.header("authorization")),
            ("/items?a=1".into(), Some(format!("Bearer {SECRET}")))
        );
        for name in ["proxy-authorization", "x-attache-session", "x-forwarded-for", "via"] {
            assert_eq!(hit.header(name), None, "{name}");
        }
    }
    // Where TLS is asked for, nothing goes without.
    for target in ["https://lab.extra.test/items", "https://lab.extra.test:80/items", "https://api.github.com/user"] {
        let answer = ask(&stack, "GET", LAB, target, "").await;
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
    }
    assert_eq!(lab.requests().len(), 3);
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_reads_by_its_url_as_well() {
    let (stack, lab) = with_lab("read-only").await;
    for (method, path, body, expected) in [
        ("GET", "/items", "", "200"),
        ("POST", "/items", "{}", "read_only"),
        ("POST", "/graphql", r#"{"query":"{a}"}"#, "200"),
        ("POST", "/graphql", r#"{"query":"mutation{a}"}"#, "read_only"),
        ("POST", "/graphql", "{", "body_unreadable"),
    ] {
        let answer = ask(&stack, method, LAB, &format!("http://{LAB}{path}"), body).await;
        assert_eq!(reason(&answer), expected, "{method} {path} {body}");
    }
    assert_eq!(lab.hits().len(), 2);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_of_who_asks_reaches_nothing() {
    let (stack, lab) = with_lab("read-write").await;
    let bearer = format!("Bearer {}", stack.placeholder());
    for (host, target, expected) in [
        (LAB, "http://lab.extra.test/", (407, "identity_required")),
        (LAB, "/", (407, "identity_required")),
        (HOST, "/", (403, "tls_required")),
        ("unknown.test", "http://unknown.test/", (403, "host_not_allowed")),
        ("unknown.test", "http://unknown.test/health", (403, "host_not_allowed")),
    ] {
        let mut client = stack.agent().h1(stack.proxy).await;
        let headers = [("authorization", bearer.as_str())];
        let answer = client.request("GET", host, target, &headers, b"").await.expect("an answer");
        assert_eq!((answer.status, &*reason(&answer)), expected, "{target} at {host}");
    }
    assert_eq!(lab.requests().len(), 0);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_itself_says_whether_it_is_well() {
    let stack = Plan::default().forward_proxy().edit(super::with_certificate).start().await;
    stack.envoy.wait_stat("cluster.attache_broker_health.membership_healthy", |healthy| healthy == 1, SOON).await;
    for own in [stack.proxy.to_string(), "localhost:3030".into(), "[::1]:3030".into(), "proxy".into()] {
        assert_eq!(stack.agent().get(stack.proxy, &own, "/health", &[]).await.status, 200, "{own}");
    }
    // That of a host is the host's.
    for (host, target, expected) in [
        ("some.host", "http://some.host/health", "host_not_allowed"),
        ("some.host", "/health", "host_not_allowed"),
        (HOST, "/health", "tls_required"),
    ] {
        assert_eq!(reason(&stack.agent().get(stack.proxy, host, target, &[]).await), expected, "{target} at {host}");
    }
    stack.reconcile().await;
}
