//! Every query of dashboard and alerts, asked of a real run.

use std::time::{Duration, Instant};

use attache_tests::stack::{Plan, SOON};

use crate::exposition::Exposition;
use crate::prometheus::Prometheus;
use crate::queries::{alerts, all, looked_at, of_dashboard};
use crate::scene::Scene;

/// How long the scrapes of a few requests may take.
const SCRAPES: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_and_label_that_is_asked_for_is_told() {
    let scene = Scene::start().await;
    scene.live(0).await;
    scene.counted(3, 6).await;
    let (filter, broker) = (scene.filter().await, scene.broker().await);
    let told = Exposition::read(&[&filter, &broker]);
    let lacking: Vec<_> = all()
        .iter()
        .map(|query| (query.place.clone(), told.lacks(&query.expr)))
        .filter(|(_, lacks)| !lacks.is_empty())
        .collect();
    // A rotation that never was has no attempts, and no source has had trouble with anything but 0.
    assert_eq!(lacking, []);
    assert!(told.names("attache_").len() > 50, "{:?}", told.names("attache_"));
}

/// A hundred thousand destinations of which ten are asked for need memory for the counters of ten.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_has_counters_of_traffic_from_its_first_request_on() {
    let stack = Plan::default().start().await;
    let total = |host: &str| format!("cluster.attache_dst_{host}_443.upstream_rq_total");
    let (asked, other) = (total("api.github.com"), total("api.custom.test"));
    assert_eq!((stack.envoy.stat(&asked).await, stack.envoy.stat(&other).await), (None, None));
    let answer = stack.get("api.github.com", "/user", &stack.placeholder("writer", "github")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((stack.envoy.stat(&asked).await, stack.envoy.stat(&other).await), (Some(1), None));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_finds_data_for_every_query() {
    let scene = Scene::start().await;
    let Some(prometheus) = Prometheus::scraping(scene.health, scene.stack.envoy.admin()).await else { return };
    let queries: Vec<_> = of_dashboard()
        .into_iter()
        .map(|query| (query.place, query.expr))
        .chain(alerts().into_iter().map(|alert| (format!("alert {}", alert.name), alert.expr)))
        .collect();
    let end = Instant::now() + SCRAPES;
    for turn in 0.. {
        scene.live(turn).await;
        let mut without = Vec::new();
        for (place, expr) in &queries {
            match prometheus.ask(looked_at(expr)).await {
                Ok(series) if !series.is_empty() => {}
                Ok(_) => without.push(place),
                Err(error) => assert!(Instant::now() < end && error.starts_with("not ready"), "{place}: {error}"),
            }
            // With what it compares: Prometheus reads it, whatever it finds.
            let whole = prometheus.ask(expr).await;
            assert!(whole.is_ok(), "{place}: {whole:?}");
        }
        let slow = prometheus
            .ask("histogram_quantile(0.99, sum by (le) (rate(attache_callout_milliseconds_bucket[1m])))")
            .await;
        let is_number = |value: &serde_json::Value| value["value"][1].as_str().is_some_and(|value| value != "NaN");
        if without.is_empty() && slow.is_ok_and(|series| series.iter().any(is_number)) {
            break;
        }
        assert!(Instant::now() < end, "no data for {without:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // All is well: of the alerts only that nobody has scraped long enough could fire, and it does not.
    for alert in alerts() {
        let firing = prometheus.ask(&alert.expr).await.expect("a query");
        assert_eq!(firing, [] as [serde_json::Value; 0], "{}", alert.name);
    }
    // And one that should, does.
    scene.stack.broker.kill();
    let down = &alerts()[0].expr;
    while prometheus.ask(down).await.expect("a query").is_empty() {
        assert!(Instant::now() < end + SCRAPES, "{down} sees that the broker is away");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the dashboard calls the backlog: records that were made, and that the broker does not hold.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_for_a_broker_that_is_away_show_as_backlog() {
    let scene = Scene::start().await;
    let stack = &scene.stack;
    let writer = stack.placeholder("writer", "github");
    assert_eq!(stack.get("api.github.com", "/user", &writer).await.status, 200);
    scene.counted(1, 1).await;
    scene.stack.broker.kill();
    // By the grant that Envoy has.
    assert_eq!(stack.get("api.github.com", "/user", &writer).await.status, 200);
    let backlog = async || {
        let told = scene.filter().await;
        let sum = |name: &str| -> f64 {
            let lines = told.lines().filter_map(|line| line.split_once(' '));
            let of = lines.filter(|(series, _)| series.split('{').next() == Some(name));
            of.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
        };
        sum("attache_records") - sum("attache_records_acknowledged")
    };
    let until = async |holds: fn(f64) -> bool| {
        let end = Instant::now() + SOON;
        loop {
            let waits = backlog().await;
            if holds(waits) {
                return;
            }
            assert!(Instant::now() < end, "{waits} records wait");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until(|waits| waits > 0.0).await;
    stack.broker.restart().await;
    until(|waits| waits == 0.0).await;
    stack.reconcile().await;
}
