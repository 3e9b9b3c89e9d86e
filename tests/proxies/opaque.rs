//! Where nobody looks in: the handshake names the host that was let through, and nothing is injected.

use attache_tests::fake_broker::Endpoint;
use attache_tests::stack::{Plan, SOON};

use super::{PINNED, basic, connect, start, token};

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_tunnel_is_the_clients_own_and_on_record() {
    let stack = start(Plan::default()).await;
    let (client, answer) = connect(&stack, PINNED[0], &[("proxy-authorization", &basic(&token("mine")))]).await;
    assert_eq!(answer.status, 200);
    // The upstream's own certificate: nobody stands between.
    let wire = client.into_tls("pinned.extra.test", stack.site.ca.client(&["http/1.1"])).await.expect("a handshake");
    let mut inside = stack.agent().h1_over(wire, "in an opaque tunnel");
    let bearer = format!("Bearer {}", stack.placeholder());
    let headers = [("authorization", bearer.as_str())];
    let answer = inside.request("POST", "pinned.extra.test", "/write", &headers, b"body").await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(stack.broker.calls(Endpoint::Grants), 0);
    assert_eq!(stack.upstream().hits().len(), 0, "no credential");
    drop(inside);
    let records = stack.broker.wait_records(1, SOON).await;
    let record = &records[0];
    assert_eq!((&record["kind"], &record["decision"]), (&"tunnel".into(), &"tunnel".into()), "{record:#}");
    assert_eq!(record["destination"], PINNED[0]);
    assert_eq!(record["upstream"], stack.upstream().addr().to_string());
    assert!(record["bytes_in"].as_u64() > Some(200) && record["bytes_out"].as_u64() > Some(500), "{record:#}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_in_an_opaque_tunnel_names_its_host() {
    let stack = start(Plan::default()).await;
    let mine = basic(&token("mine"));
    for (name, passes) in [("pinned.extra.test", true), ("PINNED.extra.test", true), ("other.extra.test", false)] {
        let (client, answer) = connect(&stack, PINNED[0], &[("proxy-authorization", &mine)]).await;
        assert_eq!(answer.status, 200);
        let shaken = client.into_tls(name, stack.site.ca.client(&["http/1.1"])).await;
        assert_eq!(shaken.is_ok(), passes, "SNI {name}");
    }
    stack.reconcile().await;
}
