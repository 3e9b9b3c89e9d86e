//! Bodies of any size and pace pass through, both ways.

use attache_tests::Reply;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::upstream::Part;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_download_arrives_whole() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("reader", "github");
    let size = 6 * MIB + 7;
    let answer = stack.get("api.github.com", &format!("/bytes/{size}"), &placeholder).await;
    assert!(answer.complete && answer.body.len() == size, "{} bytes", answer.body.len());
    let bearer = format!("Bearer {placeholder}");
    let mut h2 = stack.agent().h2(stack.proxy).await;
    let answer =
        h2.request("GET", "api.github.com", &format!("/bytes/{size}"), &[("authorization", &bearer)], b"").await;
    let answer = answer.expect("an answer");
    assert!(answer.complete && answer.body.len() == size, "{} bytes", answer.body.len());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_arrives_whole() {
    let stack = Plan::default().start().await;
    let placeholder = stack.placeholder("writer", "custom");
    // Over every buffer of Envoy's, on a request that has to wait for its grant.
    let body: Vec<u8> = (0..5 * MIB).map(|n| (n % 251) as u8).collect();
    let answer = stack.send("POST", "api.custom.test", "/v1/x", &placeholder, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hits = stack.upstream().wait_for(1, SOON).await;
    assert!(hits[0].body == body, "{} of {} bytes", hits[0].body_len, body.len());
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one() {
    let stack = Plan::default().start().await;
    let bearer = format!("Bearer {}", stack.placeholder("reader", "github"));
    let events = stack.agent().get(stack.proxy, "api.github.com", "/sse?n=5", &[("authorization", &bearer)]).await;
    assert!(events.complete && events.text().matches("data: event").count() == 5, "{}", events.text());
    assert_eq!(events.header("content-type").as_deref(), Some("text/event-stream"));

    // The first event is here while the upstream has not ended its answer, and never will.
    stack.upstream().answer_with(|_| {
        let first = Reply::new(200).field("content-type", "text/event-stream").chunked();
        first.body("data: first\n\n").part(Part::Hang)
    });
    let mut agent = stack.agent().h1(stack.proxy).await;
    let head = format!("GET /events HTTP/1.1\r\nHost: api.github.com\r\nAuthorization: {bearer}\r\n\r\n");
    agent.send(head).await.expect("a request is sent");
    assert_eq!(agent.head(SOON).await.expect("a head").status, 200);
    let mut first = Vec::new();
    while !first.ends_with(b"\n\n") {
        let piece = agent.piece(SOON).await.expect("a piece in time");
        first.extend_from_slice(&piece.expect("the stream is open"));
    }
    assert_eq!(first, b"data: first\n\n");
    drop(agent);
    assert_eq!(
        stack.upstream().hits().last().and_then(|hit| hit.header("authorization")),
        Some(format!("Bearer {GITHUB}"))
    );
    stack.reconcile().await;
}
