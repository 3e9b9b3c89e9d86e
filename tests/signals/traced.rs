//! A grant is a span in the trace of the request that needed it; what is cached, and what nobody samples, is none.
//! The collector is a stand-in that takes OTLP over HTTP as the protocol says, and may be silent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attache_tests::stack::{CUSTOM, GITHUB, Plan, SOON};
use attache_tests::util;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};

use crate::scene::Scene;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let taken = self.clone();
        let take = move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body.clone()).expect("OTLP");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            taken.spans.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
            taken.bodies.lock().unwrap().push(body);
            async {}
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
        at
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }

    async fn has(&self, name: &str, many: usize) -> Vec<Span> {
        util::eventually(SOON, || self.named(name).len() >= many).await;
        self.named(name)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sampled() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

async fn scene(endpoint: SocketAddr) -> Scene {
    let telemetry = format!("telemetry: {{otlp: {{endpoint: 'http://{endpoint}/v1/traces'}}}}\n");
    Scene::of(Plan::default().extra(&telemetry)).await
}

async fn get(scene: &Scene, placeholder: &str, traceparent: &str) -> u16 {
    let bearer = format!("Bearer {placeholder}");
    let headers = [("authorization", bearer.as_str()), ("traceparent", traceparent)];
    scene.stack.agent().get(scene.stack.proxy, "api.github.com", "/user", &headers).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_continues_the_trace_of_its_request() {
    let collector = Collector::default();
    let scene = scene(collector.start().await).await;
    let placeholder = scene.stack.placeholder("writer", "github");
    assert_eq!(get(&scene, &placeholder, &sampled()).await, 200);
    let grants = collector.has("grant", 1).await;
    let [grant] = &grants[..] else { panic!("{grants:?}") };
    assert_eq!((hex(&grant.trace_id), hex(&grant.parent_span_id)), (TRACE.into(), PARENT.into()));
    for part in ["source", "lease", "audit"] {
        let parts = collector.named(part);
        let [part] = &parts[..] else { panic!("{part}: {parts:?}") };
        assert_eq!((&part.trace_id, &part.parent_span_id), (&grant.trace_id, &grant.span_id));
        assert!(part.start_time_unix_nano >= grant.start_time_unix_nano, "within it");
        assert!(part.end_time_unix_nano <= grant.end_time_unix_nano, "within it");
    }
    let said = format!("{:?}", grant.attributes);
    for value in ["api.github.com:443", "granted", "github", "writer", "read-write", "attache.worker"] {
        assert!(said.contains(value), "{value}: {said}");
    }
    // It knows now: no question, no span. Nor is a refusal of the filter's own one.
    assert_eq!(get(&scene, &placeholder, &sampled()).await, 200);
    // What nobody knows is asked, and answered with a refusal, which is no error.
    assert_eq!(get(&scene, "ghp_ATTACHEnobodysPlaceholder0000000000", &sampled()).await, 401);
    let grants = collector.has("grant", 2).await;
    assert_eq!(grants.len(), 2);
    let said = format!("{:?}", grants[1].attributes);
    assert!(said.contains("denied") && said.contains("placeholder_unknown"), "{said}");
    assert!(grants[1].status.as_ref().is_none_or(|status| status.code == 0), "{:?}", grants[1].status);
    for body in collector.bodies.lock().unwrap().iter() {
        let text = String::from_utf8_lossy(body);
        for never in [GITHUB, CUSTOM, &placeholder, "nobodysPlaceholder"] {
            assert!(!text.contains(never), "{never}");
        }
    }
    scene.stack.reconcile().await;
}

/// The HTTP connection managers of a bootstrap.
fn managers(bootstrap: &mut Value) -> impl Iterator<Item = &mut Value> {
    let listeners = bootstrap["static_resources"]["listeners"].as_array_mut().into_iter().flatten();
    let chains = listeners.filter_map(|listener| listener["filter_chains"].as_array_mut()).flatten();
    chains.filter_map(|chain| chain["filters"].as_array_mut()).flatten().map(|filter| &mut filter["typed_config"])
}

/// Envoy as the document has it.
#[tokio::test(flavor = "multi_thread")]
async fn envoys_own_spans_and_the_brokers_share_one_trace() {
    let collector = Collector::default();
    let at = collector.start().await;
    let document = std::fs::read_to_string(util::workspace_root().join("docs/tracing.md")).expect("the document");
    let (_, shown) = document.split_once("```yml envoy\n").expect("it is shown");
    let shown: Value = serde_saphyr::from_str(shown.split("```").next().unwrap_or_default()).expect("YAML");
    let endpoint = json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": at.port()}}});
    let cluster = json!({"name": "otlp", "type": "STATIC", "load_assignment": {
        "cluster_name": "otlp", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
    }});
    let telemetry = format!("telemetry: {{otlp: {{endpoint: 'http://{at}/v1/traces'}}}}\n");
    let plan = Plan::default().extra(&telemetry).edit(move |bootstrap| {
        managers(bootstrap).for_each(|manager| manager["tracing"] = shown["tracing"].clone());
        bootstrap["static_resources"]["clusters"].as_array_mut().expect("clusters").push(cluster);
    });
    let scene = Scene::of(plan).await;
    let placeholder = scene.stack.placeholder("writer", "github");
    assert_eq!(get(&scene, &placeholder, &sampled()).await, 200);
    let grant = collector.has("grant", 1).await;
    let of_envoy = |span: &&Span| span.name != "grant" && hex(&span.trace_id) == TRACE && span.kind == 2;
    util::eventually(SOON, || collector.spans.lock().unwrap().iter().any(|span| of_envoy(&span))).await;
    assert_eq!((hex(&grant[0].trace_id), hex(&grant[0].parent_span_id)), (TRACE.into(), PARENT.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_samples_and_what_is_no_trace_is_no_span() {
    let collector = Collector::default();
    let scene = scene(collector.start().await).await;
    let reader = scene.stack.placeholder("reader", "github");
    let others = [
        sampled().replace("-01", "-00"),
        sampled().to_uppercase(),
        format!("{}-extra", sampled()),
        sampled().replace(TRACE, &"0".repeat(32)),
        "nonsense\u{e9}".to_owned(),
        "x".repeat(4000),
    ];
    for (turn, other) in others.iter().enumerate() {
        // Another placeholder each time, so that the broker is asked.
        assert_eq!(get(&scene, &format!("ghp_ATTACHEnobodys{turn:020}"), other).await, 401, "{other}");
    }
    // Of the last one there is one: those before would have come before it.
    assert_eq!(get(&scene, &reader, &sampled()).await, 200);
    assert_eq!(collector.has("grant", 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_delays_no_grant_and_what_it_misses_is_counted() {
    // It accepts connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let scene = scene(silent.local_addr().expect("an address")).await;
    let placeholder = scene.stack.placeholder("writer", "github");
    let began = Instant::now();
    assert_eq!(get(&scene, &placeholder, &sampled()).await, 200);
    for turn in 0..20 {
        assert_eq!(get(&scene, &format!("ghp_ATTACHEnobodys{turn:020}"), &sampled()).await, 401);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let end = Instant::now() + Duration::from_secs(30);
    while !scene
        .broker()
        .await
        .lines()
        .any(|line| line.strip_prefix("attache_spans_total{result=\"dropped\"} ").is_some_and(|many| many != "0"))
    {
        assert!(Instant::now() < end, "what was given up is counted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
