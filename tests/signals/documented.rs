//! `docs/metrics.md` says what the filter tells, and nothing else; what it tells is so.

use std::collections::BTreeSet;

use attache_core::refusal::Reason;
use attache_tests::util;

use crate::scene::Scene;

/// The value of a sample; 0 where there is none.
fn sample(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_every_metric_of_the_filter_and_no_other() {
    let scene = Scene::start().await;
    scene.live(0).await;
    scene.counted(3, 6).await;
    let page = scene.filter().await;
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let told: BTreeSet<_> = types.filter(|(name, _)| name.starts_with("attache_")).collect();
    let document = std::fs::read_to_string(util::workspace_root().join("docs/metrics.md")).expect("the document");
    let (_, filter) = document.split_once("## What the filter tells\n").expect("its section");
    let rows = filter.split("\n## ").next().unwrap_or_default().lines();
    let rows = rows.filter_map(|row| row.strip_prefix("| `")?.split_once("` | "));
    let written: BTreeSet<_> = rows.filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0))).collect();
    assert_eq!(written, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_is_counted_once_and_with_its_reason() {
    let scene = Scene::start().await;
    scene.live(0).await;
    scene.counted(3, 6).await;
    let page = scene.filter().await;
    let refused =
        |reason: &str| sample(&page, &format!("attache_decisions{{outcome=\"refused\",reason=\"{reason}\"}}"));
    assert_eq!(sample(&page, "attache_decisions{outcome=\"forwarded\"}"), 3.0);
    for reason in Reason::ALL.iter().map(|reason| reason.as_str()) {
        let expected = ["read_only", "placeholder_unknown", "host_not_allowed"].contains(&reason);
        assert_eq!(refused(reason), f64::from(u8::from(expected)), "{reason}");
        let name = format!("attache_decisions{{outcome=\"refused\",reason=\"{reason}\"}} ");
        assert!(page.contains(&name), "{reason} shows, though nothing has happened");
    }
    // Two of the three with a credential needed no question; the one to nowhere asks none.
    assert_eq!((sample(&page, "attache_cache_hits{}"), sample(&page, "attache_cache_misses{}")), (2.0, 3.0));
    assert_eq!((sample(&page, "attache_records{}"), sample(&page, "attache_records_acknowledged{}")), (6.0, 6.0));
    assert_eq!(sample(&page, "attache_stale_milliseconds{}"), 0.0);
    // Envoy shows histograms as of the last flush, every five seconds.
    let timed =
        |page: &str, call: &str| sample(page, &format!("attache_callout_milliseconds_count{{call=\"{call}\"}}"));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let page = loop {
        let page = scene.filter().await;
        if timed(&page, "grant") > 0.0 {
            break page;
        }
        assert!(std::time::Instant::now() < end, "{page}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!((timed(&page, "grant"), timed(&page, "tunnel")), (3.0, 0.0), "each question once");
    assert!(timed(&page, "policy") >= 1.0 && timed(&page, "audit") >= 1.0, "{page}");
    scene.stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_its_broker_is_told_to_be_stale_for_as_long_as_it_is() {
    use attache_tests::stack::Plan;
    let scene = Scene::of(Plan::default().limit("stale_after: 1s")).await;
    scene.live(0).await;
    let stale = "wasmcustom.attache.stale_milliseconds";
    assert_eq!(scene.stack.envoy.stat(stale).await, Some(0));
    scene.stack.broker.kill();
    let deadline = std::time::Duration::from_secs(10);
    scene.stack.envoy.wait_stat(stale, |millis| millis > 500, deadline).await;
    let failed = "wasmcustom.attache.callouts_failed";
    scene.stack.envoy.wait_stat(failed, |failed| failed > 0, deadline).await;
    scene.stack.broker.restart().await;
    // As soon as it is in touch, it no longer grows.
    let end = std::time::Instant::now() + deadline;
    loop {
        let before = scene.stack.envoy.stat(stale).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        if scene.stack.envoy.stat(stale).await == before {
            break;
        }
        assert!(std::time::Instant::now() < end, "it goes on");
    }
}
