//! A filter that is skipped, and routes that lead elsewhere: the router forwards only what was
//! decided, and only where it was decided to go.

use attache_core::refusal::Reason;
use attache_tests::stack::{Plan, SOON};
use attache_tests::{FakeBroker, Response, Spelled, refusal};
use serde_json::{Value, json};

use crate::scene::Scene;

pub const GATE: &str = "attache.gate";
const ASSERTION: &str = "attache.assertion";
const JUDGE: &str = "attache.judge";

pub fn manager(bootstrap: &mut Value) -> &mut Value {
    let manager = bootstrap.pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config");
    manager.expect("the connection manager")
}

pub fn filters(bootstrap: &mut Value) -> &mut Vec<Value> {
    manager(bootstrap)["http_filters"].as_array_mut().expect("the filter chain")
}

/// Every list of routes: those of hosts, and those that a tree of prefixes finds.
pub fn route_lists(bootstrap: &mut Value) -> Vec<&mut Vec<Value>> {
    fn below<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Vec<Value>>) {
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(name, member)| match name.as_str() {
                "routes" => found.extend(member.as_array_mut()),
                _ => below(member, found),
            }),
            Value::Array(items) => items.iter_mut().for_each(|item| below(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    below(&mut manager(bootstrap)["route_config"]["virtual_hosts"], &mut found);
    assert!(found.len() > 1, "lists of routes");
    found
}

/// Every route to an upstream.
fn routes(bootstrap: &mut Value) -> impl Iterator<Item = &mut Value> {
    route_lists(bootstrap).into_iter().flatten().filter(|route| route.get("route").is_some())
}

/// The cluster of a destination, by its host.
pub fn cluster_of(bootstrap: &Value, host: &str) -> String {
    let clusters = bootstrap["static_resources"]["clusters"].as_array().expect("clusters");
    let names = clusters.iter().filter_map(|cluster| cluster["name"].as_str());
    let mut found = names.filter(|name| name.contains(&format!("_{host}_")));
    found.next().unwrap_or_else(|| panic!("{host} has a cluster")).to_owned()
}

/// Envoy's answer where a route's guard finds no verdict for its cluster.
pub fn is_turned_away(answer: &Response) {
    let shown = format!("{} {:?} {}", answer.status, answer.fields, answer.text());
    assert_eq!(answer.status, 421, "{shown}");
    assert_eq!(answer.header("x-attache-reason").as_deref(), Some(Reason::DestinationMismatch.as_str()), "{shown}");
    assert_eq!(answer.json()["reason"], Reason::DestinationMismatch.as_str(), "{shown}");
}

/// Takes out what asserts the cluster behind the gate: the routes are to hold by themselves, too.
/// ([`crate::reroute`] has the assertion by itself.)
pub fn unasserted(bootstrap: &mut Value) {
    let before = filters(bootstrap).len();
    filters(bootstrap).retain(|filter| filter["name"] != ASSERTION);
    assert_eq!(filters(bootstrap).len() + 1, before, "it was there");
}

pub async fn nothing_passes(scene: &Scene<FakeBroker>) {
    let placeholder = scene.stranger();
    for (host, path) in [
        ("api.github.com", "/user"),
        ("localhost", "/api.github.com/user"),
        ("github.com", "/o/r/info/lfs/objects/batch"),
        ("api.custom.test", "/v1/x"),
        ("query.custom.test", "/?key=x"),
    ] {
        let request = Spelled::get(host, path).bearer(&placeholder);
        let (agent, proxy) = (scene.stack.agent(), scene.stack.proxy);
        is_turned_away(&request.over_h1(&agent, proxy).await.expect("an answer"));
        let request = request.method("POST").body("x");
        is_turned_away(&request.over_h2(&agent, proxy).await.expect("an answer"));
    }
    // Nor does what an agent says of itself count for a verdict.
    let cluster = "attache_dst_api.github.com_443";
    let forged = format!(r#"{{"cluster":"{cluster}","decision":"forward"}}"#);
    let mut request = Spelled::get("api.github.com", "/user").bearer(&placeholder);
    for name in ["wasm.attache", "attache", "x-attache-verdict", "x-envoy-wasm-attache"] {
        request = request.line(name, &forged);
    }
    is_turned_away(&request.over_h1(&scene.stack.agent(), scene.stack.proxy).await.expect("an answer"));
    assert_eq!(scene.sent(), 0, "something went upstream");
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trapped_filter_that_fails_open_forwards_nothing() {
    let plan = Plan::default().with_traps().edit(|bootstrap| {
        unasserted(bootstrap);
        let ours = ["attache.judge", "attache.gate"];
        for filter in filters(bootstrap).iter_mut().filter(|filter| ours.iter().any(|name| filter["name"] == *name)) {
            let plugin = filter["typed_config"]["config"].as_object_mut().expect("a plugin");
            plugin.insert("failure_policy".into(), json!("FAIL_OPEN"));
            plugin.remove("reload_config");
        }
    });
    let scene = Scene::of(plan.start_with_fake().await).await;
    let trap =
        Spelled::get("api.github.com", "/user").bearer(&scene.stranger()).line("x-attache-trap", "request_headers");
    // This one ends with the VM; those that come after go by without a filter.
    assert_eq!(trap.over_h1(&scene.stack.agent(), scene.stack.proxy).await.expect("an answer").status, 503);
    nothing_passes(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_a_route_disables_forwards_nothing() {
    let plan = Plan::default().edit(|bootstrap| {
        unasserted(bootstrap);
        let off = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
        for route in route_lists(bootstrap).into_iter().flatten() {
            route["typed_per_filter_config"] = json!({GATE: off, JUDGE: off});
        }
    });
    nothing_passes(&Scene::of(plan.start_with_fake().await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_not_there_forwards_nothing() {
    let plan = Plan::default().edit(|bootstrap| {
        unasserted(bootstrap);
        filters(bootstrap).retain(|filter| filter["name"] != GATE);
    });
    nothing_passes(&Scene::of(plan.start_with_fake().await).await).await;
}

/// A body nobody has read is never taken for one that says what a rule asks for.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_judge_a_rule_about_a_body_refuses() {
    let plan = Plan::default().edit(|bootstrap| filters(bootstrap).retain(|filter| filter["name"] != JUDGE));
    let stack = plan.start().await;
    let batch = Spelled::get("github.com", "/o/r/info/lfs/objects/batch").method("POST");
    let batch = batch
        .line("content-type", "application/json")
        .body(r#"{"operation":"download"}"#)
        .bearer(&stack.placeholder("reader", "github"));
    let answer = batch.over_h1(&stack.agent(), stack.proxy).await.expect("an answer");
    refusal::expect(&answer, Reason::BodyUnreadable);
    assert!(stack.upstream().requests().is_empty());
    stack.reconcile().await;
}

/// The guard of another destination: decided for one, the request meets a route for the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_the_guard_of_another_destination_forwards_nothing() {
    let plan = Plan::default().edit(|bootstrap| {
        unasserted(bootstrap);
        let (ours, theirs) = (cluster_of(bootstrap, "api.github.com"), cluster_of(bootstrap, "api.custom.test"));
        for route in routes(bootstrap).filter(|route| route["route"]["cluster"] == *ours) {
            let guard = route.pointer_mut("/match/filter_state/0/string_match/prefix").expect("a guard");
            *guard = guard.as_str().expect("a text").replace(&ours, &theirs).into();
        }
    });
    let scene = Scene::of(plan.start_with_fake().await).await;
    let answer = scene.ask().await;
    is_turned_away(&answer);
    assert_eq!(scene.sent(), 0);
    // Decided on, and yet no use: nothing was used.
    let records = scene.stack.broker.wait_records(1, SOON).await;
    let said = |member: &str| records[0][member].clone();
    assert_eq!((said("kind"), said("decision"), said("auth_injected")), (json!("deny"), json!("refuse"), json!(false)));
    assert_eq!((said("reason"), said("response_code")), (json!("destination_mismatch"), json!(421)));
    scene.ends_well().await;
}

/// Where routes have no guard, the filter itself compares the cluster before it injects.
#[tokio::test(flavor = "multi_thread")]
async fn an_unguarded_route_to_another_cluster_forwards_nothing() {
    let plan = Plan::default().edit(|bootstrap| {
        unguard(bootstrap);
        let (ours, theirs) = (cluster_of(bootstrap, "api.github.com"), cluster_of(bootstrap, "api.custom.test"));
        for route in routes(bootstrap).filter(|route| route["route"]["cluster"] == *ours) {
            route["route"]["cluster"] = theirs.clone().into();
        }
    });
    let scene = Scene::of(plan.start_with_fake().await).await;
    scene.refuses(Reason::DestinationMismatch, "a route to another cluster").await;
    let records = scene.stack.broker.wait_records(1, SOON).await;
    assert_eq!((&records[0]["kind"], &records[0]["reason"]), (&json!("deny"), &json!("destination_mismatch")));
    assert_eq!(records[0]["auth_injected"], false);
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unguarded_route_to_its_own_cluster_serves() {
    let scene = Scene::of(Plan::default().edit(unguard).start_with_fake().await).await;
    scene.serves("the start").await;
    scene.ends_well().await;
}

/// Routes as where a control plane knows no filter state: none has a guard, and the filter is told.
pub fn unguard(bootstrap: &mut Value) {
    for route in routes(bootstrap) {
        route["match"].as_object_mut().expect("a match").remove("filter_state").expect("a guard");
    }
    for filter in filters(bootstrap).iter_mut().filter(|filter| filter["name"] == GATE) {
        let settings = filter.pointer_mut("/typed_config/config/configuration/value").expect("settings");
        let text = settings.as_str().expect("a text").replace(r#""guarded":true"#, r#""guarded":false"#);
        assert!(text.contains(r#""guarded":false"#));
        *settings = text.into();
    }
}

/// What no filter can see, a guard that names one cluster on a route to another, the doctor sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_is_not_its_routes_own_is_found_by_the_doctor() {
    let (sender, written) = std::sync::mpsc::channel();
    let plan = Plan::default().edit(move |bootstrap| sender.send(bootstrap.clone()).expect("the test listens"));
    let stack = plan.start().await;
    let mut bootstrap = written.recv().expect("the bootstrap");
    let file = stack.dir().join("bootstrap.json");
    let examined = |bootstrap: &Value| {
        std::fs::write(&file, bootstrap.to_string()).expect("the bootstrap is writable");
        let report = stack.broker.cli(&["doctor", "--json", "--bootstrap", file.to_str().expect("a plain path")]);
        String::from_utf8(report.stdout).expect("text")
    };
    let complaint = "does not name the route's one cluster";
    assert!(!examined(&bootstrap).contains(complaint));
    let (ours, theirs) = (cluster_of(&bootstrap, "api.github.com"), cluster_of(&bootstrap, "api.custom.test"));
    for route in routes(&mut bootstrap).filter(|route| route["route"]["cluster"] == *ours) {
        route["route"]["cluster"] = theirs.clone().into();
    }
    let report = examined(&bootstrap);
    assert!(report.contains(complaint) && report.contains("route-guard"), "{report}");
}
