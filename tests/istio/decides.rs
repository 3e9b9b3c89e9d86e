//! By an EnvoyFilter: all that is promised, in either topology.

use attache_broker::envoy::istio::{Part, Topology};
use attache_core::refusal::Reason;
use attache_tests::refusal;

use crate::world::{GITHUB, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_through_the_egress_gateway_carries_the_credential_over_verified_tls() {
    injects(Topology::EgressGateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_through_a_sidecar_carries_the_credential_over_verified_tls() {
    injects(Topology::Sidecar).await;
}

async fn injects(topology: Topology) {
    let world = World::start(topology, Part::EnvoyFilter).await;
    let placeholder = world.placeholder("builder", "GITHUB_TOKEN");
    for authority in ["api.github.com", "api.github.com:80", "api.github.com:443"] {
        let answer = world.get((authority, "/user"), &placeholder).await;
        assert_eq!(answer.status, 200, "{authority}: {}", answer.text());
        let hit = world.upstream.requests().pop().expect("a hit");
        assert_eq!(hit.header("authorization"), Some(format!("Bearer {GITHUB}")));
        assert_eq!(hit.header("host").as_deref(), Some("api.github.com"));
        assert_eq!(hit.header("x-forwarded-proto"), None);
    }
    let wrong = world.get(("api.openai.com", "/v1/models"), &placeholder).await;
    refusal::expect(&wrong, Reason::PlaceholderMisplaced);
    world.reconcile().await;
}
