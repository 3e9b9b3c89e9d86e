//! Who is not let in at the broker's door, and what it costs those who are.

use std::time::{Duration, Instant};

use attache_tests::agent::{Agent, Wire};
use attache_tests::ca::Leaf;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{Ca, util};
use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pki::{BROKER, GATEWAY, SERVER, SIDECAR, client_leaf};
use crate::scene::{Caller, HOST, Scene};

/// Longer than the door waits for a handshake, and for a first request after it.
const BOUND: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_whose_certificate_names_no_peer() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let leaf = |uris: &[&str], change: &dyn Fn(&mut rcgen::CertificateParams)| {
        scene.mesh.issue_with(&[], |params| {
            params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("a URI"))).collect();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(params);
        })
    };
    let refused = [
        ("another authority's", client_leaf(&Ca::new(), &[GATEWAY]), "no authority of client_ca"),
        ("nobody's", Leaf::self_signed_client(GATEWAY), "no authority of client_ca"),
        ("expired", leaf(&[GATEWAY], &|params| params.not_after = date_time_ymd(2020, 1, 1)), "not valid at this time"),
        (
            "of tomorrow",
            leaf(&[GATEWAY], &|params| params.not_before = date_time_ymd(2099, 1, 1)),
            "not valid at this time",
        ),
        ("two SPIFFE IDs", leaf(&[GATEWAY, SIDECAR], &|_| ()), "more than one URI"),
        ("a SPIFFE ID and a URL", leaf(&[GATEWAY, "https://example.org/"], &|_| ()), "more than one URI"),
        ("no name", leaf(&[], &|_| ()), "has no SPIFFE ID"),
        ("a URL", leaf(&["https://example.org/"], &|_| ()), "has no SPIFFE ID"),
        (
            "no peer's",
            leaf(&["spiffe://cluster.local/ns/agents/sa/other"], &|_| ()),
            "ns/agents/sa/other is not one of",
        ),
        ("a longer one", leaf(&[&format!("{GATEWAY}2")], &|_| ()), "attache-egress2 is not one of"),
        ("the broker's own", leaf(&[BROKER], &|_| ()), "attache-broker is not one of"),
        (
            "a server's",
            leaf(&[GATEWAY], &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "no authority of client_ca",
        ),
    ];
    for (what, leaf, why) in &refused {
        for tls in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let mut caller = scene.caller_with(leaf);
            caller.tls = scene.mesh.client_as_of(tls, leaf);
            assert!(caller.ask("GET", "/healthz", &Value::Null).await.is_err(), "{what}");
        }
        let log = std::fs::read_to_string(scene.stack.broker.log_path()).expect("a log");
        // Each reason is told once a minute.
        assert!(log.contains(why), "{what}: {log}");
    }
    let nameless = Caller { door: scene.door, tls: scene.mesh.client(&["http/1.1"]) };
    assert!(nameless.ask("GET", "/healthz", &Value::Null).await.is_err(), "no certificate at all");
    // The listed come in, whatever they show besides.
    for id in [GATEWAY, SIDECAR] {
        assert_eq!(scene.caller(id).ask("GET", "/healthz", &Value::Null).await.expect("an answer").status, 200, "{id}");
    }
    scene.stack.reconcile().await;
}

/// A sidecar of Istio's puts its certificate around whatever a process of its pod sends to a service that it knows, and
/// offers the mesh's own protocol there. Its own call, by an EnvoyFilter's cluster, offers HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_pods_processes_send_in_its_sidecars_name_does_not_get_in() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let by_the_mesh = |id: &str| {
        let mut caller = scene.caller(id);
        let mut tls = (*caller.tls).clone();
        tls.alpn_protocols = vec![b"istio-peer-exchange".to_vec(), b"istio".to_vec()];
        caller.tls = tls.into();
        caller
    };
    assert!(by_the_mesh(SIDECAR).ask("GET", "/healthz", &Value::Null).await.is_err(), "held to sessions");
    let told = || std::fs::read_to_string(scene.stack.broker.log_path()).is_ok_and(|log| log.contains("of the mesh's"));
    util::eventually(SOON, told).await;
    let answer = by_the_mesh(GATEWAY).ask("GET", "/healthz", &Value::Null).await;
    assert_eq!(answer.expect("a gateway runs nothing else").status, 200);
    assert_eq!(scene.caller(SIDECAR).ask("GET", "/healthz", &Value::Null).await.expect("an answer").status, 200);
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_nothing_and_plain_http_gets_no_answer() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let token = std::fs::read_to_string(scene.stack.config.state_dir.join("data-plane.token")).expect("a token");
    let head = format!("GET /v1/policy HTTP/1.1\r\nhost: attache\r\nauthorization: Bearer {}\r\n\r\n", token.trim());
    let mut plain = TcpStream::connect(scene.door).await.expect("the port");
    plain.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    util::within(BOUND, plain.read_to_end(&mut answer)).await.ok();
    assert!(!answer.starts_with(b"HTTP/") && answer.len() < 64, "an alert of TLS at most: {answer:?}");
    // HTTP/2 by prior knowledge likewise.
    let mut plain = TcpStream::connect(scene.door).await.expect("the port");
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    answer.clear();
    util::within(BOUND, plain.read_to_end(&mut answer)).await.ok();
    assert!(answer.len() < 64, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_end_and_keep_nobody_out() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let placeholder = scene.stack.placeholder("writer", "github");
    let begun = Instant::now();
    // The beginning of a ClientHello, and nothing more; more of them than strangers may be.
    let mut stalled = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(scene.door).await.expect("the port");
        stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.ok();
        stalled.push(stream);
    }
    assert_eq!(scene.stack.get(HOST, "/user", &placeholder).await.status, 200, "filters come in meanwhile");
    assert_eq!(scene.caller(SIDECAR).ask("GET", "/healthz", &Value::Null).await.expect("an answer").status, 200);
    for mut stream in stalled {
        let mut rest = Vec::new();
        util::within(BOUND, stream.read_to_end(&mut rest)).await.ok();
    }
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    // Whoever shakes hands and then says nothing is shown out, too.
    let wire = Wire::plain(scene.door).await.secured(SERVER, scene.caller(GATEWAY).tls).await.expect("a handshake");
    let mut silent = Agent::new().h1_over(wire, "silent");
    util::within(BOUND, silent.rest(BOUND)).await.expect("closed");
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_all_its_connections_keeps_no_other_out() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let greedy = scene.caller(SIDECAR);
    let mut held = Vec::new();
    for _ in 0..60 {
        let Ok(mut connection) = greedy.connect().await else { continue };
        if connection.request("GET", "attache", "/healthz", &[], b"").await.is_ok() {
            held.push(connection);
        }
    }
    assert_eq!(held.len(), 32, "one workload has so many");
    let placeholder = scene.stack.placeholder("writer", "github");
    assert_eq!(scene.stack.get(HOST, "/user", &placeholder).await.status, 200);
    drop(held);
    util::eventually_some(SOON, || {
        let answer = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(greedy.ask("GET", "/healthz", &Value::Null))
        });
        answer.ok().filter(|answer| answer.status == 200)
    })
    .await;
    scene.stack.reconcile().await;
}
