//! Requests that are no plain HTTP/1.1 or HTTP/2 exchange.

use attache_tests::Reply;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::upstream::Part;

use crate::both_ways;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_opens_no_tunnel() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    for (upgrade, more) in [("websocket", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGVzdA==\r\n"), ("h2c", "")]
    {
        let mut agent = stack.agent().h1(stack.proxy).await;
        let head = format!(
            "GET /socket HTTP/1.1\r\nHost: api.github.com\r\nAuthorization: {bearer}\r\nConnection: Upgrade\r\n\
             Upgrade: {upgrade}\r\n{more}\r\n"
        );
        agent.send(head).await.expect("a request is sent");
        let answer = agent.response(SOON).await.expect("an answer");
        // Envoy offers no upgrade; one that HTTP allows to ignore (h2c) goes on as plain HTTP/1.1.
        assert_eq!(answer.status, if upgrade == "h2c" { 200 } else { 426 }, "{upgrade}");
        for hit in stack.upstream().requests() {
            assert!(!hit.fields.has("upgrade") && !hit.fields.has("sec-websocket-key"), "{upgrade}: {hit:#?}");
        }
    }
    assert_eq!(stack.upstream().requests().len(), 1, "only the one without its upgrade");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_answered_and_goes_nowhere() {
    let stack = Plan::default().start().await;
    let mut agent = stack.agent().h1(stack.proxy).await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let head = format!("GET /user HTTP/1.0\r\nHost: api.github.com\r\nAuthorization: {bearer}\r\n\r\n");
    agent.send(head).await.expect("a request is sent");
    assert_eq!(agent.response(SOON).await.expect("an answer").status, 426);
    assert!(stack.upstream().requests().is_empty());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_injected_and_has_no_body() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("reader", "github"));
    for answer in both_ways(&stack, "HEAD", "api.github.com", "/bytes/1000", &[("authorization", &bearer)]).await {
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.header("content-length").as_deref(), Some("1000"));
    }
    for hit in stack.upstream().wait_for(2, SOON).await {
        assert_eq!((&hit.method[..], hit.header("authorization")), (&b"HEAD"[..], Some(format!("Bearer {GITHUB}"))));
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_breaks_off_for_the_agent_too() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    stack.upstream().answer_with(|_| Reply::new(200).field("content-length", "1000").body("short").part(Part::Reset));
    stack.site.oracle.excuse("/cut");
    let end = tokio::time::Instant::now() + SOON;
    let cut = loop {
        let answer = stack.get("api.github.com", "/cut", &placeholder).await;
        // A reset that arrives together with the head overtakes it: then there is no answer to cut.
        if answer.status != 503 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < end, "the head never came first");
    };
    assert!(cut.status == 200 && !cut.complete, "a cut body is not passed off as whole: {cut:?}");
    stack.upstream().answer_with(|_| Reply::reset());
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 503);
    stack.upstream().answer_with(|_| Reply::new(204));
    assert_eq!(stack.get("api.github.com", "/user", &placeholder).await.status, 204);
    stack.reconcile().await;
}
