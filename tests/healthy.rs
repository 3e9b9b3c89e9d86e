//! `GET /health` on the proxy: 200 while Envoy serves and the broker is there, yes or no and nothing
//! else, and no way round the filter or to the broker.

use std::time::{Duration, Instant};

use attache_tests::attache::Attache;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Response, Stack};

async fn health(stack: &Stack<Attache>, headers: &[(&str, &str)]) -> Response {
    stack.agent().get(stack.proxy, "anything", "/health", headers).await
}

async fn until(stack: &Stack<Attache>, status: u16) -> Response {
    let end = Instant::now() + SOON;
    loop {
        let answer = health(stack, &[]).await;
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < end, "{} and not {status}", answer.status);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_yes_while_the_broker_is_there_and_no_while_it_is_not() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "github");
    let yes = until(&stack, 200).await;
    stack.broker.kill();
    let no = until(&stack, 503).await;
    for answer in [&yes, &no] {
        assert_eq!(answer.text(), "", "yes or no, and nothing else");
    }
    stack.broker.restart().await;
    until(&stack, 200).await;
    let granted = || stack.get("api.github.com", "/user", &placeholder);
    let end = Instant::now() + SOON;
    while granted().await.status != 200 {
        assert!(Instant::now() < end, "grants leave again");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_by_envoy_alone() {
    let stack = Plan::default().start().await;
    until(&stack, 200).await;
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    assert_eq!(health(&stack, &[("authorization", &bearer)]).await.status, 200);
    // A destination's own /health is a path like any other, and the filter's to decide on.
    let agent = stack.agent();
    for headers in [&[][..], &[("authorization", bearer.as_str())]] {
        let before = stack.upstream().requests().len();
        let answer = agent.get(stack.proxy, "api.github.com", "/health", headers).await;
        let arrived = stack.upstream().requests().len() - before;
        assert_eq!((answer.status, arrived), if headers.is_empty() { (401, 0) } else { (200, 1) });
    }
    for path in ["/health/", "/healthz", "/readyz", "/health/../readyz", "/v1/policy", "/metrics"] {
        let answer = agent.get(stack.proxy, "anything", path, &[]).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    }
    stack.reconcile().await;
}
