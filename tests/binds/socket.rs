//! The gateway's socket beside its port.

use attache_core::refusal::Reason;
use attache_tests::agent::PATIENCE;
use attache_tests::stack::Plan;
use attache_tests::{Attache, Response, Stack, refusal};

use crate::scene::{HOST, evidence_of, required, said, served};

/// One request by the socket, through the way that the oracle sees.
async fn ask(stack: &Stack<Attache>, method: &str, session: &str) -> Response {
    let (agent, seen) = (stack.agent(), stack.dir().join(format!("seen-{session}-{method}")));
    let _relay = agent.socket(&seen, stack.config.listen.proxy_socket.as_ref().expect("a socket"));
    let bearer = format!("Bearer {}", stack.placeholder(session, "github"));
    let connection = tokio::net::UnixStream::connect(&seen).await.expect("a connection");
    let io = hyper_util::rt::TokioIo::new(connection);
    let (mut sender, running) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1");
    tokio::spawn(running);
    let request = http::Request::builder().method(method).uri("/user").header("host", HOST);
    let request = request.header("authorization", bearer).body(String::new()).expect("a request");
    let answer =
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    let (head, body) = answer.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.expect("a body").to_bytes().to_vec();
    let fields = attache_tests::Fields::from(&head.headers);
    Response { status: head.status.as_u16(), fields, body, complete: true, ..Response::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_a_way_in_like_the_port_and_has_no_source() {
    let near = "{name: near, credentials: [github], bind: {source: 127.0.0.0/8}}";
    let inside = "{name: inside, credentials: [github], bind: {listener: attache}}";
    let stack = Plan::default().proxy_socket().session(near).session(inside).start().await;
    assert_eq!(said(&ask(&stack, "GET", "reader").await), served());
    refusal::expect(&ask(&stack, "POST", "reader").await, Reason::ReadOnly);
    assert_eq!(said(&ask(&stack, "GET", "near").await), required());
    assert_eq!(said(&ask(&stack, "GET", "inside").await), served());
    assert_eq!(evidence_of(&stack, "inside", 1).await, ["placeholder+listener"]);
    stack.reconcile().await;
}
