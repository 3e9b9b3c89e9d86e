//! By an EnvoyFilter: all that is promised, in either topology.

use std::time::Duration;

use attache_broker::doctor::{self, EnvoyConfig};
use attache_broker::envoy::istio::{Part, Topology};
use attache_core::refusal::Reason;
use attache_tests::stack::SOON;
use attache_tests::{refusal, util};
use serde_json::{Value, json};

use crate::world::{Changes, GITHUB, World};

pub const BATCH: (&str, &str) = ("github.com", "/o/r.git/info/lfs/objects/batch");
pub const DOWNLOAD: &[u8] = br#"{"operation":"download","objects":[]}"#;
const UPLOAD: &[u8] = br#"{"operation":"upload","objects":[]}"#;
pub const LFS: (&str, &str) = ("content-type", "application/vnd.git-lfs+json");
/// How long the broker waits for a record of what Envoy tells it of, and some more.
const WITNESS: Duration = Duration::from_secs(25);
const BOTH: [Topology; 2] = [Topology::EgressGateway, Topology::Sidecar];

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
    assert_eq!(world.placeholder("builder", "OPENAI_BASE_URL"), "http://api.openai.com/v1");
    let wrong = world.get(("api.openai.com", "/v1/models"), &placeholder).await;
    refusal::expect(&wrong, Reason::PlaceholderMisplaced);
    world.reconcile().await;
}

/// The cluster that the patch adds, on a real Envoy and with the broker's own door: mutual TLS both ways, with certificates
/// from files where Istio's agent serves them by SDS.
#[tokio::test(flavor = "multi_thread")]
async fn the_patchs_own_cluster_asks_the_broker_by_mutual_tls() {
    for topology in BOTH {
        let world = World::changed(topology, Part::EnvoyFilter, Changes { mutual: true, ..Changes::default() }).await;
        let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
        assert_eq!(answer.status, 200, "{topology:?}: {}", answer.text());
        // A sidecar asks for its own agent's session alone.
        let others = world.get(("api.github.com", "/user"), &world.placeholder("reviewer", "GITHUB_TOKEN")).await;
        match topology {
            Topology::EgressGateway => assert_eq!(others.status, 200, "{}", others.text()),
            Topology::Sidecar => drop(refusal::expect(&others, Reason::PlaceholderUnknown)),
        }
        let asker = match topology {
            Topology::EgressGateway => "spiffe://cluster.local/ns/attache-egress/sa/attache-egress",
            Topology::Sidecar => "spiffe://cluster.local/ns/agents/sa/builder",
        };
        let of = |kind: &str| world.records().into_iter().filter(|record| record["kind"] == kind).collect::<Vec<_>>();
        util::eventually(SOON, || !of("use").is_empty()).await;
        for record in of("issue").iter().chain(&of("use")) {
            assert_eq!(record["asked_by"], asker, "{record:#}");
        }
        world.reconcile().await;
    }
}

