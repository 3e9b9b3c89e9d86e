//! By a TrafficExtension or a WasmPlugin: what they can say is enough to inject, and what they cannot say is refused.

use attache_broker::doctor::{self, EnvoyConfig, Severity};
use attache_broker::envoy::istio::{Part, Topology};
use attache_core::refusal::Reason;
use attache_tests::{refusal, util};
use serde_json::{Value, json};

use crate::decides::{BATCH, DOWNLOAD, LFS, basic};
use crate::world::{Change, Changes, GITHUB, World};

const WAYS: [(Topology, Part); 4] = [
    (Topology::EgressGateway, Part::TrafficExtension),
    (Topology::EgressGateway, Part::WasmPlugin),
    (Topology::Sidecar, Part::TrafficExtension),
    (Topology::Sidecar, Part::WasmPlugin),
];
const BOTH: [Topology; 2] = [Topology::EgressGateway, Topology::Sidecar];

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_injected_and_what_needs_a_body_is_refused_and_the_log_says_so() {
    for (topology, part) in WAYS {
        let world = World::start(topology, part).await;
        let placeholder = world.placeholder("builder", "GITHUB_TOKEN");
        let answer = world.get(("api.github.com", "/user"), &placeholder).await;
        assert_eq!(answer.status, 200, "{topology:?} {part:?}: {}", answer.text());
        let hit = world.upstream.requests().pop().expect("a hit");
        assert_eq!(hit.header("authorization"), Some(format!("Bearer {GITHUB}")));
        assert_eq!(hit.header("x-forwarded-proto"), None);

        let fields = |placeholder: &str| basic(placeholder);
        let (writer, reader) = (fields(&placeholder), fields(&world.placeholder("reviewer", "GITHUB_TOKEN")));
        // Whoever may write may write whatever the body says.
        let written = world.send("POST", BATCH, &[("authorization", &writer), LFS], DOWNLOAD).await;
        assert_eq!(written.status, 200, "{}", written.text());
        let read = world.send("POST", BATCH, &[("authorization", &reader), LFS], DOWNLOAD).await;
        refusal::expect(&read, Reason::BodyUnreadable);
        assert_eq!(world.upstream.hits().len(), 2);

        let log = world.envoy.log();
        assert!(log.contains("no judge stands before this gate"), "{log}");
        assert!(log.contains("no route here asks for the verdict"), "{log}");
        world.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_to_another_cluster_than_the_destinations_gets_nothing() {
    let astray = |manifests: &mut Vec<Value>| {
        let meant = |one: &&mut Value| one["kind"] == "VirtualService" && one["spec"]["hosts"][0] == "api.github.com";
        let service = manifests.iter_mut().find(meant).expect("the routes of a host");
        for route in service["spec"]["http"].as_array_mut().expect("routes") {
            route["route"][0]["destination"]["host"] = "sentry.io".into();
        }
    };
    for (topology, part) in WAYS {
        let changes = Changes { manifests: Some(&astray), ..Changes::default() };
        let world = World::changed(topology, part, changes).await;
        let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
        refusal::expect(&answer, Reason::DestinationMismatch);
        assert!(world.upstream.requests().is_empty(), "{topology:?} {part:?}");
        world.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_word_on_a_body_is_believed_where_there_is_no_judge() {
    // The judge itself, put there by somebody else: any plugin that writes the same would do.
    let other = |bootstrap: &mut Value| {
        let settings = json!({
            "role": "judge", "instance": "other", "broker_cluster": "", "stale_after_ms": 1, "callout_timeout_ms": 1,
            "body_limit": 1024, "guarded": true,
        });
        let string = "type.googleapis.com/google.protobuf.StringValue";
        let plugin = json!({
            "name": "other",
            "vm_config": {
                "vm_id": "other",
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": util::filter_wasm()}},
            },
            "configuration": {"@type": string, "value": settings.to_string()},
            "allow_on_headers_stop_iteration": true,
        });
        let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
        let filter = json!({"name": "other", "typed_config": {"@type": wasm, "config": plugin}});
        let filters = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
        let manager = &mut filters.as_array_mut().expect("filters").last_mut().expect("a manager")["typed_config"];
        manager["http_filters"].as_array_mut().expect("filters").insert(0, filter);
    };
    let undeclared = |manifests: &mut Vec<Value>| {
        let extension = manifests.iter_mut().find(|one| one["kind"] == "TrafficExtension").expect("an extension");
        extension["spec"]["wasm"]["pluginConfig"].as_object_mut().expect("settings").remove("lacks");
    };
    for (topology, declared) in BOTH.iter().flat_map(|topology| [true, false].map(|declared| (*topology, declared))) {
        let manifests: Change<'_, Vec<Value>> = if declared { None } else { Some(&undeclared) };
        let changes = Changes { bootstrap: Some(&other), manifests, ..Changes::default() };
        let world = World::changed(topology, Part::TrafficExtension, changes).await;
        let reader = basic(&world.placeholder("reviewer", "GITHUB_TOKEN"));
        let read = world.send("POST", BATCH, &[("authorization", &reader), LFS], DOWNLOAD).await;
        if declared {
            refusal::expect(&read, Reason::BodyUnreadable);
            assert!(world.upstream.requests().is_empty());
        } else {
            // The word is one that a gate with a judge believes.
            assert_eq!(read.status, 200, "{}", read.text());
        }
    }
}

/// The page of this feature names each of these.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_else_they_leave_open() {
    for topology in BOTH {
        let world = World::start(topology, Part::TrafficExtension).await;
        let dump = serde_json::from_str(&world.envoy.config_dump().await).expect("a dump");
        let findings = doctor::examine(&EnvoyConfig::from_value(&dump));
        let failed = findings.iter().filter(|it| it.severity == Severity::Fail);
        let mut open: Vec<&str> = failed.map(|it| it.check).collect();
        open.dedup();
        let page = std::fs::read_to_string(util::workspace_root().join("docs/istio.md")).expect("the page");
        let unnamed: Vec<_> = open.iter().filter(|check| !page.contains(&format!("`{check}`"))).collect();
        assert!(unnamed.is_empty(), "{topology:?}: docs/istio.md does not name {unnamed:?}");
    }
}
