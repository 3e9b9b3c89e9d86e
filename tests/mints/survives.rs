//! Broker and Envoy may end and come back: who comes then gets a certificate, from the same authority.

use std::time::Duration;

use attache_tests::util;

use crate::scene::{Answer, HOST, SOON, Scene};

/// How long a handshake may take that nobody can help along: the listener's
/// `transport_socket_connect_timeout`, 5 s, on a busy machine.
const BOUND: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_comes_back_with_its_authority() {
    let scene = Scene::start().await;
    let ours = scene.export();
    scene.shake(HOST, &ours).await.expect("a handshake");
    scene.broker.kill();
    scene.shake(HOST, &ours).await.expect("what Envoy has it keeps for a while");
    // Its handshake waits while the broker is away, and ends with it: in time, or with a certificate.
    tokio::join!(util::within(BOUND, scene.hello(Some(b"api.other.test"))), scene.broker.restart());
    assert_eq!(scene.export(), ours);
    scene.answers(Some(b"api.other.test"), Answer::Offers).await;
    scene.shake("api.other.test", &ours).await.expect("a handshake");
    scene.shake(HOST, &ours).await.expect("a handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_ends_in_time_when_no_broker_answers() {
    let scene = Scene::start().await;
    let ours = scene.export();
    scene.broker.signal("STOP");
    util::eventually(SOON, || util::stands(scene.broker.pid())).await;
    let answer = util::within(BOUND, scene.hello(Some(HOST.as_bytes()))).await;
    assert_ne!(answer, Answer::Offers);
    scene.broker.signal("CONT");
    scene.answers(Some(HOST.as_bytes()), Answer::Offers).await;
    scene.shake(HOST, &ours).await.expect("a handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_is_restarted_asks_anew() {
    let mut scene = Scene::start().await;
    let ours = scene.export();
    let before = scene.shake(HOST, &ours).await.expect("a handshake");
    scene.restart_envoy().await;
    let after = scene.shake(HOST, &ours).await.expect("a handshake");
    assert_ne!(before, after, "keys of leaves are kept by nobody but Envoy");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_broken_off_harm_nobody() {
    let scene = Scene::start().await;
    let addr = scene.addr().await;
    let ours = scene.export();
    for round in 0..200 {
        let name = format!("Api.github.com-{round}.test");
        crate::scene::break_off(addr, name.as_bytes()).await;
        crate::scene::break_off(addr, HOST.as_bytes()).await;
    }
    scene.shake(HOST, &ours).await.expect("a handshake");
}