/// And talks to nobody else: a broker with another ID is told nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_another_id_than_the_patch_demands_is_told_nothing() {
    let other = |manifests: &mut Vec<Value>| {
        let text = serde_json::to_string(manifests).expect("JSON");
        let text =
            text.replace(attache_broker::envoy::istio::BROKER_ID, "spiffe://cluster.local/ns/attache/sa/another");
        *manifests = serde_json::from_str(&text).expect("JSON");
    };
    let changes = Changes { mutual: true, manifests: Some(&other), ..Changes::default() };
    let world = World::changed(Topology::EgressGateway, Part::EnvoyFilter, changes).await;
    let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(world.upstream.requests().is_empty());
    let log = std::fs::read_to_string(world.broker.log_path()).expect("a log");
    let told = log.matches("it does not believe the broker's certificate").count();
    assert_eq!(told, 1, "once, however often Envoy tries: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_refused_is_refused_in_either_topology() {
    for topology in BOTH {
        let world = World::start(topology, Part::EnvoyFilter).await;
        let reader = world.placeholder("reviewer", "GITHUB_TOKEN");
        let bearer = format!("Bearer {reader}");
        let bearer = [("authorization", bearer.as_str())];
        let written = world.send("POST", ("api.github.com", "/repos/o/r/issues"), &bearer, b"{}").await;
        refusal::expect(&written, Reason::ReadOnly);
        let nobody = world.send("GET", ("api.github.com", "/user"), &[], b"").await;
        refusal::expect(&nobody, Reason::IdentityRequired);
        let elsewhere = world.get(("elsewhere.test", "/"), &reader).await;
        refusal::expect(&elsewhere, Reason::HostNotAllowed);
        assert!(world.upstream.requests().is_empty(), "{topology:?}");
        world.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_judged_before_anything_is_injected() {
    for topology in BOTH {
        let world = World::start(topology, Part::EnvoyFilter).await;
        let basic = basic(&world.placeholder("reviewer", "GITHUB_TOKEN"));
        let fields = [("authorization", basic.as_str()), LFS];
        let download = world.send("POST", BATCH, &fields, DOWNLOAD).await;
        assert_eq!(download.status, 200, "{}", download.text());
        refusal::expect(&world.send("POST", BATCH, &fields, UPLOAD).await, Reason::ReadOnly);
        assert_eq!(world.upstream.hits().len(), 1);
        world.reconcile().await;
    }
}

/// As git shows a placeholder.
pub fn basic(placeholder: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{placeholder}"));
    format!("Basic {pair}")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_gate_nothing_is_forwarded() {
    for topology in BOTH {
        let bare = |bootstrap: &mut Value| filters(bootstrap).retain(|filter| filter["name"] != "attache.gate");
        let changes = Changes { bootstrap: Some(&bare), ..Changes::default() };
        let world = World::changed(topology, Part::EnvoyFilter, changes).await;
        let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
        assert_eq!(
            refusal::reason(&answer).as_deref(),
            Some(Reason::DestinationMismatch.as_str()),
            "{}",
            answer.text()
        );
        assert!(world.upstream.requests().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_guards_the_assertion_forwards_nothing_undecided_either() {
    let bare = |bootstrap: &mut Value| {
        filters(bootstrap).retain(|filter| filter["name"] != "attache.gate");
        for host in manager(bootstrap)["route_config"]["virtual_hosts"].as_array_mut().expect("hosts") {
            for route in host["routes"].as_array_mut().expect("routes") {
                route["match"].as_object_mut().expect("a match").remove("filter_state");
            }
        }
    };
    let changes = Changes { bootstrap: Some(&bare), ..Changes::default() };
    let world = World::changed(Topology::EgressGateway, Part::EnvoyFilter, changes).await;
    let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
    // Envoy's own answer: no filter has said anything.
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_looks_at_what_was_injected_gets_nothing() {
    let astray = |bootstrap: &mut Value| {
        let route = json!({
            "name": "astray",
            "match": {"prefix": "/", "headers": [
                {"name": "authorization", "string_match": {"prefix": format!("Bearer {GITHUB}")}},
            ]},
            "route": {"cluster": "outbound|443||sentry.io"},
        });
        for host in manager(bootstrap)["route_config"]["virtual_hosts"].as_array_mut().expect("hosts") {
            host["routes"].as_array_mut().expect("routes").insert(0, route.clone());
        }
    };
    let changes = Changes { bootstrap: Some(&astray), ..Changes::default() };
    let world = World::changed(Topology::EgressGateway, Part::EnvoyFilter, changes).await;
    let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
    assert_eq!(refusal::reason(&answer).as_deref(), Some(Reason::DestinationMismatch.as_str()), "{}", answer.text());
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_prove_its_name_gets_nothing() {
    let changes = Changes { distrusted: true, ..Changes::default() };
    let world = World::changed(Topology::EgressGateway, Part::EnvoyFilter, changes).await;
    let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
    assert_eq!(refusal::reason(&answer).as_deref(), Some(Reason::UpstreamTls.as_str()), "{}", answer.text());
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_module_than_the_pinned_one_is_not_run_and_nothing_passes() {
    let parts = [Part::EnvoyFilter, Part::TrafficExtension, Part::WasmPlugin];
    for (topology, part) in BOTH.iter().flat_map(|topology| parts.map(|part| (*topology, part))) {
        let other = |manifests: &mut Vec<Value>| repin(manifests, &"0".repeat(64));
        let changes = Changes { manifests: Some(&other), ..Changes::default() };
        let world = World::changed(topology, part, changes).await;
        let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
        assert!(answer.status == 403 || answer.status == 421, "{topology:?} {part:?}: {}", answer.status);
        assert!(world.upstream.requests().is_empty());
    }
}

fn repin(manifests: &mut [Value], digest: &str) {
    for manifest in manifests {
        for place in ["/spec/sha256", "/spec/wasm/sha256"] {
            if let Some(pin) = manifest.pointer_mut(place) {
                *pin = digest.into();
            }
        }
        for patch in manifest.pointer_mut("/spec/configPatches").and_then(Value::as_array_mut).into_iter().flatten() {
            let place = "/patch/value/typed_config/config/vm_config/code/remote/sha256";
            if let Some(pin) = patch.pointer_mut(place) {
                *pin = digest.into();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_filter_saw_is_recorded_by_the_witness() {
    let bare = |bootstrap: &mut Value| filters(bootstrap).retain(|filter| filter["name"] != "attache.gate");
    let changes = Changes { bootstrap: Some(&bare), ..Changes::default() };
    let world = World::changed(Topology::EgressGateway, Part::EnvoyFilter, changes).await;
    world.send("GET", ("api.github.com", "/unseen"), &[], b"").await;
    let told =
        |record: &Value| record["path"] == "/unseen" && record["details"].as_str().is_some_and(|it| !it.is_empty());
    util::eventually(WITNESS, || world.records().iter().any(told)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_an_authorization_policy_refuses_is_told_so_by_istio() {
    let policy = |bootstrap: &mut Value| {
        let rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
        let nobody = json!({"name": "envoy.filters.http.rbac", "typed_config": {"@type": rbac, "rules": {}}});
        filters(bootstrap).insert(0, nobody);
    };
    let changes = Changes { bootstrap: Some(&policy), ..Changes::default() };
    let world = World::changed(Topology::EgressGateway, Part::EnvoyFilter, changes).await;
    let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
    assert_eq!((answer.status, refusal::reason(&answer)), (403, None), "{}", answer.text());
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_nothing_unsafe_in_what_either_proxy_runs() {
    for topology in BOTH {
        let world = World::start(topology, Part::EnvoyFilter).await;
        let dump = serde_json::from_str(&world.envoy.config_dump().await).expect("a dump");
        let findings = doctor::examine(&EnvoyConfig::from_value(&dump));
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "{topology:?}:\n{}", told.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_other_hosts_pass_they_pass_without_a_credential_and_managed_ones_stay_shut() {
    let pass = |config: String| format!("{config}unmatched: pass\n");
    let own = |bootstrap: &mut Value| {
        let routes =
            json!([{"name": "own", "match": {"prefix": "/"}, "route": {"cluster": "outbound|443||sentry.io"}}]);
        let own = json!({"name": "own", "domains": ["reviews.test"], "routes": routes});
        manager(bootstrap)["route_config"]["virtual_hosts"].as_array_mut().expect("hosts").push(own);
    };
    let changes = Changes { config: Some(&pass), bootstrap: Some(&own), ..Changes::default() };
    let world = World::changed(Topology::Sidecar, Part::EnvoyFilter, changes).await;
    let passed = world.send("GET", ("reviews.test", "/"), &[], b"").await;
    assert_eq!(passed.status, 200, "{}", passed.text());
    let placeholder = world.placeholder("builder", "GITHUB_TOKEN");
    refusal::expect(&world.get(("reviews.test", "/"), &placeholder).await, Reason::PlaceholderMisplaced);
    assert_eq!(world.get(("api.github.com", "/user"), &placeholder).await.status, 200);
    assert_eq!(world.upstream.hits().len(), 1);
    world.reconcile().await;
}

/// The connection manager that serves agents.
pub fn manager(bootstrap: &mut Value) -> &mut Value {
    let filters = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    &mut filters.as_array_mut().expect("filters").last_mut().expect("a manager")["typed_config"]
}

fn filters(bootstrap: &mut Value) -> &mut Vec<Value> {
    manager(bootstrap)["http_filters"].as_array_mut().expect("filters")
}
