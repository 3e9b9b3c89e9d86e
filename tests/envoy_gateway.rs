//! The filter behind Envoy Gateway: what ships in `envoy/envoy-gateway/` is what its kinds allow, and an Envoy that has it
//! injects and refuses.
//!
//! There is no Envoy Gateway here: `envoy_gateway/simulated.rs` makes of these objects what Envoy Gateway 1.9 makes of
//! them, as its own translator's tests show it, and only of these. The broker is one that misbehaves on demand.

#[path = "envoy_gateway/objects.rs"]
mod objects;
#[path = "envoy_gateway/patches.rs"]
mod patches;
#[path = "envoy_gateway/simulated.rs"]
mod simulated;

use attache_core::policy::Spec;
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::upstream::{Part, Reply};
use attache_tests::{FakeBroker, Response, Stack};
use serde_json::Value;
use std::time::Duration;

/// What Envoy Gateway calls the cluster of the route.
pub const CLUSTER: &str = "httproute/attache-egress/github/rule/0";
const HOST: &str = "api.github.com";

/// The broker's policy, as `upstream: {cluster: …}` on the destination makes it.
fn named(policy: &mut Spec) {
    policy.destinations.retain(|destination| destination.id == "api.github.com:443");
    policy.destinations.iter_mut().for_each(|destination| destination.cluster = CLUSTER.to_owned());
}

async fn start(edit: impl FnOnce(&mut Value) + Send + 'static) -> Stack<FakeBroker> {
    let plan = Plan::default().policy(named);
    let filter = plan.filter.clone();
    let plan = plan.edit(move |bootstrap| {
        let mut envoy = simulated::envoy(bootstrap, &filter);
        edit(&mut envoy);
        *bootstrap = envoy;
    });
    let stack = plan.start_with_fake().await;
    stack.broker.in_touch(1, SOON).await;
    stack
}

fn reason(answer: &Response) -> String {
    answer.header("x-attache-reason").unwrap_or_else(|| format!("{}: {}", answer.status, answer.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_injects_and_refuses() {
    let stack = start(|_| ()).await;
    let placeholder = stack.placeholder();
    let answer = stack.get(HOST, "/user", &placeholder).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let hits = stack.upstream().wait_for(1, SOON).await;
    assert_eq!(hits[0].header("authorization"), Some(format!("Bearer {GITHUB}")));
    assert_eq!(hits[0].header("x-forwarded-for"), None);

    let nobody = stack.agent().get(stack.proxy, HOST, "/user", &[]).await;
    assert_eq!(reason(&nobody), "identity_required");
    // What Envoy Gateway's own defaults would let through, or send elsewhere.
    assert_eq!(stack.get(HOST, "/a%2fb", &placeholder).await.status, 400);
    assert_eq!(reason(&stack.get("other.example.com", "/", &placeholder).await), "destination_mismatch");
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade"), ("authorization", "Bearer x")];
    let upgraded = stack.agent().get(stack.proxy, HOST, "/", &upgrade).await;
    assert_ne!(upgraded.status, 101);
    assert_eq!(stack.upstream().requests().len(), 1, "nothing else has left");
    stack.reconcile().await;
}

/// The route guard and the assertion stand without the filter.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_filter_nothing_leaves() {
    let removed = |envoy: &mut Value| {
        let filters = simulated::manager(envoy)["http_filters"].as_array_mut().expect("filters");
        filters.retain(|filter| !filter["name"].as_str().is_some_and(|name| name.contains("/wasm/")));
    };
    let plan = Plan::default().policy(named);
    let filter = plan.filter.clone();
    let plan = plan.edit(move |bootstrap| {
        let mut envoy = simulated::envoy(bootstrap, &filter);
        removed(&mut envoy);
        // Settings of a filter that is not there are no reason for Envoy to refuse them.
        simulated::each_route(&mut envoy, |route| {
            let settings = route["typed_per_filter_config"].as_object_mut().expect("settings");
            settings.retain(|name, _| !name.contains("/wasm/"));
        });
        *bootstrap = envoy;
    });
    let stack = plan.start_with_fake().await;
    let answer = stack.get(HOST, "/user", &stack.placeholder()).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (421, "destination_mismatch"));
    assert!(stack.upstream().requests().is_empty());
}

/// An answer in pieces: one now, and one after so long.
fn streams(stack: &Stack<FakeBroker>, pause: Duration) {
    stack
        .upstream()
        .answer_with(move |_| Reply::new(200).chunked().body("first\n").part(Part::Pause(pause)).body("last\n"));
}

/// Envoy's default, 15 s for a whole answer, in short: a route without `timeouts: {request: 0s}` ends what it streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_a_timeout_ends_a_stream_that_lasts_longer() {
    let short = |envoy: &mut Value| *timeout(envoy) = "1s".into();
    let stack = start(short).await;
    streams(&stack, Duration::from_secs(3));
    let placeholder = stack.placeholder();
    let mut agent = stack.agent().h1(stack.proxy).await;
    let head = format!("GET /stream HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {placeholder}\r\n\r\n");
    agent.send(head).await.expect("sent");
    assert_eq!(agent.head(SOON).await.expect("a head").status, 200);
    let rest = agent.rest(SOON).await;
    assert!(!rest.is_ok_and(|body| String::from_utf8_lossy(&body).contains("last")), "cut");
}

/// The shipped one has none, and streams past those 15 s. A quiet stretch is bounded, and by far more.
#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_route_lets_an_answer_stream_past_fifteen_seconds() {
    let stack = start(|envoy| {
        assert_eq!(*timeout(envoy), "0s");
        let action = route(envoy);
        assert_eq!(
            (&action["idle_timeout"], &action["max_stream_duration"]["max_stream_duration"]),
            (&"3600s".into(), &"3600s".into())
        );
    })
    .await;
    streams(&stack, Duration::from_secs(17));
    let answer = stack.get(HOST, "/stream", &stack.placeholder()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "first\nlast\n"));
    stack.reconcile().await;
}

/// The action of the one route, as the translation and the patches leave it.
fn route(envoy: &mut Value) -> &mut Value {
    let manager = simulated::manager(envoy);
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array_mut().expect("routes");
    let led = routes.iter_mut().find(|route| route["route"]["cluster"] == CLUSTER);
    &mut led.expect("the route")["route"]
}

fn timeout(envoy: &mut Value) -> &mut Value {
    &mut route(envoy)["timeout"]
}
