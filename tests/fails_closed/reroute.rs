//! Routes that look at what is injected: Envoy selects the route again once the credential stands
//! in the head, and what it then finds must not take the credential elsewhere.

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan, SOON};
use serde_json::{Value, json};

use crate::guard::{GATE, cluster_of, filters, is_turned_away, nothing_passes, route_lists, unguard};
use crate::scene::Scene;

/// Puts a route above all others that asks for the credential itself in the head, and leads to the
/// cluster of another destination. It has no guard: somebody else wrote it.
fn lure(bootstrap: &mut Value) {
    // As much of it as no placeholder begins with.
    let bearer = format!("Bearer {GITHUB}");
    let theirs = cluster_of(bootstrap, "api.custom.test");
    for routes in route_lists(bootstrap) {
        let lure = json!({
            "name": "lure",
            "match": {
                "prefix": "/",
                "headers": [{"name": "authorization", "string_match": {"prefix": &bearer[..18]}}],
            },
            "route": {"cluster": theirs, "host_rewrite_literal": "api.custom.test"},
        });
        routes.insert(0, lure);
    }
}

async fn leads_nowhere(plan: Plan) {
    let scene = Scene::of(plan.start_with_fake().await).await;
    let answer = scene.ask().await;
    assert_eq!(scene.sent(), 0, "the credential went elsewhere");
    is_turned_away(&answer);
    // Decided on, and yet no use: nothing was used.
    let records = scene.stack.broker.wait_records(1, SOON).await;
    let said = |member: &str| records[0][member].clone();
    assert_eq!((said("kind"), said("auth_injected")), (json!("deny"), json!(false)));
    assert_eq!(said("reason"), Reason::DestinationMismatch.as_str());
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guarded_request_never_takes_a_route_by_what_was_injected() {
    leads_nowhere(Plan::default().edit(lure)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unguarded_request_never_takes_a_route_by_what_was_injected() {
    let plan = Plan::default().edit(|bootstrap| {
        unguard(bootstrap);
        lure(bootstrap);
    });
    leads_nowhere(plan).await;
}

/// By itself, without a guard on any route: what no gate decided on goes nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn without_guard_and_gate_nothing_passes() {
    let plan = Plan::default().edit(|bootstrap| {
        unguard(bootstrap);
        filters(bootstrap).retain(|filter| filter["name"] != GATE);
    });
    nothing_passes(&Scene::of(plan.start_with_fake().await).await).await;
}
