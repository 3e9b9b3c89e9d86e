//! In a sidecar an extension asks the broker by a cluster that a small EnvoyFilter adds, over mutual TLS and for its
//! own agent alone; and the agent beside it has no way there.

use std::time::{Duration, Instant};

use attache_broker::doctor::{self, EnvoyConfig};
use attache_broker::envoy::istio::{BROKER_HOST, Part, Topology};
use attache_core::refusal::Reason;
use attache_tests::stack::SOON;
use attache_tests::{refusal, util};
use serde_json::{Value, json};

use crate::decides::manager;
use crate::world::{Changes, GITHUB, World};

const EXTENSIONS: [Part; 2] = [Part::TrafficExtension, Part::WasmPlugin];
const BUILDER: &str = "spiffe://cluster.local/ns/agents/sa/builder";

/// A sidecar with the broker's own door: mutual TLS by the manifest's cluster.
async fn sidecar(part: Part) -> World {
    World::changed(Topology::Sidecar, part, Changes { mutual: true, ..Changes::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_by_mutual_tls_and_for_its_own_agent_alone() {
    for part in EXTENSIONS {
        let world = sidecar(part).await;
        let answer = world.get(("api.github.com", "/user"), &world.placeholder("builder", "GITHUB_TOKEN")).await;
        assert_eq!(answer.status, 200, "{part:?}: {}", answer.text());
        let hit = world.upstream.requests().pop().expect("a hit");
        assert_eq!(hit.header("authorization"), Some(format!("Bearer {GITHUB}")));
        let others = world.get(("api.github.com", "/user"), &world.placeholder("reviewer", "GITHUB_TOKEN")).await;
        refusal::expect(&others, Reason::PlaceholderUnknown);
        let of = |kind: &str| world.records().into_iter().filter(|record| record["kind"] == kind).collect::<Vec<_>>();
        util::eventually(SOON, || !of("use").is_empty()).await;
        for record in of("issue").iter().chain(&of("use")) {
            assert_eq!(record["asked_by"], BUILDER, "{record:#}");
        }
        world.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_over() {
    for part in EXTENSIONS {
        let world = sidecar(part).await;
        let placeholder = world.placeholder("builder", "GITHUB_TOKEN");
        assert_eq!(world.get(("api.github.com", "/user"), &placeholder).await.status, 200);
        world.broker.json(&["session", "revoke", "builder"]);
        refusal::expect(&world.get(("api.github.com", "/user"), &placeholder).await, Reason::SessionExpired);
        assert_eq!(world.upstream.hits().len(), 1);
        world.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_it_stays_shut_and_opens_by_itself() {
    for part in EXTENSIONS {
        let world = sidecar(part).await;
        let placeholder = world.placeholder("builder", "GITHUB_TOKEN");
        assert_eq!(world.get(("api.github.com", "/user"), &placeholder).await.status, 200);
        world.broker.kill();
        let shut = world.get(("uploads.github.com", "/"), &placeholder).await;
        refusal::expect(&shut, Reason::BrokerUnavailable);
        assert_eq!(world.upstream.hits().len(), 1);
        world.broker.restart().await;
        let begun = Instant::now();
        loop {
            let answer = world.get(("uploads.github.com", "/"), &placeholder).await;
            if answer.status == 200 {
                break;
            }
            assert_eq!(answer.status, 503, "refused until then: {}", answer.text());
            assert!(begun.elapsed() < SOON, "still {}", answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.reconcile().await;
    }
}

/// An extension whose EnvoyFilter nobody has applied, or that somebody has removed.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_cluster_nothing_is_forwarded() {
    for part in EXTENSIONS {
        let alone = |manifests: &mut Vec<Value>| manifests.retain(|manifest| manifest["kind"] != "EnvoyFilter");
        let changes = Changes { manifests: Some(&alone), ..Changes::default() };
        let world = World::changed(Topology::Sidecar, part, changes).await;
        let placeholder = world.placeholder("builder", "GITHUB_TOKEN");
        for authority in ["api.github.com", "elsewhere.test"] {
            let answer = world.get((authority, "/user"), &placeholder).await;
            refusal::expect(&answer, Reason::PolicyMissing);
        }
        assert!(world.upstream.requests().is_empty());
        assert!(world.envoy.alive());
    }
}

/// Whatever it calls the broker, and also where the config lets other hosts pass: no listener and no route of the
/// sidecar leads there. By a route that did, its own call would come in with the pod's certificate.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_beside_it_reaches_no_broker_by_it() {
    const CLUSTER: &str = "attache_broker";
    let called = |host: &str| [host.to_owned(), format!("{host}:3031"), format!("{host}:80")];
    let names: Vec<String> =
        [BROKER_HOST, "attache-broker.attache", CLUSTER, "127.0.0.1"].into_iter().flat_map(called).collect();
    let pass = |config: String| format!("{config}unmatched: pass\n");
    let astray = |bootstrap: &mut Value| {
        let routes = json!([{"name": "astray", "match": {"prefix": "/"}, "route": {"cluster": CLUSTER}}]);
        let host = json!({"name": "astray", "domains": [BROKER_HOST], "routes": routes});
        manager(bootstrap)["route_config"]["virtual_hosts"].as_array_mut().expect("hosts").push(host);
    };
    for part in EXTENSIONS {
        for lets_pass in [false, true] {
            let mut changes = Changes { mutual: true, ..Changes::default() };
            changes.config = if lets_pass { Some(&pass) } else { None };
            let world = World::changed(Topology::Sidecar, part, changes).await;
            assert_eq!(world.envoy.listeners().await.len(), 1, "the agent's own");
            for name in &names {
                let answer = world.send("GET", (name, "/healthz"), &[], b"").await;
                match lets_pass {
                    false => drop(refusal::expect(&answer, Reason::HostNotAllowed)),
                    true => assert_eq!((answer.status, answer.text().as_str()), (502, ""), "{part:?} {name}"),
                }
            }
            assert!(!open(&world).await.contains(&"broker-reachable"), "{part:?}");
            world.reconcile().await;
        }
        let changes = Changes { mutual: true, config: Some(&pass), bootstrap: Some(&astray), ..Changes::default() };
        let world = World::changed(Topology::Sidecar, part, changes).await;
        assert_eq!(world.send("GET", (BROKER_HOST, "/healthz"), &[], b"").await.status, 200, "that is a way");
        assert!(open(&world).await.contains(&"broker-reachable"), "and doctor sees it");
    }
}

/// What doctor finds in the running proxy.
async fn open(world: &World) -> Vec<&'static str> {
    let dump = serde_json::from_str(&world.envoy.config_dump().await).expect("a dump");
    doctor::examine(&EnvoyConfig::from_value(&dump)).iter().map(|finding| finding.check).collect()
}
