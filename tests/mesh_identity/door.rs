//! Envoy → mutual TLS → broker → grant → injected.

use attache_tests::stack::{Plan, SOON};

use crate::pki::GATEWAY;
use crate::scene::{HOST, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_injects_what_it_has_asked_for_by_mutual_tls() {
    let scene = Scene::start(GATEWAY, Plan::default()).await;
    let placeholder = scene.stack.placeholder("writer", "github");
    let answer = scene.stack.get(HOST, "/user", &placeholder).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(scene.stack.upstream().wait_for(1, SOON).await.len(), 1);
    scene.stack.reconcile().await;
}
