//! Where a rule asks what the body says, nothing goes upstream before the body has said it, in
//! whatever pieces it comes and whatever ends it.

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use attache_tests::agent::head;
use attache_tests::fake_broker::{Endpoint, Grant};
use attache_tests::stack::{GITHUB, Plan, SOON};
use attache_tests::util::{eventually, stands};
use attache_tests::{FakeBroker, Latch, Response, Stack};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{fence, placeholder, plan, start};

/// Where bodies decide.
#[derive(Clone, Copy)]
struct Place {
    host: &'static str,
    path: &'static str,
    /// What is announced there.
    media: &'static str,
}

const LFS: Place =
    Place { host: "github.com", path: "/o/r/info/lfs/objects/batch", media: "application/vnd.git-lfs+json" };
const GRAPHQL: Place = Place { host: "api.github.com", path: "/graphql", media: "application/json" };
/// What the judge reads at most, unless told otherwise.
const LIMIT: usize = 64 << 10;
const DOWNLOAD: &[u8] = br#"{"operation":"download","objects":[]}"#;
const QUERY: &[u8] = br#"{"query":"query Q{viewer{login}}","operationName":"Q"}"#;
const MUTATION: &[u8] = br#"{"query":"mutation M{deleteIssue(input:{}){clientMutationId}}","operationName":"M"}"#;
const UPLOAD: &[u8] = br#"{"operation":"upload","objects":[]}"#;

/// How a body is cut, and what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// HTTP/1, Content-Length.
    Length,
    /// HTTP/1, one chunk.
    Chunk,
    /// HTTP/1, a chunk for each byte.
    ChunkEach,
    /// HTTP/2, the last DATA frame ends it.
    Data,
    /// HTTP/2, a DATA frame for each byte, and an empty one.
    DataEach,
    /// HTTP/2, trailers end it.
    Trailers,
    /// HTTP/2, a DATA frame for each byte, and trailers.
    TrailersEach,
}

const FRAMINGS: [Framing; 7] = [
    Framing::Length,
    Framing::Chunk,
    Framing::ChunkEach,
    Framing::Data,
    Framing::DataEach,
    Framing::Trailers,
    Framing::TrailersEach,
];

