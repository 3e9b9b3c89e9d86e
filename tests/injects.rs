//! A credential enters the request in flight, once, where its destination wants it, and nowhere else.

#[path = "injects/missing.rs"]
mod missing;
#[path = "injects/odd_requests.rs"]
mod odd_requests;
#[path = "injects/positions.rs"]
mod positions;
#[path = "injects/sources.rs"]
mod sources;
#[path = "injects/streams.rs"]
mod streams;
#[path = "injects/strips.rs"]
mod strips;
#[path = "injects/tls.rs"]
mod tls;

use attache_tests::stack::SOON;
use attache_tests::{Recorded, Response, Stack};

/// The same request over HTTP/1 and over HTTP/2 with prior knowledge; both answers.
async fn both_ways<B>(
    stack: &Stack<B>,
    method: &str,
    host: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> [Response; 2] {
    let first = stack.agent().request(stack.proxy, method, host, target, headers, b"").await;
    let second = stack.agent().h2(stack.proxy).await.request(method, host, target, headers, b"").await;
    [first, second.unwrap_or_else(|why| panic!("{method} {host}{target} over HTTP/2: {why}"))]
}

/// Both must be answered 200; the two requests that arrived, the latest ones.
async fn both_arrive<B>(stack: &Stack<B>, host: &str, target: &str, headers: &[(&str, &str)]) -> Vec<Recorded> {
    let before = stack.upstream().requests().len();
    for answer in both_ways(stack, "GET", host, target, headers).await {
        assert_eq!(answer.status, 200, "{host}{target}: {}", answer.text());
    }
    let arrived = stack.upstream().wait_for(before + 2, SOON).await;
    assert_eq!(arrived.len(), before + 2, "one request each");
    arrived[before..].to_vec()
}

/// Everything of a request's head, in one text to search.
fn head(request: &Recorded) -> String {
    let parts = [&request.method[..], &request.path[..], &request.authority[..], &request.fields.to_lines()];
    String::from_utf8_lossy(&parts.join(&b'\n')).into_owned()
}
