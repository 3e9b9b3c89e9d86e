//! Spans on their way to a collector: a stand-in that takes OTLP over HTTP, as the protocol says.

use super::*;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::trace::v1::{Span as Told, status::StatusCode as Ended};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn parent() -> Option<TraceParent> {
    TraceParent::parse(format!("00-{TRACE}-{PARENT}-01").as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    attache_core::digest::hex(bytes)
}

/// A collector that answers with this status, and what it was sent.
async fn collector(status: StatusCode) -> (String, Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let taken = Arc::<Mutex<Vec<_>>>::default();
    let took = taken.clone();
    let take = move |body: Bytes| {
        took.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
        async move { status }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
    (endpoint, taken)
}

fn ended(meters: &SpanMeters, result: &'static str) -> u64 {
    meters.ended.get_or_create(&crate::meters::SpanEnd { result }).get()
}

async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_span_and_its_parts_continue_the_trace_of_the_request() {
    let (endpoint, taken) = collector(StatusCode::OK).await;
    let (traces, export) = Traces::new(Some(&endpoint), &Name::parse("i").unwrap());
    let export = tokio::spawn(export.unwrap());
    let meters = traces.meters().clone();
    let grant = traces.serve("grant", parent());
    grant.says("attache.session", "reviewer");
    drop(grant.child("audit"));
    grant.failed("source_unavailable");
    drop((grant, traces));
    // Nobody makes any more: what is under way arrives, and that is the end.
    export.await.unwrap();
    assert_eq!(ended(&meters, "exported"), 2);
    let taken = taken.lock().unwrap();
    let resource = format!("{:?}", taken[0].resource_spans[0].resource);
    assert!(resource.contains("service.name") && resource.contains("attache"), "{resource}");
    let spans: Vec<&Told> =
        taken.iter().flat_map(|one| &one.resource_spans[0].scope_spans).flat_map(|one| &one.spans).collect();
    let named = |name: &str| *spans.iter().find(|span| span.name == name).unwrap();
    let (grant, audit) = (named("grant"), named("audit"));
    assert_eq!((hex(&grant.trace_id), hex(&grant.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!((&audit.trace_id, &audit.parent_span_id), (&grant.trace_id, &grant.span_id));
    assert_eq!(grant.status.as_ref().unwrap().code(), Ended::Error);
    assert!(format!("{:?}", grant.attributes).contains("reviewer"));
    assert!(grant.end_time_unix_nano >= audit.end_time_unix_nano && audit.end_time_unix_nano > 0);
}

#[tokio::test]
async fn who_is_part_of_no_sampled_trace_has_no_span() {
    let (endpoint, taken) = collector(StatusCode::OK).await;
    let (traces, export) = Traces::new(Some(&endpoint), &Name::parse("i").unwrap());
    let export = tokio::spawn(export.unwrap());
    let span = traces.serve("grant", None);
    drop((span.child("audit"), span));
    drop((Traces::new(None, &Name::parse("i").unwrap()).0.serve("grant", parent()), traces));
    export.await.unwrap();
    assert!(taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nobody_time_and_what_it_misses_is_counted() {
    // A port on which nobody answers, and one where nobody takes anything.
    for (status, lost) in [(StatusCode::SERVICE_UNAVAILABLE, "dropped"), (StatusCode::BAD_REQUEST, "rejected")] {
        let (endpoint, _) = collector(status).await;
        let (traces, export) = Traces::new(Some(&endpoint), &Name::parse("i").unwrap());
        let export = tokio::spawn(export.unwrap());
        let meters = traces.meters().clone();
        drop(traces.serve("grant", parent()));
        until(|| ended(&meters, lost) == 1).await;
        drop(traces);
        export.await.unwrap();
        assert_eq!(ended(&meters, "exported"), 0);
    }
}

#[tokio::test]
async fn the_queue_is_bounded_and_nobody_waits_for_it() {
    // Nobody takes anything out of it.
    let (traces, export) = Traces::new(Some("http://127.0.0.1:1/v1/traces"), &Name::parse("i").unwrap());
    let began = Instant::now();
    for _ in 0..MOST_WAITING + 100 {
        drop(traces.serve("grant", parent()));
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(ended(traces.meters(), "dropped"), 100);
    drop(export);
    drop(traces.serve("grant", parent()));
    assert_eq!(ended(traces.meters(), "dropped"), 101, "nor once the end has come");
}

#[tokio::test]
async fn an_agents_flood_of_spans_costs_another_session_none() {
    let (traces, export) = Traces::new(Some("http://127.0.0.1:1/v1/traces"), &Name::parse("i").unwrap());
    let grant = |session: &str| {
        let grant = traces.serve("grant", parent());
        drop(grant.child("identity"));
        grant.says(SESSION, session);
        drop(grant.child("audit"));
    };
    grant("modest");
    (0..MOST_WAITING).for_each(|_| grant("greedy"));
    grant("modest");
    assert_eq!(ended(traces.meters(), "dropped"), 2 * MOST_WAITING as u64 + 6);
    drop(traces);
    drop(export);
}

#[test]
fn of_a_full_queue_the_other_sessions_spans_go_to_the_collector() {
    let waiting = Arc::new(Mutex::new(Fair::new(4)));
    let (wake, _woken) = channel(1);
    let queue = Queue { waiting: waiting.clone(), parts: Mutex::default(), wake, meters: SpanMeters::default() };
    let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
    let traces = Traces { tracer: Some(provider.tracer("attache")), meters: SpanMeters::default() };
    for session in ["greedy", "greedy", "greedy", "modest", "greedy"] {
        let grant = traces.serve("grant", parent());
        grant.says(SESSION, session);
        drop(grant.child("audit"));
    }
    let kept: Vec<_> = waiting.lock().unwrap().by_ref().map(|span| (span.name, span.attributes)).collect();
    let whole = |session: &str| kept.iter().filter(|(_, said)| format!("{said:?}").contains(session)).count();
    assert_eq!((kept.len(), whole("modest"), whole("greedy")), (4, 1, 1));
    assert_eq!(kept.iter().filter(|(name, _)| name == "audit").count(), 2);
}
