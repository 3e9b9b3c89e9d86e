//! Labels come out of names by the bootstrap of ours, and by the one that Istio would write.

use attache_tests::stack::Plan;
use serde_json::json;

use crate::scene::Scene;

/// What Istio's bootstrap has for each of `extraStatTags` (as its template in istio/istio has it).
fn as_istio(label: &str) -> serde_json::Value {
    json!({"tag_name": label, "regex": format!(r"({label}=\.=(.*?);\.;)")})
}

#[tokio::test(flavor = "multi_thread")]
async fn istios_extra_stat_tags_make_the_same_labels() {
    let tags: Vec<_> = attache_broker::envoy::stats::LABELS.into_iter().map(as_istio).collect();
    let plan = Plan::default().edit(move |bootstrap| {
        bootstrap["stats_config"] = json!({
            "stats_tags": tags,
            // What Istio lets in besides its own, by `proxyStatsMatcher`.
            "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "wasmcustom"}]}},
        });
    });
    let scene = Scene::of(plan).await;
    scene.live(0).await;
    let acknowledged = "wasmcustom.attache.records_acknowledged";
    scene.stack.envoy.wait_stat(acknowledged, |held| held == 6, attache_tests::stack::SOON).await;
    let page = scene.filter().await;
    for sample in [
        "attache_decisions{outcome=\"forwarded\"} 3\n",
        "attache_decisions{outcome=\"refused\",reason=\"read_only\"} 1\n",
        "attache_callout_milliseconds_count{call=\"grant\"} ",
    ] {
        assert!(page.contains(sample), "{sample}:\n{page}");
    }
}

#[test]
fn the_document_shows_the_tags_that_the_bootstrap_has() {
    let root = attache_tests::util::workspace_root();
    let document = std::fs::read_to_string(root.join("docs/metrics.md")).expect("the document");
    let (_, shown) = document.split_once("```yml stats\n").expect("they are shown");
    let shown: serde_json::Value = serde_saphyr::from_str(shown.split("```").next().unwrap_or_default()).expect("YAML");
    let example = std::fs::read_to_string(root.join("envoy/gateway.yaml")).expect("the example");
    let example: serde_json::Value = serde_saphyr::from_str(&example).expect("YAML");
    assert_eq!(shown["stats_config"], example["stats_config"]);
}