/// Too many pieces for long bodies.
const BYTEWISE: [Framing; 3] = [Framing::ChunkEach, Framing::DataEach, Framing::TrailersEach];

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_read_whole_however_it_is_cut_and_ended() {
    let zip = |body: &[u8]| {
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        zipped.write_all(body).and_then(|()| zipped.finish()).expect("compressed")
    };
    let utf16 =
        |body: &[u8]| -> Vec<u8> { String::from_utf8_lossy(body).encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let (utf16_batch, zipped_batch) = (utf16(DOWNLOAD), zip(DOWNLOAD));
    let (utf16_query, zipped_query) = (utf16(QUERY), zip(QUERY));
    let batches: [(&[u8], &str); 12] = [
        (DOWNLOAD, "ok"),
        (br#"{"objects":[{"operation":"upload"}],"operation":"download"}"#, "ok"),
        (UPLOAD, "read_only"),
        (br#"{"operation":"verify"}"#, "read_only"),
        (br#"{"operation":"download","operation":"upload"}"#, "body_unreadable"),
        (br#"{"operation":"upload","operation":"download"}"#, "body_unreadable"),
        (br#"{"operation":"download","OPERATION":"upload"}"#, "body_unreadable"),
        (br#"{"operation":"download"}{"operation":"upload"}"#, "body_unreadable"),
        (b"\xef\xbb\xbf{\"operation\":\"download\"}", "body_unreadable"),
        (&utf16_batch, "body_unreadable"),
        (&zipped_batch, "body_unreadable"),
        (b"", "body_unreadable"),
    ];
    let documents: [(&[u8], &str); 10] = [
        (QUERY, "ok"),
        (br#"[{"query":"{a}"},{"query":"{b: mutation}"}]"#, "ok"),
        (MUTATION, "read_only"),
        (br#"[{"query":"{a}"},{"query":"mutation{a}"}]"#, "read_only"),
        (br#"{"query":"query Q{a} mutation M{b}","operationName":"M"}"#, "read_only"),
        (br#"{"query":"query Q{a} mutation M{b}"}"#, "body_unreadable"),
        (br#"{"query":"{a}","query":"mutation{a}"}"#, "body_unreadable"),
        (&utf16_query, "body_unreadable"),
        (&zipped_query, "body_unreadable"),
        (b"", "body_unreadable"),
    ];
    let bodies = batches.map(|(body, expected)| (LFS, body, expected)).into_iter();
    let bodies: Vec<_> = bodies.chain(documents.map(|(body, expected)| (GRAPHQL, body, expected))).collect();
    let stack = read_only(Plan::default()).await;
    for framing in FRAMINGS {
        for &(place, body, expected) in &bodies {
            let before = stack.upstream().requests().len();
            let answer = ask(&stack, place, framing, body).await;
            let what = format!("{framing:?} {}", body.escape_ascii());
            assert_eq!(verdict(&answer), expected, "{what}");
            let hits = stack.upstream().requests().split_off(before);
            assert_eq!(hits.len(), usize::from(expected == "ok"), "{what}: exactly what may go out");
            for hit in hits {
                assert_eq!(&hit.body[..], body, "{what}");
                assert_eq!(hit.header("authorization"), Some(basic()), "{what}");
                let ended_by_trailers = matches!(framing, Framing::Trailers | Framing::TrailersEach);
                assert_eq!(hit.trailers.has("x-end"), ended_by_trailers, "{what}");
            }
        }
    }
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_at_the_limit_is_read_and_one_byte_more_is_too_large() {
    let stack = read_only(Plan::default()).await;
    let padded = |size: usize| [DOWNLOAD, &vec![b' '; size - DOWNLOAD.len()]].concat();
    for framing in FRAMINGS.into_iter().filter(|framing| !BYTEWISE.contains(framing)) {
        for (size, expected) in [(LIMIT - 1, "ok"), (LIMIT, "ok"), (LIMIT + 1, "body_too_large")] {
            let answer = ask(&stack, LFS, framing, &padded(size)).await;
            assert_eq!(verdict(&answer), expected, "{framing:?}, {size} bytes");
            assert_eq!(answer.status == 413, expected == "body_too_large");
        }
    }
    assert!(stack.upstream().requests().iter().all(|hit| hit.body.len() <= LIMIT));
    // Announced, it is refused before any of it is sent.
    let mut agent = stack.agent().h1(stack.proxy).await;
    agent.send(h1_head(LFS, &format!("Content-Length: {}\r\n", LIMIT + 1))).await.expect("sent");
    assert_eq!(verdict(&agent.response(SOON).await.expect("an answer")), "body_too_large");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_to_judge_passes_where_nothing_is_judged() {
    for limit in ["body_limit: 1KiB", "body_limit: 64KiB", "body_limit: 128KiB"] {
        let stack = start(Plan::default().limit(limit)).await;
        stack.broker.grant(Grant::header("github", "authorization", &basic()));
        let body: Vec<u8> = (0..2u64 << 17).flat_map(u64::to_be_bytes).collect();
        // Not in HTTP/1 chunks: a short one, and a megabyte in the burst after it, is more than Envoy
        // holds while the judge waits.
        let framings = [Framing::Length, Framing::Data, Framing::Trailers];
        for (n, framing) in (1..).zip(framings) {
            let answer = ask(&stack, LFS, framing, &body).await;
            assert_eq!(verdict(&answer), "ok", "{limit}, {framing:?}: {} {}", answer.status, answer.text());
            let hit = stack.upstream().wait_for(n, SOON).await.pop().expect("a request");
            assert!(hit.body[..] == body[..], "{limit}, {framing:?}: not what was sent");
        }
        stack.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_comes_in_one_burst_passes() {
    let stack = start(Plan::default()).await;
    stack.broker.grant(Grant::header("github", "authorization", &basic()));
    let answer = burst(&stack, "/o/r/git-receive-pack").await;
    assert_eq!(verdict(&answer), "ok", "{}", answer.text());
    let pushed = stack.upstream().wait_for(1, SOON).await.remove(0);
    assert_eq!(pushed.body.len(), 1 + BURST, "whole");
    stack.reconcile().await;
}

const BURST: usize = 3 << 20;
/// What Envoy holds of one request: `per_connection_buffer_limit_bytes`.
const BUFFER: usize = 1 << 20;

/// A chunked body of which Envoy has seen a byte when megabytes come at once, as a busy proxy finds
/// them: when it looks again the kernel has taken more than its buffer holds. Where the judge stood on
/// the path, Envoy could have to keep them all, and answer 413.
async fn burst(stack: &Stack<FakeBroker>, path: &str) -> Response {
    let mut agent = stack.agent().h1(stack.proxy).await;
    agent.send(h1_head(LFS, "Transfer-Encoding: chunked\r\n").replace(LFS.path, path)).await.expect("sent");
    agent.send_chunk(b"x").await.expect("sent");
    fence(stack).await;
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &stack.envoy.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    };
    signal("-STOP");
    eventually(SOON, || stands(stack.envoy.pid())).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let sending = tokio::spawn(async move {
        let rest = [format!("{BURST:x}\r\n").as_bytes(), &vec![b'x'; BURST], b"\r\n0\r\n\r\n"].concat();
        for piece in rest.chunks(64 << 10) {
            // A proxy that has refused may close: the answer is read all the same.
            if agent.send(piece).await.is_err() {
                break;
            }
            counter.fetch_add(piece.len(), Ordering::Relaxed);
        }
        agent.response(SOON).await
    });
    eventually(SOON, || taken.load(Ordering::Relaxed) > BUFFER).await;
    signal("-CONT");
    sending.await.expect("the agent").expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_upstream_before_the_body_has_been_read() {
    let stack = read_only(plan()).await;
    assert_eq!(verdict(&ask(&stack, LFS, Framing::Length, DOWNLOAD).await), "ok", "the grant is there already");
    let (first, second) = DOWNLOAD.split_at(20);

    let mut http1 = stack.agent().h1(stack.proxy).await;
    http1.send(h1_head(LFS, "Transfer-Encoding: chunked\r\n")).await.expect("sent");
    http1.send_chunk(first).await.expect("sent");
    let mut http2 = stack.agent().raw_h2(stack.proxy).await;
    let stream = http2.headers(&h2_fields(LFS, &placeholder(0)), false).await;
    http2.data(stream, DOWNLOAD, false).await.expect("sent");
    fence(&stack).await;
    assert_eq!((stack.upstream().requests().len(), stack.upstream().connections().len()), (1, 1));

    let whole = Instant::now();
    http1.send_chunk(second).await.expect("sent");
    http1.send_chunk(b"").await.expect("sent");
    http2.trailers(stream, &[("x-end", "last")]).await.expect("sent");
    assert_eq!(verdict(&http1.response(SOON).await.expect("an answer")), "ok");
    assert_eq!(verdict(&http2.response(stream, SOON).await.expect("an answer")), "ok");
    let hits = stack.upstream().wait_for(3, SOON).await;
    assert!(hits[1..].iter().all(|hit| hit.at >= whole && hit.body[..] == *DOWNLOAD));
    stack.reconcile().await;
}

/// What has come so far is a query; what comes last makes it a mutation, whatever brings the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_judged_by_its_end() {
    let stack = read_only(plan()).await;
    assert_eq!(verdict(&ask(&stack, GRAPHQL, Framing::Length, QUERY).await), "ok", "the grant is there already");
    let (query, last) = (br#"[{"query":"{a}"}"#, br#",{"query":"mutation{a}"}]"#);

    let mut http1 = stack.agent().h1(stack.proxy).await;
    http1.send(h1_head(GRAPHQL, "Transfer-Encoding: chunked\r\n")).await.expect("sent");
    http1.send_chunk(query).await.expect("sent");
    let mut http2 = stack.agent().raw_h2(stack.proxy).await;
    let stream = http2.headers(&h2_fields(GRAPHQL, &placeholder(0)), false).await;
    http2.data(stream, query, false).await.expect("sent");
    fence(&stack).await;
    http1.send_chunk(last).await.expect("sent");
    http1.send_chunk(b"").await.expect("sent");
    http2.data(stream, last, false).await.expect("sent");
    fence(&stack).await;
    http2.trailers(stream, &[("x-end", "last")]).await.expect("sent");
    assert_eq!(verdict(&http1.response(SOON).await.expect("an answer")), "read_only");
    assert_eq!(verdict(&http2.response(stream, SOON).await.expect("an answer")), "read_only");
    assert_eq!((stack.upstream().requests().len(), stack.upstream().connections().len()), (1, 1));
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judged_body_waits_for_its_grant_too() {
    let stack = start(plan()).await;
    let latch = Latch::default();
    stack.broker.answer_grants(latch.before(|_| reading().answer()));
    let mut agent = stack.agent().raw_h2(stack.proxy).await;
    let stream = agent.headers(&h2_fields(LFS, &placeholder(0)), false).await;
    agent.data(stream, DOWNLOAD, false).await.expect("sent");
    fence(&stack).await;
    assert_eq!(stack.broker.calls(Endpoint::Grants), 0, "nobody is asked before the body is whole");
    agent.trailers(stream, &[("x-end", "last")]).await.expect("sent");
    eventually(SOON, || stack.broker.calls(Endpoint::Grants) == 1).await;
    fence(&stack).await;
    assert_eq!(stack.upstream().connections().len(), 0);
    let released = latch.release();
    assert_eq!(verdict(&agent.response(stream, SOON).await.expect("an answer")), "ok");
    let hit = stack.upstream().wait_for(1, SOON).await.remove(0);
    assert!(hit.at >= released && hit.body[..] == *DOWNLOAD && hit.trailers.has("x-end"));
    stack.reconcile().await;
}

async fn read_only(plan: Plan) -> Stack<FakeBroker> {
    let stack = start(plan).await;
    stack.broker.grant(reading());
    stack
}

fn reading() -> Grant {
    Grant { access_mode: "read-only".into(), ..Grant::header("github", "authorization", &basic()) }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("x-access-token:{GITHUB}")))
}

/// `ok`, or the reason for the refusal.
fn verdict(answer: &Response) -> String {
    match answer.header("x-attache-reason") {
        Some(reason) => reason,
        None if answer.status == 200 => "ok".to_owned(),
        None => format!("Envoy says {}", answer.status),
    }
}

fn h1_head(Place { host, path, media }: Place, framing: &str) -> String {
    let bearer = placeholder(0);
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\nContent-Type: {media}\r\n{framing}\r\n"
    )
}

fn h2_fields(Place { host, path, media }: Place, placeholder: &str) -> [(&'static str, String); 7] {
    let fields = [":method", ":scheme", ":path", ":authority", "authorization", "te", "content-type"];
    let bearer = format!("Bearer {placeholder}");
    let values = ["POST", "http", path, host, &bearer, "trailers", media].map(str::to_owned);
    let mut values = values.into_iter();
    fields.map(|name| (name, values.next().unwrap_or_default()))
}

/// One request, cut in this way, and its answer.
async fn ask(stack: &Stack<FakeBroker>, place: Place, framing: Framing, body: &[u8]) -> Response {
    let agent = stack.agent();
    match framing {
        Framing::Length | Framing::Chunk | Framing::ChunkEach => {
            let mut agent = agent.h1(stack.proxy).await;
            let header = match framing {
                Framing::Length => format!("Content-Length: {}\r\n", body.len()),
                _ => "Transfer-Encoding: chunked\r\n".to_owned(),
            };
            agent.send(h1_head(place, &header)).await.expect("sent");
            // A proxy that has refused may close: the answer is read all the same.
            match framing {
                Framing::Length => agent.send(body).await.ok(),
                _ => {
                    let size = if framing == Framing::Chunk { body.len().max(1) } else { 1 };
                    for chunk in body.chunks(size).chain([&b""[..]]) {
                        agent.send_chunk(chunk).await.ok();
                    }
                    None
                }
            };
            agent.response(SOON).await
        }
        Framing::Data | Framing::DataEach | Framing::Trailers | Framing::TrailersEach => {
            let mut agent = agent.h2(stack.proxy).await;
            let bearer = format!("Bearer {}", placeholder(0));
            let head = head(
                "POST",
                place.host,
                place.path,
                &[("authorization", &bearer), ("te", "trailers"), ("content-type", place.media)],
            );
            let mut exchange = agent.start(head, false).await.expect("begun");
            let trailers = matches!(framing, Framing::Trailers | Framing::TrailersEach);
            let size = if BYTEWISE.contains(&framing) { 1 } else { body.len().max(1) };
            for piece in body.chunks(size) {
                let last = framing == Framing::Data && piece.len() == body.len();
                exchange.data(piece, last).await.ok();
            }
            if trailers {
                let end = [("x-end".parse().expect("a name"), "last".parse().expect("a value"))];
                exchange.trailers(end.into_iter().collect()).ok();
            } else if framing == Framing::DataEach || body.is_empty() {
                exchange.data(b"", true).await.ok();
            }
            exchange.response(SOON).await
        }
    }
    .unwrap_or_else(|why| panic!("{framing:?}, {} bytes: {why}", body.len()))
}
