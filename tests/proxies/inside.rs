//! Behind the door: the tunnel, the TLS handshake and the request name one host, or nothing goes.

use attache_tests::stack::Plan;

use super::{HOST, Tunnel, reason, start, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_a_tunnel_gets_its_credential_and_says_nothing_of_the_proxy() {
    let stack = start(Plan::default()).await;
    let mine = token("mine");
    let mut tunnel = Tunnel::open(&stack, &mine, "api.github.com:443", HOST).await.expect("a tunnel");
    let answer = tunnel.ask("GET", HOST, "/user", &stack.placeholder()).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hits = stack.upstream().hits();
    assert_eq!(hits.len(), 1);
    for name in ["proxy-authorization", "x-attache-session", "x-forwarded-for", "via"] {
        assert_eq!(hits[0].header(name), None, "{name}");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnel_handshake_and_request_name_one_host() {
    let stack = start(Plan::default()).await;
    let mine = token("mine");
    for (tunnel, name, authority, expected) in [
        ("api.github.com:443", HOST, HOST, "200"),
        ("api.github.com:443", HOST, "api.github.com:443", "200"),
        ("API.github.com:443", "api.GITHUB.com", "Api.Github.Com", "200"),
        ("api.github.com:443", "github.com", HOST, "destination_mismatch"),
        ("api.github.com:443", HOST, "github.com", "destination_mismatch"),
        ("api.github.com:443", "github.com", "github.com", "destination_mismatch"),
        ("github.com:443", HOST, HOST, "destination_mismatch"),
        ("api.github.com:443", HOST, "api.github.com:8443", "destination_mismatch"),
        ("api.github.com:443", HOST, "api.github.com.", "authority_malformed"),
        ("api.github.com:443", HOST, "127.0.0.1", "destination_mismatch"),
        ("api.github.com:443", HOST, "example.com", "destination_mismatch"),
    ] {
        let mut inside = Tunnel::open(&stack, &mine, tunnel, name).await.expect("a tunnel");
        let answer = inside.ask("GET", authority, "/user", &stack.placeholder()).await.expect("an answer");
        assert_eq!(reason(&answer), expected, "CONNECT {tunnel}, SNI {name}, Host {authority}");
        if expected == "destination_mismatch" {
            assert_eq!(answer.status, 421);
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_tls_in_a_tunnel_is_closed_in_time() {
    let stack = start(Plan::default()).await;
    let mine = super::basic(&token("mine"));
    for said in [&b"GET / HTTP/1.1\r\nHost: api.github.com\r\n\r\n"[..], b"SSH-2.0-x\r\n", b""] {
        let (mut client, answer) =
            super::connect(&stack, "api.github.com:443", &[("proxy-authorization", &mine)]).await;
        assert_eq!(answer.status, 200);
        client.send(said).await.ok();
        let rest = client.rest(attache_tests::stack::SOON).await.expect("closed in time");
        assert_eq!(rest, b"", "{said:?}");
    }
    assert_eq!(stack.upstream().requests().len(), 0);
    stack.reconcile().await;
}
