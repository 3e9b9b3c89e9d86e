//! A cold upload is pushed back while it waits for its grant, and then arrives whole; what the
//! judge's flag would make of it on the gate is the reason for two entries (`docs/decisions/0001`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attache_tests::agent::{Agent, PATIENCE, head};
use attache_tests::fake_broker::Endpoint;
use attache_tests::stack::{Plan, SOON};
use attache_tests::util::eventually;
use attache_tests::{FakeBroker, Latch, Response, Stack, Unanswered};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{HOST, bearer, placeholder, start};

const SIZE: usize = 64 << 20;
const PIECE: usize = 64 << 10;
/// What kernel and Envoy may hold of an upload that is pushed back: socket buffers of both ends
/// and Envoy's 1 MiB. Far below the upload.
const HELD: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_upload_stalls_until_its_grant_and_then_arrives_whole() {
    let stack = start(Plan::default().limit("callout_timeout: 10s")).await;
    let upload = body();
    for (n, http2) in [(0, false), (1, true)] {
        let latch = Latch::default();
        stack.broker.answer_grants(latch.before(|_| bearer().answer()));
        let mut upload = Upload::begin(&stack, http2, n, Arc::clone(&upload));
        let held = upload.stall().await;
        assert_eq!(stack.broker.calls(Endpoint::Grants), usize::from(n) + 1);
        assert!(held < if http2 { 1 << 20 } else { HELD }, "{held} bytes were taken without a grant");
        assert_eq!(stack.upstream().requests().len(), usize::from(n), "nothing of it before its grant");
        let released = latch.release();
        let answer = upload.answer().await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        println!("cold, shipped, HTTP/{}: {held} bytes held, then all in {:?}", 1 + n, released.elapsed());
        let hits = stack.upstream().requests();
        let hit = hits.last().expect("a request");
        assert_eq!(hits.len(), usize::from(n) + 1);
        assert!(hit.at >= released && hit.body[..] == upload.body[..], "not what was sent");
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flag_on_the_gate_would_answer_a_cold_upload_with_413() {
    let stack = start(Plan::default().limit("callout_timeout: 10s").edit(flag_the_gate)).await;
    let upload = body();
    for (n, http2) in [(0, false), (1, true)] {
        let latch = Latch::default();
        stack.broker.answer_grants(latch.before(|_| bearer().answer()));
        let mut upload = Upload::begin(&stack, http2, n, Arc::clone(&upload));
        let begun = Instant::now();
        let answer = upload.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.header("x-attache-reason")), (413, None), "Envoy's own refusal");
        println!("cold, flag on the gate, HTTP/{}: 413 after {:?}", 1 + n, begun.elapsed());
        latch.release();
    }
    assert!(stack.upstream().requests().is_empty());
    // Small bodies hold, and warm uploads pass: it fails where nobody would look. Nobody asks for the
    // grant of an upload that is gone, so the small one is what warms.
    for size in [512 << 10, 8 << 20] {
        let answer = stack.send("PUT", HOST, "/upload", &placeholder(2), &body()[..size]).await;
        assert_eq!(answer.status, 200, "{size} bytes: {}", answer.text());
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_paths_that_need_a_body_read_have_the_judge() {
    let stack = start(Plan::default()).await;
    let dump: Value = serde_json::from_str(&stack.envoy.config_dump().await).expect("JSON");
    let (mut judged, mut others) = (0, 0);
    routes(&dump, &mut |route| {
        let path = &route["match"]["headers"][0]["string_match"]["safe_regex"]["regex"];
        let asks = |path: &str| path.contains("/info/lfs/objects/batch") || path.contains("/graphql");
        let asks = path.as_str().is_some_and(asks);
        assert_eq!(route["typed_per_filter_config"]["attache.judge"].is_object(), asks, "{route:#}");
        if asks { judged += 1 } else { others += 1 }
    });
    assert!(judged >= 8 && others > judged, "both, by name and by prefix, open and closed: {judged}, {others}");
    stack.reconcile().await;
}

fn routes(node: &Value, see: &mut impl FnMut(&Value)) {
    match node {
        Value::Array(items) => items.iter().for_each(|item| routes(item, see)),
        Value::Object(members) => {
            if members.contains_key("match") {
                see(node);
            }
            members.values().for_each(|member| routes(member, see));
        }
        _ => {}
    }
}

/// The decision that was not taken: the gate itself, flagged.
fn flag_the_gate(bootstrap: &mut Value) {
    let filters = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
    let filters = bootstrap.pointer_mut(filters).and_then(Value::as_array_mut).expect("a chain");
    let gate = filters.iter_mut().find(|filter| filter["name"] == "attache.gate").expect("the gate");
    gate["typed_config"]["config"]["allow_on_headers_stop_iteration"] = true.into();
}

/// No two pieces alike: what is lost, doubled or moved shows.
fn body() -> Arc<Vec<u8>> {
    Arc::new((0..SIZE as u64 / 8).flat_map(u64::to_be_bytes).collect())
}

/// An upload on its way.
struct Upload {
    body: Arc<Vec<u8>>,
    sent: Arc<AtomicUsize>,
    answer: JoinHandle<Result<Response, Unanswered>>,
}

impl Upload {
    fn begin(stack: &Stack<FakeBroker>, http2: bool, n: u8, body: Arc<Vec<u8>>) -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let (agent, proxy) = (stack.agent(), stack.proxy);
        let (bearer, copy, counter) = (format!("Bearer {}", placeholder(n)), Arc::clone(&body), Arc::clone(&sent));
        let answer = tokio::spawn(async move {
            match http2 {
                true => over_http2(&agent, proxy, &bearer, &copy, &counter).await,
                false => over_http1(&agent, proxy, &bearer, &copy, &counter).await,
            }
        });
        Self { body, sent, answer }
    }

    /// Waits until nothing more is taken; how much was.
    async fn stall(&mut self) -> usize {
        const QUIET: Duration = Duration::from_millis(300);
        let (mut last, mut since) = (0, Instant::now());
        eventually(SOON, || {
            let sent = self.sent.load(Ordering::Relaxed);
            if sent != last {
                (last, since) = (sent, Instant::now());
            }
            sent > 0 && since.elapsed() >= QUIET
        })
        .await;
        last
    }

    async fn answer(&mut self) -> Result<Response, Unanswered> {
        (&mut self.answer).await.expect("the upload's task")
    }
}

async fn over_http1(
    agent: &Agent,
    proxy: std::net::SocketAddr,
    bearer: &str,
    body: &[u8],
    sent: &AtomicUsize,
) -> Result<Response, Unanswered> {
    let mut agent = agent.h1(proxy).await;
    let length = body.len();
    let head =
        format!("PUT /upload HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {bearer}\r\nContent-Length: {length}\r\n\r\n");
    agent.send(head).await.expect("sent");
    for piece in body.chunks(PIECE) {
        // A proxy that has answered may close: the answer is read all the same.
        if agent.send(piece).await.is_err() {
            break;
        }
        sent.fetch_add(piece.len(), Ordering::Relaxed);
    }
    agent.response(PATIENCE).await
}

async fn over_http2(
    agent: &Agent,
    proxy: std::net::SocketAddr,
    bearer: &str,
    body: &[u8],
    sent: &AtomicUsize,
) -> Result<Response, Unanswered> {
    let mut agent = agent.h2(proxy).await;
    let mut exchange = agent.start(head("PUT", HOST, "/upload", &[("authorization", bearer)]), false).await?;
    let pieces = body.chunks(PIECE);
    let last = pieces.len() - 1;
    for (at, piece) in pieces.enumerate() {
        if exchange.data(piece, at == last).await.is_err() {
            break;
        }
        sent.fetch_add(piece.len(), Ordering::Relaxed);
    }
    exchange.response(PATIENCE).await
}
