//! The broker's cluster comes and goes while requests do: a call to a cluster that is not there fails
//! in the call itself, without an answer to wait for.

use std::path::PathBuf;

use attache_core::refusal::Reason;
use attache_tests::fake_broker::Endpoint;
use attache_tests::stack::{Plan, SOON};
use attache_tests::util;
use serde_json::{Value, json};

use crate::scene::Scene;

const BROKER: &str = "attache_broker";

/// The broker's cluster, as a control plane delivers it: a file that Envoy watches.
struct Delivered {
    dir: tempfile::TempDir,
}

impl Delivered {
    fn file(&self) -> PathBuf {
        self.dir.path().join("clusters.json")
    }

    /// Replaces the file as a whole, which is what Envoy notices.
    fn deliver(&self, clusters: &[Value]) {
        let beside = self.dir.path().join("clusters.new");
        std::fs::write(&beside, json!({"resources": clusters}).to_string()).expect("the file is writable");
        std::fs::rename(beside, self.file()).expect("the file in place");
    }

    fn take_over(&self, bootstrap: &mut Value) {
        let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().expect("clusters");
        let at = clusters.iter().position(|cluster| cluster["name"] == BROKER).expect("the broker's cluster");
        let mut cluster = clusters.remove(at);
        cluster["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
        self.deliver(&[cluster]);
        let source = json!({"path_config_source": {"path": self.file()}, "resource_api_version": "V3"});
        bootstrap["dynamic_resources"] = json!({"cds_config": source});
    }
}

/// Grants and audit, once the worker is warm: each dispatch fails as it is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_vanishes_refuses_strangers_and_loses_no_record() {
    let delivered = std::sync::Arc::new(Delivered { dir: util::temp_dir() });
    let at_start = std::sync::Arc::clone(&delivered);
    let scene = Scene::of(Plan::default().edit(move |b| at_start.take_over(b)).start_with_fake().await).await;
    let (broker, envoy) = (&scene.stack.broker, &scene.stack.envoy);
    broker.in_touch(2, SOON).await;
    let known = scene.stranger();
    assert_eq!(scene.ask_as(&known).await.status, 200);
    broker.wait_records(1, SOON).await;
    let cluster: Value = serde_json::from_slice(&std::fs::read(delivered.file()).expect("the file")).expect("JSON");

    delivered.deliver(&[]);
    envoy.wait_stat("cluster_manager.cluster_removed", |removed| removed == 1, SOON).await;
    // Its workers notice each in its own time: two polls of both VMs have failed in the call.
    let failed = "wasmcustom.attache.callouts_failed";
    let before = envoy.stat(failed).await.unwrap_or(0);
    envoy.wait_stat(failed, |failures| failures >= before + 6, SOON).await;
    let asked = broker.calls(Endpoint::Grants);
    for _ in 0..3 {
        scene.refuses(Reason::BrokerUnavailable, "a stranger without a cluster").await;
    }
    // A grant that may be believed is still used; its record has nowhere to go.
    let (held, audits) = (broker.records().len(), broker.calls(Endpoint::Audit));
    let failures = envoy.stat(failed).await.unwrap_or(0);
    for _ in 0..3 {
        assert_eq!(scene.ask_as(&known).await.status, 200);
    }
    envoy.wait_stat(failed, |now| now >= failures + 6, SOON).await;
    assert_eq!((broker.calls(Endpoint::Grants), broker.calls(Endpoint::Audit)), (asked, audits));

    delivered.deliver(cluster["resources"].as_array().expect("resources"));
    scene.recovers("the cluster's return").await;
    // Three refusals, three uses, and what it took to come back.
    let records = broker.wait_records(held + 7, SOON).await;
    let kinds = |kind: &str| records[held..].iter().filter(|record| record["kind"] == kind).count();
    assert!(kinds("use") >= 4 && kinds("deny") >= 3, "{records:#?}");
    let numbers: Vec<_> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>(), "nothing is lost, nothing twice");
    scene.ends_well().await;
}
