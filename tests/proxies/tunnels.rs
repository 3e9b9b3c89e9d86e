//! Tunnels as clients open them: many on a connection, in old HTTP, in haste; and how they end.

use attache_tests::agent::{PATIENCE, Wire};
use attache_tests::fake_broker::Endpoint;
use attache_tests::matrix::promises_less;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{FakeBroker, Reply, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{HOST, PINNED, Tunnel, asked, basic, ca, connect, digest, start, token};

async fn asks(stack: &Stack<FakeBroker>, wire: Wire, mine: &str) {
    let mut inside = stack.agent().h1_over(wire, format!("in a tunnel, opened with {mine}"));
    let bearer = format!("Bearer {}", stack.placeholder());
    let answer = inside.request("GET", HOST, "/user", &[("authorization", &bearer)], b"").await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(asked(stack, Endpoint::Grants)["evidence"]["session_token"], digest(mine));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_may_hold_tunnels_of_several_sessions() {
    let stack = start(Plan::default()).await;
    let mut proxy = stack.agent().h2(stack.proxy).await;
    if promises_less("proxies::tunnels::one_connection_may_hold_tunnels_of_several_sessions") {
        let shown = basic(&token("mine"));
        let answer = proxy.tunnel("api.github.com:443", &[("proxy-authorization", &shown)]).await;
        assert!(answer.is_err(), "HTTP/2 is taken after all");
        assert_eq!(stack.broker.calls(Endpoint::Tunnels), 0, "nobody was asked about it");
        return stack.reconcile().await;
    }
    let mut open = Vec::new();
    for n in 0..10 {
        let mine = token(&format!("session-{n}"));
        let basic = basic(&mine);
        let (wire, answer) =
            proxy.tunnel("api.github.com:443", &[("proxy-authorization", &basic)]).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        open.push((mine, wire));
    }
    // All of them stand before the first is used.
    for (mine, wire) in open {
        let wire = wire.secured(HOST, ca().client(&["http/1.1"])).await.expect("a handshake");
        asks(&stack, wire, &mine).await;
    }
    let (_, refused) = proxy.tunnel("api.github.com:443", &[]).await.expect("an answer");
    assert_eq!((refused.status, super::reason(&refused).as_str()), (407, "identity_required"));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_asked_for_in_http_1_0_as_well() {
    let stack = start(Plan::default()).await;
    let mine = token("mine");
    // As Python before 3.12 does: without Host.
    let head = format!("CONNECT api.github.com:443 HTTP/1.0\r\nProxy-Authorization: {}\r\n\r\n", basic(&mine));
    let mut client = stack.agent().h1(stack.proxy).await;
    client.send(&head).await.expect("sent");
    assert_eq!(client.head(PATIENCE).await.expect("an answer").status, 200);
    let wire = client.into_tls(HOST, ca().client(&["http/1.1"])).await.expect("a handshake");
    asks(&stack, wire, &mine).await;

    let mut client = stack.agent().h1(stack.proxy).await;
    client.send("CONNECT api.github.com:443 HTTP/1.0\r\n\r\n").await.expect("sent");
    let refused = client.response(PATIENCE).await.expect("an answer");
    assert_eq!((refused.status, super::reason(&refused).as_str()), (407, "identity_required"));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_begin_its_handshake_before_the_tunnel_stands() {
    let stack = start(Plan::default()).await;
    let mine = token("mine");
    let head = format!(
        "CONNECT api.github.com:443 HTTP/1.1\r\nHost: api.github.com:443\r\nProxy-Authorization: {}\r\n\r\n",
        basic(&mine)
    );
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let mut proxy = tokio::net::TcpStream::connect(stack.proxy).await.expect("a connection");
    let carrying = tokio::spawn(async move {
        // The head and the first bytes of the handshake in one piece.
        let mut sent = head.into_bytes();
        theirs.read_buf(&mut sent).await.expect("a handshake begins");
        proxy.write_all(&sent).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(proxy.read_u8().await.expect("an answer"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
        tokio::io::copy_bidirectional(&mut theirs, &mut proxy).await.ok();
    });
    let wire = Wire::Tunnel(ours).secured(HOST, ca().client(&["http/1.1"])).await.expect("a handshake");
    asks(&stack, wire, &mine).await;
    carrying.await.expect("carried");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_an_end_arrives() {
    let stack = start(Plan::default()).await;
    let mine = token("mine");
    // The upstream ends: all that it said comes first, in a tunnel that nobody looks into and in one that is
    // decided request by request.
    stack.upstream().answer_with(|_| Reply::new(200).field("connection", "close").body("x".repeat(300_000)));
    for (ca, authority, host) in [(&stack.site.ca, PINNED[0], "pinned.extra.test"), (ca(), "api.github.com:443", HOST)]
    {
        let mut inside = Tunnel::trusting(ca, &stack, &mine, authority, host).await.expect("a tunnel");
        let answer = inside.ask("GET", host, "/", &stack.placeholder()).await.expect("an answer");
        assert_eq!((answer.status, answer.body.len(), answer.complete), (200, 300_000, true), "{authority}");
        if host != HOST {
            assert_eq!(inside.client.rest(SOON).await, Ok(Vec::new()), "and so does the tunnel");
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_its_side_ends_its_tunnel() {
    let stack = start(Plan::default()).await;
    let mine = basic(&token("mine"));
    for authority in [PINNED[0], "api.github.com:443"] {
        let (mut client, answer) = connect(&stack, authority, &[("proxy-authorization", &mine)]).await;
        assert_eq!(answer.status, 200);
        client.finish().await.expect("half-closed");
        assert_eq!(client.rest(SOON).await, Ok(Vec::new()), "{authority}");
    }
    // Nothing is left behind: no connection of theirs stays.
    stack.envoy.wait_stat("http.attache.downstream_cx_active", |active| active == 0, SOON).await;
    let records = stack.broker.wait_records(2, SOON).await;
    assert!(records.iter().all(|record| record["kind"] == "tunnel"), "{records:#?}");
    stack.reconcile().await;
}
