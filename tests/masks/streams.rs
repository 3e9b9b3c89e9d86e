//! Answers that go on and on: what is no secret is not kept waiting.

use std::sync::Arc;

use attache_tests::agent::H1;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::upstream::{Held, Part};
use attache_tests::{Attache, Reply, Stack};

use super::{HOST, stars};

/// A stream whose head has come.
async fn begun(stack: &Stack<Attache>) -> H1 {
    let bearer = format!("Bearer {}", stack.placeholder("writer", "github"));
    let mut agent = stack.agent().h1(stack.proxy).await;
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {bearer}\r\n\r\n");
    agent.send(head).await.expect("a request is sent");
    assert_eq!(agent.head(SOON).await.expect("a head").status, 200);
    agent
}

/// What comes until it ends so.
async fn until(agent: &mut H1, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let piece = agent.piece(SOON).await.expect("a piece in time");
        text.extend_from_slice(&piece.expect("the stream is open"));
    }
    String::from_utf8(text).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_before_the_next_is_sent() {
    let stack = Plan::default().start().await;
    let held = Arc::new(Held::default());
    let reply = Reply::new(200).field("content-type", "text/event-stream").chunked();
    let reply = reply.body(format!("data: first {GITHUB}\n\n")).part(Part::Held(Arc::clone(&held)));
    let reply = reply.body("data: second\n\n");
    stack.upstream().answer_with(move |_| reply.clone());
    let mut agent = begun(&stack).await;
    assert_eq!(until(&mut agent, "\n\n").await, format!("data: first {}\n\n", stars(GITHUB.len())));
    held.go();
    assert_eq!(until(&mut agent, "\n\n").await, "data: second\n\n");
    assert_eq!(agent.piece(SOON).await, Ok(None));
    stack.reconcile().await;
}

/// A chunk that ends in what may be the beginning of a secret waits for the next, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_may_end_within_a_secret_waits_for_the_next() {
    let stack = Plan::default().start().await;
    let (one, two) = (Arc::new(Held::default()), Arc::new(Held::default()));
    let (first, second) = GITHUB.split_at(20);
    let reply = Reply::new(200).chunked().body(format!("let go.\n{first}")).part(Part::Held(Arc::clone(&one)));
    let reply = reply.body(second.to_owned() + ".\n").part(Part::Held(Arc::clone(&two))).body("end\n");
    stack.upstream().answer_with(move |_| reply.clone());
    let mut agent = begun(&stack).await;
    assert!(agent.piece(std::time::Duration::from_millis(100)).await.is_err(), "half a secret is no answer");
    one.go();
    let masked = until(&mut agent, "*.\n").await;
    assert_eq!(masked, format!("let go.\n{}.\n", stars(GITHUB.len())));
    two.go();
    assert_eq!(until(&mut agent, "end\n").await, "end\n");
    assert_eq!(agent.piece(SOON).await, Ok(None));
    stack.reconcile().await;
}
