//! What streams through a tunnel: nothing waits for what comes after it.

use std::sync::Arc;

use attache_tests::agent::{PATIENCE, head};
use attache_tests::stack::{Plan, SOON};
use attache_tests::upstream::{Held, Part, Progress, Protocol};
use attache_tests::{FakeBroker, Reply, Stack};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::{HOST, Tunnel, h2_inside, start, token};

const TUNNEL: &str = "api.github.com:443";

fn bearer(stack: &Stack<FakeBroker>) -> String {
    format!("Bearer {}", stack.placeholder())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_before_the_next_one_is_sent() {
    let stack = start(Plan::default()).await;
    let (mine, bearer) = (token("mine"), bearer(&stack));
    let authorization = [("authorization", bearer.as_str())];
    for over_h2 in [false, true] {
        let held = Arc::new(Held::default());
        let second = Arc::clone(&held);
        stack.upstream().answer_with(move |_| {
            let events = Reply::new(200).field("content-type", "text/event-stream").chunked();
            events.body("data: one\n\n").part(Part::Held(Arc::clone(&second))).body("data: two\n\n")
        });
        if over_h2 {
            let mut inside = h2_inside(&stack, &mine, TUNNEL, HOST).await;
            let request = head("GET", HOST, "/events", &authorization);
            let mut exchange = inside.start(request, true).await.expect("sent");
            assert_eq!(exchange.head(PATIENCE).await.expect("a head").status, 200);
            assert_eq!(exchange.piece(PATIENCE).await, Ok(Some(Bytes::from("data: one\n\n"))));
            held.go();
            assert_eq!(exchange.piece(PATIENCE).await, Ok(Some(Bytes::from("data: two\n\n"))));
            assert_eq!(exchange.piece(PATIENCE).await, Ok(None));
        } else {
            let mut inside = Tunnel::open(&stack, &mine, TUNNEL, HOST).await.expect("a tunnel").client;
            let head = format!("GET /events HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {bearer}\r\n\r\n");
            inside.send(head).await.expect("sent");
            assert_eq!(inside.head(PATIENCE).await.expect("a head").status, 200);
            assert_eq!(inside.piece(PATIENCE).await, Ok(Some(Bytes::from("data: one\n\n"))));
            held.go();
            assert_eq!(inside.piece(PATIENCE).await, Ok(Some(Bytes::from("data: two\n\n"))));
            assert_eq!(inside.piece(PATIENCE).await, Ok(None));
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_a_tunnel() {
    const STREAMS: usize = 100;
    let stack = start(Plan::default()).await;
    let held = Arc::new(Held::default());
    let all = Arc::clone(&held);
    stack.upstream().answer_with(move |asked| {
        Reply::new(200).chunked().body(asked.path.clone()).part(Part::Held(Arc::clone(&all))).body(" done")
    });
    let mut inside = h2_inside(&stack, &token("mine"), TUNNEL, HOST).await;
    let bearer = bearer(&stack);
    let mut exchanges = Vec::new();
    for n in 0..STREAMS {
        let request = head("POST", HOST, &format!("/{n}"), &[("authorization", &bearer)]);
        let mut exchange = inside.start(request, false).await.expect("sent");
        exchange.data(format!("body {n}").as_bytes(), true).await.expect("sent");
        exchanges.push(exchange);
    }
    // All of them are answered half before one is answered whole.
    for (n, exchange) in exchanges.iter_mut().enumerate() {
        assert_eq!(exchange.head(PATIENCE).await.expect("a head").status, 200, "{n}");
        assert_eq!(exchange.piece(PATIENCE).await, Ok(Some(Bytes::from(format!("/{n}")))));
    }
    assert_eq!(held.waiting(), STREAMS);
    held.go();
    for exchange in &mut exchanges {
        assert_eq!(exchange.piece(PATIENCE).await, Ok(Some(Bytes::from(" done"))));
        assert_eq!(exchange.piece(PATIENCE).await, Ok(None));
    }
    for request in stack.upstream().wait_for(STREAMS, SOON).await {
        let n = request.path_text().trim_start_matches('/').to_owned();
        assert_eq!(request.body, format!("body {n}"));
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_goes_through_with_its_trailers() {
    let stack = start(Plan::default()).await;
    stack.upstream().answer_with(|asked| {
        let grpc = Reply::new(200).field("content-type", "application/grpc").body(asked.body.clone());
        grpc.trailer("grpc-status", "0").trailer("grpc-message", "well done")
    });
    let mut inside = h2_inside(&stack, &token("mine"), TUNNEL, HOST).await;
    let bearer = bearer(&stack);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/grpc"), ("te", "trailers")];
    let call = inside.request("POST", HOST, "/shop.v1.Stock/Get", &headers, b"\0\0\0\0\x02hi").await;
    let answer = call.expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"\0\0\0\0\x02hi"[..]));
    let trailers = ["grpc-status", "grpc-message"].map(|name| answer.trailers.text(name).unwrap_or_default());
    assert_eq!(trailers, ["0", "well done"]);
    let hit = &stack.upstream().hits()[0];
    assert_eq!((hit.protocol, hit.header("te")), (Protocol::Http2, Some("trailers".into())));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_go_both_ways() {
    let stack = start(Plan::default()).await;
    stack.upstream().answer_with(|asked| {
        let sum = asked.trailers.text("x-sum").unwrap_or_default();
        Reply::new(200).body("body").trailer("x-sum-heard", sum)
    });
    let mut inside = h2_inside(&stack, &token("mine"), TUNNEL, HOST).await;
    let bearer = bearer(&stack);
    let request = head("POST", HOST, "/", &[("authorization", &bearer)]);
    let mut exchange = inside.start(request, false).await.expect("sent");
    exchange.data(b"all of it", false).await.expect("sent");
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("17"))]);
    exchange.trailers(trailers).expect("sent");
    let answer = exchange.response(PATIENCE).await.expect("an answer");
    assert_eq!(answer.trailers.text("x-sum-heard"), Some("17".into()), "{answer:?}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let stack = start(Plan::default()).await;
    let mut inside = Tunnel::open(&stack, &token("mine"), TUNNEL, HOST).await.expect("a tunnel").client;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        bearer(&stack)
    );
    inside.send(head).await.expect("sent");
    let continued = inside.interim(PATIENCE).await.expect("told to go on");
    assert_eq!(continued, 100);
    inside.send("body").await.expect("sent");
    let answer = inside.response(PATIENCE).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let hit = &stack.upstream().wait_for(1, SOON).await[0];
    assert_eq!((&*hit.body, hit.header("expect")), (&b"body"[..], None));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_in_the_middle_leaves_nobody_waiting() {
    let stack = start(Plan::default()).await;
    let (mine, bearer) = (token("mine"), bearer(&stack));
    let mut inside = Tunnel::open(&stack, &mine, TUNNEL, HOST).await.expect("a tunnel").client;
    let head =
        format!("PUT /left HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {bearer}\r\nContent-Length: 10000000\r\n\r\n");
    inside.send(head).await.expect("sent");
    inside.send(vec![b'x'; 1 << 20]).await.expect("sent");
    attache_tests::util::eventually(SOON, || stack.upstream().requests().iter().any(|hit| hit.body_len > 0)).await;
    inside.abort();
    let left = stack.upstream().wait_for(1, SOON).await;
    assert_eq!(left[0].progress, Progress::Aborted, "the upstream was left, too");

    let mut inside = h2_inside(&stack, &mine, TUNNEL, HOST).await;
    let request = attache_tests::agent::head("PUT", HOST, "/reset", &[("authorization", &bearer)]);
    let mut exchange = inside.start(request, false).await.expect("sent");
    exchange.data(b"the beginning", false).await.expect("sent");
    attache_tests::util::eventually(SOON, || stack.upstream().requests().len() == 2).await;
    exchange.reset();
    stack.upstream().wait_for(2, SOON).await;
    // Others on the same connection go on.
    let answer = inside.request("GET", HOST, "/next", &[("authorization", &bearer)], b"").await.expect("an answer");
    assert_eq!(answer.status, 200);
    stack.reconcile().await;
}
